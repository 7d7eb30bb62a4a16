/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_control.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FDS_MAX 2

struct request {
    struct drbd_control *c;
    struct drbd_client *client;
    char *word, *arg; /* arg NULL: none */
    int fds[FDS_MAX];
    unsigned fd_count;
    bool later; /* the reply comes by itself */
    char reply[DISK_REPLY_MAX];
};

static void send_text(struct drbd_client *client, const char *text)
{
    size_t size = strlen(text);

    if (client->failed || client->fd < 0) return;
    if (send(client->fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size) return;
    /* A client that does not read is cut off. */
    shutdown(client->fd, SHUT_RDWR);
    client->failed = true;
}

void drbd_control_event(struct drbd_control *c, const char *text)
{
    char packet[DISK_REPLY_MAX];

    snprintf(packet, sizeof(packet), "event %s", text);
    for (int i = 0; i < DRBD_CLIENTS_MAX; i++)
        if (c->clients[i].fd >= 0 && c->clients[i].subscribed) send_text(&c->clients[i], packet);
}

void drbd_control_barrier(struct drbd_control *c, const char *reply)
{
    for (int i = 0; i < DRBD_CLIENTS_MAX; i++) {
        if (!c->clients[i].waits) continue;
        c->clients[i].waits = false;
        send_text(&c->clients[i], reply);
    }
}

/* ---- requests ---- */

static void result(struct request *q, int r, const char *why)
{
    if (r)
        snprintf(q->reply, sizeof(q->reply), "error %s", why);
    else
        snprintf(q->reply, sizeof(q->reply), "ok");
}

static bool number(const char *text, uint64_t *value)
{
    char *end;

    if (!text || *text < '0' || *text > '9') return false;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && !*end;
}

static void do_status(struct request *q, char *why)
{
    char text[DISK_REPLY_MAX];

    (void)why;
    drbd_instance_status(q->c->instance, text);
    snprintf(q->reply, sizeof(q->reply), "ok %.*s", (int)sizeof(q->reply) - 4, text);
}

static void do_subscribe(struct request *q, char *why)
{
    q->client->subscribed = true;
    result(q, 0, why);
}

static void do_link(struct request *q, char *why)
{
    if (!q->fd_count) {
        result(q, -1, "link: one or two file descriptors must come with it");
        return;
    }
    int in_fd = q->fds[0], out_fd = q->fds[q->fd_count - 1];
    q->fd_count = 0; /* the link's now */
    q->client->subscribed = true;
    result(q, drbd_link_start(q->c->instance, in_fd, out_fd, why), why);
}

/* The rate is DRBD's business (resync-rate). */
static void do_sync(struct request *q, char *why)
{
    result(q, drbd_sync(q->c->instance, why), why);
}

static void do_protect(struct request *q, char *why)
{
    result(q, drbd_protect(q->c->instance, why), why);
}

static void do_unprotect(struct request *q, char *why)
{
    result(q, drbd_unprotect(q->c->instance, why), why);
}

static void do_drop(struct request *q, char *why)
{
    result(q, drbd_drop(q->c->instance, why), why);
}

static void with_number(struct request *q, char *why,
                        int (*call)(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX]))
{
    uint64_t n;

    if (!number(q->arg, &n) || !n)
        snprintf(q->reply, sizeof(q->reply), "error %s: the number of a checkpoint must follow",
                 q->word);
    else
        result(q, call(q->c->instance, n, why), why);
}

static void do_barrier(struct request *q, char *why)
{
    q->client->waits = true;
    with_number(q, why, drbd_barrier);
    /* ok: the snapshot is on its way, or the answer was given in the meantime. */
    q->later = !strcmp(q->reply, "ok");
    if (!q->later) q->client->waits = false;
}

static void do_commit(struct request *q, char *why)
{
    with_number(q, why, drbd_commit);
}

static void do_promote(struct request *q, char *why)
{
    with_number(q, why, drbd_promote);
    if (!strcmp(q->reply, "ok"))
        snprintf(q->reply, sizeof(q->reply), "ok generation=%" PRIu64,
                 q->c->instance->state.generation);
}

static void do_stop(struct request *q, char *why)
{
    result(q, 0, why);
    q->c->stop = true;
}

