/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The inner loops of the encoder: what changed in a page. In three forms, of which the best that
 * this CPU knows is chosen at run time; all give the same octets.
 */
#ifndef XC_SR_DIFF_H
#define XC_SR_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xc_sr_stream_format.h"

struct xc_sr_diff_ops {
    const char *name;
    /*
     * Compares two pages, both aligned to 64 octets. Bit i of the result: line i differs; then bit
     * j of masks[i]: its word j does. masks[] of equal lines is 0.
     */
    uint64_t (*diff)(const void *page, const void *base, uint8_t masks[SR_PAGE_LINES]);
    /*
     * Appends the changed words at out, which has room for SR_PAGE_SIZE and SR_LINE_SIZE more, and
     * brings base up to date unless it is NULL. Returns how many octets were appended.
     */
    size_t (*emit)(const void *page, void *base, uint64_t lines, const uint8_t masks[SR_PAGE_LINES],
                   uint8_t *out);
    bool (*is_zero)(const void *page);
};

/* All forms that this CPU knows, best first, NULL at the end. */
const struct xc_sr_diff_ops *const *xc_sr_diff_forms(void);

static inline const struct xc_sr_diff_ops *xc_sr_diff_best(void)
{
    return xc_sr_diff_forms()[0];
}

#endif
