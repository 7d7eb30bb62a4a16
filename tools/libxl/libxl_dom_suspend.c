/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Suspending a guest, as phases; one function moves each of them.
 *
 *   IDLE --start--> ASKED --guest took it--> TAKEN --shut down--> REPORT --> IDLE, suspended()
 *                     |                        '--limit--> REPORT (GUEST_TIMEDOUT)
 *                     '--limit, abort--> withdrawn? REPORT (GUEST_TIMEDOUT, ABORTED) : TAKEN
 *
 * A guest that cannot be asked starts in TAKEN. Every result goes through REPORT, so that
 * suspended() never runs inside _start or _abort. The guest may write anything to control/shutdown
 * at any time: it is only compared with "suspend", and what counts in the end is what the
 * hypervisor says.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxl.h>
#include <xen/hvm/params.h>
#include <xen/sched.h>
#include <xenctrl.h>
#include <xenguest.h>

#include "libxl_dom_suspend.h"

#define WITHDRAW_TRIES                                                                             \
    20 /* a guest that keeps writing makes our transaction fail again and again */

enum phase { IDLE, ASKED, TAKEN, REPORT };

struct dom_suspend_state {
    libxl__dom_suspend *ds;
    enum phase phase;
    int rc;           /* in REPORT */
    char control[64]; /* path of the request */
    libxl__ev_xswatch control_watch, release_watch;
    libxl__ev_time timer; /* the limit; in REPORT the next turn */
};

static void timer_fired(libxl__egc *egc, libxl__ev_time *ev);

static bool get_info(xc_interface *xch, uint32_t domid, xc_dominfo_t *info)
{
    return xc_domain_getinfo(xch, domid, 1, info) == 1 && info->domid == domid;
}

enum guest_end libxl__dom_end(xc_interface *xch, uint32_t domid)
{
    xc_dominfo_t info;

    errno = 0;
    if (!get_info(xch, domid, &info)) /* another error says nothing about the guest */
        return errno == 0 || errno == ESRCH ? GUEST_GONE : GUEST_LIVES;
    if (info.dying) return GUEST_GONE;
    if (!info.shutdown) return GUEST_LIVES;
    switch (info.shutdown_reason) {
    case SHUTDOWN_suspend:
        return GUEST_LIVES;
    case SHUTDOWN_poweroff:
        return GUEST_POWEROFF;
    case SHUTDOWN_reboot:
    case SHUTDOWN_soft_reset:
        return GUEST_REBOOT;
    default:
        return GUEST_CRASH;
    }
}

bool libxl__dom_is_suspended(xc_interface *xch, uint32_t domid)
{
    xc_dominfo_t info;

    return get_info(xch, domid, &info) && !info.dying && info.shutdown &&
           info.shutdown_reason == SHUTDOWN_suspend;
}

void libxl__dom_suspend_init(libxl__dom_suspend *ds)
{
    *ds = (libxl__dom_suspend){0};
}

/*
 * PV drivers, and with them cooperation, may come and go while the guest runs: looked at before
 * each suspend.
 */
static int find_how(libxl__dom_suspend *ds)
{
    libxl__gc *gc = libxl__loop_gc(ds->loop);
    uint64_t callback = 0, s_state = 0;

    ds->cooperative = true;
    if (ds->kind != GUEST_HVM) return 0;
    if (xc_hvm_param_get(ds->xch, ds->domid, HVM_PARAM_CALLBACK_IRQ, &callback) ||
        xc_hvm_param_get(ds->xch, ds->domid, HVM_PARAM_ACPI_S_STATE, &s_state)) {
        LOGE(gc, ERROR, "cannot tell whether domain %u has PV drivers", ds->domid);
        return ERROR_FAIL;
    }
    ds->cooperative = callback && !s_state;
    return 0;
}

static void report(libxl__dom_suspend *ds, int rc)
{
    struct dom_suspend_state *st = ds->st;

    st->phase = REPORT;
    st->rc = rc;
    libxl__ev_time_deregister(ds->loop, &st->timer);
    rc = libxl__ev_time_register_rel(ds->loop, &st->timer, timer_fired, 0);
    assert(!rc);
}