static const struct {
    const char *word;
    bool argument;
    void (*call)(struct request *q, char *why);
} requests[] = {
    {"status", false, do_status},   {"subscribe", false, do_subscribe},
    {"link", false, do_link},       {"sync", true, do_sync},
    {"protect", false, do_protect}, {"unprotect", false, do_unprotect},
    {"barrier", true, do_barrier},  {"commit", true, do_commit},
    {"promote", true, do_promote},  {"drop", false, do_drop},
    {"stop", false, do_stop},
};

static void answer(struct request *q, char *text)
{
    char why[DRBD_WHY_MAX] = "", *blank = strchr(text, ' ');

    q->word = text;
    if (blank) {
        *blank = 0;
        q->arg = blank + 1;
    }
    for (size_t i = 0; i < sizeof(requests) / sizeof(*requests); i++) {
        if (strcmp(requests[i].word, text)) continue;
        if (q->arg && !requests[i].argument)
            snprintf(q->reply, sizeof(q->reply), "error %s takes no argument", text);
        else
            requests[i].call(q, why);
        return;
    }
    snprintf(q->reply, sizeof(q->reply), "error no such request");
}

/* ---- the socket ---- */

static void take_fds(struct request *q, struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (q->fd_count < FDS_MAX)
                q->fds[q->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

/* False: the client is gone. */
static bool serve(struct drbd_control *c, struct drbd_client *client)
{
    char text[DISK_REQUEST_MAX + 1] = "";
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * FDS_MAX)];
    } control;
    struct iovec iov = {.iov_base = text, .iov_len = DISK_REQUEST_MAX};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};
    struct request q = {.c = c, .client = client};

    ssize_t n = recvmsg(client->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    take_fds(&q, &m);
    bool bad = m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || memchr(text, 0, (size_t)n);
    text[n] = 0;
    if (n && !bad) answer(&q, text);
    if (n && bad) result(&q, -1, "the request is too long, or no text");
    for (unsigned i = 0; i < q.fd_count; i++)
        close(q.fds[i]);
    if (!n) return false;
    if (!q.later) send_text(client, q.reply);
    return true;
}

static void welcome(struct drbd_control *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    for (int i = 0; i < DRBD_CLIENTS_MAX && fd >= 0; i++) {
        if (c->clients[i].fd >= 0) continue;
        c->clients[i] = (struct drbd_client){.fd = fd};
        fd = -1;
    }
    if (fd >= 0) close(fd);
}

void drbd_control_before(const struct drbd_control *c, struct pollfd *p)
{
    for (int i = 0; i < DRBD_CLIENTS_MAX; i++)
        p[i] = (struct pollfd){.fd = c->clients[i].fd, .events = c->clients[i].waits ? 0 : POLLIN};
    p[DRBD_CLIENTS_MAX] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
}

void drbd_control_after(struct drbd_control *c, const struct pollfd *p)
{
    for (int i = 0; i < DRBD_CLIENTS_MAX; i++) {
        struct drbd_client *client = &c->clients[i];

        if (p[i].fd < 0 || !p[i].revents) continue;
        /* One whose barrier waits is read only to see its end. */
        if (client->waits ? !(p[i].revents & (POLLHUP | POLLERR)) : serve(c, client)) continue;
        close(client->fd);
        *client = (struct drbd_client){.fd = -1};
    }
    if (p[DRBD_CLIENTS_MAX].revents) welcome(c);
}

int drbd_control_open(struct drbd_control *c, struct drbd_instance *in, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(c, 0, sizeof(*c));
    c->instance = in;
    for (int i = 0; i < DRBD_CLIENTS_MAX; i++)
        c->clients[i].fd = -1;
    c->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listen_fd < 0) return -errno;
    if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    unlink(path);
    mode_t old = umask(0177);
    int r = bind(c->listen_fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
    umask(old);
    if (!r && listen(c->listen_fd, DRBD_CLIENTS_MAX)) r = -errno;
    return r;
}

void drbd_control_close(struct drbd_control *c)
{
    for (int i = 0; i < DRBD_CLIENTS_MAX; i++)
        if (c->clients[i].fd >= 0) close(c->clients[i].fd);
    if (c->listen_fd >= 0) close(c->listen_fd);
}
