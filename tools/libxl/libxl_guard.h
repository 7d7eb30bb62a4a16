/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guard: a small process of its own (xentwin-guard) that outlives the primary's xl.
 *
 * It holds one end of a socket pair. As long as the operation lives it writes nothing but state
 * changes into it. When the socket closes without a goodbye the operation died (SIGKILL, crash):
 * within 2 s the guard applies the same rule as for a lost link: where the primary goes on it
 * resumes the guest if it is suspended, opens and removes the plug, ends log-dirty mode; where the
 * backup may run it pauses the guest and leaves the output closed, and says which command recovers.
 */
#ifndef LIBXL_GUARD_H
#define LIBXL_GUARD_H

#include "libxl_arbiter.h"

/*
 * What the operation tells its guard ('U', 'P', 'S', 'G' goodbye) and the guard answers once ('R'
 * ready). One per packet.
 */
struct guard_message {
    char type;
    int32_t pid; /* 'R': the guard's */
    uint64_t epoch;
};
/*
 * The arbiter command is handed over in the environment: a command line can be read by every user.
 */
#define GUARD_ARBITER_ENV "XENTWIN_GUARD_ARBITER"

typedef struct libxl__guard libxl__guard;
struct libxl__guard {
    /* caller fills */
    libxl__loop *loop;
    struct arbiter_case c; /* epoch is ignored, see _update */
    uint32_t domid;
    const char *uuid; /* of the domain, text: never act on another one */
    const char *ifb;  /* name of the plug's ifb device, or NULL */
    void *user;
    /*
     * The guard died although we live; it has been started again (rc 0) or could not be (rc). May
     * be NULL.
     */
    void (*died)(libxl__egc *egc, libxl__guard *g, int rc);
    /* own */
    int fd;    /* our end, -1: no guard */
    int pidfd; /* of the guard once it was ready, or -1 */
    libxl__ev_fd ev;
    libxl__ev_time timer;
    char phase;
    uint64_t epoch;
    int restarts;
};

void libxl__guard_init(libxl__guard *g);
/*
 * Starts the process (double fork, own session, own process group; found in libexec or by
 * XENTWIN_GUARD) in phase 'U' and waits until it is ready (some ms, at most 5 s). 0 or ERROR_*:
 * nothing is left. A guard that dies later is started again, a few times.
 */
int libxl__guard_start(libxl__guard *g);
/*
 * Tells it the state: 'U' the backup cannot run (COMMIT 1 was not sent yet, or the backup confirmed
 * the stop); 'P' protected: the backup may run, epoch is the last acknowledged one; 'S' this side
 * must stay stopped whatever happens. 'P' must be told before COMMIT 1 is queued, with epoch 0: the
 * acknowledgement may be on its way when we die.
 */
void libxl__guard_update(libxl__guard *g, char phase, uint64_t epoch);
/*
 * Goodbye: everything was cleaned up by us; the guard exits without touching anything. Safe twice.
 */
void libxl__guard_stop(libxl__guard *g);

/*
 * What the guard, `xl remus --recover` and an operation that must stop do to one guest; blocking.
 *
 * _go_on: the right to run was decided before. QEMU goes on, a suspended guest is resumed and a
 * pending request to suspend withdrawn, a pause by _stay_stopped is undone, log-dirty mode ends,
 * then the output is opened and the net buffer removed (ifb NULL: there is none). Then it stays up
 * to 5 s to catch a suspend that the guest had accepted already. Best effort: each failure is
 * logged, the first one returned. A guest that is gone or ended by itself: only the net buffer is
 * removed.
 *
 * _by_hand: the same on a person's word. It undoes every pause of a guest that has our mark or
 * whose output is held.
 *
 * _stay_stopped: pauses the guest, once however often it is called, and leaves a mark in xenstore
 * by which _go_on knows that the pause is ours. The output is left as it is.
 */
int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb);
int libxl__recover_by_hand(libxl__gc *gc, uint32_t domid, const char *ifb);
int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid);
/*
 * 0: domid is the domain with this uuid. ERROR_DOMAIN_NOTFOUND: no such domain; ERROR_INVAL:
 * another one; ERROR_FAIL: cannot tell.
 */
int libxl__recover_check_domain(libxl__gc *gc, uint32_t domid, const char *uuid);
/*
 * Whether an earlier protection left the guest to a person, since its twin may run: its output is
 * held or it has the mark, paused or not. Then nothing may be begun that opens the output. 0, or
 * ERROR_*: cannot tell.
 */
int libxl__recover_undecided(libxl__gc *gc, uint32_t domid, bool *undecided);
/* Whether the guest is paused by _stay_stopped. */
bool libxl__recover_is_stopped(libxl__gc *gc, uint32_t domid);

#endif
