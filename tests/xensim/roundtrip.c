/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * roundtrip: stands in for libxl. Starts one libxl-save-helper that saves a domain of one simulated host and one that restores it
 * at another, joined by a socket pair, and answers what they ask.
 *
 *   roundtrip FROM DOMID SAVE_HELPER TO DOMID RESTORE_HELPER [KEY=VALUE...]
 *
 * FROM and TO are sockets of xensimd; TO "-": the stream goes nowhere. Keys: checkpoints=N (0 = a plain save),
 * interval=MS, live=0|1, write=PAGES (the guest writes so many before each further checkpoint), ask=0|1 (the guest suspends by itself,
 * or is stopped), limit=S.
 *
 * Prints one line: how both helpers ended, and the hash of the guest's memory at its last suspend. Exit 0: both ended as
 * they should.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/sim_link.h"

#define ANSWER_MAX 4096
#define MESSAGE_MAX 65536

/* Messages of the helper. */
enum {
    MSG_LOG = 1,
    MSG_PROGRESS,
    MSG_SUSPEND,
    MSG_POSTCOPY,
    MSG_CHECKPOINT,
    MSG_WAIT,
    MSG_LOGDIRTY,
    MSG_STATIC,
    MSG_RESULTS,
    MSG_COMPLETE
};

struct helper {
    const char *socket, *program;
    unsigned int domid;
    bool restores;
    struct sim_link link;
    pid_t pid;
    int in, out; /* its stdin and stdout */
    bool ended;
    int retval, error, status; /* what it said last, how it exited */
};

static struct {
    unsigned long checkpoints, interval, live, write, ask, limit;
    unsigned long taken;
    char hash[64];
    unsigned long long pause_ns, suspended_at, pause_max;
} opt = {.live = 1, .ask = 1, .limit = 60};

static unsigned long long now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (unsigned long long)ts.tv_sec * 1000000000ULL + (unsigned long long)ts.tv_nsec;
}

static void sleep_ms(unsigned long ms)
{
    struct timespec ts = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000L};

    while (nanosleep(&ts, &ts) && errno == EINTR)
        ;
}

static int control(struct helper *h, char answer[ANSWER_MAX], const char *command, unsigned long n)
{
    char line[128];
    struct sim_request req = {SIM_CONTROL, 0, {(uintptr_t)line, 0, (uintptr_t)answer, ANSWER_MAX}};

    req.args[1] = (uint64_t)snprintf(line, sizeof(line), "%s %u %lu", command, h->domid, n);
    *answer = 0;
    if (sim_link_request(&h->link, &req, NULL, NULL) >= 0) return 0;
    fprintf(stderr, "roundtrip: %s: %s\n", line, *answer ? answer : strerror(errno));
    return -1;
}

/* Until the guest has suspended. 1, or 0 as the helper understands it. */
static int suspend(struct helper *h)
{
    char answer[ANSWER_MAX];

    if (control(h, answer, opt.ask ? "ask" : "shutdown", 2)) return 0;
    for (;;) {
        if (control(h, answer, "info", 0)) return 0;
        if (strstr(answer, "shutdown=1")) break;
        sleep_ms(1);
    }
    if (control(h, answer, "hash", 0)) return 0;
    snprintf(opt.hash, sizeof(opt.hash), "%.*s", (int)strcspn(answer, "\n"), answer);
    opt.suspended_at = now_ns();
    return 1;
}

static int resume(struct helper *h)
{
    char answer[ANSWER_MAX];
    unsigned long long pause = now_ns() - opt.suspended_at;

    opt.pause_ns += pause;
    if (pause > opt.pause_max) opt.pause_max = pause;
    return !control(h, answer, "resume", 0);
}

static int checkpoint(struct helper *h)
{
    char answer[ANSWER_MAX];

    if (h->restores) return 1;
    if (++opt.taken >= opt.checkpoints) return 0;
    sleep_ms(opt.interval);
    if (opt.write && control(h, answer, "write", opt.write)) return 0;
    return 1;
}

