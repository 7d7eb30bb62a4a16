/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Faults on demand. A rule matches requests by name and by the name of the calling program; it counts its matches, and at the
 * n-th one it does its deed: once, or at each from then on.
 */
#ifndef SIM_FAULT_H
#define SIM_FAULT_H

#include "sim_caller.h"

enum sim_deed { SIM_FAIL, SIM_DELAY, SIM_CORRUPT, SIM_KILL };

/* What happens to this request. Sleeps if a rule says so, kills if one says so. 0, or minus the errno to fail with. */
int64_t sim_fault_check(struct sim_caller *c, const char *name);

/* "NAME n=N [comm=C] fail=ERRNO|delay=MS|corrupt|kill [always]". The rule's number, or -1 with a line in why. */
int sim_fault_add(const char *text, char *why, size_t why_size);
void sim_fault_clear(void);
/* One line per rule: number, text, matches so far, times done. */
void sim_fault_list(char *out, size_t size);

/* How often each name was called, by anybody; and to begin anew. */
void sim_count_list(char *out, size_t size);
void sim_count_clear(void);
/* This name does not exist here. True the first time. */
bool sim_count_missing(const char *name);

#endif
