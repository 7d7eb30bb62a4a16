/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Completions as events. Stock libxenlight has no door through which an event of ours could enter its queue, so
 * the functions by which an application gets events are defined here too: they serve ours first and pass
 * everything else on to the stock ones. An event of ours is a libxl_event like any other: stock libxl_event_free
 * frees it.
 */
#include "libxl_ao_event.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/time.h>
#include <unistd.h>
#include <libxl_event.h>

#define STOCK_VERSION "VERS_4.17.0"
/* Events made or happened and not fetched yet. */
#define MAX_EVENTS 1024
/* The application may run stock libxl's events elsewhere, which does not wake us: so look again after that long. */
#define LOOK_AGAIN_MS 250

struct libxl__op_event {
    libxl_ctx *ctx;
    libxl_event *event;
    libxl__op_event *next;
};

/* What the application registered for a ctx; hooks and user are the application's. */
struct hooked {
    libxl_ctx *ctx;
    const libxl_event_hooks *hooks;
    void *user;
    struct hooked *next;
};

/*
 * A thread inside libxl_event_wait. Stock libxl allows one poller per ctx through its public functions: the waiter that
 * came first polls stock's files too and wakes the others, which poll only their wake_fd.
 */
struct waiter {
    libxl_ctx *ctx;
    int wake_fd;
    struct pollfd *polls; /* the last one used is wake_fd */
    int room;
    struct waiter *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static libxl__op_event *happened; /* oldest first */
static int events_made;
static struct hooked *hooked;
static struct waiter *waiters; /* in order of arrival */

/* ---- stock libxenlight ---- */

static struct {
    int (*event_check)(libxl_ctx *, libxl_event **, uint64_t, libxl_event_predicate *, void *);
    void (*register_callbacks)(libxl_ctx *, const libxl_event_hooks *, void *);
    int (*beforepoll)(libxl_ctx *, int *, struct pollfd *, int *, struct timeval);
    void (*afterpoll)(libxl_ctx *, int, const struct pollfd *, struct timeval);
    int (*ao_abort)(libxl_ctx *, const libxl_asyncop_how *);
    int (*ctx_free)(libxl_ctx *);
} stock;

static void find_stock(void *function, const char *name)
{
    void *found = dlvsym(RTLD_NEXT, name, STOCK_VERSION);

    if (!found) {
        fprintf(stderr, "xentwin: no %s of %s: is libxenlight 4.17 loaded?\n", name, STOCK_VERSION);
        abort();
    }
    memcpy(function, &found, sizeof(found));
}

static void find_all_stock(void)
{
    find_stock(&stock.event_check, "libxl_event_check");
    find_stock(&stock.register_callbacks, "libxl_event_register_callbacks");
    find_stock(&stock.beforepoll, "libxl_osevent_beforepoll");
    find_stock(&stock.afterpoll, "libxl_osevent_afterpoll");
    find_stock(&stock.ao_abort, "libxl_ao_abort");
    find_stock(&stock.ctx_free, "libxl_ctx_free");
}

static void need_stock(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, find_all_stock);
}

/* ---- our events ---- */

libxl__op_event *libxl__op_event_new(libxl__gc *gc, libxl_ctx *ctx, uint32_t domid,
                                     libxl_ev_user for_user)
{
    libxl__op_event *oe;
    bool ok;

    pthread_mutex_lock(&lock);
    ok = events_made < MAX_EVENTS;
    events_made += ok;
    pthread_mutex_unlock(&lock);
    if (!ok) {
        LOG(gc, ERROR, "domain %u: %d events wait for libxl_event_check already", domid,
            MAX_EVENTS);
        return NULL;
    }
    oe = libxl__realloc_array(NULL, 1, sizeof(*oe));
    *oe = (libxl__op_event){.ctx = ctx};
    oe->event = libxl__realloc_array(NULL, 1, sizeof(*oe->event));
    libxl_event_init(oe->event);
    libxl_event_init_type(oe->event, LIBXL_EVENT_TYPE_OPERATION_COMPLETE);
    oe->event->domid = domid;
    oe->event->for_user = for_user;
    return oe;
}

/* The libxl_event itself, if still there, is freed too. */
static void free_locked(libxl__op_event *oe)
{
    free(oe->event);
    free(oe);
    events_made--;
}

