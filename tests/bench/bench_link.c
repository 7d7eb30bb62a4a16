/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One saving helper, ours or Debian's, on a simulated host (docs/misc/xensim.md), alone or with one that restores on another
 * host: how long the guest stands still for it, how much comes out, how fast, with how much memory. Stands in for libxl and for the link.
 *
 *   bench_link SOCKET DOMID HELPER [checkpoints=N] [write=PAGES] [rate=MB] [live=0|1] [sink=null|pipe] [to=SOCKET:DOMID:HELPER]
 *
 * checkpoints=0: a plain save. write: the guest writes so many pages before each checkpoint. rate: the link takes
 * so many MB/s; without it and with sink=null the stream goes to /dev/null. to: it goes to a helper that restores.
 * Prints "pause_us=MEDIAN best_us=SHORTEST total_us=N cost_us=N bytes=N save_kib=N restore_kib=N"; cost_us: CPU time of the
 * saving helper for its cheapest checkpoint; the last two are memory of their own, looked at around each checkpoint. The pause is what the helper makes of it: from the answer to its
 * suspend() until it calls postcopy(). bytes only where they pass through here.
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
#include <sys/socket.h>
#include <unistd.h>

#include "bench_helper.h"
#include "lib/sim_link.h"

#define ANSWER_MAX 4096
#define CHECKPOINTS_MAX 1000
#define SKIP 2 /* the first checkpoints are about other things */
#define SHUTDOWN_SUSPEND 2

static struct {
    const char *sink;
    unsigned long checkpoints, write, rate, live;
} opt = {.sink = "null"};

static struct {
    struct sim_link link;
    struct bench_helper save, restore; /* the latter's program NULL: there is none */
    int drain, onward;                 /* the throttled link: from here to there, or nowhere (-1) */
    unsigned long taken, pauses;
    uint64_t suspended_us, pause_us[CHECKPOINTS_MAX];
    uint64_t used_us, cost_us; /* CPU time so far, and of the cheapest checkpoint */
    uint64_t drained;
} run = {.drain = -1, .onward = -1};

/* A command of xensimctl about our domain. */
static void control(const char *command, unsigned long n, char answer[ANSWER_MAX])
{
    char line[128];
    struct sim_request req = {SIM_CONTROL, 0, {(uintptr_t)line, 0, (uintptr_t)answer, ANSWER_MAX}};

    req.args[1] = (uint64_t)snprintf(line, sizeof(line), "%s %u %lu", command, run.save.domid, n);
    *answer = 0;
    if (sim_link_request(&run.link, &req, NULL, NULL) < 0) bench_fail(line);
}

/* ---- the link ---- */

