/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The QMP parser, and the clients against a fake QEMU on a socket of our own, under a fake clock.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <libxl.h>

#include "libxl_qmp_client.h"
#include "libxl_qmp_json.h"

#define GREETING_TEXT                                                                              \
    "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n"
#define RETURN_TEXT "{\"return\": {}}\r\n"

static struct fixture {
    char dir[32], path[64];
    int listen_fd, peer; /* QEMU's side */
    int64_t now;
    libxl__loop *loop;
    libxl__qmp *qmp;
    libxl__qmp_cmd cmd[3];
    int answers[3], rc[3];
    int order[8], ordered;
    bool close_in_callback;
    char got[8192]; /* what the fake QEMU read */
    int got_fd;
} fx;

static xentoollog_logger *quiet;

static int64_t fake_now(void *user)
{
    return fx.now;
}

static void fake_advance(void *user, int64_t until_ms)
{
    if (until_ms != INT64_MAX && until_ms > fx.now) fx.now = until_ms;
}

static const libxl__clock fake_clock = {.now_ms = fake_now, .advance = fake_advance};

static void no_log(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *context,
                   const char *format, va_list al)
{
}

static xentoollog_logger quiet_logger = {.vmessage = no_log};

static int setup(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    quiet = &quiet_logger;
    memset(&fx, 0, sizeof(fx));
    strcpy(fx.dir, "/tmp/xentwin-qmp-XXXXXX");
    assert_non_null(mkdtemp(fx.dir));
    snprintf(fx.path, sizeof(fx.path), "%s/qmp", fx.dir);
    strcpy(addr.sun_path, fx.path);
    fx.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fx.listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(fx.listen_fd, 1), 0);
    fx.peer = fx.got_fd = -1;
    fx.now = 1000;
    assert_int_equal(libxl__loop_new(&fx.loop, quiet, &fake_clock), 0);
    assert_int_equal(libxl__qmp_open_at(fx.loop, fx.path, &fx.qmp), 0);
    return 0;
}

static int teardown(void **state)
{
    libxl__qmp_close(fx.qmp);
    libxl__loop_free(fx.loop);
    if (fx.peer >= 0) close(fx.peer);
    if (fx.got_fd >= 0) close(fx.got_fd);
    close(fx.listen_fd);
    unlink(fx.path);
    rmdir(fx.dir);
    return 0;
}

static void answered(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    int n = (int)(cmd - fx.cmd);

    fx.answers[n]++;
    fx.rc[n] = rc;
    fx.order[fx.ordered++] = n;
    if (fx.close_in_callback) {
        libxl__qmp_close(fx.qmp);
        fx.qmp = NULL;
    }
}

static void put(int n, const char *json)
{
    libxl__qmp_cmd_init(&fx.cmd[n]);
    fx.cmd[n].callback = answered;
    fx.cmd[n].limit_ms = 5000;
    assert_int_equal(libxl__qmp_send(fx.qmp, &fx.cmd[n], json, -1), 0);
}

/* A few turns of the loop, without letting time pass. */
static void turn(void)
{
    for (int i = 0; i < 5; i++)
        assert_int_equal(libxl__loop_once(fx.loop, 0), 0);
}

static void pass_ms(int64_t ms)
{
    fx.now += ms;
    turn();
}

static void accept_client(void)
{
    if (fx.peer >= 0) close(fx.peer);
    turn();
    fx.peer = accept4(fx.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fx.peer >= 0);
}

static void say(const char *text)
{
    assert_int_equal(send(fx.peer, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    turn();
}

/* Reads what the client sent, and a file descriptor that came with it. */
static const char *hear(void)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {.iov_base = fx.got, .iov_len = sizeof(fx.got) - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg;
    ssize_t got;

    turn();
    got = recvmsg(fx.peer, &msg, MSG_CMSG_CLOEXEC);
    fx.got[got > 0 ? got : 0] = '\0';
    cmsg = got > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) memcpy(&fx.got_fd, CMSG_DATA(cmsg), sizeof(int));
    return fx.got;
}

static void negotiate(void)
{
    accept_client();
    say(GREETING_TEXT);
    assert_string_equal(hear(), "{\"execute\":\"qmp_capabilities\"}\n");
    say(RETURN_TEXT);
}

static void t_command_runs_after_negotiation(void **state)
{
    put(0, "{\"execute\":\"stop\"}");
    assert_int_equal(fx.answers[0], 0);
    negotiate();
    assert_string_equal(hear(), "{\"id\":1,\"execute\":\"stop\"}\n");
    say("{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\"}\r\n{\"return\": {}, \"id\": "
        "1}\r\n");
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.rc[0], 0);
}

