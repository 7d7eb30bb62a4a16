/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The memory of a PV guest. A pfn gets a frame when its first page comes, or when a page table
 * names it before that. Frames stay until the end even where the stream says that the page is gone:
 * a sender that met a page table in motion says so and sends it later, and page tables that came
 * meanwhile know the frame.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_record.h"
#include "xc_sr_restore_x86_pv.h"

#define COMING UINT64_MAX /* in frames, while the hypervisor is asked */
#define VERIFY_LOG_MAX 10

static void *reserve(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int xc_sr_pv_pages_alloc(struct xc_sr_restore *r)
{
    struct xc_sr_pv_restore *pv = r->arch;

    pv->frames = reserve(pv->pfns_limit * sizeof(*pv->frames));
    pv->types = reserve(pv->pfns_limit * sizeof(*pv->types));
    if (pv->frames && pv->types) return 0;
    SR_ERRNO(&r->env, "no room for a p2m of %lu pfns", (unsigned long)pv->pfns_limit);
    return -1;
}

void xc_sr_pv_pages_free(struct xc_sr_restore *r)
{
    struct xc_sr_pv_restore *pv = r->arch;

    if (pv->frames) munmap(pv->frames, pv->pfns_limit * sizeof(*pv->frames));
    if (pv->types) munmap(pv->types, pv->pfns_limit * sizeof(*pv->types));
    free(pv->p2m_pfns);
    pv->frames = NULL;
    pv->types = NULL;
    pv->p2m_pfns = NULL;
}

/* The page type of the stream, SR_PAGE_XTAB where none came. */
static uint32_t type_of(const struct xc_sr_pv_restore *pv, uint64_t pfn)
{
    return pv->types[pfn] ? pv->types[pfn] - 1u : SR_PAGE_XTAB;
}

int xc_sr_pv_find_frame(struct xc_sr_restore *r, const char *what, uint64_t pfn, unsigned int level,
                        uint64_t *frame)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    uint32_t type;

    if (pfn >= pv->pfns || !pv->frames[pfn]) {
        SR_FAIL(&r->env, EINVAL, "%s is pfn %#lx, which has no memory", what, (unsigned long)pfn);
        return -1;
    }
    type = type_of(pv, pfn);
    if (!xc_sr_page_type_populated(type) || xc_sr_pv_table_level(type) != level) {
        SR_FAIL(&r->env, EINVAL, "%s is pfn %#lx, a page of type %u", what, (unsigned long)pfn,
                type);
        return -1;
    }
    *frame = pv->frames[pfn];
    return 0;
}

/* Frames for those of the pfns that have none. All are below pv->pfns. */
static int populate(struct xc_sr_restore *r, const uint64_t *pfns, unsigned int count)
{
    struct xc_sr_pv_restore *pv = r->arch;
    xen_pfn_t frames[XC_SR_BATCH];
    uint64_t missing[XC_SR_BATCH];
    unsigned int i, n = 0;

    for (i = 0; i < count; i++) {
        if (pv->frames[pfns[i]]) continue;
        pv->frames[pfns[i]] = COMING;
        frames[n] = missing[n] = pfns[i];
        n++;
    }
    if (!n) return 0;
    if (xc_domain_populate_physmap_exact(r->env.xch, r->env.domid, n, 0, 0, frames)) {
        SR_ERRNO(&r->env, "cannot populate %u pages of domain %u from pfn %#lx on", n, r->env.domid,
                 (unsigned long)missing[0]);
        return -1;
    }
    for (i = 0; i < n; i++)
        pv->frames[missing[i]] = frames[i];
    return 0;
}

static int localise(struct xc_sr_restore *r, uint64_t pfn, unsigned int level, uint64_t *table)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    const struct xc_sr_pv_p2m p2m = {pv->frames, pv->pfns};
    uint64_t missing[XC_SR_PV_ENTRIES];
    const char *wrong;
    unsigned int at, count;

    count = xc_sr_pv_find_missing(&p2m, level, table, missing);
    if (count && populate(r, missing, count)) return -1;
    wrong = xc_sr_pv_localise(&p2m, level, table, &at);
    if (!wrong) return 0;
    SR_FAIL(&r->env, EINVAL, "entry %u of page table %#lx, level %u, %s", at, (unsigned long)pfn,
            level, wrong);
    return -1;
}

static int apply_page(struct xc_sr_restore *r, uint64_t pfn, uint32_t type, const uint8_t *data,
                      uint8_t *page)
{
    unsigned int level = xc_sr_pv_table_level(type);
    uint64_t table[XC_SR_PV_ENTRIES];

    if (level) {
        memcpy(table, data, SR_PAGE_SIZE);
        if (localise(r, pfn, level, table)) return -1;
        data = (const uint8_t *)table;
    }
    if (!r->verifying) {
        memcpy(page, data, SR_PAGE_SIZE);
    } else if (memcmp(page, data, SR_PAGE_SIZE) && r->verify_differ++ < VERIFY_LOG_MAX) {
        SR_LOG(&r->env, ERROR, "verification: pfn %#lx differs", (unsigned long)pfn);
    }
    return 0;
}

