/* SPDX-License-Identifier: LGPL-2.1-only */
/* The control socket: its server on the loop, clients by hand and through libxl__control_call. */
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_control.h"

struct fixture {
    int64_t now_ms;
    libxl__loop *loop;
    libxl__gc gc;
    libxl__control ctl;
    int requests;
    unsigned id;
    bool answer_at_once, dispose_at_once;
    char line[300], dir[64];
};

static int64_t fake_now(void *user)
{
    return ((struct fixture *)user)->now_ms;
}

static void fake_advance(void *user, int64_t until_ms)
{
    poll(NULL, 0, 1);
}

static void request(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
    struct fixture *f = ctl->user;

    f->requests++;
    f->id = id;
    snprintf(f->line, sizeof(f->line), "%s", line);
    if (f->dispose_at_once)
        libxl__control_dispose(ctl);
    else if (f->answer_at_once)
        libxl__control_reply(ctl, id, "ok done");
}

static void init_control(struct fixture *f, libxl__control *ctl)
{
    libxl__control_init(ctl);
    ctl->loop = f->loop;
    ctl->side = "primary";
    ctl->domain = "guest";
    ctl->user = f;
    ctl->request = request;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    libxl__clock clock = {fake_now, fake_advance, f};

    strcpy(f->dir, "/tmp/control_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    strcat(f->dir, "/run");
    setenv("XENTWIN_RUN_DIR", f->dir, 1);
    assert_int_equal(libxl__loop_new(&f->loop, NULL, &clock), 0);
    libxl__gc_init(&f->gc, NULL);
    init_control(f, &f->ctl);
    *state = f;
    return 0;
}

static char *path_of(struct fixture *f, const char *name)
{
    return libxl__sprintf(&f->gc, "%s/%s", f->dir, name);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    libxl__control_dispose(&f->ctl);
    libxl__control_dispose(&f->ctl);
    /* Nothing of ours is left, except in tests that put it there themselves. */
    assert_int_equal(access(path_of(f, "primary-guest.lock"), F_OK), -1);
    assert_int_equal(access(path_of(f, "primary-guest.sock"), F_OK), -1);
    libxl__loop_free(f->loop);
    rmdir(f->dir);
    *strrchr(f->dir, '/') = 0;
    rmdir(f->dir);
    libxl__gc_dispose(&f->gc);
    free(f);
    return 0;
}

static void turns(struct fixture *f, int n)
{
    while (n--)
        assert_int_equal(libxl__loop_once(f->loop, 0), 0);
}

static void start(struct fixture *f)
{
    assert_int_equal(libxl__control_start(&f->ctl), 0);
}

static int dial(struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    strcpy(addr.sun_path, path_of(f, "primary-guest.sock"));
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static int say(struct fixture *f, const char *text)
{
    int fd = dial(f);

    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    turns(f, 3);
    return fd;
}

/* What came and the end of file, or NULL while it is open and silent. */
static const char *heard(struct fixture *f, int fd)
{
    static char buf[70000];
    size_t used = 0;

    for (;;) {
        ssize_t n = read(fd, buf + used, sizeof(buf) - 1 - used);
        if (n < 0 && errno == EAGAIN) return NULL;
        if (n <= 0) break;
        used += (size_t)n;
    }
    buf[used] = 0;
    close(fd);
    return buf;
}

static void t_request_answered_at_once_and_later(void **state)
{
    struct fixture *f = *state;

    start(f);
    f->answer_at_once = true;
    assert_string_equal(heard(f, say(f, "stop\n")), "ok done\n");
    assert_string_equal(f->line, "stop");
    f->answer_at_once = false;
    int fd = say(f, "discard now please\n");
    assert_string_equal(f->line, "discard now please");
    assert_null(heard(f, fd));
    libxl__control_reply(&f->ctl, f->id + 7, "ok wrong");
    libxl__control_reply(&f->ctl, f->id, "ok at last");
    libxl__control_reply(&f->ctl, f->id, "ok twice");
    assert_string_equal(heard(f, fd), "ok at last\n");
}

static void t_request_byte_by_byte_is_one_request(void **state)
{
    struct fixture *f = *state;

    start(f);
    int fd = dial(f);
    for (const char *s = "status\n"; *s; s++) {
        assert_int_equal(f->requests, 0);
        assert_int_equal(write(fd, s, 1), 1);
        turns(f, 2);
    }
    assert_int_equal(f->requests, 1);
    libxl__control_reply(&f->ctl, f->id, "epoch 1\nheld 2\n");
    assert_string_equal(heard(f, fd), "epoch 1\nheld 2\n");
}

static void t_request_of_256_bytes_passes_257_refused(void **state)
{
    struct fixture *f = *state;
    char text[300];

    start(f);
    f->answer_at_once = true;
    memset(text, 'a', sizeof(text));
    strcpy(text + 256, "\n");
    assert_string_equal(heard(f, say(f, text)), "ok done\n");
    assert_int_equal(strlen(f->line), 256);
    memset(text, 'a', sizeof(text));
    strcpy(text + 257, "\n");
    assert_non_null(strstr(heard(f, say(f, text)), "too long"));
    assert_int_equal(f->requests, 1);
}

static void t_request_with_garbage_refused(void **state)
{
    struct fixture *f = *state;

    start(f);
    assert_non_null(strstr(heard(f, say(f, "stop\nstop\n")), "error"));
    assert_non_null(strstr(heard(f, say(f, "st\033op\n")), "error"));
    int fd = dial(f);
    assert_int_equal(write(fd, "st\0op\n", 6), 6);
    turns(f, 3);
    assert_non_null(strstr(heard(f, fd), "error"));
    assert_int_equal(f->requests, 0);
}

static void t_client_silent_dropped_after_limit(void **state)
{
    struct fixture *f = *state;

    start(f);
    int fd = say(f, "sto");
    f->now_ms += 4999;
    turns(f, 1);
    assert_null(heard(f, fd));
    f->now_ms += 1;
    turns(f, 1);
    assert_non_null(strstr(heard(f, fd), "error"));
}

static void t_client_gone_before_answer_is_forgotten(void **state)
{
    struct fixture *f = *state;

    start(f);
    close(say(f, "stop\n"));
    turns(f, 2);
    libxl__control_reply(&f->ctl, f->id, "ok");
    f->answer_at_once = true;
    assert_string_equal(heard(f, say(f, "stop\n")), "ok done\n");
}

static void t_client_half_closed_still_gets_answer(void **state)
{
    struct fixture *f = *state;

    start(f);
    int fd = say(f, "stop\n");
    shutdown(fd, SHUT_WR);
    turns(f, 3);
    libxl__control_reply(&f->ctl, f->id, "ok late");
    assert_string_equal(heard(f, fd), "ok late\n");
}

static void t_clients_above_limit_told_busy(void **state)
{
    struct fixture *f = *state;
    int fds[16];

    start(f);
    for (int i = 0; i < 16; i++) {
        fds[i] = say(f, "stop\n");
        shutdown(fds[i], SHUT_WR);
        turns(f, 2);
    }
    assert_int_equal(f->requests, 16);
    assert_string_equal(heard(f, say(f, "stop\n")), "error busy\n");
    /* The place of one that has gone away silently is used again. */
    close(fds[3]);
    int fd = say(f, "status\n");
    assert_int_equal(f->requests, 17);
    libxl__control_dispose(&f->ctl);
    assert_string_equal(heard(f, fd), "error ended\n");
    for (int i = 0; i < 16; i++)
        if (i != 3) assert_string_equal(heard(f, fds[i]), "error ended\n");
}

/* With no descriptor left it looks again after a second, not with each turn. */
static void t_accept_short_of_descriptors_waits_a_second(void **state)
{
    struct fixture *f = *state;
    struct rlimit before, none;

    f->answer_at_once = true;
    start(f);
    int fd = dial(f);
    assert_int_equal(write(fd, "status\n", 7), 7);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    /* The lowest descriptor is the first that is free. */
    none = (struct rlimit){.rlim_cur = (rlim_t)fd + 1, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    turns(f, 3);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    turns(f, 3);
    assert_int_equal(f->requests, 0);
    f->now_ms += 1000;
    turns(f, 5);
    assert_int_equal(f->requests, 1);
    assert_string_equal(heard(f, fd), "ok done\n");
}

static void t_dispose_inside_request_answers_ended(void **state)
{
    struct fixture *f = *state;

    start(f);
    f->dispose_at_once = true;
    assert_string_equal(heard(f, say(f, "stop\n")), "error ended\n");
}

static void t_start_second_operation_lock_fail(void **state)
{
    struct fixture *f = *state;
    libxl__control other;

    start(f);
    init_control(f, &other);
    assert_int_equal(libxl__control_start(&other), ERROR_LOCK_FAIL);
    libxl__control_dispose(&other);
    /* The first one was not harmed. */
    f->answer_at_once = true;
    assert_string_equal(heard(f, say(f, "stop\n")), "ok done\n");
}

/* An operation in a process of its own, which holds the socket. */
static pid_t start_elsewhere(struct fixture *f)
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (!pid) {
        char c = libxl__control_start(&f->ctl) ? 'n' : 'y';
        (void)!write(ready[1], &c, 1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void kill_there(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void t_sweep_removes_what_a_killed_process_left_only(void **state)
{
    struct fixture *f = *state;
    libxl__gc *gc = libxl__loop_gc(f->ctl.loop);
    pid_t pid = start_elsewhere(f);

    libxl__control_sweep(gc, "primary", "guest");
    assert_int_equal(access(path_of(f, "primary-guest.sock"), F_OK), 0);
    kill_there(pid);
    libxl__control_sweep(gc, "backup", "guest");
    assert_int_equal(access(path_of(f, "primary-guest.sock"), F_OK), 0);
    libxl__control_sweep(gc, "primary", "guest");
    assert_int_equal(access(path_of(f, "primary-guest.sock"), F_OK), -1);
    assert_int_equal(access(path_of(f, "primary-guest.lock"), F_OK), -1);
    assert_int_equal(access(path_of(f, "backup-guest.lock"), F_OK), -1);
}

static void t_start_after_killed_process_replaces_stale_socket(void **state)
{
    struct fixture *f = *state;
    pid_t pid = start_elsewhere(f);

    assert_int_equal(libxl__control_start(&f->ctl), ERROR_LOCK_FAIL);
    kill_there(pid);
    assert_int_equal(access(path_of(f, "primary-guest.sock"), F_OK), 0);
    start(f);
    f->answer_at_once = true;
    assert_string_equal(heard(f, say(f, "stop\n")), "ok done\n");
}

static void t_start_socket_and_folder_are_private(void **state)
{
    struct fixture *f = *state;
    struct stat st;

    start(f);
    assert_int_equal(stat(f->dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(path_of(f, "primary-guest.sock"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void t_start_folder_of_others_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(mkdir(f->dir, 0700), 0);
    assert_int_equal(chmod(f->dir, 0777), 0);
    assert_int_equal(libxl__control_start(&f->ctl), ERROR_FAIL);
    rmdir(f->dir);
    assert_int_equal(symlink("/tmp", f->dir), 0);
    assert_int_equal(libxl__control_start(&f->ctl), ERROR_FAIL);
    unlink(f->dir);
}

static void t_start_bad_names_refused(void **state)
{
    static const char *const bad[] = {
        "",    ".",   "..",
        ".a",  "a/b", "../x",
        "a b", "a\n", "0123456789012345678901234567890123456789012345678901234567890123x"};
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        f->ctl.domain = bad[i];
        assert_int_equal(libxl__control_start(&f->ctl), ERROR_INVAL);
    }
    f->ctl.domain = "guest";
    f->ctl.side = "third";
    assert_int_equal(libxl__control_start(&f->ctl), ERROR_INVAL);
}

/* ---- the client ---- */

static void t_call_nobody_listens_notfound(void **state)
{
    struct fixture *f = *state;
    char *answer = NULL;

    assert_int_equal(libxl__control_call(&f->gc, "primary", "guest", "stop", 100, &answer),
                     ERROR_NOTFOUND);
    assert_int_equal(libxl__control_call(&f->gc, "primary", "a/b", "stop", 100, &answer),
                     ERROR_INVAL);
    assert_int_equal(libxl__control_call(&f->gc, "primary", "guest", "stop\nx", 100, &answer),
                     ERROR_INVAL);
}

static void t_call_gets_answer(void **state)
{
    struct fixture *f = *state;
    char *answer = NULL;
    int status;

    start(f);
    pid_t pid = fork();
    if (!pid) {
        int rc = libxl__control_call(&f->gc, "primary", "guest", "stop", 5000, &answer);
        _exit(rc || strcmp(answer, "ok done"));
    }
    f->answer_at_once = true;
    while (!f->requests)
        assert_int_equal(libxl__loop_once(f->loop, 10), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void t_call_no_answer_times_out(void **state)
{
    struct fixture *f = *state;
    char *answer = NULL;

    start(f);
    assert_int_equal(libxl__control_call(&f->gc, "primary", "guest", "stop", 30, &answer),
                     ERROR_TIMEDOUT);
    turns(f, 3);
}

static void t_call_big_answer_whole(void **state)
{
    struct fixture *f = *state;
    char *answer = NULL, *big = libxl__zalloc(&f->gc, 60001);
    int status;

    memset(big, 'x', 60000);
    start(f);
    pid_t pid = fork();
    if (!pid) {
        int rc = libxl__control_call(&f->gc, "primary", "guest", "status", 5000, &answer);
        _exit(rc || strcmp(answer, big));
    }
    while (!f->requests)
        assert_int_equal(libxl__loop_once(f->loop, 10), 0);
    libxl__control_reply(&f->ctl, f->id, big);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_request_answered_at_once_and_later),
        T(t_request_byte_by_byte_is_one_request),
        T(t_request_of_256_bytes_passes_257_refused),
        T(t_request_with_garbage_refused),
        T(t_client_silent_dropped_after_limit),
        T(t_client_gone_before_answer_is_forgotten),
        T(t_client_half_closed_still_gets_answer),
        T(t_clients_above_limit_told_busy),
        T(t_accept_short_of_descriptors_waits_a_second),
        T(t_dispose_inside_request_answers_ended),
        T(t_start_second_operation_lock_fail),
        T(t_start_after_killed_process_replaces_stale_socket),
        T(t_sweep_removes_what_a_killed_process_left_only),
        T(t_start_socket_and_folder_are_private),
        T(t_start_folder_of_others_refused),
        T(t_start_bad_names_refused),
        T(t_call_nobody_listens_notfound),
        T(t_call_gets_answer),
        T(t_call_no_answer_times_out),
        T(t_call_big_answer_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
