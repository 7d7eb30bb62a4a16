/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Suspend and resume against a played guest: xenstore and the hypervisor are fakes of this file,
 * the clock is the test's.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>
#include <libxl.h>
#include <xen/hvm/params.h>
#include <xen/sched.h>
#include <xenctrl.h>
#include <xenguest.h>

#include "libxl_dom_suspend.h"

#define DOMID 7
#define CONTROL "/local/domain/7/control/shutdown"

static struct fake {
    int64_t now;
    /* the guest as the hypervisor sees it */
    bool exists, dying, shutdown;
    unsigned reason;
    uint64_t callback_irq, s_state;
    bool slow_shutdown; /* vcpus take a while to stop */
    int resumed, xs_resumed;
    /* xenstore */
    char control[32];
    int fd, conflicts; /* conflicts: that many transactions fail */
    bool in_transaction;
    char written[32];
    struct {
        char path[64], token[32];
    } watches[4], events[16];
    int nr_watches, nr_events;
    /* what came out */
    int calls, rc;
    bool dispose_in_callback;
} f;

static libxl__loop *loop;
static libxl__dom_suspend ds;
static int handle;

static int64_t fake_now(void *user)
{
    return f.now;
}

static void fake_advance(void *user, int64_t until_ms)
{
    if (until_ms != INT64_MAX && until_ms > f.now) f.now = until_ms;
}

static const libxl__clock fake_clock = {.now_ms = fake_now, .advance = fake_advance};

static void fire(const char *path)
{
    for (int i = 0; i < f.nr_watches; i++) {
        if (strcmp(f.watches[i].path, path)) continue;
        assert_true(f.nr_events < 16);
        f.events[f.nr_events++] = f.watches[i];
        eventfd_write(f.fd, 1);
    }
}

static void set_control(const char *value)
{
    strcpy(f.control, value);
    fire(CONTROL);
}

static void guest_shuts_down(unsigned reason)
{
    f.shutdown = true;
    f.reason = reason;
    fire("@releaseDomain");
}

struct xs_handle *xs_open(unsigned long flags)
{
    return (struct xs_handle *)&handle;
}

void xs_close(struct xs_handle *h)
{
}

int xs_fileno(struct xs_handle *h)
{
    return f.fd;
}

bool xs_watch(struct xs_handle *h, const char *path, const char *token)
{
    snprintf(f.watches[f.nr_watches].path, 64, "%s", path);
    snprintf(f.watches[f.nr_watches].token, 32, "%s", token);
    f.nr_watches++;
    fire(path);
    return true;
}

bool xs_unwatch(struct xs_handle *h, const char *path, const char *token)
{
    f.nr_watches--;
    return true;
}

char **xs_check_watch(struct xs_handle *h)
{
    char **event, *text;
    eventfd_t n;

    if (!f.nr_events) {
        eventfd_read(f.fd, &n);
        errno = EAGAIN;
        return NULL;
    }
    event = calloc(1, 2 * sizeof(char *) + 96);
    text = (char *)(event + 2);
    event[XS_WATCH_PATH] = strcpy(text, f.events[0].path);
    event[XS_WATCH_TOKEN] = strcpy(text + 64, f.events[0].token);
    memmove(f.events, f.events + 1, sizeof(f.events) - sizeof(f.events[0]));
    f.nr_events--;
    return event;
}

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    assert_string_equal(path, CONTROL);
    if (!f.exists) {
        errno = ENOENT;
        return NULL;
    }
    *len = (unsigned)strlen(f.control);
    return strdup(f.control);
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
              unsigned int len)
{
    assert_string_equal(path, CONTROL);
    if (t == XBT_NULL) {
        memcpy(f.control, data, len);
        f.control[len] = '\0';
        fire(CONTROL);
        return true;
    }
    assert_true(f.in_transaction);
    memcpy(f.written, data, len);
    f.written[len] = '\0';
    return true;
}

xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
    assert_false(f.in_transaction);
    f.in_transaction = true;
    strcpy(f.written, "(nothing)");
    return 1;
}

