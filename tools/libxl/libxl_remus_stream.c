/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Bytes from the helper to the backup.
 *
 * Acknowledged mode: the helper writes into a socket pair; we read the other end and put the bytes into DATA frames, as far as
 * the channel has room. The helper blocks when there is none, which costs the guest nothing: it runs by then.
 *
 * Bare mode (the peer is a stock xl): the helper has send_fd itself, and between its checkpoint call and our answer, when it does not
 * touch it, we write our records to the same descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "libxl_remus.h"

#define RELAY_CHUNK (256u << 10)
#define SOCKET_BUFFER (1 << 20)
#define RECORD_BODY_MAX (64u << 20) /* device state; QEMU's is about 200 KB */

static void put_be32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static int queue_data(libxl__remus *rm, const void *data, size_t len)
{
    const unsigned char *p = data;
    size_t n;
    int rc;

    while (len) {
        n = len < CHANNEL_BODY_MAX ? len : CHANNEL_BODY_MAX;
        rc = libxl__channel_send(&rm->channel, CHANNEL_DATA, rm->checkpoint, p, n);
        if (rc) return rc;
        XXH3_64bits_update(rm->hash, p, n);
        rm->stream_bytes += n;
        p += n;
        len -= n;
    }
    return 0;
}

static int queue_bare(libxl__remus *rm, const void *data, size_t len)
{
    unsigned char *p = realloc(rm->bare_buf, rm->bare_len + len);

    if (!p) return ERROR_NOMEM;
    memcpy(p + rm->bare_len, data, len);
    rm->bare_buf = p;
    rm->bare_len += len;
    rm->stream_bytes += len;
    return 0;
}

static int queue(libxl__remus *rm, const void *data, size_t len)
{
    return rm->info.acknowledged ? queue_data(rm, data, len) : queue_bare(rm, data, len);
}

int remus_stream_drain(libxl__remus *rm)
{
    size_t room;
    ssize_t r;
    int rc;

    if (rm->relay_fd < 0) return 0;
    for (;;) {
        room = libxl__channel_data_room(&rm->channel);
        if (!room) {
            rc = libxl__ev_fd_modify(rm->loop, &rm->relay_ev, 0);
            return rc ? rc : ERROR_NOT_READY;
        }
        r = read(rm->relay_fd, rm->relay_buf, room < RELAY_CHUNK ? room : RELAY_CHUNK);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EAGAIN) return 0;
        if (r < 0) {
            LOGE(rm->gc, ERROR, "domain %u: cannot read the helper's stream", rm->domid);
            return ERROR_FAIL;
        }
        if (r == 0) { /* the helper ends; exited() tells how */
            libxl__ev_fd_deregister(rm->loop, &rm->relay_ev);
            return 0;
        }
        rc = queue_data(rm, rm->relay_buf, (size_t)r);
        if (rc) return rc;
    }
}

static void relay_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, relay_ev);
    int rc = remus_stream_drain(rm);

    if (rc && rc != ERROR_NOT_READY) libxl__epoch_interrupt(egc, &rm->epoch, rc);
}

void remus_stream_room(libxl__egc *egc, libxl__remus *rm)
{
    int rc;

    if (!libxl__ev_fd_isregistered(&rm->relay_ev)) return;
    rc = libxl__ev_fd_modify(rm->loop, &rm->relay_ev, POLLIN);
    if (!rc) rc = remus_stream_drain(rm);
    if (rc == ERROR_NOT_READY) return;
    if (rc)
        libxl__epoch_interrupt(egc, &rm->epoch, rc);
    else if (rm->helper_wants_checkpoint)
        remus_event(egc, rm, WAIT_CHECKPOINT_CALL, 0);
}

int remus_stream_open(libxl__remus *rm, int *helper_fd)
{
    int sv[2], size = SOCKET_BUFFER;

    rm->hash = XXH3_createState();
    rm->relay_buf = malloc(RELAY_CHUNK);
    if (!rm->hash || !rm->relay_buf) return ERROR_NOMEM;
    XXH3_64bits_reset(rm->hash);
    if (!rm->info.acknowledged) {
        *helper_fd = fcntl(rm->send_fd, F_DUPFD_CLOEXEC, 3);
        return *helper_fd < 0 ? ERROR_FAIL : 0;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv)) {
        LOGE(rm->gc, ERROR, "cannot make a socket pair for the helper's stream");
        return ERROR_FAIL;
    }
    /* A larger buffer only saves wake-ups: failure is no error. */
    (void)setsockopt(sv[1], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    rm->relay_fd = sv[0];
    *helper_fd = sv[1];
    if (libxl__fd_nonblock(rm->gc, rm->relay_fd, true)) return ERROR_FAIL;
    return libxl__ev_fd_register(rm->loop, &rm->relay_ev, relay_readable, rm->relay_fd, POLLIN);
}

