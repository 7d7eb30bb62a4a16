/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The operation's side of the guard: starts it, tells it the phase, starts it again when it dies.
 *
 *   xl (operation) --fork--> helper, own session --fork--> xentwin-guard
 *        |                        exits at once                 |
 *        '------------- socket pair, SOCK_SEQPACKET ------------'
 *
 * Invariants:
 *  1. The guard's last queued phase is ours: a phase that cannot be queued soon costs the guard
 *     its life, and the next one is told the new phase first.
 *  2. Our end is closed only after a goodbye was queued or the guard is dead: a guard that sees
 *     the end of file acts.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_guard.h"

#define READY_LIMIT_MS 5000
#define TELL_LIMIT_MS 100
#define GOODBYE_LIMIT_MS 200
#define RESTARTS_MAX 10
#define ARGS_MAX 24

extern char **environ;

static void guard_event(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents);
static void ready_timer(libxl__egc *egc, libxl__ev_time *ev);

/* ---- the process ---- */

static char **make_args(libxl__gc *gc, const libxl__guard *g)
{
    const struct arbiter_case *c = &g->c;
    char **argv = libxl__zalloc(gc, (ARGS_MAX + 1) * sizeof(*argv));
    int n = 0;

    argv[n++] = libxl__strdup(gc, "xentwin-guard");
    argv[n++] = libxl__sprintf(gc, "--domain=%s", c->domain);
    argv[n++] = libxl__sprintf(gc, "--domid=%u", g->domid);
    argv[n++] = libxl__sprintf(gc, "--uuid=%s", g->uuid);
    argv[n++] = libxl__sprintf(gc, "--self=%s", c->self);
    argv[n++] = libxl__sprintf(gc, "--peer=%s", c->peer);
    argv[n++] = libxl__sprintf(gc, "--session=%s", c->session);
    argv[n++] = libxl__sprintf(gc, "--on-link-loss=%s",
                               c->rule == LINK_LOSS_PRIMARY ? "primary" : "backup");
    argv[n++] = libxl__sprintf(gc, "--limit-ms=%d", c->limit_ms);
    argv[n++] = libxl__sprintf(gc, "--parent=%ld", (long)getpid());
    if (g->ifb) argv[n++] = libxl__sprintf(gc, "--ifb=%s", g->ifb);
    assert(n <= ARGS_MAX);
    return argv;
}

static char **make_environment(libxl__gc *gc, const libxl__guard *g)
{
    size_t n = 0, used = 0;

    while (environ[n])
        n++;
    char **env = libxl__zalloc(gc, (n + 2) * sizeof(*env));
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], GUARD_ARBITER_ENV "=", sizeof(GUARD_ARBITER_ENV)))
            env[used++] = environ[i];
    if (g->c.command) env[used++] = libxl__sprintf(gc, GUARD_ARBITER_ENV "=%s", g->c.command);
    return env;
}

static void reset_signals(void)
{
    sigset_t none;

    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/*
 * In the first child. The application may have threads: only async-signal-safe calls from here on.
 * The second fork leaves the guard without a parent that could wait for it, and in a session that
 * nobody hangs up.
 */
static void __attribute__((noreturn)) run_guard(int sock, const char *file, char **argv, char **env)
{
    reset_signals();
    setsid();
    pid_t pid = fork();
    if (pid) _exit(pid < 0);
    int null_fd = open("/dev/null", O_RDWR);
    /* The guard's only descriptors: its socket as 0, nothing as 1 and 2. sock is above 2 or already
     * 0. */
    if (null_fd < 0 || dup2(sock, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0)
        _exit(127);
    close_range(3, UINT_MAX, 0);
    execve(file, argv, env);
    _exit(127);
}

static const char *guard_file(libxl__gc *gc)
{
    const char *file = getenv("XENTWIN_GUARD");

    if (!file || !*file) file = XENTWIN_LIBEXECDIR "/xentwin-guard";
    if (access(file, X_OK)) {
        LOGE(gc, ERROR, "the guard %s cannot be started", file);
        return NULL;
    }
    return file;
}

/* Waits for the first child, which exits at once. Somebody else in the process may have reaped it.
 */
static int wait_first_child(libxl__gc *gc, pid_t pid)
{
    int status;
    pid_t r;

    do
        r = waitpid(pid, &status, 0);
    while (r < 0 && errno == EINTR);
    if (r < 0 && errno == ECHILD) return 0;
    if (r == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0) return 0;
    LOG(gc, ERROR, "the guard could not be forked");
    return ERROR_FAIL;
}

/* A socket pair with both ends above 2, so that the child can put its end where it wants. */
static int make_pair(libxl__gc *gc, int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds)) {
        LOGE(gc, ERROR, "no socket pair for the guard");
        return ERROR_FAIL;
    }
    for (int i = 0; i < 2; i++) {
        int fd = fds[i];
        if (fd > 2) continue;
        fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        close(fd);
        if (fds[i] < 0) {
            LOGE(gc, ERROR, "no descriptor for the guard");
            return ERROR_FAIL;
        }
    }
    return 0;
}