/* Its parameters and results on stderr when it says something of weight. */
static void show_log(const struct helper *h, const unsigned char *body, size_t len)
{
    uint32_t level, context_len, text_len;

    if (len < 14) return;
    memcpy(&level, body + 2, 4);
    memcpy(&context_len, body + 10, 4);
    if (level < 7 || context_len > len - 14 || len - 14 - context_len < 4) return;
    memcpy(&text_len, body + 14 + context_len, 4);
    if (text_len > len - 18 - context_len) return;
    fprintf(stderr, "%s: %.*s\n", h->restores ? "restore" : "save", (int)text_len,
            (const char *)body + 18 + context_len);
}

/* The answer; *asks false when none is wanted. */
static int handle(struct helper *h, const unsigned char *body, size_t len, bool *asks)
{
    uint16_t type;

    memcpy(&type, body, sizeof(type));
    *asks = true;
    switch (type) {
    case MSG_SUSPEND:
        return h->restores ? 0 : suspend(h);
    case MSG_POSTCOPY:
        return h->restores ? 0 : resume(h);
    case MSG_CHECKPOINT:
        return checkpoint(h);
    case MSG_LOGDIRTY:
    case MSG_STATIC:
        return 0;
    case MSG_COMPLETE:
        if (len >= 10) {
            memcpy(&h->retval, body + 2, 4);
            memcpy(&h->error, body + 6, 4);
        }
        return 0;
    case MSG_LOG:
        show_log(h, body, len);
        /* fall through */
    default:
        *asks = false;
        return 0;
    }
}

static bool read_whole(int fd, void *to, size_t len)
{
    size_t at = 0;

    while (at < len) {
        ssize_t n = read(fd, (char *)to + at, len - at);

        if (n <= 0 && !(n < 0 && errno == EINTR)) return false;
        if (n > 0) at += (size_t)n;
    }
    return true;
}

static void serve(struct helper *h)
{
    unsigned char body[MESSAGE_MAX];
    uint16_t len;
    bool asks;
    int reply;

    if (!read_whole(h->out, &len, sizeof(len)) || len < 2 || !read_whole(h->out, body, len)) {
        h->ended = true;
        if (waitpid(h->pid, &h->status, 0) < 0) h->status = -1;
        return;
    }
    reply = handle(h, body, len, &asks);
    if (asks && write(h->in, &reply, sizeof(reply)) != sizeof(reply)) h->error = EPIPE;
}

static void exec_helper(const struct helper *h, int stream)
{
    char fd[16], domid[16], flags[16], cb[16], type[2] = {opt.checkpoints ? '1' : '0', 0};
    unsigned int bits =
        h->restores ? 1 << MSG_STATIC | 1 << MSG_RESULTS : 1 << MSG_SUSPEND | 1 << MSG_LOGDIRTY;

    if (opt.checkpoints) bits |= 1 << MSG_CHECKPOINT | (h->restores ? 0 : 1 << MSG_POSTCOPY);
    snprintf(fd, sizeof(fd), "%d", stream);
    snprintf(domid, sizeof(domid), "%u", h->domid);
    snprintf(flags, sizeof(flags), "%lu", opt.live);
    snprintf(cb, sizeof(cb), "%u", bits);
    sim_enter_host(h->socket);
    fcntl(stream, F_SETFD, 0);
    if (h->restores)
        execl(h->program, h->program, "--restore-domain", fd, "-1", domid, "1", "0", "2", "0", cb,
              type, (char *)NULL);
    else
        execl(h->program, h->program, "--save-domain", fd, "-1", domid, flags, cb, type,
              (char *)NULL);
    fprintf(stderr, "roundtrip: %s: %s\n", h->program, strerror(errno));
    _exit(127);
}

