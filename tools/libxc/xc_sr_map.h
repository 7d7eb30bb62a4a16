/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's memory, mapped for as long as it is useful.
 *
 * Mapping and unmapping a page costs several times what copying it does, so chunks of the guest's
 * address space stay mapped between checkpoints. A mapped page that the guest gives back is pinned
 * by the mapping: it still counts as the domain's until xc_sr_map_drop(), and if the guest gets a
 * new page at the same pfn, the mapping shows the old one. Both are for the caller to find out
 * (xc_sr_save_balloon.c); this file only keeps and drops mappings.
 */
#ifndef XC_SR_MAP_H
#define XC_SR_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "xc_sr_env.h"

#define XC_SR_CHUNK_PAGES 512U
/* An HVM guest says itself how far its pfns go, by what it maps there; more than 4 TiB are not tracked. */
#define XC_SR_PFNS_MAX (1ULL << 30)

struct xc_sr_chunk {
    uint8_t *base; /* NULL = not mapped */
    uint64_t used; /* the round that used it last */
    uint64_t present[XC_SR_CHUNK_PAGES / 64];
};

struct xc_sr_map {
    const struct xc_sr_env *env;
    uint64_t pfns;
    uint64_t limit_chunks; /* at most so many stay mapped */
    bool writable;         /* the caller sets it after xc_sr_map_init() */
    /* own */
    struct xc_sr_chunk *chunks;
    uint64_t mapped_chunks;
    uint64_t round;
    uint64_t victim; /* where the search for a chunk to give up goes on */
};

/* 0, or -1 with errno. limit_pages is rounded up to one chunk at least. */
int xc_sr_map_init(struct xc_sr_map *map, const struct xc_sr_env *env, uint64_t pfns,
                   uint64_t limit_pages);
void xc_sr_map_dispose(struct xc_sr_map *map); /* safe twice, and on zeroes */

/*
 * The page, or NULL when the guest has none there (errno ENOENT) or it cannot be mapped. Maps the
 * chunk on demand. The pointer is good until the chunk is dropped, and until the first call after
 * xc_sr_map_next_round(): at the limit, chunks that this round has not used are given up.
 */
const void *xc_sr_map_page(struct xc_sr_map *map, uint64_t pfn);
void *xc_sr_map_page_rw(struct xc_sr_map *map, uint64_t pfn); /* of a writable map */
void xc_sr_map_next_round(struct xc_sr_map *map);

/* Is the page mapped right now? Never maps. */
bool xc_sr_map_has(const struct xc_sr_map *map, uint64_t pfn);

/* Forgets the chunk of this pfn: the next use maps what is there then. */
void xc_sr_map_drop(struct xc_sr_map *map, uint64_t pfn);

/*
 * Maps the chunk again and calls changed(user, pfn) for each page that shows other bytes than
 * before or that is there only now. -1 with errno when it cannot be mapped; it is dropped then.
 */
int xc_sr_map_compare(struct xc_sr_map *map, uint64_t chunk,
                      void (*changed)(void *user, uint64_t pfn), void *user);

uint64_t xc_sr_map_chunks(const struct xc_sr_map *map);

#endif
