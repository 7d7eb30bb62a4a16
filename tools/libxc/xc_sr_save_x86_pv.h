/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Saving a PV guest: suspended, since Debian's hypervisor cannot log the pages it writes. From
 * suspend() on nothing that is read here changes, unless somebody breaks the guest on purpose: then
 * the stream is refused or of no use, but nothing outside the guest is touched.
 *
 * xc_sr_save_x86_pv.c has the order of things, _p2m.c finds the guest's p2m, _pages.c sends its
 * memory, _vcpu.c its vcpus.
 */
#ifndef XC_SR_SAVE_X86_PV_H
#define XC_SR_SAVE_X86_PV_H

#include "xc_sr_save.h"
#include "xc_sr_stream_format.h"
#include "xc_sr_x86_pv.h"

struct xc_sr_pv_batch; /* pages on their way, xc_sr_save_x86_pv_pages.c */

struct xc_sr_pv_save {
    uint64_t max_memkb;
    unsigned int vcpus;          /* ids are below this */
    const shared_info_t *shared; /* mapped */
    struct xc_sr_pv_m2p m2p;     /* mapped */
    uint64_t m2p_pages;
    struct xc_sr_pv_p2m p2m; /* mapped */
    uint64_t p2m_pages;
    uint64_t *p2m_pfns; /* of the p2m_pages */
    struct xc_sr_pv_batch *batch;
    struct sr_x86_tsc_info tsc;
};

/* Each returns 0, or -1 with errno after it logged why. What they map or allocate stays in pv. */

int xc_sr_pv_map_m2p(struct xc_sr_save *s);
/* The guest is suspended. Maps its p2m and finds the pfns of its pages. */
int xc_sr_pv_map_p2m(struct xc_sr_save *s);
void xc_sr_pv_unmap(struct xc_sr_save *s); /* both, safe when they are not mapped */

int xc_sr_pv_batch_alloc(struct xc_sr_save *s);
void xc_sr_pv_batch_free(struct xc_sr_save *s);
int xc_sr_pv_write_pages(struct xc_sr_save *s);

int xc_sr_pv_write_vcpus(struct xc_sr_save *s);

#endif
