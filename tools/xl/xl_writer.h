/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A descriptor with a thread that writes to it: who has something to say never waits for who reads it. A terminal may
 * stand still (Ctrl-S), a pipe be full, a file's server be gone; a protection whose thread waits for one of them sends no heartbeats.
 * The descriptor stays blocking, since others share it.
 */
#ifndef XL_WRITER_H
#define XL_WRITER_H

#include <stdbool.h>
#include <stddef.h>

struct xl_writer;

/* At most `room` bytes wait. owned: closes fd. NULL with errno set; fd is the caller's then. */
struct xl_writer *xl_writer_new(int fd, size_t room, bool owned);
/* All of it, later, or nothing: false when there is no room, or after an error. */
bool xl_writer_put(struct xl_writer *w, const void *bytes, size_t len);
/* Nothing waits. */
bool xl_writer_idle(struct xl_writer *w);
/* Of the write that failed, or 0. */
int xl_writer_error(struct xl_writer *w);
/*
 * Waits limit_ms for what is left, and takes w. 0, the errno of a write that failed, or ETIMEDOUT: something is left, and goes
 * on being written while the process lives.
 */
int xl_writer_end(struct xl_writer *w, int limit_ms);

#endif
