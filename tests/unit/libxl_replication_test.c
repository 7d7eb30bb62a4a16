/* SPDX-License-Identifier: LGPL-2.1-only */
/* The public calls where they refuse: before hypervisor, xenstore or guest are touched. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "libxl_replication.h"

#define NO_DOMAIN 30000

struct memory_logger {
    xentoollog_logger vtable;
    char text[512]; /* the first error */
};

static struct memory_logger logger;
static libxl_replication_info info;
static int null_fd, callbacks;

static void keep_first_error(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                             const char *context, const char *fmt, va_list al)
{
    if (level >= XTL_ERROR && !logger.text[0]) vsnprintf(logger.text, sizeof(logger.text), fmt, al);
}

static int setup(void **state)
{
    logger = (struct memory_logger){.vtable.vmessage = keep_first_error};
    libxl_replication_info_init(&info);
    info.domain_name = "guest";
    info.self_name = "a";
    info.peer_name = "b";
    info.session = "00000000-0000-0000-0000-000000000000";
    info.acknowledged = true;
    info.lg = &logger.vtable;
    callbacks = 0;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return null_fd < 0;
}

static int teardown(void **state)
{
    libxl_replication_info_dispose(&info);
    close(null_fd);
    return 0;
}

static void completed(libxl_ctx *ctx, int rc, void *user)
{
    callbacks++;
}

/* Refused with rc and one line that has the given words; also when it would have run in the background. */
static void expect_refused(int rc, const char *words)
{
    libxl_asyncop_how how = {.callback = completed};

    assert_int_equal(libxl_replication_start(NULL, &info, NO_DOMAIN, null_fd, null_fd, NULL), rc);
    if (!strstr(logger.text, words)) fail_msg("\"%s\" without \"%s\"", logger.text, words);
    assert_int_equal(libxl_replication_start(NULL, &info, NO_DOMAIN, null_fd, null_fd, &how), rc);
    assert_int_equal(callbacks, 0);
    assert_int_equal(libxl_replication_abort(NO_DOMAIN), ERROR_NOTFOUND);
}

static void t_info_init_has_the_documented_defaults(void **state)
{
    assert_int_equal(info.limit_ms, LIBXL_REPLICATION_LIMIT_MS_DEFAULT);
    assert_int_equal(info.netbuf_bytes, LIBXL_REPLICATION_NETBUF_BYTES_DEFAULT);
    assert_int_equal(info.on_link_loss, LIBXL_LINK_LOSS_PRIMARY);
    assert_null(info.arbiter);
    assert_int_equal(info.max_checkpoints, 0);
}

static void t_start_without_a_name_is_refused(void **state)
{
    const char **const names[] = {&info.domain_name, &info.self_name, &info.peer_name,
                                  &info.session};

    for (int i = 0; i < 4; i++) {
        const char *before = *names[i];

        *names[i] = NULL;
        expect_refused(ERROR_INVAL, "names");
        *names[i] = before;
        logger.text[0] = 0;
    }
}

static void t_start_limit_out_of_range_names_it(void **state)
{
    info.limit_ms = 1;
    expect_refused(ERROR_INVAL, "limit_ms 1 ");
    logger.text[0] = 0;
    info.limit_ms = -5;
    expect_refused(ERROR_INVAL, "limit_ms -5 ");
}

static void t_start_netbuf_bytes_out_of_range_names_it(void **state)
{
    info.netbuf_bytes = 5;
    expect_refused(ERROR_INVAL, "netbuf_bytes 5 ");
    logger.text[0] = 0;
    info.netbuf_bytes = (uint64_t)1 << 40;
    expect_refused(ERROR_INVAL, "netbuf_bytes 1099511627776 ");
}

static void t_start_unsafe_without_consent_is_refused(void **state)
{
    info.acknowledged = false;
    expect_refused(ERROR_INVAL, "allow_unsafe");
    logger.text[0] = 0;
    info.acknowledged = true;
    libxl_defbool_set(&info.remus.netbuf, false);
    expect_refused(ERROR_INVAL, "allow_unsafe");
    logger.text[0] = 0;
    libxl_defbool_set(&info.remus.netbuf, true);
    libxl_defbool_set(&info.remus.blackhole, true);
    expect_refused(ERROR_INVAL, "allow_unsafe");
}

static void t_start_colo_is_refused(void **state)
{
    libxl_defbool_set(&info.remus.colo, true);
    expect_refused(ERROR_FEATURE_REMOVED, "COLO");
}

static void t_stop_and_abort_unknown_are_not_found(void **state)
{
    assert_int_equal(libxl_replication_stop(NULL, "no-such-domain-of-xentwin", 100),
                     ERROR_NOTFOUND);
    assert_int_equal(libxl_replication_abort(NO_DOMAIN), ERROR_NOTFOUND);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_info_init_has_the_documented_defaults),   T(t_start_without_a_name_is_refused),
        T(t_start_limit_out_of_range_names_it),       T(t_start_netbuf_bytes_out_of_range_names_it),
        T(t_start_unsafe_without_consent_is_refused), T(t_start_colo_is_refused),
        T(t_stop_and_abort_unknown_are_not_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
