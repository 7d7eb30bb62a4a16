/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The control socket of a running operation: the operation's end.
 *
 *   <dir>/<side>-<domain>.lock   flocked for the life of the operation: who holds it is alive
 *   <dir>/<side>-<domain>.sock   only who holds the lock makes, replaces or removes it
 *
 * Invariants:
 *  1. At most CLIENTS_MAX connections; each may say CONTROL_LINE_MAX bytes, in LINE_LIMIT_MS.
 *  2. A request id is used once; answering one that is gone does nothing.
 *  3. No answer blocks: what does not fit into the socket's buffer at once is the client's loss.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_control_path.h"

#define CLIENTS_MAX 16
#define LINE_LIMIT_MS 5000
#define LOCK_TRIES 10
#define SHORTAGE_MS 1000

struct client {
    struct libxl__control *ctl;
    libxl__ev_fd ev; /* registered while we wait for its line, or for its end */
    libxl__ev_time timer;
    int fd;      /* -1: free slot */
    unsigned id; /* 0: it has not asked yet */
    size_t used;
    char line[CONTROL_LINE_MAX + 1];
};

struct control_state {
    int listen_fd, lock_fd;
    libxl__ev_fd listen_ev;
    libxl__ev_time shortage; /* runs while descriptors are short and nobody is accepted */
    unsigned last_id;
    char sock[CONTROL_PATH_SIZE];
    char lock[CONTROL_PATH_SIZE];
    struct client clients[CLIENTS_MAX];
};

/* ---- folder, lock, socket ---- */

static int make_run_dir(libxl__gc *gc)
{
    const char *dir = control_dir();
    struct stat st;

    if (mkdir(dir, 0700) && errno != EEXIST) {
        LOGE(gc, ERROR, "cannot make %s", dir);
        return ERROR_FAIL;
    }
    if (lstat(dir, &st)) {
        LOGE(gc, ERROR, "cannot look at %s", dir);
        return ERROR_FAIL;
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 022)) {
        LOG(gc, ERROR, "%s must be a folder of user %u that nobody else can write to", dir,
            (unsigned)geteuid());
        return ERROR_FAIL;
    }
    return 0;
}

/* The lock file is removed by its owner, so a fresh lock counts only if the path still leads to it.
 */
static int take_lock(libxl__gc *gc, struct control_state *st)
{
    for (int i = 0; i < LOCK_TRIES; i++) {
        struct stat by_fd, by_path;
        int fd = open(st->lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0) {
            LOGE(gc, ERROR, "cannot open %s", st->lock);
            return ERROR_FAIL;
        }
        if (flock(fd, LOCK_EX | LOCK_NB)) {
            bool taken = errno == EWOULDBLOCK;
            if (!taken) LOGE(gc, ERROR, "cannot lock %s", st->lock);
            close(fd);
            return taken ? ERROR_LOCK_FAIL : ERROR_FAIL;
        }
        if (!fstat(fd, &by_fd) && !stat(st->lock, &by_path) && by_fd.st_ino == by_path.st_ino &&
            by_fd.st_dev == by_path.st_dev) {
            st->lock_fd = fd;
            return 0;
        }
        close(fd);
    }
    return ERROR_LOCK_FAIL;
}

static int open_socket(libxl__gc *gc, struct control_state *st)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    st->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (st->listen_fd < 0) {
        LOGE(gc, ERROR, "no socket for %s", st->sock);
        return ERROR_FAIL;
    }
    memcpy(addr.sun_path, st->sock, sizeof(addr.sun_path));
    /* We hold the lock, so whoever made this file is dead. The folder is 0700: nobody can connect
     * before the chmod. */
    unlink(st->sock);
    if (bind(st->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) || chmod(st->sock, 0600) ||
        listen(st->listen_fd, CLIENTS_MAX)) {
        LOGE(gc, ERROR, "cannot listen on %s", st->sock);
        return ERROR_FAIL;
    }
    return 0;
}

/* ---- clients ---- */

