/* SPDX-License-Identifier: LGPL-2.1-only */
/* Pages of the guest into PAGE_DATA records: directly, or through the arena of a checkpoint. */
#include <stdlib.h>
#include <string.h>

#include "xc_sr_record.h"
#include "xc_sr_save.h"

/* One PAGE_DATA record in the making. Pages are written from where they are mapped. */
struct xc_sr_batch {
    unsigned int count; /* entries */
    unsigned int pages; /* entries with data */
    uint64_t written;   /* pages with data of the set under way */
    uint64_t entries[XC_SR_BATCH];
    const void *data[XC_SR_BATCH];
    struct iovec iov[XC_SR_BATCH + 3];
};

/* Takes one pfn: with data (a copy or a write is up to it), or without (gone, broken). */
typedef int sink_fn(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page);

int xc_sr_batch_alloc(struct xc_sr_save *s)
{
    s->batch = calloc(1, sizeof(*s->batch));
    if (!s->batch) SR_ERRNO(&s->env, "no memory for a batch of pages");
    return s->batch ? 0 : -1;
}

/* Neighbours in the mapping become one piece: fewer for the kernel to walk. */
static unsigned int gather(const struct xc_sr_batch *b, struct iovec *iov)
{
    unsigned int i, n = 0;

    for (i = 0; i < b->pages; i++) {
        void *page = (void *)(uintptr_t)b->data[i];

        if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == (uint8_t *)page)
            iov[n - 1].iov_len += SR_PAGE_SIZE;
        else
            iov[n++] = (struct iovec){page, SR_PAGE_SIZE};
    }
    return n;
}

static int flush(struct xc_sr_save *s)
{
    struct xc_sr_batch *b = s->batch;
    struct xc_sr_page_head head = xc_sr_page_head(b->count, b->pages);
    unsigned int n;

    if (s->encoder) return xc_sr_encode_flush(s);
    if (!b->count) return 0;
    b->iov[0] = (struct iovec){&head, sizeof(head)};
    b->iov[1] = (struct iovec){b->entries, b->count * sizeof(b->entries[0])};
    n = 2 + gather(b, b->iov + 2);
    b->count = b->pages = 0;
    xc_sr_map_next_round(&s->map);
    if (xc_sr_io_writev(s->env.io, b->iov, n)) {
        SR_ERRNO(&s->env, "cannot write guest pages to the stream");
        return -1;
    }
    return 0;
}

static int sink_to_stream(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page)
{
    struct xc_sr_batch *b = s->batch;

    if (page) b->written++;
    if (s->encoder) return xc_sr_encode_guest_page(s, pfn, type, page);
    if (page) b->data[b->pages++] = page;
    b->entries[b->count++] = (uint64_t)type << SR_PFN_TYPE_SHIFT | pfn;
    return b->count == XC_SR_BATCH ? flush(s) : 0;
}

static int sink_to_arena(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page)
{
    if (!xc_sr_arena_add(&s->arena, pfn, type, page)) return 0;
    SR_ERRNO(&s->env, "a checkpoint needs more than %lu pages",
             (unsigned long)s->arena.limit_pages);
    return -1;
}

/*
 * A chunk that was mapped before the page came does not show it: map it once more, but only in a
 * pause, see xc_sr_save_balloon.c.
 */
static const void *find_page(struct xc_sr_save *s, uint64_t pfn)
{
    const void *page = xc_sr_map_page(&s->map, pfn);

    if (page || errno != ENOENT || !s->suspended) return page;
    if (flush(s)) return NULL;
    xc_sr_map_drop(&s->map, pfn);
    s->owned_stale = true;
    return xc_sr_map_page(&s->map, pfn);
}

static int take_page(struct xc_sr_save *s, uint64_t pfn, uint32_t type, sink_fn *sink)
{
    const void *page;

    if (!xc_sr_page_type_has_data(type)) {
        if (!xc_sr_dirty_test(&s->sent, pfn)) return 0;
        xc_sr_dirty_clear(&s->sent, pfn);
        xc_sr_dirty_set(&s->gone, pfn);
        xc_sr_dirty_set(&s->suspect, pfn);
        return sink(s, pfn, type == SR_PAGE_BROKEN ? SR_PAGE_BROKEN : SR_PAGE_XTAB, NULL);
    }
    page = find_page(s, pfn);
    if (!page && errno == ENOENT && !s->suspended) {
        /* It came or went just now. Ask again in the next round. */
        xc_sr_dirty_set(&s->suspect, pfn);
        return 0;
    }
    if (!page) {
        SR_ERRNO(&s->env, "cannot read pfn %#lx of domain %u", (unsigned long)pfn, s->env.domid);
        return -1;
    }
    xc_sr_dirty_set(&s->sent, pfn);
    if (!s->suspended) xc_sr_dirty_clear(&s->suspect, pfn);
    return sink(s, pfn, SR_PAGE_NORMAL, page);
}

/* Asks the hypervisor what is at these pfns and hands each to the sink. */
static int take_pages(struct xc_sr_save *s, const xen_pfn_t *pfns, unsigned int n, sink_fn *sink)
{
    xen_pfn_t types[XC_SR_BATCH];
    unsigned int i;

    if (!n) return 0;
    memcpy(types, pfns, n * sizeof(types[0]));
    if (xc_get_pfn_type_batch(s->env.xch, s->env.domid, n, types)) {
        SR_ERRNO(&s->env, "cannot read the types of %u pages of domain %u", n, s->env.domid);
        return -1;
    }
    for (i = 0; i < n; i++)
        if (take_page(s, pfns[i], (uint32_t)(types[i] >> XEN_DOMCTL_PFINFO_LTAB_SHIFT) & 0xf, sink))
            return -1;
    return 0;
}

