/* SPDX-License-Identifier: LGPL-2.1-only */
/* The stream's bytes. See xc_sr_io.h for what may end a wait. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xc_sr_io.h"

#define PIPE_BYTES (1 << 20)

/*
 * A pipe gets a file description of our own through /proc, which may be non-blocking without
 * touching the toolstack's. Where that fails, writes are cut to PIPE_BUF, which do not block
 * after poll() said that there is room.
 */
static int open_nonblocking(int fd)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
}

void xc_sr_io_init(struct xc_sr_io *io, int fd, int stop_fd, int parent_fd)
{
    struct stat st;

    memset(io, 0, sizeof(*io));
    io->fd = fd;
    io->stop_fd = stop_fd;
    io->parent_fd = parent_fd;
    io->write_fd = -1;
    if (fd < 0 || fstat(fd, &st)) return;
    io->is_socket = S_ISSOCK(st.st_mode);
    /* Neither makes a writer wait for a reader; nor does a device, unless a person sits there. */
    io->is_file =
        S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || (S_ISCHR(st.st_mode) && !isatty(fd));
    if (S_ISFIFO(st.st_mode) && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        io->write_fd = open_nonblocking(fd);
        /* A larger pipe only saves wake-ups: failure is no error. */
        (void)fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
    }
}

void xc_sr_io_dispose(struct xc_sr_io *io)
{
    if (io->write_fd >= 0) close(io->write_fd);
    io->write_fd = -1;
}

/* poll() on the two reasons and, if events is not 0, on fd. */
static int poll_all(const struct xc_sr_io *io, int fd, short events, int timeout_ms,
                    enum xc_sr_stop *stop)
{
    struct pollfd p[3] = {
        {.fd = io->parent_fd, .events = 0},
        {.fd = io->stop_fd, .events = POLLIN},
        {.fd = events ? fd : -1, .events = events},
    };
    int r;

    do {
        r = poll(p, 3, timeout_ms);
    } while (r < 0 && errno == EINTR);

    *stop = XC_SR_RUN;
    if (r > 0 && (p[1].revents & POLLIN)) *stop = XC_SR_TOLD_TO_STOP;
    if (r > 0 && (p[0].revents & (POLLHUP | POLLERR | POLLNVAL))) *stop = XC_SR_PARENT_DIED;
    return r;
}

enum xc_sr_stop xc_sr_io_stopped(const struct xc_sr_io *io)
{
    enum xc_sr_stop stop;

    poll_all(io, -1, 0, 0, &stop);
    return stop;
}

int xc_sr_io_sleep(const struct xc_sr_io *io, uint64_t us)
{
    uint64_t ms = (us + 999) / 1000;
    enum xc_sr_stop stop;

    poll_all(io, -1, 0, ms < INT_MAX ? (int)ms : INT_MAX, &stop);
    return stop == XC_SR_RUN ? 0 : -1;
}

static int wait_ready(const struct xc_sr_io *io, int fd, short events)
{
    enum xc_sr_stop stop;

    if (poll_all(io, fd, events, -1, &stop) < 0) return -1;
    if (stop == XC_SR_RUN) return 0;
    errno = stop == XC_SR_PARENT_DIED ? EOWNERDEAD : ECANCELED;
    return -1;
}

int xc_sr_io_read(struct xc_sr_io *io, void *buf, size_t size)
{
    uint8_t *at = buf;

    while (size) {
        ssize_t n;

        if (wait_ready(io, io->fd, POLLIN)) return -1;
        n = read(io->fd, at, size);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) return -1;
        if (n == 0) {
            errno = ENODATA;
            return -1;
        }
        at += n;
        size -= (size_t)n;
        io->bytes += (uint64_t)n;
    }
    return 0;
}

static ssize_t write_some(struct xc_sr_io *io, struct iovec *iov, unsigned int count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count < IOV_MAX ? count : IOV_MAX};

    if (io->is_socket) return sendmsg(io->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (io->write_fd >= 0) return writev(io->write_fd, iov, (int)msg.msg_iovlen);
    if (io->is_file) return writev(io->fd, iov, (int)msg.msg_iovlen);
    return write(io->fd, iov->iov_base, iov->iov_len < PIPE_BUF ? iov->iov_len : PIPE_BUF);
}

static void advance(struct iovec **iov, unsigned int *count, size_t done)
{
    while (*count && done >= (*iov)->iov_len) {
        done -= (*iov)->iov_len;
        (*iov)++;
        (*count)--;
    }
    if (!*count) return;
    (*iov)->iov_base = (uint8_t *)(*iov)->iov_base + done;
    (*iov)->iov_len -= done;
}

int xc_sr_io_writev(struct xc_sr_io *io, struct iovec *iov, unsigned int count)
{
    advance(&iov, &count, 0);
    while (count) {
        ssize_t n;

        if (wait_ready(io, io->write_fd >= 0 ? io->write_fd : io->fd, POLLOUT)) return -1;
        n = write_some(io, iov, count);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) return -1;
        io->bytes += (uint64_t)n;
        advance(&iov, &count, (size_t)n);
    }
    return 0;
}