bool xs_transaction_end(struct xs_handle *h, xs_transaction_t t, bool cancel)
{
    assert_true(f.in_transaction);
    f.in_transaction = false;
    if (cancel) return true;
    if (f.conflicts) {
        f.conflicts--;
        errno = EAGAIN;
        return false;
    }
    if (strcmp(f.written, "(nothing)")) set_control(f.written);
    return true;
}

bool xs_resume_domain(struct xs_handle *h, unsigned int domid)
{
    f.xs_resumed++;
    return true;
}

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned max, xc_dominfo_t *info)
{
    assert_int_equal(max, 1);
    memset(info, 0, sizeof(*info));
    if (!f.exists) {
        errno = ESRCH;
        return -1;
    }
    info->domid = DOMID;
    info->dying = f.dying;
    info->shutdown = f.shutdown;
    info->shutdown_reason = f.reason;
    return 1;
}

int xc_domain_shutdown(xc_interface *xch, uint32_t domid, int reason)
{
    assert_int_equal(reason, SHUTDOWN_suspend);
    if (!f.slow_shutdown) guest_shuts_down(SHUTDOWN_suspend);
    return 0;
}

int xc_domain_resume(xc_interface *xch, uint32_t domid, int fast)
{
    assert_int_equal(fast, 1);
    f.resumed++;
    f.shutdown = false;
    return 0;
}

int xc_hvm_param_get(xc_interface *xch, uint32_t domid, uint32_t param, uint64_t *value)
{
    *value = param == HVM_PARAM_CALLBACK_IRQ ? f.callback_irq : f.s_state;
    return 0;
}

static void no_log(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *context,
                   const char *format, va_list al)
{
}

static xentoollog_logger quiet = {.vmessage = no_log};

static void suspended(libxl__egc *egc, libxl__dom_suspend *it, int rc)
{
    f.calls++;
    f.rc = rc;
    if (f.dispose_in_callback) libxl__dom_suspend_dispose(it);
}

static void prepare(enum guest_kind kind)
{
    libxl__dom_suspend_init(&ds);
    ds.loop = loop;
    ds.xch = (xc_interface *)&handle;
    ds.domid = DOMID;
    ds.kind = kind;
    ds.limit_ms = 60000;
    ds.suspended = suspended;
    assert_int_equal(libxl__dom_suspend_prepare(&ds), 0);
    assert_int_equal(f.nr_watches, 2);
}

static int setup(void **state)
{
    memset(&f, 0, sizeof(f));
    f.now = 5000;
    f.exists = true;
    f.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return libxl__loop_new(&loop, &quiet, &fake_clock);
}

static int teardown(void **state)
{
    libxl__dom_suspend_dispose(&ds);
    libxl__dom_suspend_dispose(&ds);
    assert_int_equal(f.nr_watches, 0);
    libxl__loop_free(loop);
    close(f.fd);
    return 0;
}

static void turn(void)
{
    for (int i = 0; i < 5; i++)
        assert_int_equal(libxl__loop_once(loop, 0), 0);
}

static void pass_ms(int64_t ms)
{
    f.now += ms;
    turn();
}

static void start(void)
{
    int calls = f.calls;

    assert_int_equal(libxl__dom_suspend_start(&ds), 0);
    assert_int_equal(f.calls, calls);
    assert_true(libxl__dom_suspend_pending(&ds));
    turn();
}

static void result_is(int calls, int rc)
{
    turn();
    assert_int_equal(f.calls, calls);
    assert_int_equal(f.rc, rc);
    assert_false(libxl__dom_suspend_pending(&ds));
}

static void resume(void)
{
    assert_int_equal(
        libxl__dom_resume_fast(libxl__loop_gc(loop), ds.xch, libxl__loop_xs(loop), DOMID), 0);
}

