/* SPDX-License-Identifier: LGPL-2.1-only */
/* Pages into records. What a record looks like: docs/misc/encoding.md. */
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "xc_sr_diff.h"
#include "xc_sr_encode.h"
#include "xc_sr_record.h"
#include "xc_sr_ref.h"

#define OUT_FULL (256U << 10) /* then it is time to write */
#define RECORD_MAX                                                                                 \
    (sizeof(struct sr_rhdr) + sizeof(struct sr_encoded_pages) + 8 * SR_ENCODED_COUNT_MAX +         \
     LZ4_COMPRESSBOUND(SR_ENCODED_CONTENT_MAX) + SR_REC_ALIGN)
/* More than this changed: the whole page is hardly longer. */
#define DELTA_WORDS_MAX 448U

/* AUTO: compressing makes about this many octets a second of one core. */
#define LZ4_BYTES_PER_US 400U
#define LINK_SAMPLE_BYTES (4U << 20) /* less than that may have gone into buffers */

struct xc_sr_encoder {
    enum xc_sr_encode_mode mode;
    bool compress;
    const struct xc_sr_diff_ops *ops;
    struct xc_sr_ref ref;
    struct xc_sr_encode_counts counts;
    uint64_t link_bytes, link_us;
    uint32_t count;          /* entries of the record under way */
    uint32_t content_length; /* and octets of content */
    size_t out_used;
    uint8_t snapshot[SR_PAGE_SIZE] __attribute__((aligned(64)));
    uint64_t entries[SR_ENCODED_COUNT_MAX];
    /* A delta stores up to a line too much. */
    uint8_t content[SR_ENCODED_CONTENT_MAX + SR_LINE_SIZE] __attribute__((aligned(64)));
    uint8_t out[OUT_FULL + RECORD_MAX];
};

struct xc_sr_encoder *xc_sr_encoder_new(enum xc_sr_encode_mode mode, uint64_t pfns,
                                        uint64_t ref_limit_bytes)
{
    size_t size = (sizeof(struct xc_sr_encoder) + 63) & ~(size_t)63;
    struct xc_sr_encoder *e = aligned_alloc(64, size);

    if (!e) return NULL;
    memset(e, 0, sizeof(*e));
    if (xc_sr_ref_init(&e->ref, pfns, ref_limit_bytes)) {
        free(e);
        errno = ENOMEM;
        return NULL;
    }
    e->mode = mode;
    e->compress = mode != XC_SR_ENCODE_DELTA;
    e->ops = xc_sr_diff_best();
    return e;
}

void xc_sr_encoder_free(struct xc_sr_encoder *e)
{
    if (!e) return;
    xc_sr_ref_dispose(&e->ref);
    free(e);
}

const void *xc_sr_encoder_snapshot(struct xc_sr_encoder *e, const void *page)
{
    return memcpy(e->snapshot, page, SR_PAGE_SIZE);
}

/* The content as one LZ4 block at `to`, or as it is when that is not longer. */
static uint32_t put_content(struct xc_sr_encoder *e, uint8_t *to, uint32_t *method)
{
    int packed = 0;

    *method = SR_METHOD_STORED;
    if (e->compress && e->content_length)
        packed = LZ4_compress_default((const char *)e->content, (char *)to, (int)e->content_length,
                                      (int)e->content_length - 1);
    if (packed > 0) {
        *method = SR_METHOD_LZ4;
        return (uint32_t)packed;
    }
    memcpy(to, e->content, e->content_length);
    return e->content_length;
}

void xc_sr_encoder_finish(struct xc_sr_encoder *e)
{
    struct sr_encoded_pages head = {e->count, 0, e->content_length, 0};
    struct sr_rhdr rhdr = {SR_REC_ENCODED_PAGES, 0};
    uint8_t *start = e->out + e->out_used, *at = start + sizeof(rhdr) + sizeof(head);
    uint32_t method;
    size_t padding;

    if (!e->count) return;
    memcpy(at, e->entries, 8 * e->count);
    at += 8 * e->count;
    at += put_content(e, at, &method);
    head.method = method;
    rhdr.length = (uint32_t)(at - start - sizeof(rhdr));
    padding = xc_sr_record_padded(rhdr.length) - rhdr.length;
    memset(at, 0, padding);
    memcpy(start, &rhdr, sizeof(rhdr));
    memcpy(start + sizeof(rhdr), &head, sizeof(head));
    e->out_used += sizeof(rhdr) + rhdr.length + padding;
    e->count = 0;
    e->content_length = 0;
}

size_t xc_sr_encoder_take(struct xc_sr_encoder *e, const void **records)
{
    size_t size = e->out_used;

    *records = e->out;
    e->out_used = 0;
    e->counts.bytes += size;
    return size;
}

