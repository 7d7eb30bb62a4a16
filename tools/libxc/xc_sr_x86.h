/* SPDX-License-Identifier: LGPL-2.1-only */
/* What all x86 guests have, PV or HVM: a CPU policy and a TSC. 0, or -1 with errno, logged. */
#ifndef XC_SR_X86_H
#define XC_SR_X86_H

#include "xc_sr_restore.h"
#include "xc_sr_save.h"
#include "xc_sr_stream_format.h"

/* The records of the CPU policy. */
int xc_sr_write_cpu_policy(struct xc_sr_save *s);
int xc_sr_read_tsc(struct xc_sr_save *s, struct sr_x86_tsc_info *tsc);

/* The records of the CPU policy, until STATIC_DATA_END. All zeroes is the empty one. */
struct xc_sr_cpu_policy {
    struct xc_sr_record cpuid, msr;
};

/* A copy replaces what was kept before: records of a checkpoint come again and again. */
int xc_sr_keep_record(struct xc_sr_restore *r, struct xc_sr_record *kept,
                      const struct xc_sr_record *rec);
/* What came goes to the hypervisor. *missing: XGR_SDD_MISSING_*. */
int xc_sr_apply_cpu_policy(struct xc_sr_restore *r, const struct xc_sr_cpu_policy *policy,
                           unsigned int *missing);
void xc_sr_cpu_policy_dispose(struct xc_sr_cpu_policy *policy);
int xc_sr_apply_tsc(struct xc_sr_restore *r, const struct xc_sr_record *rec);

#endif
