/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_range.h"

#include <assert.h>
#include <stddef.h>

void disk_ranges_init(struct disk_ranges *rs)
{
    rs->first = rs->last = NULL;
    rs->waiting = 0;
    pthread_cond_init(&rs->changed, NULL);
}

void disk_ranges_dispose(struct disk_ranges *rs)
{
    assert(!rs->first);
    pthread_cond_destroy(&rs->changed);
}

static bool must_wait(const struct disk_range *r)
{
    for (const struct disk_range *other = r->prev; other; other = other->prev)
        if (other->start < r->end && r->start < other->end) return true;
    return false;
}

void disk_range_take(struct disk_ranges *rs, struct disk_range *r, uint64_t offset, uint64_t size,
                     pthread_mutex_t *lock)
{
    r->start = offset;
    r->end = offset + size;
    r->next = NULL;
    r->prev = rs->last;
    if (rs->last)
        rs->last->next = r;
    else
        rs->first = r;
    rs->last = r;
    while (must_wait(r)) {
        rs->waiting++;
        pthread_cond_wait(&rs->changed, lock);
        rs->waiting--;
    }
}

void disk_range_release(struct disk_ranges *rs, struct disk_range *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        rs->first = r->next;
    if (r->next)
        r->next->prev = r->prev;
    else
        rs->last = r->prev;
    if (rs->waiting) pthread_cond_broadcast(&rs->changed);
}