static int spawn(libxl__guard *g)
{
    libxl__gc gc;
    int fds[2] = {-1, -1}, rc;

    libxl__gc_init(&gc, libxl__loop_gc(g->loop)->lg);
    char **argv = make_args(&gc, g), **env = make_environment(&gc, g);
    const char *file = guard_file(&gc);
    if (!file) {
        rc = ERROR_FAIL;
        goto out;
    }
    rc = make_pair(&gc, fds);
    if (rc) goto out;
    pid_t pid = fork();
    if (!pid) run_guard(fds[1], file, argv, env);
    if (pid < 0) {
        LOGE(&gc, ERROR, "cannot fork the guard");
        rc = ERROR_FAIL;
        goto out;
    }
    rc = wait_first_child(&gc, pid);
    if (rc) goto out;
    g->fd = fds[0];
    fds[0] = -1;
out:
    if (fds[0] >= 0) close(fds[0]);
    if (fds[1] >= 0) close(fds[1]);
    libxl__gc_dispose(&gc);
    return rc;
}

/* ---- talking to it ---- */

/* 0 queued; ERROR_TIMEDOUT no room for limit_ms; ERROR_FAIL it is dead. */
static int tell(libxl__guard *g, char type, int limit_ms)
{
    struct guard_message m = {.type = type, .pid = (int32_t)getpid(), .epoch = g->epoch};

    for (bool waited = false;; waited = true) {
        struct pollfd p = {.fd = g->fd, .events = POLLOUT};
        if (send(g->fd, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)sizeof(m)) return 0;
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return ERROR_FAIL;
        if (waited || !limit_ms) return ERROR_TIMEDOUT;
        poll(&p, 1, limit_ms);
    }
}

static void kill_guard(libxl__guard *g)
{
    if (g->pidfd >= 0) pidfd_send_signal(g->pidfd, SIGKILL, NULL, 0);
}

/* Drops our end. The guard was told goodbye or is dead. */
static void forget(libxl__guard *g)
{
    libxl__ev_fd_deregister(g->loop, &g->ev);
    libxl__ev_time_deregister(g->loop, &g->timer);
    if (g->fd >= 0) close(g->fd);
    if (g->pidfd >= 0) close(g->pidfd);
    g->fd = g->pidfd = -1;
}

/* Reads one message. 1: it is ready now; 0: nothing new; ERROR_FAIL: it is dead. */
static int hear(libxl__guard *g)
{
    struct guard_message m;

    ssize_t n = recv(g->fd, &m, sizeof(m), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n != (ssize_t)sizeof(m) || m.type != 'R' || g->pidfd >= 0) return ERROR_FAIL;
    g->pidfd = pidfd_open(m.pid, 0);
    return g->pidfd < 0 ? ERROR_FAIL : 1;
}

/* Starts the process and tells it the phase, which then waits in its socket; it is not ready yet.
 */
