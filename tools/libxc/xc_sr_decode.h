/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Reading ENCODED_PAGES records (docs/misc/encoding.md).
 *
 * The octets come from a peer. xc_sr_encoded_open() checks every one that means something;
 * xc_sr_decode_page() then writes inside one page and nowhere else.
 */
#ifndef XC_SR_DECODE_H
#define XC_SR_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "xc_sr_stream_format.h"

/* Points into the record's body, and into the scratch memory when the content was compressed. */
struct xc_sr_encoded {
    uint32_t count;
    const uint8_t *entries; /* u64 each, not aligned: xc_sr_encoded_entry() */
    const uint8_t *content; /* of all entries, one after the other */
    uint32_t content_length;
};

/*
 * Checks the whole body and decompresses its content into scratch, which has
 * SR_ENCODED_CONTENT_MAX octets. NULL, or a static text that names the field that is wrong.
 */
const char *xc_sr_encoded_open(struct xc_sr_encoded *pages, const void *body, uint32_t length,
                               uint8_t *scratch);

uint64_t xc_sr_encoded_entry(const uint8_t *entries, uint32_t i);

/*
 * Brings a page of SR_PAGE_SIZE octets up to date and returns how many octets of content that took.
 * Only for checked content. A delta names words by their values, so doing it twice does no harm.
 */
size_t xc_sr_decode_page(void *page, uint32_t encoding, const uint8_t *content);

#endif
