/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Two instances on this machine, linked without anything in between, for the benchmark.
 *
 *     pair DIR MEBIBYTES INTERVAL_MS [null]     INTERVAL_MS 0: no checkpoints while it waits
 *
 * With "null" the backup is null_backup.h, so that the primary is all there is to measure.
 * Says "ready", the NBD URI and the primary's process id when the guest's writes are protected, makes checkpoints until its
 * standard input ends, and then, with nothing queued, measures barrier to acknowledgement: prints
 * "barrier MEDIAN_US RTT_US", the second for one octet there and back between two processes.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "judge_side.h"
#include "null_backup.h"

#define ROUNDS 301

static double now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v)
{
    qsort(v, ROUNDS, sizeof(*v), ascending);
    return v[ROUNDS / 2];
}

/* An octet to another process and back, by Unix sockets as the link is. */
static double round_trip_us(void)
{
    double v[ROUNDS];
    int sv[2];
    char c = 0;

    if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv)) return 0;
    pid_t pid = fork();
    if (pid == 0) {
        close(sv[0]);
        while (read(sv[1], &c, 1) == 1 && write(sv[1], &c, 1) == 1)
            ;
        _exit(0);
    }
    close(sv[1]);
    for (int i = 0; i < ROUNDS; i++) {
        double began = now_us();
        if (write(sv[0], &c, 1) != 1 || read(sv[0], &c, 1) != 1) break;
        v[i] = now_us() - began;
    }
    close(sv[0]);
    waitpid(pid, NULL, 0);
    return median(v);
}

struct pair {
    struct side a, b;
    bool null; /* there is no b */
};

static void stop_on(struct pair *p, const char *what)
{
    fprintf(stderr, "pair: %s: %s %s\n", what, side_reply, p->a.reason);
    side_kill(&p->a);
    if (!p->null) side_kill(&p->b);
    exit(1);
}

static double checkpoint_us(struct pair *p, uint64_t n)
{
    double began = now_us();

    if (side_request(&p->a, "barrier %lu", (unsigned long)n)) stop_on(p, "barrier");
    while (p->a.barrier < n)
        if (!side_events(&p->a, 10000) || p->a.lost) stop_on(p, "lost");
    double took = now_us() - began;
    if ((!p->null && side_request(&p->b, "commit %lu", (unsigned long)n)) ||
        side_request(&p->a, "commit %lu", (unsigned long)n))
        stop_on(p, "commit");
    return took;
}

static int link_null(struct pair *p, uint64_t size)
{
    int sv[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv)) return -1;
    pid_t pid = fork();
    if (pid == 0) {
        close(sv[0]);
        close(p->a.control);
        _exit(null_backup(sv[1], size));
    }
    close(sv[1]);
    int r = side_link(&p->a, sv[0]);
    close(sv[0]);
    while (!r && !p->a.lost && !side_number(&p->a, "sync_total"))
        usleep(1000);
    return r;
}

static void set_up(struct pair *p, const char *dir, const char *mebibytes)
{
    static const char *const options[] = {"--journal", "1G", "--limit-ms", "20000", NULL};
    off_t size = (off_t)strtoul(mebibytes, NULL, 10) << 20;

    side_init(&p->a, dir, "a");
    if (ftruncate(p->a.fd, size)) exit(1);
    if (!p->null) {
        side_init(&p->b, dir, "b");
        if (ftruncate(p->b.fd, size)) exit(1);
    }
    if (side_start(&p->a, options)) {
        fprintf(stderr, "pair: the primary does not start\n");
        exit(1);
    }
    if (p->null ? link_null(p, (uint64_t)size) : sides_link(&p->a, &p->b, NULL, options))
        stop_on(p, "link");
    if (side_request(&p->a, "sync")) stop_on(p, "sync");
    while (!p->a.synced)
        if (!side_events(&p->a, 60000) || p->a.lost) stop_on(p, "sync");
    if (side_request(&p->a, "protect")) stop_on(p, "protect");
}

int main(int argc, char **argv)
{
    struct pair p = {.null = argc == 5 && !strcmp(argv[4], "null")};
    double v[ROUNDS];
    char uri[300];
    uint64_t n = 0;

    if (argc != 4 && !p.null) {
        fprintf(stderr, "pair: say DIR MEBIBYTES INTERVAL_MS [null]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    set_up(&p, argv[1], argv[2]);
    side_uri(&p.a, uri, sizeof(uri));
    printf("ready %s %d\n", uri, (int)side_pid(&p.a));
    fflush(stdout);
    int interval = (int)strtol(argv[3], NULL, 10);
    struct pollfd in = {.fd = 0, .events = POLLIN};
    char c;
    while (poll(&in, 1, interval ? interval : -1) == 0 || read(0, &c, 1) > 0) {
        checkpoint_us(&p, ++n);
        if (!p.null) (void)side_events(&p.b, 0);
    }
    for (int i = 0; i < ROUNDS; i++)
        v[i] = checkpoint_us(&p, ++n);
    printf("barrier %.1f %.1f\n", median(v), round_trip_us());
    side_stop(&p.a);
    if (!p.null) side_stop(&p.b);
    return 0;
}
