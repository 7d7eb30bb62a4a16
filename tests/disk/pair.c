/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Two instances on this machine, linked without anything in between, for the benchmark.
 *
 *     pair DIR MEBIBYTES INTERVAL_MS     INTERVAL_MS 0: no checkpoints while it waits
 *
 * Says "ready" and the NBD URI when the guest's writes are protected, makes checkpoints until its
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

static void stop_on(struct side *a, struct side *b, const char *what)
{
    fprintf(stderr, "pair: %s: %s %s\n", what, side_reply, a->reason);
    side_kill(a);
    side_kill(b);
    exit(1);
}

static double checkpoint_us(struct side *a, struct side *b, uint64_t n)
{
    double began = now_us();

    if (side_request(a, "barrier %lu", (unsigned long)n)) stop_on(a, b, "barrier");
    while (a->barrier < n)
        if (!side_events(a, 10000) || a->lost) stop_on(a, b, "lost");
    double took = now_us() - began;
    if (side_request(b, "commit %lu", (unsigned long)n) ||
        side_request(a, "commit %lu", (unsigned long)n))
        stop_on(a, b, "commit");
    return took;
}

static void set_up(struct side *a, struct side *b, const char *dir, const char *mebibytes)
{
    static const char *const options[] = {"--journal", "1G", "--limit-ms", "20000", NULL};
    off_t size = (off_t)strtoul(mebibytes, NULL, 10) << 20;

    side_init(a, dir, "a");
    side_init(b, dir, "b");
    if (ftruncate(a->fd, size) || ftruncate(b->fd, size)) exit(1);
    if (side_start(a, options)) {
        fprintf(stderr, "pair: the primary does not start\n");
        exit(1);
    }
    if (sides_link(a, b, NULL, options) || side_request(a, "sync")) stop_on(a, b, "link");
    while (!a->synced)
        if (!side_events(a, 60000) || a->lost) stop_on(a, b, "sync");
    if (side_request(a, "protect")) stop_on(a, b, "protect");
}

int main(int argc, char **argv)
{
    struct side a, b;
    double v[ROUNDS];
    char uri[300];
    uint64_t n = 0;

    if (argc != 4) {
        fprintf(stderr, "pair: say DIR MEBIBYTES INTERVAL_MS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    set_up(&a, &b, argv[1], argv[2]);
    side_uri(&a, uri, sizeof(uri));
    printf("ready %s\n", uri);
    fflush(stdout);
    int interval = (int)strtol(argv[3], NULL, 10);
    struct pollfd in = {.fd = 0, .events = POLLIN};
    char c;
    while (poll(&in, 1, interval ? interval : -1) == 0 || read(0, &c, 1) > 0) {
        checkpoint_us(&a, &b, ++n);
        (void)side_events(&b, 0);
    }
    for (int i = 0; i < ROUNDS; i++)
        v[i] = checkpoint_us(&a, &b, ++n);
    printf("barrier %.1f %.1f\n", median(v), round_trip_us());
    side_stop(&a);
    side_stop(&b);
    return 0;
}
