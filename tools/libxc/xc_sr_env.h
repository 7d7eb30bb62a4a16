/* SPDX-License-Identifier: LGPL-2.1-only */
/* What both engines get from the process they run in, and how they log. */
#ifndef XC_SR_ENV_H
#define XC_SR_ENV_H

#include <errno.h>
#include <stdint.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xentoollog.h>

#include "xc_sr_io.h"

/* Everything is the caller's and outlives the engine. */
struct xc_sr_env {
    xc_interface *xch;
    xenforeignmemory_handle *fmem;
    xentoollog_logger *lg;
    uint32_t domid;
    struct xc_sr_io *io;
    uint64_t
        max_kb; /* a twin: how much its configuration lets it have; 0: what libxl has set stays */
};

#define SR_LOG(env, level, ...) xtl_log((env)->lg, XTL_##level, -1, "xc", __VA_ARGS__)
/* With errno, which it keeps. */
#define SR_ERRNO(env, ...)                                                                         \
    do {                                                                                           \
        int sr_saved_errno = errno;                                                                \
        xtl_log((env)->lg, XTL_ERROR, sr_saved_errno, "xc", __VA_ARGS__);                          \
        errno = sr_saved_errno;                                                                    \
    } while (0)

/* For an error that is not a failed call: logs, sets errno. */
#define SR_FAIL(env, err, ...)                                                                     \
    do {                                                                                           \
        xtl_log((env)->lg, XTL_ERROR, -1, "xc", __VA_ARGS__);                                      \
        errno = (err);                                                                             \
    } while (0)

/* Most pages in one hypercall, mapping or PAGE_DATA record. */
#define XC_SR_BATCH 1024U

/*
 * A guest that was made with less memory than its configuration permits may be given more while it is
 * protected, but libxl makes its twin as it was at the start. Called when the hypervisor gives no
 * more pages: lets the domain have up to max_kb. 0, or -1 when that changes nothing.
 */
int xc_sr_raise_limit(const struct xc_sr_env *env);
/* max_kb from the environment: XENTWIN_MAX_MEMKB, which the twin sets for its children. -1: no number. */
int xc_sr_read_max_kb(struct xc_sr_env *env);

/*
 * Exported by libxenctrl but declared in none of its public headers: pfns in, XEN_DOMCTL_PFINFO_*
 * page types out. At most XC_SR_BATCH at a time.
 */
int xc_get_pfn_type_batch(xc_interface *xch, uint32_t dom, unsigned int num, xen_pfn_t *arr);

#endif
