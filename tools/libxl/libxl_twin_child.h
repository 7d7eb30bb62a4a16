/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The stock `xl migrate-receive` that builds the twin, and the conversation with it.
 *
 * To it we are the sender of a plain `xl migrate` on this host:
 *
 *   it:  banner
 *   we:  header, configuration, plain stream        (libxl_twin_stream.h gives the bytes)
 *   it:  "domain received, ready to unpause"        -> TWIN_CHILD_RECEIVED
 *   we:  "domain is yours, you are cleared ..."     libxl__twin_child_permit
 *   it:  "my copy unpause results ..." and a byte   -> TWIN_CHILD_RUNS or _FAILED
 *
 * Until it is permitted, closing its input makes it destroy what it has built.
 */
#ifndef LIBXL_TWIN_CHILD_H
#define LIBXL_TWIN_CHILD_H

#include "libxl_ev.h"
#include "libxl_twin_stream.h"

enum twin_child_event {
    TWIN_CHILD_RECEIVED, /* it has the whole guest and asks for the permission */
    TWIN_CHILD_RUNS,     /* the guest runs here */
    TWIN_CHILD_FAILED,   /* it will not become a guest; why tells; EXITED follows, perhaps after
                            _close */
    TWIN_CHILD_EXITED,   /* the process is gone: last event */
};

typedef struct libxl__twin_child libxl__twin_child;
struct libxl__twin_child {
    /* caller fills, all borrowed */
    libxl__loop *loop;
    libxl__twin_stream *stream;
    const char *const *argv;     /* stock xl with its arguments, NULL at the end */
    const char *helper;          /* becomes its LIBXL_SAVE_HELPER; NULL: leave the environment */
    const char *lock, *own_lock; /* libxl_twin_lock.h; NULL: the common lock */
    void *user;
    void (*event)(libxl__egc *egc, libxl__twin_child *c, enum twin_child_event ev);
    /* n bytes of the stream were just handed on. */
    void (*handed)(libxl__egc *egc, libxl__twin_child *c, size_t n);
    /* One line of its standard error, printable. May be NULL. */
    void (*line)(libxl__egc *egc, libxl__twin_child *c, const char *line);

    char why[256]; /* of FAILED */

    /* own */
    libxl__ev_child child;
    libxl__ev_fd in_ev, out_ev, err_ev;
    libxl__ev_time limit;
    int in_fd, out_fd, err_fd;
    unsigned words, matched; /* which of its phrases comes next, and how many of its bytes came */
    bool failed, closing, terminated, permit_due;
    size_t permit_done;
    char err_line[256];
    size_t err_len;
};

void libxl__twin_child_init(libxl__twin_child *c);
int libxl__twin_child_start(libxl__twin_child *c);
/* The stream has more to hand on. */
void libxl__twin_child_more(libxl__twin_child *c);
/* After RECEIVED: the guest may run. */
void libxl__twin_child_permit(libxl__twin_child *c);
/* Closes its input; helps with signals when it does not leave by itself. EXITED comes. */
void libxl__twin_child_close(libxl__twin_child *c);
static inline bool libxl__twin_child_alive(const libxl__twin_child *c)
{
    return libxl__ev_child_inuse(&c->child);
}
/* Only when it is not alive (asserted). Safe twice. */
void libxl__twin_child_dispose(libxl__twin_child *c);

#endif
