/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the real code forks, without processes: fork returns in the parent only, and we play the child on the ends of the pipes that
 * the parent has just made for it. Its death is seen through a file, as with a pidfd.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libxl_ev_loop.h"
#include "soak.h"
#include "soak_child.h"

#define CHILDREN_MAX 64
#define FIRST_PID 100000000

static struct child children[CHILDREN_MAX];
static int nr_children;
static int last_pipes[3][2]; /* the newest last */

int __real_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags)
{
    int r = sim_call_fails() ? -1 : __real_pipe2(fds, flags);

    if (r) return r;
    sim_own(fds[0]);
    sim_own(fds[1]);
    memmove(last_pipes[0], last_pipes[1], 2 * sizeof(last_pipes[0]));
    memcpy(last_pipes[2], fds, sizeof(last_pipes[2]));
    return 0;
}

static int keep(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

    assert(copy >= 0);
    fcntl(copy, F_SETFL, fcntl(copy, F_GETFL) | O_NONBLOCK);
    return copy;
}

static void close_end(int *fd)
{
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

void child_ends(struct child *c, int status)
{
    if (!c->alive) return;
    c->alive = false;
    c->status = status;
    close_end(&c->in);
    close_end(&c->out);
    close_end(&c->err);
    if (c->parent_alive && procs[c->parent].alive && eventfd_write(c->pidfd, 1)) abort();
}

void child_says(struct child *c, const void *bytes, size_t n)
{
    /* Far below what a pipe holds; a parent that is gone does not hear it. */
    if (write(c->out, bytes, n) != (ssize_t)n) say("a child speaks to nobody");
}

static struct child *child_of(pid_t pid)
{
    int i = (pid < 0 ? -pid : pid) - FIRST_PID;

    assert(i >= 0 && i < nr_children);
    return &children[i];
}

int __wrap_kill(pid_t pid, int sig);
int __wrap_kill(pid_t pid, int sig)
{
    struct child *c = child_of(pid);

    say("child %d gets signal %d", c->kind, sig);
    if (c->kind == RECEIVER) receiver_dies(c, sig);
    child_ends(c, W_EXITCODE(0, sig));
    return 0;
}

void libxl__ev_child_init(libxl__ev_child *ev)
{
    *ev = (libxl__ev_child){.pid = -1, .pidfd = -1};
    libxl__ev_fd_init(&ev->pidfd_ev);
}

static void child_exited(libxl__egc *egc, libxl__ev_fd *pidfd_ev, int fd, short events,
                         short revents)
{
    libxl__ev_child *ev = CONTAINER_OF(pidfd_ev, libxl__ev_child, pidfd_ev);
    libxl__ev_child_callback *callback = ev->callback;
    struct child *c = child_of(ev->pid);

    libxl__ev_fd_deregister(egc->loop, pidfd_ev);
    close(fd);
    c->parent_alive = false;
    libxl__ev_child_init(ev);
    egc->loop->children--;
    callback(egc, ev, FIRST_PID, c->status);
}

pid_t libxl__ev_child_fork(libxl__loop *loop, libxl__ev_child *ev, libxl__ev_child_callback *cb)
{
    struct child *c = &children[nr_children];

    assert(nr_children < CHILDREN_MAX);
    if (sim_call_fails()) return ERROR_FAIL;
    *c = (struct child){
        .kind = backup_child_kind(ev), .parent = current, .in = -1, .err = -1, .alive = true};
    c->parent_alive = true;
    c->pidfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sim_own(c->pidfd);
    if (c->kind == RECEIVER || c->kind == APPLIER) {
        c->in = keep(last_pipes[0][0]);
        c->out = keep(last_pipes[1][1]);
        c->err = keep(last_pipes[2][1]);
    } else {
        c->out = keep(last_pipes[2][1]);
    }
    if (libxl__ev_fd_register(loop, &ev->pidfd_ev, child_exited, c->pidfd, POLLIN)) abort();
    ev->pidfd = c->pidfd;
    ev->pid = FIRST_PID + nr_children++;
    ev->callback = cb;
    loop->children++;
    if (c->kind == ARBITER)
        arbiter_begins(c);
    else
        backup_child_begins(c);
    return ev->pid;
}

void libxl__exec(int in, int out, int err, const char *file, char *const argv[])
{
    abort(); /* there is no child in which it could be called */
}

void children_start(void)
{
    for (int i = 0; i < nr_children; i++) {
        close_end(&children[i].in);
        close_end(&children[i].out);
        close_end(&children[i].err);
    }
    nr_children = 0;
}

bool children_pump(void)
{
    bool did = false;

    for (int i = 0; i < nr_children; i++) {
        if (!procs[children[i].parent].alive) children[i].parent_alive = false;
        if (children[i].alive && children[i].kind == RECEIVER) did |= receiver_pump(&children[i]);
        if (children[i].alive && children[i].kind == APPLIER) did |= applier_pump(&children[i]);
    }
    return did;
}

bool children_gone(void)
{
    for (int i = 0; i < nr_children; i++)
        if (children[i].alive) return false;
    return true;
}

void children_of_host_die(int host)
{
    for (int i = 0; i < nr_children; i++)
        if (procs[children[i].parent].host == host) {
            children[i].parent_alive = false;
            child_ends(&children[i], W_EXITCODE(0, SIGKILL));
        }
}

struct child *child_alive(enum child_kind kind)
{
    for (int i = 0; i < nr_children; i++)
        if (children[i].kind == kind && children[i].alive) return &children[i];
    return NULL;
}

/* ---- the arbiter's command: asks a witness that grants to one role for ever ---- */

static int claimed; /* 1: primary, 2: backup */

static int role_of(const struct child *c)
{
    return c->parent == TWIN ? 2 : 1;
}

static bool reaches_witness(const struct child *c)
{
    return role_of(c) == 1 ? setup.witness_for_primary : setup.witness_for_backup;
}

static void refused(const struct child *c)
{
    if (role_of(c) == 1)
        judge.refused_primary = true;
    else
        judge.refused_backup = true;
}

static void arbiter_answers(void *arg)
{
    struct child *c = arg;
    bool granted = reaches_witness(c) && claimed == role_of(c);

    if (!c->alive) return;
    say("the witness %s the %s", granted ? "grants" : "refuses",
        role_of(c) == 1 ? "primary" : "backup");
    if (!granted) refused(c);
    child_ends(c, W_EXITCODE(granted ? 0 : 1, 0));
}

/* The claim is made before the asker hears of it: it may be killed in between, and the claim stays. */
static void arbiter_claims(void *arg)
{
    struct child *c = arg;

    if (c->alive && reaches_witness(c) && !claimed) claimed = role_of(c);
}

void arbiter_begins(struct child *c)
{
    int ms = chance(5) ? between(1000, 15000) : between(1, 200);

    if (role_of(c) == 2) judge_backup_asks();
    if (ms >= 9000) refused(c); /* by our side's limit, or about so */
    after(between(0, ms), arbiter_claims, c);
    after(ms, arbiter_answers, c);
}

void witness_start(void)
{
    claimed = 0;
}
