/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The life of one asynchronous operation of ours.
 *
 * libxl's own ao machinery is private to stock libxenlight, so ours stands beside it with the same rules:
 * ao_how NULL runs the operation inside the call; a callback runs once, from the operation's thread; an event
 * (how without callback) is handed out by libxl_event_check/libxl_event_wait, which the library wraps, or by the
 * application's event hooks. The completion happens exactly once.
 *
 *   public call                         operation
 *     libxl__ao_create
 *     initiate ...                      events on ao's own loop
 *     return libxl__ao_inprogress       libxl__ao_complete(egc, ao, rc)   exactly once, last
 *
 * With how NULL, _inprogress runs the loop in the caller's thread. Otherwise a thread made by _create runs it; until
 * _inprogress the caller's thread owns the loop. That thread takes no signals.
 *
 * An application that fetches events by libxl_event_check alone is not woken for ours: it uses libxl_event_wait,
 * event hooks or a callback.
 */
#ifndef LIBXL_AO_H
#define LIBXL_AO_H

#include <libxl.h>

#include "libxl_ev.h"

typedef struct libxl__ao libxl__ao;
typedef struct libxl__ao_abortable libxl__ao_abortable;

/* Called once, on the operation's thread, after somebody asked to abort; rc is ERROR_ABORTED. */
typedef void libxl__ao_abortable_callback(libxl__egc *egc, libxl__ao_abortable *abrt, int rc);
struct libxl__ao_abortable {
    bool registered;
    libxl__ao_abortable_callback *callback;
    libxl__ao *ao;
};

/*
 * A new operation on ctx for domid. how is copied. lg is the logger of the operation (borrowed). NULL on failure.
 * The ao owns its loop and its gc.
 */
libxl__ao *libxl__ao_create(libxl_ctx *ctx, xentoollog_logger *lg, uint32_t domid,
                            const libxl_asyncop_how *how);
/* The initiation failed before anything runs: frees the ao; returns rc for the caller to return. */
int libxl__ao_create_fail(libxl__ao *ao, int rc);
/* See above. The ao must not be touched by the caller afterwards. */
int libxl__ao_inprogress(libxl__ao *ao);
/*
 * The operation is over; every event of its must be deregistered (asserted). At the end of this turn of the loop the
 * ao and all that was allocated from its gc are freed, then the completion is delivered. May be called before
 * _inprogress too.
 */
void libxl__ao_complete(libxl__egc *egc, libxl__ao *ao, int rc);

libxl__loop *libxl__ao_loop(libxl__ao *ao);
libxl__gc *libxl__ao_gc(libxl__ao *ao);
libxl_ctx *libxl__ao_ctx(libxl__ao *ao);
uint32_t libxl__ao_domid(libxl__ao *ao);

void libxl__ao_abortable_init(libxl__ao_abortable *abrt);
/* At most one per ao. If an abort was already asked the callback comes at the next turn. */
int libxl__ao_abortable_register(libxl__ao *ao, libxl__ao_abortable *abrt,
                                 libxl__ao_abortable_callback *cb);
void libxl__ao_abortable_deregister(libxl__ao_abortable *abrt);

/*
 * Asks the running operation for domid on any ctx of this process to abort, whatever its how; thread-safe and
 * async-signal-safe (a write to the operation's eventfd). ERROR_NOTFOUND when there is none.
 */
int libxl__ao_abort_domid(uint32_t domid);

#endif
