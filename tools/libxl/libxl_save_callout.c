/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_save_callout.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libxl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MSG_MAX 65535u /* body; the length is a u16 */
#define BUF_SIZE (2 + MSG_MAX)
#define XCFLAGS_LIVE 1
#define STREAM_REMUS 1
#define CBFLAGS                                                                                    \
    ((1u << HELPER_SUSPEND) | (1u << HELPER_POSTCOPY) | (1u << HELPER_CHECKPOINT) |                \
     (1u << HELPER_SWITCH_LOGDIRTY))

/* Reads the fields of one message; every getter fails when the body is too short. */
struct cursor {
    const unsigned char *p;
    size_t left;
};

static bool get(struct cursor *c, void *out, size_t n)
{
    if (c->left < n) return false;
    memcpy(out, c->p, n);
    c->p += n;
    c->left -= n;
    return true;
}

static bool get_string(struct cursor *c, const char **s)
{
    uint32_t n;

    if (!get(c, &n, sizeof(n)) || n == 0 || n > c->left || c->p[n - 1] != 0) return false;
    *s = (const char *)c->p;
    c->p += n;
    c->left -= n;
    return true;
}

void libxl__save_callout_init(libxl__save_callout *co)
{
    *co = (libxl__save_callout){.stream_fd = -1, .msg_fd = -1, .reply_fd = -1};
    libxl__ev_fd_init(&co->msg_ev);
    libxl__ev_child_init(&co->child);
    libxl__ev_time_init(&co->kill_timer);
}

static void handle_log(libxl__save_callout *co, struct cursor *c)
{
    uint32_t level, err;
    const char *context, *text;

    if (!get(c, &level, 4) || !get(c, &err, 4) || !get_string(c, &context) || !get_string(c, &text))
        return;
    if (level < XTL_DEBUG || level > XTL_CRITICAL) level = XTL_INFO;
    libxl__log(libxl__loop_gc(co->loop), level, (int)err, "helper: %s", text);
}

static void handle_progress(libxl__egc *egc, libxl__save_callout *co, struct cursor *c)
{
    const char *context, *what;
    uint64_t done, total;

    if (!get_string(c, &context) || !get_string(c, &what) || !get(c, &done, 8) ||
        !get(c, &total, 8))
        return;
    if (!strcmp(what, HELPER_CHECKPOINT_PAGES))
        co->checkpoint_pages = done;
    else if (co->progress)
        co->progress(egc, co, done, total);
}

static void handle_message(libxl__egc *egc, libxl__save_callout *co, const unsigned char *body,
                           size_t len)
{
    struct cursor c = {body, len};
    uint32_t domid, enable = 0;
    uint16_t what;

    if (!get(&c, &what, sizeof(what))) return;
    switch (what) {
    case HELPER_LOG:
        handle_log(co, &c);
        return;
    case HELPER_PROGRESS:
        handle_progress(egc, co, &c);
        return;
    case HELPER_COMPLETE:
        co->completed = true;
        co->asked = true;
        libxl__save_callout_reply(co, 0);
        return;
    case HELPER_SWITCH_LOGDIRTY:
        if (!get(&c, &domid, 4) || !get(&c, &enable, 4)) break;
        /* fall through */
    case HELPER_SUSPEND:
    case HELPER_POSTCOPY:
    case HELPER_CHECKPOINT:
        co->asked = true;
        co->call(egc, co, what, enable);
        return;
    }
    LOG(libxl__loop_gc(co->loop), ERROR, "domain %u: the save helper sent message %u of %zu bytes",
        co->domid, what, len);
    libxl__save_callout_terminate(co, 0);
}

