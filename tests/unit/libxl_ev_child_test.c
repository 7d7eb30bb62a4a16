/* SPDX-License-Identifier: LGPL-2.1-only */
/* Children of the loop; real processes, so the real clock, but nobody sleeps. */
#include <errno.h>
#include <fcntl.h>
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
#include <libxl.h>

#include "libxl_ev.h"

struct child {
    libxl__ev_child ev;
    pid_t pid;
    int status;
    bool done;
    struct child *next; /* started by the callback of this one */
};

static int setup(void **state)
{
    libxl__loop *loop;

    if (libxl__loop_new(&loop, NULL, NULL)) return -1;
    *state = loop;
    return 0;
}

static int teardown(void **state)
{
    libxl__loop_free(*state);
    return 0;
}

static void start_exit(libxl__loop *loop, struct child *c, int status);

static void ended(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    struct child *c = CONTAINER_OF(ev, struct child, ev);

    assert_false(libxl__ev_child_inuse(ev));
    assert_int_equal(pid, c->pid);
    assert_false(c->done);
    c->status = status;
    c->done = true;
    if (c->next) start_exit(egc->loop, c->next, 5);
}

/* In the child it returns 0. */
static pid_t start(libxl__loop *loop, struct child *c)
{
    libxl__ev_child_init(&c->ev);
    c->done = false;
    c->pid = libxl__ev_child_fork(loop, &c->ev, ended);
    assert_true(c->pid >= 0);
    return c->pid;
}

static void start_exit(libxl__loop *loop, struct child *c, int status)
{
    if (!start(loop, c)) _exit(status);
}

