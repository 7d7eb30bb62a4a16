/* SPDX-License-Identifier: LGPL-2.1-only */
/* What is in a vcpu and around it: CPU policy, HVM context, TSC. All need d->lock, but for the host's policy. */
#ifndef SIM_CPU_H
#define SIM_CPU_H

#include "sim_caller.h"

/* 0 or ENOMEM. */
int sim_cpu_init(struct sim_domain *d);

/* The host's policy, also the default of its guests. */
void sim_cpu_host_policy(xen_cpuid_leaf_t *leaves, uint32_t *nr_leaves, xen_msr_entry_t *msrs,
                         uint32_t *nr_msrs);

/* The domctls: 0 or minus an errno. op is written back by the caller. */
int64_t sim_cpu_get_policy(struct sim_caller *c, const struct sim_domain *d,
                           struct xen_domctl_cpu_policy *op);
int64_t sim_cpu_set_policy(struct sim_caller *c, struct sim_domain *d,
                           struct xen_domctl_cpu_policy *op);
int64_t sim_cpu_get_context(struct sim_caller *c, const struct sim_domain *d,
                            struct xen_domctl_hvmcontext *op);
int64_t sim_cpu_set_context(struct sim_caller *c, struct sim_domain *d,
                            const struct xen_domctl_hvmcontext *op);
int64_t sim_cpu_get_context_partial(struct sim_caller *c, const struct sim_domain *d,
                                    struct xen_domctl_hvmcontext_partial *op);
int64_t sim_cpu_get_vcpu(struct sim_caller *c, const struct sim_domain *d,
                         const struct xen_domctl_vcpucontext *op);
int64_t sim_cpu_set_vcpu(struct sim_caller *c, struct sim_domain *d,
                         const struct xen_domctl_vcpucontext *op);
/* The sysctls, about the host. */
int64_t sim_cpu_host_get_policy(struct sim_caller *c, struct xen_domctl_cpu_policy *op);
int64_t sim_cpu_host_featureset(struct sim_caller *c, uint64_t to, uint32_t *nr);

#endif
