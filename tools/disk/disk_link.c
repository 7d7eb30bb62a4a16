/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_link.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define BUFFER_SIZE (1 << 20)
/* Holds a few small frames; of a large one no more than this is copied twice. */
#define AHEAD_SIZE (16u << 10)

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) return -errno;
    return 0;
}

/* As much as a large write needs, if the kernel lets us; less is slower and no error. TCP finds its own. */
static void enlarge(int fd)
{
    static const int size = BUFFER_SIZE;
    int domain;
    socklen_t length = sizeof(domain);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length))
        (void)fcntl(fd, F_SETPIPE_SZ, BUFFER_SIZE);
    else if (domain == AF_UNIX && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
}

struct disk_link *disk_link_new(struct disk *d, int in, int out)
{
    struct disk_link *l = calloc(1, sizeof(*l));

    if (!l) return NULL;
    l->wake = -1;
    l->payload = malloc(DISK_PAYLOAD_MAX);
    if (l->payload) l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake < 0 || set_nonblocking(in) || set_nonblocking(out)) {
        if (l->wake >= 0) close(l->wake);
        free(l->payload);
        free(l);
        return NULL;
    }
    enlarge(out);
    l->disk = d;
    l->in = in;
    l->out = out;
    pthread_mutex_init(&l->tx, NULL);
    return l;
}

void disk_link_free(struct disk_link *l)
{
    close(l->in);
    if (l->out != l->in) close(l->out);
    close(l->wake);
    pthread_mutex_destroy(&l->tx);
    free(l->ahead);
    free(l->payload);
    free(l);
}

void disk_link_read_ahead(struct disk_link *l)
{
    l->ahead = malloc(AHEAD_SIZE);
}

static int wait_for(struct disk_link *l, int fd, short events, int limit_ms)
{
    struct pollfd p[2] = {{.fd = l->wake, .events = POLLIN}, {.fd = fd, .events = events}};
    int n;

    do
        n = poll(p, 2, limit_ms);
    while (n < 0 && errno == EINTR);
    if (n < 0) return -errno;
    if (p[0].revents) return -ECANCELED;
    return n ? 0 : -ETIMEDOUT;
}

/* As read, from what was read ahead if there is any. */
static ssize_t read_some(struct disk_link *l, void *buf, size_t size)
{
    if (!l->ahead_have) {
        if (!l->ahead || size >= AHEAD_SIZE) return read(l->in, buf, size);
        ssize_t n = read(l->in, l->ahead, AHEAD_SIZE);
        if (n <= 0) return n;
        l->ahead_at = 0;
        l->ahead_have = (size_t)n;
    }
    size_t part = l->ahead_have < size ? l->ahead_have : size;
    memcpy(buf, l->ahead + l->ahead_at, part);
    l->ahead_at += part;
    l->ahead_have -= part;
    return (ssize_t)part;
}

static int read_full(struct disk_link *l, void *buf, size_t size, int limit_ms)
{
    uint8_t *p = buf;

    while (size) {
        ssize_t n = read_some(l, p, size);
        if (n > 0) {
            p += n;
            size -= (size_t)n;
            continue;
        }
        if (n == 0) return -EPIPE;
        if (errno == EINTR) continue;
        if (errno != EAGAIN) return -errno;
        int r = wait_for(l, l->in, POLLIN, limit_ms);
        if (r) return r;
    }
    return 0;
}

int disk_link_read(struct disk_link *l, struct disk_frame *f, int limit_ms)
{
    int r;

    r = read_full(l, l->head, sizeof(l->head), limit_ms);
    if (r) return r;
    r = disk_frame_get(f, l->head);
    if (r) return r;
    r = read_full(l, l->payload, f->payload, limit_ms);
    if (r) return r;
    if (!disk_frame_whole(l->head, l->payload, f->payload)) return -EBADMSG;
    if (f->seq != l->rx_seq) return -EPROTO;
    l->rx_seq++;
    return 0;
}

ssize_t disk_link_try(struct disk_link *l, const struct iovec *iov, int count)
{
    ssize_t n;

    do
        n = writev(l->out, iov, count);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int disk_link_wait(struct disk_link *l, int limit_ms)
{
    return wait_for(l, l->out, POLLOUT, limit_ms);
}

static ssize_t write_some(struct disk_link *l, const struct iovec *iov, int count, int limit_ms)
{
    for (;;) {
        ssize_t n = disk_link_try(l, iov, count);
        if (n != -EAGAIN) return n;
        int r = disk_link_wait(l, limit_ms);
        if (r) return r;
    }
}

int disk_link_send(struct disk_link *l, struct disk_frame *f, const void *payload, int limit_ms)
{
    uint8_t head[DISK_FRAME_SIZE];
    struct iovec iov[2];
    int r = 0;

    pthread_mutex_lock(&l->tx);
    f->seq = l->tx_seq++;
    disk_frame_put(head, f, payload);
    iov[0] = (struct iovec){.iov_base = head, .iov_len = sizeof(head)};
    iov[1] = (struct iovec){.iov_base = (void *)(uintptr_t)payload, .iov_len = f->payload};
    while (iov[0].iov_len || iov[1].iov_len) {
        ssize_t n = write_some(l, iov, 2, limit_ms);
        if (n < 0) {
            r = (int)n;
            break;
        }
        for (int i = 0; i < 2; i++) {
            size_t part = (size_t)n < iov[i].iov_len ? (size_t)n : iov[i].iov_len;
            if (!part) continue; /* also: there is no payload */
            iov[i].iov_base = (uint8_t *)iov[i].iov_base + part;
            iov[i].iov_len -= part;
            n -= (ssize_t)part;
        }
    }
    pthread_mutex_unlock(&l->tx);
    return r;
}

int disk_link_sleep(struct disk_link *l, int ms)
{
    int r = wait_for(l, -1, 0, ms);

    return r == -ETIMEDOUT ? 0 : r;
}

const char *disk_link_error(int r)
{
    switch (r) {
    case -EPIPE:
        return "the other end closed the link";
    case -ETIMEDOUT:
        return "the other end was silent beyond the limit";
    case -EPROTO:
        return "the other end sent something that is no frame of ours, or left one out";
    case -EBADMSG:
        return "a frame was damaged on the way";
    default:
        return strerror(-r);
    }
}
