/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The memory dirtier of the test guest. Every page of its working set says which
 * page it is and which generation it has, and each word follows from these two,
 * so a page that is stale, misplaced or torn is found by dirtier_check().
 */
#ifndef XTGUEST_DIRTIER_H
#define XTGUEST_DIRTIER_H

#include <stddef.h>
#include <stdint.h>

enum { DIRTIER_PAGES_MAX = 32768, DIRTIER_RATE_MAX = 1000000 };

/*
 * Writes rate pages per second, round robin over a working set of pages.
 * A new working-set size replaces the old set. 0 on success, else -1 and errno.
 */
int dirtier_set(unsigned int rate, unsigned int pages);
/* Writes what is due; to be called about every 10 ms with the monotonic time. */
void dirtier_run(uint64_t now_ns);
/* Verifies every page. Returns how many are wrong; first_bad is one of them. */
size_t dirtier_check(size_t *first_bad);
size_t dirtier_pages(void);
/* How many pages have been written since the start. */
uint64_t dirtier_generation(void);

#endif
