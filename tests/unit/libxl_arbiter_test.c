/* SPDX-License-Identifier: LGPL-2.1-only */
/* The rule, the arbiter command and its limits, on a fake clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libxl_arbiter.h"

/* Time stands still while a real command has to answer, and jumps to the next timer otherwise. */
struct fake_clock {
    int64_t now_ms;
    bool still;
};

struct fixture {
    struct fake_clock clock;
    libxl__loop *loop;
    libxl__arbiter a;
    int verdicts;
    bool granted, done;
    int64_t at_ms;
    char why[300], dir[64], file[80];
};

static int64_t fake_now(void *user)
{
    return ((struct fake_clock *)user)->now_ms;
}

static void fake_advance(void *user, int64_t until_ms)
{
    struct fake_clock *c = user;

    if (c->still || until_ms == INT64_MAX)
        poll(NULL, 0, 1); /* a real child is on its way */
    else
        c->now_ms = until_ms;
}

static void verdict(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why)
{
    struct fixture *f = a->user;

    f->verdicts++;
    f->granted = granted;
    f->at_ms = f->clock.now_ms;
    snprintf(f->why, sizeof(f->why), "%s", why);
    f->done = true;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    libxl__clock clock = {fake_now, fake_advance, &f->clock};

    f->clock.now_ms = 1000;
    f->clock.still = true;
    assert_int_equal(libxl__loop_new(&f->loop, NULL, &clock), 0);
    libxl__arbiter_init(&f->a);
    f->a.loop = f->loop;
    f->a.user = f;
    f->a.verdict = verdict;
    f->a.c = (struct arbiter_case){.rule = LINK_LOSS_PRIMARY,
                                   .domain = "guest one",
                                   .self = "hostA",
                                   .peer = "hostB",
                                   .session = "s-1",
                                   .epoch = 42,
                                   .primary = true,
                                   .limit_ms = 3000};
    strcpy(f->dir, "/tmp/arbiter_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof(f->file), "%s/out", f->dir);
    setenv("TEST_FILE", f->file, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    libxl__arbiter_dispose(&f->a);
    libxl__arbiter_dispose(&f->a);
    libxl__loop_free(f->loop);
    unlink(f->file);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void ask(struct fixture *f)
{
    f->done = false;
    assert_int_equal(libxl__arbiter_ask(&f->a), 0);
    assert_int_equal(f->verdicts, 0);
    assert_int_equal(libxl__loop_run(f->loop, &f->done), 0);
    assert_int_equal(f->verdicts, 1);
}

static void read_file(struct fixture *f, char *buf, size_t size)
{
    FILE *fp = fopen(f->file, "r");

    assert_non_null(fp);
    buf[fread(buf, 1, size - 1, fp)] = 0;
    fclose(fp);
}

static void t_rule_without_command_table(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 4; i++) {
        f->verdicts = 0;
        f->a.c.rule = i & 1 ? LINK_LOSS_BACKUP : LINK_LOSS_PRIMARY;
        f->a.c.primary = !(i & 2);
        ask(f);
        assert_int_equal(f->granted, f->a.c.primary == (f->a.c.rule == LINK_LOSS_PRIMARY));
        assert_int_equal(f->at_ms, 1000);
    }
}

static void t_command_exit_zero_grants(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "true";
    ask(f);
    assert_true(f->granted);
}

static void t_command_exit_one_refuses_with_its_words(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "echo first; echo held by hostB >&2; exit 3;";
    ask(f);
    assert_false(f->granted);
    assert_non_null(strstr(f->why, "exit 3"));
    assert_non_null(strstr(f->why, "held by hostB"));
    assert_null(strstr(f->why, "first"));
}

static void t_command_killed_by_signal_refuses(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "kill -9 $$;";
    ask(f);
    assert_false(f->granted);
}

static void t_command_missing_refuses(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "/nonexistent/arbiter";
    ask(f);
    assert_false(f->granted);
    assert_non_null(strstr(f->why, "exit 127"));
}

static void t_command_gets_arguments_and_environment(void **state)
{
    struct fixture *f = *state;
    char buf[512];

    f->a.c.domain = "gu'est; \"$(rm)\"";
    f->a.c.command = "f() { printf '%s|' \"$#\" \"$@\" \"$XENTWIN_DOMAIN\" \"$XENTWIN_SELF\" "
                     "\"$XENTWIN_PEER\" \"$XENTWIN_EPOCH\" \"$XENTWIN_ROLE\" \"$XENTWIN_SESSION\" "
                     ">$TEST_FILE; }; f";
    ask(f);
    assert_true(f->granted);
    read_file(f, buf, sizeof(buf));
    assert_string_equal(buf, "6|gu'est; \"$(rm)\"|hostA|hostB|42|primary|s-1|"
                             "gu'est; \"$(rm)\"|hostA|hostB|42|primary|s-1|");
}

static void t_command_inherits_no_descriptor(void **state)
{
    struct fixture *f = *state;
    char buf[512];
    int fd = dup(0);

    assert_true(fd > 2);
    f->a.c.command = "ls -l /proc/self/fd >$TEST_FILE; true";
    ask(f);
    close(fd);
    read_file(f, buf, sizeof(buf));
    assert_non_null(strstr(buf, " 0 -> /dev/null"));
    /* ls itself opens the folder as 3. */
    assert_null(strstr(buf, " 4 -> "));
}

static void t_command_second_asker_waits_limit(void **state)
{
    struct fixture *f = *state;

    f->clock.still = false;
    f->a.c.rule = LINK_LOSS_BACKUP;
    f->a.c.command = "true";
    assert_int_equal(libxl__arbiter_ask(&f->a), 0);
    while (!f->a.running)
        assert_int_equal(libxl__loop_once(f->loop, -1), 0);
    assert_int_equal(f->clock.now_ms, 4000);
    f->clock.still = true;
    assert_int_equal(libxl__loop_run(f->loop, &f->done), 0);
    assert_true(f->granted);
}

static void t_command_preferred_asker_asks_at_once(void **state)
{
    struct fixture *f = *state;

    f->a.c.rule = LINK_LOSS_BACKUP;
    f->a.c.primary = false;
    f->a.c.command = "true";
    ask(f);
    assert_int_equal(f->at_ms, 1000);
}

/* The group goes with it: nothing of the command may fence anybody later. */
static void t_command_without_answer_killed_with_its_children(void **state)
{
    struct fixture *f = *state;
    char buf[64] = "";
    pid_t grandchild;

    f->a.c.limit_ms = 500;
    f->a.c.command = "sleep 100 & echo $! >$TEST_FILE; echo waiting; wait;";
    assert_int_equal(libxl__arbiter_ask(&f->a), 0);
    while (f->a.said_len == 0)
        assert_int_equal(libxl__loop_once(f->loop, -1), 0);
    f->clock.now_ms += 9999;
    assert_int_equal(libxl__loop_once(f->loop, 0), 0);
    assert_false(f->a.killed);
    f->clock.now_ms += 1;
    assert_int_equal(libxl__loop_run(f->loop, &f->done), 0);
    assert_false(f->granted);
    assert_non_null(strstr(f->why, "no answer in 10000 ms"));
    read_file(f, buf, sizeof(buf));
    grandchild = atoi(buf);
    assert_true(grandchild > 1);
    for (int i = 0; i < 1000 && !kill(grandchild, 0); i++) {
        char path[64], stat[256] = "";
        snprintf(path, sizeof(path), "/proc/%d/stat", grandchild);
        int fd = open(path, O_RDONLY);
        if (fd < 0) break;
        (void)!read(fd, stat, sizeof(stat) - 1);
        close(fd);
        if (strstr(stat, ") Z ")) return; /* dead; its new parent has not reaped it yet */
        poll(NULL, 0, 1);
    }
    assert_int_equal(kill(grandchild, 0), -1);
}

static void t_command_flood_of_output_is_bounded(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "head -c 300000 /dev/zero | tr '\\0' x; printf '\\033[2J'; exit 1;";
    ask(f);
    assert_false(f->granted);
    assert_true(strlen(f->why) < 256);
    for (const char *s = f->why; *s; s++)
        assert_true(*s >= 0x20 && *s < 0x7f);
}

static void t_command_leaves_background_child_still_answers(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "sleep 1 & true";
    ask(f);
    assert_true(f->granted);
}

static void t_dispose_while_running_gives_no_verdict(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "sleep 100";
    assert_int_equal(libxl__arbiter_ask(&f->a), 0);
    while (!f->a.running)
        assert_int_equal(libxl__loop_once(f->loop, -1), 0);
    pid_t pid = *(pid_t *)f->a.running;
    libxl__arbiter_dispose(&f->a);
    assert_null(f->a.running);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(libxl__loop_once(f->loop, 0), 0);
    assert_int_equal(f->verdicts, 0);
}

static void t_dispose_before_command_gives_no_verdict(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(libxl__arbiter_ask(&f->a), 0);
    libxl__arbiter_dispose(&f->a);
    assert_int_equal(libxl__loop_once(f->loop, 0), 0);
    assert_int_equal(f->verdicts, 0);
}

static void t_ask_twice_after_another_works(void **state)
{
    struct fixture *f = *state;

    f->a.c.command = "exit 1;";
    ask(f);
    assert_false(f->granted);
    f->verdicts = 0;
    f->a.c.command = "true";
    ask(f);
    assert_true(f->granted);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_rule_without_command_table),
        T(t_command_exit_zero_grants),
        T(t_command_exit_one_refuses_with_its_words),
        T(t_command_killed_by_signal_refuses),
        T(t_command_missing_refuses),
        T(t_command_gets_arguments_and_environment),
        T(t_command_inherits_no_descriptor),
        T(t_command_second_asker_waits_limit),
        T(t_command_preferred_asker_asks_at_once),
        T(t_command_without_answer_killed_with_its_children),
        T(t_command_flood_of_output_is_bounded),
        T(t_command_leaves_background_child_still_answers),
        T(t_dispose_while_running_gives_no_verdict),
        T(t_dispose_before_command_gives_no_verdict),
        T(t_ask_twice_after_another_works),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
