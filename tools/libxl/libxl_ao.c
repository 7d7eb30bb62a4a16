/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Operations. Only two things cross threads: the hand-over of the loop to the operation's thread, and the
 * request to abort, which is one write to the operation's eventfd.
 *
 * That eventfd is never read: it stays readable once somebody asked, and is polled only while an abortable is
 * registered. So an abort is not lost between two abortables, and does not wake an operation that cannot use it.
 */
#include "libxl_ao.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "libxl_ao_event.h"

#define MAX_OPERATIONS 256
#define LOOP_RETRY_MS 10
#define LOOP_RETRIES_MAX 1000

/*
 * Where a signal handler finds the running operations without a lock. Whoever wants to write to the eventfd
 * first counts itself in users; the eventfd is closed only after key was cleared and users has become 0.
 */
static struct slot {
    _Atomic uint64_t key; /* domid << 32 | eventfd + 1; 0: free */
    atomic_int users;
    atomic_bool asked;
} slots[MAX_OPERATIONS];

struct libxl__ao {
    libxl_ctx *ctx;
    uint32_t domid;
    bool async; /* how below is valid */
    libxl_asyncop_how how;
    libxl__op_event *event; /* async without callback */
    libxl__loop *loop;
    struct slot *slot;
    libxl__ao *next;

    int abort_fd;
    libxl__ev_fd abort_ev; /* registered while abrt is set */
    libxl__ao_abortable *abrt;

    bool threaded, go;
    pthread_t thread;
    sem_t start;

    bool complete;
    int rc;
};

/* Guards ops and the taking of slots. */
static pthread_mutex_t ops_lock = PTHREAD_MUTEX_INITIALIZER;
static libxl__ao *ops;

/* ---- the list of running operations ---- */

static int enlist(libxl__ao *ao)
{
    uint64_t key = (uint64_t)ao->domid << 32 | (uint32_t)(ao->abort_fd + 1);
    int rc = ERROR_FAIL;

    pthread_mutex_lock(&ops_lock);
    for (struct slot *s = slots; s < slots + MAX_OPERATIONS && rc; s++) {
        if (atomic_load(&s->key)) continue;
        atomic_store(&s->asked, false);
        atomic_store(&s->key, key);
        ao->slot = s;
        ao->next = ops;
        ops = ao;
        rc = 0;
    }
    pthread_mutex_unlock(&ops_lock);
    if (rc)
        LOG(libxl__ao_gc(ao), ERROR, "domain %u: %d operations are running already: end one first",
            ao->domid, MAX_OPERATIONS);
    return rc;
}

/* After this nobody writes to the eventfd any more. */
static void delist(libxl__ao *ao)
{
    libxl__ao **link = &ops;

    if (!ao->slot) return;
    pthread_mutex_lock(&ops_lock);
    while (*link != ao)
        link = &(*link)->next;
    *link = ao->next;
    atomic_store(&ao->slot->key, 0);
    while (atomic_load(&ao->slot->users))
        sched_yield();
    ao->slot = NULL;
    pthread_mutex_unlock(&ops_lock);
}

/* Async-signal-safe. True if the slot holds an operation for domid. */
static bool ask_slot(struct slot *s, uint32_t domid)
{
    uint64_t one = 1, key;
    bool found = false;

    atomic_fetch_add(&s->users, 1);
    key = atomic_load(&s->key);
    if (key && key >> 32 == domid) {
        found = true;
        atomic_store(&s->asked, true);
        /* A full counter (EAGAIN) means that it is readable, which is all that is wanted. */
        while (write((int)(uint32_t)key - 1, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
    }
    atomic_fetch_sub(&s->users, 1);
    return found;
}

int libxl__ao_abort_domid(uint32_t domid)
{
    int saved = errno;
    int rc = ERROR_NOTFOUND;

    for (struct slot *s = slots; s < slots + MAX_OPERATIONS; s++) {
        if (ask_slot(s, domid)) rc = 0;
    }
    errno = saved;
    return rc;
}

static bool same_how(const libxl__ao *ao, const libxl_asyncop_how *how)
{
    if (!how || !ao->async) return !how && !ao->async;
    if (how->callback != ao->how.callback) return false;
    return how->callback ? how->u.for_callback == ao->how.u.for_callback
                         : how->u.for_event == ao->how.u.for_event;
}

int libxl__ao_abort_how(libxl_ctx *ctx, const libxl_asyncop_how *how)
{
    int rc = ERROR_NOTFOUND;

    pthread_mutex_lock(&ops_lock);
    for (libxl__ao *ao = ops; ao; ao = ao->next) {
        if (ao->ctx != ctx || !same_how(ao, how)) continue;
        rc = atomic_load(&ao->slot->asked) ? ERROR_ABORTED : 0;
        if (!rc) ask_slot(ao->slot, ao->domid);
        break;
    }
    pthread_mutex_unlock(&ops_lock);
    return rc;
}

bool libxl__ao_any_on_ctx(libxl_ctx *ctx)
{
    bool any = false;

    pthread_mutex_lock(&ops_lock);
    for (libxl__ao *ao = ops; ao && !any; ao = ao->next)
        any = ao->ctx == ctx;
    pthread_mutex_unlock(&ops_lock);
    return any;
}

/* ---- life ---- */

static void free_ao(libxl__ao *ao)
{
    assert(!ao->abrt);
    delist(ao);
    if (ao->abort_fd >= 0) close(ao->abort_fd);
    libxl__op_event_free(ao->event);
    libxl__loop_free(ao->loop);
    sem_destroy(&ao->start);
    free(ao);
}

/* Frees the ao first, so that the application sees nothing left behind when it hears of the end. */
static void deliver(libxl__ao *ao)
{
    libxl_asyncop_how how = ao->how;
    libxl__op_event *event = ao->event;
    libxl_ctx *ctx = ao->ctx;
    int rc = ao->rc;

    ao->event = NULL;
    free_ao(ao);
    if (event)
        libxl__op_event_occurred(event, rc);
    else
        how.callback(ctx, rc, how.u.for_callback);
}

/*
 * A loop whose poll fails for good can run nothing, not even the undo: then the end of this process lets those act
 * that watch it.
 */
static void run_to_completion(libxl__ao *ao)
{
    const struct timespec pause = {.tv_nsec = LOOP_RETRY_MS * 1000000};
    int failures = 0;

    while (!ao->complete) {
        failures = libxl__loop_run(ao->loop, &ao->complete) ? failures + 1 : 0;
        if (failures > LOOP_RETRIES_MAX) {
            LOG(libxl__ao_gc(ao), CRITICAL, "domain %u: the event loop cannot go on", ao->domid);
            abort();
        }
        if (failures) nanosleep(&pause, NULL);
    }
}

static void *operation_thread(void *arg)
{
    libxl__ao *ao = arg;

    while (sem_wait(&ao->start) < 0)
        assert(errno == EINTR);
    if (!ao->go) return NULL;
    pthread_detach(pthread_self());
    run_to_completion(ao);
    deliver(ao);
    return NULL;
}

/* The thread exists before the operation begins: afterwards it could not fail without undoing what was begun. */
static int make_thread(libxl__ao *ao)
{
    sigset_t all, before;
    int r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&ao->thread, NULL, operation_thread, ao);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r) {
        LOGEV(libxl__ao_gc(ao), ERROR, r, "domain %u: cannot make a thread", ao->domid);
        return ERROR_FAIL;
    }
    ao->threaded = true;
    return 0;
}

