/* SPDX-License-Identifier: LGPL-2.1-only */
/* See xc_sr_apply.h. Order of this file: life, pages that come and go, contents, other records. */
#include "xc_sr_apply.h"

#include <stdlib.h>
#include <string.h>

#include "xc_sr_decode.h"
#include "xc_sr_record.h"

#include <xen/hvm/params.h>

#define MAP_LIMIT_PAGES (64ULL << 18) /* 64 GiB of guest: 128 MiB of page tables */

/* Whose pages are shared with somebody else. */
static const uint32_t shared_params[XC_SR_APPLY_SHARED] = {
    HVM_PARAM_STORE_PFN,        HVM_PARAM_CONSOLE_PFN,     HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_BUFIOREQ_PFN,     HVM_PARAM_PAGING_RING_PFN, HVM_PARAM_MONITOR_RING_PFN,
    HVM_PARAM_SHARING_RING_PFN,
};

static int open_map(struct xc_sr_apply *a, uint64_t pfns)
{
    if (xc_sr_map_init(&a->map, &a->env, pfns, MAP_LIMIT_PAGES)) {
        SR_ERRNO(&a->env, "no memory to map domain %u", a->env.domid);
        return -1;
    }
    a->map.writable = true;
    return 0;
}

static int check_domain(const struct xc_sr_apply *a)
{
    xc_dominfo_t info;

    if (xc_domain_getinfo(a->env.xch, a->env.domid, 1, &info) != 1 || info.domid != a->env.domid ||
        info.dying) {
        SR_FAIL(&a->env, ESRCH, "domain %u is gone", a->env.domid);
        return -1;
    }
    if (!info.hvm || !info.paused) {
        SR_FAIL(&a->env, EINVAL, "domain %u is not a paused HVM or PVH guest", a->env.domid);
        return -1;
    }
    return 0;
}

int xc_sr_apply_open(struct xc_sr_apply *a)
{
    xen_pfn_t pfns;
    unsigned int i;

    if (check_domain(a)) return -1;
    for (i = 0; i < XC_SR_APPLY_SHARED; i++) {
        if (xc_hvm_param_get(a->env.xch, a->env.domid, shared_params[i], &a->shared[i])) {
            SR_ERRNO(&a->env, "cannot read parameter %u of domain %u", shared_params[i],
                     a->env.domid);
            return -1;
        }
    }
    if (xc_domain_nr_gpfns(a->env.xch, a->env.domid, &pfns) || pfns > XC_SR_PFNS_MAX) {
        SR_ERRNO(&a->env, "cannot learn the size of domain %u", a->env.domid);
        return -1;
    }
    a->skipped = malloc(SR_PAGE_SIZE);
    a->scratch = malloc(SR_ENCODED_CONTENT_MAX);
    if (!a->skipped || !a->scratch) {
        SR_ERRNO(&a->env, "no memory for pages");
        return -1;
    }
    return open_map(a, pfns);
}

void xc_sr_apply_close(struct xc_sr_apply *a)
{
    xc_sr_map_dispose(&a->map);
    xc_sr_sparse_dispose(&a->awaited);
    free(a->context.body);
    memset(&a->context, 0, sizeof(a->context));
    free(a->skipped);
    free(a->scratch);
    a->skipped = a->scratch = NULL;
    a->has_tsc = a->again = false;
}

/* ---- pages that come and go ---- */

/* The entries of one record. */
struct pages {
    uint32_t count;
    const uint8_t *entries; /* u64 each, perhaps not aligned */
};

static uint64_t entry_at(const struct pages *pages, uint32_t i)
{
    return xc_sr_encoded_entry(pages->entries, i);
}

static bool is_shared(const struct xc_sr_apply *a, uint64_t pfn)
{
    unsigned int i;

    for (i = 0; i < XC_SR_APPLY_SHARED; i++)
        if (pfn && a->shared[i] == pfn) return true;
    return false;
}

struct pfn_list {
    unsigned int count;
    xen_pfn_t pfns[XC_SR_BATCH];
};

