/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's replicated disks as a device of its checkpoints, on the primary.
 *
 *   sync ------> protect ---> close_epoch 1 -> commit 1 -> close_epoch 2 -> ... ----> unprotect
 *   link, copy   tag writes   guest suspended  acknowledged                           the disk goes on alone
 *
 * The backup's side of the same disks is libxl_twin_disk.h: it sees the barrier that close_epoch puts into the order of the
 * writes, and a checkpoint is acknowledged there only when every disk has its barrier.
 */
#ifndef LIBXL_DISK_DEVICE_H
#define LIBXL_DISK_DEVICE_H

#include "libxl_disk_set.h"

typedef struct libxl__disk_device libxl__disk_device;
struct libxl__disk_device {
    /* caller fills, borrowed */
    libxl__loop *loop;
    const char *domain;
    const char *const *vdevs;
    unsigned n; /* 0: nothing to do, and nothing may be called but _init, _inuse and _dispose */
    void *user;
    /* A connected stream to the backup's instance of that disk, which becomes ours; -1: none (logged). */
    int (*link)(void *user, unsigned disk);
    /* The one operation that is under way has ended; set.why tells why when rc is not 0. */
    void (*done)(libxl__egc *egc, libxl__disk_device *dd, int rc);
    /* While it synchronises: bytes of all disks. */
    void (*progress)(libxl__egc *egc, libxl__disk_device *dd, uint64_t done, uint64_t total);
    /* The backup does not follow any more; set.why tells. The guest's disk goes on here. */
    void (*lost)(libxl__egc *egc, libxl__disk_device *dd);

    /* own */
    libxl__disk_set set;
    unsigned synced; /* bit per disk */
    bool given;      /* the instances have our links */
    bool syncing, ending;
    uint64_t progress_done[DISK_MAX], progress_total[DISK_MAX];
};

void libxl__disk_device_init(libxl__disk_device *dd);
/* The instances were reached: there is something to unprotect. */
static inline bool libxl__disk_device_inuse(const libxl__disk_device *dd)
{
    return libxl__disk_set_isopen(&dd->set);
}
/*
 * Each starts one operation; done comes unless an error is returned.
 *
 * _sync        connects to the instances, gives each its link, and copies what differs; the guest runs
 * _protect     from now on writes belong to epoch 1
 * _close_epoch the guest stands still: all it has written so far belongs to epochs up to n
 * _unprotect   whatever else is under way is given up; the instances keep track of what the backup misses
 */
int libxl__disk_device_sync(libxl__disk_device *dd);
int libxl__disk_device_protect(libxl__disk_device *dd);
int libxl__disk_device_close_epoch(libxl__disk_device *dd, uint64_t n);
int libxl__disk_device_unprotect(libxl__disk_device *dd);
/* Checkpoint n was acknowledged. Nothing to wait for. */
void libxl__disk_device_commit(libxl__disk_device *dd, uint64_t n);
/* Safe twice. */
void libxl__disk_device_dispose(libxl__disk_device *dd);

#endif
