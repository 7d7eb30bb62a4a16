/* SPDX-License-Identifier: LGPL-2.1-only */
/* See libxl_twin_warm.h for the conversation and the invariants. */
#include "libxl_twin_warm.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

/* Any answer; the slowest are a checkpoint of all memory and a device model that loads its state. */
#define LIMIT_ANSWER_MS 120000
#define STARTS_IN_VAIN_MAX 3
#define TURN_BYTES (1u << 20)
#define PIPE_BYTES (1 << 20)

static int spawn(libxl__twin_warm *w);

static void close_fd(libxl__loop *loop, libxl__ev_fd *ev, int *fd)
{
    libxl__ev_fd_deregister(loop, ev);
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void __attribute__((format(printf, 3, 4)))
warm_failed(libxl__egc *egc, libxl__twin_warm *w, const char *fmt, ...)
{
    va_list al;

    if (w->failed || w->closing) return;
    w->failed = true;
    va_start(al, fmt);
    vsnprintf(w->why, sizeof(w->why), fmt, al);
    va_end(al);
    if (libxl__twin_warm_alive(w)) kill(w->child.pid, SIGKILL);
    w->event(egc, w, TWIN_WARM_FAILED);
}

/* ---- what it gets ---- */

static size_t body(const libxl__twin_warm *w, const unsigned char **bytes)
{
    *bytes = NULL;
    if (w->head.kind == APPLY_DATA) (void)libxl__twin_stream_peek_later(w->stream, bytes);
    if (w->head.kind == APPLY_GO) (void)libxl__twin_stream_emulator(w->stream, bytes);
    return w->head.len;
}

static size_t message_left(const libxl__twin_warm *w)
{
    return w->head.kind ? sizeof(w->head) + w->head.len - w->sent : 0;
}

static void answer_late(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__twin_warm *w = CONTAINER_OF(ev, libxl__twin_warm, limit);

    LOG(libxl__loop_gc(w->loop), WARN, "xentwin-apply does not answer: killing it");
    kill(w->child.pid, SIGKILL); /* exited() starts it again */
}

static void begin_message(libxl__twin_warm *w, enum apply_kind kind, size_t len)
{
    w->head = (struct apply_head){.kind = kind, .n = w->stream->committed, .len = len};
    w->head.again = kind == APPLY_DATA && w->data_begun;
    if (kind == APPLY_DATA) w->data_begun = true;
    w->sent = 0;
    libxl__ev_time_register_rel(w->loop, &w->limit, answer_late, LIMIT_ANSWER_MS);
}

/* Chooses what is to be said, unless something is under way. */
static void next_message(libxl__twin_warm *w)
{
    const unsigned char *bytes;
    size_t len;

    if (!libxl__twin_warm_alive(w) || w->closing || w->failed) return;
    if (!w->head.kind && w->domain_complete) {
        len = libxl__twin_stream_peek_later(w->stream, &bytes);
        if (!w->ready)
            begin_message(w, APPLY_OPEN, 0);
        else if (len)
            begin_message(w, APPLY_DATA, len);
        else if (w->go_wanted)
            begin_message(w, APPLY_GO,
                          w->device_model ? libxl__twin_stream_emulator(w->stream, &bytes) : 0);
    }
    if (libxl__ev_fd_isregistered(&w->in_ev))
        libxl__ev_fd_modify(w->loop, &w->in_ev, message_left(w) ? POLLOUT : 0);
}

static void input_writable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__twin_warm *w = CONTAINER_OF(ev, libxl__twin_warm, in_ev);
    const unsigned char *bytes;
    size_t at, len, turn = 0;
    ssize_t r;

    body(w, &bytes);
    while (message_left(w) && turn < TURN_BYTES) {
        bool in_head = w->sent < sizeof(w->head);

        at = in_head ? w->sent : w->sent - sizeof(w->head);
        len = in_head ? sizeof(w->head) - at : w->head.len - at;
        r = write(fd, (in_head ? (const unsigned char *)&w->head : bytes) + at,
                  len < TURN_BYTES ? len : TURN_BYTES);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) {
            /* Its end tells more. */
            if (errno != EAGAIN) libxl__ev_fd_deregister(w->loop, ev);
            return;
        }
        w->sent += (size_t)r;
        turn += (size_t)r;
    }
    next_message(w);
}