int remus_stream_header(libxl__remus *rm)
{
    /* libxl stream v2, little-endian records, then LIBXC_CONTEXT: docs/misc/replication-stream.md */
    unsigned char h[24] = {'L', 'i', 'b', 'x', 'l', 'F', 'm', 't'};

    put_be32(h + 8, 2);
    put_be32(h + 12, 0);
    h[16] = 1;
    return queue(rm, h, sizeof(h));
}

int remus_stream_record(libxl__remus *rm, uint32_t type, const void *head, size_t head_len,
                        const void *body, size_t body_len)
{
    static const unsigned char zero[8];
    uint32_t hdr[2] = {type, (uint32_t)(head_len + body_len)};
    int rc;

    if (body_len > RECORD_BODY_MAX) {
        LOG(rm->gc, ERROR, "domain %u: device state of %zu bytes is over the limit of %u",
            rm->domid, body_len, RECORD_BODY_MAX);
        return ERROR_FAIL;
    }
    rc = queue(rm, hdr, sizeof(hdr));
    if (!rc && head_len) rc = queue(rm, head, head_len);
    if (!rc && body_len) rc = queue(rm, body, body_len);
    if (!rc && hdr[1] % 8) rc = queue(rm, zero, 8 - hdr[1] % 8);
    return rc;
}

int remus_stream_commit(libxl__remus *rm)
{
    uint64_t hash = XXH3_64bits_digest(rm->hash);

    XXH3_64bits_reset(rm->hash);
    return libxl__channel_commit(&rm->channel, rm->checkpoint, rm->stream_bytes, hash);
}

static void bare_writable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, bare_ev);
    ssize_t r = write(fd, rm->bare_buf + rm->bare_done, rm->bare_len - rm->bare_done);
    int rc = 0;

    if (r < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (r < 0) {
        LOGE(rm->gc, ERROR, "domain %u: cannot write to the backup", rm->domid);
        rm->peer_lost = true;
        rc = ERROR_NOT_READY;
    } else {
        rm->bare_done += (size_t)r;
        if (rm->bare_done < rm->bare_len) return;
    }
    libxl__ev_fd_deregister(rm->loop, &rm->bare_ev);
    rm->bare_len = rm->bare_done = 0;
    /* The helper's writes are plain blocking ones on the same open file. */
    if (libxl__fd_nonblock(rm->gc, fd, false)) rc = rc ? rc : ERROR_FAIL;
    remus_event(egc, rm, WAIT_WRITTEN, rc);
}

int remus_stream_write_bare(libxl__remus *rm)
{
    ssize_t r = write(rm->send_fd, rm->bare_buf, rm->bare_len);

    if (r != (ssize_t)rm->bare_len) {
        LOGE(rm->gc, ERROR, "domain %u: cannot write to the backup", rm->domid);
        return ERROR_FAIL;
    }
    rm->bare_len = 0;
    return 0;
}

int remus_stream_flush_bare(libxl__remus *rm)
{
    int rc = libxl__fd_nonblock(rm->gc, rm->send_fd, true);

    if (rc) return rc;
    return libxl__ev_fd_register(rm->loop, &rm->bare_ev, bare_writable, rm->send_fd, POLLOUT);
}

void remus_stream_close(libxl__remus *rm)
{
    libxl__ev_fd_deregister(rm->loop, &rm->relay_ev);
    libxl__ev_fd_deregister(rm->loop, &rm->bare_ev);
    if (rm->relay_fd >= 0) close(rm->relay_fd);
    rm->relay_fd = -1;
    free(rm->relay_buf);
    free(rm->bare_buf);
    rm->relay_buf = rm->bare_buf = NULL;
    XXH3_freeState(rm->hash);
    rm->hash = NULL;
}
