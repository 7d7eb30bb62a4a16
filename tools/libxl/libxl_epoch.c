/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_epoch.h"

#include <assert.h>
#include <libxl.h>

static void start_step(libxl__egc *egc, libxl__ev_time *ev);

static void epoch_check(const libxl__epoch *ep)
{
    assert(!ep->over);
    assert(ep->plan == ep->setup || ep->plan == ep->repeat || ep->plan == ep->undo);
    assert(ep->step >= ep->plan && ep->step->name);
    /* Only an error leads to the undo plan, and there is no way back. */
    assert((ep->plan == ep->undo) == (ep->rc != 0));
}

void libxl__epoch_init(libxl__epoch *ep)
{
    *ep = (libxl__epoch){0};
    libxl__ev_time_init(&ep->limit);
    libxl__ev_time_init(&ep->turn);
}

int libxl__epoch_start(libxl__epoch *ep)
{
    ep->plan = ep->step = ep->setup;
    return libxl__ev_time_register_rel(ep->loop, &ep->turn, start_step, 0);
}

static void limit_reached(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__epoch *ep = CONTAINER_OF(ev, libxl__epoch, limit);
    libxl__gc *gc = libxl__loop_gc(ep->loop);

    LOG(gc, ERROR, "domain %u: \"%s\" took longer than %d ms", ep->domid, ep->step->name,
        ep->step->limit_ms);
    if (libxl__epoch_undoing(ep))
        libxl__epoch_next(egc, ep, ERROR_TIMEDOUT);
    else
        libxl__epoch_interrupt(egc, ep, ERROR_TIMEDOUT);
}

static void start_step(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__epoch *ep = CONTAINER_OF(ev, libxl__epoch, turn);
    int rc;

    epoch_check(ep);
    LOG(libxl__loop_gc(ep->loop), DEBUG, "domain %u: round %lu: %s", ep->domid,
        (unsigned long)ep->round, ep->step->name);
    ep->running = true;
    if (ep->step->limit_ms != NO_LIMIT) {
        rc = libxl__ev_time_register_rel(ep->loop, &ep->limit, limit_reached, ep->step->limit_ms);
        if (rc) {
            libxl__epoch_next(egc, ep, rc);
            return;
        }
    }
    ep->step->run(egc, ep);
}

static void schedule(libxl__egc *egc, libxl__epoch *ep, const struct step *step)
{
    libxl__ev_time_deregister(ep->loop, &ep->limit);
    libxl__ev_time_deregister(ep->loop, &ep->turn);
    ep->running = false;
    ep->step = step;
    epoch_check(ep);
    /* A timer of 0 ms cannot fail but for memory, and allocation never fails. */
    (void)libxl__ev_time_register_rel(ep->loop, &ep->turn, start_step, 0);
}

static void finish(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__ev_time_deregister(ep->loop, &ep->limit);
    ep->running = false;
    ep->over = true;
    ep->finished(egc, ep, ep->rc);
}

static void fail(libxl__egc *egc, libxl__epoch *ep, int rc)
{
    libxl__gc *gc = libxl__loop_gc(ep->loop);

    if (rc == ERROR_ABORTED)
        LOG(gc, DEBUG, "domain %u: asked to end during \"%s\"", ep->domid, ep->step->name);
    else
        LOG(gc, DEBUG, "domain %u: \"%s\" failed (rc %d), undoing", ep->domid, ep->step->name, rc);
    ep->rc = rc;
    ep->plan = ep->undo;
    schedule(egc, ep, ep->undo);
}

void libxl__epoch_next(libxl__egc *egc, libxl__epoch *ep, int rc)
{
    epoch_check(ep);
    assert(ep->running);
    if (rc && !libxl__epoch_undoing(ep)) {
        fail(egc, ep, rc);
        return;
    }
    if (rc)
        LOG(libxl__loop_gc(ep->loop), WARN, "domain %u: could not %s (rc %d)", ep->domid,
            ep->step->name, rc);
    if (ep->step[1].name) {
        schedule(egc, ep, ep->step + 1);
    } else if (libxl__epoch_undoing(ep)) {
        finish(egc, ep);
    } else {
        ep->round++;
        ep->plan = ep->repeat;
        schedule(egc, ep, ep->repeat);
    }
}

void libxl__epoch_interrupt(libxl__egc *egc, libxl__epoch *ep, int rc)
{
    assert(rc);
    if (ep->over || libxl__epoch_undoing(ep)) return;
    fail(egc, ep, rc);
}
