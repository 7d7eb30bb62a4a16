/* SPDX-License-Identifier: LGPL-2.1-only */
#include "null_backup.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk_frame.h"

#define PIPE_SIZE (1 << 20)
/* From here on it is cheaper to move pages than to read them. */
#define SPLICE_MIN (16 << 10)

struct null_backup {
    int fd, waste[2], nowhere;
    uint64_t tx_seq;
    uint8_t head[DISK_FRAME_SIZE], payload[4096];
    uint8_t got[64 << 10]; /* read ahead: many small frames at once */
    size_t have, used;
    bool large; /* the last frame was: only heads are read then */
};

static bool send_frame(struct null_backup *n, struct disk_frame *f, const void *payload)
{
    uint8_t raw[DISK_FRAME_SIZE + DISK_HELLO_SIZE];

    f->seq = n->tx_seq++;
    disk_frame_put(raw, f, payload);
    if (f->payload) memcpy(raw + DISK_FRAME_SIZE, payload, f->payload);
    size_t size = DISK_FRAME_SIZE + f->payload;
    return send(n->fd, raw, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Nothing came for a while: the other side must see that we are alive. */
static bool still_waits(struct null_backup *n)
{
    return errno == EAGAIN && send_frame(n, &(struct disk_frame){.type = DISK_ALIVE}, NULL);
}

static bool read_ahead(struct null_backup *n, size_t size)
{
    if (!n->large || size > sizeof(n->got)) size = sizeof(n->got);
    for (;;) {
        ssize_t got = recv(n->fd, n->got, size, 0);
        if (got > 0) {
            n->used = 0;
            n->have = (size_t)got;
            return true;
        }
        if (got == 0 || !still_waits(n)) return false;
    }
}

static size_t take(struct null_backup *n, void *buf, size_t size)
{
    size_t part = n->have - n->used < size ? n->have - n->used : size;

    if (buf) memcpy(buf, n->got + n->used, part);
    n->used += part;
    return part;
}

static bool receive(struct null_backup *n, void *buf, size_t size)
{
    uint8_t *at = buf;

    for (;;) {
        size_t part = take(n, at, size);
        size -= part;
        if (!size) return true;
        if (at) at += part;
        if (!read_ahead(n, size)) return false;
    }
}

/* The pages go through a pipe to /dev/null, nobody copies them. */
static bool splice_away(struct null_backup *n, size_t size)
{
    while (size) {
        ssize_t got = splice(n->fd, NULL, n->waste[1], NULL, size, 0);
        if (got == 0 || (got < 0 && !still_waits(n))) return false;
        if (got < 0) continue;
        size -= (size_t)got;
        while (got > 0) {
            ssize_t gone = splice(n->waste[0], NULL, n->nowhere, NULL, (size_t)got, 0);
            if (gone <= 0) return false;
            got -= gone;
        }
    }
    return true;
}

static bool throw_away(struct null_backup *n, size_t size)
{
    n->large = size >= SPLICE_MIN;
    if (!n->large) return receive(n, NULL, size);
    return splice_away(n, size - take(n, NULL, size));
}

static bool hello(struct null_backup *n, uint64_t disk_size)
{
    struct disk_frame back = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    struct disk_hello h;
    uint8_t raw[DISK_HELLO_SIZE];

    if (disk_hello_get(&h, n->payload, DISK_HELLO_SIZE) || h.size != disk_size) return false;
    h.primary = h.resume = false;
    disk_hello_put(raw, &h);
    return send_frame(n, &back, raw) &&
           send_frame(n, &(struct disk_frame){.type = DISK_READY}, NULL);
}

static bool work_frame(struct null_backup *n, const struct disk_frame *f, uint64_t disk_size)
{
    static const uint8_t equal[DISK_CHECK_EXTENTS];
    struct disk_frame back = {.offset = f->offset, .span = f->span, .epoch = f->epoch};

    if (f->type == DISK_WRITE) return throw_away(n, f->payload);
    if (f->payload > sizeof(n->payload) || !receive(n, n->payload, f->payload)) return false;
    switch (f->type) {
    case DISK_HELLO:
        return f->payload == DISK_HELLO_SIZE && hello(n, disk_size);
    case DISK_CHECK:
        back.type = DISK_DIFF;
        back.payload = f->payload / 8;
        return back.payload <= sizeof(equal) && send_frame(n, &back, equal);
    case DISK_BARRIER:
        back.type = DISK_SEALED;
        return send_frame(n, &back, NULL);
    }
    return f->type == DISK_ZERO;
}

int null_backup(int fd, uint64_t disk_size)
{
    struct null_backup n = {.fd = fd, .waste = {-1, -1}};
    struct timeval alive = {.tv_usec = DISK_ALIVE_MS * 1000};
    struct disk_frame f;
    int rc = 1;

    /* Another host would not take the primary's processor in the middle of a write. */
    (void)sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    n.nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (n.nowhere < 0 || pipe2(n.waste, O_CLOEXEC)) {
        perror("null backup");
        goto out;
    }
    (void)fcntl(n.waste[1], F_SETPIPE_SZ, PIPE_SIZE);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &alive, sizeof(alive));
    do {
        if (!receive(&n, n.head, sizeof(n.head))) rc = 0;
    } while (rc && !disk_frame_get(&f, n.head) && work_frame(&n, &f, disk_size));
out:
    for (int i = 0; i < 2; i++)
        if (n.waste[i] >= 0) close(n.waste[i]);
    if (n.nowhere >= 0) close(n.nowhere);
    close(fd);
    return rc;
}
