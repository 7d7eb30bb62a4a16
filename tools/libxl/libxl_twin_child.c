/* SPDX-License-Identifier: LGPL-2.1-only */
/* See libxl_twin_child.h for the conversation. */
#include "libxl_twin_child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_twin_lock.h"

#define LIMIT_BANNER_MS 60000
/* After its input was closed it destroys a domain, which takes a while; then it is told, then it is
 * made to leave. */
#define LIMIT_LEAVE_MS 60000
#define LIMIT_TERM_MS 10000
#define TURN_BYTES (1u << 20)
#define PIPE_BYTES (1 << 20)

/* What it says, in this order. Sizes with or without the NUL, as it sends them. */
static const struct phrase {
    const char *text;
    unsigned len;
} phrases[] = {
#define WITHOUT_NUL(s)                                                                             \
    {                                                                                              \
        s, sizeof(s) - 1                                                                           \
    }
#define WITH_NUL(s)                                                                                \
    {                                                                                              \
        s, sizeof(s)                                                                               \
    }
    WITHOUT_NUL("xl migration receiver ready, send binary domain data.\n"),
    WITH_NUL("domain received, ready to unpause"),
    WITH_NUL("my copy unpause results are as follows"),
};
enum { WORDS_BANNER, WORDS_RECEIVED, WORDS_REPORT, WORDS_RESULT, WORDS_OVER };

static const char permission[] = "domain is yours, you are cleared to unpause";

static void __attribute__((format(printf, 3, 4)))
child_failed(libxl__egc *egc, libxl__twin_child *c, const char *fmt, ...)
{
    va_list al;

    if (c->failed || c->closing || c->words == WORDS_OVER) return;
    c->failed = true;
    va_start(al, fmt);
    vsnprintf(c->why, sizeof(c->why), fmt, al);
    va_end(al);
    libxl__ev_fd_deregister(c->loop, &c->in_ev);
    c->event(egc, c, TWIN_CHILD_FAILED);
}

static void close_fd(libxl__loop *loop, libxl__ev_fd *ev, int *fd)
{
    libxl__ev_fd_deregister(loop, ev);
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* ---- its input ---- */

static bool has_input(const libxl__twin_child *c)
{
    const unsigned char *p;

    return c->permit_due || libxl__twin_stream_peek(c->stream, &p);
}

static void poll_input(libxl__twin_child *c)
{
    if (libxl__ev_fd_isregistered(&c->in_ev))
        libxl__ev_fd_modify(c->loop, &c->in_ev,
                            c->words != WORDS_BANNER && has_input(c) ? POLLOUT : 0);
}

static void write_permission(libxl__twin_child *c)
{
    ssize_t r = write(c->in_fd, permission + c->permit_done, sizeof(permission) - c->permit_done);

    if (r < 0) return; /* it says more by leaving */
    c->permit_done += (size_t)r;
    if (c->permit_done == sizeof(permission)) c->permit_due = false;
}

static void input_writable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__twin_child *c = CONTAINER_OF(ev, libxl__twin_child, in_ev);
    const unsigned char *p;
    size_t n, turn = 0;
    ssize_t r = 0;

    while (turn < TURN_BYTES && (n = libxl__twin_stream_peek(c->stream, &p))) {
        r = write(fd, p, n < TURN_BYTES ? n : TURN_BYTES);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) break;
        libxl__twin_stream_took(c->stream, (size_t)r);
        turn += (size_t)r;
    }
    if (r < 0 && errno != EAGAIN) {
        /* Its own words on standard error and its status tell why; they come with its end. */
        libxl__ev_fd_deregister(c->loop, ev);
        return;
    }
    if (!turn && c->permit_due) write_permission(c);
    poll_input(c);
    if (turn) c->handed(egc, c, turn);
}

void libxl__twin_child_more(libxl__twin_child *c)
{
    poll_input(c);
}

void libxl__twin_child_permit(libxl__twin_child *c)
{
    assert(c->words == WORDS_REPORT);
    c->permit_due = true;
    c->permit_done = 0;
    poll_input(c);
}

/* ---- its output ---- */

static void phrase_said(libxl__egc *egc, libxl__twin_child *c)
{
    c->words++;
    c->matched = 0;
    if (c->words == WORDS_RECEIVED) {
        libxl__ev_time_deregister(c->loop, &c->limit);
        poll_input(c);
    } else if (c->words == WORDS_REPORT) {
        c->event(egc, c, TWIN_CHILD_RECEIVED);
    }
}

