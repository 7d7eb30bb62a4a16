/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Children, watched through a pidfd: neither a SIGCHLD handler of the application nor stock libxl's own
 * reaping is disturbed, and a number that the kernel gave to another process is never waited for.
 */
#include "libxl_ev_loop.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <libxl.h>

void libxl__ev_child_init(libxl__ev_child *ev)
{
    *ev = (libxl__ev_child){.pid = -1, .pidfd = -1};
    libxl__ev_fd_init(&ev->pidfd_ev);
}

/* The status as waitpid gives it. */
static int status_of(const siginfo_t *info)
{
    switch (info->si_code) {
    case CLD_EXITED:
        return W_EXITCODE(info->si_status, 0);
    case CLD_DUMPED:
        return W_EXITCODE(0, info->si_status) | WCOREFLAG;
    default:
        return W_EXITCODE(0, info->si_status);
    }
}

static void child_exited(libxl__egc *egc, libxl__ev_fd *pidfd_ev, int fd, short events,
                         short revents)
{
    libxl__ev_child *ev = CONTAINER_OF(pidfd_ev, libxl__ev_child, pidfd_ev);
    libxl__ev_child_callback *callback = ev->callback;
    siginfo_t info = {0};
    pid_t pid = ev->pid;
    int r, status = -1;

    do
        r = waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        LOGE(libxl__loop_gc(egc->loop), WARN, "the exit status of our child %ld is lost",
             (long)pid);
    else if (!info.si_pid)
        return;
    else
        status = status_of(&info);

    libxl__ev_fd_deregister(egc->loop, pidfd_ev);
    close(fd);
    libxl__ev_child_init(ev);
    egc->loop->children--;
    callback(egc, ev, pid, status);
}

/* In the child: the handlers would act on what belongs to the parent. Ignored signals stay ignored, as nohup wants. */
static void default_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL}, old;
    sigset_t none;

    for (int sig = 1; sig < _NSIG; sig++) {
        if (sigaction(sig, NULL, &old) || old.sa_handler == SIG_DFL) continue;
        if (old.sa_handler == SIG_IGN && sig != SIGPIPE) continue;
        sigaction(sig, &dfl, NULL);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Takes over a child that lives already. On failure the child is dead and gone. */
static int watch_child(libxl__loop *loop, libxl__ev_child *ev, pid_t pid)
{
    int rc, pidfd;

    pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        LOGE(&loop->gc, ERROR, "cannot watch child %ld", (long)pid);
        rc = ERROR_FAIL;
        goto out;
    }
    rc = libxl__ev_fd_register(loop, &ev->pidfd_ev, child_exited, pidfd, POLLIN);
    if (rc) goto out;
    ev->pidfd = pidfd;
    ev->pid = pid;
    return 0;

out:
    if (pidfd >= 0) close(pidfd);
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return rc;
}

/* The child goes on only when it is watched: else it could be gone, and reaped by another, before we look. */
static void wait_for_parent(const int go[2])
{
    char c;
    ssize_t r;

    close(go[1]);
    do
        r = read(go[0], &c, 1);
    while (r < 0 && errno == EINTR);
    /* Without a parent there is nobody to work for. */
    if (r != 1) _exit(126);
    close(go[0]);
}

pid_t libxl__ev_child_fork(libxl__loop *loop, libxl__ev_child *ev, libxl__ev_child_callback *cb)
{
    sigset_t all, before;
    pid_t pid;
    int fork_errno, rc, go[2];

    assert(!libxl__ev_child_inuse(ev) && cb);
    if (pipe2(go, O_CLOEXEC)) {
        LOGE(&loop->gc, ERROR, "cannot make a pipe to a child");
        return ERROR_FAIL;
    }
    /* No handler of the parent may run in the child before default_signals. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = fork();
    fork_errno = errno;
    if (!pid) {
        wait_for_parent(go);
        default_signals();
        return 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        LOGEV(&loop->gc, ERROR, fork_errno, "fork failed");
        rc = ERROR_FAIL;
        goto out;
    }
    rc = watch_child(loop, ev, pid);
    if (rc) goto out;
    ev->callback = cb;
    loop->children++;
    /* One byte into an empty pipe whose reading end we hold too: it cannot fail. */
    if (write(go[1], "", 1) != 1) assert(!"the pipe to a new child is broken");

out:
    close(go[0]);
    close(go[1]);
    return rc ? ERROR_FAIL : pid;
}

/* A copy above the standard three, so that moving one does not overwrite another. */
static int out_of_the_way(int fd)
{
    if (fd < 0) fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* Only what is safe in the child of a process with threads. */
static void __attribute__((noreturn)) cannot_exec(const char *what, const char *file)
{
    int errnoval = errno;
    char line[512];
    int n = snprintf(line, sizeof(line), "xentwin: cannot %s %s: %s\n", what, file,
                     strerrordesc_np(errnoval));

    if (n > 0 && write(STDERR_FILENO, line, n < (int)sizeof(line) ? n : (int)sizeof(line) - 1) < 0)
        _exit(126);
    _exit(127);
}

void libxl__exec(int stdinfd, int stdoutfd, int stderrfd, const char *file, char *const argv[])
{
    int given[3] = {stdinfd, stdoutfd, stderrfd};
    int moved[3];

    for (int i = 0; i < 3; i++) {
        moved[i] = out_of_the_way(given[i]);
        if (moved[i] < 0) cannot_exec("prepare the files of", file);
    }
    for (int i = 2; i >= 0; i--) {
        if (dup2(moved[i], i) < 0) cannot_exec("prepare the files of", file);
    }
    for (int i = 0; i < 3; i++) {
        if (given[i] > STDERR_FILENO) close(given[i]);
    }
    execvp(file, argv);
    cannot_exec("run", file);
}
