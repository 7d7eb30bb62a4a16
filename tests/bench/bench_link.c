/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One saving helper, ours or Debian's, on a simulated host (docs/misc/xensim.md): how long the guest stands still for it, how
 * much comes out and how fast. Stands in for libxl and for what is behind the link.
 *
 *   bench_link SOCKET DOMID HELPER [checkpoints=N] [write=PAGES] [rate=MB] [sink=null|pipe]
 *
 * checkpoints=0: a plain save. write: the guest writes so many pages before each checkpoint. rate: the link takes
 * so many MB/s; without it and with sink=null the stream goes to /dev/null.
 * Prints "pause_us=MEDIAN best_us=SHORTEST total_us=N cpu_us=N bytes=N"; the last but one is the helper's. The pause is what the helper makes of it: from the answer to its
 * suspend() until it calls postcopy().
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/sim_link.h"

enum { MSG_LOG = 1, MSG_PROGRESS, MSG_SUSPEND, MSG_POSTCOPY, MSG_CHECKPOINT, MSG_LOGDIRTY = 7 };
#define MSG_COMPLETE 10
#define ANSWER_MAX 4096
#define MESSAGE_MAX 65536
#define CHECKPOINTS_MAX 1000
#define SKIP 2 /* the first checkpoints are about other things */
#define SHUTDOWN_SUSPEND 2

static struct {
    const char *socket, *helper, *sink;
    unsigned int domid;
    unsigned long checkpoints, write, rate;
} opt = {.sink = "null"};

static struct {
    struct sim_link link;
    pid_t pid;
    int in, out, drain;
    bool ended;
    int retval;
    unsigned long taken, pauses;
    uint64_t suspended_us, pause_us[CHECKPOINTS_MAX];
    uint64_t drained;
} run;

