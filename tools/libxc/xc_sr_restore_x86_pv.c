/* SPDX-License-Identifier: LGPL-2.1-only */
/* A PV guest on the backup: its records, and the order of its completion. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_record.h"
#include "xc_sr_restore_x86_pv.h"

static int pv_setup(struct xc_sr_restore *r)
{
    struct xc_sr_pv_restore *pv;
    xc_dominfo_t info;

    if (xc_domain_getinfo(r->env.xch, r->env.domid, 1, &info) != 1 || info.domid != r->env.domid) {
        SR_FAIL(&r->env, ESRCH, "there is no domain %u", r->env.domid);
        return -1;
    }
    pv = r->arch = calloc(1, sizeof(*pv));
    if (pv) pv->vcpus = calloc((size_t)info.max_vcpu_id + 1, sizeof(*pv->vcpus));
    if (!pv || !pv->vcpus) {
        SR_ERRNO(&r->env, "no memory for the state of domain %u", r->env.domid);
        return -1;
    }
    pv->vcpus_count = info.max_vcpu_id + 1;
    pv->shared_frame = info.shared_info_frame;
    pv->pfns_limit = xc_sr_pv_pfns_limit(info.max_memkb);
    return xc_sr_pv_pages_alloc(r);
}

static void pv_cleanup(struct xc_sr_restore *r)
{
    struct xc_sr_pv_restore *pv = r->arch;

    if (!pv) return;
    xc_sr_pv_vcpus_free(r);
    xc_sr_pv_pages_free(r);
    xc_sr_cpu_policy_dispose(&pv->policy);
    free(pv->shared.body);
    free(pv);
    r->arch = NULL;
}

static int pv_static_data_end(struct xc_sr_restore *r, unsigned int *missing)
{
    const struct xc_sr_pv_restore *pv = r->arch;

    return xc_sr_apply_cpu_policy(r, &pv->policy, missing);
}

static int apply_info(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    struct xc_sr_pv_restore *pv = r->arch;
    const struct sr_x86_pv_info *info = rec->body;
    unsigned int width;

    if (pv->info_came) {
        SR_FAIL(&r->env, EINVAL, "X86_PV_INFO comes twice");
        return -1;
    }
    if (info->guest_width != XC_SR_PV_WIDTH) {
        SR_FAIL(&r->env, EOPNOTSUPP, "a 32 bit PV guest: only 64 bit PV guests can be restored");
        return -1;
    }
    if (xc_domain_get_guest_width(r->env.xch, r->env.domid, &width) || width != XC_SR_PV_WIDTH) {
        SR_ERRNO(&r->env, "domain %u is not a 64 bit PV guest", r->env.domid);
        return -1;
    }
    pv->info_came = true;
    return 0;
}

static int apply_p2m_frames(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    struct xc_sr_pv_restore *pv = r->arch;
    const struct sr_x86_pv_p2m_frames *head = rec->body;
    uint64_t pages = (rec->length - sizeof(*head)) / sizeof(uint64_t);
    uint64_t pfns = (uint64_t)head->end_pfn + 1;

    if (!pv->info_came || pv->pfns || head->start_pfn) {
        SR_FAIL(&r->env, EINVAL, "X86_PV_P2M_FRAMES: must come once, behind X86_PV_INFO, for all");
        return -1;
    }
    if (pages != head->end_pfn / XC_SR_PV_ENTRIES + 1 || pfns > pv->pfns_limit) {
        SR_FAIL(&r->env, EINVAL, "X86_PV_P2M_FRAMES: %lu pages for %lu pfns of at most %lu",
                (unsigned long)pages, (unsigned long)pfns, (unsigned long)pv->pfns_limit);
        return -1;
    }
    pv->p2m_pfns = calloc(pages, sizeof(uint64_t));
    if (!pv->p2m_pfns) {
        SR_ERRNO(&r->env, "no memory for the pfns of %lu pages", (unsigned long)pages);
        return -1;
    }
    memcpy(pv->p2m_pfns, head + 1, pages * sizeof(uint64_t));
    pv->p2m_pages = pages;
    pv->pfns = pfns;
    return 0;
}

static int pv_record(struct xc_sr_restore *r, const struct xc_sr_record *rec, bool *known)
{
    struct xc_sr_pv_restore *pv = r->arch;

    *known = true;
    switch (rec->type) {
    case SR_REC_X86_PV_INFO:
        return apply_info(r, rec);
    case SR_REC_X86_CPUID_POLICY:
        return xc_sr_keep_record(r, &pv->policy.cpuid, rec);
    case SR_REC_X86_MSR_POLICY:
        return xc_sr_keep_record(r, &pv->policy.msr, rec);
    case SR_REC_X86_PV_P2M_FRAMES:
        return apply_p2m_frames(r, rec);
    case SR_REC_X86_TSC_INFO:
        return xc_sr_apply_tsc(r, rec);
    case SR_REC_SHARED_INFO:
        return xc_sr_keep_record(r, &pv->shared, rec);
    case SR_REC_X86_PV_VCPU_BASIC:
    case SR_REC_X86_PV_VCPU_EXTENDED:
    case SR_REC_X86_PV_VCPU_XSAVE:
    case SR_REC_X86_PV_VCPU_MSRS:
        return xc_sr_pv_keep_vcpu(r, rec);
    default:
        *known = false;
        return 0;
    }
}

/*
 * What the guest had written, without what is true of the other host only: no event is pending, all
 * are masked until the guest has its channels again, and where its p2m is it will tell anew.
 */
