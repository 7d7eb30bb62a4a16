/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The rule for a lost link, and the arbiter command that overrides it.
 *
 *   ask --(0, or limit_ms for the second asker)--> run the command --exit--> verdict
 *                                                        '--limit--> kill --> verdict: refused
 *
 * Invariants:
 *  1. verdict() is called once per ask, from the loop, never from inside libxl__arbiter_ask.
 *  2. Only exit status 0 grants. Whatever we do not understand refuses: a guest that stays down
 *     can be started by a person, two copies cannot be merged.
 *  3. The command gets no descriptor of ours: its output goes into a pipe, since our stdout and
 *     stderr may lead to the host that is gone.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_arbiter.h"

#define COMMAND_LIMIT_MIN_MS 10000
#define KILL_LIMIT_MS 1000
#define OUTPUT_READS_MAX 64 /* per turn: a command that floods us cannot hold the loop */

/* The running command. Its own allocation: the kernel may keep it longer than the arbiter lives. */
struct arbiter_command {
    libxl__ev_child child;
    libxl__arbiter *owner; /* NULL: disposed */
};

static bool preferred(const struct arbiter_case *c)
{
    return c->primary == (c->rule == LINK_LOSS_PRIMARY);
}

static int command_limit_ms(const struct arbiter_case *c)
{
    return c->limit_ms > COMMAND_LIMIT_MIN_MS ? c->limit_ms : COMMAND_LIMIT_MIN_MS;
}

/* Gives the verdict; the arbiter may be disposed and freed by the callback. */
static void decide(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why)
{
    assert(a->asking);
    libxl__ev_time_deregister(a->loop, &a->timer);
    a->asking = false;
    a->verdict(egc, a, granted, why);
}

static void rule_timer(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__arbiter *a = CONTAINER_OF(ev, libxl__arbiter, timer);

    decide(egc, a, preferred(&a->c),
           a->c.rule == LINK_LOSS_PRIMARY ? "by the rule on-link-loss=primary"
                                          : "by the rule on-link-loss=backup");
}

/* ---- the command's output ---- */

/* Keeps the start of the last line that is not empty; anything unprintable becomes '?'. */
static void note_output(libxl__arbiter *a, const char *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char ch = (unsigned char)buf[i];
        if (ch == '\n') {
            a->line_over = true;
            continue;
        }
        if (a->line_over) {
            a->line_over = false;
            a->said_len = 0;
        }
        if (a->said_len < sizeof(a->said) - 1)
            a->said[a->said_len++] = ch >= 0x20 && ch < 0x7f ? (char)ch : '?';
    }
    a->said[a->said_len] = 0;
}

static void read_output(libxl__arbiter *a)
{
    char buf[512];

    for (int i = 0; i < OUTPUT_READS_MAX && libxl__ev_fd_isregistered(&a->output); i++) {
        int fd = a->output.fd;
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (n > 0) {
            note_output(a, buf, (size_t)n);
            continue;
        }
        libxl__ev_fd_deregister(a->loop, &a->output);
        close(fd);
    }
}

static void output_ready(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    read_output(CONTAINER_OF(ev, libxl__arbiter, output));
}

static void output_close(libxl__arbiter *a)
{
    int fd = a->output.fd;

    if (!libxl__ev_fd_isregistered(&a->output)) return;
    libxl__ev_fd_deregister(a->loop, &a->output);
    close(fd);
}

/* ---- the command ---- */

static void kill_command(libxl__arbiter *a)
{
    /* The group first; the pid too, in case the child has not reached its setsid yet. */
    kill(-a->running->child.pid, SIGKILL);
    kill(a->running->child.pid, SIGKILL);
}

