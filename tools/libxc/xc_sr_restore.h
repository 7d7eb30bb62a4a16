/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup's memory engine: one stream into one domain that libxl has created empty.
 *
 * Plain:         records are applied as they come, END completes the domain.
 * Checkpointed:  the first checkpoint is applied as it comes; then records are held back until
 *                CHECKPOINT and checkpoint() say that the set is whole. The stream's end, or an END
 *                record, drops what is held and completes the domain with the last whole set.
 *
 * Invariants
 * 1. No byte of a record is used before xc_sr_record_check() accepted it.
 * 2. Held records never exceed hold_limit_bytes.
 * 3. The domain holds one complete checkpoint, or the restore fails.
 * 4. Nothing behind CHECKPOINT is read: the toolstack takes over the fd exactly there.
 *
 * xc_sr_restore.c walks the stream, xc_sr_restore_pages.c applies pages, xc_sr_restore_populate.c
 * finds memory for them, xc_sr_hold.c keeps records, xc_sr_restore_x86_hvm.c does what differs by guest kind.
 */
#ifndef XC_SR_RESTORE_H
#define XC_SR_RESTORE_H

#include <stdbool.h>
#include <xenctrl.h> /* which xenguest.h needs but does not include */
#include <xenguest.h>

#include "xc_sr_dirty.h"
#include "xc_sr_env.h"
#include "xc_sr_hold.h"
#include "xc_sr_map.h"

struct xc_sr_restore;

/* What differs by kind of guest. Each returns 0, or -1 with errno after it logged why. */
struct xc_sr_restore_ops {
    uint32_t dhdr_type;
    int (*setup)(struct xc_sr_restore *r);
    /* STATIC_DATA_END came or was inferred. *missing: XGR_SDD_MISSING_*. */
    int (*static_data_end)(struct xc_sr_restore *r, unsigned int *missing);
    /* A checked PAGE_DATA record. */
    int (*apply_pages)(struct xc_sr_restore *r, const struct xc_sr_record *rec);
    /* A checked ENCODED_PAGES record; NULL: such guests are never sent this way. */
    int (*apply_encoded)(struct xc_sr_restore *r, const struct xc_sr_record *rec);
    /* Any other checked record that is not a mark. *known = false: not for this guest. */
    int (*record)(struct xc_sr_restore *r, const struct xc_sr_record *rec, bool *known);
    /* All pages are in place: vcpus, rings, grant table. */
    int (*complete)(struct xc_sr_restore *r);
    void (*cleanup)(struct xc_sr_restore *r);
};

extern const struct xc_sr_restore_ops xc_sr_restore_x86_hvm, xc_sr_restore_x86_pv;

struct xc_sr_restore {
    /* caller fills */
    struct xc_sr_env env;
    bool checkpointed;
    uint32_t store_evtchn, store_domid;
    uint32_t console_evtchn, console_domid;
    struct restore_callbacks *cb;
    uint64_t hold_limit_bytes; /* 0 = the domain's memory and 64 MiB */

    /* results, when xc_sr_restore() returned 0 */
    xen_pfn_t store_gfn, console_gfn;

    /* own */
    const struct xc_sr_restore_ops *ops;
    void *arch;
    uint32_t version;
    bool static_data_ended;
    bool verifying; /* behind VERIFY pages are compared, not written */
    uint64_t verify_differ;
    struct xc_sr_sparse populated;
    struct xc_sr_sparse touched, large; /* by chunk: something was populated; all of it was */
    uint32_t refusals;                  /* of large pages */
    struct xc_sr_map map;               /* of large chunks */
    uint8_t *scratch; /* contents of an ENCODED_PAGES record; made for the first one */
    struct xc_sr_hold hold;
    bool holding; /* a complete checkpoint is in the domain */
    uint64_t checkpoints;
};

/* Runs the whole thing. 0, or -1 with errno. Logs the cause of a failure once. */
int xc_sr_restore(struct xc_sr_restore *r);

/* --- between the files of the engine --- */

/* xc_sr_restore_populate.c */
int xc_sr_populate_setup(struct xc_sr_restore *r);
void xc_sr_populate_cleanup(struct xc_sr_restore *r);
/* Memory for pfns that have none; at most XC_SR_BATCH. Those of r->populated are to stay. */
int xc_sr_populate(struct xc_sr_restore *r, const xen_pfn_t *pfns, unsigned int count);
/* Takes the memory away; they are out of r->populated already. */
int xc_sr_depopulate(struct xc_sr_restore *r, const xen_pfn_t *pfns, unsigned int count);
/* Is all of the 2 MiB around pfn there, so that it can stay mapped? */
bool xc_sr_is_large(const struct xc_sr_restore *r, xen_pfn_t pfn);
/* Gives back what was populated and never sent. */
int xc_sr_release_spare(struct xc_sr_restore *r);

/* xc_sr_restore_pages.c: apply_pages() and apply_encoded() of HVM and PVH. */
int xc_sr_apply_pages(struct xc_sr_restore *r, const struct xc_sr_record *rec);
int xc_sr_apply_encoded(struct xc_sr_restore *r, const struct xc_sr_record *rec);

#endif
