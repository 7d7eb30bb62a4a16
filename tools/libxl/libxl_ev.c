/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The loop itself, its file descriptors and its timers.
 *
 * Invariants
 * 1. Callbacks run from libxl__loop_once only, one at a time.
 * 2. What a callback deregisters does not run any more, in this turn either.
 * 3. What a callback registers does not run before the next turn; so a turn always ends.
 */
#include "libxl_ev_loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <time.h>
#include <libxl.h>

#define FIRST_ROOM 8

static int64_t boottime_ms(void *user)
{
    struct timespec now;
    int r = clock_gettime(CLOCK_BOOTTIME, &now);

    assert(!r);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int libxl__loop_new(libxl__loop **loop_r, xentoollog_logger *lg, const libxl__clock *clock)
{
    libxl__loop *loop = libxl__realloc_array(NULL, 1, sizeof(*loop));

    *loop = (libxl__loop){.clock = {.now_ms = boottime_ms}};
    if (clock) loop->clock = *clock;
    libxl__gc_init(&loop->gc, lg);
    libxl__loop_xs_init(loop);
    *loop_r = loop;
    return 0;
}

void libxl__loop_free(libxl__loop *loop)
{
    if (!loop) return;
    assert(!loop->dispatching);
    libxl__loop_xs_dispose(loop);
    for (size_t i = 0; i < loop->fds_used; i++)
        assert(!loop->fds[i]);
    assert(!loop->times_used);
    assert(!loop->children);
    free(loop->polls);
    free(loop->fds);
    free(loop->times);
    libxl__gc_dispose(&loop->gc);
    free(loop);
}

libxl__gc *libxl__loop_gc(libxl__loop *loop)
{
    return &loop->gc;
}

int64_t libxl__loop_now_ms(libxl__loop *loop)
{
    return loop->clock.now_ms(loop->clock.user);
}

/* ---- file descriptors ---- */

void libxl__ev_fd_init(libxl__ev_fd *ev)
{
    *ev = (libxl__ev_fd){.fd = -1};
}

/* poll(2) ignores a negative fd, and reports POLLHUP and POLLERR of any other. */
static void set_poll(libxl__loop *loop, const libxl__ev_fd *ev)
{
    loop->polls[ev->slot] = (struct pollfd){.fd = ev->events ? ev->fd : -1, .events = ev->events};
}

int libxl__ev_fd_register(libxl__loop *loop, libxl__ev_fd *ev, libxl__ev_fd_callback *cb, int fd,
                          short events)
{
    assert(!libxl__ev_fd_isregistered(ev) && cb);
    if (fd < 0) {
        LOG(&loop->gc, ERROR, "cannot wait for a file that is not open");
        return ERROR_FAIL;
    }
    if (loop->fds_used == loop->fds_room) {
        loop->fds_room = loop->fds_room ? 2 * loop->fds_room : FIRST_ROOM;
        loop->polls = libxl__realloc_array(loop->polls, loop->fds_room, sizeof(*loop->polls));
        loop->fds = libxl__realloc_array(loop->fds, loop->fds_room, sizeof(libxl__ev_fd *));
    }
    *ev = (libxl__ev_fd){
        .fd = fd, .events = events, .callback = cb, .loop = loop, .slot = loop->fds_used};
    loop->fds[loop->fds_used++] = ev;
    set_poll(loop, ev);
    return 0;
}

int libxl__ev_fd_modify(libxl__loop *loop, libxl__ev_fd *ev, short events)
{
    assert(libxl__ev_fd_isregistered(ev) && ev->loop == loop);
    if (ev->events == events) return 0;
    ev->events = events;
    loop->polls[ev->slot].fd = events ? ev->fd : -1;
    loop->polls[ev->slot].events = events;
    return 0;
}

void libxl__ev_fd_deregister(libxl__loop *loop, libxl__ev_fd *ev)
{
    if (!libxl__ev_fd_isregistered(ev)) return;
    assert(ev->loop == loop && loop->fds[ev->slot] == ev);
    loop->fds[ev->slot] = NULL;
    loop->polls[ev->slot] = (struct pollfd){.fd = -1};
    loop->fds_holes = true;
    libxl__ev_fd_init(ev);
}

static void close_holes(libxl__loop *loop)
{
    size_t kept = 0;

    if (!loop->fds_holes) return;
    for (size_t i = 0; i < loop->fds_used; i++) {
        if (!loop->fds[i]) continue;
        loop->fds[kept] = loop->fds[i];
        loop->polls[kept] = loop->polls[i];
        loop->fds[kept]->slot = kept;
        kept++;
    }
    loop->fds_used = kept;
    loop->fds_holes = false;
}

/* n is the number of slots when the turn began: later ones were not polled. */
static void run_fds(libxl__loop *loop, size_t n)
{
    libxl__egc egc = {.loop = loop};

    for (size_t i = 0; i < n; i++) {
        libxl__ev_fd *ev = loop->fds[i];
        short revents;

        /* An earlier callback of this turn may have removed it or changed what it waits for. */
        if (!ev || !ev->events) continue;
        revents = loop->polls[i].revents & (ev->events | POLLERR | POLLHUP | POLLNVAL);
        if (revents) ev->callback(&egc, ev, ev->fd, ev->events, revents);
    }
}

/* ---- timers ---- */

static bool fires_before(const libxl__ev_time *a, const libxl__ev_time *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

static void place(libxl__loop *loop, size_t slot, libxl__ev_time *ev)
{
    loop->times[slot] = ev;
    ev->slot = slot;
}

/* Moves ev from a free slot to where the order wants it. */
static void sift(libxl__loop *loop, size_t slot, libxl__ev_time *ev)
{
    libxl__ev_time **times = loop->times;

    while (slot && fires_before(ev, times[(slot - 1) / 2])) {
        place(loop, slot, times[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * slot + 1;

        if (child + 1 < loop->times_used && fires_before(times[child + 1], times[child])) child++;
        if (child >= loop->times_used || fires_before(ev, times[child])) break;
        place(loop, slot, times[child]);
        slot = child;
    }
    place(loop, slot, ev);
}

void libxl__ev_time_init(libxl__ev_time *ev)
{
    *ev = (libxl__ev_time){0};
}

int libxl__ev_time_register_rel(libxl__loop *loop, libxl__ev_time *ev, libxl__ev_time_callback *cb,
                                int64_t ms)
{
    int64_t now = libxl__loop_now_ms(loop);

    assert(!ev->registered && cb);
    if (ms < 0) ms = 0;
    if (loop->times_used == loop->times_room) {
        loop->times_room = loop->times_room ? 2 * loop->times_room : FIRST_ROOM;
        loop->times = libxl__realloc_array(loop->times, loop->times_room, sizeof(libxl__ev_time *));
    }
    *ev = (libxl__ev_time){.registered = true,
                           .at_ms = ms > INT64_MAX - now ? INT64_MAX : now + ms,
                           .callback = cb,
                           .seq = loop->next_seq++};
    loop->times_used++;
    sift(loop, loop->times_used - 1, ev);
    return 0;
}

void libxl__ev_time_deregister(libxl__loop *loop, libxl__ev_time *ev)
{
    libxl__ev_time *last;
    size_t slot = ev->slot;

    if (!ev->registered) return;
    assert(slot < loop->times_used && loop->times[slot] == ev);
    last = loop->times[--loop->times_used];
    if (last != ev) sift(loop, slot, last);
    libxl__ev_time_init(ev);
}

/* Timers registered since the turn began have a seq from first_new on and are never due earlier than an old one. */
static void run_times(libxl__loop *loop, uint64_t first_new)
{
    libxl__egc egc = {.loop = loop};
    int64_t now = libxl__loop_now_ms(loop);

    while (loop->times_used) {
        libxl__ev_time *ev = loop->times[0];
        libxl__ev_time_callback *cb = ev->callback;

        if (ev->at_ms > now || ev->seq >= first_new) break;
        libxl__ev_time_deregister(loop, ev);
        cb(&egc, ev);
    }
}

/* ---- one turn ---- */

/* How long the turn may wait: until the next timer, at most max_wait_ms; -1 without either. */
static int wait_ms(libxl__loop *loop, int max_wait_ms)
{
    int64_t ms;

    if (!loop->times_used) return max_wait_ms;
    ms = loop->times[0]->at_ms - libxl__loop_now_ms(loop);
    if (ms < 0) ms = 0;
    if (ms > INT_MAX) ms = INT_MAX;
    return max_wait_ms >= 0 && max_wait_ms < ms ? max_wait_ms : (int)ms;
}

static int poll_fds(libxl__loop *loop, int timeout_ms)
{
    int r = poll(loop->polls, loop->fds_used, timeout_ms);

    if (r < 0 && errno != EINTR) LOGE(&loop->gc, ERROR, "poll of %zu files failed", loop->fds_used);
    return r;
}

static int wait_for_fds(libxl__loop *loop, int max_wait_ms)
{
    int timeout_ms = wait_ms(loop, max_wait_ms);
    int r;

    if (!loop->clock.advance) return poll_fds(loop, timeout_ms);

    r = poll_fds(loop, 0);
    if (r || !timeout_ms) return r;
    loop->clock.advance(loop->clock.user,
                        timeout_ms < 0 ? INT64_MAX : libxl__loop_now_ms(loop) + timeout_ms);
    return poll_fds(loop, 0);
}

int libxl__loop_once(libxl__loop *loop, int max_wait_ms)
{
    uint64_t first_new = loop->next_seq;
    int r;

    assert(!loop->dispatching);
    close_holes(loop);
    r = wait_for_fds(loop, max_wait_ms);
    if (r < 0 && errno != EINTR) return ERROR_FAIL;

    loop->dispatching = true;
    if (r > 0) run_fds(loop, loop->fds_used);
    run_times(loop, first_new);
    loop->dispatching = false;
    return 0;
}

int libxl__loop_run(libxl__loop *loop, const bool *done)
{
    int rc = 0;

    while (!*done && !rc)
        rc = libxl__loop_once(loop, -1);
    return rc;
}

/* ---- fd helpers ---- */

static int change_flag(libxl__gc *gc, int fd, int get, int set, int flag, bool on)
{
    int flags, r;

    flags = fcntl(fd, get);
    if (flags < 0) {
        LOGE(gc, ERROR, "cannot read the flags of file descriptor %d", fd);
        return ERROR_FAIL;
    }
    flags = on ? flags | flag : flags & ~flag;
    r = fcntl(fd, set, flags);
    if (r < 0) {
        LOGE(gc, ERROR, "cannot set the flags of file descriptor %d", fd);
        return ERROR_FAIL;
    }
    return 0;
}

int libxl__fd_nonblock(libxl__gc *gc, int fd, bool nonblock)
{
    return change_flag(gc, fd, F_GETFL, F_SETFL, O_NONBLOCK, nonblock);
}

int libxl__fd_cloexec(libxl__gc *gc, int fd, bool cloexec)
{
    return change_flag(gc, fd, F_GETFD, F_SETFD, FD_CLOEXEC, cloexec);
}
