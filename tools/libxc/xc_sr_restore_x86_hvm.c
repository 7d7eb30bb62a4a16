/* SPDX-License-Identifier: LGPL-2.1-only */
/* What an HVM or PVH guest gets besides memory. */
#include <stdlib.h>

#include "xc_sr_record.h"
#include "xc_sr_restore.h"
#include "xc_sr_x86.h"

#include <xen/hvm/params.h>

struct hvm_state {
    struct xc_sr_cpu_policy policy; /* used at STATIC_DATA_END */
    struct xc_sr_record context;    /* the last one, used at the end */
    uint64_t store_pfn, console_pfn;
};

static int hvm_setup(struct xc_sr_restore *r)
{
    r->arch = calloc(1, sizeof(struct hvm_state));
    if (!r->arch) {
        SR_ERRNO(&r->env, "no memory for the state of domain %u", r->env.domid);
        return -1;
    }
    return xc_sr_populate_setup(r);
}

static void hvm_cleanup(struct xc_sr_restore *r)
{
    struct hvm_state *hvm = r->arch;

    if (!hvm) return;
    xc_sr_cpu_policy_dispose(&hvm->policy);
    free(hvm->context.body);
    free(hvm);
    r->arch = NULL;
}

static int hvm_static_data_end(struct xc_sr_restore *r, unsigned int *missing)
{
    const struct hvm_state *hvm = r->arch;

    return xc_sr_apply_cpu_policy(r, &hvm->policy, missing);
}

/* Pages that others write into: the stream's contents are of no use to the new owners. */
static bool is_shared_page(uint64_t index)
{
    return index == HVM_PARAM_CONSOLE_PFN || index == HVM_PARAM_STORE_PFN ||
           index == HVM_PARAM_IOREQ_PFN || index == HVM_PARAM_BUFIOREQ_PFN;
}

static int apply_param(struct xc_sr_restore *r, const struct sr_hvm_param *param)
{
    struct hvm_state *hvm = r->arch;

    if (param->index == HVM_PARAM_PAE_ENABLED) return 0;
    if (param->index >= HVM_NR_PARAMS) {
        SR_FAIL(&r->env, EINVAL, "HVM_PARAMS: index %lu is unknown", (unsigned long)param->index);
        return -1;
    }
    if (is_shared_page(param->index) &&
        xc_clear_domain_page(r->env.xch, r->env.domid, param->value)) {
        SR_ERRNO(&r->env, "cannot clear the page of parameter %lu, pfn %#lx",
                 (unsigned long)param->index, (unsigned long)param->value);
        return -1;
    }
    if (param->index == HVM_PARAM_CONSOLE_PFN) hvm->console_pfn = param->value;
    if (param->index == HVM_PARAM_STORE_PFN) hvm->store_pfn = param->value;
    if (xc_hvm_param_set(r->env.xch, r->env.domid, (uint32_t)param->index, param->value)) {
        SR_ERRNO(&r->env, "cannot set parameter %lu to %#lx", (unsigned long)param->index,
                 (unsigned long)param->value);
        return -1;
    }
    return 0;
}

static int apply_params(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    const struct sr_hvm_params *head = rec->body;
    const struct sr_hvm_param *params = (const struct sr_hvm_param *)(head + 1);
    uint32_t i;

    for (i = 0; i < head->count; i++)
        if (apply_param(r, &params[i])) return -1;
    return 0;
}

static int hvm_record(struct xc_sr_restore *r, const struct xc_sr_record *rec, bool *known)
{
    struct hvm_state *hvm = r->arch;

    *known = true;
    switch (rec->type) {
    case SR_REC_X86_CPUID_POLICY:
        return xc_sr_keep_record(r, &hvm->policy.cpuid, rec);
    case SR_REC_X86_MSR_POLICY:
        return xc_sr_keep_record(r, &hvm->policy.msr, rec);
    case SR_REC_HVM_CONTEXT:
        return xc_sr_keep_record(r, &hvm->context, rec);
    case SR_REC_HVM_PARAMS:
        return apply_params(r, rec);
    case SR_REC_X86_TSC_INFO:
        return xc_sr_apply_tsc(r, rec);
    default:
        *known = false;
        return 0;
    }
}

static int hvm_complete(struct xc_sr_restore *r)
{
    struct hvm_state *hvm = r->arch;

    if (!hvm->context.body) {
        SR_FAIL(&r->env, EINVAL, "the stream has no HVM_CONTEXT");
        return -1;
    }
    if (xc_hvm_param_set(r->env.xch, r->env.domid, HVM_PARAM_STORE_EVTCHN, r->store_evtchn) ||
        xc_hvm_param_set(r->env.xch, r->env.domid, HVM_PARAM_CONSOLE_EVTCHN, r->console_evtchn)) {
        SR_ERRNO(&r->env, "cannot set the event channels of domain %u", r->env.domid);
        return -1;
    }
    if (xc_domain_hvm_setcontext(r->env.xch, r->env.domid, hvm->context.body,
                                 hvm->context.length)) {
        SR_ERRNO(&r->env, "the hypervisor refuses the context of domain %u", r->env.domid);
        return -1;
    }
    if (xc_dom_gnttab_seed(r->env.xch, r->env.domid, true, hvm->console_pfn, hvm->store_pfn,
                           r->console_domid, r->store_domid)) {
        SR_ERRNO(&r->env, "cannot seed the grant table of domain %u", r->env.domid);
        return -1;
    }
    r->store_gfn = hvm->store_pfn;
    r->console_gfn = hvm->console_pfn;
    return 0;
}

const struct xc_sr_restore_ops xc_sr_restore_x86_hvm = {
    .dhdr_type = SR_DHDR_TYPE_X86_HVM,
    .setup = hvm_setup,
    .static_data_end = hvm_static_data_end,
    .apply_pages = xc_sr_apply_pages,
    .apply_encoded = xc_sr_apply_encoded,
    .record = hvm_record,
    .complete = hvm_complete,
    .cleanup = hvm_cleanup,
};
