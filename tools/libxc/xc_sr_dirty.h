/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Sets of pfns: a flat bitmap in the layout of the hypervisor's dirty log, and a sparse one for
 * pfns that a peer named, which costs memory only where bits are set.
 */
#ifndef XC_SR_DIRTY_H
#define XC_SR_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#define XC_SR_PFN_NONE UINT64_MAX

/* The words belong to whoever made them (a hypercall buffer, or xc_sr_dirty_alloc). */
struct xc_sr_dirty {
    unsigned long *words;
    uint64_t pfns; /* valid pfns are below this */
    bool some;     /* false: surely empty. Whoever fills the words by hand sets it. */
};

uint64_t xc_sr_dirty_words(uint64_t pfns);
int xc_sr_dirty_alloc(struct xc_sr_dirty *d, uint64_t pfns); /* all clear; -1 = no memory */
void xc_sr_dirty_free(struct xc_sr_dirty *d);

void xc_sr_dirty_clear_all(struct xc_sr_dirty *d);
void xc_sr_dirty_set_all(struct xc_sr_dirty *d); /* never sets a bit at or above pfns */
void xc_sr_dirty_set(struct xc_sr_dirty *d, uint64_t pfn);
void xc_sr_dirty_clear(struct xc_sr_dirty *d, uint64_t pfn);
bool xc_sr_dirty_test(const struct xc_sr_dirty *d, uint64_t pfn);
void xc_sr_dirty_merge(struct xc_sr_dirty *into, const struct xc_sr_dirty *from);
uint64_t xc_sr_dirty_count(const struct xc_sr_dirty *d);
/* The first set pfn at or after `from`, or XC_SR_PFN_NONE. */
uint64_t xc_sr_dirty_next(const struct xc_sr_dirty *d, uint64_t from);

/* Sparse: pfns below XC_SR_SPARSE_PFNS; the memory follows the number of bits set. */
#define XC_SR_SPARSE_PFNS (1ULL << 36)

/* All zeroes is the empty set. */
struct xc_sr_sparse {
    unsigned long **leaves;
    uint64_t leaves_used;
};

void xc_sr_sparse_dispose(struct xc_sr_sparse *s);          /* leaves the empty set */
int xc_sr_sparse_set(struct xc_sr_sparse *s, uint64_t pfn); /* -1: ERANGE or ENOMEM */
void xc_sr_sparse_clear(struct xc_sr_sparse *s, uint64_t pfn);
bool xc_sr_sparse_test(const struct xc_sr_sparse *s, uint64_t pfn);
/* The first set pfn at or after `from`, or XC_SR_PFN_NONE. */
uint64_t xc_sr_sparse_next(const struct xc_sr_sparse *s, uint64_t from);

#endif
