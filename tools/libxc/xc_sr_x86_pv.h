/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * PV guests see the machine: their page tables, their p2m and some registers hold machine frame
 * numbers (mfns). A stream holds pfns in these places, the guest's own numbers, since the other
 * host has other frames.
 *
 *   save      p2m and m2p are read from guest and hypervisor; a frame counts as the guest's only
 *             where both agree; page tables are normalised: mfn -> pfn
 *   restore   each pfn gets a new frame; page tables are localised: pfn -> mfn; at the end the
 *             guest's p2m is written anew
 *
 * 64 bit guests only: 4 levels of page tables, entries of 8 bytes everywhere.
 */
#ifndef XC_SR_X86_PV_H
#define XC_SR_X86_PV_H

#include <stdbool.h>
#include <stdint.h>

#define XC_SR_PV_WIDTH 8     /* bytes in a word of the guest */
#define XC_SR_PV_LEVELS 4    /* of page tables */
#define XC_SR_PV_ENTRIES 512 /* in a page table, in a page of the p2m */

#define XC_SR_PV_PTE_PRESENT 0x001ULL
#define XC_SR_PV_PTE_SUPERPAGE 0x080ULL /* above level 1 */
#define XC_SR_PV_PTE_FRAME 0x000ffffffffff000ULL

/* Entries of a top level table that belong to the hypervisor, which makes them itself. */
#define XC_SR_PV_XEN_FIRST 256
#define XC_SR_PV_XEN_LAST 271

/* The p2m of a guest: no frame is 0, that page of the machine is never a guest's. */
struct xc_sr_pv_p2m {
    const uint64_t *frames; /* by pfn */
    uint64_t pfns;
};

struct xc_sr_pv_m2p {
    const uint64_t *pfns; /* by mfn, of all guests of the host */
    uint64_t frames;
};

/* A page type of a stream: of which level of page tables, 0 = none; and whether it is pinned. */
unsigned int xc_sr_pv_table_level(uint32_t type);
bool xc_sr_pv_is_pinned(uint32_t type);

/* How many pfns a guest may claim to have. It has memory at far fewer. */
uint64_t xc_sr_pv_pfns_limit(uint64_t max_memkb);

/* Is this frame the guest's, by its p2m and by the m2p? */
bool xc_sr_pv_find_pfn(const struct xc_sr_pv_p2m *p2m, const struct xc_sr_pv_m2p *m2p, uint64_t mfn,
                       uint64_t *pfn);

/*
 * One page table. They return NULL, or a static text that says what is wrong with the entry whose
 * index is in *at. `from` may change meanwhile: each entry is read once.
 */
const char *xc_sr_pv_normalise(const struct xc_sr_pv_p2m *p2m, const struct xc_sr_pv_m2p *m2p,
                               unsigned int level, const uint64_t *from, uint64_t *to,
                               unsigned int *at);
/* Also removes what a table from a stream has in the hypervisor's entries. */
const char *xc_sr_pv_localise(const struct xc_sr_pv_p2m *p2m, unsigned int level, uint64_t *table,
                              unsigned int *at);
/* The pfns below p2m->pfns that a table from a stream names and that have no frame. */
unsigned int xc_sr_pv_find_missing(const struct xc_sr_pv_p2m *p2m, unsigned int level,
                                   const uint64_t *table, uint64_t missing[XC_SR_PV_ENTRIES]);

#endif