static void command_exited(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    struct arbiter_command *cmd = CONTAINER_OF(ev, struct arbiter_command, child);
    libxl__arbiter *a = cmd->owner;
    char why[256];
    bool granted = false;

    free(cmd);
    if (!a) return;
    a->running = NULL;
    read_output(a);
    output_close(a);
    if (!a->asking) return;
    if (a->killed) {
        snprintf(why, sizeof(why), "the arbiter command gave no answer in %d ms",
                 command_limit_ms(&a->c));
    } else if (status == -1) {
        snprintf(why, sizeof(why), "the arbiter command's exit status is unknown");
    } else if (WIFEXITED(status)) {
        granted = WEXITSTATUS(status) == 0;
        snprintf(why, sizeof(why), "the arbiter command %s (exit %d)%s%s",
                 granted ? "granted" : "refused", WEXITSTATUS(status), a->said_len ? ": " : "",
                 a->said);
    } else {
        snprintf(why, sizeof(why), "the arbiter command died by signal %d", WTERMSIG(status));
    }
    decide(egc, a, granted, why);
}

static void limit_timer(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__arbiter *a = CONTAINER_OF(ev, libxl__arbiter, timer);

    if (!a->killed) {
        a->killed = true;
        kill_command(a);
        if (!libxl__ev_time_register_rel(a->loop, &a->timer, limit_timer, KILL_LIMIT_MS)) return;
    }
    /* It hangs in the kernel. The verdict must not wait for it; _dispose tries to reap it. */
    decide(egc, a, false, "the arbiter command cannot be killed");
}

/*
 * The environment of the command: ours and the XENTWIN_ words, made before the fork (no malloc
 * after it).
 */
static char **command_environment(libxl__gc *gc, const struct arbiter_case *c, const char *epoch)
{
    size_t n = 0, ours = 0, used;

    while (environ[n])
        n++;
    char **env = libxl__zalloc(gc, (n + 8) * sizeof(*env));
    env[ours++] = libxl__sprintf(gc, "XENTWIN_DOMAIN=%s", c->domain);
    env[ours++] = libxl__sprintf(gc, "XENTWIN_SELF=%s", c->self);
    env[ours++] = libxl__sprintf(gc, "XENTWIN_PEER=%s", c->peer);
    env[ours++] = libxl__sprintf(gc, "XENTWIN_EPOCH=%s", epoch);
    env[ours++] = libxl__sprintf(gc, "XENTWIN_ROLE=%s", c->primary ? "primary" : "backup");
    env[ours++] = libxl__sprintf(gc, "XENTWIN_SESSION=%s", c->session);
    env[ours++] = libxl__sprintf(gc, "PATH=%s", libxl__arbiter_path(gc));
    used = ours;
    for (size_t i = 0; i < n; i++) {
        bool replaced = false;
        for (size_t k = 0; k < ours; k++)
            replaced |= !strncmp(environ[i], env[k], strcspn(env[k], "=") + 1);
        if (!replaced) env[used++] = environ[i];
    }
    return env;
}

/* The shell puts the words behind the command itself: no quoting of ours can go wrong. */
static char **command_args(libxl__gc *gc, const struct arbiter_case *c, const char *epoch)
{
    const char *script = libxl__sprintf(gc, "%s \"$@\"", c->command);
    const char *role = c->primary ? "primary" : "backup";
    const char *args[] = {"sh",    "-c",    script, "arbiter", c->domain,
                          c->self, c->peer, epoch,  role,      c->session};
    size_t n = sizeof(args) / sizeof(*args);
    char **argv = libxl__zalloc(gc, (n + 1) * sizeof(*argv));

    for (size_t i = 0; i < n; i++)
        argv[i] = libxl__strdup(gc, args[i]);
    return argv;
}

/*
 * In the child. Own session: no terminal to ask a person at, and one group to kill. Signals that we
 * ignore (the guard does) are not ignored here: the command may rely on them, as timeout(1) does.
 */
static void __attribute__((noreturn)) run_command(int out, char **argv, char **env)
{
    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
    setsid();
    environ = env;
    if (dup2(out, 2) != 2) _exit(127);
    close_range(3, UINT_MAX, 0);
    libxl__exec(-1, 2, 2, "/bin/sh", argv);
}

