/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The parent's side of the save helper. This program is the helper too: started with --save-domain it plays
 * the part that FAKE_HELPER names.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <libxl.h>

#include "libxl_save_callout.h"

/* ---- the helper ---- */

struct message {
    unsigned char bytes[2 + 65535];
    size_t len; /* of the body */
};

static void put(struct message *m, const void *data, size_t len)
{
    memcpy(m->bytes + 2 + m->len, data, len);
    m->len += len;
}

static void put16(struct message *m, uint16_t v)
{
    put(m, &v, sizeof(v));
}

static void put32(struct message *m, uint32_t v)
{
    put(m, &v, sizeof(v));
}

static void put_string(struct message *m, const char *s)
{
    put32(m, strlen(s) + 1);
    put(m, s, strlen(s) + 1);
}

/* In pieces of at most `piece` bytes. */
static void send_in_pieces(struct message *m, size_t piece)
{
    uint16_t len = m->len;
    size_t at = 0, n;

    memcpy(m->bytes, &len, 2);
    for (; at < m->len + 2; at += n) {
        n = m->len + 2 - at < piece ? m->len + 2 - at : piece;
        if (write(1, m->bytes + at, n) != (ssize_t)n) _exit(90);
    }
}

static void send_all(struct message *m)
{
    send_in_pieces(m, sizeof(m->bytes));
}

static int ask(struct message *m)
{
    int answer;

    send_all(m);
    if (read(0, &answer, sizeof(answer)) != sizeof(answer)) _exit(91);
    return answer;
}

static int ask_plain(uint16_t what)
{
    struct message m = {.len = 0};

    put16(&m, what);
    return ask(&m);
}

static int complete(void)
{
    struct message m = {.len = 0};

    put16(&m, HELPER_COMPLETE);
    put32(&m, 0);
    put32(&m, 0);
    return ask(&m);
}

static void make_log(struct message *m, const char *text)
{
    m->len = 0;
    put16(m, HELPER_LOG);
    put32(m, XTL_DEBUG);
    put32(m, (uint32_t)-1);
    put_string(m, "xc");
    put_string(m, text);
}

static void send_progress(void)
{
    struct message m = {.len = 0};
    uint64_t done = 5, total = 9;

    put16(&m, HELPER_PROGRESS);
    put_string(&m, "xc");
    put_string(&m, "Frames");
    put(&m, &done, 8);
    put(&m, &total, 8);
    send_in_pieces(&m, 1);
}

/* What a helper needs from its start: the arguments of 4.17 and the stream, and no file besides. */
static int check_start(int argc, char **argv)
{
    static const char *const wanted[] = {"3", "-1", "42", "1", "184", "1"};
    if (argc != 8) return 60;
    for (int i = 0; i < 6; i++) {
        if (strcmp(argv[2 + i], wanted[i])) return 61 + i;
    }
    for (int fd = 4; fd < 1024; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) return 70;
    }
    return write(3, "stream", 6) == 6 ? 0 : 71;
}

static int play_good(void)
{
    static struct message m;

    make_log(&m, "one");
    send_in_pieces(&m, 3);
    send_progress();
    if (ask_plain(HELPER_SUSPEND) != 1 || ask_plain(HELPER_POSTCOPY) != 1) return 80;
    m.len = 0;
    put16(&m, HELPER_SWITCH_LOGDIRTY);
    put32(&m, 42);
    put32(&m, 1);
    if (ask(&m) != 0) return 81;
    if (ask_plain(HELPER_CHECKPOINT) != -7) return 82;
    return complete() ? 83 : 0;
}

static int play(const char *part, int argc, char **argv)
{
    static struct message m;
    int r = check_start(argc, argv);

    if (r) return r;
    if (!strcmp(part, "good")) return play_good();
    if (!strcmp(part, "completes and fails")) return complete() ? 84 : 1;
    if (!strcmp(part, "silent")) return 0;
    if (!strcmp(part, "killed")) raise(SIGKILL);
    if (!strcmp(part, "stubborn")) {
        signal(SIGTERM, SIG_IGN);
        ask_plain(HELPER_SUSPEND);
        for (;;)
            pause();
    }
    if (!strcmp(part, "unknown message")) ask_plain(77);
    if (!strcmp(part, "restore message")) ask_plain(HELPER_RESTORE_RESULTS);
    if (!strcmp(part, "short question")) ask_plain(HELPER_SWITCH_LOGDIRTY);
    if (!strcmp(part, "gone at answer")) {
        put16(&m, HELPER_SUSPEND);
        send_all(&m);
        return 0;
    }
    if (!strcmp(part, "odd logs")) {
        /* no body, no type, a string without end, a length beyond the message, the longest message */
        send_all(&m);
        put16(&m, HELPER_LOG);
        send_all(&m);
        make_log(&m, "x");
        m.bytes[2 + m.len - 1] = 'y';
        send_all(&m);
        make_log(&m, "x");
        memset(m.bytes + 2 + 10, 0xff, 4);
        send_all(&m);
        make_log(&m, "x");
        m.len = 65535;
        send_in_pieces(&m, 1000);
        return play_good();
    }
    return 99;
}

/* ---- the parent ---- */

static struct {
    libxl__loop *loop;
    libxl__save_callout co;
    libxl__ev_time timer;
    char story[64];
    bool exited, clean, mute;
    uint64_t done, total;
    int stream[2];
} t;