static void t_commands_run_one_after_another(void **state)
{
    put(0, "{\"execute\":\"a\"}");
    put(1, "{\"execute\":\"b\"}");
    put(2, "{\"execute\":\"c\"}");
    negotiate();
    assert_string_equal(hear(), "{\"id\":1,\"execute\":\"a\"}\n");
    assert_string_equal(hear(), "");
    say("{\"return\": {}, \"id\": 1}\r\n");
    assert_string_equal(hear(), "{\"id\":2,\"execute\":\"b\"}\n");
    say("{\"id\": 2, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no b\"}}\r\n");
    assert_string_equal(hear(), "{\"id\":3,\"execute\":\"c\"}\n");
    say("{\"id\": 3, \"error\": {\"desc\": \"odd\", \"class\": \"Odd\"}}\r\n");
    assert_int_equal(fx.rc[0], 0);
    assert_int_equal(fx.rc[1], ERROR_QMP_COMMAND_NOT_FOUND);
    assert_int_equal(fx.rc[2], ERROR_UNKNOWN_QMP_ERROR);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fx.order[i], i);
}

static void t_answer_in_single_bytes_is_taken(void **state)
{
    const char *text = "{\"return\": {\"x\": [1, {\"y\": \"}\"}]}, \"id\": 1}\r\n";

    put(0, "{\"execute\":\"a\"}");
    negotiate();
    for (; *text; text++) {
        char one[2] = {*text, 0};

        say(one);
    }
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.rc[0], 0);
}

static void t_late_answer_is_not_the_next_ones(void **state)
{
    put(0, "{\"execute\":\"slow\"}");
    put(1, "{\"execute\":\"next\"}");
    negotiate();
    hear();
    pass_ms(4999);
    assert_int_equal(fx.answers[0], 0);
    pass_ms(1);
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.rc[0], ERROR_TIMEDOUT);
    assert_string_equal(hear(), "{\"id\":2,\"execute\":\"next\"}\n");
    say("{\"return\": {}, \"id\": 1}\r\n");
    assert_int_equal(fx.answers[1], 0);
    say("{\"return\": {}, \"id\": 2}\r\n");
    assert_int_equal(fx.answers[1], 1);
    assert_int_equal(fx.rc[1], 0);
}

static void t_silent_qemu_times_out(void **state)
{
    put(0, "{\"execute\":\"a\"}");
    accept_client();
    pass_ms(5000);
    assert_int_equal(fx.rc[0], ERROR_TIMEDOUT);
    put(0, "{\"execute\":\"a\"}"); /* a new connection is made */
    negotiate();
    hear();
    say("{\"return\": {}, \"id\": 1}\r\n");
    assert_int_equal(fx.rc[0], 0);
}

static void t_no_socket_fails_later(void **state)
{
    unlink(fx.path);
    put(0, "{\"execute\":\"a\"}");
    assert_int_equal(fx.answers[0], 0);
    turn();
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.rc[0], ERROR_FAIL);
}

static void t_busy_socket_is_tried_again(void **state)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int others[4];

    strcpy(addr.sun_path, fx.path);
    for (int i = 0; i < 4; i++) {
        others[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(others[i], (struct sockaddr *)&addr, sizeof(addr));
    }
    put(0, "{\"execute\":\"a\"}");
    turn();
    for (int i = 0; i < 4; i++) {
        int fd = accept(fx.listen_fd, NULL, NULL);

        if (fd >= 0) close(fd);
        close(others[i]);
    }
    pass_ms(20);
    negotiate();
    hear();
    say("{\"return\": {}, \"id\": 1}\r\n");
    assert_int_equal(fx.rc[0], 0);
}

static void t_closed_connection_fails_one_command(void **state)
{
    put(0, "{\"execute\":\"a\"}");
    put(1, "{\"execute\":\"b\"}");
    negotiate();
    hear();
    close(fx.peer);
    fx.peer = -1;
    turn();
    assert_int_equal(fx.rc[0], ERROR_FAIL);
    assert_int_equal(fx.answers[1], 0);
    negotiate();
    assert_string_equal(hear(), "{\"id\":2,\"execute\":\"b\"}\n");
    say("{\"return\": {}, \"id\": 2}\r\n");
    assert_int_equal(fx.rc[1], 0);
}

static void garbage_fails(const char *garbage)
{
    put(0, "{\"execute\":\"a\"}");
    negotiate();
    hear();
    say(garbage);
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.rc[0], ERROR_PROTOCOL_ERROR_QMP);
}