/* Reports if the guest is suspended or ended; else waits on. */
static void check_shutdown(libxl__dom_suspend *ds)
{
    ds->end = libxl__dom_end(ds->xch, ds->domid);
    if (ds->end != GUEST_LIVES)
        report(ds, ERROR_DOMAIN_DESTROYED);
    else if (libxl__dom_is_suspended(ds->xch, ds->domid))
        report(ds, 0);
}

static void taken(libxl__dom_suspend *ds)
{
    struct dom_suspend_state *st = ds->st;
    int rc;

    st->phase = TAKEN;
    libxl__ev_time_deregister(ds->loop, &st->timer);
    rc = libxl__ev_time_register_rel(ds->loop, &st->timer, timer_fired, ds->limit_ms);
    assert(!rc);
    check_shutdown(ds);
}

/* True when the request is still there. */
static bool still_asked(struct xs_handle *xs, xs_transaction_t t, const char *path)
{
    unsigned int len;
    char *value = xs_read(xs, t, path, &len);
    bool asked = value && !strcmp(value, "suspend");

    free(value);
    return asked;
}

static void control_changed(libxl__egc *egc, libxl__ev_xswatch *ev, const char *watchpath,
                            const char *eventpath)
{
    struct dom_suspend_state *st = CONTAINER_OF(ev, struct dom_suspend_state, control_watch);
    struct xs_handle *xs = libxl__loop_xs(egc->loop);

    if (st->phase == ASKED && xs && !still_asked(xs, XBT_NULL, st->control)) taken(st->ds);
}

static void domain_released(libxl__egc *egc, libxl__ev_xswatch *ev, const char *watchpath,
                            const char *eventpath)
{
    struct dom_suspend_state *st = CONTAINER_OF(ev, struct dom_suspend_state, release_watch);

    if (st->phase == ASKED || st->phase == TAKEN) check_shutdown(st->ds);
}

/* Takes the request back. True when the guest had taken it already, at the last moment. */
static bool withdraw(libxl__dom_suspend *ds)
{
    libxl__gc *gc = libxl__loop_gc(ds->loop);
    struct xs_handle *xs = libxl__loop_xs(ds->loop);
    xs_transaction_t t;
    int i;

    for (i = 0; xs && i < WITHDRAW_TRIES; i++) {
        t = xs_transaction_start(xs);
        if (t == XBT_NULL) break;
        if (!still_asked(xs, t, ds->st->control)) {
            xs_transaction_end(xs, t, true);
            return true;
        }
        if (!xs_write(xs, t, ds->st->control, "", 0)) {
            xs_transaction_end(xs, t, true);
            break;
        }
        if (xs_transaction_end(xs, t, false)) return false;
        if (errno != EAGAIN) break;
    }
    LOGE(gc, ERROR, "cannot withdraw the suspend request of domain %u", ds->domid);
    return false;
}

static void timer_fired(libxl__egc *egc, libxl__ev_time *ev)
{
    struct dom_suspend_state *st = CONTAINER_OF(ev, struct dom_suspend_state, timer);
    libxl__dom_suspend *ds = st->ds;
    libxl__gc *gc = libxl__loop_gc(ds->loop);

    switch (st->phase) {
    case REPORT:
        st->phase = IDLE;
        ds->suspended(egc, ds, st->rc); /* may dispose ds */
        return;
    case ASKED:
        if (withdraw(ds)) {
            taken(ds);
            return;
        }
        LOG(gc, ERROR, "domain %u did not take the suspend request within %d ms: withdrawn",
            ds->domid, ds->limit_ms);
        report(ds, ERROR_GUEST_TIMEDOUT);
        return;
    case TAKEN:
        LOG(gc, ERROR, "domain %u did not suspend within %d ms", ds->domid, ds->limit_ms);
        report(ds, ERROR_GUEST_TIMEDOUT);
        return;
    case IDLE:
        assert(!"a timer in IDLE");
    }
}

