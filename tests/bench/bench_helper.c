/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench_helper.h"
#include "sim_link.h"

#define MESSAGE_MAX 65536

uint64_t bench_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

void bench_fail(const char *what)
{
    fprintf(stderr, "bench_link: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void exec_helper(const struct bench_helper *h, int stream)
{
    char fd[16], domid[16], cb[16], *type = h->checkpointed ? "1" : "0";
    unsigned int bits =
        h->restores ? 1 << MSG_STATIC | 1 << MSG_RESULTS : 1 << MSG_SUSPEND | 1 << MSG_LOGDIRTY;

    if (h->checkpointed) bits |= 1 << MSG_CHECKPOINT | (h->restores ? 0 : 1 << MSG_POSTCOPY);
    fcntl(stream, F_SETFD, 0);
    sim_enter_host(h->socket);
    snprintf(fd, sizeof(fd), "%d", stream);
    snprintf(domid, sizeof(domid), "%u", h->domid);
    snprintf(cb, sizeof(cb), "%u", bits);
    if (h->restores)
        execl(h->program, h->program, "--restore-domain", fd, "-1", domid, "1", "0", "2", "0", cb,
              type, (char *)NULL);
    else
        execl(h->program, h->program, "--save-domain", fd, "-1", domid, h->live ? "1" : "0", cb,
              type, (char *)NULL);
    _exit(127);
}

void bench_helper_start(struct bench_helper *h, int stream)
{
    int to[2], from[2];

    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC)) bench_fail("pipe");
    h->pid = fork();
    if (h->pid < 0) bench_fail("fork");
    if (!h->pid) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        exec_helper(h, stream);
    }
    close(to[0]);
    close(from[1]);
    close(stream);
    h->in = to[1];
    h->out = from[0];
}

static bool read_whole(int fd, void *to, size_t len)
{
    size_t at = 0;

    while (at < len) {
        ssize_t n = read(fd, (char *)to + at, len - at);

        if (n <= 0) return false;
        at += (size_t)n;
    }
    return true;
}

void bench_helper_serve(struct bench_helper *h)
{
    unsigned char body[MESSAGE_MAX];
    uint16_t len, type;
    int reply;

    while (read_whole(h->out, &len, sizeof(len)) && len >= 2 && read_whole(h->out, body, len)) {
        memcpy(&type, body, sizeof(type));
        if (type == MSG_LOG || type == MSG_PROGRESS || type == MSG_RESULTS) continue;
        reply = 0;
        if (type != MSG_COMPLETE)
            reply = h->answer(type);
        else if (len >= 6)
            memcpy(&h->retval, body + 2, sizeof(h->retval));
        if (write(h->in, &reply, sizeof(reply)) != sizeof(reply)) bench_fail("the helper");
    }
}

bool bench_helper_end(struct bench_helper *h)
{
    int status;

    return waitpid(h->pid, &status, 0) == h->pid && WIFEXITED(status) && !WEXITSTATUS(status);
}

void bench_helper_sample(struct bench_helper *h)
{
    char path[64], line[128];
    uint64_t kib;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)h->pid);
    f = fopen(path, "re");
    if (!f) return;
    while (fgets(line, sizeof(line), f))
        if (sscanf(line, "RssAnon: %" SCNu64 " kB", &kib) == 1 && kib > h->own_kib)
            h->own_kib = kib;
    fclose(f);
}

uint64_t bench_helper_cpu_us(const struct bench_helper *h)
{
    uint64_t ns = 0;
    char path[64];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)h->pid);
    f = fopen(path, "re");
    if (!f) bench_fail(path);
    if (fscanf(f, "%" SCNu64, &ns) != 1) ns = 0;
    fclose(f);
    return ns / 1000;
}
