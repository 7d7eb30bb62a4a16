/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the guest wrote and the disk does not hold yet: ranges that do not overlap, each with the place of
 * its data in the journal. A later range hides what it covers of earlier ones.
 *
 * A treap by offset, and a list by age for what is applied. All under the owner's lock.
 */
#ifndef DISK_OVERLAY_H
#define DISK_OVERLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_OVERLAY_ZERO UINT64_MAX
/* Pieces at most: some 80 MiB of memory. */
#define DISK_OVERLAY_MAX (1u << 20)

struct disk_node;

struct disk_overlay {
    struct disk_node *root, *oldest, *newest, *spare;
    size_t count, spares;
    uint32_t random;
};

struct disk_piece {
    uint64_t start, end;
    uint64_t data; /* of `start` in the journal; DISK_OVERLAY_ZERO: zeros */
};

void disk_overlay_init(struct disk_overlay *o);
void disk_overlay_dispose(struct disk_overlay *o);

/* Makes sure that the next put succeeds: -ENOMEM, or -ENOSPC when there are too many pieces. */
int disk_overlay_reserve(struct disk_overlay *o);
/* [start, end) is what the record at journal position `at` says; its data are at `data`. Positions never
 * go back. After a reserve. */
void disk_overlay_put(struct disk_overlay *o, uint64_t start, uint64_t end, uint64_t at,
                      uint64_t data);
/* The first piece that begins before `end` and ends behind `start`, cut to that range. False: none. */
bool disk_overlay_find(const struct disk_overlay *o, uint64_t start, uint64_t end,
                       struct disk_piece *piece);
/* Forgets what records before the position `before` said, at most `max` pieces. True: none is left. */
bool disk_overlay_drop(struct disk_overlay *o, uint64_t before, size_t max);

#endif
