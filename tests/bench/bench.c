/* SPDX-License-Identifier: LGPL-2.1-only */
#include <stdio.h>
#include <time.h>

#include "bench.h"

static uint64_t state = 1;

void bench_seed(uint32_t seed)
{
    state = seed + 1;
}

uint32_t bench_dice(uint32_t sides)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)((state >> 33) % sides);
}

static void print_number(double value)
{
    if (value < 0)
        printf("\t-");
    else
        printf("\t%.6g", value);
}

void bench_row(const char *row, const char *unit, double ours, double peer, double limit,
               const char *target, const char *note)
{
    printf("%s\t%s", row, unit);
    print_number(ours);
    print_number(peer);
    print_number(limit);
    printf("\t%s\t%s\n", target, note);
    fflush(stdout);
}

double bench_cpu_s(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double bench_best_s(unsigned int times, void (*prepare)(void *user), void (*work)(void *user),
                    void *user)
{
    double best = 1e9;

    while (times--) {
        double started, took;

        if (prepare) prepare(user);
        started = bench_cpu_s();
        work(user);
        took = bench_cpu_s() - started;
        if (took < best) best = took;
    }
    return best;
}
