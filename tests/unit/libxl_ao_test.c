/* SPDX-License-Identifier: LGPL-2.1-only */
/* Operations that only wait: for a timer, or for an abort. Behind them stands a fake libxenlight. */
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <libxl_event.h>

#include "fake_xenlight.h"
#include "libxl_ao.h"

#define DOMID 7
#define FOR_EVER -1

static struct fake_ctx fake;
static libxl_ctx *ctx = (libxl_ctx *)&fake;

static struct {
    int calls, rc;
    void *user;
    pthread_t thread;
    sem_t done;
} completed;

static int open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static int files_before;

static int setup(void **state)
{
    files_before = open_files();
    fake_ctx_init(&fake);
    memset(&completed, 0, sizeof(completed));
    return sem_init(&completed.done, 0, 0);
}

static int teardown(void **state)
{
    libxl_ctx_free(ctx);
    fake_ctx_dispose(&fake);
    sem_destroy(&completed.done);
    return open_files() != files_before;
}

/* ---- the operation ---- */

struct operation {
    libxl__ao *ao;
    libxl__ev_time timer;
    libxl__ao_abortable abrt;
    int rc;
    int wait_after_abort_ms;
};

static void finish(libxl__egc *egc, struct operation *op, int rc)
{
    libxl__ev_time_deregister(egc->loop, &op->timer);
    libxl__ao_abortable_deregister(&op->abrt);
    libxl__ao_complete(egc, op->ao, rc);
}

static void timer_fired(libxl__egc *egc, libxl__ev_time *ev)
{
    struct operation *op = CONTAINER_OF(ev, struct operation, timer);

    finish(egc, op, op->rc);
}

static void aborted(libxl__egc *egc, libxl__ao_abortable *abrt, int rc)
{
    struct operation *op = CONTAINER_OF(abrt, struct operation, abrt);

    assert_int_equal(rc, ERROR_ABORTED);
    assert_false(abrt->registered);
    if (!op->wait_after_abort_ms) {
        finish(egc, op, rc);
        return;
    }
    op->rc = rc;
    libxl__ev_time_deregister(egc->loop, &op->timer);
    assert_int_equal(
        libxl__ev_time_register_rel(egc->loop, &op->timer, timer_fired, op->wait_after_abort_ms),
        0);
}

static struct operation *begin(uint32_t domid, const libxl_asyncop_how *how, int ms, int rc)
{
    libxl__ao *ao = libxl__ao_create(ctx, NULL, domid, how);
    struct operation *op;

    assert_non_null(ao);
    assert_ptr_equal(libxl__ao_ctx(ao), ctx);
    assert_int_equal(libxl__ao_domid(ao), domid);
    op = libxl__zalloc(libxl__ao_gc(ao), sizeof(*op));
    op->ao = ao;
    op->rc = rc;
    libxl__ev_time_init(&op->timer);
    libxl__ao_abortable_init(&op->abrt);
    if (ms >= 0) libxl__ev_time_register_rel(libxl__ao_loop(ao), &op->timer, timer_fired, ms);
    assert_int_equal(libxl__ao_abortable_register(ao, &op->abrt, aborted), 0);
    return op;
}

static int run(uint32_t domid, const libxl_asyncop_how *how, int ms, int rc)
{
    return libxl__ao_inprogress(begin(domid, how, ms, rc)->ao);
}

static void done(libxl_ctx *from, int rc, void *user)
{
    assert_ptr_equal(from, ctx);
    completed.calls++;
    completed.rc = rc;
    completed.user = user;
    completed.thread = pthread_self();
    sem_post(&completed.done);
}

static libxl_asyncop_how call_done(void *user)
{
    return (libxl_asyncop_how){.callback = done, .u.for_callback = user};
}

static libxl_asyncop_how make_event(libxl_ev_user user)
{
    return (libxl_asyncop_how){.u.for_event = user};
}

static libxl_event *wait_event(void)
{
    libxl_event *event;

    assert_int_equal(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL), 0);
    return event;
}

static void expect_complete(libxl_event *event, libxl_ev_user user, int rc)
{
    assert_int_equal(event->type, LIBXL_EVENT_TYPE_OPERATION_COMPLETE);
    assert_int_equal(event->for_user, user);
    assert_int_equal(event->domid, DOMID);
    assert_int_equal(event->u.operation_complete.rc, rc);
    libxl_event_free(ctx, event);
}

/* ---- how ---- */

static void t_how_null_returns_result(void **state)
{
    assert_int_equal(run(DOMID, NULL, 1, 0), 0);
    assert_int_equal(run(DOMID, NULL, 0, ERROR_NOT_READY), ERROR_NOT_READY);
}