static void t_pvh_takes_the_request_and_suspends_again_and_again(void **state)
{
    prepare(GUEST_PVH);
    for (int i = 1; i <= 20; i++) {
        start();
        assert_string_equal(f.control, "suspend");
        set_control("");
        turn();
        assert_int_equal(f.calls, i - 1);
        guest_shuts_down(SHUTDOWN_suspend);
        result_is(i, 0);
        assert_true(libxl__dom_is_suspended(ds.xch, DOMID));
        assert_int_equal(libxl__dom_end(ds.xch, DOMID), GUEST_LIVES);
        resume();
        assert_int_equal(f.resumed, i);
        assert_int_equal(f.xs_resumed, i);
        pass_ms(200);
    }
}

static void t_hvm_with_pv_drivers_is_asked(void **state)
{
    f.callback_irq = 1;
    prepare(GUEST_HVM);
    start();
    assert_true(ds.cooperative);
    assert_string_equal(f.control, "suspend");
    set_control("");
    guest_shuts_down(SHUTDOWN_suspend);
    result_is(1, 0);
}

static void t_hvm_without_pv_drivers_is_stopped(void **state)
{
    prepare(GUEST_HVM);
    start();
    assert_false(ds.cooperative);
    assert_string_equal(f.control, "");
    result_is(1, 0);
}

static void t_hvm_in_s3_is_stopped(void **state)
{
    f.callback_irq = 1;
    f.s_state = 3;
    f.slow_shutdown = true;
    prepare(GUEST_HVM);
    start();
    assert_int_equal(f.calls, 0);
    guest_shuts_down(SHUTDOWN_suspend);
    result_is(1, 0);
}

static void t_drivers_that_come_later_are_seen(void **state)
{
    prepare(GUEST_HVM);
    start();
    result_is(1, 0);
    resume();
    f.callback_irq = 1;
    start();
    assert_string_equal(f.control, "suspend");
}

static void t_no_answer_is_withdrawn(void **state)
{
    prepare(GUEST_PVH);
    start();
    pass_ms(59999);
    assert_int_equal(f.calls, 0);
    pass_ms(1);
    result_is(1, ERROR_GUEST_TIMEDOUT);
    assert_string_equal(f.control, "");
}

static void t_withdrawal_survives_conflicts(void **state)
{
    prepare(GUEST_PVH);
    start();
    f.conflicts = 5;
    pass_ms(60000);
    result_is(1, ERROR_GUEST_TIMEDOUT);
    assert_string_equal(f.control, "");
}

static void t_endless_conflicts_end(void **state)
{
    prepare(GUEST_PVH);
    start();
    f.conflicts = 1000000;
    pass_ms(60000);
    result_is(1, ERROR_GUEST_TIMEDOUT);
}

static void t_answer_at_the_last_moment_counts(void **state)
{
    prepare(GUEST_PVH);
    start();
    strcpy(f.control, ""); /* taken, and the watch has not come yet */
    pass_ms(60000);
    assert_int_equal(f.calls, 0);
    guest_shuts_down(SHUTDOWN_suspend);
    result_is(1, 0);
}

static void t_taken_but_not_suspended_times_out(void **state)
{
    prepare(GUEST_PVH);
    start();
    set_control("");
    turn();
    pass_ms(59999);
    assert_int_equal(f.calls, 0);
    pass_ms(1);
    result_is(1, ERROR_GUEST_TIMEDOUT);
}

static void t_abort_before_taken_withdraws(void **state)
{
    libxl__egc egc = {.loop = loop};

    prepare(GUEST_PVH);
    libxl__dom_suspend_abort(&egc, &ds); /* nothing under way */
    start();
    libxl__dom_suspend_abort(&egc, &ds);
    assert_int_equal(f.calls, 0);
    result_is(1, ERROR_ABORTED);
    assert_string_equal(f.control, "");
    start();
    assert_string_equal(f.control, "suspend");
}

static void t_abort_after_taken_waits(void **state)
{
    libxl__egc egc = {.loop = loop};

    prepare(GUEST_PVH);
    start();
    strcpy(f.control, "");
    libxl__dom_suspend_abort(&egc, &ds);
    libxl__dom_suspend_abort(&egc, &ds);
    turn();
    assert_int_equal(f.calls, 0);
    guest_shuts_down(SHUTDOWN_suspend);
    result_is(1, 0);
}

