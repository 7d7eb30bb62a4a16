/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The memory of a suspended PV guest into PAGE_DATA records. Pages are written from where they are
 * mapped; page tables from a normalised copy.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "xc_sr_record.h"
#include "xc_sr_save_x86_pv.h"

struct xc_sr_pv_batch {
    unsigned int count; /* entries */
    unsigned int pages; /* those with data, which are mapped */
    uint64_t entries[XC_SR_BATCH];
    xen_pfn_t mfns[XC_SR_BATCH];  /* of the pages */
    xen_pfn_t asked[XC_SR_BATCH]; /* frames in, their types out */
    uint32_t types[XC_SR_BATCH];
    uint64_t pfns[XC_SR_BATCH];
    struct iovec iov[XC_SR_BATCH + 2];
    uint64_t tables[XC_SR_BATCH][XC_SR_PV_ENTRIES];
};

int xc_sr_pv_batch_alloc(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;

    pv->batch = calloc(1, sizeof(*pv->batch));
    if (!pv->batch) SR_ERRNO(&s->env, "no memory for a batch of pages");
    return pv->batch ? 0 : -1;
}

void xc_sr_pv_batch_free(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;

    free(pv->batch);
    pv->batch = NULL;
}

static uint64_t make_entry(uint32_t type, uint64_t pfn)
{
    return (uint64_t)type << SR_PFN_TYPE_SHIFT | pfn;
}

/* The hypervisor knows what the guest's frames are; where the guest has none is nothing. */
static int collect(struct xc_sr_save *s, uint64_t first, unsigned int count)
{
    struct xc_sr_pv_save *pv = s->arch;
    struct xc_sr_pv_batch *b = pv->batch;
    unsigned int i, asked = 0;

    b->count = count;
    b->pages = 0;
    for (i = 0; i < count; i++) {
        uint64_t mfn = pv->p2m.frames[first + i], pfn;

        b->entries[i] = make_entry(SR_PAGE_XTAB, first + i);
        if (!xc_sr_pv_find_pfn(&pv->p2m, &pv->m2p, mfn, &pfn) || pfn != first + i) continue;
        b->asked[asked] = b->mfns[asked] = mfn;
        b->pfns[asked++] = pfn;
    }
    if (asked && xc_get_pfn_type_batch(s->env.xch, s->env.domid, asked, b->asked)) {
        SR_ERRNO(&s->env, "cannot read the types of %u pages of domain %u", asked, s->env.domid);
        return -1;
    }
    for (i = 0; i < asked; i++) {
        uint32_t type = (uint32_t)(b->asked[i] >> XEN_DOMCTL_PFINFO_LTAB_SHIFT) & 0xf;

        b->entries[b->pfns[i] - first] = make_entry(type, b->pfns[i]);
        if (!xc_sr_page_type_has_data(type)) continue;
        b->types[b->pages] = type;
        b->pfns[b->pages] = b->pfns[i];
        b->mfns[b->pages++] = b->mfns[i];
    }
    return 0;
}

static int normalise(struct xc_sr_save *s, unsigned int i, unsigned int level, const void *page)
{
    struct xc_sr_pv_save *pv = s->arch;
    struct xc_sr_pv_batch *b = pv->batch;
    const char *wrong;
    unsigned int at;

    wrong = xc_sr_pv_normalise(&pv->p2m, &pv->m2p, level, page, b->tables[i], &at);
    if (!wrong) return 0;
    SR_FAIL(&s->env, EINVAL, "domain %u cannot be saved: entry %u of page table %#lx, level %u, %s",
            s->env.domid, at, (unsigned long)b->pfns[i], level, wrong);
    return -1;
}

/* Each page from the mapping or from its copy; neighbours become one piece. */
static int gather(struct xc_sr_save *s, uint8_t *map, const int *errs, unsigned int *pieces)
{
    struct xc_sr_pv_save *pv = s->arch;
    struct xc_sr_pv_batch *b = pv->batch;
    unsigned int i, n = 0;

    for (i = 0; i < b->pages; i++) {
        unsigned int level = xc_sr_pv_table_level(b->types[i]);
        uint8_t *page = map + (size_t)i * SR_PAGE_SIZE;

        if (errs[i]) {
            SR_FAIL(&s->env, -errs[i], "cannot map pfn %#lx of domain %u",
                    (unsigned long)b->pfns[i], s->env.domid);
            return -1;
        }
        if (level) {
            if (normalise(s, i, level, page)) return -1;
            page = (uint8_t *)b->tables[i];
        }
        if (n && (uint8_t *)b->iov[n + 1].iov_base + b->iov[n + 1].iov_len == page)
            b->iov[n + 1].iov_len += SR_PAGE_SIZE;
        else
            b->iov[2 + n++] = (struct iovec){page, SR_PAGE_SIZE};
    }
    *pieces = n;
    return 0;
}

static int write_batch(struct xc_sr_save *s, unsigned int pieces)
{
    struct xc_sr_pv_save *pv = s->arch;
    struct xc_sr_pv_batch *b = pv->batch;
    struct xc_sr_page_head head = xc_sr_page_head(b->count, b->pages);

    b->iov[0] = (struct iovec){&head, sizeof(head)};
    b->iov[1] = (struct iovec){b->entries, b->count * sizeof(b->entries[0])};
    if (xc_sr_io_writev(s->env.io, b->iov, 2 + pieces)) {
        SR_ERRNO(&s->env, "cannot write guest pages to the stream");
        return -1;
    }
    return 0;
}

static int write_pages(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;
    struct xc_sr_pv_batch *b = pv->batch;
    int errs[XC_SR_BATCH];
    unsigned int pieces;
    uint8_t *map;
    int rc;

    if (!b->pages) return write_batch(s, 0);
    map = xenforeignmemory_map(s->env.fmem, s->env.domid, PROT_READ, b->pages, b->mfns, errs);
    if (!map) {
        SR_ERRNO(&s->env, "cannot map %u pages of domain %u", b->pages, s->env.domid);
        return -1;
    }
    rc = gather(s, map, errs, &pieces);
    if (!rc) rc = write_batch(s, pieces);
    xenforeignmemory_unmap(s->env.fmem, map, b->pages);
    return rc;
}

int xc_sr_pv_write_pages(struct xc_sr_save *s)
{
    const struct xc_sr_pv_save *pv = s->arch;
    uint64_t pfn, left;

    for (pfn = 0; pfn < pv->p2m.pfns; pfn += XC_SR_BATCH) {
        left = pv->p2m.pfns - pfn;
        xtl_progress(s->env.lg, "xc", "Frames", pfn, pv->p2m.pfns);
        if (xc_sr_save_check_stop(s)) return -1;
        if (collect(s, pfn, left < XC_SR_BATCH ? (unsigned int)left : XC_SR_BATCH)) return -1;
        if (write_pages(s)) return -1;
    }
    xtl_progress(s->env.lg, "xc", "Frames", pv->p2m.pfns, pv->p2m.pfns);
    return 0;
}
