/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The replication channel: frames both ways between a primary and a backup
 * (docs/misc/replication-stream.md).
 *
 * It carries the stream in DATA frames, checkpoint commits, acknowledgements, heartbeats and the
 * graceful end. It knows nothing of guests. Invariants:
 *
 *  1. A frame's length is checked against CHANNEL_BODY_MAX before it is used.
 *  2. Whoever hears nothing for limit_ms calls lost() once; nothing is delivered afterwards.
 *  3. The lease: the backup promises not to promote before limit_ms of silence. The primary's lease
 * runs from the moment it *sent* the newest heartbeat that the backup has echoed, for limit_ms less
 * a margin for clock drift; so it ends before the backup can promote, however long our process was
 * stopped.
 *  4. DATA in flight is limited by the backup's window; heartbeats always pass.
 *  5. Nothing of a frame is believed before its check and its place in the order are right: a damaged
 * ECHO could lengthen the lease, a damaged HEARTBEAT end the protection.
 *
 * Writing to a pipe whose reader is gone must not kill: the process that uses a channel ignores
 * SIGPIPE.
 */
#ifndef LIBXL_CHANNEL_H
#define LIBXL_CHANNEL_H

#include "libxl_ev.h"

#define CHANNEL_VERSION 2u
#define CHANNEL_BODY_MAX (1u << 20)
#define CHANNEL_QUEUE_MAX (128u << 20)
#define CHANNEL_WINDOW_MIN (64u << 10)
#define CHANNEL_WINDOW_MAX (1u << 30)
#define CHANNEL_WINDOW_DEFAULT (4u << 20)
#define CHANNEL_LIMIT_MS_MIN 200
#define CHANNEL_LIMIT_MS_MAX 600000

enum channel_frame {
    CHANNEL_HELLO = 1,     /* both ways, first frame; arg = version; body = struct channel_hello */
    CHANNEL_DATA = 2,      /* P->B; arg = checkpoint number that the bytes belong to */
    CHANNEL_COMMIT = 3,    /* P->B; arg = checkpoint number; body = u64 bytes, u64 xxh3 of all DATA
                              bytes since the last */
    CHANNEL_ACK = 4,       /* B->P; arg = checkpoint number: the backup holds all of it */
    CHANNEL_HEARTBEAT = 5, /* P->B; arg = sender's clock, ms. Consumed by the channel itself */
    CHANNEL_ECHO = 6, /* B->P; arg = newest heartbeat's arg; body = u64 DATA bytes consumed. By the
                         channel itself */
    CHANNEL_STOP = 7, /* P->B; arg = last acked checkpoint; body = reason text: end on purpose, drop
                         the twin */
    CHANNEL_STOPPED = 8, /* B->P; the twin is gone and will never run */
    CHANNEL_ERROR = 9,   /* both; body = one line of text; the sender gives up */
    CHANNEL_MEMORY = 10, /* P->B; arg = the guest's memory target, KiB, as xl mem-set takes it */
};

/* The body of HELLO. Both sides must have the same version, limit and prologue; flags are 0. */
struct channel_hello {
    uint32_t version;
    uint32_t limit_ms;
    uint64_t window; /* the backup's; 0 from a primary */
    uint32_t flags;
    uint64_t prologue;
};

typedef struct libxl__channel libxl__channel;

struct libxl__channel {
    /* Filled by the user between _init and _start. */
    libxl__loop *loop;
    int send_fd, recv_fd; /* borrowed; made non-blocking; may be the same socket */
    bool primary;         /* true: sends heartbeats and DATA; false: echoes and acknowledges */
    int limit_ms;         /* silence longer than this: the peer is gone */
    uint64_t window;   /* backup: DATA bytes it lets be in flight. Primary: from the peer's HELLO */
    uint64_t prologue; /* XXH3-64 of what went to the backup before the frames; 0: not known */
    void *user;
    /*
     * A frame that is not the channel's own business; also the peer's HELLO, after it was checked.
     * body is valid during the call. The text of STOP and ERROR is the peer's: libxl__channel_text
     * makes it printable.
     */
    void (*frame)(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                  const void *body, size_t len);
    /* Called once: silence, EOF, I/O error or a frame that breaks the rules. why is one line. */
    void (*lost)(libxl__egc *egc, libxl__channel *ch, const char *why);
    /* Primary: there is room for DATA again after libxl__channel_data_room returned 0. May be NULL.
     */
    void (*room)(libxl__egc *egc, libxl__channel *ch);
    /* All that was queued is written (to the kernel; the peer may not have read it). May be NULL.
     */
    void (*drained)(libxl__egc *egc, libxl__channel *ch);

    struct channel_state *st; /* the channel's own */
};

void libxl__channel_init(libxl__channel *ch);
/* Registers on the loop and begins heartbeats. 0 or ERROR_*. */
int libxl__channel_start(libxl__channel *ch);
/*
 * Deregisters and frees; fds stay open and are the caller's. Safe twice. May be called from any of
 * the callbacks. Unless lost, one last attempt is made to write what is queued, without waiting;
 * drained() tells when nothing is.
 */
void libxl__channel_dispose(libxl__channel *ch);

/* Queues one frame (body copied); never blocks. ERROR_FAIL after lost(); body over CHANNEL_BODY_MAX
 * is our bug (assert).
 * STOP and ERROR take the place of all frames whose writing has not begun. */
int libxl__channel_send(libxl__channel *ch, unsigned type, uint64_t arg, const void *body,
                        size_t len);
/* Queues the COMMIT of checkpoint n: bytes and xxh3 (XXH3_64bits, seed 0) of its DATA bodies. As
 * _send. */
int libxl__channel_commit(libxl__channel *ch, uint64_t n, uint64_t bytes, uint64_t xxh3);
/*
 * How many bytes of DATA should be queued now (window and queue limit); 0: wait for room(). More is
 * kept back here until the window opens: for records that cannot wait. The queue itself ends at
 * CHANNEL_QUEUE_MAX: _send fails.
 */
size_t libxl__channel_data_room(libxl__channel *ch);
/* Bytes queued here and not yet written to send_fd. */
size_t libxl__channel_queued(const libxl__channel *ch);
/* Backup: n more DATA bytes were consumed (stored or passed on): opens the window by as much. */
void libxl__channel_consumed(libxl__channel *ch, size_t n);
/* Primary: may output be released now? False when the backup may already be running. */
bool libxl__channel_lease_valid(const libxl__channel *ch);
/* Primary: the backup has read our STOP, since a heartbeat that was written after it came back. Keeps its answer when the peer is lost. */
bool libxl__channel_stop_read(const libxl__channel *ch);
/* Backup: ms since anything was last received. */
int64_t libxl__channel_silence_ms(const libxl__channel *ch);

#endif
