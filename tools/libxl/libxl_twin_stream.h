/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup's copy of a checkpointed stream, on its way to become a plain one
 * (docs/misc/replication-stream.md, section 7).
 *
 * Bytes of DATA frames go in as they come; every record is checked. Bytes of the plain stream come
 * out, and only those that may be handed on: of checkpoint 1 whole checked records, of a later one
 * nothing before its COMMIT.
 *
 *      start            passable            checked        end
 *        |  to hand on    |  open checkpoint   |  a part of  |
 *        |                |  whole records     |  a record   |
 *
 * A cold twin's plain stream takes all checkpoints and ends at promotion (_finish). A warm twin's ends
 * with checkpoint 1 (_split); what is committed later comes out of _peek_later, bare libxc records.
 *
 * Invariants
 *  1. What lies before `passable` belongs to committed checkpoints or to checkpoint 1.
 *  2. end - passable <= hold_limit: the open checkpoint.
 *  3. After the first error nothing goes in any more; what was committed can still be finished.
 */
#ifndef LIBXL_TWIN_STREAM_H
#define LIBXL_TWIN_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct libxl__twin_stream libxl__twin_stream;
struct libxl__twin_stream {
    uint64_t checkpoint; /* the one being received, from 1 */
    uint64_t committed;  /* the newest whole one, 0: none */
    char why[160];       /* of the first error */
    struct twin_stream_state *st;
};

/* hold_limit: bytes of one checkpoint from the second on. 0 or ERROR_NOMEM. */
int libxl__twin_stream_init(libxl__twin_stream *ts, uint64_t hold_limit);
/* Safe twice, and on one that is all zero. */
void libxl__twin_stream_dispose(libxl__twin_stream *ts);

/* Bytes that go out before all others, unchecked (xl header and configuration). Before any data. */
int libxl__twin_stream_prefix(libxl__twin_stream *ts, const void *bytes, size_t len);
/* The body of one DATA frame of checkpoint n. 0, or ERROR_FAIL with why set. */
int libxl__twin_stream_data(libxl__twin_stream *ts, uint64_t n, const void *bytes, size_t len);
/* The COMMIT of checkpoint n. 0, or ERROR_FAIL with why set: then n does not count. */
int libxl__twin_stream_commit(libxl__twin_stream *ts, uint64_t n, uint64_t bytes, uint64_t xxh3);
/* Promotion: drops what is not committed and ends the plain stream. At least one checkpoint is
 * committed (asserted). */
int libxl__twin_stream_finish(libxl__twin_stream *ts);

/* Warm: checkpoint 1 was just committed and nothing came after it (asserted). Ends the plain stream. */
int libxl__twin_stream_split(libxl__twin_stream *ts);
/* Warm, promotion: drops what is not committed. Nothing goes in any more. */
void libxl__twin_stream_stop(libxl__twin_stream *ts);
/* The body of the last committed EMULATOR_CONTEXT, without its head: what QEMU wrote. 0: none. */
size_t libxl__twin_stream_emulator(const libxl__twin_stream *ts, const unsigned char **bytes);

/* Bytes to hand on now; *bytes is valid until the next call of another function. */
size_t libxl__twin_stream_peek(const libxl__twin_stream *ts, const unsigned char **bytes);
/* Warm: the records of later checkpoints, once the plain stream was taken whole. */
size_t libxl__twin_stream_peek_later(const libxl__twin_stream *ts, const unsigned char **bytes);
/* n of them were handed on. */
void libxl__twin_stream_took(libxl__twin_stream *ts, size_t n);
/* All bytes held, device state included. */
uint64_t libxl__twin_stream_held(const libxl__twin_stream *ts);

#endif
