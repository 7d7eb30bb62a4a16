/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One thread serves all clients, one request at a time. Events are sent by whoever finds them, under
 * the disk's lock, and never wait: a client whose socket is full is cut off.
 */
#include "disk_control.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "disk_names.h"
#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define FDS_MAX 2

struct request {
    struct disk_control *c;
    struct disk_client *client;
    char *word, *arg; /* arg NULL: none */
    int fds[FDS_MAX];
    unsigned fd_count;
    char reply[DISK_REPLY_MAX];
};

static void cut(struct disk_client *client)
{
    shutdown(client->fd, SHUT_RDWR); /* its thread sees the end and frees it */
    client->failed = true;
}

static void send_text(struct disk_client *client, const char *text)
{
    size_t size = strlen(text);

    if (client->failed) return;
    if (send(client->fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)size) cut(client);
}

static void tell_event(struct disk *d, const char *text)
{
    struct disk_control *c = d->event_arg;
    char packet[DISK_REPLY_MAX];

    snprintf(packet, sizeof(packet), "event %s", text);
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        if (c->clients[i].fd >= 0 && c->clients[i].subscribed) send_text(&c->clients[i], packet);
    pthread_mutex_unlock(&c->lock);
}

/* ---- requests ---- */

static bool number(const char *text, uint64_t *value)
{
    char *end;

    if (!text || *text < '0' || *text > '9') return false;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && !*end;
}

static void result(struct request *q, int r, const char *why)
{
    if (r)
        snprintf(q->reply, sizeof(q->reply), "error %s", why);
    else
        snprintf(q->reply, sizeof(q->reply), "ok");
}

static void subscribe(struct request *q)
{
    pthread_mutex_lock(&q->c->lock);
    q->client->subscribed = true;
    pthread_mutex_unlock(&q->c->lock);
}

static void do_status(struct request *q, char *why)
{
    disk_status(q->c->disk, why);
    snprintf(q->reply, sizeof(q->reply), "ok %s", why);
}

static void do_subscribe(struct request *q, char *why)
{
    subscribe(q);
    result(q, 0, why);
}

static void do_link(struct request *q, char *why)
{
    if (!q->fd_count) {
        result(q, -1, "link: one or two file descriptors must come with it");
        return;
    }
    int in = q->fds[0], out = q->fds[q->fd_count - 1];
    q->fd_count = 0; /* the link's now */
    /* Before it starts, so that no event is missed. */
    subscribe(q);
    result(q, disk_link_start(q->c->disk, in, out, why), why);
}

static void do_sync(struct request *q, char *why)
{
    uint64_t rate = 0;

    if (q->arg && !number(q->arg, &rate))
        result(q, -1, "sync: the rate must be a number of octets per second");
    else
        result(q, disk_sync(q->c->disk, rate, why), why);
}

static void do_protect(struct request *q, char *why)
{
    result(q, disk_protect(q->c->disk, why), why);
}

static void do_unprotect(struct request *q, char *why)
{
    result(q, disk_unprotect(q->c->disk, why), why);
}

static void do_drop(struct request *q, char *why)
{
    result(q, disk_drop(q->c->disk, why), why);
}

static void with_number(struct request *q, char *why,
                        int (*call)(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]))
{
    uint64_t n;

    if (!number(q->arg, &n) || !n)
        snprintf(q->reply, sizeof(q->reply), "error %s: the number of a checkpoint must follow",
                 q->word);
    else
        result(q, call(q->c->disk, n, why), why);
}

static void do_barrier(struct request *q, char *why)
{
    with_number(q, why, disk_barrier);
}

static void do_commit(struct request *q, char *why)
{
    with_number(q, why, disk_commit);
}

static void do_promote(struct request *q, char *why)
{
    struct disk *d = q->c->disk;

    with_number(q, why, disk_promote);
    if (strcmp(q->reply, "ok")) return;
    pthread_mutex_lock(&d->lock);
    snprintf(q->reply, sizeof(q->reply), "ok generation=%" PRIu64, d->state.generation);
    pthread_mutex_unlock(&d->lock);
}

