/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_frame.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "disk_util.h"

#define FRAME_MAGIC 0x4c445458u /* "XTDL" */
#define HASH_AT 48

static const uint8_t hello_magic[8] = {'X', 'T', 'D', 'I', 'S', 'K', 'H', 'I'};

/* By the library's plain functions: the dispatcher's AVX-512 hashes faster, and writes as a whole were slower with it. */
static uint64_t frame_hash(const uint8_t head[DISK_FRAME_SIZE], const void *payload, size_t size)
{
    uint64_t h = XXH3_64bits(head, HASH_AT);

    return size ? XXH3_64bits_withSeed(payload, size, h) : h;
}

void disk_frame_put(uint8_t head[DISK_FRAME_SIZE], const struct disk_frame *f, const void *payload)
{
    disk_put32(head, FRAME_MAGIC);
    disk_put16(head + 4, f->type);
    disk_put16(head + 6, f->flags);
    disk_put32(head + 8, f->payload);
    disk_put32(head + 12, 0);
    disk_put64(head + 16, f->epoch);
    disk_put64(head + 24, f->seq);
    disk_put64(head + 32, f->offset);
    disk_put64(head + 40, f->span);
    disk_put64(head + HASH_AT, frame_hash(head, payload, f->payload));
}

struct disk_frame disk_frame_error(char text[DISK_SENTENCE_MAX], const char *format, va_list al)
{
    vsnprintf(text, DISK_SENTENCE_MAX, format, al);
    return (struct disk_frame){.type = DISK_ERROR, .payload = (uint32_t)strlen(text)};
}

int disk_frame_get(struct disk_frame *f, const uint8_t head[DISK_FRAME_SIZE])
{
    if (disk_get32(head) != FRAME_MAGIC) return -EPROTO;
    f->type = disk_get16(head + 4);
    f->flags = disk_get16(head + 6);
    f->payload = disk_get32(head + 8);
    f->epoch = disk_get64(head + 16);
    f->seq = disk_get64(head + 24);
    f->offset = disk_get64(head + 32);
    f->span = disk_get64(head + 40);
    if (f->type < DISK_HELLO || f->type >= DISK_FRAME_TYPES) return -EPROTO;
    if (f->payload > DISK_PAYLOAD_MAX || disk_get32(head + 12)) return -EPROTO;
    if (f->offset > DISK_SIZE_MAX || f->span > DISK_SIZE_MAX) return -EPROTO;
    return 0;
}

bool disk_frame_whole(const uint8_t head[DISK_FRAME_SIZE], const void *payload, size_t size)
{
    return disk_get64(head + HASH_AT) == frame_hash(head, payload, size);
}

void disk_hello_put(uint8_t out[DISK_HELLO_SIZE], const struct disk_hello *h)
{
    memset(out, 0, DISK_HELLO_SIZE);
    memcpy(out, hello_magic, 8);
    disk_put16(out + 8, h->version);
    disk_put16(out + 10, (uint16_t)(h->primary | h->resume << 1 | h->shared << 2));
    disk_put32(out + 12, DISK_EXTENT_SIZE);
    disk_put64(out + 16, h->size);
    disk_put64(out + 24, h->generation);
    memcpy(out + 32, h->uuid, 16);
    memcpy(out + 48, h->base, 16);
}

int disk_hello_get(struct disk_hello *h, const uint8_t *in, size_t size)
{
    if (size != DISK_HELLO_SIZE || memcmp(in, hello_magic, 8)) return -EPROTO;
    h->version = disk_get16(in + 8);
    uint16_t flags = disk_get16(in + 10);
    h->primary = flags & 1;
    h->resume = flags & 2;
    h->shared = flags & 4;
    h->size = disk_get64(in + 16);
    h->generation = disk_get64(in + 24);
    memcpy(h->uuid, in + 32, 16);
    memcpy(h->base, in + 48, 16);
    if (h->version != DISK_LINK_VERSION || flags > 7) return -EPROTO;
    if (disk_get32(in + 12) != DISK_EXTENT_SIZE || h->size > DISK_SIZE_MAX) return -EPROTO;
    return 0;
}
