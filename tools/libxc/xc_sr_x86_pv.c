/* SPDX-License-Identifier: LGPL-2.1-only */
/* Translation between pfns and mfns. No hypervisor is asked here. */
#include <stddef.h>

#include "xc_sr_x86_pv.h"

#include "xc_sr_stream_format.h"

#define PFNS_ENOUGH (1ULL << 27) /* 512 GiB, what Linux prepares its p2m for */
#define PFNS_MAX (1ULL << 32)    /* what X86_PV_P2M_FRAMES can express */

unsigned int xc_sr_pv_table_level(uint32_t type)
{
    if (type >= SR_PAGE_L1 && type <= SR_PAGE_L4) return type;
    if (type >= SR_PAGE_PINNED_L1 && type <= SR_PAGE_PINNED_L4) return type - SR_PAGE_PINNED_L1 + 1;
    return 0;
}

bool xc_sr_pv_is_pinned(uint32_t type)
{
    return type >= SR_PAGE_PINNED_L1 && type <= SR_PAGE_PINNED_L4;
}

uint64_t xc_sr_pv_pfns_limit(uint64_t max_memkb)
{
    uint64_t pages = max_memkb / (SR_PAGE_SIZE / 1024);

    /* A guest may have less memory than what it was made for. */
    if (pages > PFNS_MAX / 4) return PFNS_MAX;
    return pages > PFNS_ENOUGH / 4 ? 4 * pages : PFNS_ENOUGH;
}

bool xc_sr_pv_find_pfn(const struct xc_sr_pv_p2m *p2m, const struct xc_sr_pv_m2p *m2p, uint64_t mfn,
                       uint64_t *pfn)
{
    if (!mfn || mfn >= m2p->frames) return false;
    *pfn = *(const volatile uint64_t *)&m2p->pfns[mfn];
    return *pfn < p2m->pfns && *(const volatile uint64_t *)&p2m->frames[*pfn] == mfn;
}

static bool is_xen_entry(unsigned int level, unsigned int i)
{
    return level == XC_SR_PV_LEVELS && i >= XC_SR_PV_XEN_FIRST && i <= XC_SR_PV_XEN_LAST;
}

static uint64_t frame_of(uint64_t pte)
{
    return (pte & XC_SR_PV_PTE_FRAME) >> SR_PAGE_SHIFT;
}

static uint64_t with_frame(uint64_t pte, uint64_t frame)
{
    return (pte & ~XC_SR_PV_PTE_FRAME) | frame << SR_PAGE_SHIFT;
}

const char *xc_sr_pv_normalise(const struct xc_sr_pv_p2m *p2m, const struct xc_sr_pv_m2p *m2p,
                               unsigned int level, const uint64_t *from, uint64_t *to,
                               unsigned int *at)
{
    unsigned int i;

    for (i = 0; i < XC_SR_PV_ENTRIES; i++) {
        uint64_t pte = is_xen_entry(level, i) ? 0 : *(const volatile uint64_t *)&from[i];
        uint64_t pfn;

        *at = i;
        if (pte & XC_SR_PV_PTE_PRESENT) {
            if (level > 1 && (pte & XC_SR_PV_PTE_SUPERPAGE)) return "is a superpage";
            if (!xc_sr_pv_find_pfn(p2m, m2p, frame_of(pte), &pfn))
                return "maps a page that is not the guest's own";
            pte = with_frame(pte, pfn);
        }
        to[i] = pte;
    }
    return NULL;
}

const char *xc_sr_pv_localise(const struct xc_sr_pv_p2m *p2m, unsigned int level, uint64_t *table,
                              unsigned int *at)
{
    unsigned int i;

    for (i = 0; i < XC_SR_PV_ENTRIES; i++) {
        uint64_t pfn = frame_of(table[i]);

        *at = i;
        if (is_xen_entry(level, i)) table[i] = 0;
        if (!(table[i] & XC_SR_PV_PTE_PRESENT)) continue;
        if (level > 1 && (table[i] & XC_SR_PV_PTE_SUPERPAGE)) return "is a superpage";
        if (pfn >= p2m->pfns) return "names a pfn that the guest cannot have";
        if (!p2m->frames[pfn]) return "names a pfn without memory";
        table[i] = with_frame(table[i], p2m->frames[pfn]);
    }
    return NULL;
}

unsigned int xc_sr_pv_find_missing(const struct xc_sr_pv_p2m *p2m, unsigned int level,
                                   const uint64_t *table, uint64_t missing[XC_SR_PV_ENTRIES])
{
    unsigned int i, n = 0;

    for (i = 0; i < XC_SR_PV_ENTRIES; i++) {
        uint64_t pfn = frame_of(table[i]);

        if (is_xen_entry(level, i) || !(table[i] & XC_SR_PV_PTE_PRESENT)) continue;
        if (pfn < p2m->pfns && !p2m->frames[pfn]) missing[n++] = pfn;
    }
    return n;
}