static void t_garbage_fails_the_command(void **state)
{
    garbage_fails("HTTP/1.0 400 Bad Request\r\n");
}

static void t_array_fails_the_command(void **state)
{
    garbage_fails("[1]\r\n");
}

static void t_second_greeting_fails_the_command(void **state)
{
    garbage_fails(GREETING_TEXT);
}

static void t_answer_then_garbage_keeps_the_answer(void **state)
{
    put(0, "{\"execute\":\"a\"}");
    negotiate();
    hear();
    say("{\"return\": {}, \"id\": 1}\r\n}}}}");
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.rc[0], 0);
}

static void t_huge_answer_is_refused(void **state)
{
    static char block[65536];
    size_t total = 0;

    put(0, "{\"execute\":\"a\"}");
    negotiate();
    hear();
    say("{\"return\": \"");
    memset(block, 'x', sizeof(block) - 1);
    while (!fx.answers[0] && total < 4 * QMP_MAX_BYTES) {
        ssize_t r = send(fx.peer, block, sizeof(block) - 1, MSG_NOSIGNAL);

        total += r > 0 ? (size_t)r : 0;
        turn();
    }
    assert_int_equal(fx.rc[0], ERROR_PROTOCOL_ERROR_QMP);
    assert_true(total < 2 * QMP_MAX_BYTES);
}

static void t_callback_may_close(void **state)
{
    fx.close_in_callback = true;
    put(0, "{\"execute\":\"a\"}");
    put(1, "{\"execute\":\"b\"}");
    negotiate();
    hear();
    say("{\"return\": {}, \"id\": 1}\r\n{\"event\": \"STOP\"}\r\n");
    assert_int_equal(fx.answers[0], 1);
    assert_int_equal(fx.answers[1], 0);
    assert_null(fx.qmp);
}

static void t_cancelled_command_gets_no_callback(void **state)
{
    put(0, "{\"execute\":\"a\"}");
    put(1, "{\"execute\":\"b\"}");
    negotiate();
    hear();
    libxl__qmp_cancel(fx.qmp, &fx.cmd[0]);
    libxl__qmp_cancel(fx.qmp, &fx.cmd[0]);
    assert_string_equal(hear(), "{\"id\":2,\"execute\":\"b\"}\n");
    libxl__qmp_cancel(fx.qmp, &fx.cmd[1]);
    put(0, "{\"execute\":\"c\"}"); /* the same struct again */
    assert_string_equal(hear(), "{\"id\":3,\"execute\":\"c\"}\n");
    say("{\"return\": {}, \"id\": 1}\r\n{\"return\": {}, \"id\": 2}\r\n");
    assert_int_equal(fx.ordered, 0);
    say("{\"return\": {}, \"id\": 3}\r\n");
    assert_int_equal(fx.ordered, 1);
    assert_int_equal(fx.answers[0], 1);
}

/* Like QEMU: writes through the fd that came, from where its offset is. */
static void qemu_writes_state(const char *text)
{
    assert_int_equal(write(fx.got_fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void t_save_state_reuses_the_fd_set(void **state)
{
    int fd = memfd_create("state", MFD_CLOEXEC);
    char want[200], text[100] = "";
    unsigned long set, set2;
    struct stat st;

    put(0, "{\"execute\":\"stop\"}");
    negotiate();
    hear();
    say("{\"return\": {}, \"id\": 1}\r\n");
    assert_int_equal(libxl__qmp_save_state(fx.qmp, &fx.cmd[0], fd, false), 0);
    assert_int_equal(
        sscanf(hear(), "{\"id\":2,\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":%lu}}", &set),
        1);
    assert_true(set > 0 && set <= INT32_MAX);
    assert_true(fx.got_fd >= 0);
    assert_int_equal(fcntl(fx.got_fd, F_GETFL) & O_ACCMODE, O_WRONLY);
    say("{\"return\": {\"fdset-id\": 1, \"fd\": 2}, \"id\": 2}\r\n");
    snprintf(want, sizeof(want),
             "{\"id\":3,\"execute\":\"xen-save-devices-state\",\"arguments\":"
             "{\"filename\":\"/dev/fdset/%lu\",\"live\":false}}\n",
             set);
    assert_string_equal(hear(), want);
    qemu_writes_state("a longer first state");
    say("{\"return\": {}, \"id\": 3}\r\n");
    assert_int_equal(fx.answers[0], 2);
    assert_int_equal(libxl__qmp_save_state(fx.qmp, &fx.cmd[0], fd, true), 0);
    assert_int_equal(sscanf(hear(),
                            "{\"id\":4,\"execute\":\"xen-save-devices-state\",\"arguments\":"
                            "{\"filename\":\"/dev/fdset/%lu\",\"live\":true}}",
                            &set2),
                     1);
    assert_int_equal(set2, set);
    qemu_writes_state("second");
    say("{\"return\": {}, \"id\": 4}\r\n");
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 6);
    assert_int_equal(pread(fd, text, sizeof(text), 0), 6);
    assert_string_equal(text, "second");
    close(fd);
}

static void t_save_state_after_reconnect_adds_the_fd_again(void **state)
{
    int fd = memfd_create("state", MFD_CLOEXEC);

    libxl__qmp_cmd_init(&fx.cmd[0]);
    fx.cmd[0].callback = answered;
    fx.cmd[0].limit_ms = 5000;
    assert_int_equal(libxl__qmp_save_state(fx.qmp, &fx.cmd[0], fd, false), 0);
    negotiate();
    assert_non_null(strstr(hear(), "add-fd"));
    close(fx.peer);
    fx.peer = -1;
    negotiate();
    assert_non_null(strstr(hear(), "xen-save-devices-state"));
    say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such set\"}, \"id\": 2}\r\n");
    assert_int_equal(fx.rc[0], ERROR_QMP_GENERIC_ERROR);
    assert_int_equal(libxl__qmp_save_state(fx.qmp, &fx.cmd[0], fd, false), 0);
    assert_non_null(strstr(hear(), "add-fd"));
    close(fd);
}