static void t_how_callback_called_once_from_other_thread(void **state)
{
    libxl_asyncop_how how = call_done(&completed);

    assert_int_equal(run(DOMID, &how, 1, ERROR_NI), 0);
    memset(&how, 0xff, sizeof(how));
    sem_wait(&completed.done);
    assert_int_equal(completed.calls, 1);
    assert_int_equal(completed.rc, ERROR_NI);
    assert_ptr_equal(completed.user, &completed);
    assert_false(pthread_equal(completed.thread, pthread_self()));
    assert_int_equal(libxl__ao_abort_domid(DOMID), ERROR_NOTFOUND);
}

static void t_how_event_wakes_wait(void **state)
{
    libxl_asyncop_how how = make_event(1234);

    assert_int_equal(run(DOMID, &how, 20, ERROR_NI), 0);
    expect_complete(wait_event(), 1234, ERROR_NI);
}

static void t_how_event_is_fetched_by_check_once(void **state)
{
    libxl_asyncop_how how = make_event(5);
    libxl_event *event;
    int rc;

    assert_int_equal(run(DOMID, &how, 0, 0), 0);
    do {
        rc = libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL);
        sched_yield();
    } while (rc == ERROR_NOT_READY);
    assert_int_equal(rc, 0);
    expect_complete(event, 5, 0);
    assert_int_equal(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL),
                     ERROR_NOT_READY);
}

static int wants_user(const libxl_event *event, void *user)
{
    return event->for_user == *(libxl_ev_user *)user;
}

static void t_events_predicate_and_mask_choose(void **state)
{
    const uint64_t shutdown = (uint64_t)1 << LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN;
    libxl_asyncop_how one = make_event(1), two = make_event(2);
    libxl_ev_user wanted = 2;
    libxl_event *event;

    assert_int_equal(run(DOMID, &one, 0, 0), 0);
    assert_int_equal(run(DOMID, &two, 10, 0), 0);
    assert_int_equal(libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, wants_user, &wanted), 0);
    expect_complete(event, 2, 0);
    assert_int_equal(libxl_event_check(ctx, &event, shutdown, NULL, NULL), ERROR_NOT_READY);
    expect_complete(wait_event(), 1, 0);
}

static int notes_only(const libxl_event *event, void *seen)
{
    *(bool *)seen = true;
    return 0;
}

/* Returns when an event waits to be fetched. */
static void until_event_waits(void)
{
    libxl_event *event;
    bool seen = false;

    while (!seen) {
        assert_int_equal(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, notes_only, &seen),
                         ERROR_NOT_READY);
        sched_yield();
    }
}

static void t_events_of_another_ctx_are_not_ours(void **state)
{
    libxl_asyncop_how how = make_event(1);
    struct fake_ctx other;
    libxl_event *event;

    fake_ctx_init(&other);
    assert_int_equal(run(DOMID, &how, 0, 0), 0);
    until_event_waits();
    assert_int_equal(
        libxl_event_check((libxl_ctx *)&other, &event, LIBXL_EVENTMASK_ALL, NULL, NULL),
        ERROR_NOT_READY);
    libxl_ctx_free((libxl_ctx *)&other);
    fake_ctx_dispose(&other);
    expect_complete(wait_event(), 1, 0);
}

static void t_wait_stock_event_wakes(void **state)
{
    libxl_event *event;

    assert_int_equal(write(fake.source[1], "x", 1), 1);
    event = wait_event();
    assert_int_equal(event->type, LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN);
    assert_true(fake.polled > 0);
    libxl_event_free(ctx, event);
}

static void *wait_for_user(void *wanted)
{
    libxl_event *event = NULL;
    int rc = libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, wants_user, wanted);

    return rc ? NULL : event;
}

static void t_wait_two_threads_each_gets_its_own(void **state)
{
    libxl_ev_user users[2] = {1, 2};
    libxl_asyncop_how how[2] = {make_event(1), make_event(2)};
    pthread_t thread[2];
    void *event;

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, wait_for_user, &users[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(run(DOMID, &how[i], 10 * i, 0), 0);
    for (int i = 0; i < 2; i++) {
        pthread_join(thread[i], &event);
        assert_non_null(event);
        expect_complete(event, users[i], 0);
    }
}

static void hook_got(void *user, libxl_event *event)
{
    done(ctx, event->u.operation_complete.rc, user);
    libxl_event_free(ctx, event);
}

static void t_event_hook_registered_gets_it(void **state)
{
    static const libxl_event_hooks hooks = {.event_occurs_mask = LIBXL_EVENTMASK_ALL,
                                            .event_occurs = hook_got};
    libxl_asyncop_how how = make_event(1);
    libxl_event *event;

    libxl_event_register_callbacks(ctx, &hooks, &fake);
    assert_ptr_equal(fake.hooks, &hooks);
    assert_ptr_equal(fake.hooks_user, &fake);
    assert_int_equal(run(DOMID, &how, 0, ERROR_NI), 0);
    sem_wait(&completed.done);
    assert_int_equal(completed.calls, 1);
    assert_int_equal(completed.rc, ERROR_NI);
    assert_ptr_equal(completed.user, &fake);
    assert_int_equal(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL),
                     ERROR_NOT_READY);
}

