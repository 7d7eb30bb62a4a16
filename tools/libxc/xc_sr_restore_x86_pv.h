/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Restoring a PV guest. Its memory has no page types until the end: the engine may write anywhere.
 * Then, in this order: pages that the guest gave back go, the shared info and the vcpus come, the
 * page tables are pinned, the p2m is written, the grant table gets its two entries. From the first
 * vcpu on the hypervisor checks the page tables, so nothing in a stream can map what is not the
 * guest's.
 *
 * xc_sr_restore_x86_pv.c takes the records, _pages.c the memory, _vcpu.c the vcpus.
 */
#ifndef XC_SR_RESTORE_X86_PV_H
#define XC_SR_RESTORE_X86_PV_H

#include "xc_sr_restore.h"
#include "xc_sr_x86.h"
#include "xc_sr_x86_pv.h"

/* The last record of each kind that came for a vcpu. */
struct xc_sr_pv_vcpu {
    struct xc_sr_record basic, extended, xsave, msrs;
};

struct xc_sr_pv_restore {
    uint64_t pfns_limit;
    uint64_t shared_frame;
    bool info_came;
    struct xc_sr_cpu_policy policy;
    struct xc_sr_record shared; /* SHARED_INFO */
    struct xc_sr_pv_vcpu *vcpus;
    unsigned int vcpus_count;
    /*
     * By pfn, address space for pfns_limit of them: memory is behind what is used. frames is
     * 0 where nothing is populated; types is a stream's page type + 1, 0 where none came.
     */
    uint64_t *frames;
    uint8_t *types;
    uint64_t pfns; /* 0 until X86_PV_P2M_FRAMES came */
    uint64_t *p2m_pfns, p2m_pages;
};

/* 0, or -1 with errno after they logged why. */

/* xc_sr_restore_x86_pv_pages.c */
int xc_sr_pv_pages_alloc(struct xc_sr_restore *r);
void xc_sr_pv_pages_free(struct xc_sr_restore *r);
int xc_sr_pv_apply_pages(struct xc_sr_restore *r, const struct xc_sr_record *rec);
int xc_sr_pv_remove_gone(struct xc_sr_restore *r);
int xc_sr_pv_pin_tables(struct xc_sr_restore *r);
int xc_sr_pv_write_p2m(struct xc_sr_restore *r);
/* The frame of a pfn that a stream names as a table of this level (0: an ordinary page). */
int xc_sr_pv_find_frame(struct xc_sr_restore *r, const char *what, uint64_t pfn, unsigned int level,
                        uint64_t *frame);

/* xc_sr_restore_x86_pv_vcpu.c */
int xc_sr_pv_keep_vcpu(struct xc_sr_restore *r, const struct xc_sr_record *rec);
int xc_sr_pv_apply_vcpus(struct xc_sr_restore *r);
void xc_sr_pv_vcpus_free(struct xc_sr_restore *r);

#endif