static void list_add(struct pfn_list *list, uint64_t pfn)
{
    unsigned int i;

    for (i = 0; i < list->count; i++)
        if (list->pfns[i] == pfn) return;
    list->pfns[list->count++] = pfn;
}

/* 1 there, 0 not there, -1 with errno. */
static int page_there(struct xc_sr_apply *a, uint64_t pfn)
{
    if (xc_sr_map_page(&a->map, pfn)) return 1;
    return errno == ENOENT ? 0 : -1;
}

static bool brings_whole_page(uint64_t entry)
{
    return xc_sr_page_type_has_data(xc_sr_entry_type(entry)) &&
           xc_sr_entry_encoding(entry) != SR_ENCODING_DELTA;
}

static bool is_delta(uint64_t entry)
{
    return xc_sr_entry_encoding(entry) == SR_ENCODING_DELTA;
}

static int refuse_delta(const struct xc_sr_apply *a, uint64_t pfn)
{
    SR_FAIL(&a->env, EINVAL, "ENCODED_PAGES: delta for pfn %#lx, which is not there",
            (unsigned long)pfn);
    return -1;
}

/* A pfn that had a page once is below the end that the hypervisor tells of: it never moves down. */
static int pass_over_delta(struct xc_sr_apply *a, uint64_t pfn)
{
    if (!a->again || pfn >= a->map.pfns) return refuse_delta(a, pfn);
    if (!xc_sr_sparse_set(&a->awaited, pfn)) return 0;
    SR_ERRNO(&a->env, "cannot track pfn %#lx", (unsigned long)pfn);
    return -1;
}

/*
 * From entry i on, which is missing or gone: those that want the same done, up to a batch. One
 * hypercall and one new mapping of a chunk serve them all.
 */
static int collect(struct xc_sr_apply *a, const struct pages *pages, uint32_t i, bool populated,
                   struct pfn_list *list)
{
    int there;

    list->count = 0;
    for (; i < pages->count && list->count < XC_SR_BATCH; i++) {
        uint64_t entry = entry_at(pages, i), pfn = xc_sr_entry_pfn(entry);

        if (xc_sr_page_type_populated(xc_sr_entry_type(entry)) != populated) break;
        if (populated && pfn >= XC_SR_PFNS_MAX) break;
        if (is_shared(a, pfn)) continue;
        there = page_there(a, pfn);
        if (there < 0) return -1;
        if (!there && is_delta(entry)) break; /* see prepare() */
        if (!brings_whole_page(entry) && xc_sr_sparse_test(&a->awaited, pfn)) continue;
        if (!there == populated) list_add(list, pfn);
    }
    return 0;
}

/* The hypervisor gave the domain a page behind the end that we know: the map must learn of it. */
static int grow_map(struct xc_sr_apply *a, const struct pfn_list *list)
{
    uint64_t pfns = a->map.pfns;
    unsigned int i;

    for (i = 0; i < list->count; i++)
        if (list->pfns[i] >= pfns) pfns = list->pfns[i] + 1;
    if (pfns == a->map.pfns) return 0;
    xc_sr_map_dispose(&a->map);
    return open_map(a, pfns);
}

static int make_pages(struct xc_sr_apply *a, xen_pfn_t *pfns, unsigned int count)
{
    unsigned int i, done;

    for (i = 0; i < count; i += done) {
        int got = xc_domain_populate_physmap(a->env.xch, a->env.domid, count - i, 0, 0, pfns + i);

        done = got > 0 ? (unsigned int)got : 0;
        if (done < count - i && xc_sr_raise_limit(&a->env)) {
            SR_ERRNO(&a->env, "cannot populate %u pages of domain %u from pfn %#lx on",
                     count - i - done, a->env.domid, (unsigned long)pfns[i + done]);
            return -1;
        }
    }
    return 0;
}