/*
 * Without asking the hypervisor for its type. Not before it was asked once: the shared info and the grant table can be
 * mapped and are logged like memory, but belong to this host.
 */
static bool is_known_memory(const struct xc_sr_save *s, uint64_t pfn)
{
    return xc_sr_map_has(&s->map, pfn) && xc_sr_dirty_test(&s->sent, pfn) &&
           !xc_sr_dirty_test(&s->suspect, pfn);
}

/*
 * While the guest runs what is known is sent without asking: a page that was given back meanwhile is
 * found later (xc_sr_population_search). Its mapping still shows what it was.
 */
static int take_batch(struct xc_sr_save *s, const xen_pfn_t *pfns, unsigned int n)
{
    xen_pfn_t unknown[XC_SR_BATCH];
    unsigned int i, asked = 0;

    for (i = 0; i < n; i++) {
        if (s->suspended || !is_known_memory(s, pfns[i]))
            unknown[asked++] = pfns[i];
        else if (take_page(s, pfns[i], SR_PAGE_NORMAL, sink_to_stream))
            return -1;
    }
    return take_pages(s, unknown, asked, sink_to_stream);
}

/* Whoever hears it wakes up for it: not more often than the number that people see changes. */
static void tell_progress(struct xc_sr_save *s, const char *what, uint64_t total, uint64_t *told)
{
    uint64_t percent = total ? s->batch->written * 100 / total : 100;

    if (percent <= *told || percent >= 100) return;
    *told = percent;
    xtl_progress(s->env.lg, "xc", what, s->batch->written, total);
}

int xc_sr_write_set(struct xc_sr_save *s, const struct xc_sr_dirty *set, const char *what,
                    uint64_t total)
{
    xen_pfn_t pfns[XC_SR_BATCH];
    uint64_t pfn = xc_sr_dirty_next(set, 0), told = 0;

    s->batch->written = 0;
    xtl_progress(s->env.lg, "xc", what, 0, total);
    while (pfn != XC_SR_PFN_NONE) {
        unsigned int n = 0;

        for (; n < XC_SR_BATCH && pfn != XC_SR_PFN_NONE; pfn = xc_sr_dirty_next(set, pfn + 1))
            pfns[n++] = pfn;
        if (xc_sr_save_check_stop(s)) return -1;
        if (take_batch(s, pfns, n)) return -1;
        if (s->encoder) xc_sr_map_next_round(&s->map); /* it has copied them */
        tell_progress(s, what, total, &told);
        if (xc_sr_throttle(s)) return -1;
    }
    xtl_progress(s->env.lg, "xc", what, total, total);
    return flush(s) ? -1 : xc_sr_throttle(s);
}

int xc_sr_copy_dirty(struct xc_sr_save *s)
{
    xen_pfn_t slow[XC_SR_BATCH];
    unsigned int n = 0;
    uint64_t pfn;

    xc_sr_dirty_merge(&s->dirty, &s->suspect);
    for (pfn = xc_sr_dirty_next(&s->dirty, 0); pfn != XC_SR_PFN_NONE;
         pfn = xc_sr_dirty_next(&s->dirty, pfn + 1)) {
        if (is_known_memory(s, pfn)) {
            if (sink_to_arena(s, pfn, SR_PAGE_NORMAL, xc_sr_map_page(&s->map, pfn))) return -1;
            continue;
        }
        slow[n++] = pfn;
        if (n < XC_SR_BATCH) continue;
        if (take_pages(s, slow, n, sink_to_arena)) return -1;
        n = 0;
        xc_sr_map_next_round(&s->map);
    }
    return take_pages(s, slow, n, sink_to_arena);
}

static unsigned int count_data(const uint64_t *entries, unsigned int n)
{
    unsigned int i, pages = 0;

    for (i = 0; i < n; i++)
        pages += xc_sr_page_type_has_data(xc_sr_entry_type(entries[i]));
    return pages;
}

static int encode_arena(struct xc_sr_save *s)
{
    const struct xc_sr_arena *a = &s->arena;
    const uint8_t *data = a->data;
    uint64_t i;

    for (i = 0; i < a->entries_used; i++) {
        uint32_t type = xc_sr_entry_type(a->entries[i]);
        bool has_data = xc_sr_page_type_has_data(type);

        if (xc_sr_encode_page(s, xc_sr_entry_pfn(a->entries[i]), type, has_data ? data : NULL))
            return -1;
        if (has_data) data += SR_PAGE_SIZE;
    }
    return xc_sr_encode_flush(s);
}

int xc_sr_write_arena(struct xc_sr_save *s)
{
    struct xc_sr_arena *a = &s->arena;
    uint8_t *data = a->data;
    uint64_t at, left;

    if (s->encoder) return encode_arena(s);
    for (at = 0; at < a->entries_used; at += XC_SR_BATCH) {
        unsigned int n, pages;
        struct xc_sr_page_head head;
        struct iovec iov[3];

        left = a->entries_used - at;
        n = left < XC_SR_BATCH ? (unsigned int)left : XC_SR_BATCH;
        pages = count_data(a->entries + at, n);
        head = xc_sr_page_head(n, pages);
        iov[0] = (struct iovec){&head, sizeof(head)};
        iov[1] = (struct iovec){a->entries + at, n * sizeof(a->entries[0])};
        iov[2] = (struct iovec){data, (size_t)pages * SR_PAGE_SIZE};
        if (xc_sr_io_writev(s->env.io, iov, 3)) {
            SR_ERRNO(&s->env, "cannot write a checkpoint's pages to the stream");
            return -1;
        }
        data += (size_t)pages * SR_PAGE_SIZE;
    }
    return 0;
}
