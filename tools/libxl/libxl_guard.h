/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guard: a small process of its own (xentwin-guard) that outlives the primary's xl.
 *
 * It holds one end of a pipe. As long as the operation lives it writes nothing but state changes into it. When
 * the pipe closes without a goodbye the operation died (SIGKILL, crash): within 2 s the guard applies the same rule as
 * for a lost link: where the primary goes on it resumes the guest if it is suspended, opens and removes the plug, ends
 * log-dirty mode; where the backup may run it pauses the guest and leaves the output closed, and says which command recovers.
 */
#ifndef LIBXL_GUARD_H
#define LIBXL_GUARD_H

#include "libxl_arbiter.h"

typedef struct libxl__guard libxl__guard;
struct libxl__guard {
    /* caller fills */
    libxl__loop *loop;
    struct arbiter_case c;  /* epoch is ignored, see _update */
    uint32_t domid;
    const char *uuid;       /* of the domain, text: never act on another domain with the same domid */
    const char *ifb;        /* name of the plug's ifb device, or NULL */
    void *user;
    /* The guard died although we live; it has been started again (rc 0) or could not be (rc). May be NULL. */
    void (*died)(libxl__egc *egc, libxl__guard *g, int rc);
    /* own */
    int pipe_fd;
    pid_t pid;
    libxl__ev_fd ev;
    char phase;
    uint64_t epoch;
};

void libxl__guard_init(libxl__guard *g);
/* Starts the process (double fork, own session, own process group; found beside us in libexec or by XENTWIN_GUARD). 0 or ERROR_*. */
int libxl__guard_start(libxl__guard *g);
/*
 * Tells it the state: 'U' the backup cannot run (no checkpoint acknowledged yet, or it confirmed the stop);
 * 'P' protected: epoch is the last acknowledged one, the backup may run; 'S' this side must stay stopped whatever happens.
 */
void libxl__guard_update(libxl__guard *g, char phase, uint64_t epoch);
/* Goodbye: everything was cleaned up by us; the guard exits without touching anything. Safe twice. */
void libxl__guard_stop(libxl__guard *g);

/* What guard and `xl remus --recover` do to one guest: best effort, each failure logged, 0 when all is clean. */
int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb);
int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid);

#endif