static void ends_as(unsigned reason, enum guest_end end)
{
    teardown(NULL);
    setup(NULL);
    prepare(GUEST_PVH);
    start();
    guest_shuts_down(reason);
    result_is(1, ERROR_DOMAIN_DESTROYED);
    assert_int_equal(ds.end, end);
    resume();
    assert_int_equal(f.resumed, 0);
}

static void t_guest_that_ends_is_told(void **state)
{
    prepare(GUEST_PVH);
    ends_as(SHUTDOWN_poweroff, GUEST_POWEROFF);
    ends_as(SHUTDOWN_reboot, GUEST_REBOOT);
    ends_as(SHUTDOWN_soft_reset, GUEST_REBOOT);
    ends_as(SHUTDOWN_crash, GUEST_CRASH);
    ends_as(SHUTDOWN_watchdog, GUEST_CRASH);
    ends_as(99, GUEST_CRASH);
}

static void t_destroyed_guest_is_gone(void **state)
{
    prepare(GUEST_PVH);
    start();
    f.dying = true;
    fire("@releaseDomain");
    result_is(1, ERROR_DOMAIN_DESTROYED);
    assert_int_equal(ds.end, GUEST_GONE);
    f.exists = false;
    start();
    result_is(2, ERROR_DOMAIN_DESTROYED);
    assert_int_equal(ds.end, GUEST_GONE);
    resume();
    assert_int_equal(f.resumed, 0);
}

static void t_suspended_already_is_reported(void **state)
{
    f.shutdown = true;
    f.reason = SHUTDOWN_suspend;
    prepare(GUEST_PVH);
    start();
    result_is(1, 0);
    assert_string_equal(f.control, "");
}

static void t_other_domains_and_scribbles_change_nothing(void **state)
{
    prepare(GUEST_PVH);
    set_control("nonsense");
    fire("@releaseDomain");
    turn();
    start();
    fire("@releaseDomain");
    fire(CONTROL);
    turn();
    assert_int_equal(f.calls, 0);
    set_control("suspendsuspend"); /* not what we wrote: taken */
    turn();
    pass_ms(60000);
    result_is(1, ERROR_GUEST_TIMEDOUT);
}

static void t_dispose_withdraws_without_callback(void **state)
{
    prepare(GUEST_PVH);
    start();
    libxl__dom_suspend_dispose(&ds);
    turn();
    assert_string_equal(f.control, "");
    assert_int_equal(f.calls, 0);
}

static void t_callback_may_dispose(void **state)
{
    f.dispose_in_callback = true;
    prepare(GUEST_HVM);
    start();
    result_is(1, 0);
}

static void t_running_guest_is_not_resumed(void **state)
{
    prepare(GUEST_PVH);
    resume();
    assert_int_equal(f.resumed, 0);
    assert_int_equal(f.xs_resumed, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_pvh_takes_the_request_and_suspends_again_and_again),
        T(t_hvm_with_pv_drivers_is_asked),
        T(t_hvm_without_pv_drivers_is_stopped),
        T(t_hvm_in_s3_is_stopped),
        T(t_drivers_that_come_later_are_seen),
        T(t_no_answer_is_withdrawn),
        T(t_withdrawal_survives_conflicts),
        T(t_endless_conflicts_end),
        T(t_answer_at_the_last_moment_counts),
        T(t_taken_but_not_suspended_times_out),
        T(t_abort_before_taken_withdraws),
        T(t_abort_after_taken_waits),
        T(t_guest_that_ends_is_told),
        T(t_destroyed_guest_is_gone),
        T(t_suspended_already_is_reported),
        T(t_other_domains_and_scribbles_change_nothing),
        T(t_dispose_withdraws_without_callback),
        T(t_callback_may_dispose),
        T(t_running_guest_is_not_resumed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
