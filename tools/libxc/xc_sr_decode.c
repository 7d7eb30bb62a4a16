/* SPDX-License-Identifier: LGPL-2.1-only */
/* Encoded pages: what one may look like, and back into a page. */
#include <endian.h>
#include <lz4.h>
#include <string.h>

#include "xc_sr_decode.h"
#include "xc_sr_record.h"

#define DELTA_HEAD 8U /* the map of lines; the masks follow, padded to 8, then the words */
#define BAD SIZE_MAX

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

uint64_t xc_sr_encoded_entry(const uint8_t *entries, uint32_t i)
{
    return get64(entries + (size_t)8 * i);
}

static size_t masks_size(uint64_t lines)
{
    return ((size_t)__builtin_popcountll(lines) + 7) & ~(size_t)7;
}

/* How much of `left` octets the delta takes, or BAD. */
static size_t delta_size(const uint8_t *p, size_t left)
{
    size_t words = 0, size, i, n;
    uint64_t lines;

    if (left < DELTA_HEAD) return BAD;
    lines = get64(p);
    n = (size_t)__builtin_popcountll(lines);
    size = DELTA_HEAD + masks_size(lines);
    if (!lines || left < size) return BAD;
    for (i = 0; i < n; i++) {
        if (!p[DELTA_HEAD + i]) return BAD;
        words += (size_t)__builtin_popcount(p[DELTA_HEAD + i]);
    }
    for (; i < masks_size(lines); i++)
        if (p[DELTA_HEAD + i]) return BAD;
    return words <= (left - size) / 8 ? size + 8 * words : BAD;
}

static size_t content_size(uint32_t encoding, const uint8_t *p, size_t left)
{
    switch (encoding) {
    case SR_ENCODING_RAW:
        return left < SR_PAGE_SIZE ? BAD : SR_PAGE_SIZE;
    case SR_ENCODING_ZERO:
        return 0;
    case SR_ENCODING_DELTA:
        return delta_size(p, left);
    default:
        return BAD;
    }
}

static const char *check_content(const struct xc_sr_encoded *pages)
{
    size_t at = 0, size;
    uint32_t i;

    for (i = 0; i < pages->count; i++) {
        uint64_t entry = xc_sr_encoded_entry(pages->entries, i);
        uint32_t encoding = xc_sr_entry_encoding(entry);

        if (entry & SR_ENCODED_RESERVED) return "ENCODED_PAGES: reserved bits of an entry";
        if (!xc_sr_page_type_known(xc_sr_entry_type(entry)))
            return "ENCODED_PAGES: unused page type";
        if (!xc_sr_page_type_has_data(xc_sr_entry_type(entry))) {
            if (encoding) return "ENCODED_PAGES: encoding of a page without contents";
            continue;
        }
        size = content_size(encoding, pages->content + at, pages->content_length - at);
        if (size == BAD) return "ENCODED_PAGES: contents of an entry";
        at += size;
    }
    return at == pages->content_length ? NULL : "ENCODED_PAGES: more contents than entries";
}

const char *xc_sr_encoded_open(struct xc_sr_encoded *pages, const void *body, uint32_t length,
                               uint8_t *scratch)
{
    const uint8_t *p = body;
    uint32_t method, stored;

    if (length < sizeof(struct sr_encoded_pages)) return "ENCODED_PAGES: no head";
    pages->count = get32(p);
    method = get32(p + 4);
    pages->content_length = get32(p + 8);
    if (!pages->count || pages->count > SR_ENCODED_COUNT_MAX) return "ENCODED_PAGES: count";
    if (get32(p + 12)) return "ENCODED_PAGES: reserved field is not 0";
    if (pages->count > (length - sizeof(struct sr_encoded_pages)) / 8)
        return "ENCODED_PAGES: count exceeds the record";
    if (pages->content_length > SR_ENCODED_CONTENT_MAX) return "ENCODED_PAGES: content_length";
    pages->entries = p + sizeof(struct sr_encoded_pages);
    pages->content = pages->entries + (size_t)8 * pages->count;
    stored = length - (uint32_t)sizeof(struct sr_encoded_pages) - 8 * pages->count;
    if (method == SR_METHOD_STORED) {
        if (stored != pages->content_length) return "ENCODED_PAGES: length of the content";
        return check_content(pages);
    }
    if (method != SR_METHOD_LZ4) return "ENCODED_PAGES: method is unknown";
    if (LZ4_decompress_safe((const char *)pages->content, (char *)scratch, (int)stored,
                            (int)pages->content_length) != (int)pages->content_length)
        return "ENCODED_PAGES: the content is no LZ4 block of its length";
    pages->content = scratch;
    return check_content(pages);
}

static void put_words(uint8_t *line, uint8_t mask, const uint8_t **words)
{
    if (mask == 0xff) {
        memcpy(line, *words, SR_LINE_SIZE);
        *words += SR_LINE_SIZE;
        return;
    }
    for (; mask; mask &= (uint8_t)(mask - 1), *words += 8)
        memcpy(line + 8 * __builtin_ctz(mask), *words, 8);
}

static size_t apply_delta(uint8_t *page, const uint8_t *content)
{
    uint64_t lines = get64(content), left;
    const uint8_t *mask = content + DELTA_HEAD;
    const uint8_t *words = mask + masks_size(lines);

    for (left = lines; left; left &= left - 1)
        put_words(page + SR_LINE_SIZE * (size_t)__builtin_ctzll(left), *mask++, &words);
    return (size_t)(words - content);
}

size_t xc_sr_decode_page(void *page, uint32_t encoding, const uint8_t *content)
{
    if (encoding == SR_ENCODING_DELTA) return apply_delta(page, content);
    if (encoding == SR_ENCODING_ZERO) {
        memset(page, 0, SR_PAGE_SIZE);
        return 0;
    }
    memcpy(page, content, SR_PAGE_SIZE);
    return SR_PAGE_SIZE;
}
