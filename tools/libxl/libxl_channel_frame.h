/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The octets of the replication channel: frame header and HELLO body, and which of them are
 * allowed.
 *
 * Pure functions on bytes: no state, no I/O. All numbers on the wire are little endian.
 */
#ifndef LIBXL_CHANNEL_FRAME_H
#define LIBXL_CHANNEL_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libxl_channel.h"

#define CHANNEL_HEADER_LEN 24u
#define CHANNEL_HELLO_LEN 32u
#define CHANNEL_TEXT_MAX 1024u

struct channel_header {
    uint32_t type, len;
    uint64_t arg;
};

static inline void channel_put32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (8 * i));
}

static inline uint32_t channel_get32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline void channel_put64(unsigned char *p, uint64_t v)
{
    channel_put32(p, (uint32_t)v);
    channel_put32(p + 4, (uint32_t)(v >> 32));
}

static inline uint64_t channel_get64(const unsigned char *p)
{
    return channel_get32(p) | (uint64_t)channel_get32(p + 4) << 32;
}

void libxl__channel_header_put(unsigned char out[CHANNEL_HEADER_LEN],
                               const struct channel_header *h);
void libxl__channel_header_get(const unsigned char in[CHANNEL_HEADER_LEN],
                               struct channel_header *h);
/*
 * The check of a head: over its other octets, the number of the frame in its direction and, but for
 * DATA, whose octets the COMMIT vouches for, the body.
 */
void libxl__channel_seal(unsigned char *frame, uint64_t number);
bool libxl__channel_seal_ok(const unsigned char *frame, uint64_t number);
/* How much of the frame must be there for that. */
size_t libxl__channel_sealed_len(const struct channel_header *h);
/* NULL when a frame with this header may be sent to that side; else what is wrong with it. */
const char *libxl__channel_header_check(const struct channel_header *h, bool to_primary);

void libxl__channel_hello_put(unsigned char out[CHANNEL_HELLO_LEN], const struct channel_hello *h);
/* NULL when in is a HELLO that a side with limit_ms can work with (then *h is filled), else why
 * not. */
const char *libxl__channel_hello_get(const unsigned char in[CHANNEL_HELLO_LEN], int limit_ms,
                                     bool from_primary, struct channel_hello *h);

/* The text of a STOP or ERROR as one printable line: out has room bytes, always ends in NUL. */
void libxl__channel_text(const void *body, size_t len, char *out, size_t room);

#endif
