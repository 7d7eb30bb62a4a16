/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The event loop: file descriptors, timers, children, xenstore watches.
 *
 * One loop belongs to one thread; nothing here locks. Callbacks run from libxl__loop_once only, never from
 * inside a register call. A callback may register and deregister anything, itself included, and may
 * dispose what contains its own event after deregistering it.
 *
 * Every ev struct is owned by its user, starts with _init (all zero is not initialised), and
 * _deregister is safe on one that is not registered.
 *
 * The clock is CLOCK_BOOTTIME in ms unless the loop was given another one: tests hand in a clock and
 * move it; the loop then never sleeps but asks the clock to advance to the next timer.
 */
#ifndef LIBXL_EV_H
#define LIBXL_EV_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <xenstore.h>

#include "libxl_gc.h"

typedef struct libxl__loop libxl__loop;

/* An egc is the context of the callbacks of one turn of the loop. */
typedef struct libxl__egc {
    libxl__loop *loop;
} libxl__egc;

typedef struct libxl__clock {
    int64_t (*now_ms)(void *user);
    /* NULL for real time. Else called instead of sleeping: move to at most until_ms (INT64_MAX: no timer). */
    void (*advance)(void *user, int64_t until_ms);
    void *user;
} libxl__clock;

/* Makes a loop; *loop is freed by libxl__loop_free. clock NULL = CLOCK_BOOTTIME; lg is borrowed. 0 or ERROR_*. */
int libxl__loop_new(libxl__loop **loop, xentoollog_logger *lg, const libxl__clock *clock);
/* Every event must have been deregistered (asserted). NULL is fine. */
void libxl__loop_free(libxl__loop *loop);
libxl__gc *libxl__loop_gc(libxl__loop *loop);
int64_t libxl__loop_now_ms(libxl__loop *loop);
/*
 * One turn: runs what is ready, waiting at most max_wait_ms for it (-1: until something happens; a signal counts).
 * Ready fds come first, then the timers that were due before the turn began. 0 or ERROR_FAIL (poll failed, logged).
 * Never called from a callback.
 */
int libxl__loop_once(libxl__loop *loop, int max_wait_ms);
/* Runs until *done is true. 0 or ERROR_FAIL. */
int libxl__loop_run(libxl__loop *loop, const bool *done);

typedef struct libxl__ev_fd libxl__ev_fd;
typedef void libxl__ev_fd_callback(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events,
                                   short revents);
struct libxl__ev_fd {
    int fd; /* -1: not registered; never closed by the loop */
    short events;
    libxl__ev_fd_callback *callback;
    libxl__loop *loop;
    size_t slot;
};
void libxl__ev_fd_init(libxl__ev_fd *ev);
/* revents may have POLLERR, POLLHUP, POLLNVAL besides the asked events. */
int libxl__ev_fd_register(libxl__loop *loop, libxl__ev_fd *ev, libxl__ev_fd_callback *cb, int fd,
                          short events);
/* events 0 keeps it registered but silent: then POLLHUP/POLLERR do not wake it either. */
int libxl__ev_fd_modify(libxl__loop *loop, libxl__ev_fd *ev, short events);
void libxl__ev_fd_deregister(libxl__loop *loop, libxl__ev_fd *ev);
static inline bool libxl__ev_fd_isregistered(const libxl__ev_fd *ev)
{
    return ev->fd >= 0;
}

typedef struct libxl__ev_time libxl__ev_time;
typedef void libxl__ev_time_callback(libxl__egc *egc, libxl__ev_time *ev);
struct libxl__ev_time {
    bool registered;
    int64_t at_ms;
    libxl__ev_time_callback *callback;
    uint64_t seq; /* timers due at the same time fire in the order of their registration */
    size_t slot;
};
void libxl__ev_time_init(libxl__ev_time *ev);
/* Fires once, in ms milliseconds (0: at the next turn), and is deregistered before its callback runs. */
int libxl__ev_time_register_rel(libxl__loop *loop, libxl__ev_time *ev, libxl__ev_time_callback *cb,
                                int64_t ms);
void libxl__ev_time_deregister(libxl__loop *loop, libxl__ev_time *ev);

typedef struct libxl__ev_child libxl__ev_child;
/* status is as from waitpid; -1 when somebody else in the process reaped our child. */
typedef void libxl__ev_child_callback(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status);
struct libxl__ev_child {
    pid_t pid; /* -1: none */
    libxl__ev_fd pidfd_ev;
    int pidfd;
    libxl__ev_child_callback *callback;
};
void libxl__ev_child_init(libxl__ev_child *ev);
/*
 * Forks; returns the pid in the parent, 0 in the child, ERROR_FAIL on failure. Death is seen through a pidfd: no
 * SIGCHLD handler is installed. There is no deregister: the owner kills the child and waits for the callback.
 * The child has SIGPIPE and the signal mask at their defaults.
 */
pid_t libxl__ev_child_fork(libxl__loop *loop, libxl__ev_child *ev, libxl__ev_child_callback *cb);
static inline bool libxl__ev_child_inuse(const libxl__ev_child *ev)
{
    return ev->pid >= 0;
}
/* In the child: moves the given fds (-1: /dev/null) to 0, 1, 2, execs, and on failure writes a line and _exits 127. */
void libxl__exec(int stdinfd, int stdoutfd, int stderrfd, const char *file, char *const argv[])
    __attribute__((noreturn));

typedef struct libxl__ev_xswatch libxl__ev_xswatch;
typedef void libxl__ev_xswatch_callback(libxl__egc *egc, libxl__ev_xswatch *ev,
                                        const char *watchpath, const char *eventpath);
struct libxl__ev_xswatch {
    char *path; /* NULL: not registered; a copy of ours */
    uint32_t id;
    libxl__ev_xswatch_callback *callback;
    libxl__ev_xswatch *next;
};
void libxl__ev_xswatch_init(libxl__ev_xswatch *ev);
/* The first event comes at once, as xenstore watches do. Opens the loop's xenstore handle on first use. */
int libxl__ev_xswatch_register(libxl__loop *loop, libxl__ev_xswatch *ev,
                               libxl__ev_xswatch_callback *cb, const char *path);
void libxl__ev_xswatch_deregister(libxl__loop *loop, libxl__ev_xswatch *ev);
/* The loop's xenstore handle (opened on first use), NULL on failure (logged). Owned by the loop. */
struct xs_handle *libxl__loop_xs(libxl__loop *loop);

/* fd helpers: 0 or ERROR_FAIL (logged). */
int libxl__fd_nonblock(libxl__gc *gc, int fd, bool nonblock);
int libxl__fd_cloexec(libxl__gc *gc, int fd, bool cloexec);

#endif
