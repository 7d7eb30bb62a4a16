/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The reference image: what the backup has at each pfn, as far as we remember it.
 *
 * Since the backup applies the stream strictly in its order and any failure ends the protection,
 * the newest copy that was sent is what the next delta of that pfn may build on. Pages of zeroes
 * cost nothing but their mark. At the limit of memory, pages that were not sent lately are forgotten:
 * then the next copy is sent whole.
 */
#ifndef XC_SR_REF_H
#define XC_SR_REF_H

#include <stdbool.h>
#include <stdint.h>

struct xc_sr_ref {
    uint64_t pfns;
    uint32_t slots;      /* how many pages there is room for; may be 0 */
    uint32_t slots_used; /* from the front */
    uint32_t free_slot;  /* head of the list of slots given back, or XC_SR_REF_NONE */
    uint32_t victim;     /* where the search for a page to forget goes on */
    uint8_t *pages;
    uint64_t *owners;  /* of each slot: its pfn, or the next free slot */
    uint8_t *recent;   /* of each slot: used since the search came by */
    uint32_t *slot_of; /* of each pfn; 0 = nothing is known */
};

#define XC_SR_REF_NONE UINT32_MAX

/* 0, or -1 with errno. Takes no more than limit_bytes for pages; memory follows what is stored. */
int xc_sr_ref_init(struct xc_sr_ref *ref, uint64_t pfns, uint64_t limit_bytes);
void xc_sr_ref_dispose(struct xc_sr_ref *ref); /* safe twice, and on zeroes */

/* The backup's page, for reading: NULL = not known. *writable: the same if it is stored, or NULL. */
const void *xc_sr_ref_find(struct xc_sr_ref *ref, uint64_t pfn, void **writable);

/* Room for the page at pfn, which the caller fills; NULL when there is none. */
void *xc_sr_ref_make(struct xc_sr_ref *ref, uint64_t pfn);

void xc_sr_ref_zero(struct xc_sr_ref *ref, uint64_t pfn);
void xc_sr_ref_forget(struct xc_sr_ref *ref, uint64_t pfn);

#endif