static void t_command_larger_than_the_socket_is_sent(void **state)
{
    static char json[600000], got[700000];
    size_t len = 0;

    memset(json, ' ', sizeof(json) - 1);
    json[0] = '{';
    memcpy(json + sizeof(json) - 20, "\"execute\":\"large\"}", 19);
    put(0, json);
    negotiate();
    for (int i = 0; i < 5000 && (!len || got[len - 1] != '\n'); i++) {
        ssize_t r = recv(fx.peer, got + len, sizeof(got) - len, 0);

        len += r > 0 ? (size_t)r : 0;
        assert_int_equal(libxl__loop_once(fx.loop, 0), 0);
    }
    assert_int_equal(got[len - 1], '\n');
    assert_true(len > sizeof(json));
    say("{\"return\": {}, \"id\": 1}\r\n");
    assert_int_equal(fx.rc[0], 0);
}

/*
 * A QEMU in a thread, for the client that blocks: plays a script of what to say after each line it
 * hears.
 */
static const char *const *script;

static void *play(void *arg)
{
    char line[1000];
    int fd = -1;

    for (int i = 0; i < 1000 && fd < 0; i++, usleep(1000))
        fd = accept4(fx.listen_fd, NULL, NULL, SOCK_CLOEXEC);
    for (int i = 0; script[i]; i++) {
        if (i && recv(fd, line, sizeof(line), 0) <= 0) break;
        if (send(fd, script[i], strlen(script[i]), MSG_NOSIGNAL) < 0) break;
    }
    if (arg) /* stays connected, silent, until the client leaves */
        while (recv(fd, line, sizeof(line), 0) > 0)
            ;
    close(fd);
    return NULL;
}

static int blocking(const char *const *lines, bool stay, int limit_ms)
{
    pthread_t th;
    libxl__gc gc;
    int rc;

    libxl__gc_init(&gc, quiet);
    script = lines;
    pthread_create(&th, NULL, play, stay ? &fx : NULL);
    rc = libxl__qmp_blocking_at(&gc, fx.path, "{\"execute\":\"cont\"}", limit_ms);
    pthread_join(th, NULL);
    libxl__gc_dispose(&gc);
    return rc;
}

static void t_blocking_answers(void **state)
{
    static const char *const good[] = {GREETING_TEXT, RETURN_TEXT,
                                       "{\"event\": \"RESUME\"}\r\n" RETURN_TEXT, NULL};
    static const char *const bad[] = {
        GREETING_TEXT, RETURN_TEXT,
        "{\"error\": {\"class\": \"GenericError\", \"desc\": \"x\"}}\r\n", NULL};
    static const char *const early_end[] = {GREETING_TEXT, NULL};
    static const char *const no_greeting[] = {RETURN_TEXT, NULL};

    assert_int_equal(blocking(good, false, 5000), 0);
    assert_int_equal(blocking(bad, false, 5000), ERROR_QMP_GENERIC_ERROR);
    assert_int_equal(blocking(early_end, false, 5000), ERROR_FAIL);
    assert_int_equal(blocking(no_greeting, true, 5000), ERROR_PROTOCOL_ERROR_QMP);
    assert_int_equal(blocking(early_end, true, 50), ERROR_TIMEDOUT);
}

