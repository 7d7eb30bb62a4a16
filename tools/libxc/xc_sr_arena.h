/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Where a checkpoint's pages lie between the pause and the wire.
 *
 * The address space for every pfn that the guest has is reserved at the start, which costs nothing; memory is behind the part that
 * recent checkpoints needed, so that copying in the pause takes no page fault. A checkpoint larger
 * than that grows into the reserve.
 */
#ifndef XC_SR_ARENA_H
#define XC_SR_ARENA_H

#include <stdint.h>

struct xc_sr_arena {
    uint64_t limit_pages;
    uint64_t ready_pages; /* memory is behind so many */
    uint64_t pages;       /* used, in order of the entries which carry data */
    uint64_t entries_used;
    uint8_t *data;
    uint64_t *entries; /* PAGE_DATA entries: type and pfn */
};

/* 0 or -1 with errno. At most limit_pages entries, each with its page, will ever fit. */
int xc_sr_arena_init(struct xc_sr_arena *a, uint64_t limit_pages);
void xc_sr_arena_dispose(struct xc_sr_arena *a); /* safe twice, and on zeroes */

/* Between pauses: makes room for about `pages` without a fault, and gives back what is far more. */
void xc_sr_arena_prepare(struct xc_sr_arena *a, uint64_t pages);
void xc_sr_arena_empty(struct xc_sr_arena *a);

/*
 * Adds a pfn with a copy of its page, or without data (page NULL; type tells why). The caller
 * adds each pfn once, so that they fit. -1 with errno ENOSPC when limit_pages is reached.
 */
int xc_sr_arena_add(struct xc_sr_arena *a, uint64_t pfn, uint32_t type, const void *page);

#endif
