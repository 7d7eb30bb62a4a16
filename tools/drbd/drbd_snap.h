/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The snapshots of checkpoints on the backup: the last committed one and the one that is sealed.
 *
 * Their two numbers in the pool belong to this instance for ever. They are in the file `thin` of the state folder before they are used,
 * so that nothing of an instance that was killed stays in the pool.
 *
 * Bringing the volume back to snapshot s:
 *
 *     device shows s, the pool's entry of the volume is untouched    a dead host comes back as it was
 *     `prepare` is called: metadata that stand on the volume         they are those of s, and are to be marked
 *     entry deleted                                                  a dead host's volume cannot be activated
 *     entry is a copy of s                                           a dead host comes back at s
 *     device shows the entry, s is deleted
 */
#ifndef DRBD_SNAP_H
#define DRBD_SNAP_H

#include "drbd_dm.h"

#define DRBD_SNAP_DIR_MAX 4096

struct drbd_snap {
    const char *dir; /* borrowed */
    struct drbd_dm dm;
    uint32_t first;             /* of two numbers; 0: none chosen yet */
    uint32_t entry;             /* the volume's number, which LVM knows */
    uint64_t sealed, committed; /* checkpoints; 0: none */
    unsigned sealed_at, committed_at;
};

/* Finds the volume and removes what an earlier link left. */
int drbd_snap_open(struct drbd_snap *s, const char *dir, const char *path, char why[DRBD_WHY_MAX]);
/* Removes what an instance that was killed left in the pool. A volume that shows a snapshot is left alone. */
int drbd_snap_clean(const char *dir, const char *path, char why[DRBD_WHY_MAX]);
/* Snapshot n; the one before must be committed. */
int drbd_snap_seal(struct drbd_snap *s, uint64_t n, char why[DRBD_WHY_MAX]);
/* n is the sealed one, or was committed already. */
int drbd_snap_commit(struct drbd_snap *s, uint64_t n, char why[DRBD_WHY_MAX]);
/* The volume is checkpoint n; nobody has it open. `prepare` as above. On failure nothing was changed, or why tells what to do. */
int drbd_snap_restore(struct drbd_snap *s, uint64_t n,
                      int (*prepare)(void *arg, char why[DRBD_WHY_MAX]), void *arg,
                      char why[DRBD_WHY_MAX]);
/* Both are gone. */
int drbd_snap_clear(struct drbd_snap *s, char why[DRBD_WHY_MAX]);

#endif
