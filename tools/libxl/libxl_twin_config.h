/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the twin must know of the guest before a byte of its memory comes: the xl header, and three fields of the configuration.
 */
#ifndef LIBXL_TWIN_CONFIG_H
#define LIBXL_TWIN_CONFIG_H

#include <stddef.h>
#include <stdint.h>

#define XL_IMAGE_HEADER_LEN 48u
#define XL_IMAGE_DATA_MAX (1u << 20)

struct twin_config {
    char name[65];
    char uuid[37];
    uint64_t max_memkb;
};

/* The 48 octets of the xl header. NULL and *data_len (what follows), or what is wrong. */
const char *libxl__twin_header_check(const unsigned char header[XL_IMAGE_HEADER_LEN],
                                     uint32_t *data_len);
/* What follows it. NULL and *config, or what is wrong. */
const char *libxl__twin_config_parse(const unsigned char *data, size_t len,
                                     struct twin_config *config);

#endif