static void t_event_hook_other_mask_leaves_it_to_check(void **state)
{
    static const libxl_event_hooks hooks = {.event_occurs_mask = (uint64_t)1
                                                                 << LIBXL_EVENT_TYPE_DOMAIN_DEATH,
                                            .event_occurs = hook_got};
    libxl_asyncop_how how = make_event(8);

    libxl_event_register_callbacks(ctx, &hooks, NULL);
    assert_int_equal(run(DOMID, &how, 0, 0), 0);
    expect_complete(wait_event(), 8, 0);
    assert_int_equal(completed.calls, 0);
}

static void t_event_not_fetched_is_freed_with_ctx(void **state)
{
    libxl_asyncop_how how = make_event(1);
    libxl_event *event;

    assert_int_equal(run(DOMID, &how, 0, 0), 0);
    until_event_waits();
    assert_int_equal(libxl_ctx_free(ctx), 0);
    assert_int_equal(fake.freed, 1);
    assert_int_equal(libxl_event_check(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL),
                     ERROR_NOT_READY);
}

/* ---- abort ---- */

static void t_abort_before_inprogress_aborts(void **state)
{
    struct operation *op = begin(DOMID, NULL, FOR_EVER, 0);

    assert_int_equal(libxl__ao_abort_domid(DOMID), 0);
    assert_int_equal(libxl__ao_inprogress(op->ao), ERROR_ABORTED);
}

static void t_abort_during_callback_op_completes_once(void **state)
{
    libxl_asyncop_how how = call_done(&fake);
    libxl_asyncop_how other = call_done(&completed);

    assert_int_equal(run(DOMID, &how, FOR_EVER, 0), 0);
    assert_int_equal(libxl_ao_abort(ctx, &other), ERROR_NOTFOUND);
    assert_int_equal(libxl_ao_abort(ctx, NULL), ERROR_NOTFOUND);
    assert_int_equal(fake.aborted, 2);
    assert_int_equal(libxl__ao_abort_domid(DOMID + 1), ERROR_NOTFOUND);
    assert_int_equal(libxl_ao_abort(ctx, &how), 0);
    sem_wait(&completed.done);
    assert_int_equal(completed.rc, ERROR_ABORTED);
    assert_int_equal(completed.calls, 1);
    assert_int_equal(libxl_ao_abort(ctx, &how), ERROR_NOTFOUND);
    assert_int_equal(fake.aborted, 3);
}

static void t_abort_twice_says_so(void **state)
{
    libxl_asyncop_how how = make_event(3);
    struct operation *op = begin(DOMID, &how, FOR_EVER, 0);

    op->wait_after_abort_ms = 30;
    assert_int_equal(libxl__ao_inprogress(op->ao), 0);
    assert_int_equal(libxl_ao_abort(ctx, &how), 0);
    assert_int_equal(libxl_ao_abort(ctx, &how), ERROR_ABORTED);
    assert_int_equal(libxl__ao_abort_domid(DOMID), 0);
    expect_complete(wait_event(), 3, ERROR_ABORTED);
}

static void t_abort_after_completion_is_not_found(void **state)
{
    assert_int_equal(run(DOMID, NULL, 0, 0), 0);
    assert_int_equal(libxl__ao_abort_domid(DOMID), ERROR_NOTFOUND);
    assert_int_equal(libxl_ao_abort(ctx, NULL), ERROR_NOTFOUND);
}

static void interrupted(int sig)
{
    if (libxl__ao_abort_domid(DOMID)) _exit(99);
}

static void t_abort_in_signal_handler_ends_synchronous_op(void **state)
{
    struct sigaction sa = {.sa_handler = interrupted}, old;
    struct itimerval soon = {.it_value.tv_usec = 20000};

    sigaction(SIGALRM, &sa, &old);
    setitimer(ITIMER_REAL, &soon, NULL);
    assert_int_equal(run(DOMID, NULL, FOR_EVER, 0), ERROR_ABORTED);
    sigaction(SIGALRM, &old, NULL);
}