libxl__ao *libxl__ao_create(libxl_ctx *ctx, xentoollog_logger *lg, uint32_t domid,
                            const libxl_asyncop_how *how)
{
    libxl__ao *ao = libxl__realloc_array(NULL, 1, sizeof(*ao));
    int rc;

    *ao = (libxl__ao){.ctx = ctx, .domid = domid, .async = how, .abort_fd = -1};
    if (how) ao->how = *how;
    libxl__ev_fd_init(&ao->abort_ev);
    sem_init(&ao->start, 0, 0);
    rc = libxl__loop_new(&ao->loop, lg, NULL);
    if (rc) goto out;

    ao->abort_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ao->abort_fd < 0) {
        LOGE(libxl__ao_gc(ao), ERROR, "domain %u: cannot make an eventfd", domid);
        goto out;
    }
    if (how && !how->callback) {
        ao->event = libxl__op_event_new(libxl__ao_gc(ao), ctx, domid, how->u.for_event);
        if (!ao->event) goto out;
    }
    rc = enlist(ao);
    if (rc) goto out;
    if (how) {
        rc = make_thread(ao);
        if (rc) goto out;
    }
    return ao;

out:
    free_ao(ao);
    return NULL;
}

int libxl__ao_create_fail(libxl__ao *ao, int rc)
{
    assert(rc && !ao->complete);
    if (ao->threaded) {
        sem_post(&ao->start);
        pthread_join(ao->thread, NULL);
    }
    free_ao(ao);
    return rc;
}

int libxl__ao_inprogress(libxl__ao *ao)
{
    int rc;

    if (ao->threaded) {
        ao->go = true;
        sem_post(&ao->start);
        return 0;
    }
    run_to_completion(ao);
    rc = ao->rc;
    free_ao(ao);
    return rc;
}

void libxl__ao_complete(libxl__egc *egc, libxl__ao *ao, int rc)
{
    assert(!ao->complete && !ao->abrt);
    ao->rc = rc;
    ao->complete = true;
}

libxl__loop *libxl__ao_loop(libxl__ao *ao)
{
    return ao->loop;
}

libxl__gc *libxl__ao_gc(libxl__ao *ao)
{
    return libxl__loop_gc(ao->loop);
}

libxl_ctx *libxl__ao_ctx(libxl__ao *ao)
{
    return ao->ctx;
}

uint32_t libxl__ao_domid(libxl__ao *ao)
{
    return ao->domid;
}

/* ---- abort, on the operation's thread ---- */

void libxl__ao_abortable_init(libxl__ao_abortable *abrt)
{
    *abrt = (libxl__ao_abortable){0};
}

static void abort_asked(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__ao *ao = CONTAINER_OF(ev, libxl__ao, abort_ev);
    libxl__ao_abortable *abrt = ao->abrt;
    libxl__ao_abortable_callback *callback = abrt->callback;

    libxl__ao_abortable_deregister(abrt);
    LOG(libxl__ao_gc(ao), DEBUG, "domain %u: abort asked", ao->domid);
    callback(egc, abrt, ERROR_ABORTED);
}

int libxl__ao_abortable_register(libxl__ao *ao, libxl__ao_abortable *abrt,
                                 libxl__ao_abortable_callback *cb)
{
    int rc;

    assert(!ao->abrt && !abrt->registered && cb);
    rc = libxl__ev_fd_register(ao->loop, &ao->abort_ev, abort_asked, ao->abort_fd, POLLIN);
    if (rc) return rc;
    *abrt = (libxl__ao_abortable){.registered = true, .callback = cb, .ao = ao};
    ao->abrt = abrt;
    return 0;
}

void libxl__ao_abortable_deregister(libxl__ao_abortable *abrt)
{
    libxl__ao *ao = abrt->ao;

    if (!abrt->registered) return;
    assert(ao->abrt == abrt);
    libxl__ev_fd_deregister(ao->loop, &ao->abort_ev);
    ao->abrt = NULL;
    libxl__ao_abortable_init(abrt);
}
