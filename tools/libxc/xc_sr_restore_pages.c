/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * PAGE_DATA and ENCODED_PAGES into the domain. Entries are applied in their order, in runs: pages with contents
 * (populate, map, copy), pages that are only populated, and pages that the guest gave back.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_decode.h"
#include "xc_sr_record.h"
#include "xc_sr_restore.h"

#define VERIFY_LOG_MAX 10

enum run_kind { RUN_NONE, RUN_DATA, RUN_EMPTY, RUN_GONE };

struct run {
    enum run_kind kind;
    unsigned int count, missing_count;
    xen_pfn_t pfns[XC_SR_BATCH];
    xen_pfn_t missing[XC_SR_BATCH];  /* those of a data or empty run that are to be populated */
    uint32_t encodings[XC_SR_BATCH]; /* of a data run */
    const uint8_t *data;             /* of the first page of a data run; the others follow */
};

static void compare_page(struct xc_sr_restore *r, xen_pfn_t pfn, const void *have, const void *want)
{
    if (!memcmp(have, want, SR_PAGE_SIZE)) return;
    if (r->verify_differ++ < VERIFY_LOG_MAX)
        SR_LOG(&r->env, ERROR, "verification: pfn %#lx differs", (unsigned long)pfn);
}

/* Returns how much of the contents that was. */
static size_t write_page(struct xc_sr_restore *r, xen_pfn_t pfn, void *page, uint32_t encoding,
                         const uint8_t *data)
{
    if (!r->verifying) return xc_sr_decode_page(page, encoding, data);
    compare_page(r, pfn, page, data);
    return SR_PAGE_SIZE;
}

/* Are all pages of the run in chunks that stay mapped? */
static bool stays_mapped(const struct xc_sr_restore *r, const struct run *run)
{
    unsigned int i;

    for (i = 0; i < run->count; i++)
        if (!xc_sr_is_large(r, run->pfns[i])) return false;
    return true;
}

static int copy_mapped(struct xc_sr_restore *r, struct run *run)
{
    unsigned int i;

    xc_sr_map_next_round(&r->map);
    for (i = 0; i < run->count; i++) {
        void *page = xc_sr_map_page_rw(&r->map, run->pfns[i]);

        if (!page) {
            SR_ERRNO(&r->env, "cannot write pfn %#lx of domain %u", (unsigned long)run->pfns[i],
                     r->env.domid);
            return -1;
        }
        run->data += write_page(r, run->pfns[i], page, run->encodings[i], run->data);
    }
    return 0;
}

static int copy_data(struct xc_sr_restore *r, struct run *run)
{
    int errs[XC_SR_BATCH];
    unsigned int i;
    uint8_t *map;
    int rc = -1;

    map = xenforeignmemory_map(r->env.fmem, r->env.domid, PROT_READ | PROT_WRITE, run->count,
                               run->pfns, errs);
    if (!map) {
        SR_ERRNO(&r->env, "cannot map %u pages of domain %u", run->count, r->env.domid);
        return -1;
    }
    for (i = 0; i < run->count; i++) {
        size_t at = (size_t)i * SR_PAGE_SIZE;

        if (errs[i]) {
            SR_FAIL(&r->env, EIO, "cannot map pfn %#lx of domain %u (%s)",
                    (unsigned long)run->pfns[i], r->env.domid, strerror(-errs[i]));
            goto out;
        }
        run->data += write_page(r, run->pfns[i], map + at, run->encodings[i], run->data);
    }
    rc = 0;
out:
    xenforeignmemory_unmap(r->env.fmem, map, run->count);
    return rc;
}

static int end_run(struct xc_sr_restore *r, struct run *run)
{
    int rc = 0;

    if (run->kind == RUN_GONE) rc = xc_sr_depopulate(r, run->pfns, run->count);
    if (run->kind == RUN_DATA || run->kind == RUN_EMPTY)
        rc = xc_sr_populate(r, run->missing, run->missing_count);
    if (!rc && run->kind == RUN_DATA)
        rc = stays_mapped(r, run) ? copy_mapped(r, run) : copy_data(r, run);
    run->kind = RUN_NONE;
    run->count = run->missing_count = 0;
    return rc;
}

/* What is to be done for this entry; RUN_NONE = nothing. */
static enum run_kind kind_of(const struct xc_sr_restore *r, uint32_t type, xen_pfn_t pfn)
{
    if (xc_sr_page_type_has_data(type)) return RUN_DATA;
    if (xc_sr_page_type_populated(type)) return RUN_EMPTY;
    return xc_sr_sparse_test(&r->populated, pfn) ? RUN_GONE : RUN_NONE;
}

/*
 * `populated` is kept as if the run had ended already: a later entry of the same pfn then finds
 * what it will find, and if the run fails the restore does.
 */
static int add_to_run(struct xc_sr_restore *r, struct run *run, xen_pfn_t pfn)
{
    run->pfns[run->count++] = pfn;
    if (run->kind == RUN_GONE) {
        xc_sr_sparse_clear(&r->populated, pfn);
        return 0;
    }
    if (xc_sr_sparse_test(&r->populated, pfn)) return 0;
    if (xc_sr_sparse_set(&r->populated, pfn)) {
        SR_ERRNO(&r->env, "PAGE_DATA: cannot track pfn %#lx", (unsigned long)pfn);
        return -1;
    }
    run->missing[run->missing_count++] = pfn;
    return 0;
}

static int check_delta(struct xc_sr_restore *r, xen_pfn_t pfn)
{
    if (xc_sr_sparse_test(&r->populated, pfn)) return 0;
    SR_FAIL(&r->env, EINVAL, "ENCODED_PAGES: delta for pfn %#lx, which was never sent",
            (unsigned long)pfn);
    return -1;
}

/* Entries of either record; the contents of all of them follow each other at `data`. */
static int apply_entries(struct xc_sr_restore *r, const uint8_t *entries, uint32_t count,
                         const uint8_t *data)
{
    struct run run;
    uint32_t i;

    run.kind = RUN_NONE;
    run.count = run.missing_count = 0;
    run.data = data;

    for (i = 0; i < count; i++) {
        uint64_t entry = xc_sr_encoded_entry(entries, i);
        uint32_t encoding = xc_sr_entry_encoding(entry);
        xen_pfn_t pfn = xc_sr_entry_pfn(entry);
        enum run_kind kind = kind_of(r, xc_sr_entry_type(entry), pfn);

        if (kind == RUN_NONE) continue;
        if (encoding == SR_ENCODING_DELTA && check_delta(r, pfn)) return -1;
        if ((kind != run.kind || run.count == XC_SR_BATCH) && end_run(r, &run)) return -1;
        run.kind = kind;
        run.encodings[run.count] = encoding;
        if (add_to_run(r, &run, pfn)) return -1;
    }
    return end_run(r, &run);
}

int xc_sr_apply_pages(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    const struct sr_page_data *head = rec->body;
    const uint8_t *entries = (const uint8_t *)(head + 1);

    return apply_entries(r, entries, head->count, entries + (size_t)8 * head->count);
}

int xc_sr_apply_encoded(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    struct xc_sr_encoded pages;
    const char *wrong;

    if (!r->scratch) r->scratch = malloc(SR_ENCODED_CONTENT_MAX);
    if (!r->scratch) {
        SR_ERRNO(&r->env, "no memory for encoded pages");
        return -1;
    }
    wrong = xc_sr_encoded_open(&pages, rec->body, rec->length, r->scratch);
    if (wrong) {
        SR_FAIL(&r->env, EINVAL, "%s", wrong);
        return -1;
    }
    return apply_entries(r, pages.entries, pages.count, pages.content);
}