static void client_free(struct client *c)
{
    if (c->fd < 0) return;
    libxl__ev_fd_deregister(c->ctl->loop, &c->ev);
    libxl__ev_time_deregister(c->ctl->loop, &c->timer);
    close(c->fd);
    c->fd = -1;
    c->id = 0;
}

/* Says text as one line (or as it is when it has lines of its own) and ends the connection. */
static void client_answer(struct client *c, const char *text)
{
    size_t len = strnlen(text, CONTROL_ANSWER_MAX - 1);
    struct iovec iov[2] = {{(void *)text, len}, {(void *)"\n", 1}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = len && text[len - 1] == '\n' ? 1 : 2};

    /* It may be gone, or not read: its loss, see the head. */
    (void)!sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    client_free(c);
}

static void client_timer(libxl__egc *egc, libxl__ev_time *ev)
{
    client_answer(CONTAINER_OF(ev, struct client, timer), "error no line came in time");
}

/* Whether both directions are closed; a client that only closed its sending side still waits for
 * the answer. */
static bool client_gone(const struct client *c)
{
    struct pollfd p = {.fd = c->fd, .events = 0};

    return poll(&p, 1, 0) != 0;
}

/* The whole line is there. Nothing may be touched after request(): it may answer or dispose. */
static void client_asks(libxl__egc *egc, struct client *c)
{
    libxl__control *ctl = c->ctl;

    libxl__ev_time_deregister(ctl->loop, &c->timer);
    for (size_t i = 0; c->line[i]; i++) {
        if (c->line[i] < 0x20 || c->line[i] == 0x7f) {
            client_answer(c, "error the line has unprintable bytes");
            return;
        }
    }
    c->id = ++ctl->st->last_id ? ctl->st->last_id : ++ctl->st->last_id;
    ctl->request(egc, ctl, c->id, c->line);
}

static void client_input(libxl__egc *egc, struct client *c)
{
    /* One byte more than a line may have: room for the newline, or the proof that it is too long.
     */
    ssize_t n = recv(c->fd, c->line + c->used, sizeof(c->line) - c->used, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        client_free(c);
        return;
    }
    c->used += (size_t)n;
    char *end = memchr(c->line, '\n', c->used);
    if (!end && c->used == sizeof(c->line)) {
        client_answer(c, "error the line is too long");
        return;
    }
    if (!end) return;
    if (end != c->line + c->used - 1 || memchr(c->line, 0, c->used)) {
        client_answer(c, "error only one line is expected");
        return;
    }
    *end = 0;
    client_asks(egc, c);
}

static void client_ready(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct client *c = CONTAINER_OF(ev, struct client, ev);
    char byte;

    if (!c->id) {
        client_input(egc, c);
        return;
    }
    /* It has asked and waits: all that may come is its end. */
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n == 0 && !client_gone(c))
        libxl__ev_fd_deregister(c->ctl->loop, &c->ev);
    else
        client_free(c);
}

/* A free slot; else that of a client which closed its sending side and has gone away since. */
static struct client *client_slot(struct control_state *st)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (st->clients[i].fd < 0) return &st->clients[i];
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &st->clients[i];
        if (libxl__ev_fd_isregistered(&c->ev) || !client_gone(c)) continue;
        client_free(c);
        return c;
    }
    return NULL;
}

static void listen_ready(libxl__egc *egc, libxl__ev_fd *ev, int lfd, short events, short revents);

static void listen_again(libxl__egc *egc, libxl__ev_time *ev)
{
    struct control_state *st = CONTAINER_OF(ev, struct control_state, shortage);
    libxl__loop *loop = st->clients[0].ctl->loop;

    if (libxl__ev_fd_register(loop, &st->listen_ev, listen_ready, st->listen_fd, POLLIN))
        (void)libxl__ev_time_register_rel(loop, &st->shortage, listen_again, SHORTAGE_MS);
}

/* Who waits to be accepted stays readable: to look at once again would only burn the processor. */
static void listen_later(struct control_state *st)
{
    libxl__loop *loop = st->clients[0].ctl->loop;

    if (!libxl__ev_time_register_rel(loop, &st->shortage, listen_again, SHORTAGE_MS))
        libxl__ev_fd_deregister(loop, &st->listen_ev);
}