static int start_command(libxl__arbiter *a)
{
    struct arbiter_command *cmd = NULL;
    libxl__gc gc;
    int fds[2] = {-1, -1}, rc;
    pid_t pid;

    libxl__gc_init(&gc, libxl__loop_gc(a->loop)->lg);
    char *epoch = libxl__sprintf(&gc, "%" PRIu64, a->c.epoch);
    char **argv = command_args(&gc, &a->c, epoch), **env = command_environment(&gc, &a->c, epoch);

    if (pipe2(fds, O_CLOEXEC)) {
        LOGE(&gc, ERROR, "no pipe for the arbiter command");
        rc = ERROR_FAIL;
        goto out;
    }
    rc = libxl__fd_nonblock(&gc, fds[0], true);
    if (rc) goto out;
    cmd = libxl__realloc_array(NULL, 1, sizeof(*cmd));
    libxl__ev_child_init(&cmd->child);
    cmd->owner = a;
    pid = libxl__ev_child_fork(a->loop, &cmd->child, command_exited);
    if (pid < 0) {
        rc = ERROR_FAIL;
        goto out;
    }
    if (!pid) run_command(fds[1], argv, env);
    a->running = cmd;
    cmd = NULL;
    rc = libxl__ev_fd_register(a->loop, &a->output, output_ready, fds[0], POLLIN);
    if (!rc) fds[0] = -1;
    rc = 0; /* without its output the command still answers by its exit status */
out:
    free(cmd);
    if (fds[0] >= 0) close(fds[0]);
    if (fds[1] >= 0) close(fds[1]);
    libxl__gc_dispose(&gc);
    return rc;
}

static void command_timer(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__arbiter *a = CONTAINER_OF(ev, libxl__arbiter, timer);
    int rc;

    rc = start_command(a);
    if (rc) {
        decide(egc, a, false, "the arbiter command could not be started");
        return;
    }
    rc = libxl__ev_time_register_rel(a->loop, &a->timer, limit_timer, command_limit_ms(&a->c));
    if (!rc) return;
    a->killed = true;
    kill_command(a);
}

char *libxl__arbiter_path(libxl__gc *gc)
{
    const char *path = getenv("PATH");

    return libxl__sprintf(gc, "%s:" XENTWIN_SBINDIR,
                          path && *path ? path : "/usr/sbin:/usr/bin:/sbin:/bin");
}

void libxl__arbiter_init(libxl__arbiter *a)
{
    memset(a, 0, sizeof(*a));
    libxl__ev_time_init(&a->timer);
    libxl__ev_fd_init(&a->output);
}

int libxl__arbiter_ask(libxl__arbiter *a)
{
    int rc;

    assert(!a->asking && !a->running);
    a->killed = a->line_over = false;
    a->said_len = 0;
    a->said[0] = 0;
    if (!a->c.command)
        rc = libxl__ev_time_register_rel(a->loop, &a->timer, rule_timer, 0);
    else
        rc = libxl__ev_time_register_rel(a->loop, &a->timer, command_timer,
                                         preferred(&a->c) ? 0 : a->c.limit_ms);
    if (!rc) a->asking = true;
    return rc;
}

/*
 * Reaps the killed command now, if it dies within KILL_LIMIT_MS; otherwise the loop does it when
 * the kernel lets it go.
 */
static void abandon_command(libxl__arbiter *a)
{
    libxl__ev_fd *ev = &a->running->child.pidfd_ev;
    struct pollfd p = {.fd = ev->fd, .events = POLLIN};
    libxl__egc egc = {.loop = a->loop};
    int r;

    a->running->owner = NULL;
    a->running = NULL;
    do
        r = poll(&p, 1, KILL_LIMIT_MS);
    while (r < 0 && errno == EINTR);
    if (r > 0) ev->callback(&egc, ev, ev->fd, ev->events, p.revents);
}

void libxl__arbiter_dispose(libxl__arbiter *a)
{
    if (!a->loop) return;
    libxl__ev_time_deregister(a->loop, &a->timer);
    output_close(a);
    if (a->running) {
        kill_command(a);
        abandon_command(a);
    }
    a->asking = false;
}
