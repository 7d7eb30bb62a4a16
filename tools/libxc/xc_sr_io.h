/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Reading and writing the stream, with an eye on the two reasons to stop: the process was told to
 * (stop_fd becomes readable), or whoever started us died (parent_fd hangs up).
 *
 * The stream's fd belongs to the toolstack and may be shared with it, so its flags are never
 * changed. A write never blocks in the kernel: it waits in poll() only, where both reasons end it.
 */
#ifndef XC_SR_IO_H
#define XC_SR_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

enum xc_sr_stop {
    XC_SR_RUN = 0,
    XC_SR_TOLD_TO_STOP,
    XC_SR_PARENT_DIED,
};

struct xc_sr_io {
    int fd;         /* the caller's */
    int stop_fd;    /* the caller's, or -1: readable = stop */
    int parent_fd;  /* the caller's, or -1: hung up = the parent died */
    uint64_t bytes; /* read or written so far */
    /* own */
    int write_fd; /* non-blocking description of the same pipe, or -1 */
    bool is_socket;
    bool is_file;
};

void xc_sr_io_init(struct xc_sr_io *io, int fd, int stop_fd, int parent_fd);
void xc_sr_io_dispose(struct xc_sr_io *io);

/* Is there a reason to stop? Never waits. Long loops ask it. */
enum xc_sr_stop xc_sr_io_stopped(const struct xc_sr_io *io);

/* Sleeps, unless there is a reason to stop: then -1 at once. */
int xc_sr_io_sleep(const struct xc_sr_io *io, uint64_t us);

/*
 * All of it or -1 with errno: ECANCELED told to stop, EOWNERDEAD the parent died, ENODATA end of
 * the stream (reads only), else what the kernel said. writev changes the iov it is given.
 */
int xc_sr_io_read(struct xc_sr_io *io, void *buf, size_t size);
int xc_sr_io_writev(struct xc_sr_io *io, struct iovec *iov, unsigned int count);

#endif