static void messages_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events,
                              short revents)
{
    libxl__save_callout *co = CONTAINER_OF(ev, libxl__save_callout, msg_ev);
    size_t at = 0;
    ssize_t r = read(fd, co->buf + co->used, BUF_SIZE - co->used);

    if (r < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (r <= 0) { /* its end is reported by the child event */
        libxl__ev_fd_deregister(co->loop, &co->msg_ev);
        return;
    }
    co->used += (size_t)r;
    while (co->used - at >= 2) {
        uint16_t len;

        memcpy(&len, co->buf + at, 2);
        if (co->used - at < 2u + len) break;
        handle_message(egc, co, co->buf + at + 2, len);
        at += 2u + len;
    }
    memmove(co->buf, co->buf + at, co->used - at);
    co->used -= at;
}

static void helper_exited(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    libxl__save_callout *co = CONTAINER_OF(ev, libxl__save_callout, child);
    libxl__gc *gc = libxl__loop_gc(co->loop);
    bool clean = co->completed && (status == 0 || status == -1);

    libxl__ev_time_deregister(co->loop, &co->kill_timer);
    /* What it said last may still be in the pipe; all of it fits in one read. */
    if (libxl__ev_fd_isregistered(&co->msg_ev))
        messages_readable(egc, &co->msg_ev, co->msg_fd, POLLIN, POLLIN);
    libxl__ev_fd_deregister(co->loop, &co->msg_ev);
    if (status > 0 && WIFSIGNALED(status))
        LOG(gc, ERROR, "domain %u: the save helper was killed by signal %d", co->domid,
            WTERMSIG(status));
    co->exited(egc, co, clean);
}

static const char *helper_path(void)
{
    const char *path = getenv("LIBXL_SAVE_HELPER");

    return path ? path : XENTWIN_LIBEXECDIR "/libxl-save-helper";
}

/* What the user's environment has of these names is none of the helper's business. */
static void set_encode(const libxl__save_callout *co)
{
    char mib[24];

    unsetenv("XENTWIN_ENCODE");
    unsetenv("XENTWIN_ENCODE_CACHE");
    if (!co->encode) return;
    setenv("XENTWIN_ENCODE", co->encode, 1);
    if (!co->encode_cache_mib) return;
    snprintf(mib, sizeof(mib), "%" PRIu64, co->encode_cache_mib);
    setenv("XENTWIN_ENCODE_CACHE", mib, 1);
}

static void run_helper(libxl__save_callout *co, int in, int out) __attribute__((noreturn));
static void run_helper(libxl__save_callout *co, int in, int out)
{
    char domid[16], cbflags[16], *path = (char *)helper_path();
    char *argv[] = {path,        (char *)"--save-domain",
                    (char *)"3", (char *)"-1",
                    domid,       (char *)"1",
                    cbflags,     (char *)"1",
                    NULL};
    /* Above everything that is about to be overwritten. */
    int stream = fcntl(co->stream_fd, F_DUPFD, 16);

    in = fcntl(in, F_DUPFD_CLOEXEC, 17);
    out = fcntl(out, F_DUPFD_CLOEXEC, 17);
    if (stream < 0 || in < 0 || out < 0 || dup2(stream, 3) < 0) _exit(126);
    (void)close_range(4, (unsigned)in - 1, 0);
    (void)close_range((unsigned)out + 1, ~0u, 0);
    snprintf(domid, sizeof(domid), "%u", co->domid);
    snprintf(cbflags, sizeof(cbflags), "%u", CBFLAGS);
    setenv("LIBXL_SAVE_HELPER_GUARDED", "1", 1);
    set_encode(co);
    libxl__exec(in, out, 2, path, argv);
}

int libxl__save_callout_start(libxl__save_callout *co)
{
    libxl__gc *gc = libxl__loop_gc(co->loop);
    int in[2] = {-1, -1}, out[2] = {-1, -1}, rc;
    pid_t pid;

    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) {
        LOGE(gc, ERROR, "cannot make a pipe for the save helper");
        rc = ERROR_FAIL;
        goto out;
    }
    co->buf = malloc(BUF_SIZE);
    if (!co->buf) {
        rc = ERROR_NOMEM;
        goto out;
    }
    pid = libxl__ev_child_fork(co->loop, &co->child, helper_exited);
    if (pid < 0) {
        rc = ERROR_FAIL;
        goto out;
    }
    if (pid == 0) run_helper(co, in[0], out[1]);
    co->reply_fd = in[1];
    co->msg_fd = out[0];
    in[1] = out[0] = -1;
    rc = libxl__fd_nonblock(gc, co->msg_fd, true);
    if (!rc)
        rc = libxl__ev_fd_register(co->loop, &co->msg_ev, messages_readable, co->msg_fd, POLLIN);
    if (rc) /* the child is running: its end comes through exited() */
        libxl__save_callout_terminate(co, 0);
    rc = 0;
out:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0) close(in[i]);
        if (out[i] >= 0) close(out[i]);
    }
    return rc;
}

void libxl__save_callout_reply(libxl__save_callout *co, int value)
{
    ssize_t r;

    assert(co->asked);
    co->asked = false;
    /* 4 bytes into an empty pipe: never short, never blocks. EPIPE: it died, and exited() will say so. */
    do
        r = write(co->reply_fd, &value, sizeof(value));
    while (r < 0 && errno == EINTR);
}

static void grace_over(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__save_callout *co = CONTAINER_OF(ev, libxl__save_callout, kill_timer);

    LOG(libxl__loop_gc(co->loop), WARN, "domain %u: the save helper does not end, killing it",
        co->domid);
    kill(co->child.pid, SIGKILL);
}

void libxl__save_callout_terminate(libxl__save_callout *co, int grace_ms)
{
    if (!libxl__save_callout_inuse(co)) return;
    kill(co->child.pid, grace_ms ? SIGTERM : SIGKILL);
    if (grace_ms && !co->kill_timer.registered)
        (void)libxl__ev_time_register_rel(co->loop, &co->kill_timer, grace_over, grace_ms);
}

void libxl__save_callout_dispose(libxl__save_callout *co)
{
    if (co->msg_fd >= 0) close(co->msg_fd);
    if (co->reply_fd >= 0) close(co->reply_fd);
    co->msg_fd = co->reply_fd = -1;
    free(co->buf);
    co->buf = NULL;
}