/* Part of a PAGE_DATA record: entries, and the data of its first page. */
struct part {
    const uint64_t *entries;
    unsigned int count, pages;
    const uint8_t *data;
    uint64_t pfns[XC_SR_BATCH]; /* of the pages with data, and their types */
    uint32_t types[XC_SR_BATCH];
};

static int apply_data(struct xc_sr_restore *r, const struct part *part)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    xen_pfn_t frames[XC_SR_BATCH];
    int errs[XC_SR_BATCH], rc = -1;
    unsigned int i;
    uint8_t *map;

    for (i = 0; i < part->pages; i++)
        frames[i] = pv->frames[part->pfns[i]];
    map = xenforeignmemory_map(r->env.fmem, r->env.domid, PROT_READ | PROT_WRITE, part->pages,
                               frames, errs);
    if (!map) {
        SR_ERRNO(&r->env, "cannot map %u pages of domain %u", part->pages, r->env.domid);
        return -1;
    }
    for (i = 0; i < part->pages; i++) {
        size_t at = (size_t)i * SR_PAGE_SIZE;

        if (errs[i]) {
            SR_FAIL(&r->env, EIO, "cannot map pfn %#lx of domain %u (%s)",
                    (unsigned long)part->pfns[i], r->env.domid, strerror(-errs[i]));
            goto out;
        }
        if (apply_page(r, part->pfns[i], part->types[i], part->data + at, map + at)) goto out;
    }
    rc = 0;
out:
    xenforeignmemory_unmap(r->env.fmem, map, part->pages);
    return rc;
}

static int apply_part(struct xc_sr_restore *r, struct part *part)
{
    struct xc_sr_pv_restore *pv = r->arch;
    uint64_t wanted[XC_SR_BATCH];
    unsigned int i, n = 0;

    part->pages = 0;
    for (i = 0; i < part->count; i++) {
        uint64_t pfn = xc_sr_entry_pfn(part->entries[i]);
        uint32_t type = xc_sr_entry_type(part->entries[i]);

        if (pfn >= pv->pfns) {
            SR_FAIL(&r->env, EINVAL, "PAGE_DATA: pfn %#lx, but the guest has %lu",
                    (unsigned long)pfn, (unsigned long)pv->pfns);
            return -1;
        }
        if (xc_sr_page_type_populated(type)) wanted[n++] = pfn;
        /* What never had memory needs no type: memory is used for what there is. */
        if (xc_sr_page_type_populated(type) || pv->types[pfn]) pv->types[pfn] = (uint8_t)(type + 1);
        if (!xc_sr_page_type_has_data(type)) continue;
        part->pfns[part->pages] = pfn;
        part->types[part->pages++] = type;
    }
    if (populate(r, wanted, n)) return -1;
    return part->pages ? apply_data(r, part) : 0;
}

int xc_sr_pv_apply_pages(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    const struct sr_page_data *head = rec->body;
    const uint64_t *entries = (const uint64_t *)(const void *)(head + 1);
    struct part part;
    uint32_t i;

    if (!pv->pfns) {
        SR_FAIL(&r->env, EINVAL, "PAGE_DATA comes before X86_PV_P2M_FRAMES");
        return -1;
    }
    part.data = (const uint8_t *)(entries + head->count);
    for (i = 0; i < head->count; i += part.count) {
        part.entries = entries + i;
        part.count = head->count - i < XC_SR_BATCH ? head->count - i : XC_SR_BATCH;
        if (apply_part(r, &part)) return -1;
        part.data += (size_t)part.pages * SR_PAGE_SIZE;
    }
    return 0;
}

static int remove_frames(struct xc_sr_restore *r, xen_pfn_t *frames, unsigned int count)
{
    if (count && xc_domain_decrease_reservation_exact(r->env.xch, r->env.domid, count, 0, frames)) {
        SR_ERRNO(&r->env, "cannot take %u pages from domain %u", count, r->env.domid);
        return -1;
    }
    return 0;
}

/* What the stream says is not there in the end. If a page table names it, pinning will fail. */
int xc_sr_pv_remove_gone(struct xc_sr_restore *r)
{
    struct xc_sr_pv_restore *pv = r->arch;
    xen_pfn_t frames[XC_SR_BATCH];
    unsigned int n = 0;
    uint64_t pfn;

    for (pfn = 0; pfn < pv->pfns; pfn++) {
        if (!pv->frames[pfn] || xc_sr_page_type_populated(type_of(pv, pfn))) continue;
        SR_LOG(&r->env, DEBUG, "pfn %#lx is not in the stream", (unsigned long)pfn);
        frames[n++] = pv->frames[pfn];
        pv->frames[pfn] = 0;
        if (n < XC_SR_BATCH) continue;
        if (remove_frames(r, frames, n)) return -1;
        n = 0;
    }
    return remove_frames(r, frames, n);
}

