/* SPDX-License-Identifier: LGPL-2.1-only */
/* The save engine alone, on the fake Xen: a save that is not live, by two processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake_xen.h"
#include "xc_sr_save.h"

static char last_log[400];
static int stream = -1;

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *format, va_list al)
{
    if (level >= XTL_ERROR) vsnprintf(last_log, sizeof(last_log), format, al);
}

static xentoollog_logger logger = {vmessage, NULL, NULL};

/* ---- the toolstack ---- */

static int cb_suspend(void *data)
{
    fake_dom[FAKE_PRIMARY].suspended = true;
    return 1;
}

static struct save_callbacks callbacks = {
    .suspend = cb_suspend,
};

static void start(void)
{
    uint32_t g;

    fake_reset();
    last_log[0] = 0;
    stream = memfd_create("stream", MFD_CLOEXEC);
    for (g = 0; g < 1500; g++)
        if (g % 7) fake_populate(FAKE_PRIMARY, g);
    fake_dom[FAKE_PRIMARY].tsc_khz = 2400000;
}

static void finish(void)
{
    close(stream);
}

static int run_save_io(struct xc_sr_io *io)
{
    struct xc_sr_save s = {
        .env = {.lg = &logger, .domid = FAKE_PRIMARY, .io = io},
        .cb = &callbacks,
        .range_pages = 500,
    };
    int rc = xc_sr_save(&s);

    assert_int_equal(fake_mappings, 0);
    return rc;
}

static int run_save(void)
{
    struct xc_sr_io io;
    int rc;

    xc_sr_io_init(&io, stream, -1, -1);
    rc = run_save_io(&io);
    xc_sr_io_dispose(&io);
    return rc;
}

/* ---- tests ---- */

static struct {
    int fd, stop;
    size_t limit;
} impatient;

/* Says stop when it has read enough, and reads no more. */
static void *read_and_stop(void *unused)
{
    static char buf[65536];
    size_t sum = 0;
    ssize_t n = 1;

    while (n > 0 && sum < impatient.limit) {
        n = read(impatient.fd, buf, sizeof(buf));
        sum += n > 0 ? (size_t)n : 0;
    }
    eventfd_write(impatient.stop, 1);
    return NULL;
}

/* Whichever of the two processes has the turn then: the ranges are of 2 MB. */
static void t_save_whole_stops_in_either_turn(void **state)
{
    unsigned int i;

    for (i = 0; i < 2; i++) {
        struct xc_sr_io io;
        pthread_t thread;
        int p[2];

        start();
        assert_int_equal(pipe(p), 0);
        impatient.fd = p[0];
        impatient.stop = eventfd(0, 0);
        impatient.limit = i ? 2500000 : 500000;
        assert_int_equal(pthread_create(&thread, NULL, read_and_stop, NULL), 0);
        xc_sr_io_init(&io, p[1], impatient.stop, -1);
        (void)fcntl(p[1], F_SETPIPE_SZ, 65536);
        assert_int_equal(run_save_io(&io), -1);
        assert_int_equal(errno, ECANCELED);
        assert_string_equal(last_log, "told to stop");
        assert_int_equal(waitpid(-1, NULL, 0), -1);
        pthread_join(thread, NULL);
        xc_sr_io_dispose(&io);
        close(impatient.stop);
        close(p[0]);
        close(p[1]);
        finish();
    }
}

/* In either process: both count from what was called before they parted. */
static void t_save_whole_nth_call_fails_cleans_up(void **state)
{
    unsigned int n, failed = 0;
    int rc;

    for (n = 1;; n++) {
        start();
        fake_fail_at = n;
        rc = run_save();
        failed += rc != 0;
        assert_true(!rc || last_log[0]);
        finish();
        if (fake_calls < n) break;
    }
    assert_int_equal(rc, 0);
    assert_true(failed > 15);
}

static void t_save_whole_child_fails_is_told(void **state)
{
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) skip(); /* then there is no child */
    start();
    fake_opening = FAKE_OPENS_NOTHING;
    assert_int_equal(run_save(), -1);
    assert_non_null(strstr(last_log, "a second time"));
    fake_opening = FAKE_OPENING_KILLS;
    assert_int_equal(run_save(), -1);
    assert_non_null(strstr(last_log, "second process"));
    assert_int_equal(waitpid(-1, NULL, 0), -1);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_save_whole_stops_in_either_turn),
        cmocka_unit_test(t_save_whole_nth_call_fails_cleans_up),
        cmocka_unit_test(t_save_whole_child_fails_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
