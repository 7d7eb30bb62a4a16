/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The driver that walks a plan: a table of steps, read from top to bottom.
 *
 * A plan is data, so that the order of an epoch stands in one place. The driver owns plan, step and rc:
 *
 *   setup plan --> plan, again and again --> undo plan --> finished()
 *
 *  1. A step ends by exactly one libxl__epoch_next(rc), now or later.
 *  2. The first error is kept; it leads to the undo plan, whose rows may fail (logged) and never stop it.
 *  3. An interruption (abort, lost peer, time limit) is an error that comes between two calls: the step it
 *     interrupts gets no say any more, so what it had started must be put right by the undo plan.
 *  4. Every step starts from the event loop, never from inside another step: the stack cannot grow.
 *  5. finished() is called once, last, when the undo plan is through.
 */
#ifndef LIBXL_EPOCH_H
#define LIBXL_EPOCH_H

#include "libxl_ev.h"

#define NO_LIMIT 0

typedef struct libxl__epoch libxl__epoch;

struct step {
    const char *name; /* NULL ends the table */
    void (*run)(libxl__egc *egc, libxl__epoch *ep);
    int limit_ms;
};

struct libxl__epoch {
    /* caller fills */
    libxl__loop *loop;
    uint32_t domid;
    const struct step *setup, *repeat, *undo;
    void (*finished)(libxl__egc *egc, libxl__epoch *ep, int rc);
    /* the driver's own */
    const struct step *plan, *step;
    int rc;
    uint64_t round;
    bool running; /* a step was started and has not ended */
    bool over;
    libxl__ev_time limit, turn;
};

void libxl__epoch_init(libxl__epoch *ep);
int libxl__epoch_start(libxl__epoch *ep);
/* The current step has ended with rc. */
void libxl__epoch_next(libxl__egc *egc, libxl__epoch *ep, int rc);
/* Something from outside ends the protection; a no-op once the undo plan runs. rc must not be 0. */
void libxl__epoch_interrupt(libxl__egc *egc, libxl__epoch *ep, int rc);
static inline bool libxl__epoch_undoing(const libxl__epoch *ep)
{
    return ep->plan == ep->undo;
}

#endif