struct late {
    struct operation *op;
    libxl__ev_time timer;
};

static void register_late(libxl__egc *egc, libxl__ev_time *ev)
{
    struct late *late = CONTAINER_OF(ev, struct late, timer);

    assert_int_equal(libxl__ao_abortable_register(late->op->ao, &late->op->abrt, aborted), 0);
}

static void t_abort_without_abortable_waits_for_the_next(void **state)
{
    struct late late = {.op = begin(DOMID, NULL, FOR_EVER, 0)};

    libxl__ao_abortable_deregister(&late.op->abrt);
    assert_int_equal(libxl__ao_abort_domid(DOMID), 0);
    libxl__ev_time_init(&late.timer);
    libxl__ev_time_register_rel(libxl__ao_loop(late.op->ao), &late.timer, register_late, 5);
    assert_int_equal(libxl__ao_inprogress(late.op->ao), ERROR_ABORTED);
}

static void *abort_many(void *until)
{
    while (!__atomic_load_n((bool *)until, __ATOMIC_SEQ_CST))
        libxl__ao_abort_domid(DOMID);
    return NULL;
}

static void t_abort_races_with_completion_each_completes_once(void **state)
{
    libxl_asyncop_how how = call_done(NULL);
    bool stop = false;
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, abort_many, &stop), 0);
    for (int i = 1; i <= 200; i++) {
        assert_int_equal(run(DOMID, &how, i % 2, 0), 0);
        sem_wait(&completed.done);
        assert_int_equal(completed.calls, i);
        assert_true(!completed.rc || completed.rc == ERROR_ABORTED);
    }
    __atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
    pthread_join(thread, NULL);
}

/* ---- begin and end ---- */

static void t_create_fail_frees_with_and_without_thread(void **state)
{
    libxl_asyncop_how how = make_event(1);

    assert_int_equal(libxl__ao_create_fail(libxl__ao_create(ctx, NULL, DOMID, NULL), ERROR_INVAL),
                     ERROR_INVAL);
    assert_int_equal(libxl__ao_create_fail(libxl__ao_create(ctx, NULL, DOMID, &how), ERROR_INVAL),
                     ERROR_INVAL);
    assert_int_equal(libxl__ao_abort_domid(DOMID), ERROR_NOTFOUND);
}

static void t_complete_before_inprogress_is_delivered(void **state)
{
    libxl_asyncop_how how = call_done(NULL);
    struct operation *op = begin(DOMID, &how, FOR_EVER, 0);
    libxl__egc egc = {.loop = libxl__ao_loop(op->ao)};

    finish(&egc, op, ERROR_NI);
    assert_int_equal(completed.calls, 0);
    assert_int_equal(libxl__ao_inprogress(op->ao), 0);
    sem_wait(&completed.done);
    assert_int_equal(completed.rc, ERROR_NI);
}

static void t_complete_twice_is_our_bug(void **state)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        struct operation *op = begin(DOMID, NULL, FOR_EVER, 0);
        libxl__egc egc = {.loop = libxl__ao_loop(op->ao)};

        signal(SIGABRT, SIG_DFL);
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        finish(&egc, op, 0);
        finish(&egc, op, 0);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void t_create_too_many_is_refused(void **state)
{
    static libxl__ao *ao[300];
    int n = 0;

    while (n < 300 && (ao[n] = libxl__ao_create(ctx, NULL, n, NULL)))
        n++;
    assert_int_equal(n, 256);
    while (n--)
        libxl__ao_create_fail(ao[n], ERROR_FAIL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_how_null_returns_result),
        T(t_how_callback_called_once_from_other_thread),
        T(t_how_event_wakes_wait),
        T(t_how_event_is_fetched_by_check_once),
        T(t_events_predicate_and_mask_choose),
        T(t_events_of_another_ctx_are_not_ours),
        T(t_wait_stock_event_wakes),
        T(t_wait_two_threads_each_gets_its_own),
        T(t_event_hook_registered_gets_it),
        T(t_event_hook_other_mask_leaves_it_to_check),
        T(t_event_not_fetched_is_freed_with_ctx),
        T(t_abort_before_inprogress_aborts),
        T(t_abort_during_callback_op_completes_once),
        T(t_abort_twice_says_so),
        T(t_abort_after_completion_is_not_found),
        T(t_abort_in_signal_handler_ends_synchronous_op),
        T(t_abort_without_abortable_waits_for_the_next),
        T(t_abort_races_with_completion_each_completes_once),
        T(t_create_fail_frees_with_and_without_thread),
        T(t_complete_before_inprogress_is_delivered),
        T(t_complete_twice_is_our_bug),
        T(t_create_too_many_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
