/* SPDX-License-Identifier: LGPL-2.1-only */
/* xl header and configuration as a primary could send them. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "libxl_twin_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct twin_config config;
    uint32_t len;

    if (size < XL_IMAGE_HEADER_LEN) return 0;
    if (!libxl__twin_header_check(data, &len) && (len < 4 || len > XL_IMAGE_DATA_MAX)) abort();
    if (!libxl__twin_config_parse(data + XL_IMAGE_HEADER_LEN, size - XL_IMAGE_HEADER_LEN,
                                  &config) &&
        (!config.name[0] || strlen(config.name) >= sizeof(config.name) || !config.max_memkb))
        abort();
    return 0;
}