static uint64_t now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void fail(const char *what)
{
    fprintf(stderr, "bench_link: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A command of xensimctl about our domain. */
static void control(const char *command, unsigned long n, char answer[ANSWER_MAX])
{
    char line[128];
    struct sim_request req = {SIM_CONTROL, 0, {(uintptr_t)line, 0, (uintptr_t)answer, ANSWER_MAX}};

    req.args[1] = (uint64_t)snprintf(line, sizeof(line), "%s %u %lu", command, opt.domid, n);
    *answer = 0;
    if (sim_link_request(&run.link, &req, NULL, NULL) < 0) fail(line);
}

/* ---- the link ---- */

/* Reads what comes, not faster than the rate. */
static void *drain(void *unused)
{
    static char buf[256 << 10];
    uint64_t started = 0, due;
    ssize_t n;

    (void)unused;
    while ((n = read(run.drain, buf, opt.rate ? 16 << 10 : sizeof(buf))) > 0) {
        if (!started || now_us() > started + run.drained / (opt.rate ? opt.rate : 1) + 20000) {
            /* It was idle: what was not sent then cannot be made up for. */
            started = now_us() - run.drained / (opt.rate ? opt.rate : 1);
        }
        run.drained += (uint64_t)n;
        due = opt.rate ? started + run.drained / opt.rate : 0;
        if (due > now_us() + 1000) usleep((useconds_t)(due - now_us()));
    }
    return NULL;
}

static int open_sink(pthread_t *thread, bool *threaded)
{
    int fds[2];

    *threaded = opt.rate || strcmp(opt.sink, "null");
    if (!*threaded) return open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (pipe2(fds, O_CLOEXEC)) fail("pipe");
    run.drain = fds[0];
    if (pthread_create(thread, NULL, drain, NULL)) fail("thread");
    return fds[1];
}

/* ---- the toolstack ---- */

static int suspend(void)
{
    char answer[ANSWER_MAX];

    control("shutdown", SHUTDOWN_SUSPEND, answer);
    do
        control("info", 0, answer);
    while (!strstr(answer, "shutdown=1"));
    run.suspended_us = now_us();
    return 1;
}

static int resume(void)
{
    char answer[ANSWER_MAX];

    if (run.pauses < CHECKPOINTS_MAX) run.pause_us[run.pauses++] = now_us() - run.suspended_us;
    control("resume", 0, answer);
    return 1;
}

static int checkpoint(void)
{
    char answer[ANSWER_MAX];

    if (++run.taken >= opt.checkpoints) return 0;
    if (opt.write) control("write", opt.write, answer);
    return 1;
}

static int answer_to(const unsigned char *body, size_t len, bool *asks)
{
    uint16_t type;

    memcpy(&type, body, sizeof(type));
    *asks = type != MSG_LOG && type != MSG_PROGRESS;
    if (type == MSG_SUSPEND) return suspend();
    if (type == MSG_POSTCOPY) return resume();
    if (type == MSG_CHECKPOINT) return checkpoint();
    if (type == MSG_COMPLETE && len >= 6) memcpy(&run.retval, body + 2, sizeof(run.retval));
    return 0;
}

static bool read_whole(void *to, size_t len)
{
    size_t at = 0;

    while (at < len) {
        ssize_t n = read(run.out, (char *)to + at, len - at);

        if (n <= 0) return false;
        at += (size_t)n;
    }
    return true;
}

static void serve(void)
{
    static unsigned char body[MESSAGE_MAX];
    uint16_t len;
    bool asks;
    int reply;

    while (read_whole(&len, sizeof(len)) && len >= 2 && read_whole(body, len)) {
        reply = answer_to(body, len, &asks);
        if (asks && write(run.in, &reply, sizeof(reply)) != sizeof(reply)) fail("the helper");
    }
}

static void start_helper(int stream)
{
    char fd[16], domid[16], cb[16], *type = opt.checkpoints ? "1" : "0";
    unsigned int bits = 1 << MSG_SUSPEND | 1 << MSG_LOGDIRTY;
    int to[2], from[2];

    if (opt.checkpoints) bits |= 1 << MSG_CHECKPOINT | 1 << MSG_POSTCOPY;
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC)) fail("pipe");
    run.pid = fork();
    if (run.pid < 0) fail("fork");
    if (!run.pid) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        fcntl(stream, F_SETFD, 0);
        snprintf(fd, sizeof(fd), "%d", stream);
        snprintf(domid, sizeof(domid), "%u", opt.domid);
        snprintf(cb, sizeof(cb), "%u", bits);
        execl(opt.helper, opt.helper, "--save-domain", fd, "-1", domid, opt.checkpoints ? "1" : "0",
              cb, type, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    close(stream);
    run.in = to[1];
    run.out = from[0];
}

/* ---- numbers ---- */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static uint64_t cpu_us(const struct rusage *used)
{
    return (uint64_t)(used->ru_utime.tv_sec + used->ru_stime.tv_sec) * 1000000 +
           (uint64_t)(used->ru_utime.tv_usec + used->ru_stime.tv_usec);
}

static void report(uint64_t total_us, const struct rusage *used)
{
    uint64_t *pauses = run.pause_us, n = run.pauses, median = 0, best = 0;

    if (n > SKIP) {
        pauses += SKIP;
        n -= SKIP;
    }
    qsort(pauses, n, sizeof(*pauses), compare);
    if (n) {
        median = pauses[n / 2];
        best = pauses[0];
    }
    printf("pause_us=%lu best_us=%lu total_us=%lu cpu_us=%lu bytes=%lu\n", (unsigned long)median,
           (unsigned long)best, (unsigned long)total_us, (unsigned long)cpu_us(used),
           (unsigned long)run.drained);
}

static bool parse(const char *word)
{
    static const struct {
        const char *name;
        unsigned long *value, max;
    } keys[] = {{"checkpoints=", &opt.checkpoints, CHECKPOINTS_MAX},
                {"write=", &opt.write, 1 << 24},
                {"rate=", &opt.rate, 100000}};
    size_t i, len;
    char *end;

    if (!strcmp(word, "sink=pipe") || !strcmp(word, "sink=null")) {
        opt.sink = word + 5;
        return true;
    }
    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        len = strlen(keys[i].name);
        if (strncmp(word, keys[i].name, len)) continue;
        *keys[i].value = strtoul(word + len, &end, 10);
        return word[len] && !*end && *keys[i].value <= keys[i].max;
    }
    return false;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    struct rusage used;
    uint64_t started;
    bool threaded;
    int i, status;

    if (argc < 4) {
        fprintf(stderr, "usage: bench_link SOCKET DOMID HELPER [KEY=VALUE...]\n");
        return 2;
    }
    for (i = 4; i < argc; i++)
        if (!parse(argv[i])) {
            fprintf(stderr, "bench_link: '%s' is not understood\n", argv[i]);
            return 2;
        }
    opt.socket = argv[1];
    opt.domid = (unsigned int)strtoul(argv[2], NULL, 10);
    opt.helper = argv[3];
    setenv("XENSIM_SOCKET", opt.socket, 1);
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    if (sim_link_open(&run.link)) fail(opt.socket);
    started = now_us();
    start_helper(open_sink(&thread, &threaded));
    serve();
    started = now_us() - started;
    if (threaded) pthread_join(thread, NULL);
    if (wait4(run.pid, &status, 0, &used) < 0 || !WIFEXITED(status) || WEXITSTATUS(status)) {
        fprintf(stderr, "bench_link: the helper failed\n");
        return 1;
    }
    if (!opt.checkpoints && run.retval) return 1;
    report(started, &used);
    return 0;
}
