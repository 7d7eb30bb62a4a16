/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The n-th call to the system under the control socket fails, n = 1, 2, ..., at the operation's end (it listens, is asked twice and ends)
 * and at the asker's.
 *
 * Demanded each time: whoever asks has an answer or an error within the limit, the operation is asked at most once for it, a failure
 * costs no more than one asker, the next operation for the same domain can listen, and no file or descriptor is left.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

#include "fault_calls.h"
#include "libxl_control.h"

#define CALLS_MAX 200
#define ASK_LIMIT_MS 2000
#define ASKERS 2

/* ---- the calls that fail ---- */

WRAP(int, mkdir, ENOSPC, (const char *path, mode_t mode), (path, mode))
WRAP(int, lstat64, ENOMEM, (const char *path, struct stat *st), (path, st))
WRAP(int, fstat64, ENOMEM, (int fd, struct stat *st), (fd, st))
WRAP(int, stat64, ENOMEM, (const char *path, struct stat *st), (path, st))
WRAP(int, flock, ENOLCK, (int fd, int how), (fd, how))
WRAP(int, chmod, EROFS, (const char *path, mode_t mode), (path, mode))
WRAP(int, socket, EMFILE, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(int, bind, EADDRINUSE, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, listen, EADDRINUSE, (int fd, int n), (fd, n))
WRAP(int, accept4, EMFILE, (int fd, struct sockaddr *a, socklen_t *n, int f), (fd, a, n, f))
WRAP(int, connect, ENOMEM, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n))
WRAP(int, poll, ENOMEM, (struct pollfd * p, nfds_t n, int ms), (p, n, ms))
WRAP(ssize_t, recv, ENOMEM, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
WRAP(ssize_t, send, ENOBUFS, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
WRAP(ssize_t, sendmsg, ENOBUFS, (int fd, const struct msghdr *m, int flags), (fd, m, flags))

int __real_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *path, int flags, mode_t mode)
{
    return fails(ENFILE) ? -1 : __real_open64(path, flags, mode);
}

/* ---- the operation ---- */

struct operation {
    libxl__loop *loop;
    libxl__control ctl;
    int asked;
};

static void request(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
    ((struct operation *)ctl->user)->asked++;
    libxl__control_reply(ctl, id, "ok done");
}

static void operation_new(struct operation *op)
{
    *op = (struct operation){0};
    if (libxl__loop_new(&op->loop, NULL, NULL)) abort();
    libxl__control_init(&op->ctl);
    op->ctl.loop = op->loop;
    op->ctl.side = "primary";
    op->ctl.domain = "guest";
    op->ctl.user = op;
    op->ctl.request = request;
}

static void operation_end(struct operation *op)
{
    libxl__control_dispose(&op->ctl);
    libxl__loop_free(op->loop);
}

/* ---- who asks ---- */

/* 0: "ok done", 1: an error said so, 2: anything else. */
static int ask(void)
{
    libxl__gc gc;
    char *answer = NULL;
    int rc, result;

    libxl__gc_init(&gc, NULL);
    rc = libxl__control_call(&gc, "primary", "guest", "status", ASK_LIMIT_MS, &answer);
    if (rc)
        result = rc == ERROR_TIMEDOUT ? 2 : 1;
    else
        result = answer && !strcmp(answer, "ok done") ? 0 : 2;
    libxl__gc_dispose(&gc);
    return result;
}

static pid_t ask_as_child(void)
{
    pid_t pid = fork();

    if (pid < 0) abort();
    if (pid) return pid;
    fail_at = 0;
    _exit(ask());
}

/* ---- the two ends ---- */

static bool wrong(const char *end, int n, const char *what)
{
    printf("%s: call %d fails: %s\n", end, n, what);
    return false;
}

static int files_left(void)
{
    DIR *d = opendir(getenv("XENTWIN_RUN_DIR"));
    int n = -2; /* . and .. */

    if (!d) return 0;
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

/* Turns of the loop until the asker has ended; its answer, or -1 when the loop itself failed. */
static int serve(struct operation *op, pid_t asker)
{
    int status;
    pid_t r;

    while ((r = waitpid(asker, &status, WNOHANG)) == 0)
        if (libxl__loop_once(op->loop, 10)) break;
    if (r != asker) {
        operation_end(op); /* what an operation does whose loop fails; the asker hears of it */
        if (waitpid(asker, &status, 0) != asker) abort();
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 3;
}

static bool run_operation(int n, bool *fired)
{
    struct operation op;
    int files = open_files(), result, refused = 0;
    bool started, over = false;

    operation_new(&op);
    *calls = 0;
    fail_at = n;
    started = !libxl__control_start(&op.ctl);
    for (int i = 0; started && !over && i < ASKERS; i++) {
        int before = op.asked;
        result = serve(&op, ask_as_child());
        over = result < 0;
        if (result > 1) return wrong("operation", n, "the asker has neither answer nor error");
        if (op.asked > before + 1) return wrong("operation", n, "asked more than once");
        if (result == 0 && op.asked != before + 1) return wrong("operation", n, "answered unasked");
        refused += result == 1;
    }
    if (refused > 1) return wrong("operation", n, "a failure costs more than one asker");
    if (!over) operation_end(&op);
    *fired = *calls >= n;
    fail_at = 0;
    if (started && files_left()) return wrong("operation", n, "a file is left");
    if (open_files() != files) return wrong("operation", n, "a descriptor is left");
    operation_new(&op);
    if (libxl__control_start(&op.ctl)) return wrong("operation", n, "the next one cannot listen");
    operation_end(&op);
    if (files_left()) return wrong("operation", n, "a file is left for ever");
    return true;
}

static bool run_asker(int n, bool *fired)
{
    int files = open_files(), result;

    *calls = 0;
    fail_at = n;
    result = ask();
    *fired = *calls >= n;
    fail_at = 0;
    if (result > 1) return wrong("asker", n, "neither answer nor error");
    if (*fired && !result) return wrong("asker", n, "the failure was not noticed");
    if (!*fired && result) return wrong("asker", n, "an error without a failure");
    if (open_files() != files) return wrong("asker", n, "a descriptor is left");
    return true;
}

static pid_t operation_as_child(void)
{
    struct operation op;
    int fds[2];
    char byte;
    pid_t pid;

    if (pipe(fds)) abort();
    pid = fork();
    if (pid < 0) abort();
    if (pid) {
        close(fds[1]);
        if (read(fds[0], &byte, 1) != 1) abort();
        close(fds[0]);
        return pid;
    }
    operation_new(&op);
    if (libxl__control_start(&op.ctl) || write(fds[1], "", 1) != 1) abort();
    for (;;)
        libxl__loop_once(op.loop, -1);
}

int main(void)
{
    char dir[64] = "/tmp/control_fault.XXXXXX", run_dir[80], path[100];
    int failed = 0, runs = 0;
    bool fired = true;
    pid_t pid;

    if (!mkdtemp(dir)) abort();
    snprintf(run_dir, sizeof(run_dir), "%s/run", dir);
    setenv("XENTWIN_RUN_DIR", run_dir, 1);
    for (int n = 1; fired && n < CALLS_MAX; n++, runs++)
        failed += !run_operation(n, &fired);
    failed += fired;
    pid = operation_as_child();
    fired = true;
    for (int n = 1; fired && n < CALLS_MAX; n++, runs++)
        failed += !run_asker(n, &fired);
    failed += fired;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    snprintf(path, sizeof(path), "%s/primary-guest.sock", run_dir);
    unlink(path);
    snprintf(path, sizeof(path), "%s/primary-guest.lock", run_dir);
    unlink(path);
    rmdir(run_dir);
    rmdir(dir);
    printf("%d runs, %d failed\n", runs, failed);
    return failed ? 1 : 0;
}
