/* SPDX-License-Identifier: LGPL-2.1-only */
/* The CPU policy and the TSC of a guest that is restored. */
#include <stdlib.h>
#include <string.h>

#include "xc_sr_record.h"
#include "xc_sr_x86.h"

int xc_sr_keep_record(struct xc_sr_restore *r, struct xc_sr_record *kept,
                      const struct xc_sr_record *rec)
{
    void *copy = malloc(rec->length);

    if (!copy) {
        SR_ERRNO(&r->env, "no memory for %s", xc_sr_record_name(rec->type));
        return -1;
    }
    memcpy(copy, rec->body, rec->length);
    free(kept->body);
    *kept = *rec;
    kept->body = copy;
    return 0;
}

int xc_sr_apply_cpu_policy(struct xc_sr_restore *r, const struct xc_sr_cpu_policy *policy,
                           unsigned int *missing)
{
    uint32_t leaf = UINT32_MAX, subleaf = UINT32_MAX, msr = UINT32_MAX;

    *missing = (policy->cpuid.body ? 0 : XGR_SDD_MISSING_CPUID) |
               (policy->msr.body ? 0 : XGR_SDD_MISSING_MSR);
    if (!policy->cpuid.body && !policy->msr.body) return 0;
    if (xc_set_domain_cpu_policy(r->env.xch, r->env.domid,
                                 policy->cpuid.length / sizeof(xen_cpuid_leaf_t),
                                 policy->cpuid.body, policy->msr.length / sizeof(xen_msr_entry_t),
                                 policy->msr.body, &leaf, &subleaf, &msr)) {
        SR_ERRNO(&r->env,
                 "this host cannot give domain %u the CPU it had "
                 "(leaf %#x, subleaf %#x, MSR %#x)",
                 r->env.domid, leaf, subleaf, msr);
        return -1;
    }
    return 0;
}

void xc_sr_cpu_policy_dispose(struct xc_sr_cpu_policy *policy)
{
    free(policy->cpuid.body);
    free(policy->msr.body);
    memset(policy, 0, sizeof(*policy));
}

int xc_sr_apply_tsc(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    const struct sr_x86_tsc_info *tsc = rec->body;

    if (xc_domain_set_tsc_info(r->env.xch, r->env.domid, tsc->mode, tsc->nsec, tsc->khz,
                               tsc->incarnation)) {
        SR_ERRNO(&r->env, "cannot set the TSC of domain %u", r->env.domid);
        return -1;
    }
    return 0;
}