static void result_said(libxl__egc *egc, libxl__twin_child *c, unsigned char result)
{
    if (result) {
        child_failed(egc, c, "the guest could not be started (error -%u)", result);
        return;
    }
    c->words = WORDS_OVER;
    c->event(egc, c, TWIN_CHILD_RUNS);
}

static void said(libxl__egc *egc, libxl__twin_child *c, unsigned char byte)
{
    const struct phrase *ph = &phrases[c->words];

    if (c->words == WORDS_RESULT) {
        result_said(egc, c, byte);
    } else if (byte != (unsigned char)ph->text[c->matched]) {
        child_failed(egc, c, "the stock receiver did not say what was expected");
    } else if (++c->matched == ph->len) {
        phrase_said(egc, c);
    }
}

static void output_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__twin_child *c = CONTAINER_OF(ev, libxl__twin_child, out_ev);
    unsigned char buf[256];
    ssize_t r, i;

    r = read(fd, buf, sizeof(buf));
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (r <= 0) {
        libxl__ev_fd_deregister(c->loop, ev);
        return;
    }
    /* An event may end in _dispose only after EXITED, so c stays. */
    for (i = 0; i < r && !c->failed && c->words != WORDS_OVER; i++)
        said(egc, c, buf[i]);
}

/* ---- its standard error ---- */

static void line_ends(libxl__egc *egc, libxl__twin_child *c)
{
    if (!c->err_len) return;
    c->err_line[c->err_len] = '\0';
    if (c->line) c->line(egc, c, c->err_line);
    c->err_len = 0;
}

/* false: nothing more to read. */
static bool read_errors(libxl__egc *egc, libxl__twin_child *c)
{
    char buf[1024];
    ssize_t r, i;

    r = read(c->err_fd, buf, sizeof(buf));
    if (r < 0) return errno == EINTR;
    for (i = 0; i < r; i++) {
        if (buf[i] == '\n' || buf[i] == '\r') {
            line_ends(egc, c);
            continue;
        }
        if (c->err_len < sizeof(c->err_line) - 1)
            c->err_line[c->err_len++] = buf[i] >= ' ' && buf[i] < 0x7f ? buf[i] : '?';
    }
    if (!r) libxl__ev_fd_deregister(c->loop, &c->err_ev);
    return r > 0;
}

static void errors_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    read_errors(egc, CONTAINER_OF(ev, libxl__twin_child, err_ev));
}

/* ---- its life ---- */

static void child_exited(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    libxl__twin_child *c = CONTAINER_OF(ev, libxl__twin_child, child);

    libxl__ev_time_deregister(c->loop, &c->limit);
    /* What it said before it ended still counts. Bounded: a process that it left behind may hold
     * the pipes. */
    if (libxl__ev_fd_isregistered(&c->out_ev))
        output_readable(egc, &c->out_ev, c->out_fd, POLLIN, POLLIN);
    for (int i = 0; i < 64 && read_errors(egc, c); i++)
        ;
    line_ends(egc, c);
    /* With our permission it ends with 0 only if the guest runs; what it said of it may be lost. */
    if (!c->failed && !c->closing && c->words != WORDS_OVER && WIFEXITED(status) &&
        !WEXITSTATUS(status) && c->permit_done == sizeof(permission)) {
        c->words = WORDS_OVER;
        c->event(egc, c, TWIN_CHILD_RUNS);
    }
    close_fd(c->loop, &c->in_ev, &c->in_fd);
    close_fd(c->loop, &c->out_ev, &c->out_fd);
    close_fd(c->loop, &c->err_ev, &c->err_fd);
    if (WIFSIGNALED(status))
        child_failed(egc, c, "the stock receiver was killed by signal %d", WTERMSIG(status));
    else
        child_failed(egc, c, "the stock receiver ended with status %d", WEXITSTATUS(status));
    c->event(egc, c, TWIN_CHILD_EXITED);
}

static void banner_late(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__twin_child *c = CONTAINER_OF(ev, libxl__twin_child, limit);

    child_failed(egc, c, "the stock receiver did not begin within %d s", LIMIT_BANNER_MS / 1000);
}

