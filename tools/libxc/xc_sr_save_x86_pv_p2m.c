/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Where a PV guest keeps its p2m, the array from pfn to mfn. The guest says so in the shared info
 * page, in one of two ways, and both are a tree of pages of 512 entries:
 *
 *   p2m_cr3 is not 0:     page tables, 4 levels; the array is at p2m_vaddr
 *   frame_list_list:      2 levels of lists of mfns; the array is at "address" 0
 *
 * So there is one walk, from the root down, level by level, over a range of virtual page numbers.
 * Level 1 holds the frames of the array. All numbers come from the guest: each frame is bounded
 * before it is mapped, and the hypervisor maps only pages of this guest.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_save_x86_pv.h"

#define LEVEL_SHIFT 9
#define VADDR_BITS 48
#define M2P_EXTENT_PAGES 512 /* of the m2p that are contiguous in the machine */

struct walk {
    uint64_t first, last; /* virtual page numbers */
    unsigned int levels;
    bool page_tables;
    uint64_t *frames; /* of the level under way */
    uint64_t count;
};

static const void *map_frames(struct xc_sr_save *s, uint32_t domid, const uint64_t *frames,
                              uint64_t count, const char *what)
{
    const void *map =
        xenforeignmemory_map(s->env.fmem, domid, PROT_READ, count, (const xen_pfn_t *)frames, NULL);

    if (!map)
        SR_ERRNO(&s->env, "cannot map %lu pages: %s of domain %u", (unsigned long)count, what,
                 s->env.domid);
    return map;
}

/* The p2m as the guest describes it. */
static int find_root(struct xc_sr_save *s, struct walk *w, uint64_t *root)
{
    const struct xc_sr_pv_save *pv = s->arch;
    const struct arch_shared_info *arch = &pv->shared->arch;
    uint64_t pages = (pv->p2m.pfns - 1) / XC_SR_PV_ENTRIES + 1;
    uint64_t vaddr = arch->p2m_vaddr, top = vaddr >> (VADDR_BITS - 1);

    w->page_tables = arch->p2m_cr3 != 0;
    if (!w->page_tables) {
        w->levels = 2;
        w->last = pages - 1;
        *root = arch->pfn_to_mfn_frame_list_list;
        if (w->last >> (2 * LEVEL_SHIFT) == 0) return 0;
        SR_FAIL(&s->env, ERANGE, "domain %u: %lu pfns do not fit into its p2m", s->env.domid,
                (unsigned long)pv->p2m.pfns);
        return -1;
    }
    w->levels = XC_SR_PV_LEVELS;
    w->first = (vaddr & ((1ULL << VADDR_BITS) - 1)) >> SR_PAGE_SHIFT;
    w->last = w->first + pages - 1;
    *root = arch->p2m_cr3 >> SR_PAGE_SHIFT;
    /* In one half of the address space, and not where the hypervisor is. */
    if (!(vaddr % SR_PAGE_SIZE) && (top == 0 || top == (1 << (64 - VADDR_BITS + 1)) - 1) &&
        w->last >> (VADDR_BITS - 1 - SR_PAGE_SHIFT) ==
            w->first >> (VADDR_BITS - 1 - SR_PAGE_SHIFT) &&
        (w->last >> (3 * LEVEL_SHIFT) < XC_SR_PV_XEN_FIRST ||
         w->first >> (3 * LEVEL_SHIFT) > XC_SR_PV_XEN_LAST))
        return 0;
    SR_FAIL(&s->env, ERANGE, "domain %u: its p2m cannot be at %#lx", s->env.domid,
            (unsigned long)vaddr);
    return -1;
}

/* One entry of a table: the frame it names, or 0. */
static uint64_t entry_frame(const struct walk *w, unsigned int level, uint64_t entry)
{
    if (!w->page_tables) return entry;
    if (!(entry & XC_SR_PV_PTE_PRESENT)) return 0;
    if (level > 1 && (entry & XC_SR_PV_PTE_SUPERPAGE)) return 0;
    return (entry & XC_SR_PV_PTE_FRAME) >> SR_PAGE_SHIFT;
}

/*
 * A guest prepares its p2m for memory that it does not have yet with one page of invalid entries in
 * many places. At the end of the p2m they need not be saved.
 */
static void trim(struct walk *w, unsigned int level)
{
    uint64_t kept = w->count, above = w->first >> ((level - 1) * LEVEL_SHIFT);
    uint64_t last;

    if (kept < 2 || w->frames[kept - 1] != w->frames[kept - 2]) return;
    while (kept && w->frames[kept - 1] == w->frames[w->count - 1])
        kept--;
    w->count = kept;
    last = kept ? ((above + kept) << ((level - 1) * LEVEL_SHIFT)) - 1 : w->first;
    if (last < w->last) w->last = last;
}

/* From the tables of this level to what they name. */
static int descend(struct xc_sr_save *s, struct walk *w, unsigned int level)
{
    const struct xc_sr_pv_save *pv = s->arch;
    uint64_t first = w->first >> ((level - 1) * LEVEL_SHIFT);
    uint64_t last = w->last >> ((level - 1) * LEVEL_SHIFT);
    uint64_t base = first >> LEVEL_SHIFT << LEVEL_SHIFT, tables = w->count, i;
    uint64_t *frames = calloc(last - first + 1, sizeof(*frames));
    const uint64_t *entries;
    int rc = -1;

    if (!frames) {
        SR_ERRNO(&s->env, "no memory for a p2m of %lu pfns", (unsigned long)pv->p2m.pfns);
        return -1;
    }
    entries = map_frames(s, s->env.domid, w->frames, tables, "the way to the p2m");
    if (!entries) goto out;
    for (i = first; i <= last; i++) {
        uint64_t mfn = entry_frame(w, level, entries[i - base]);

        if (!mfn || mfn >= pv->m2p.frames) {
            SR_FAIL(&s->env, ERANGE, "domain %u: level %u of its p2m has no frame at %#lx",
                    s->env.domid, level, (unsigned long)i);
            goto out;
        }
        frames[i - first] = mfn;
    }
    free(w->frames);
    w->frames = frames;
    w->count = last - first + 1;
    frames = NULL;
    if (level <= 2) trim(w, level);
    rc = 0;
out:
    if (entries) xenforeignmemory_unmap(s->env.fmem, (void *)(uintptr_t)entries, tables);
    free(frames);
    return rc;
}