/* ---- what it says ---- */

static void answered(libxl__egc *egc, libxl__twin_warm *w, const struct apply_answer *a)
{
    enum apply_kind asked = (enum apply_kind)w->head.kind;

    if (!asked || message_left(w) || a->kind != asked + (APPLY_READY - APPLY_OPEN) ||
        a->n != w->head.n) {
        LOG(libxl__loop_gc(w->loop), ERROR, "xentwin-apply gives an answer to nothing");
        kill(w->child.pid, SIGKILL);
        return;
    }
    libxl__ev_time_deregister(w->loop, &w->limit);
    w->head.kind = 0;
    if (asked == APPLY_OPEN) {
        w->ready = true;
        w->event(egc, w, TWIN_WARM_READY);
    } else if (asked == APPLY_DATA) {
        w->starts_in_vain = 0;
        w->data_begun = false;
        w->applied = w->head.len;
        libxl__twin_stream_took(w->stream, w->applied);
        w->event(egc, w, TWIN_WARM_APPLIED);
    } else {
        w->closing = true; /* it leaves by itself */
        w->event(egc, w, TWIN_WARM_GONE);
    }
    next_message(w);
}

static void output_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__twin_warm *w = CONTAINER_OF(ev, libxl__twin_warm, out_ev);
    struct apply_answer a;
    ssize_t r;

    r = read(fd, w->answer + w->answer_len, sizeof(w->answer) - w->answer_len);
    if (r < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (r <= 0) {
        libxl__ev_fd_deregister(w->loop, ev);
        return;
    }
    w->answer_len += (size_t)r;
    if (w->answer_len < sizeof(w->answer)) return;
    w->answer_len = 0;
    memcpy(&a, w->answer, sizeof(a));
    if (!w->closing && !w->failed) answered(egc, w, &a);
}

static void line_ends(libxl__twin_warm *w)
{
    w->err_line[w->err_len] = '\0';
    if (w->err_len) LOG(libxl__loop_gc(w->loop), INFO, "%s", w->err_line);
    w->err_len = 0;
}

/* false: nothing more to read. */
static bool read_errors(libxl__twin_warm *w)
{
    char buf[1024];
    ssize_t r, i;

    r = read(w->err_fd, buf, sizeof(buf));
    if (r < 0) return errno == EINTR;
    for (i = 0; i < r; i++) {
        if (buf[i] == '\n')
            line_ends(w);
        else if (w->err_len < sizeof(w->err_line) - 1)
            w->err_line[w->err_len++] = buf[i] >= ' ' && buf[i] < 0x7f ? buf[i] : '?';
    }
    if (!r) libxl__ev_fd_deregister(w->loop, &w->err_ev);
    return r > 0;
}

static void errors_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    read_errors(CONTAINER_OF(ev, libxl__twin_warm, err_ev));
}

/* ---- its life ---- */

static void forget_process(libxl__twin_warm *w)
{
    libxl__ev_time_deregister(w->loop, &w->limit);
    close_fd(w->loop, &w->in_ev, &w->in_fd);
    close_fd(w->loop, &w->out_ev, &w->out_fd);
    close_fd(w->loop, &w->err_ev, &w->err_fd);
    w->head.kind = 0;
    w->answer_len = w->err_len = 0;
    w->ready = false;
}

static void start_again(libxl__egc *egc, libxl__twin_warm *w, int status)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == APPLY_EXIT_NO_DOMAIN) {
        warm_failed(egc, w, "the twin's domain %s--incoming is gone", w->name);
    } else if (++w->starts_in_vain > STARTS_IN_VAIN_MAX) {
        warm_failed(egc, w, "a checkpoint cannot be applied: see the log");
    } else {
        LOG(libxl__loop_gc(w->loop), WARN, "xentwin-apply ended (%s %d): starting it again",
            WIFSIGNALED(status) ? "signal" : "status",
            WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        if (spawn(w)) warm_failed(egc, w, "cannot start %s", w->file);
    }
}

