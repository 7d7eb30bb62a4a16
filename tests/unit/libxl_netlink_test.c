/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What rtnetlink calls cost an operation that makes them at every checkpoint for months. The file under test is a part of this one,
 * so that the kernel can be played: it answers each request with one error number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <netlink/netlink.h>
#include <sys/socket.h>

static ssize_t played_recvfrom(int fd, void *buf, size_t len, int flags, void *from, socklen_t *fl);
static int played_send(struct nl_sock *sk, struct nl_msg *msg);
#define recvfrom played_recvfrom
#define nl_send played_send
#include "libxl_netlink.c"

#include <cmocka.h> /* last: it has a macro of the name of a function there */

#define CALLS 1000

static uint32_t seq;
static int answer;
static char logged[256];

static int played_send(struct nl_sock *sk, struct nl_msg *msg)
{
    seq = nlmsg_hdr(msg)->nlmsg_seq;
    return 1;
}

static ssize_t played_recvfrom(int fd, void *buf, size_t len, int flags, void *from, socklen_t *fl)
{
    struct {
        struct nlmsghdr nh;
        struct nlmsgerr err;
    } m = {.nh = {.nlmsg_len = sizeof(m), .nlmsg_type = NLMSG_ERROR, .nlmsg_seq = seq},
           .err = {.error = -answer}};

    assert_true(len >= sizeof(m));
    memcpy(buf, &m, sizeof(m));
    return sizeof(m);
}

static void take_log(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                     const char *context, const char *format, va_list al)
{
    vsnprintf(logged, sizeof(logged), format, al);
}

static xentoollog_logger logger = {.vmessage = take_log};
static libxl__gc gc;
static libxl__nl *nl;

static int setup(void **state)
{
    libxl__gc_init(&gc, &logger);
    nl = calloc(1, sizeof(*nl));
    return !nl || !(nl->sk = nl_socket_alloc());
}

static int teardown(void **state)
{
    libxl__nl_close(nl);
    libxl__gc_dispose(&gc);
    return 0;
}

static int plug(int action)
{
    struct tc_plug_qopt opt = {.action = action};

    return libxl__nl_qdisc_set(&gc, nl, 4, 0x10001, 0, "plug", &opt, sizeof(opt), false);
}

static void t_settings_of_a_checkpoint_keep_no_memory(void **state)
{
    answer = 0;
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(plug(TCQ_PLUG_BUFFER), 0);
        assert_int_equal(plug(TCQ_PLUG_RELEASE_INDEFINITE), 0);
    }
    assert_int_equal(gc.used, 0);
}

static void t_a_refusal_names_the_qdisc_and_keeps_no_memory(void **state)
{
    answer = EINVAL;
    for (int i = 0; i < CALLS; i++)
        assert_int_equal(plug(TCQ_PLUG_BUFFER), ERROR_FAIL);
    assert_non_null(strstr(logged, "plug qdisc on interface 4"));
    answer = EPERM;
    assert_int_equal(libxl__nl_ifb_add(&gc, nl, "remus7"), ERROR_FAIL);
    assert_non_null(strstr(logged, "cannot make the ifb device remus7"));
    assert_int_equal(libxl__nl_redirect_add(&gc, nl, 4, 5, "remus7"), ERROR_FAIL);
    assert_int_equal(gc.used, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_settings_of_a_checkpoint_keep_no_memory),
        cmocka_unit_test(t_a_refusal_names_the_qdisc_and_keeps_no_memory),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