static int populate(struct xc_sr_apply *a, const struct pages *pages, uint32_t i)
{
    struct pfn_list list;
    unsigned int k;

    if (xc_sr_entry_pfn(entry_at(pages, i)) >= XC_SR_PFNS_MAX) {
        SR_FAIL(&a->env, EINVAL, "pfn %#lx is out of bounds",
                (unsigned long)xc_sr_entry_pfn(entry_at(pages, i)));
        return -1;
    }
    if (collect(a, pages, i, true, &list)) return -1;
    if (make_pages(a, list.pfns, list.count)) return -1;
    for (k = 0; k < list.count; k++)
        xc_sr_map_drop(&a->map, list.pfns[k]);
    return grow_map(a, &list);
}

static int depopulate(struct xc_sr_apply *a, const struct pages *pages, uint32_t i)
{
    struct pfn_list list;
    unsigned int k;

    if (collect(a, pages, i, false, &list)) return -1;
    /* A page that is mapped stays the domain's. */
    for (k = 0; k < list.count; k++)
        xc_sr_map_drop(&a->map, list.pfns[k]);
    if (xc_domain_decrease_reservation_exact(a->env.xch, a->env.domid, list.count, 0, list.pfns)) {
        SR_ERRNO(&a->env, "cannot take %u pages from domain %u", list.count, a->env.domid);
        return -1;
    }
    return 0;
}

/* Makes the page of entry i as its type wants it: there or not. *page: where its contents go. */
static int prepare(struct xc_sr_apply *a, const struct pages *pages, uint32_t i, void **page)
{
    uint64_t entry = entry_at(pages, i), pfn = xc_sr_entry_pfn(entry);
    bool populated = xc_sr_page_type_populated(xc_sr_entry_type(entry));
    int there;

    *page = a->skipped;
    if (is_shared(a, pfn)) return 0;
    there = page_there(a, pfn);
    if (there < 0) return -1;
    if (!there && is_delta(entry)) return pass_over_delta(a, pfn);
    if (!there && populated && !brings_whole_page(entry) && xc_sr_sparse_test(&a->awaited, pfn))
        return 0;
    xc_sr_sparse_clear(&a->awaited, pfn);
    if (!populated) return there ? depopulate(a, pages, i) : 0;
    if (!there && populate(a, pages, i)) return -1;
    *page = xc_sr_map_page_rw(&a->map, pfn);
    if (*page) return 0;
    SR_ERRNO(&a->env, "cannot write pfn %#lx of domain %u", (unsigned long)pfn, a->env.domid);
    return -1;
}

/* ---- contents ---- */

/* Contents of all entries follow each other. */
static int apply_entries(struct xc_sr_apply *a, const struct pages *pages, const uint8_t *data)
{
    void *page;
    uint32_t i;

    for (i = 0; i < pages->count; i++) {
        uint64_t entry = entry_at(pages, i);

        if (prepare(a, pages, i, &page)) return -1;
        if (xc_sr_page_type_has_data(xc_sr_entry_type(entry)))
            data += xc_sr_decode_page(page, xc_sr_entry_encoding(entry), data);
    }
    return 0;
}

static int apply_page_data(struct xc_sr_apply *a, const struct xc_sr_record *rec)
{
    const struct sr_page_data *head = rec->body;
    struct pages pages = {head->count, (const uint8_t *)(head + 1)};

    return apply_entries(a, &pages, pages.entries + (size_t)head->count * sizeof(uint64_t));
}

static int apply_encoded(struct xc_sr_apply *a, const struct xc_sr_record *rec)
{
    struct xc_sr_encoded encoded;
    struct pages pages;
    const char *wrong;

    wrong = xc_sr_encoded_open(&encoded, rec->body, rec->length, a->scratch);
    if (wrong) {
        SR_FAIL(&a->env, EINVAL, "%s", wrong);
        return -1;
    }
    pages = (struct pages){encoded.count, encoded.entries};
    return apply_entries(a, &pages, encoded.content);
}

/* ---- other records ---- */

