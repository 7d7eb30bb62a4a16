/* SPDX-License-Identifier: LGPL-2.1-only */
/* Inside of the event loop, for libxl_ev*.c only; users include libxl_ev.h. */
#ifndef LIBXL_EV_LOOP_H
#define LIBXL_EV_LOOP_H

#include "libxl_ev.h"

struct libxl__loop {
    libxl__gc gc;
    libxl__clock clock;

    /*
     * Slot i of both arrays is one registered fd. A deregistered one leaves a hole (NULL, fd -1) until the
     * next turn, so that slots do not move under a running dispatch. New ones are added at the end.
     */
    struct pollfd *polls;
    libxl__ev_fd **fds;
    size_t fds_used, fds_room;
    bool fds_holes;
    bool dispatching;

    /* A heap by (at_ms, seq); the first is the next to fire. */
    libxl__ev_time **times;
    size_t times_used, times_room;
    uint64_t next_seq;

    size_t children; /* in use */

    struct xs_handle *xs;   /* NULL until first use */
    libxl__ev_fd xs_ev;     /* registered while there are watches */
    libxl__ev_time xs_more; /* armed while events are left over from the last turn */
    libxl__ev_xswatch *watches;
    uint32_t next_watch_id;
};

void libxl__loop_xs_init(libxl__loop *loop);
void libxl__loop_xs_dispose(libxl__loop *loop);

#endif