static unsigned int count_words(uint64_t lines, const uint8_t masks[SR_PAGE_LINES])
{
    unsigned int words = 0;

    for (; lines; lines &= lines - 1)
        words += (unsigned int)__builtin_popcount(masks[__builtin_ctzll(lines)]);
    return words;
}

static void put_delta(struct xc_sr_encoder *e, const void *page, void *stored, uint64_t lines,
                      const uint8_t masks[SR_PAGE_LINES])
{
    uint8_t *start = e->content + e->content_length, *mask = start + sizeof(lines), *words;
    uint64_t left;

    memcpy(start, &lines, sizeof(lines));
    for (left = lines; left; left &= left - 1)
        *mask++ = masks[__builtin_ctzll(left)];
    words = mask;
    while ((size_t)(words - start) % 8)
        *words++ = 0;
    words += e->ops->emit(page, stored, lines, masks, words);
    e->content_length += (uint32_t)(words - start);
    e->counts.delta++;
}

static void put_raw(struct xc_sr_encoder *e, uint64_t pfn, const void *page)
{
    void *stored = xc_sr_ref_make(&e->ref, pfn);

    memcpy(e->content + e->content_length, page, SR_PAGE_SIZE);
    if (stored)
        memcpy(stored, page, SR_PAGE_SIZE);
    else
        xc_sr_ref_forget(&e->ref, pfn);
    e->content_length += SR_PAGE_SIZE;
    e->counts.raw++;
}

/* The encoding chosen for a page that is not what the backup has; its content is appended. */
static uint32_t put_page(struct xc_sr_encoder *e, uint64_t pfn, const void *page, void *stored,
                         uint64_t lines, const uint8_t masks[SR_PAGE_LINES])
{
    if (e->ops->is_zero(page)) {
        xc_sr_ref_zero(&e->ref, pfn);
        e->counts.zero++;
        return SR_ENCODING_ZERO;
    }
    if (!lines || count_words(lines, masks) > DELTA_WORDS_MAX) {
        put_raw(e, pfn, page);
        return SR_ENCODING_RAW;
    }
    if (!stored) {
        /* It was zero: from now on its words are to be remembered, or it is not known any more. */
        stored = xc_sr_ref_make(&e->ref, pfn);
        if (stored) memset(stored, 0, SR_PAGE_SIZE);
        if (!stored) xc_sr_ref_forget(&e->ref, pfn);
    }
    put_delta(e, page, stored, lines, masks);
    return SR_ENCODING_DELTA;
}

static bool add_entry(struct xc_sr_encoder *e, uint64_t pfn, uint32_t type, uint32_t encoding)
{
    e->entries[e->count++] =
        (uint64_t)type << SR_PFN_TYPE_SHIFT | (uint64_t)encoding << SR_ENCODED_SHIFT | pfn;
    if (e->count == SR_ENCODED_COUNT_MAX ||
        e->content_length > SR_ENCODED_CONTENT_MAX - SR_PAGE_SIZE)
        xc_sr_encoder_finish(e);
    return e->out_used >= OUT_FULL;
}

bool xc_sr_encoder_add(struct xc_sr_encoder *e, uint64_t pfn, uint32_t type, const void *page)
{
    uint8_t masks[SR_PAGE_LINES];
    uint64_t lines = 0;
    const void *base;
    void *stored;

    e->counts.plain_bytes += 8 + (page ? SR_PAGE_SIZE : 0);
    if (!page) {
        xc_sr_ref_forget(&e->ref, pfn);
        return add_entry(e, pfn, type, SR_ENCODING_RAW);
    }
    base = xc_sr_ref_find(&e->ref, pfn, &stored);
    if (base) lines = e->ops->diff(page, base, masks);
    if (base && !lines) {
        e->counts.unchanged++;
        return false;
    }
    return add_entry(e, pfn, type, put_page(e, pfn, page, stored, lines, masks));
}

void xc_sr_encoder_link(struct xc_sr_encoder *e, uint64_t bytes, uint64_t us)
{
    e->link_bytes += bytes;
    e->link_us += us;
}

void xc_sr_encoder_checkpoint(struct xc_sr_encoder *e)
{
    if (e->mode == XC_SR_ENCODE_AUTO && e->link_bytes >= LINK_SAMPLE_BYTES)
        e->compress = e->link_bytes / LZ4_BYTES_PER_US <= e->link_us;
    e->link_bytes = e->link_us = 0;
}

const struct xc_sr_encode_counts *xc_sr_encoder_counts(const struct xc_sr_encoder *e)
{
    return &e->counts;
}