static int apply_param(struct xc_sr_apply *a, const struct sr_hvm_param *param)
{
    uint64_t have;
    unsigned int i;

    if (param->index == HVM_PARAM_PAE_ENABLED) return 0;
    if (param->index >= HVM_NR_PARAMS) {
        SR_FAIL(&a->env, EINVAL, "HVM_PARAMS: index %lu is unknown", (unsigned long)param->index);
        return -1;
    }
    for (i = 0; i < XC_SR_APPLY_SHARED; i++) {
        if (param->index != shared_params[i]) continue;
        if (param->value == a->shared[i]) return 0;
        SR_FAIL(&a->env, EINVAL, "HVM_PARAMS: the page of parameter %u moved", shared_params[i]);
        return -1;
    }
    /* Some can be set only once, and most never change. */
    if (!xc_hvm_param_get(a->env.xch, a->env.domid, (uint32_t)param->index, &have) &&
        have == param->value)
        return 0;
    if (!xc_hvm_param_set(a->env.xch, a->env.domid, (uint32_t)param->index, param->value)) return 0;
    SR_ERRNO(&a->env, "cannot set parameter %lu to %#lx", (unsigned long)param->index,
             (unsigned long)param->value);
    return -1;
}

static int apply_params(struct xc_sr_apply *a, const struct xc_sr_record *rec)
{
    const struct sr_hvm_params *head = rec->body;
    const struct sr_hvm_param *params = (const struct sr_hvm_param *)(head + 1);
    uint32_t i;

    for (i = 0; i < head->count; i++)
        if (apply_param(a, &params[i])) return -1;
    return 0;
}

static int keep_context(struct xc_sr_apply *a, const struct xc_sr_record *rec)
{
    void *copy = malloc(rec->length);

    if (!copy) {
        SR_ERRNO(&a->env, "no memory for %s", xc_sr_record_name(rec->type));
        return -1;
    }
    memcpy(copy, rec->body, rec->length);
    free(a->context.body);
    a->context = *rec;
    a->context.body = copy;
    return 0;
}

void xc_sr_apply_begin(struct xc_sr_apply *a, bool again)
{
    xc_sr_sparse_dispose(&a->awaited);
    a->again = again;
}

int xc_sr_apply_end(struct xc_sr_apply *a)
{
    uint64_t pfn = xc_sr_sparse_next(&a->awaited, 0);

    a->again = false;
    return pfn == XC_SR_PFN_NONE ? 0 : refuse_delta(a, pfn);
}

int xc_sr_apply_record(struct xc_sr_apply *a, const struct xc_sr_record *rec)
{
    xc_sr_map_next_round(&a->map);
    switch (rec->type) {
    case SR_REC_PAGE_DATA:
        return apply_page_data(a, rec);
    case SR_REC_ENCODED_PAGES:
        return apply_encoded(a, rec);
    case SR_REC_HVM_PARAMS:
        return apply_params(a, rec);
    case SR_REC_HVM_CONTEXT:
        return keep_context(a, rec);
    case SR_REC_X86_TSC_INFO:
        memcpy(&a->tsc, rec->body, sizeof(a->tsc));
        a->has_tsc = true;
        return 0;
    default:
        break;
    }
    if (rec->type & SR_REC_OPTIONAL) return 0;
    SR_FAIL(&a->env, EINVAL, "record %#x (%s) does not belong into a checkpoint", rec->type,
            xc_sr_record_name(rec->type));
    return -1;
}

int xc_sr_apply_context(struct xc_sr_apply *a)
{
    if (a->has_tsc && xc_domain_set_tsc_info(a->env.xch, a->env.domid, a->tsc.mode, a->tsc.nsec,
                                             a->tsc.khz, a->tsc.incarnation)) {
        SR_ERRNO(&a->env, "cannot set the TSC of domain %u", a->env.domid);
        return -1;
    }
    if (a->context.body &&
        xc_domain_hvm_setcontext(a->env.xch, a->env.domid, a->context.body, a->context.length)) {
        SR_ERRNO(&a->env, "the hypervisor refuses the context of domain %u", a->env.domid);
        return -1;
    }
    return 0;
}