static int launch(libxl__guard *g)
{
    int rc;

    rc = spawn(g);
    if (rc) return rc;
    rc = tell(g, g->phase, 0);
    if (!rc) rc = libxl__ev_fd_register(g->loop, &g->ev, guard_event, g->fd, POLLIN);
    if (!rc) rc = libxl__ev_time_register_rel(g->loop, &g->timer, ready_timer, READY_LIMIT_MS);
    if (rc) {
        tell(g, 'G', 0);
        forget(g);
    }
    return rc;
}

static void died(libxl__egc *egc, libxl__guard *g, int rc)
{
    if (rc) LOG(libxl__loop_gc(g->loop), ERROR, "domain %u: there is no guard any more", g->domid);
    if (g->died) g->died(egc, g, rc);
}

static void guard_event(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__guard *g = CONTAINER_OF(ev, libxl__guard, ev);
    bool was_ready = g->pidfd >= 0;
    int rc;

    rc = hear(g);
    if (!rc) return;
    if (rc == 1) {
        libxl__ev_time_deregister(g->loop, &g->timer);
        died(egc, g, 0);
        return;
    }
    /* It may live, and take our end for our death: it talks nonsense, or cannot be watched. */
    if (g->pidfd >= 0)
        kill_guard(g);
    else
        tell(g, 'G', 0);
    forget(g);
    rc = ERROR_FAIL;
    if (was_ready && g->restarts < RESTARTS_MAX) {
        g->restarts++;
        LOG(libxl__loop_gc(g->loop), WARN, "domain %u: the guard died, starting it again",
            g->domid);
        rc = launch(g);
    }
    if (rc) died(egc, g, rc);
}

static void ready_timer(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__guard *g = CONTAINER_OF(ev, libxl__guard, timer);

    LOG(libxl__loop_gc(g->loop), ERROR, "domain %u: the guard is not ready in %d ms", g->domid,
        READY_LIMIT_MS);
    tell(g, 'G', 0);
    forget(g);
    died(egc, g, ERROR_TIMEDOUT);
}

/* ---- life ---- */

void libxl__guard_init(libxl__guard *g)
{
    memset(g, 0, sizeof(*g));
    g->fd = g->pidfd = -1;
    g->phase = 'U';
    libxl__ev_fd_init(&g->ev);
    libxl__ev_time_init(&g->timer);
}

int libxl__guard_start(libxl__guard *g)
{
    libxl__gc *gc = libxl__loop_gc(g->loop);
    struct pollfd p = {.events = POLLIN};
    int r, rc;

    assert(g->fd < 0);
    rc = launch(g);
    if (rc) return rc;
    p.fd = g->fd;
    do
        r = poll(&p, 1, READY_LIMIT_MS);
    while (r < 0 && errno == EINTR);
    rc = r > 0 ? hear(g) : ERROR_TIMEDOUT;
    if (rc == 1) {
        libxl__ev_time_deregister(g->loop, &g->timer);
        return 0;
    }
    LOG(gc, ERROR, "domain %u: the guard %s", g->domid,
        r > 0 ? "ended as soon as it was started" : "is not ready in time");
    tell(g, 'G', 0);
    forget(g);
    return ERROR_FAIL;
}

void libxl__guard_update(libxl__guard *g, char phase, uint64_t epoch)
{
    bool changed = phase != g->phase;

    assert(phase == 'U' || phase == 'P' || phase == 'S');
    g->phase = phase;
    g->epoch = epoch;
    if (g->fd < 0) return;
    /* A lost epoch number is made good by the next one. A dead guard is noticed by its event. */
    if (tell(g, phase, changed ? TELL_LIMIT_MS : 0) != ERROR_TIMEDOUT || !changed) return;
    LOG(libxl__loop_gc(g->loop), WARN, "domain %u: the guard does not listen", g->domid);
    kill_guard(g);
}

void libxl__guard_stop(libxl__guard *g)
{
    if (g->fd < 0) return;
    if (tell(g, 'G', TELL_LIMIT_MS) == ERROR_TIMEDOUT) kill_guard(g);
    if (g->pidfd >= 0) {
        struct pollfd p = {.fd = g->pidfd, .events = POLLIN};
        poll(&p, 1, GOODBYE_LIMIT_MS);
    }
    forget(g);
}
