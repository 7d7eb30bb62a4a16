/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Ranges of the disk that somebody is changing. Overlapping ranges are granted one after the other,
 * in the order in which they were asked for; others do not wait. So the order on the link can be
 * made equal to the order on the disk wherever it matters.
 *
 * Who holds a range never asks for another: that would deadlock.
 */
#ifndef DISK_RANGE_H
#define DISK_RANGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Lives on the stack of whoever asks. */
struct disk_range {
    uint64_t start, end;
    struct disk_range *prev, *next;
};

struct disk_ranges {
    struct disk_range *first, *last; /* in the order of asking */
    unsigned waiting;
    pthread_cond_t changed;
};

void disk_ranges_init(struct disk_ranges *rs);
void disk_ranges_dispose(struct disk_ranges *rs);
/* Both under `lock`, which protects the list; take may wait with it given back. */
void disk_range_take(struct disk_ranges *rs, struct disk_range *r, uint64_t offset, uint64_t size,
                     pthread_mutex_t *lock);
void disk_range_release(struct disk_ranges *rs, struct disk_range *r);

#endif