static void answer_later(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__save_callout_reply(&t.co, -7);
}

static void called(libxl__egc *egc, libxl__save_callout *co, enum helper_call what, unsigned arg)
{
    size_t n = strlen(t.story);

    assert_ptr_equal(co->user, &t);
    snprintf(t.story + n, sizeof(t.story) - n, "%d%s", what, arg ? "+" : "");
    if (t.mute)
        libxl__save_callout_terminate(co, 20);
    else if (what == HELPER_CHECKPOINT)
        libxl__ev_time_register_rel(egc->loop, &t.timer, answer_later, 1);
    else
        libxl__save_callout_reply(co, what == HELPER_SWITCH_LOGDIRTY ? 0 : 1);
}

static void progressed(libxl__egc *egc, libxl__save_callout *co, uint64_t done, uint64_t total)
{
    t.done = done;
    t.total = total;
}

static void exited(libxl__egc *egc, libxl__save_callout *co, bool clean)
{
    assert_false(t.exited);
    assert_false(libxl__save_callout_inuse(co));
    t.exited = true;
    t.clean = clean;
}

static int setup(void **state)
{
    memset(&t, 0, sizeof(t));
    libxl__ev_time_init(&t.timer);
    libxl__save_callout_init(&t.co);
    if (pipe2(t.stream, O_CLOEXEC) || libxl__loop_new(&t.loop, NULL, NULL)) return -1;
    t.co.loop = t.loop;
    t.co.domid = 42;
    t.co.stream_fd = t.stream[1];
    t.co.user = &t;
    t.co.call = called;
    t.co.progress = progressed;
    t.co.exited = exited;
    return 0;
}

static int teardown(void **state)
{
    libxl__save_callout_dispose(&t.co);
    libxl__save_callout_dispose(&t.co);
    libxl__loop_free(t.loop);
    close(t.stream[0]);
    close(t.stream[1]);
    return 0;
}

static void run(const char *part)
{
    setenv("FAKE_HELPER", part, 1);
    assert_int_equal(libxl__save_callout_start(&t.co), 0);
    assert_true(libxl__save_callout_inuse(&t.co));
    assert_int_equal(libxl__loop_run(t.loop, &t.exited), 0);
}

static void t_helper_asks_all_answers_reach_it(void **state)
{
    char text[16] = "";

    run("good");
    assert_true(t.clean);
    assert_string_equal(t.story, "347+5");
    assert_int_equal(t.done, 5);
    assert_int_equal(t.total, 9);
    assert_int_equal(read(t.stream[0], text, sizeof(text)), 6);
    assert_string_equal(text, "stream");
}

static void t_helper_odd_logs_are_ignored(void **state)
{
    run("odd logs");
    assert_true(t.clean);
    assert_string_equal(t.story, "347+5");
}

static void t_helper_exit_status_after_complete_is_not_clean(void **state)
{
    run("completes and fails");
    assert_false(t.clean);
}

static void t_helper_exits_without_complete_is_not_clean(void **state)
{
    run("silent");
    assert_false(t.clean);
    assert_string_equal(t.story, "");
}

static void t_helper_killed_is_not_clean(void **state)
{
    run("killed");
    assert_false(t.clean);
}

static void t_helper_strange_message_is_killed(void **state)
{
    static const char *const parts[] = {"unknown message", "restore message", "short question"};

    for (int i = 0; i < 3; i++) {
        run(parts[i]);
        assert_false(t.clean);
        assert_string_equal(t.story, "");
        teardown(state);
        assert_int_equal(setup(state), 0);
    }
}

static void t_helper_gone_at_answer_only_exits(void **state)
{
    run("gone at answer");
    assert_false(t.clean);
    assert_string_equal(t.story, "3");
}

static void t_helper_ignores_sigterm_is_killed_after_grace(void **state)
{
    t.mute = true;
    run("stubborn");
    assert_false(t.clean);
    assert_string_equal(t.story, "3");
    libxl__save_callout_terminate(&t.co, 10);
}

static void t_helper_missing_file_is_an_exit(void **state)
{
    char before[4096];

    snprintf(before, sizeof(before), "%s", getenv("LIBXL_SAVE_HELPER"));
    setenv("LIBXL_SAVE_HELPER", "/nonexistent/helper", 1);
    run("good");
    assert_false(t.clean);
    setenv("LIBXL_SAVE_HELPER", before, 1);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_helper_asks_all_answers_reach_it),
        T(t_helper_odd_logs_are_ignored),
        T(t_helper_exit_status_after_complete_is_not_clean),
        T(t_helper_exits_without_complete_is_not_clean),
        T(t_helper_killed_is_not_clean),
        T(t_helper_strange_message_is_killed),
        T(t_helper_gone_at_answer_only_exits),
        T(t_helper_ignores_sigterm_is_killed_after_grace),
        T(t_helper_missing_file_is_an_exit),
    };
    char self[4096] = "";

    if (argc > 1 && !strcmp(argv[1], "--save-domain"))
        return play(getenv("FAKE_HELPER"), argc, argv);
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0) return 1;
    setenv("LIBXL_SAVE_HELPER", self, 1);
    signal(SIGPIPE, SIG_IGN);
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