static int start(struct helper *h, int stream)
{
    int to[2], from[2];

    setenv(SIM_ENV_SOCKET, h->socket, 1);
    if (sim_link_open(&h->link)) {
        fprintf(stderr, "roundtrip: no host at %s: %s\n", h->socket, strerror(errno));
        return -1;
    }
    if (pipe2(to, O_CLOEXEC) || pipe2(from, O_CLOEXEC)) return -1;
    h->pid = fork();
    if (h->pid < 0) return -1;
    if (!h->pid) {
        signal(SIGPIPE, SIG_DFL);
        dup2(to[0], 0);
        dup2(from[1], 1);
        exec_helper(h, stream);
    }
    close(to[0]);
    close(from[1]);
    close(stream);
    h->in = to[1];
    h->out = from[0];
    return 0;
}

static void run(struct helper *helpers, int count)
{
    struct pollfd fds[2];
    int i, left;

    for (;;) {
        for (i = left = 0; i < count; i++) {
            fds[i] = (struct pollfd){helpers[i].ended ? -1 : helpers[i].out, POLLIN, 0};
            left += !helpers[i].ended;
        }
        if (!left) return;
        if (poll(fds, (nfds_t)count, -1) < 0) continue;
        for (i = 0; i < count; i++)
            if (fds[i].revents) serve(&helpers[i]);
    }
}

static bool parse_key(const char *word)
{
    static const struct {
        const char *name;
        unsigned long *value;
    } keys[] = {{"checkpoints=", &opt.checkpoints},
                {"interval=", &opt.interval},
                {"live=", &opt.live},
                {"write=", &opt.write},
                {"ask=", &opt.ask},
                {"limit=", &opt.limit}};
    size_t i, len;
    char *end;

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        len = strlen(keys[i].name);
        if (strncmp(word, keys[i].name, len)) continue;
        *keys[i].value = strtoul(word + len, &end, 10);
        return word[len] && !*end;
    }
    return false;
}

static bool good(const struct helper *h)
{
    /* Checkpointing ends by the parent's 0, which the helper takes as a failure. */
    if (!h->restores && opt.checkpoints)
        return opt.taken == opt.checkpoints && WIFEXITED(h->status) && !WEXITSTATUS(h->status);
    return !h->retval && WIFEXITED(h->status) && !WEXITSTATUS(h->status);
}

static void print_end(const char *name, const struct helper *h)
{
    printf("%s=%d errno=%d ", name, h->retval, h->error);
    if (WIFEXITED(h->status))
        printf("exit=%d ", WEXITSTATUS(h->status));
    else
        printf("signal=%d ", WTERMSIG(h->status));
}

static int report(const struct helper *h, int count)
{
    unsigned long n = opt.taken ? opt.taken : 1;

    print_end("save", &h[0]);
    if (count > 1) print_end("restore", &h[1]);
    printf("checkpoints=%lu pause_mean_us=%llu pause_max_us=%llu hash=%s\n", opt.taken,
           opt.pause_ns / n / 1000, opt.pause_max / 1000, opt.hash);
    return good(&h[0]) && (count == 1 || good(&h[1])) ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct helper h[2] = {{.retval = -1}, {.retval = -1, .restores = true}};
    int i, count, stream[2];

    if (argc < 7) {
        fprintf(stderr,
                "usage: roundtrip FROM DOMID SAVE_HELPER TO DOMID RESTORE_HELPER [KEY=VALUE...]\n");
        return 2;
    }
    for (i = 7; i < argc; i++)
        if (!parse_key(argv[i])) {
            fprintf(stderr, "roundtrip: '%s' is not understood\n", argv[i]);
            return 2;
        }
    for (i = 0; i < 2; i++) {
        h[i].socket = argv[1 + 3 * i];
        h[i].domid = (unsigned int)strtoul(argv[2 + 3 * i], NULL, 10);
        h[i].program = argv[3 + 3 * i];
    }
    count = strcmp(argv[4], "-") ? 2 : 1;
    signal(SIGPIPE, SIG_IGN);
    alarm((unsigned int)opt.limit);
    if (count == 1)
        stream[0] = open("/dev/null", O_WRONLY | O_CLOEXEC);
    else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream))
        return 1;
    if (stream[0] < 0 || start(&h[0], stream[0]) || (count == 2 && start(&h[1], stream[1])))
        return 1;
    run(h, count);
    return report(h, count);
}