static void t_child_exits_status_is_given(void **state)
{
    struct child c = {0};

    start_exit(*state, &c, 7);
    assert_true(libxl__ev_child_inuse(&c.ev));
    assert_int_equal(libxl__loop_run(*state, &c.done), 0);
    assert_true(WIFEXITED(c.status) && WEXITSTATUS(c.status) == 7);
    assert_int_equal(waitpid(c.pid, NULL, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
}

static void t_child_killed_signal_is_given(void **state)
{
    struct child c = {0};

    if (!start(*state, &c)) {
        for (;;)
            pause();
    }
    assert_int_equal(kill(c.pid, SIGKILL), 0);
    assert_int_equal(libxl__loop_run(*state, &c.done), 0);
    assert_true(WIFSIGNALED(c.status) && WTERMSIG(c.status) == SIGKILL);
}

static void t_child_reaped_by_another_status_is_lost(void **state)
{
    struct child c = {0};

    start_exit(*state, &c, 3);
    assert_int_equal(waitpid(c.pid, NULL, 0), c.pid);
    assert_int_equal(libxl__loop_run(*state, &c.done), 0);
    assert_int_equal(c.status, -1);
}

static void t_child_sigchld_ignored_status_is_lost(void **state)
{
    sighandler_t before = signal(SIGCHLD, SIG_IGN);

    /* Often, because a child that is gone at once must not look like a failed fork. */
    for (int i = 0; i < 50; i++) {
        struct child c = {0};

        start_exit(*state, &c, 3);
        assert_int_equal(libxl__loop_run(*state, &c.done), 0);
        assert_int_equal(c.status, -1);
    }
    signal(SIGCHLD, before);
}

static void t_children_many_each_has_its_status(void **state)
{
    struct child c[12] = {0};

    for (int i = 0; i < 12; i++)
        start_exit(*state, &c[i], i);
    for (int i = 0; i < 12; i++) {
        assert_int_equal(libxl__loop_run(*state, &c[i].done), 0);
        assert_int_equal(WEXITSTATUS(c[i].status), i);
    }
}

static void t_child_started_in_callback_runs(void **state)
{
    struct child second = {0}, first = {.next = &second};

    start_exit(*state, &first, 0);
    assert_int_equal(libxl__loop_run(*state, &second.done), 0);
    assert_int_equal(WEXITSTATUS(second.status), 5);
}

static volatile sig_atomic_t handled;

static void handler(int sig)
{
    handled = 1;
}

static void t_child_signals_are_default_but_ignored_stay(void **state)
{
    struct child c = {0};
    sigset_t usr2, mask;

    signal(SIGUSR1, handler);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&usr2);
    sigaddset(&usr2, SIGUSR2);
    sigprocmask(SIG_BLOCK, &usr2, NULL);
    if (!start(*state, &c)) {
        int ok = signal(SIGUSR1, SIG_DFL) == SIG_DFL && signal(SIGPIPE, SIG_DFL) == SIG_DFL &&
                 signal(SIGHUP, SIG_DFL) == SIG_IGN;

        sigprocmask(SIG_BLOCK, NULL, &mask);
        _exit(ok && !sigismember(&mask, SIGUSR2) ? 0 : 1);
    }
    sigprocmask(SIG_UNBLOCK, &usr2, &mask);
    assert_true(sigismember(&mask, SIGUSR2));
    assert_true(signal(SIGUSR1, SIG_DFL) == handler);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    assert_int_equal(libxl__loop_run(*state, &c.done), 0);
    assert_int_equal(c.status, 0);
}

/* ---- exec ---- */

#define GIVEN_FD 177

/* Reads to the end, as text, and closes. */
static void read_all(int fd, char *text, size_t room)
{
    size_t used = 0;
    ssize_t n = 1;

    for (; n > 0; used += n) {
        n = read(fd, text + used, room - 1 - used);
        assert_true(n >= 0);
    }
    text[used] = 0;
    close(fd);
}

/* Runs a shell line with a pipe as the given standard files; returns what it wrote. */
static const char *shell(libxl__loop *loop, char *line, bool out, bool err, int *status)
{
    char *argv[] = {(char *)"sh", (char *)"-c", line, NULL};
    static char text[512];
    struct child c = {0};
    int p[2];

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    /* Without close-on-exec: it is moved, not copied. */
    assert_int_equal(dup2(p[1], GIVEN_FD), GIVEN_FD);
    close(p[1]);
    if (!start(loop, &c)) libxl__exec(-1, out ? GIVEN_FD : -1, err ? GIVEN_FD : -1, "sh", argv);
    close(GIVEN_FD);
    read_all(p[0], text, sizeof(text));
    assert_int_equal(libxl__loop_run(loop, &c.done), 0);
    *status = c.status;
    return text;
}

static void t_exec_minus_one_is_dev_null(void **state)
{
    int status;

    assert_string_equal(
        shell(*state, (char *)"cat; echo err >&2; echo out; exit 4", true, false, &status),
        "out\n");
    assert_int_equal(WEXITSTATUS(status), 4);
    assert_string_equal(shell(*state, (char *)"echo out; echo err >&2", false, true, &status),
                        "err\n");
}

static void t_exec_same_fd_twice_works(void **state)
{
    int status;

    assert_string_equal(shell(*state, (char *)"printf a; printf b >&2", true, true, &status), "ab");
    assert_int_equal(status, 0);
}

static void t_exec_given_file_is_moved(void **state)
{
    int status;

    assert_string_equal(shell(*state, (char *)"test -e /proc/$$/fd/1 && ! test -e /proc/$$/fd/177",
                              true, false, &status),
                        "");
    assert_int_equal(status, 0);
}

static void t_exec_swapped_standard_files_do_not_overwrite(void **state)
{
    char *argv[] = {(char *)"sh", (char *)"-c", (char *)"cat; echo two >&2", NULL};
    char text[64] = "";
    struct child c = {0};
    int in[2], out[2];

    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    if (!start(*state, &c)) {
        /* stdin comes from fd 2 and stdout goes to fd 0 */
        dup2(in[0], 2);
        dup2(out[1], 0);
        libxl__exec(2, 0, 0, "sh", argv);
    }
    assert_int_equal(write(in[1], "one\n", 4), 4);
    close(in[0]);
    close(in[1]);
    close(out[1]);
    read_all(out[0], text, sizeof(text));
    assert_string_equal(text, "one\ntwo\n");
    assert_int_equal(libxl__loop_run(*state, &c.done), 0);
    assert_int_equal(c.status, 0);
}

static void t_exec_missing_file_says_so_and_exits_127(void **state)
{
    char *argv[] = {(char *)"x", NULL};
    char text[256] = "";
    struct child c = {0};
    int p[2];

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    if (!start(*state, &c)) libxl__exec(-1, -1, p[1], "/nonexistent/xentwin", argv);
    close(p[1]);
    read_all(p[0], text, sizeof(text));
    assert_string_equal(text,
                        "xentwin: cannot run /nonexistent/xentwin: No such file or directory\n");
    assert_int_equal(libxl__loop_run(*state, &c.done), 0);
    assert_int_equal(WEXITSTATUS(c.status), 127);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_child_exits_status_is_given),
        T(t_child_killed_signal_is_given),
        T(t_child_reaped_by_another_status_is_lost),
        T(t_child_sigchld_ignored_status_is_lost),
        T(t_children_many_each_has_its_status),
        T(t_child_started_in_callback_runs),
        T(t_child_signals_are_default_but_ignored_stay),
        T(t_exec_minus_one_is_dev_null),
        T(t_exec_same_fd_twice_works),
        T(t_exec_given_file_is_moved),
        T(t_exec_swapped_standard_files_do_not_overwrite),
        T(t_exec_missing_file_says_so_and_exits_127),
    };
    alarm(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
