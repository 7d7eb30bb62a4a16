/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Pages that come and go while the guest is replicated.
 *
 * Xen 4.17 does not mark a pfn dirty when a page appears there or is given back, and what the guest
 * writes to a new page before the next CLEAN is not logged. So we find out ourselves:
 *
 * - Our mappings pin the pages they show. A page given back still counts as the domain's while it
 *   is mapped, so the domain's page count goes up when a page came, and only then. A pause costs
 *   a look at one number, unless it moved.
 * - When it went up, all types are compared with what was sent. If that does not explain the
 *   rise, a page came back at a pfn it had been given back at: every chunk is mapped anew and
 *   compared with the old mapping.
 * - Whatever we have is made for the pfns that there were at the start. A page behind them, or a rise that is not
 *   explained after all that, ends the save.
 * - Pages given back are no danger, only wasted memory at the backup: a scan in slices between
 *   the checkpoints finds them, and the next checkpoint sends them as XTAB. A plain stream looks
 *   for them once, after the live rounds.
 *
 * Mappings are dropped only while the guest is suspended: in between, the number must tell of the
 * guest's doings alone. During the live rounds pages are pinned one after the other, so a move of
 * the number then makes the first pause compare everything.
 *
 * Limit: of a guest larger than map_limit_pages not all pages are pinned at a time. Should it give
 * back and take again the very same pfn between two checkpoints, that may go unnoticed.
 */
#include "xc_sr_record.h"
#include "xc_sr_save.h"

/* One slice of the scan, between two checkpoints: 256 MiB of guest. */
#define SCAN_BATCHES 64
/* Looked at behind the end that was known at the start, in a pause: 4 GiB of guest. */
#define BEHIND_MAX (1UL << 20)

