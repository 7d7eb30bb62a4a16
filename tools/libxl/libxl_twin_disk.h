/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's replicated disks as the twin sees them, on the backup.
 *
 *   attach       the instances were started by the primary's links (xentwin-disk attach)
 *   barrier n    every instance has all of epoch n: only now may checkpoint n count
 *   commit n     every instance notes that epochs up to n are the disk; only then is checkpoint n acknowledged
 *   promote n    epochs up to n are applied, what came later is thrown away, the instances serve
 *   drop         what is not committed is thrown away
 *
 * After the commit of n nothing but n, or a later one, can be promoted: memory is committed before the disks.
 */
#ifndef LIBXL_TWIN_DISK_H
#define LIBXL_TWIN_DISK_H

#include "libxl_disk_set.h"

typedef struct libxl__twin_disk libxl__twin_disk;
struct libxl__twin_disk {
    /* caller fills, borrowed */
    libxl__loop *loop;
    const char *domain;
    const char *const *vdevs;
    unsigned n; /* 0: every function is a no-op that succeeds at once */
    void *user;
    /* All disks have barrier n now: it was asked for by _have. */
    void (*ready)(libxl__egc *egc, libxl__twin_disk *td);
    /* _commit, _promote has ended; set.why tells why when rc is not 0. */
    void (*committed)(libxl__egc *egc, libxl__twin_disk *td, int rc);
    void (*promoted)(libxl__egc *egc, libxl__twin_disk *td, int rc);
    /* An instance is gone; set.why tells. */
    void (*gone)(libxl__egc *egc, libxl__twin_disk *td);

    /* own */
    libxl__disk_set set;
    uint64_t barrier[DISK_MAX]; /* the newest of each disk */
    uint64_t awaited;           /* 0: nothing */
    bool promoting;
};

void libxl__twin_disk_init(libxl__twin_disk *td);
/* Connects to the instances, once; later calls do nothing. 0 or ERROR_FAIL, set.why set: _drop still reaches the others. */
int libxl__twin_disk_attach(libxl__twin_disk *td);
/* Has every disk barrier n? If not, ready comes when they do. */
bool libxl__twin_disk_have(libxl__twin_disk *td, uint64_t n);
/* 1: there is nothing to wait for; 0: committed() or promoted() comes; else an error. */
int libxl__twin_disk_commit(libxl__twin_disk *td, uint64_t n);
int libxl__twin_disk_promote(libxl__twin_disk *td, uint64_t n);
/* The twin will never run: the instances drop what is not committed, and end. After _promote: does nothing. */
void libxl__twin_disk_drop(libxl__twin_disk *td);
/* Safe twice. */
void libxl__twin_disk_dispose(libxl__twin_disk *td);

#endif
