/* SPDX-License-Identifier: LGPL-2.1-only */
/* Replicated disks in the plans of a protection. */
#ifndef LIBXL_REMUS_DISKS_H
#define LIBXL_REMUS_DISKS_H

#include "libxl_remus.h"

/* Setup: link the instances, copy what differs; then, when the memory is copied too, count epochs. */
void remus_sync_disks(libxl__egc *egc, libxl__epoch *ep);
void remus_protect_disks(libxl__egc *egc, libxl__epoch *ep);
/* The guest is suspended, its device model stopped and its memory copied. */
void remus_close_disks_epoch(libxl__egc *egc, libxl__epoch *ep);
/* Checkpoint `acked` was acknowledged. */
void remus_commit_disks(libxl__remus *rm);
/* Undo, when it is decided who goes on: here the disks go on alone. */
void remus_settle_disks(libxl__egc *egc, libxl__epoch *ep);

#endif