static int walk_down(struct xc_sr_save *s, struct walk *w)
{
    const struct xc_sr_pv_save *pv = s->arch;
    unsigned int level;
    uint64_t root;

    if (find_root(s, w, &root)) return -1;
    if (!root || root >= pv->m2p.frames) {
        SR_FAIL(&s->env, ERANGE, "domain %u does not tell where its p2m is: has it booted?",
                s->env.domid);
        return -1;
    }
    w->frames = calloc(1, sizeof(*w->frames));
    if (!w->frames) {
        SR_ERRNO(&s->env, "no memory for a p2m");
        return -1;
    }
    w->frames[0] = root;
    w->count = 1;
    for (level = w->levels; level > 0; level--) {
        if (descend(s, w, level)) return -1;
        if (w->count) continue;
        SR_FAIL(&s->env, ERANGE, "domain %u: its p2m has no valid entry", s->env.domid);
        return -1;
    }
    return 0;
}

/* The pages of the p2m are guest memory like any other: they travel, and have pfns. */
static int find_p2m_pfns(struct xc_sr_save *s, const uint64_t *frames)
{
    struct xc_sr_pv_save *pv = s->arch;
    uint64_t i;

    pv->p2m_pfns = calloc(pv->p2m_pages, sizeof(*pv->p2m_pfns));
    if (!pv->p2m_pfns) {
        SR_ERRNO(&s->env, "no memory for the pfns of %lu pages", (unsigned long)pv->p2m_pages);
        return -1;
    }
    for (i = 0; i < pv->p2m_pages; i++) {
        if (xc_sr_pv_find_pfn(&pv->p2m, &pv->m2p, frames[i], &pv->p2m_pfns[i])) continue;
        SR_FAIL(&s->env, ERANGE, "domain %u: page %lu of its p2m is not its own", s->env.domid,
                (unsigned long)i);
        return -1;
    }
    return 0;
}

int xc_sr_pv_map_p2m(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;
    struct walk w = {0};
    int rc = -1;

    pv->p2m.pfns = pv->shared->arch.max_pfn;
    if (!pv->p2m.pfns || pv->p2m.pfns > xc_sr_pv_pfns_limit(pv->max_memkb)) {
        SR_FAIL(&s->env, ERANGE, "domain %u says that it has %lu pfns", s->env.domid,
                (unsigned long)pv->p2m.pfns);
        return -1;
    }
    if (walk_down(s, &w)) goto out;
    pv->p2m.frames = map_frames(s, s->env.domid, w.frames, w.count, "the p2m");
    if (!pv->p2m.frames) goto out;
    pv->p2m_pages = w.count;
    if (pv->p2m.pfns > w.count * XC_SR_PV_ENTRIES) pv->p2m.pfns = w.count * XC_SR_PV_ENTRIES;
    rc = find_p2m_pfns(s, w.frames);
out:
    free(w.frames);
    return rc;
}

int xc_sr_pv_map_m2p(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;
    uint64_t extents, i, *frames = NULL;
    xen_pfn_t *starts = NULL;
    unsigned long max_mfn;
    int rc = -1;

    if (xc_maximum_ram_page(s->env.xch, &max_mfn) < 0) {
        SR_ERRNO(&s->env, "cannot read how much memory the host has");
        return -1;
    }
    extents = (max_mfn - 1) / ((uint64_t)M2P_EXTENT_PAGES * XC_SR_PV_ENTRIES) + 1;
    starts = calloc(extents, sizeof(*starts));
    frames = calloc(extents * M2P_EXTENT_PAGES, sizeof(*frames));
    if (!starts || !frames) {
        SR_ERRNO(&s->env, "no memory for %lu extents of the m2p", (unsigned long)extents);
        goto out;
    }
    if (xc_machphys_mfn_list(s->env.xch, extents, starts)) {
        SR_ERRNO(&s->env, "cannot find the hypervisor's m2p");
        goto out;
    }
    for (i = 0; i < extents * M2P_EXTENT_PAGES; i++)
        frames[i] = starts[i / M2P_EXTENT_PAGES] + i % M2P_EXTENT_PAGES;
    pv->m2p.pfns = map_frames(s, DOMID_XEN, frames, extents * M2P_EXTENT_PAGES, "the m2p");
    if (!pv->m2p.pfns) goto out;
    pv->m2p_pages = extents * M2P_EXTENT_PAGES;
    pv->m2p.frames = max_mfn;
    rc = 0;
out:
    free(frames);
    free(starts);
    return rc;
}

void xc_sr_pv_unmap(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;

    if (pv->p2m.frames)
        xenforeignmemory_unmap(s->env.fmem, (void *)(uintptr_t)pv->p2m.frames, pv->p2m_pages);
    if (pv->m2p.pfns)
        xenforeignmemory_unmap(s->env.fmem, (void *)(uintptr_t)pv->m2p.pfns, pv->m2p_pages);
    free(pv->p2m_pfns);
    pv->p2m.frames = NULL;
    pv->m2p.pfns = NULL;
    pv->p2m_pfns = NULL;
}