static int pin(struct xc_sr_restore *r, struct mmuext_op *ops, unsigned int count)
{
    if (count && xc_mmuext_op(r->env.xch, ops, count, r->env.domid) < 0) {
        SR_ERRNO(&r->env, "the hypervisor refuses page tables of domain %u", r->env.domid);
        return -1;
    }
    return 0;
}

int xc_sr_pv_pin_tables(struct xc_sr_restore *r)
{
    static const unsigned int commands[] = {0, MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE,
                                            MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE};
    const struct xc_sr_pv_restore *pv = r->arch;
    struct mmuext_op ops[XC_SR_BATCH];
    unsigned int n = 0;
    uint64_t pfn;

    memset(ops, 0, sizeof(ops));
    for (pfn = 0; pfn < pv->pfns; pfn++) {
        uint32_t type = type_of(pv, pfn);

        if (!pv->frames[pfn] || !xc_sr_pv_is_pinned(type)) continue;
        ops[n].cmd = commands[xc_sr_pv_table_level(type)];
        ops[n++].arg1.mfn = pv->frames[pfn];
        if (n < XC_SR_BATCH) continue;
        if (pin(r, ops, n)) return -1;
        n = 0;
    }
    return pin(r, ops, n);
}

static bool has_memory(const struct xc_sr_pv_restore *pv, uint64_t first_pfn)
{
    uint64_t pfn;

    for (pfn = first_pfn; pfn < pv->pfns && pfn < first_pfn + XC_SR_PV_ENTRIES; pfn++)
        if (pv->frames[pfn]) return true;
    return false;
}

/*
 * A guest may use one page of invalid entries in many places of its p2m, but then no part of the
 * p2m that has entries can be in it.
 */
static int check_shared_pages(struct xc_sr_restore *r)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    struct xc_sr_sparse empty = {0}, full = {0};
    uint64_t i;
    int rc = -1;

    for (i = 0; i < pv->p2m_pages; i++) {
        uint64_t pfn = pv->p2m_pfns[i];
        bool used = has_memory(pv, i * XC_SR_PV_ENTRIES);

        if (xc_sr_sparse_test(&full, pfn) || (used && xc_sr_sparse_test(&empty, pfn))) {
            SR_FAIL(&r->env, EINVAL, "X86_PV_P2M_FRAMES: pfn %#lx comes twice", (unsigned long)pfn);
            goto out;
        }
        if (xc_sr_sparse_set(used ? &full : &empty, pfn)) {
            SR_ERRNO(&r->env, "X86_PV_P2M_FRAMES: cannot track pfn %#lx", (unsigned long)pfn);
            goto out;
        }
    }
    rc = 0;
out:
    xc_sr_sparse_dispose(&empty);
    xc_sr_sparse_dispose(&full);
    return rc;
}

/* Some pages of the p2m, from page `first` of it on. */
static int write_p2m_pages(struct xc_sr_restore *r, uint64_t first, unsigned int count)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    uint64_t pfn = first * XC_SR_PV_ENTRIES, end = pfn + (uint64_t)count * XC_SR_PV_ENTRIES, i;
    xen_pfn_t frames[XC_SR_BATCH];
    uint64_t *map;

    for (i = 0; i < count; i++)
        if (xc_sr_pv_find_frame(r, "a page of the p2m", pv->p2m_pfns[first + i], 0, &frames[i]))
            return -1;
    map = xenforeignmemory_map(r->env.fmem, r->env.domid, PROT_READ | PROT_WRITE, count, frames,
                               NULL);
    if (!map) {
        SR_ERRNO(&r->env, "cannot map the p2m of domain %u", r->env.domid);
        return -1;
    }
    if (end > pv->pfns) end = pv->pfns;
    for (i = 0; pfn + i < end; i++)
        map[i] = pv->frames[pfn + i] ? pv->frames[pfn + i] : UINT64_MAX;
    xenforeignmemory_unmap(r->env.fmem, map, count);
    return 0;
}

int xc_sr_pv_write_p2m(struct xc_sr_restore *r)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    uint64_t at, left;

    if (check_shared_pages(r)) return -1;
    for (at = 0; at < pv->p2m_pages; at += XC_SR_BATCH) {
        left = pv->p2m_pages - at;
        if (write_p2m_pages(r, at, left < XC_SR_BATCH ? (unsigned int)left : XC_SR_BATCH))
            return -1;
    }
    return 0;
}
