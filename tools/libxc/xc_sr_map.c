/* SPDX-License-Identifier: LGPL-2.1-only */
/* Long-lived foreign mappings, in chunks of 2 MiB of the guest's address space. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_map.h"

static bool page_present(const struct xc_sr_chunk *chunk, unsigned int i)
{
    return chunk->base && (chunk->present[i / 64] >> (i % 64) & 1);
}

uint64_t xc_sr_map_chunks(const struct xc_sr_map *map)
{
    return (map->pfns + XC_SR_CHUNK_PAGES - 1) / XC_SR_CHUNK_PAGES;
}

int xc_sr_map_init(struct xc_sr_map *map, const struct xc_sr_env *env, uint64_t pfns,
                   uint64_t limit_pages)
{
    memset(map, 0, sizeof(*map));
    map->env = env;
    map->pfns = pfns;
    map->limit_chunks = (limit_pages + XC_SR_CHUNK_PAGES - 1) / XC_SR_CHUNK_PAGES;
    if (!map->limit_chunks) map->limit_chunks = 1;
    map->chunks = calloc(xc_sr_map_chunks(map) + 1, sizeof(*map->chunks));
    return map->chunks ? 0 : -1;
}

/* How many pages the chunk has: the last one may be cut. */
static unsigned int chunk_pages(const struct xc_sr_map *map, uint64_t chunk)
{
    uint64_t left = map->pfns - chunk * XC_SR_CHUNK_PAGES;

    return left < XC_SR_CHUNK_PAGES ? (unsigned int)left : XC_SR_CHUNK_PAGES;
}

static void unmap_chunk(struct xc_sr_map *map, uint64_t chunk)
{
    struct xc_sr_chunk *c = &map->chunks[chunk];

    if (!c->base) return;
    if (xenforeignmemory_unmap(map->env->fmem, c->base, chunk_pages(map, chunk)))
        SR_ERRNO(map->env, "cannot unmap guest pages from pfn %#lx on",
                 (unsigned long)(chunk * XC_SR_CHUNK_PAGES));
    memset(c, 0, sizeof(*c));
    map->mapped_chunks--;
}

void xc_sr_map_dispose(struct xc_sr_map *map)
{
    uint64_t i;

    for (i = 0; map->mapped_chunks && i < xc_sr_map_chunks(map); i++)
        unmap_chunk(map, i);
    free(map->chunks);
    memset(map, 0, sizeof(*map));
}

/* May find nothing: then this round alone uses more than the limit, which its size bounds. */
static void make_room(struct xc_sr_map *map)
{
    uint64_t tries = xc_sr_map_chunks(map);

    while (map->mapped_chunks >= map->limit_chunks && tries--) {
        if (++map->victim >= xc_sr_map_chunks(map)) map->victim = 0;
        if (map->chunks[map->victim].used != map->round) unmap_chunk(map, map->victim);
    }
}

/* Fills *c with a new mapping of the chunk, without looking at the one that may be there. */
static int map_chunk(const struct xc_sr_map *map, uint64_t chunk, struct xc_sr_chunk *c)
{
    unsigned int n = chunk_pages(map, chunk), i;
    int prot = PROT_READ | (map->writable ? PROT_WRITE : 0);
    xen_pfn_t pfns[XC_SR_CHUNK_PAGES] = {0};
    int errs[XC_SR_CHUNK_PAGES];

    for (i = 0; i < n; i++)
        pfns[i] = chunk * XC_SR_CHUNK_PAGES + i;
    memset(c, 0, sizeof(*c));
    c->base = xenforeignmemory_map(map->env->fmem, map->env->domid, prot, n, pfns, errs);
    if (!c->base) {
        SR_ERRNO(map->env, "cannot map guest pages from pfn %#lx on", (unsigned long)pfns[0]);
        return -1;
    }
    for (i = 0; i < n; i++)
        if (!errs[i]) c->present[i / 64] |= 1ULL << (i % 64);
    return 0;
}

static uint8_t *find_page(struct xc_sr_map *map, uint64_t pfn)
{
    uint64_t chunk = pfn / XC_SR_CHUNK_PAGES;
    unsigned int i = (unsigned int)(pfn % XC_SR_CHUNK_PAGES);
    struct xc_sr_chunk *c;

    if (pfn >= map->pfns) {
        errno = ENOENT;
        return NULL;
    }
    c = &map->chunks[chunk];
    if (!c->base) {
        make_room(map);
        if (map_chunk(map, chunk, c)) return NULL;
        map->mapped_chunks++;
    }
    c->used = map->round;
    if (page_present(c, i)) return c->base + (size_t)i * XC_PAGE_SIZE;
    errno = ENOENT;
    return NULL;
}

const void *xc_sr_map_page(struct xc_sr_map *map, uint64_t pfn)
{
    return find_page(map, pfn);
}

void *xc_sr_map_page_rw(struct xc_sr_map *map, uint64_t pfn)
{
    return find_page(map, pfn);
}

void xc_sr_map_next_round(struct xc_sr_map *map)
{
    map->round++;
}

bool xc_sr_map_has(const struct xc_sr_map *map, uint64_t pfn)
{
    return pfn < map->pfns &&
           page_present(&map->chunks[pfn / XC_SR_CHUNK_PAGES], pfn % XC_SR_CHUNK_PAGES);
}

void xc_sr_map_drop(struct xc_sr_map *map, uint64_t pfn)
{
    if (pfn < map->pfns) unmap_chunk(map, pfn / XC_SR_CHUNK_PAGES);
}

int xc_sr_map_compare(struct xc_sr_map *map, uint64_t chunk,
                      void (*changed)(void *user, uint64_t pfn), void *user)
{
    struct xc_sr_chunk fresh, *old = &map->chunks[chunk];
    unsigned int n = chunk_pages(map, chunk), i;

    if (!old->base) return 0;
    if (map_chunk(map, chunk, &fresh)) {
        unmap_chunk(map, chunk);
        return -1;
    }
    for (i = 0; i < n; i++) {
        size_t at = (size_t)i * XC_PAGE_SIZE;

        if (!page_present(&fresh, i)) continue;
        if (!page_present(old, i) || memcmp(fresh.base + at, old->base + at, XC_PAGE_SIZE))
            changed(user, chunk * XC_SR_CHUNK_PAGES + i);
    }
    unmap_chunk(map, chunk);
    *old = fresh;
    map->mapped_chunks++;
    return 0;
}