int libxl__dom_suspend_prepare(libxl__dom_suspend *ds)
{
    libxl__gc *gc = libxl__loop_gc(ds->loop);
    struct dom_suspend_state *st;
    int rc;

    assert(!ds->st && ds->suspended && ds->limit_ms > 0);
    st = calloc(1, sizeof(*st));
    if (!st) {
        LOG(gc, ERROR, "out of memory");
        return ERROR_NOMEM;
    }
    st->ds = ds;
    ds->st = st;
    libxl__ev_xswatch_init(&st->control_watch);
    libxl__ev_xswatch_init(&st->release_watch);
    libxl__ev_time_init(&st->timer);
    snprintf(st->control, sizeof(st->control), "/local/domain/%u/control/shutdown", ds->domid);
    rc = find_how(ds);
    if (rc) goto out;
    rc = libxl__ev_xswatch_register(ds->loop, &st->control_watch, control_changed, st->control);
    if (rc) goto out;
    rc =
        libxl__ev_xswatch_register(ds->loop, &st->release_watch, domain_released, "@releaseDomain");
out:
    if (rc) libxl__dom_suspend_dispose(ds);
    return rc;
}

static int ask_guest(libxl__dom_suspend *ds)
{
    libxl__gc *gc = libxl__loop_gc(ds->loop);
    struct dom_suspend_state *st = ds->st;
    struct xs_handle *xs = libxl__loop_xs(ds->loop);
    int rc;

    if (!xs) return ERROR_FAIL;
    rc = libxl__ev_time_register_rel(ds->loop, &st->timer, timer_fired, ds->limit_ms);
    if (rc) return rc;
    if (!xs_write(xs, XBT_NULL, st->control, "suspend", strlen("suspend"))) {
        LOGE(gc, ERROR, "cannot ask domain %u to suspend", ds->domid);
        libxl__ev_time_deregister(ds->loop, &st->timer);
        return ERROR_FAIL;
    }
    st->phase = ASKED;
    return 0;
}

int libxl__dom_suspend_start(libxl__dom_suspend *ds)
{
    libxl__gc *gc = libxl__loop_gc(ds->loop);
    struct dom_suspend_state *st = ds->st;
    int rc;

    assert(st && st->phase == IDLE);
    check_shutdown(ds);
    if (st->phase == REPORT) return 0;
    rc = find_how(ds);
    if (rc) return rc;
    if (ds->cooperative) return ask_guest(ds);
    if (xc_domain_shutdown(ds->xch, ds->domid, SHUTDOWN_suspend)) {
        LOGE(gc, ERROR, "cannot suspend domain %u", ds->domid);
        return ERROR_FAIL;
    }
    taken(ds);
    return 0;
}

bool libxl__dom_suspend_pending(const libxl__dom_suspend *ds)
{
    return ds->st && ds->st->phase != IDLE;
}

void libxl__dom_suspend_abort(libxl__egc *egc, libxl__dom_suspend *ds)
{
    struct dom_suspend_state *st = ds->st;

    if (!st || st->phase != ASKED) return;
    if (withdraw(ds))
        taken(ds);
    else
        report(ds, ERROR_ABORTED);
}

int libxl__dom_resume_fast(libxl__gc *gc, xc_interface *xch, struct xs_handle *xs, uint32_t domid)
{
    if (!libxl__dom_is_suspended(xch, domid)) return 0;
    if (xc_domain_resume(xch, domid, 1)) {
        LOGE(gc, ERROR, "cannot resume domain %u", domid);
        return ERROR_FAIL;
    }
    /*
     * Else xenstored would not announce the next suspend. The guest runs already: no reason to
     * fail.
     */
    if (!xs_resume_domain(xs, domid))
        LOGE(gc, WARN, "xenstore did not take the resume of domain %u", domid);
    return 0;
}

void libxl__dom_suspend_dispose(libxl__dom_suspend *ds)
{
    struct dom_suspend_state *st = ds->st;

    if (!st) return;
    if (st->phase == ASKED) withdraw(ds);
    libxl__ev_xswatch_deregister(ds->loop, &st->control_watch);
    libxl__ev_xswatch_deregister(ds->loop, &st->release_watch);
    libxl__ev_time_deregister(ds->loop, &st->timer);
    free(st);
    ds->st = NULL;
}
