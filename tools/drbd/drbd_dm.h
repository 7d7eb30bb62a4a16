/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The thin volume below a DRBD resource, by the device mapper's own calls: a snapshot is taken while the guest stands still, and starting
 * dmsetup or lvcreate for it would take longer than the snapshot. LVM need not know of the snapshots: their numbers are from the upper
 * end of the pool's, where LVM, which counts from 1, does not come.
 *
 * Functions that can fail return 0, or -1 with one line in `why`.
 */
#ifndef DRBD_DM_H
#define DRBD_DM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "drbd_run.h"

#define DRBD_DM_NAME_MAX 128
#define DRBD_DM_ID_MAX 0xffffffu

struct drbd_dm {
    char path[256]; /* as DRBD has it */
    dev_t device, pool;
    uint64_t sectors;
    uint32_t id; /* what the volume is now, in its pool */
    char pool_name[DRBD_DM_NAME_MAX];
};

/* Refuses what is no thin volume. */
int drbd_dm_open(struct drbd_dm *dm, const char *path, char why[DRBD_WHY_MAX]);
/* The pool can be written to and has room. */
int drbd_dm_pool_fine(const struct drbd_dm *dm, char why[DRBD_WHY_MAX]);
/* All writes that are done when it is called are in the snapshot. -EEXIST is told by *taken. */
int drbd_dm_snapshot(const struct drbd_dm *dm, uint32_t id, uint32_t of, bool *taken,
                     char why[DRBD_WHY_MAX]);
/* Fine if there is none. */
int drbd_dm_delete(const struct drbd_dm *dm, uint32_t id, char why[DRBD_WHY_MAX]);
/* From now on the volume's device shows `id`, until it is activated the next time. */
int drbd_dm_point(struct drbd_dm *dm, uint32_t id, char why[DRBD_WHY_MAX]);

/* "8:0 42": the table of a thin volume without an external origin. */
bool drbd_dm_parse_thin(const char *params, dev_t *pool, uint32_t *id);
/* A pool's status; false with the reason when it cannot take snapshots. */
bool drbd_dm_parse_pool(const char *params, char why[DRBD_WHY_MAX]);

#endif
