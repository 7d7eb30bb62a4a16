/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * An operation with a child and a timer while the n-th system call under it fails, for every n, with each kind of
 * completion, with and without an abort.
 *
 * Demanded each time: the operation is refused at its creation or completes exactly once; no file, no child
 * and no trace in the list of operations is left.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <libxl_event.h>

#include "../unit/fake_xenlight.h"
#include "fault_calls.h"
#include "libxl_ao.h"

#define DOMID 3

/* ---- the calls that fail ---- */

WRAP(int, poll, ENOMEM, (struct pollfd * fds, nfds_t n, int timeout_ms), (fds, n, timeout_ms))
WRAP(int, eventfd, EMFILE, (unsigned value, int flags), (value, flags))
WRAP(int, pipe2, EMFILE, (int fds[2], int flags), (fds, flags))
WRAP(pid_t, fork, EAGAIN, (void), ())
WRAP(int, pidfd_open, EMFILE, (pid_t pid, unsigned flags), (pid, flags))

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
    return fails(EAGAIN) ? EAGAIN : __real_pthread_create(t, a, f, arg);
}

/* As if another thread had reaped our child a moment before. */
int __real_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    int r = __real_waitid(type, id, info, options);

    return fails(ECHILD) ? -1 : r;
}

/* ---- the operation ---- */

enum how { RETURNS, CALLS_BACK, MAKES_EVENT };

struct operation {
    libxl__ao *ao;
    libxl__ev_child child;
    libxl__ev_time timer;
    libxl__ao_abortable abrt;
    int rc;
};

static void settle(libxl__egc *egc, struct operation *op)
{
    if (libxl__ev_child_inuse(&op->child) || op->timer.registered) return;
    libxl__ao_abortable_deregister(&op->abrt);
    libxl__ao_complete(egc, op->ao, op->rc);
}

static void child_ended(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    struct operation *op = CONTAINER_OF(ev, struct operation, child);

    if (!op->rc && (!WIFEXITED(status) || WEXITSTATUS(status) != 3)) op->rc = ERROR_FAIL;
    settle(egc, op);
}

static void timer_fired(libxl__egc *egc, libxl__ev_time *ev)
{
    settle(egc, CONTAINER_OF(ev, struct operation, timer));
}

static void aborted(libxl__egc *egc, libxl__ao_abortable *abrt, int rc)
{
    struct operation *op = CONTAINER_OF(abrt, struct operation, abrt);

    op->rc = rc;
    libxl__ev_time_deregister(egc->loop, &op->timer);
    settle(egc, op);
}

static int begin(libxl_ctx *ctx, const libxl_asyncop_how *how)
{
    libxl__ao *ao = libxl__ao_create(ctx, NULL, DOMID, how);
    struct operation *op;
    pid_t pid;
    int rc;

    if (!ao) return ERROR_NOMEM;
    op = libxl__zalloc(libxl__ao_gc(ao), sizeof(*op));
    op->ao = ao;
    libxl__ev_child_init(&op->child);
    libxl__ev_time_init(&op->timer);
    libxl__ao_abortable_init(&op->abrt);
    pid = libxl__ev_child_fork(libxl__ao_loop(ao), &op->child, child_ended);
    if (!pid) _exit(3);
    if (pid < 0) return libxl__ao_create_fail(ao, ERROR_NI);
    rc = libxl__ao_abortable_register(ao, &op->abrt, aborted);
    assert_int_equal(rc, 0);
    rc = libxl__ev_time_register_rel(libxl__ao_loop(ao), &op->timer, timer_fired, 2);
    assert_int_equal(rc, 0);
    return libxl__ao_inprogress(ao);
}

/* ---- the judge ---- */

static struct fake_ctx fake;
static libxl_ctx *ctx = (libxl_ctx *)&fake;
static sem_t called_back;
static int completions, result;

static void called(libxl_ctx *from, int rc, void *user)
{
    completions++;
    result = rc;
    sem_post(&called_back);
}

/* libxl_event_wait may be the one whose call failed: then it says so, and the event is still to come. */
static void fetch_event(void)
{
    libxl_event *event;
    int rc, failures = 0;

    while ((rc = libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL))) {
        assert_int_equal(rc, ERROR_FAIL);
        assert_int_equal(failures++, 0);
    }
    completions++;
    result = event->u.operation_complete.rc;
    libxl_event_free(ctx, event);
    assert_int_equal(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL),
                     ERROR_NOT_READY);
}

static void await_completion(enum how how, int started)
{
    if (how == RETURNS) {
        completions++;
        result = started;
    } else if (started) {
        return;
    } else if (how == CALLS_BACK) {
        sem_wait(&called_back);
    } else {
        fetch_event();
    }
}

/* True if the n-th call came to pass. */
static bool run(enum how how, bool abort_it, int n)
{
    libxl_asyncop_how hows[] = {
        [CALLS_BACK] = {.callback = called}, [MAKES_EVENT] = {.u.for_event = 9}};
    int files = open_files(), started;

    completions = result = 0;
    atomic_store(calls, 0);
    atomic_store(&fail_at, n);
    started = begin(ctx, how == RETURNS ? NULL : &hows[how]);
    if (abort_it) libxl__ao_abort_domid(DOMID);
    await_completion(how, started);
    atomic_store(&fail_at, 0);

    if (completions != (how == RETURNS || !started))
        fail_msg("how %d, n = %d: %d completions", how, n, completions);
    if (started && how != RETURNS) assert_true(started == ERROR_NOMEM || started == ERROR_NI);
    assert_true(!result || result == ERROR_FAIL || result == ERROR_ABORTED ||
                result == ERROR_NOMEM || result == ERROR_NI);
    assert_int_equal(libxl__ao_abort_domid(DOMID), ERROR_NOTFOUND);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    if (open_files() != files) fail_msg("how %d, n = %d: files left open", how, n);
    return atomic_load(calls) >= n;
}

static void all(enum how how, bool abort_it)
{
    int n = 1;

    while (run(how, abort_it, n))
        assert_true(n++ < 100);
    assert_true(n > 4);
}

static void t_operation_each_call_fails_returns_once(void **state)
{
    all(RETURNS, false);
}

static void t_operation_each_call_fails_calls_back_once(void **state)
{
    all(CALLS_BACK, false);
    all(CALLS_BACK, true);
}

static void t_operation_each_call_fails_makes_one_event(void **state)
{
    all(MAKES_EVENT, false);
    all(MAKES_EVENT, true);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_operation_each_call_fails_returns_once),
        cmocka_unit_test(t_operation_each_call_fails_calls_back_once),
        cmocka_unit_test(t_operation_each_call_fails_makes_one_event),
    };
    int r;

    sem_init(&called_back, 0, 0);
    fake_ctx_init(&fake);
    alarm(60);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    fake_ctx_dispose(&fake);
    return r;
}
