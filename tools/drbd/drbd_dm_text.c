/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the device mapper says about thin volumes and their pools. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "drbd_dm.h"

#define FULL_PERCENT 95

/* Digits, and then `end`. */
static bool number(const char **p, uint64_t max, char end, uint64_t *out)
{
    char *stop;

    if (**p < '0' || **p > '9') return false;
    errno = 0;
    *out = strtoull(*p, &stop, 10);
    if (errno || *stop != end || *out > max) return false;
    *p = stop + (end != 0);
    return true;
}

bool drbd_dm_parse_thin(const char *params, dev_t *pool, uint32_t *id)
{
    uint64_t major, minor, n;

    if (!number(&params, 4095, ':', &major) || !number(&params, (1u << 20) - 1, ' ', &minor) ||
        !number(&params, DRBD_DM_ID_MAX, 0, &n))
        return false;
    *pool = makedev((unsigned)major, (unsigned)minor);
    *id = (uint32_t)n;
    return true;
}

/* "TRANSACTION USED/TOTAL USED/TOTAL ROOT rw|ro|out_of_data_space ... needs_check|-" */
bool drbd_dm_parse_pool(const char *params, char why[DRBD_WHY_MAX])
{
    uint64_t n, meta_used, meta_all, used, all;
    const char *p = params;

    if (!number(&p, UINT64_MAX, ' ', &n) || !number(&p, UINT64_MAX / 100, '/', &meta_used) ||
        !number(&p, UINT64_MAX, ' ', &meta_all) || !number(&p, UINT64_MAX / 100, '/', &used) ||
        !number(&p, UINT64_MAX, ' ', &all) || !meta_all || !all) {
        snprintf(why, DRBD_WHY_MAX, "the thin pool says '%.60s'", params);
        return false;
    }
    if (used * 100 / all >= FULL_PERCENT || meta_used * 100 / meta_all >= FULL_PERCENT) {
        snprintf(why, DRBD_WHY_MAX,
                 "the thin pool is nearly full (data %" PRIu64 " %%, metadata %" PRIu64
                 " %%): lvextend it",
                 used * 100 / all, meta_used * 100 / meta_all);
        return false;
    }
    if (!strstr(p, " rw ") || strstr(p, "needs_check")) {
        snprintf(why, DRBD_WHY_MAX, "the thin pool cannot be written to: it needs a repair");
        return false;
    }
    return true;
}