static bool pass_on(const char *buf, size_t len)
{
    while (run.onward >= 0 && len) {
        ssize_t n = write(run.onward, buf, len);

        if (n <= 0) return false;
        buf += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads what comes, not faster than the rate. */
static void *drain(void *unused)
{
    static char buf[256 << 10];
    uint64_t started = 0, due;
    ssize_t n;

    (void)unused;
    while ((n = read(run.drain, buf, opt.rate ? 16 << 10 : sizeof(buf))) > 0) {
        if (!started ||
            bench_now_us() > started + run.drained / (opt.rate ? opt.rate : 1) + 20000) {
            /* It was idle: what was not sent then cannot be made up for. */
            started = bench_now_us() - run.drained / (opt.rate ? opt.rate : 1);
        }
        run.drained += (uint64_t)n;
        due = opt.rate ? started + run.drained / opt.rate : 0;
        if (due > bench_now_us() + 1000) usleep((useconds_t)(due - bench_now_us()));
        if (!pass_on(buf, (size_t)n)) break;
    }
    if (run.onward >= 0) close(run.onward);
    return NULL;
}

static void make_pair(bool socket, int fds[2])
{
    if (socket ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) : pipe2(fds, O_CLOEXEC))
        bench_fail("no link");
}

/* Returns the saving helper's end; *to is the restoring one's. */
static int open_link(int *to)
{
    int first[2], second[2];
    bool restores = run.restore.program;

    *to = -1;
    if (!restores && !opt.rate && !strcmp(opt.sink, "null"))
        return open("/dev/null", O_WRONLY | O_CLOEXEC);
    /* A pipe's ends are (read, write). */
    make_pair(restores, first);
    if (restores && !opt.rate) {
        *to = first[0];
        return first[1];
    }
    run.drain = first[0];
    if (restores) {
        make_pair(true, second);
        *to = second[0];
        run.onward = second[1];
    }
    return first[1];
}

/* ---- the toolstack ---- */

static void sample(void)
{
    bench_helper_sample(&run.save);
    if (run.restore.program) bench_helper_sample(&run.restore);
}

static int suspend(void)
{
    char answer[ANSWER_MAX];

    sample();
    control("shutdown", SHUTDOWN_SUSPEND, answer);
    do
        control("info", 0, answer);
    while (!strstr(answer, "shutdown=1"));
    run.suspended_us = bench_now_us();
    return 1;
}

static int resume(void)
{
    char answer[ANSWER_MAX];

    if (run.pauses < CHECKPOINTS_MAX)
        run.pause_us[run.pauses++] = bench_now_us() - run.suspended_us;
    sample();
    control("resume", 0, answer);
    return 1;
}

static int checkpoint(void)
{
    char answer[ANSWER_MAX];

    uint64_t used_us = bench_helper_cpu_us(&run.save);

    sample();
    if (++run.taken > SKIP && (!run.cost_us || used_us - run.used_us < run.cost_us))
        run.cost_us = used_us - run.used_us;
    run.used_us = used_us;
    if (run.taken >= opt.checkpoints) return 0;
    if (opt.write) control("write", opt.write, answer);
    return 1;
}

static int answer_save(uint16_t type)
{
    if (type == MSG_SUSPEND) return suspend();
    if (type == MSG_POSTCOPY) return resume();
    if (type == MSG_CHECKPOINT) return checkpoint();
    return 0;
}

static int answer_restore(uint16_t type)
{
    return type == MSG_CHECKPOINT;
}

static void *serve_restore(void *unused)
{
    (void)unused;
    bench_helper_serve(&run.restore);
    return NULL;
}

/* Both helpers and the link, until all have ended. */
static bool run_helpers(uint64_t *total_us)
{
    pthread_t link, restore;
    uint64_t started = bench_now_us();
    int to, from = open_link(&to);
    bool fine = true;

    if (from < 0) bench_fail("no link");
    bench_helper_start(&run.save, from);
    if (to >= 0) {
        bench_helper_start(&run.restore, to);
        if (pthread_create(&restore, NULL, serve_restore, NULL)) bench_fail("thread");
    }
    if (run.drain >= 0 && pthread_create(&link, NULL, drain, NULL)) bench_fail("thread");
    bench_helper_serve(&run.save);
    if (to >= 0) pthread_join(restore, NULL);
    *total_us = bench_now_us() - started;
    if (run.drain >= 0) pthread_join(link, NULL);
    if (to >= 0) fine = bench_helper_end(&run.restore) && !run.restore.retval;
    /* Checkpointing ends by our 0, which the helper takes as a failure. */
    return bench_helper_end(&run.save) && fine && (opt.checkpoints || !run.save.retval);
}

/* ---- numbers ---- */

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void report(uint64_t total_us)
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
    printf("pause_us=%lu best_us=%lu total_us=%lu cost_us=%lu bytes=%lu save_kib=%lu "
           "restore_kib=%lu\n",
           (unsigned long)median, (unsigned long)best, (unsigned long)total_us,
           (unsigned long)run.cost_us, (unsigned long)run.drained, (unsigned long)run.save.own_kib,
           (unsigned long)run.restore.own_kib);
}

/* SOCKET:DOMID:HELPER, cut where it stands. */
static bool parse_to(char *word)
{
    char *domid = strchr(word, ':'), *program, *end;

    if (!domid) return false;
    *domid++ = 0;
    program = strchr(domid, ':');
    if (!program) return false;
    *program++ = 0;
    run.restore.socket = word;
    run.restore.domid = (unsigned int)strtoul(domid, &end, 10);
    run.restore.program = program;
    return *domid && !*end;
}

static bool parse(char *word)
{
    static const struct {
        const char *name;
        unsigned long *value, max;
    } keys[] = {{"checkpoints=", &opt.checkpoints, CHECKPOINTS_MAX},
                {"write=", &opt.write, 1 << 24},
                {"rate=", &opt.rate, 100000},
                {"live=", &opt.live, 1}};
    size_t i, len;
    char *end;

    if (!strcmp(word, "sink=pipe") || !strcmp(word, "sink=null")) {
        opt.sink = word + 5;
        return true;
    }
    if (!strncmp(word, "to=", 3)) return parse_to(word + 3);
    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        len = strlen(keys[i].name);
        if (strncmp(word, keys[i].name, len)) continue;
        *keys[i].value = strtoul(word + len, &end, 10);
        return word[len] && !*end && *keys[i].value <= keys[i].max;
    }
    return false;
}

static void prepare(struct bench_helper *h, bool restores)
{
    h->restores = restores;
    h->checkpointed = opt.checkpoints;
    h->live = opt.checkpoints || opt.live;
    h->answer = restores ? answer_restore : answer_save;
    h->retval = -1;
}

int main(int argc, char **argv)
{
    uint64_t total_us;
    int i;

    if (argc < 4) {
        fprintf(stderr, "usage: bench_link SOCKET DOMID HELPER [KEY=VALUE...]\n");
        return 2;
    }
    for (i = 4; i < argc; i++)
        if (!parse(argv[i])) {
            fprintf(stderr, "bench_link: '%s' is not understood\n", argv[i]);
            return 2;
        }
    run.save.socket = argv[1];
    run.save.domid = (unsigned int)strtoul(argv[2], NULL, 10);
    run.save.program = argv[3];
    prepare(&run.save, false);
    prepare(&run.restore, true);
    setenv("XENSIM_SOCKET", run.save.socket, 1);
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    if (sim_link_open(&run.link)) bench_fail(run.save.socket);
    if (!run_helpers(&total_us)) {
        fprintf(stderr, "bench_link: a helper failed\n");
        return 1;
    }
    report(total_us);
    return 0;
}
