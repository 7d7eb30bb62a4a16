/* SPDX-License-Identifier: LGPL-2.1-only */
/* The CPU policy and the TSC of a guest that is saved. */
#include <stdlib.h>

#include "xc_sr_x86.h"

static int write_policy(struct xc_sr_save *s, xc_cpu_policy_t *policy, xen_cpuid_leaf_t *leaves,
                        uint32_t nr_leaves, xen_msr_entry_t *msrs, uint32_t nr_msrs)
{
    if (xc_cpu_policy_get_domain(s->env.xch, s->env.domid, policy) ||
        xc_cpu_policy_serialise(s->env.xch, policy, leaves, &nr_leaves, msrs, &nr_msrs)) {
        SR_ERRNO(&s->env, "cannot read the CPU policy of domain %u", s->env.domid);
        return -1;
    }
    if (nr_leaves && xc_sr_write_record(s, SR_REC_X86_CPUID_POLICY, NULL, 0, leaves,
                                        nr_leaves * sizeof(*leaves)))
        return -1;
    if (nr_msrs &&
        xc_sr_write_record(s, SR_REC_X86_MSR_POLICY, NULL, 0, msrs, nr_msrs * sizeof(*msrs)))
        return -1;
    return 0;
}

int xc_sr_write_cpu_policy(struct xc_sr_save *s)
{
    xc_cpu_policy_t *policy = NULL;
    xen_cpuid_leaf_t *leaves = NULL;
    xen_msr_entry_t *msrs = NULL;
    uint32_t nr_leaves = 0, nr_msrs = 0;
    int rc = -1;

    if (xc_cpu_policy_get_size(s->env.xch, &nr_leaves, &nr_msrs) < 0) {
        SR_ERRNO(&s->env, "cannot read the size of CPU policies");
        goto out;
    }
    policy = xc_cpu_policy_init();
    leaves = calloc(nr_leaves + 1, sizeof(*leaves));
    msrs = calloc(nr_msrs + 1, sizeof(*msrs));
    if (!policy || !leaves || !msrs) {
        SR_ERRNO(&s->env, "no memory for a CPU policy");
        goto out;
    }
    rc = write_policy(s, policy, leaves, nr_leaves, msrs, nr_msrs);
out:
    if (policy) xc_cpu_policy_destroy(policy);
    free(leaves);
    free(msrs);
    return rc;
}

int xc_sr_read_tsc(struct xc_sr_save *s, struct sr_x86_tsc_info *tsc)
{
    uint32_t mode, khz, incarnation;
    uint64_t nsec;

    if (xc_domain_get_tsc_info(s->env.xch, s->env.domid, &mode, &nsec, &khz, &incarnation)) {
        SR_ERRNO(&s->env, "cannot read the TSC of domain %u", s->env.domid);
        return -1;
    }
    *tsc = (struct sr_x86_tsc_info){mode, khz, nsec, incarnation, 0};
    return 0;
}