static void exited(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    libxl__twin_warm *w = CONTAINER_OF(ev, libxl__twin_warm, child);

    /* An answer that it gave before it ended counts. */
    if (libxl__ev_fd_isregistered(&w->out_ev))
        output_readable(egc, &w->out_ev, w->out_fd, POLLIN, POLLIN);
    for (int i = 0; i < 64 && read_errors(w); i++)
        ;
    line_ends(w);
    forget_process(w);
    if (!w->closing && !w->failed) start_again(egc, w, status);
    if (w->closing || w->failed)
        w->event(egc, w, TWIN_WARM_EXITED);
    else
        next_message(w);
}

static int make_pipes(libxl__twin_warm *w, int theirs[3])
{
    libxl__gc *gc = libxl__loop_gc(w->loop);
    int p[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, i, rc = 0;

    for (i = 0; i < 3 && !rc; i++) {
        if (pipe2(p[i], O_CLOEXEC)) {
            LOGE(gc, ERROR, "cannot make a pipe");
            rc = ERROR_FAIL;
        }
    }
    w->in_fd = p[0][1];
    w->out_fd = p[1][0];
    w->err_fd = p[2][0];
    theirs[0] = p[0][0];
    theirs[1] = p[1][1];
    theirs[2] = p[2][1];
    if (!rc) rc = libxl__fd_nonblock(gc, w->in_fd, true);
    if (!rc) rc = libxl__fd_nonblock(gc, w->out_fd, true);
    if (!rc) rc = libxl__fd_nonblock(gc, w->err_fd, true);
    /* Only saves wake-ups: failure is no error. */
    if (!rc) (void)fcntl(w->in_fd, F_SETPIPE_SZ, PIPE_BYTES);
    return rc;
}

static int register_fds(libxl__twin_warm *w)
{
    int rc;

    rc = libxl__ev_fd_register(w->loop, &w->in_ev, input_writable, w->in_fd, 0);
    if (!rc) rc = libxl__ev_fd_register(w->loop, &w->out_ev, output_readable, w->out_fd, POLLIN);
    if (!rc) rc = libxl__ev_fd_register(w->loop, &w->err_ev, errors_readable, w->err_fd, POLLIN);
    return rc;
}

static int spawn(libxl__twin_warm *w)
{
    const char *argv[5] = {w->file};
    int theirs[3], rc, i, n = 1;
    pid_t pid;

    if (w->device_model) argv[n++] = "--device-model";
    argv[n++] = w->uuid;
    argv[n] = w->name;
    rc = make_pipes(w, theirs);
    if (!rc) rc = register_fds(w);
    if (!rc) {
        pid = libxl__ev_child_fork(w->loop, &w->child, exited);
        if (!pid) {
            setpgid(0, 0);
            libxl__exec(theirs[0], theirs[1], theirs[2], w->file, (char *const *)argv);
        }
        if (pid < 0) rc = ERROR_FAIL;
    }
    for (i = 0; i < 3; i++)
        if (theirs[i] >= 0) close(theirs[i]);
    if (rc) forget_process(w);
    return rc;
}

/* ---- for the twin ---- */

int libxl__twin_warm_start(libxl__twin_warm *w)
{
    return spawn(w);
}

void libxl__twin_warm_open(libxl__egc *egc, libxl__twin_warm *w)
{
    w->domain_complete = true;
    next_message(w);
}

void libxl__twin_warm_more(libxl__twin_warm *w)
{
    next_message(w);
}

void libxl__twin_warm_go(libxl__twin_warm *w)
{
    w->go_wanted = true;
    next_message(w);
}

void libxl__twin_warm_close(libxl__twin_warm *w)
{
    w->closing = true;
    if (libxl__twin_warm_alive(w)) kill(w->child.pid, SIGKILL);
}

void libxl__twin_warm_init(libxl__twin_warm *w)
{
    memset(w, 0, sizeof(*w));
    libxl__ev_child_init(&w->child);
    libxl__ev_fd_init(&w->in_ev);
    libxl__ev_fd_init(&w->out_ev);
    libxl__ev_fd_init(&w->err_ev);
    libxl__ev_time_init(&w->limit);
    w->in_fd = w->out_fd = w->err_fd = -1;
}

void libxl__twin_warm_dispose(libxl__twin_warm *w)
{
    if (!w->loop) return;
    assert(!libxl__twin_warm_alive(w));
    forget_process(w);
}
