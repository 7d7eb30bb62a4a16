/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The picture of the test guest: lines drawn straight into the memory of QEMU's
 * standard graphics card. Each says which line it is and how often it was drawn,
 * so one that is stale or misplaced is found by screen_bad().
 */
#ifndef XTGUEST_SCREEN_H
#define XTGUEST_SCREEN_H

#include <stddef.h>
#include <stdint.h>

enum { SCREEN_RATE_MAX = 100000 };

/* Draws lines_per_s lines, top to bottom and again. 0, or -1 with errno: ENODEV without a card. */
int screen_set(unsigned int lines_per_s);
/* Draws what is due; to be called about every 10 ms with the monotonic time. */
void screen_run(uint64_t now_ns);
/* How many lines are not as they were drawn. */
size_t screen_bad(void);
/* What cksum(1) says of the picture, as the octets R, G, B of its pixels. Needs a card in use. */
int screen_sum(uint32_t *sum);

#endif
