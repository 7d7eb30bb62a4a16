/* SPDX-License-Identifier: LGPL-2.1-only */
/* Between libxl_twin.c, which owns the state, and libxl_twin_commit.c, which takes the frames. */
#ifndef LIBXL_TWIN_INTERNAL_H
#define LIBXL_TWIN_INTERNAL_H

#include "libxl_twin.h"

/* ---- libxl_twin.c ---- */

/* Checkpoints are taken. */
static inline bool libxl__twin_receiving(const libxl__twin *t)
{
    return t->state <= TWIN_PROTECTING;
}

void libxl__twin_set_state(libxl__twin *t, enum twin_state state);
/* A line for a person. */
void libxl__twin_tell(libxl__twin *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The twin will never run. The first reason counts. */
void libxl__twin_drop(libxl__twin *t, enum twin_outcome outcome);
/* We cannot go on: the primary is told why, and drops us too. */
void libxl__twin_give_up(libxl__twin *t, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* ---- libxl_twin_commit.c ---- */

void libxl__twin_frame_came(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                            const void *body, size_t len);
void libxl__twin_disks_ready(libxl__egc *egc, libxl__twin_disk *td);
void libxl__twin_disks_committed(libxl__egc *egc, libxl__twin_disk *td, int rc);
void libxl__twin_disks_gone(libxl__egc *egc, libxl__twin_disk *td);
/* n bytes of committed checkpoints went to the child, or were applied. */
void libxl__twin_handed_on(libxl__twin *t, size_t n);

#endif
