/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Checkpoints into a domain that is complete and paused: the warm twin's memory engine.
 *
 * The restore engine has built the domain from checkpoint 1; records of the later ones come here. The
 * guest's memory stays mapped, so that a checkpoint costs little more than copying its pages.
 *
 * Invariants
 * 1. Every record was accepted by xc_sr_record_check() before it comes here.
 * 2. Pages that the hypervisor or another domain shares with the guest (rings of xenstore, console,
 *    device model) are never touched: they belong to this host.
 * 3. All records can be applied again, any number of times, from the first of their checkpoints: whoever died in the
 *    middle of several is followed by one who starts over, and is told so. What is there then may be of any of them: a delta of
 *    an earlier one may find no page where a later one takes it away. It is passed over, and the later one must come.
 */
#ifndef XC_SR_APPLY_H
#define XC_SR_APPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "xc_sr_dirty.h"
#include "xc_sr_env.h"
#include "xc_sr_hold.h"
#include "xc_sr_map.h"
#include "xc_sr_stream_format.h"

#define XC_SR_APPLY_SHARED 7

struct xc_sr_apply {
    struct xc_sr_env env; /* the caller fills; io is not used */

    /* own */
    struct xc_sr_map map;
    uint64_t shared[XC_SR_APPLY_SHARED]; /* pfns, 0: none */
    bool again;
    struct xc_sr_sparse awaited; /* not there, a delta came: leaves, or comes whole, later on */
    bool has_tsc;
    struct sr_x86_tsc_info tsc;
    struct xc_sr_record context; /* the newest */
    uint8_t *skipped;            /* one page: where contents go that nobody wants */
    uint8_t *scratch;            /* what was compressed */
};

/* The domain of env.domid must be a paused HVM or PVH guest. 0, or -1 with errno (logged). */
int xc_sr_apply_open(struct xc_sr_apply *a);
void xc_sr_apply_close(struct xc_sr_apply *a); /* safe twice, and on zeroes with env */

/*
 * Around the records of one or more checkpoints. `again`: another process may have applied some of the very same, from the
 * first on. _end: 0, or -1 (logged): a delta had nothing to build on.
 */
void xc_sr_apply_begin(struct xc_sr_apply *a, bool again);
int xc_sr_apply_end(struct xc_sr_apply *a);
int xc_sr_apply_record(struct xc_sr_apply *a, const struct xc_sr_record *rec);
/*
 * After the last record of a checkpoint, and again right before the guest runs, since its clocks go
 * on from here: gives the domain the newest context. Nothing came yet: the domain has its context.
 */
int xc_sr_apply_context(struct xc_sr_apply *a);

#endif