static void fill_shared_info(shared_info_t *shared, const shared_info_t *from)
{
    unsigned int i;

    memcpy(shared->vcpu_info, from->vcpu_info, sizeof(shared->vcpu_info));
    memcpy(&shared->arch, &from->arch, sizeof(shared->arch));
    shared->arch.pfn_to_mfn_frame_list_list = 0;
    shared->arch.p2m_cr3 = 0;
    for (i = 0; i < XEN_LEGACY_MAX_VCPUS; i++)
        shared->vcpu_info[i].evtchn_pending_sel = 0;
    memset(shared->evtchn_pending, 0, sizeof(shared->evtchn_pending));
    memset(shared->evtchn_mask, 0xff, sizeof(shared->evtchn_mask));
}

static int apply_shared_info(struct xc_sr_restore *r)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    xen_pfn_t frame = pv->shared_frame;
    shared_info_t *shared;

    if (!pv->shared.body) {
        SR_FAIL(&r->env, EINVAL, "the stream has no SHARED_INFO");
        return -1;
    }
    shared =
        xenforeignmemory_map(r->env.fmem, r->env.domid, PROT_READ | PROT_WRITE, 1, &frame, NULL);
    if (!shared) {
        SR_ERRNO(&r->env, "cannot map the shared info of domain %u", r->env.domid);
        return -1;
    }
    fill_shared_info(shared, pv->shared.body);
    xenforeignmemory_unmap(r->env.fmem, shared, 1);
    return 0;
}

static int pv_complete(struct xc_sr_restore *r)
{
    const struct xc_sr_pv_restore *pv = r->arch;

    if (!pv->pfns) {
        SR_FAIL(&r->env, EINVAL, "the stream has no X86_PV_P2M_FRAMES");
        return -1;
    }
    if (xc_sr_pv_remove_gone(r) || apply_shared_info(r) || xc_sr_pv_apply_vcpus(r) ||
        xc_sr_pv_pin_tables(r) || xc_sr_pv_write_p2m(r))
        return -1;
    if (xc_dom_gnttab_seed(r->env.xch, r->env.domid, false, r->console_gfn, r->store_gfn,
                           r->console_domid, r->store_domid)) {
        SR_ERRNO(&r->env, "cannot seed the grant table of domain %u", r->env.domid);
        return -1;
    }
    return 0;
}

const struct xc_sr_restore_ops xc_sr_restore_x86_pv = {
    .dhdr_type = SR_DHDR_TYPE_X86_PV,
    .setup = pv_setup,
    .static_data_end = pv_static_data_end,
    .apply_pages = xc_sr_pv_apply_pages,
    .record = pv_record,
    .complete = pv_complete,
    .cleanup = pv_cleanup,
};