void libxl__op_event_free(libxl__op_event *oe)
{
    if (!oe) return;
    pthread_mutex_lock(&lock);
    free_locked(oe);
    pthread_mutex_unlock(&lock);
}

/* Leaves the event in place of the caller's; the rest is freed. */
static libxl_event *take_locked(libxl__op_event *oe)
{
    libxl_event *event = oe->event;

    oe->event = NULL;
    free_locked(oe);
    return event;
}

static void wake_locked(libxl_ctx *ctx)
{
    uint64_t one = 1;

    for (const struct waiter *w = waiters; w; w = w->next) {
        if (w->ctx != ctx) continue;
        /* A full counter (EAGAIN) wakes as well. */
        if (write(w->wake_fd, &one, sizeof(one)) < 0) assert(errno == EAGAIN);
    }
}

static struct hooked *find_hooked_locked(libxl_ctx *ctx)
{
    struct hooked *h = hooked;

    while (h && h->ctx != ctx)
        h = h->next;
    return h;
}

void libxl__op_event_occurred(libxl__op_event *oe, int rc)
{
    const uint64_t mask = (uint64_t)1 << LIBXL_EVENT_TYPE_OPERATION_COMPLETE;
    const libxl_event_hooks *hooks = NULL;
    libxl__op_event **end = &happened;
    libxl_event *event = oe->event;
    struct hooked *h;
    void *user = NULL;

    event->u.operation_complete.rc = rc;
    pthread_mutex_lock(&lock);
    h = find_hooked_locked(oe->ctx);
    if (h && h->hooks && h->hooks->event_occurs_mask & mask) {
        hooks = h->hooks;
        user = h->user;
        take_locked(oe);
    } else {
        while (*end)
            end = &(*end)->next;
        *end = oe;
        wake_locked(oe->ctx);
    }
    pthread_mutex_unlock(&lock);
    /* Outside the lock: the hook may call anything. */
    if (hooks) hooks->event_occurs(user, event);
}

static libxl_event *fetch_ours(libxl_ctx *ctx, uint64_t typemask, libxl_event_predicate *predicate,
                               void *user)
{
    libxl__op_event **link = &happened;
    libxl_event *event = NULL;

    pthread_mutex_lock(&lock);
    for (; *link; link = &(*link)->next) {
        libxl__op_event *oe = *link;

        if (oe->ctx != ctx || !(typemask >> oe->event->type & 1)) continue;
        if (predicate && !predicate(oe->event, user)) continue;
        *link = oe->next;
        event = take_locked(oe);
        break;
    }
    pthread_mutex_unlock(&lock);
    return event;
}

/* ---- waiting ---- */