static int parse_all(const char *text, struct qmp_msg *msgs, int max, int *nr)
{
    libxl__qmp_parser *p = libxl__qmp_parser_new();
    size_t at = 0, used, len = strlen(text);
    int rc = 0;

    *nr = 0;
    while (!rc && at < len && *nr < max) {
        rc = libxl__qmp_parse(p, text + at, len - at, &used, &msgs[*nr]);
        at += used;
        if (!rc && msgs[*nr].kind != QMP_NONE) (*nr)++;
    }
    libxl__qmp_parser_free(p);
    return rc;
}

static void t_parser_finds_each_message(void **state)
{
    struct qmp_msg m[8];
    int nr;

    assert_int_equal(
        parse_all(GREETING_TEXT RETURN_TEXT
                  "{\"return\": {\"id\": 9, \"error\": {\"desc\": \"not it\"}}, \"id\": 5}"
                  "{\"id\": \"five\", \"return\": 18446744073709551615}"
                  "{\"error\": {\"data\": {\"desc\": \"deep\"}, \"desc\": \"a\\u0001b\\n\"}}",
                  m, 8, &nr),
        0);
    assert_int_equal(nr, 5);
    assert_int_equal(m[0].kind, QMP_GREETING);
    assert_int_equal(m[1].kind, QMP_RETURN);
    assert_false(m[1].has_id);
    assert_true(m[2].has_id);
    assert_int_equal(m[2].id, 5);
    assert_string_equal(m[2].desc, "");
    assert_false(m[3].has_id);
    assert_int_equal(m[4].kind, QMP_ERROR);
    assert_string_equal(m[4].desc, "a?b?");
}

static void t_parser_refuses_depth_and_strangers(void **state)
{
    static const char *const bad[] = {"{}", "{\"a\": 1}",    "1 ", "\"x\"", "null ",
                                      "]",  "{\"return\" 1}"};
    struct qmp_msg m[2];
    char deep[400] = "{\"return\": ";
    int nr;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(parse_all(bad[i], m, 2, &nr), ERROR_PROTOCOL_ERROR_QMP);
    memset(deep + strlen(deep), '[', QMP_MAX_DEPTH);
    assert_int_equal(parse_all(deep, m, 2, &nr), ERROR_PROTOCOL_ERROR_QMP);
}

/* Good text with bytes changed, cut at random places: any answer is fine, a crash is not. */
static void t_parser_survives_noise(void **state)
{
    static const char good[] =
        GREETING_TEXT RETURN_TEXT "{\"error\": {\"class\": \"GenericError\", \"desc\": "
                                  "\"\\ud83d\\ude00 no\"}, \"id\": 12}\r\n";
    unsigned seed = 42;

    for (int round = 0; round < 20000; round++) {
        char text[sizeof(good)];
        libxl__qmp_parser *p = libxl__qmp_parser_new();
        struct qmp_msg msg;
        size_t at = 0, used;

        memcpy(text, good, sizeof(good));
        for (unsigned i = 0; i < (unsigned)rand_r(&seed) % 4; i++)
            text[(size_t)rand_r(&seed) % sizeof(good)] = (char)rand_r(&seed);
        while (at < sizeof(good) - 1) {
            size_t n = 1 + (size_t)rand_r(&seed) % (sizeof(good) - 1 - at);

            if (libxl__qmp_parse(p, text + at, n, &used, &msg)) break;
            assert_true(used <= n && used > 0);
            at += used;
        }
        libxl__qmp_parser_free(p);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_command_runs_after_negotiation),
        T(t_commands_run_one_after_another),
        T(t_answer_in_single_bytes_is_taken),
        T(t_late_answer_is_not_the_next_ones),
        T(t_silent_qemu_times_out),
        T(t_no_socket_fails_later),
        T(t_busy_socket_is_tried_again),
        T(t_closed_connection_fails_one_command),
        T(t_garbage_fails_the_command),
        T(t_array_fails_the_command),
        T(t_second_greeting_fails_the_command),
        T(t_answer_then_garbage_keeps_the_answer),
        T(t_huge_answer_is_refused),
        T(t_callback_may_close),
        T(t_cancelled_command_gets_no_callback),
        T(t_save_state_reuses_the_fd_set),
        T(t_save_state_after_reconnect_adds_the_fd_again),
        T(t_command_larger_than_the_socket_is_sent),
        T(t_blocking_answers),
        cmocka_unit_test(t_parser_finds_each_message),
        cmocka_unit_test(t_parser_refuses_depth_and_strangers),
        cmocka_unit_test(t_parser_survives_noise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
