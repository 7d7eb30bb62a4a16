/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Which extents of 64 KiB may differ from the peer's disk: a mapped file, docs/misc/disk.md section 5.
 *
 *     dirty    the file: set before the extent is written; outlives the process
 *     open     written in the open epoch        \  subsets of dirty,
 *     closed   written in closed, uncommitted   /  in memory
 *     todo     what a synchronisation still has to look at
 *
 * All under the owner's lock. The kernel keeps what was set when the process is killed; when the host
 * dies the owner finds another boot id and trusts nothing.
 */
#ifndef DISK_BITMAP_H
#define DISK_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Words lo to hi - 1 may be other than 0. */
struct disk_bits {
    uint64_t *words;
    size_t lo, hi;
};

struct disk_bitmap {
    uint8_t *map;           /* NULL: not open */
    size_t map_size, count; /* words */
    uint64_t size, extents;
    struct disk_bits dirty, open, closed, todo;
};

void disk_bitmap_init(struct disk_bitmap *b);
void disk_bitmap_dispose(struct disk_bitmap *b);
/* Opens or makes it for a disk of `size` octets. *fresh: there was none of this size, all is clean. */
int disk_bitmap_open(struct disk_bitmap *b, const char *path, uint64_t size, bool *fresh);
/* Waits until it is on the medium. */
int disk_bitmap_flush(struct disk_bitmap *b);

void disk_bitmap_set(struct disk_bitmap *b, uint64_t offset, uint64_t span);
void disk_bitmap_clear_all(struct disk_bitmap *b);
uint64_t disk_bitmap_dirty_bytes(const struct disk_bitmap *b);

/* A synchronisation begins: todo is what is dirty, or all. Returns its octets. */
uint64_t disk_bitmap_sync_begin(struct disk_bitmap *b, bool all);
/* Takes a run of at most `max` extents out of todo, searched from *cursor on. 0: none is left. */
uint64_t disk_bitmap_take(struct disk_bitmap *b, size_t *cursor, uint64_t max, uint64_t *first);
/* What was closed is at the peer, and with it all that was to do: dirty is what is open. */
void disk_bitmap_synced(struct disk_bitmap *b);

void disk_bitmap_close_epoch(struct disk_bitmap *b);
void disk_bitmap_commit(struct disk_bitmap *b);

/* The peer's words, little endian, into dirty. False if they do not fit. */
bool disk_bitmap_merge(struct disk_bitmap *b, uint64_t first_word, const uint8_t *words,
                       size_t size);

#endif
