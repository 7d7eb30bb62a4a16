/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Suspend and resume of one guest, again and again.
 *
 * PV and PVH guests, and HVM guests with PV drivers, are asked through xenstore (control/shutdown)
 * and answer; an HVM guest without PV drivers, or in ACPI S3, is stopped by the hypervisor.
 * Suspended means: shut down with reason suspend. The QEMU of an HVM guest is not touched here
 * (libxl_qmp_client.h).
 *
 * States: running -> suspending -> suspended -> running. A guest that ends by itself meanwhile
 * (poweroff, reboot, crash, destroyed) is reported as such, not as an error of ours.
 */
#ifndef LIBXL_DOM_SUSPEND_H
#define LIBXL_DOM_SUSPEND_H

#include <xenctrl.h>

#include "libxl_ev.h"

enum guest_kind { GUEST_PV, GUEST_PVH, GUEST_HVM };
enum guest_end {
    GUEST_LIVES,
    GUEST_POWEROFF,
    GUEST_REBOOT,
    GUEST_CRASH,
    GUEST_GONE /* destroyed or being destroyed */
};

typedef struct libxl__dom_suspend libxl__dom_suspend;
struct libxl__dom_suspend {
    /* caller fills */
    libxl__loop *loop;
    xc_interface *xch; /* borrowed */
    uint32_t domid;
    enum guest_kind kind;
    int limit_ms; /* for the acknowledgement and for the shutdown, each; libxl uses 60000 */
    void *user;
    /*
     * Suspend ended: rc 0 suspended; ERROR_GUEST_TIMEDOUT no answer (request withdrawn, guest runs
     * on), or taken and not suspended within the limit (it runs, but may still suspend);
     * ERROR_DOMAIN_DESTROYED the guest ended by itself, see end; ERROR_ABORTED after _abort (guest
     * runs).
     */
    void (*suspended)(libxl__egc *egc, libxl__dom_suspend *ds, int rc);
    /* own */
    enum guest_end end;
    bool cooperative;
    struct dom_suspend_state *st;
};

void libxl__dom_suspend_init(libxl__dom_suspend *ds);
/*
 * Once before the first suspend: finds out how, registers the watches and keeps them (they cost a
 * round trip each).
 */
int libxl__dom_suspend_prepare(libxl__dom_suspend *ds);
/* Asks the guest; suspended() comes later, exactly once. */
int libxl__dom_suspend_start(libxl__dom_suspend *ds);
/* true between _start and suspended(). */
bool libxl__dom_suspend_pending(const libxl__dom_suspend *ds);
/*
 * While suspending: withdraw the request if the guest has not taken it; suspended() comes with the
 * result.
 */
void libxl__dom_suspend_abort(libxl__egc *egc, libxl__dom_suspend *ds);
/*
 * Lets a suspended guest go on, at once (a few ms, blocking hypercalls): fast: the guest's suspend
 * call returns "cancelled", its devices stay; the xenstore "shutdown" flag is cleared. A guest that
 * is not suspended is left alone: 0. The QEMU must have got `cont` before.
 */
int libxl__dom_resume_fast(libxl__gc *gc, xc_interface *xch, struct xs_handle *xs, uint32_t domid);
/* Deregisters; if a request is pending it is withdrawn. Does not resume. Safe twice. */
void libxl__dom_suspend_dispose(libxl__dom_suspend *ds);

/* How the guest ended, or GUEST_LIVES (running, paused or suspended). */
enum guest_end libxl__dom_end(xc_interface *xch, uint32_t domid);
/* true when it is shut down with reason suspend. */
bool libxl__dom_is_suspended(xc_interface *xch, uint32_t domid);

#endif
