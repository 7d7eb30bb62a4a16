/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Makes small checkpointed streams, and folds a stream into the plain one that must come out of the twin. The fold is written
 * a second time here, on whole buffers and without checks, so that it can judge the twin's.
 */
#ifndef TWIN_STREAM_MAKE_H
#define TWIN_STREAM_MAKE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
    unsigned char *p;
    size_t n, room;
};

static inline void put(struct bytes *b, const void *p, size_t n)
{
    while (b->n + n > b->room) {
        b->room = b->room ? b->room * 2 : 4096;
        b->p = realloc(b->p, b->room);
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n += n;
}

static inline void put_record(struct bytes *b, uint32_t type, const void *body, uint32_t len)
{
    static const unsigned char zero[8];
    uint32_t head[2] = {type, len};

    put(b, head, sizeof(head));
    put(b, body, len);
    if (len % 8) put(b, zero, 8 - len % 8);
}

/* One PAGE_DATA of n pages from first_pfn on, all filled with `fill`. */
static inline void put_pages(struct bytes *b, uint64_t first_pfn, uint32_t n, int fill)
{
    size_t len = 8 + n * (8 + 4096u);
    unsigned char *body = calloc(1, len);

    memcpy(body, &n, 4);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t pfn = first_pfn + i;

        memcpy(body + 8 + 8 * i, &pfn, 8);
    }
    memset(body + 8 + 8 * n, fill, 4096u * n);
    put_record(b, 1, body, (uint32_t)len);
    free(body);
}

static inline void put_stream_head(struct bytes *b)
{
    static const unsigned char xl[] = {'L', 'i', 'b', 'x', 'l', 'F', 'm', 't',
                                       0,   0,   0,   2,   0,   0,   0,   0};
    static const unsigned char ihdr[24] = {255, 255, 255, 255, 255, 255, 255, 255,
                                           'X', 'E', 'N', 'F', 0,   0,   0,   3};
    static const unsigned char dhdr[16] = {2, 0, 0, 0, 12, 0, 0, 0, 4, 0, 0, 0, 17, 0, 0, 0};

    put(b, xl, sizeof(xl));
    put_record(b, 1, NULL, 0);
    put(b, ihdr, sizeof(ihdr));
    put(b, dhdr, sizeof(dhdr));
}

/* What stands once in front of the first page. */
static inline void put_statics(struct bytes *b)
{
    static const unsigned char zero[24];

    put_record(b, 0x11, zero, 24);
    put_record(b, 0x12, zero, 16);
    put_record(b, 0x10, NULL, 0);
}

/* What ends checkpoint n of a small HVM guest; its contexts are made of n. */
static inline void put_contexts(struct bytes *b, int n, bool emulator)
{
    unsigned char blob[48], context[29] = {2, 0, 0, 0, 0, 0, 0, 0};

    memset(blob, 0, sizeof(blob));
    put_record(b, 0x8, blob, 24);
    memset(blob, n, sizeof(blob));
    put_record(b, 0x9, blob, 41);
    memset(blob, 0, 8);
    blob[0] = 1;
    put_record(b, 0xa, blob, 24);
    put_record(b, 0xe, NULL, 0);
    memset(context + 8, n, sizeof(context) - 8);
    if (emulator) put_record(b, 3, context, sizeof(context));
    put_record(b, 4, NULL, 0);
}

static inline void put_checkpoint(struct bytes *b, int n, uint32_t pages, bool emulator)
{
    if (n == 1) put_statics(b);
    if (pages) put_pages(b, (uint64_t)n, pages, n);
    put_contexts(b, n, emulator);
}

/* Where checkpoint n ends (n from 1) in a stream without the xl header; 0: it is not whole there. */
static inline size_t checkpoint_end(const unsigned char *s, size_t len, unsigned n)
{
    size_t pos = 16 + 8 + 24 + 16;
    bool xl = false;
    uint32_t head[2];

    while (pos + 8 <= len) {
        memcpy(head, s + pos, 8);
        if (head[1] > len) return 0;
        pos += 8 + (((size_t)head[1] + 7) & ~(size_t)7);
        if (pos > len) return 0;
        if (!xl) {
            xl = head[0] == 0xe;
        } else if (head[0] == 4) {
            xl = false;
            if (!--n) return pos;
        }
    }
    return 0;
}

/* The plain stream of checkpoints 1..n of such a stream. */
static inline void put_folded(struct bytes *b, const unsigned char *s, size_t len, unsigned n)
{
    size_t pos = 16 + 8 + 24 + 16, size, store = 0, store_len = 0, context = 0, context_len = 0;
    bool xl = false;
    uint32_t head[2];

    put(b, s, pos);
    while (n) {
        memcpy(head, s + pos, 8);
        size = 8 + (((size_t)head[1] + 7) & ~(size_t)7);
        if (!xl && head[0] != 0xe) put(b, s + pos, size);
        if (xl && head[0] == 2) store = pos, store_len = size;
        if (xl && head[0] == 3) context = pos, context_len = size;
        if (!xl && head[0] == 0xe) {
            xl = true;
        } else if (xl && head[0] == 4) {
            xl = false;
            n--;
        }
        pos += size;
    }
    put_record(b, 0, NULL, 0);
    put(b, s + store, store_len);
    put(b, s + context, context_len);
    put_record(b, 0, NULL, 0);
}

#endif
