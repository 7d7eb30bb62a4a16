/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Pages that come and go while the guest is replicated.
 *
 * Xen 4.17 does not mark a pfn dirty when a page appears there or is given back, and what the guest
 * writes to a new page before the next CLEAN is not logged. So we find out ourselves:
 *
 * - Our mappings pin the pages they show. A page given back still counts as the domain's while it
 *   is mapped, so the domain's page count goes up when a page came, and only then. One number per
 *   checkpoint, which the check for "is it suspended" reads anyway.
 * - When it went up, all types are compared with what was sent. If that does not explain the
 *   rise, a page came back at a pfn it had been given back at: every chunk is mapped anew and
 *   compared with the old mapping.
 * - Pages given back are no danger, only wasted memory at the backup: a scan in slices between
 *   the checkpoints finds them, and the next checkpoint sends them as XTAB.
 */
#include "xc_sr_record.h"
#include "xc_sr_save.h"

/* One slice of the scan, between two checkpoints: 256 MiB of guest. */
#define SCAN_BATCHES 64

static int read_owned(struct xc_sr_save *s, uint64_t *pages)
{
    xc_dominfo_t info;

    if (xc_domain_getinfo(s->env.xch, s->env.domid, 1, &info) != 1 ||
        info.domid != s->env.domid) {
        SR_FAIL(&s->env, ESRCH, "domain %u is gone", s->env.domid);
        return -1;
    }
    *pages = info.nr_pages;
    return 0;
}

typedef void each_fn(struct xc_sr_save *s, void *user, uint64_t pfn, bool there);

/* Calls each() for those of n pfns from first on where `sent` disagrees with the guest. */
static int compare_batch(struct xc_sr_save *s, uint64_t first, unsigned int n, each_fn *each,
                         void *user)
{
    xen_pfn_t types[XC_SR_BATCH] = { 0 };
    unsigned int i;

    for (i = 0; i < n; i++)
        types[i] = first + i;
    if (xc_get_pfn_type_batch(s->env.xch, s->env.domid, n, types)) {
        SR_ERRNO(&s->env, "cannot read page types from pfn %#lx on", (unsigned long)first);
        return -1;
    }
    for (i = 0; i < n; i++) {
        uint32_t type = (uint32_t)(types[i] >> XEN_DOMCTL_PFINFO_LTAB_SHIFT) & 0xf;
        bool there = xc_sr_page_type_has_data(type);

        if (there != xc_sr_dirty_test(&s->sent, first + i)) each(s, user, first + i, there);
    }
    return 0;
}

static int compare_range(struct xc_sr_save *s, uint64_t first, uint64_t end, each_fn *each,
                         void *user)
{
    while (first < end) {
        uint64_t left = end - first;
        unsigned int n = left < XC_SR_BATCH ? (unsigned int)left : XC_SR_BATCH;

        if (compare_batch(s, first, n, each, user)) return -1;
        first += n;
    }
    return 0;
}

static void mark_suspect(struct xc_sr_save *s, void *user, uint64_t pfn, bool there)
{
    (void)user;
    (void)there;
    xc_sr_dirty_set(&s->suspect, pfn);
}

/* Only where pages were sent: one that comes elsewhere shows in the domain's page count. */
int xc_sr_population_scan(struct xc_sr_save *s)
{
    unsigned int batch;

    for (batch = 0; batch < SCAN_BATCHES; batch++) {
        uint64_t first = xc_sr_dirty_next(&s->sent, s->scan_next), end;

        if (first == XC_SR_PFN_NONE) {
            s->scan_next = 0;
            return 0;
        }
        end = first + XC_SR_BATCH < s->pfns ? first + XC_SR_BATCH : s->pfns;
        if (compare_range(s, first, end, mark_suspect, NULL)) return -1;
        s->scan_next = end;
    }
    return 0;
}

/* What a comparison of all types found. */
struct moves {
    uint64_t came;
    uint64_t gone_unpinned; /* went, and we held no mapping of it */
};

static void count_moved(struct xc_sr_save *s, void *user, uint64_t pfn, bool there)
{
    struct moves *m = user;

    xc_sr_dirty_set(&s->suspect, pfn);
    if (there)
        m->came++;
    else if (!xc_sr_map_has(&s->map, pfn))
        m->gone_unpinned++;
}

static void mark_dirty(void *user, uint64_t pfn)
{
    struct xc_sr_save *s = user;

    xc_sr_dirty_set(&s->dirty, pfn);
}

static int compare_mappings(struct xc_sr_save *s)
{
    uint64_t chunk;

    for (chunk = 0; chunk < xc_sr_map_chunks(&s->map); chunk++)
        if (xc_sr_map_compare(&s->map, chunk, mark_dirty, s)) return -1;
    return 0;
}

int xc_sr_population_check(struct xc_sr_save *s)
{
    struct moves m = { 0, 0 };
    uint64_t pages, before = s->owned_pages;

    if (read_owned(s, &pages)) return -1;
    if (pages == before) return 0;
    /* What comes from here on is seen next time: keep the number read before the comparison. */
    s->owned_pages = pages;
    if (compare_range(s, 0, s->pfns, count_moved, &m)) return -1;
    SR_LOG(&s->env, DETAIL, "domain %u: %lu pages now, %lu before; %lu came", s->env.domid,
           (unsigned long)pages, (unsigned long)before, (unsigned long)m.came);
    if (pages + m.gone_unpinned == before + m.came) return 0;
    return compare_mappings(s);
}

int xc_sr_population_settle(struct xc_sr_save *s)
{
    uint64_t pfn = xc_sr_dirty_next(&s->suspect, 0);
    bool dropped = false;

    if (pfn == XC_SR_PFN_NONE) return 0;
    for (; pfn != XC_SR_PFN_NONE; pfn = xc_sr_dirty_next(&s->suspect, pfn + 1)) {
        if (xc_sr_dirty_test(&s->sent, pfn)) continue;
        xc_sr_map_drop(&s->map, pfn);
        dropped = true;
    }
    xc_sr_dirty_clear_all(&s->suspect);
    return dropped ? read_owned(s, &s->owned_pages) : 0;
}

static void map_there(struct xc_sr_save *s, void *user, uint64_t pfn, bool there)
{
    uint64_t *pages = user;

    if (!there) return;
    /* Nothing is lost when it fails: the page is mapped again when it is sent. */
    xc_sr_map_page(&s->map, pfn);
    (*pages)++;
}

int xc_sr_population_start(struct xc_sr_save *s, uint64_t *pages)
{
    *pages = 0;
    if (compare_range(s, 0, s->pfns, map_there, pages)) return -1;
    return read_owned(s, &s->owned_pages);
}
