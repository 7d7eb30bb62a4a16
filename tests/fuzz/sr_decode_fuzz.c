/* SPDX-License-Identifier: LGPL-2.1-only */
/* Encoded pages as a peer could send them. Whatever was accepted must decode inside one page and use exactly its content. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "xc_sr_decode.h"
#include "xc_sr_record.h"

static uint8_t scratch[SR_ENCODED_CONTENT_MAX];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct xc_sr_encoded pages;
    uint8_t *body = malloc(size ? size : 1); /* of its own, so that a read behind it is seen */
    uint8_t *page = malloc(SR_PAGE_SIZE);
    size_t used = 0;

    memcpy(body, data, size);
    memset(page, 0xa5, SR_PAGE_SIZE);
    if (!xc_sr_encoded_open(&pages, body, (uint32_t)size, scratch)) {
        for (uint32_t i = 0; i < pages.count; i++) {
            uint64_t entry = xc_sr_encoded_entry(pages.entries, i);

            if (!xc_sr_page_type_has_data(xc_sr_entry_type(entry))) continue;
            used += xc_sr_decode_page(page, xc_sr_entry_encoding(entry), pages.content + used);
        }
        if (used != pages.content_length) abort();
    }
    free(page);
    free(body);
    return 0;
}
