/* SPDX-License-Identifier: LGPL-2.1-only */
/* The records of a checkpoint that is not whole yet. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xc_sr_hold.h"
#include "xc_sr_record.h"

void xc_sr_hold_init(struct xc_sr_hold *h, uint64_t limit_bytes)
{
    memset(h, 0, sizeof(*h));
    h->limit_bytes = limit_bytes;
    h->last = &h->first;
}

void xc_sr_hold_empty(struct xc_sr_hold *h)
{
    while (h->first) {
        struct xc_sr_held *held = h->first;

        h->first = held->next;
        free(held->rec.body);
        free(held);
    }
    h->last = &h->first;
    h->bytes = 0;
}

int xc_sr_hold_add(struct xc_sr_hold *h, struct xc_sr_record *rec)
{
    uint64_t cost = sizeof(struct xc_sr_held) + xc_sr_record_padded(rec->length);
    struct xc_sr_held *held;

    if (cost > h->limit_bytes - h->bytes) {
        errno = ENOSPC;
        return -1;
    }
    held = calloc(1, sizeof(*held));
    if (!held) return -1;
    held->rec = *rec;
    memset(rec, 0, sizeof(*rec));
    *h->last = held;
    h->last = &held->next;
    h->bytes += cost;
    return 0;
}