static int waiter_enter(struct waiter *w, libxl_ctx *ctx)
{
    struct waiter **end = &waiters;

    *w = (struct waiter){.ctx = ctx, .wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (w->wake_fd < 0) return ERROR_FAIL;
    w->room = 1;
    w->polls = libxl__realloc_array(NULL, w->room, sizeof(*w->polls));
    pthread_mutex_lock(&lock);
    while (*end)
        end = &(*end)->next;
    *end = w;
    pthread_mutex_unlock(&lock);
    return 0;
}

static void waiter_leave(struct waiter *w)
{
    struct waiter **link = &waiters;

    pthread_mutex_lock(&lock);
    while (*link != w)
        link = &(*link)->next;
    *link = w->next;
    /* One of the others may have to take over the polling. */
    wake_locked(w->ctx);
    pthread_mutex_unlock(&lock);
    close(w->wake_fd);
    free(w->polls);
}

static bool is_first(const struct waiter *w)
{
    const struct waiter *first;

    pthread_mutex_lock(&lock);
    first = waiters;
    while (first->ctx != w->ctx)
        first = first->next;
    pthread_mutex_unlock(&lock);
    return first == w;
}

/* Fills polls with stock's files; returns how many, or an ERROR_*. */
static int stock_files(struct waiter *w, int *timeout_ms)
{
    struct timeval now;
    int n, rc;

    for (;;) {
        n = w->room - 1;
        gettimeofday(&now, NULL);
        rc = stock.beforepoll(w->ctx, &n, w->polls, timeout_ms, now);
        if (rc != ERROR_BUFFERFULL) return rc ? rc : n;
        if (n < w->room) return ERROR_FAIL;
        w->room = n + 1;
        w->polls = libxl__realloc_array(w->polls, w->room, sizeof(*w->polls));
    }
}

/* Waits until something may have happened; the first of the waiters lets stock libxl do its work. */
static int wait_once(struct waiter *w)
{
    bool first = is_first(w);
    int timeout_ms = LOOK_AGAIN_MS;
    struct timeval now;
    uint64_t woken;
    int n, r;

    n = first ? stock_files(w, &timeout_ms) : 0;
    if (n < 0) return n;
    w->polls[n] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
    r = poll(w->polls, n + 1, timeout_ms);
    if (r < 0 && errno != EINTR) return ERROR_FAIL;
    for (int i = 0; r < 0 && i <= n; i++)
        w->polls[i].revents = 0;
    if (w->polls[n].revents && read(w->wake_fd, &woken, sizeof(woken)) < 0) assert(errno == EAGAIN);
    if (!first) return 0;

    gettimeofday(&now, NULL);
    stock.afterpoll(w->ctx, n, w->polls, now);
    if (r > (w->polls[n].revents ? 1 : 0)) {
        pthread_mutex_lock(&lock);
        wake_locked(w->ctx);
        pthread_mutex_unlock(&lock);
    }
    return 0;
}

/* ---- what the application calls ---- */

LIBXL_REPLICATION_EXPORT
int libxl_event_check(libxl_ctx *ctx, libxl_event **event_r, uint64_t typemask,
                      libxl_event_predicate *predicate, void *predicate_user)
{
    libxl_event *event = fetch_ours(ctx, typemask, predicate, predicate_user);

    if (event) {
        *event_r = event;
        return 0;
    }
    need_stock();
    return stock.event_check(ctx, event_r, typemask, predicate, predicate_user);
}

LIBXL_REPLICATION_EXPORT
int libxl_event_wait(libxl_ctx *ctx, libxl_event **event_r, uint64_t typemask,
                     libxl_event_predicate *predicate, void *predicate_user)
{
    struct waiter w;
    int rc;

    need_stock();
    rc = waiter_enter(&w, ctx);
    if (rc) return rc;
    do {
        rc = libxl_event_check(ctx, event_r, typemask, predicate, predicate_user);
        if (rc != ERROR_NOT_READY) goto out;
        rc = wait_once(&w);
    } while (!rc);
out:
    waiter_leave(&w);
    return rc;
}

LIBXL_REPLICATION_EXPORT
void libxl_event_register_callbacks(libxl_ctx *ctx, const libxl_event_hooks *hooks, void *user)
{
    struct hooked *h;

    need_stock();
    pthread_mutex_lock(&lock);
    h = find_hooked_locked(ctx);
    if (!h) {
        h = libxl__realloc_array(NULL, 1, sizeof(*h));
        *h = (struct hooked){.ctx = ctx, .next = hooked};
        hooked = h;
    }
    h->hooks = hooks;
    h->user = user;
    pthread_mutex_unlock(&lock);
    stock.register_callbacks(ctx, hooks, user);
}

LIBXL_REPLICATION_EXPORT
int libxl_ao_abort(libxl_ctx *ctx, const libxl_asyncop_how *how)
{
    int rc = libxl__ao_abort_how(ctx, how);

    if (rc != ERROR_NOTFOUND) return rc;
    need_stock();
    return stock.ao_abort(ctx, how);
}

/* A ctx made later may have the same address: nothing of this one may be left. */
static void forget_ctx(libxl_ctx *ctx)
{
    libxl__op_event **event_link = &happened;
    struct hooked **link = &hooked;

    pthread_mutex_lock(&lock);
    while (*event_link) {
        libxl__op_event *oe = *event_link;

        if (oe->ctx != ctx) {
            event_link = &oe->next;
            continue;
        }
        *event_link = oe->next;
        free_locked(oe);
    }
    while (*link && (*link)->ctx != ctx)
        link = &(*link)->next;
    if (*link) {
        struct hooked *h = *link;

        *link = h->next;
        free(h);
    }
    pthread_mutex_unlock(&lock);
}

LIBXL_REPLICATION_EXPORT
int libxl_ctx_free(libxl_ctx *ctx)
{
    need_stock();
    if (ctx) {
        assert(!libxl__ao_any_on_ctx(ctx));
        forget_ctx(ctx);
    }
    return stock.ctx_free(ctx);
}
