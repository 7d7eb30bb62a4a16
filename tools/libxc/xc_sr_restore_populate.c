/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Memory for the domain that is being built.
 *
 * The first page that comes for an untouched 2 MiB of the guest's address space brings one large page,
 * if the hypervisor has one: the guest runs faster on those, one hypercall serves 512 pages, and
 * the chunk can be mapped once for all records. Such a chunk is *large*: all its pages are there, sent
 * or not. When the first checkpoint is whole, or earlier when memory gets short, what was not sent is given
 * back, so that in the end the domain has the pages that were sent and no others.
 */
#include <stdlib.h>

#include "xc_sr_restore.h"

#define LARGE_ORDER 9
#define CHUNK XC_SR_CHUNK_PAGES
/* Large chunks have pfns from here on: below are holes. And up to what the table of mappings can hold. */
#define FIRST_CHUNK 1U
#define CHUNKS (1U << 17)
#define MAP_LIMIT_PAGES (64ULL << 18)
/* After so many refusals the host is taken to be out of large pages. */
#define REFUSALS_MAX 16

int xc_sr_populate_setup(struct xc_sr_restore *r)
{
    if (xc_sr_map_init(&r->map, &r->env, (uint64_t)CHUNKS * CHUNK, MAP_LIMIT_PAGES)) {
        SR_ERRNO(&r->env, "no memory to track mappings of domain %u", r->env.domid);
        return -1;
    }
    r->map.writable = true;
    return 0;
}

void xc_sr_populate_cleanup(struct xc_sr_restore *r)
{
    xc_sr_map_dispose(&r->map);
    xc_sr_sparse_dispose(&r->touched);
    xc_sr_sparse_dispose(&r->large);
}

bool xc_sr_is_large(const struct xc_sr_restore *r, xen_pfn_t pfn)
{
    return xc_sr_sparse_test(&r->large, pfn / CHUNK);
}

/* Is there memory at pfn already, or is there now that a large page was asked for? */
static int try_large(struct xc_sr_restore *r, xen_pfn_t pfn, bool *there)
{
    uint64_t chunk = pfn / CHUNK;
    xen_pfn_t first = chunk * CHUNK;

    *there = xc_sr_is_large(r, pfn);
    if (*there || chunk < FIRST_CHUNK || chunk >= CHUNKS || xc_sr_sparse_test(&r->touched, chunk))
        return 0;
    if (xc_sr_sparse_set(&r->touched, chunk)) goto fail;
    if (r->refusals >= REFUSALS_MAX) return 0;
    if (xc_domain_populate_physmap(r->env.xch, r->env.domid, 1, LARGE_ORDER, 0, &first) != 1) {
        r->refusals++;
        return 0;
    }
    *there = true;
    if (!xc_sr_sparse_set(&r->large, chunk)) return 0;
fail:
    SR_ERRNO(&r->env, "cannot track pfn %#lx", (unsigned long)pfn);
    return -1;
}

/* A large chunk becomes one like any other: what was not sent goes back. */
static int shrink_chunk(struct xc_sr_restore *r, uint64_t chunk)
{
    xen_pfn_t spare[CHUNK];
    unsigned int i, n = 0;

    for (i = 0; i < CHUNK; i++)
        if (!xc_sr_sparse_test(&r->populated, chunk * CHUNK + i)) spare[n++] = chunk * CHUNK + i;
    if (!n) return 0;
    /* A page that is mapped stays the domain's. */
    xc_sr_map_drop(&r->map, chunk * CHUNK);
    xc_sr_sparse_clear(&r->large, chunk);
    if (!xc_domain_decrease_reservation_exact(r->env.xch, r->env.domid, n, 0, spare)) return 0;
    SR_ERRNO(&r->env, "cannot take %u pages from domain %u", n, r->env.domid);
    return -1;
}

int xc_sr_release_spare(struct xc_sr_restore *r)
{
    uint64_t chunk = xc_sr_sparse_next(&r->large, 0);

    for (; chunk != XC_SR_PFN_NONE; chunk = xc_sr_sparse_next(&r->large, chunk + 1))
        if (shrink_chunk(r, chunk)) return -1;
    return 0;
}

int xc_sr_populate(struct xc_sr_restore *r, const xen_pfn_t *pfns, unsigned int count)
{
    xen_pfn_t small[XC_SR_BATCH];
    unsigned int i, n = 0, done;
    bool there;

    for (i = 0; i < count; i++) {
        if (try_large(r, pfns[i], &there)) return -1;
        if (!there) small[n++] = pfns[i];
    }
    for (i = 0; i < n; i += done) {
        int got = xc_domain_populate_physmap(r->env.xch, r->env.domid, n - i, 0, 0, small + i);

        done = got > 0 ? (unsigned int)got : 0;
        if (done == n - i) break;
        /* No memory left: perhaps large pages hold some that nobody needs. */
        if (r->refusals == UINT32_MAX ? xc_sr_raise_limit(&r->env) : xc_sr_release_spare(r))
            goto fail;
        r->refusals = UINT32_MAX;
    }
    return 0;
fail:
    SR_ERRNO(&r->env, "cannot populate %u pages of domain %u from pfn %#lx on", n, r->env.domid,
             (unsigned long)small[0]);
    return -1;
}

int xc_sr_depopulate(struct xc_sr_restore *r, const xen_pfn_t *pfns, unsigned int count)
{
    xen_pfn_t small[XC_SR_BATCH];
    unsigned int i, n = 0;

    for (i = 0; i < count; i++)
        if (!xc_sr_is_large(r, pfns[i])) small[n++] = pfns[i];
    /* They are no longer in r->populated, so they go with the rest of their chunks. */
    for (i = 0; i < count; i++)
        if (xc_sr_is_large(r, pfns[i]) && shrink_chunk(r, pfns[i] / CHUNK)) return -1;
    if (!n || !xc_domain_decrease_reservation_exact(r->env.xch, r->env.domid, n, 0, small))
        return 0;
    SR_ERRNO(&r->env, "cannot take %u pages from domain %u", n, r->env.domid);
    return -1;
}
