/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Rows of the benchmark, one line each on stdout, for tests/bench/report:
 *
 *     row TAB unit TAB ours TAB peer TAB limit TAB target TAB note
 *
 * A number that was not measured is "-". `target` is a comparison that awk can evaluate over ours, peer and
 * limit, or "-".
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>

#define BENCH_NONE (-1.0)

void bench_row(const char *row, const char *unit, double ours, double peer, double limit,
               const char *target, const char *note);

/* CPU time of this thread, so that others on the machine count little. */
double bench_cpu_s(void);

/* Calls work(user) `times` times and returns the shortest CPU time of one. prepare may be NULL. */
double bench_best_s(unsigned int times, void (*prepare)(void *user), void (*work)(void *user),
                    void *user);

/* Reproducible numbers below `sides`. */
uint32_t bench_dice(uint32_t sides);
void bench_seed(uint32_t seed);

#endif
