/* SPDX-License-Identifier: LGPL-2.1-only */
/* The helper's side of its talk: bytes out, answers in, and a parent that is gone. */
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

#include "libxl_save_msgs.h"

static int answers[2], messages[2];

static int setup(void **state)
{
    if (pipe2(answers, O_CLOEXEC) || pipe2(messages, O_CLOEXEC)) return -1;
    libxl__save_msgs_init(answers[0], messages[1]);
    return 0;
}

static int teardown(void **state)
{
    for (int i = 0; i < 2; i++) {
        close(answers[i]);
        close(messages[i]);
    }
    return 0;
}

static void answer(int value)
{
    assert_int_equal(write(answers[1], &value, sizeof(value)), sizeof(value));
}

/* One message of the parent's end of the pipe; returns the length of the body. */
static size_t receive(unsigned char *body, size_t room)
{
    uint16_t len;

    assert_int_equal(read(messages[0], &len, 2), 2);
    assert_true(len <= room);
    assert_int_equal(read(messages[0], body, len), len);
    return len;
}

static void expect(const void *wanted, size_t len)
{
    unsigned char body[65536];

    assert_int_equal(receive(body, sizeof(body)), len);
    assert_memory_equal(body, wanted, len);
}

static void t_save_questions_are_sent_and_answered(void **state)
{
    struct save_callbacks cb;

    libxl__save_msgs_fill_save(&cb, 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7);
    answer(1);
    assert_int_equal(cb.suspend(NULL), 1);
    expect("\3\0", 2);
    answer(0);
    assert_int_equal(cb.postcopy(NULL), 0);
    expect("\4\0", 2);
    answer(2);
    assert_int_equal(cb.checkpoint(NULL), 2);
    expect("\5\0", 2);
    answer(-1);
    assert_int_equal(cb.switch_qemu_logdirty(0x1234, 1, NULL), -1);
    expect("\7\0\x34\x12\0\0\1\0\0\0", 10);
}

static void t_save_only_wanted_callbacks_are_set(void **state)
{
    struct save_callbacks cb;

    libxl__save_msgs_fill_save(&cb, 1 << 3);
    assert_non_null(cb.suspend);
    assert_null(cb.postcopy);
    assert_null(cb.checkpoint);
    assert_null(cb.switch_qemu_logdirty);
    assert_null(cb.precopy_policy);
}

static void t_restore_messages_have_their_layout(void **state)
{
    struct restore_callbacks cb;

    libxl__save_msgs_fill_restore(&cb, 1 << 5 | 1 << 8 | 1 << 9);
    answer(0);
    assert_int_equal(cb.static_data_done(3, NULL), 0);
    expect("\10\0\3\0\0\0", 6);
    cb.restore_results(0x0102, 0xfffff, NULL);
    expect("\11\0\2\1\0\0\0\0\0\0\xff\xff\x0f\0\0\0\0\0", 18);
    answer(0);
    assert_int_equal(libxl__save_msgs_complete(-1, ENOMEM), 0);
    expect("\12\0\xff\xff\xff\xff\14\0\0\0", 10);
}

static void t_log_keeps_errno_and_layout(void **state)
{
    xentoollog_logger *lg = libxl__save_msgs_logger();

    errno = ENOSPC;
    xtl_log(lg, XTL_ERROR, 5, "xc", "%s %d", "page", 7);
    assert_int_equal(errno, ENOSPC);
    expect("\1\0\10\0\0\0\5\0\0\0\3\0\0\0xc\0\7\0\0\0page 7\0", 28);
    xtl_progress(lg, "xc", "Frames", 5, 10);
    expect("\2\0\3\0\0\0xc\0\7\0\0\0Frames\0\5\0\0\0\0\0\0\0\12\0\0\0\0\0\0\0", 36);
}

static void t_log_long_text_is_cut(void **state)
{
    unsigned char body[65536];
    char *text = calloc(1, 100001);
    size_t len;

    memset(text, 'x', 100000);
    xtl_log(libxl__save_msgs_logger(), XTL_ERROR, -1, "xc", "%s", text);
    free(text);
    len = receive(body, sizeof(body));
    assert_int_equal(len, 2 + 4 + 4 + 4 + 3 + 4 + 1024);
    assert_int_equal(body[len - 1], 0);
    assert_int_equal(body[len - 2], 'x');
}

static void t_parent_closed_answers_every_question_fails(void **state)
{
    struct save_callbacks cb;

    libxl__save_msgs_fill_save(&cb, 1 << 3 | 1 << 7);
    close(answers[1]);
    answers[1] = -1;
    assert_int_equal(cb.suspend(NULL), 0);
    assert_int_equal(errno, EOWNERDEAD);
    assert_int_equal(cb.switch_qemu_logdirty(1, 0, NULL), -1);
    assert_int_equal(libxl__save_msgs_complete(0, 0), -1);
    /* Nothing is sent to it either. */
    expect("\3\0", 2);
    fcntl(messages[0], F_SETFL, O_NONBLOCK);
    assert_int_equal(read(messages[0], &cb, 1), -1);
}

static void t_parent_closed_messages_questions_fail(void **state)
{
    struct save_callbacks cb;

    libxl__save_msgs_fill_save(&cb, 1 << 5);
    close(messages[0]);
    messages[0] = -1;
    answer(1);
    assert_int_equal(cb.checkpoint(NULL), 0);
}

static void t_parent_dies_within_an_answer_fails(void **state)
{
    struct save_callbacks cb;

    libxl__save_msgs_fill_save(&cb, 1 << 5);
    assert_int_equal(write(answers[1], "\1\0", 2), 2);
    close(answers[1]);
    answers[1] = -1;
    assert_int_equal(cb.checkpoint(NULL), 0);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_save_questions_are_sent_and_answered),
        T(t_save_only_wanted_callbacks_are_set),
        T(t_restore_messages_have_their_layout),
        T(t_log_keeps_errno_and_layout),
        T(t_log_long_text_is_cut),
        T(t_parent_closed_answers_every_question_fails),
        T(t_parent_closed_messages_questions_fail),
        T(t_parent_dies_within_an_answer_fails),
    };

    signal(SIGPIPE, SIG_IGN);
    alarm(30);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