static int read_owned(struct xc_sr_save *s, uint64_t *pages)
{
    xc_dominfo_t info;

    if (xc_domain_getinfo(s->env.xch, s->env.domid, 1, &info) != 1 || info.domid != s->env.domid) {
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
    xen_pfn_t types[XC_SR_BATCH] = {0};
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

        /* The guest says how long this takes. */
        if (!s->suspended && xc_sr_save_check_stop(s)) return -1;
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

int xc_sr_population_search(struct xc_sr_save *s)
{
    uint64_t pfn, end;

    for (pfn = xc_sr_dirty_next(&s->sent, 0); pfn != XC_SR_PFN_NONE;
         pfn = xc_sr_dirty_next(&s->sent, end)) {
        end = pfn + XC_SR_BATCH < s->pfns ? pfn + XC_SR_BATCH : s->pfns;
        if (compare_range(s, pfn, end, mark_suspect, NULL)) return -1;
    }
    return 0;
}

/* The next pfn from `from` on where the guest has, or once had, a page. */
static uint64_t next_known(const struct xc_sr_save *s, uint64_t from)
{
    uint64_t sent = xc_sr_dirty_next(&s->sent, from), gone = xc_sr_dirty_next(&s->gone, from);

    return sent < gone ? sent : gone;
}

/* What a comparison of types found. */
struct moves {
    uint64_t came;
    uint64_t gone_pinned;   /* went, and our mapping keeps it */
    uint64_t gone_unpinned; /* went, and we held no mapping of it */
};

static void count_moved(struct xc_sr_save *s, void *user, uint64_t pfn, bool there)
{
    struct moves *m = user;

    xc_sr_dirty_set(&s->suspect, pfn);
    m->came += there;
    m->gone_pinned += !there && xc_sr_map_has(&s->map, pfn);
    m->gone_unpinned += !there && !xc_sr_map_has(&s->map, pfn);
}

static void mark_changed(void *user, uint64_t pfn)
{
    struct xc_sr_save *s = user;

    xc_sr_dirty_set(&s->suspect, pfn);
}

static int compare_mappings(struct xc_sr_save *s)
{
    uint64_t chunk;

    for (chunk = 0; chunk < xc_sr_map_chunks(&s->map); chunk++)
        if (xc_sr_map_compare(&s->map, chunk, mark_changed, s)) return -1;
    return 0;
}

static void mark_found(struct xc_sr_save *s, void *user, uint64_t pfn, bool there)
{
    bool *found = user;

    (void)s;
    (void)pfn;
    *found |= there;
}

/* The hypervisor's end moves also for what is no memory: frames of the grant table, which nobody sends. */
int xc_sr_population_check_end(struct xc_sr_save *s)
{
    xen_pfn_t pfns;
    bool found;

    if (xc_domain_nr_gpfns(s->env.xch, s->env.domid, &pfns) < 0) {
        SR_ERRNO(&s->env, "cannot read the size of domain %u", s->env.domid);
        return -1;
    }
    if (pfns <= s->pfns) return 0;
    found = pfns - s->pfns > BEHIND_MAX;
    if (!found && compare_range(s, s->pfns, pfns, mark_found, &found)) return -1;
    if (!found) return 0;
    SR_FAIL(&s->env, E2BIG,
            "domain %u grew behind pfn %#lx, where it ended when this began: begin again",
            s->env.domid, (unsigned long)s->pfns);
    return -1;
}

int xc_sr_population_sample(struct xc_sr_save *s)
{
    uint64_t pages;

    if (read_owned(s, &pages)) return -1;
    if (pages == s->owned_pages) return 0;
    if (xc_sr_population_check_end(s)) return -1;
    s->owned_pages = pages;
    s->population_moved = true;
    return compare_range(s, 0, s->pfns, mark_suspect, NULL);
}

static bool explains(const struct moves *m, uint64_t before, uint64_t pages)
{
    return pages + m->gone_unpinned == before + m->came;
}

static int find_known_moves(struct xc_sr_save *s, struct moves *m)
{
    uint64_t pfn, end;

    for (pfn = next_known(s, 0); pfn != XC_SR_PFN_NONE; pfn = next_known(s, end)) {
        end = pfn + XC_SR_BATCH < s->pfns ? pfn + XC_SR_BATCH : s->pfns;
        if (compare_range(s, pfn, end, count_moved, m)) return -1;
    }
    return 0;
}

/*
 * All was mapped anew, so old pages are not pinned any more: those of pfns where nothing is, and one for each pfn
 * where another page is now.
 */
static int check_rise(struct xc_sr_save *s, const struct moves *m, uint64_t before, uint64_t pages)
{
    uint64_t now, released, swapped;

    if (read_owned(s, &now)) return -1;
    released = pages > now ? pages - now : 0;
    swapped = released > m->gone_pinned ? released - m->gone_pinned : 0;
    if (pages <= before + m->came + swapped) return 0;
    SR_FAIL(&s->env, EIO, "domain %u has %lu pages more than before, and they are not found",
            s->env.domid, (unsigned long)(pages - before - m->came - swapped));
    return -1;
}

/*
 * Where a page came the mapping may be of what was there before, a frame of the grant table, say. Only after all
 * comparisons: a chunk goes as a whole.
 */
static int drop_old_mappings(struct xc_sr_save *s)
{
    uint64_t pfn = xc_sr_dirty_next(&s->suspect, 0);

    for (; pfn != XC_SR_PFN_NONE; pfn = xc_sr_dirty_next(&s->suspect, pfn + 1)) {
        if (xc_sr_dirty_test(&s->sent, pfn) || !xc_sr_map_has(&s->map, pfn)) continue;
        xc_sr_map_drop(&s->map, pfn);
        s->owned_stale = true;
    }
    return 0;
}

int xc_sr_population_check(struct xc_sr_save *s)
{
    struct moves known = {0}, all = {0};
    uint64_t pages = s->paused_pages, before = s->owned_pages;
    bool thorough = s->population_moved;

    if (pages == before && !thorough) return drop_old_mappings(s);
    s->population_moved = false;
    s->owned_stale = true;
    if (xc_sr_population_check_end(s)) return -1;
    /* Guests take back what they gave: look there first, and at all other pfns only if need be. */
    if (!thorough && find_known_moves(s, &known)) return -1;
    if (!thorough && explains(&known, before, pages)) return drop_old_mappings(s);
    if (compare_range(s, 0, s->pfns, count_moved, &all)) return -1;
    if (!thorough && explains(&all, before, pages)) return drop_old_mappings(s);
    return compare_mappings(s) ? -1 : check_rise(s, &all, before, pages);
}

/* Suspects that are gone and that our mapping still holds: they are the domain's until it goes. */
static uint64_t count_held(const struct xc_sr_save *s)
{
    uint64_t pfn, held = 0;

    for (pfn = xc_sr_dirty_next(&s->suspect, 0); pfn != XC_SR_PFN_NONE;
         pfn = xc_sr_dirty_next(&s->suspect, pfn + 1))
        held += !xc_sr_dirty_test(&s->sent, pfn) && xc_sr_map_has(&s->map, pfn);
    return held;
}

/* The other pages of a chunk that is dropped are pinned again at once, before the guest runs. */
int xc_sr_population_settle(struct xc_sr_save *s)
{
    uint64_t first = xc_sr_dirty_next(&s->suspect, 0), pfn, held, before;

    if (first == XC_SR_PFN_NONE && !s->owned_stale) return 0;
    held = count_held(s);
    if (read_owned(s, &before)) return -1;
    for (pfn = first; pfn != XC_SR_PFN_NONE; pfn = xc_sr_dirty_next(&s->suspect, pfn + 1))
        if (!xc_sr_dirty_test(&s->sent, pfn)) xc_sr_map_drop(&s->map, pfn);
    /* What is not pinned could change behind our back. */
    for (pfn = first; pfn != XC_SR_PFN_NONE; pfn = xc_sr_dirty_next(&s->suspect, pfn + 1))
        if (!xc_sr_map_page(&s->map, pfn) && errno != ENOENT) return -1;
    xc_sr_dirty_clear_all(&s->suspect);
    s->owned_stale = false;
    if (read_owned(s, &s->owned_pages)) return -1;
    /* A page that left its pfn and stays the domain's was moved to another one (XENMAPSPACE_gmfn): find it. */
    if (s->owned_pages + held > before) s->population_moved = true;
    return 0;
}

static void map_there(struct xc_sr_save *s, void *user, uint64_t pfn, bool there)
{
    if (!there) return;
    xc_sr_dirty_set(user, pfn);
    /* Nothing is lost when it fails: the page is mapped again when it is sent. */
    xc_sr_map_page(&s->map, pfn);
}

/*
 * A page that goes before it is pinned lowers the domain's number, and would hide one that comes: so the number is looked at
 * after every batch, and only within one can that happen.
 */
int xc_sr_population_start(struct xc_sr_save *s, struct xc_sr_dirty *found)
{
    uint64_t first, end, pages;

    if (read_owned(s, &s->owned_pages)) return -1;
    for (first = 0; first < s->pfns; first = end) {
        end = first + XC_SR_BATCH < s->pfns ? first + XC_SR_BATCH : s->pfns;
        /* Of a guest beyond the limit the chunks before are given up now, not all at once in a pause. */
        xc_sr_map_next_round(&s->map);
        if (compare_range(s, first, end, map_there, found) || read_owned(s, &pages)) return -1;
        if (pages != s->owned_pages) s->population_moved = true;
        s->owned_pages = pages;
    }
    /* From here on a new page shows in the number. */
    return xc_sr_population_check_end(s);
}