static int make_pipes(libxl__twin_child *c, int theirs[3])
{
    libxl__gc *gc = libxl__loop_gc(c->loop);
    int p[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, i, rc = 0;

    for (i = 0; i < 3 && !rc; i++) {
        if (pipe2(p[i], O_CLOEXEC)) {
            LOGE(gc, ERROR, "cannot make a pipe");
            rc = ERROR_FAIL;
        }
    }
    c->in_fd = p[0][1];
    c->out_fd = p[1][0];
    c->err_fd = p[2][0];
    theirs[0] = p[0][0];
    theirs[1] = p[1][1];
    theirs[2] = p[2][1];
    if (!rc) rc = libxl__fd_nonblock(gc, c->in_fd, true);
    if (!rc) rc = libxl__fd_nonblock(gc, c->out_fd, true);
    if (!rc) rc = libxl__fd_nonblock(gc, c->err_fd, true);
    /* Only saves wake-ups: failure is no error. */
    if (!rc) (void)fcntl(c->in_fd, F_SETPIPE_SZ, PIPE_BYTES);
    return rc;
}

static int register_fds(libxl__twin_child *c)
{
    int rc;

    rc = libxl__ev_fd_register(c->loop, &c->in_ev, input_writable, c->in_fd, 0);
    if (!rc) rc = libxl__ev_fd_register(c->loop, &c->out_ev, output_readable, c->out_fd, POLLIN);
    if (!rc) rc = libxl__ev_fd_register(c->loop, &c->err_ev, errors_readable, c->err_fd, POLLIN);
    if (!rc) rc = libxl__ev_time_register_rel(c->loop, &c->limit, banner_late, LIMIT_BANNER_MS);
    return rc;
}

static void __attribute__((noreturn)) child_exec(const libxl__twin_child *c, const int theirs[3])
{
    /* A group of its own: what is meant for us does not hit it, and we can reach its helpers. */
    setpgid(0, 0);
    if (c->lock) libxl__twin_lock_replace(c->lock, c->own_lock, theirs[2]);
    if (c->helper) setenv("LIBXL_SAVE_HELPER", c->helper, 1);
    setenv("XENTWIN_TWIN", "1", 1); /* block-remus, which libxl runs for it */
    libxl__exec(theirs[0], theirs[1], theirs[2], c->argv[0], (char *const *)c->argv);
}

int libxl__twin_child_start(libxl__twin_child *c)
{
    int theirs[3], rc, i;
    pid_t pid;

    rc = make_pipes(c, theirs);
    if (!rc) rc = register_fds(c);
    if (!rc) {
        pid = libxl__ev_child_fork(c->loop, &c->child, child_exited);
        if (!pid) child_exec(c, theirs);
        if (pid < 0) rc = ERROR_FAIL;
    }
    for (i = 0; i < 3; i++)
        if (theirs[i] >= 0) close(theirs[i]);
    if (rc) libxl__twin_child_dispose(c);
    return rc;
}

static void leave_late(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__twin_child *c = CONTAINER_OF(ev, libxl__twin_child, limit);

    LOG(libxl__loop_gc(c->loop), WARN, "the stock receiver does not end: %s",
        c->terminated ? "killing it" : "telling it to");
    kill(-c->child.pid, c->terminated ? SIGKILL : SIGTERM);
    c->terminated = true;
    libxl__ev_time_register_rel(c->loop, ev, leave_late, LIMIT_TERM_MS);
}

void libxl__twin_child_close(libxl__twin_child *c)
{
    if (!libxl__twin_child_alive(c) || c->closing) return;
    c->closing = true;
    close_fd(c->loop, &c->in_ev, &c->in_fd);
    libxl__ev_time_deregister(c->loop, &c->limit);
    if (libxl__ev_time_register_rel(c->loop, &c->limit, leave_late, LIMIT_LEAVE_MS))
        kill(-c->child.pid, SIGKILL);
}

void libxl__twin_child_init(libxl__twin_child *c)
{
    memset(c, 0, sizeof(*c));
    libxl__ev_child_init(&c->child);
    libxl__ev_fd_init(&c->in_ev);
    libxl__ev_fd_init(&c->out_ev);
    libxl__ev_fd_init(&c->err_ev);
    libxl__ev_time_init(&c->limit);
    c->in_fd = c->out_fd = c->err_fd = -1;
}

void libxl__twin_child_dispose(libxl__twin_child *c)
{
    if (!c->loop) return;
    assert(!libxl__twin_child_alive(c));
    close_fd(c->loop, &c->in_ev, &c->in_fd);
    close_fd(c->loop, &c->out_ev, &c->out_fd);
    close_fd(c->loop, &c->err_ev, &c->err_fd);
    libxl__ev_time_deregister(c->loop, &c->limit);
}
