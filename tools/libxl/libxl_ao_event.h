/* SPDX-License-Identifier: LGPL-2.1-only */
/* Completions as libxl events, and what the wrapped functions of stock libxenlight need from our operations. */
#ifndef LIBXL_AO_EVENT_H
#define LIBXL_AO_EVENT_H

#include <stdbool.h>
#include <libxl.h>

#include "libxl_gc.h"

typedef struct libxl__op_event libxl__op_event;

/* The event of an operation that will complete; made beforehand so that a completion cannot fail. NULL: logged. */
libxl__op_event *libxl__op_event_new(libxl__gc *gc, libxl_ctx *ctx, uint32_t domid,
                                     libxl_ev_user for_user);
/* It will not happen. NULL is fine. */
void libxl__op_event_free(libxl__op_event *oe);
/* It happens now: it goes to the application's hook if there is one, else to its next libxl_event_check or _wait. */
void libxl__op_event_occurred(libxl__op_event *oe, int rc);

/* In libxl_ao.c: as libxl_ao_abort, for our operations only. */
int libxl__ao_abort_how(libxl_ctx *ctx, const libxl_asyncop_how *how);
bool libxl__ao_any_on_ctx(libxl_ctx *ctx);

#endif