static void do_stop(struct request *q, char *why)
{
    result(q, 0, why);
    if (q->c->disk->shared) disk_shared_stop(q->c->disk);
    q->c->asked_to_stop();
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
    char why[DISK_TEXT_MAX] = "";
    char *blank = strchr(text, ' ');

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
static bool serve(struct disk_control *c, struct disk_client *client)
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
    /* A client that left before it read our answer: what it had asked for besides is still there. */
    if (n < 0) return errno == EAGAIN || errno == EINTR || errno == ECONNRESET;
    take_fds(&q, &m);
    bool bad = m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || memchr(text, 0, (size_t)n);
    text[n] = 0;
    if (n && !bad) answer(&q, text);
    if (n && bad) result(&q, -1, "the request is too long, or no text");
    for (unsigned i = 0; i < q.fd_count; i++)
        close(q.fds[i]);
    if (!n) return false;
    pthread_mutex_lock(&c->lock);
    send_text(client, q.reply);
    pthread_mutex_unlock(&c->lock);
    return true;
}

static void release(struct disk_control *c, struct disk_client *client)
{
    pthread_mutex_lock(&c->lock);
    close(client->fd);
    *client = (struct disk_client){.fd = -1};
    pthread_mutex_unlock(&c->lock);
}

static void welcome(struct disk_control *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) return;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < DISK_CLIENTS_MAX && fd >= 0; i++) {
        if (c->clients[i].fd >= 0) continue;
        c->clients[i] = (struct disk_client){.fd = fd};
        fd = -1;
    }
    pthread_mutex_unlock(&c->lock);
    if (fd >= 0) close(fd);
}

static void *control_thread(void *arg)
{
    struct disk_control *c = arg;
    struct pollfd p[2 + DISK_CLIENTS_MAX];

    for (;;) {
        p[0] = (struct pollfd){.fd = c->wake_fd, .events = POLLIN};
        p[1] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
        for (int i = 0; i < DISK_CLIENTS_MAX; i++)
            p[2 + i] = (struct pollfd){.fd = c->clients[i].fd, .events = POLLIN};
        if (poll(p, 2 + DISK_CLIENTS_MAX, -1) < 0 && errno != EINTR) break;
        if (p[0].revents) break;
        for (int i = 0; i < DISK_CLIENTS_MAX; i++)
            if (p[2 + i].fd >= 0 && p[2 + i].revents && !serve(c, &c->clients[i]))
                release(c, &c->clients[i]);
        if (p[1].revents) welcome(c);
    }
    return NULL;
}

int disk_control_open(struct disk_control *c, struct disk *d, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    memset(c, 0, sizeof(*c));
    c->disk = d;
    c->listen_fd = c->wake_fd = -1;
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        c->clients[i].fd = -1;
    pthread_mutex_init(&c->lock, NULL);
    if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    c->wake_fd = eventfd(0, EFD_CLOEXEC);
    c->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->wake_fd < 0 || c->listen_fd < 0) return -errno;
    unlink(path);
    mode_t old = umask(0177);
    int r = bind(c->listen_fd, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
    umask(old);
    if (!r && listen(c->listen_fd, DISK_CLIENTS_MAX)) r = -errno;
    return r;
}

int disk_control_start(struct disk_control *c)
{
    c->disk->event_arg = c;
    c->disk->event = tell_event;
    int r = pthread_create(&c->thread, NULL, control_thread, c);
    c->runs = r == 0;
    return -r;
}

void disk_control_close(struct disk_control *c)
{
    uint64_t one = 1;

    if (c->runs) {
        (void)!write(c->wake_fd, &one, sizeof(one));
        pthread_join(c->thread, NULL);
    }
    c->runs = false;
    if (c->disk) {
        pthread_mutex_lock(&c->disk->lock);
        c->disk->event = NULL;
        pthread_mutex_unlock(&c->disk->lock);
    }
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        if (c->clients[i].fd >= 0) close(c->clients[i].fd);
    if (c->listen_fd >= 0) close(c->listen_fd);
    if (c->wake_fd >= 0) close(c->wake_fd);
}
