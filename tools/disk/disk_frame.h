/* SPDX-License-Identifier: LGPL-2.1-only */
/* A frame of the link between two instances; docs/misc/disk.md, section 3. */
#ifndef DISK_FRAME_H
#define DISK_FRAME_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DISK_FRAME_SIZE 56
#define DISK_PAYLOAD_MAX (1u << 20)
#define DISK_HELLO_SIZE 64
#define DISK_LINK_VERSION 1
/* of a CHECK: so many extents at most, each with a hash */
#define DISK_CHECK_EXTENTS 16

enum disk_frame_type {
    DISK_HELLO = 1,
    DISK_ERROR,   /* payload: a sentence; the sender closes the link */
    DISK_WRITE,   /* payload: what to write at offset */
    DISK_ZERO,    /* offset, span; DISK_FLAG_TRIM: the space may be freed */
    DISK_CHECK,   /* offset, span, payload: a hash for each extent */
    DISK_BARRIER, /* closes `epoch`; payload for epoch 0: the new base */
    DISK_BITMAP,  /* backup: words of its bitmap from word `offset` on */
    DISK_READY,   /* backup: that was the bitmap */
    DISK_DIFF,    /* backup: answers CHECK; payload: an octet for each extent, 1 if it differs */
    DISK_SEALED,  /* backup: holds `epoch` whole */
    DISK_ALIVE,   /* backup: at least every DISK_ALIVE_MS */
    DISK_LEASE, /* shared, primary: may I write for `span` ms from my time `offset` on? backup: yes */
    DISK_FRAME_TYPES
};
#define DISK_ALIVE_MS 250

#define DISK_FLAG_TRIM 1
#define DISK_SENTENCE_MAX 192

struct disk_frame {
    uint16_t type, flags;
    uint32_t payload; /* octets */
    uint64_t epoch, seq, offset, span;
};

struct disk_hello {
    uint16_t version;
    bool primary;
    bool resume; /* backup's answer: the two bitmaps tell what differs */
    bool shared; /* both see the same disk; `base` is the token in its journal */
    uint8_t uuid[16];
    uint8_t base[16]; /* zero: there is none, or the bitmap cannot be relied on */
    uint64_t size, generation;
};

/* Writes the head, with the hash over head and payload. */
void disk_frame_put(uint8_t head[DISK_FRAME_SIZE], const struct disk_frame *f, const void *payload);
/* An ERROR frame; its payload is the sentence, which is left in `text`. */
struct disk_frame disk_frame_error(char text[DISK_SENTENCE_MAX], const char *format, va_list al)
    __attribute__((format(printf, 2, 0)));
/* Reads a head and bounds it; -EPROTO if it is none of ours. The hash is not looked at. */
int disk_frame_get(struct disk_frame *f, const uint8_t head[DISK_FRAME_SIZE]);
/* True if the hash agrees. */
bool disk_frame_whole(const uint8_t head[DISK_FRAME_SIZE], const void *payload, size_t size);

void disk_hello_put(uint8_t out[DISK_HELLO_SIZE], const struct disk_hello *h);
int disk_hello_get(struct disk_hello *h, const uint8_t *in, size_t size);

#endif