static void listen_ready(libxl__egc *egc, libxl__ev_fd *ev, int lfd, short events, short revents)
{
    struct control_state *st = CONTAINER_OF(ev, struct control_state, listen_ev);
    libxl__control *ctl = st->clients[0].ctl;
    struct client *c;
    int rc;

    int fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) {
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) listen_later(st);
        return;
    }
    c = client_slot(st);
    if (!c) {
        static const char busy[] = "error busy\n";
        (void)!send(fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(fd);
        return;
    }
    c->fd = fd;
    c->used = 0;
    c->id = 0;
    memset(c->line, 0, sizeof(c->line));
    rc = libxl__ev_fd_register(ctl->loop, &c->ev, client_ready, fd, POLLIN);
    if (!rc) rc = libxl__ev_time_register_rel(ctl->loop, &c->timer, client_timer, LINE_LIMIT_MS);
    if (rc) client_free(c);
}

/* ---- life ---- */

void libxl__control_init(libxl__control *ctl)
{
    memset(ctl, 0, sizeof(*ctl));
}

static struct control_state *state_new(libxl__control *ctl)
{
    struct control_state *st = calloc(1, sizeof(*st));

    if (!st) return NULL;
    st->listen_fd = st->lock_fd = -1;
    libxl__ev_fd_init(&st->listen_ev);
    libxl__ev_time_init(&st->shortage);
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        st->clients[i].ctl = ctl;
        st->clients[i].fd = -1;
        libxl__ev_fd_init(&st->clients[i].ev);
        libxl__ev_time_init(&st->clients[i].timer);
    }
    return st;
}

int libxl__control_start(libxl__control *ctl)
{
    libxl__gc *gc = libxl__loop_gc(ctl->loop);
    struct control_state *st;
    int rc;

    st = ctl->st = state_new(ctl);
    if (!st) return ERROR_NOMEM;
    rc = control_path(gc, st->sock, ctl->side, ctl->domain, "sock");
    if (rc) goto out;
    rc = control_path(gc, st->lock, ctl->side, ctl->domain, "lock");
    if (rc) goto out;
    rc = make_run_dir(gc);
    if (rc) goto out;
    rc = take_lock(gc, st);
    if (rc == ERROR_LOCK_FAIL)
        LOG(gc, ERROR, "domain %s: another process of this host is its %s already", ctl->domain,
            ctl->side);
    if (rc) goto out;
    rc = open_socket(gc, st);
    if (rc) goto out;
    rc = libxl__ev_fd_register(ctl->loop, &st->listen_ev, listen_ready, st->listen_fd, POLLIN);
out:
    if (rc) libxl__control_dispose(ctl);
    return rc;
}

void libxl__control_sweep(libxl__gc *gc, const char *side, const char *domain)
{
    struct control_state st = {.lock_fd = -1};

    if (control_path(gc, st.sock, side, domain, "sock") ||
        control_path(gc, st.lock, side, domain, "lock") || take_lock(gc, &st))
        return;
    unlink(st.sock);
    unlink(st.lock);
    close(st.lock_fd);
}

void libxl__control_reply(libxl__control *ctl, unsigned id, const char *text)
{
    if (!ctl->st || !id) return;
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &ctl->st->clients[i];
        if (c->fd < 0 || c->id != id) continue;
        client_answer(c, text);
        return;
    }
}

void libxl__control_dispose(libxl__control *ctl)
{
    struct control_state *st = ctl->st;

    if (!st) return;
    ctl->st = NULL;
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        if (st->clients[i].fd >= 0) client_answer(&st->clients[i], "error ended");
    if (st->listen_fd >= 0) {
        libxl__ev_fd_deregister(ctl->loop, &st->listen_ev);
        libxl__ev_time_deregister(ctl->loop, &st->shortage);
        close(st->listen_fd);
    }
    if (st->lock_fd >= 0) {
        /* Socket first, lock file last, both while the lock is held: a successor finds nothing or
         * waits. */
        unlink(st->sock);
        unlink(st->lock);
        close(st->lock_fd);
    }
    free(st);
}
