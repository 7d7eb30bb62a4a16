/* SPDX-License-Identifier: LGPL-2.1-only */
/* Records read from a stream, and a bounded list of those that wait for their checkpoint. */
#ifndef XC_SR_HOLD_H
#define XC_SR_HOLD_H

#include <stddef.h>
#include <stdint.h>

struct xc_sr_record {
    uint32_t type;
    uint32_t length;
    void *body; /* malloc'ed with its padding; NULL when length is 0 */
};

struct xc_sr_held {
    struct xc_sr_held *next;
    struct xc_sr_record rec;
};

struct xc_sr_hold {
    uint64_t limit_bytes;
    uint64_t bytes;
    struct xc_sr_held *first, **last;
};

void xc_sr_hold_init(struct xc_sr_hold *h, uint64_t limit_bytes);
void xc_sr_hold_empty(struct xc_sr_hold *h); /* safe twice */

/* Takes the body over and empties *rec. -1: ENOSPC over the limit, or ENOMEM; *rec untouched. */
int xc_sr_hold_add(struct xc_sr_hold *h, struct xc_sr_record *rec);

#endif
