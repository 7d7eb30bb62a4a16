/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the twin must know of the guest before a byte of its memory comes: the xl header, and a few fields of the configuration.
 */
#ifndef LIBXL_TWIN_CONFIG_H
#define LIBXL_TWIN_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XL_IMAGE_HEADER_LEN 48u
#define XL_IMAGE_DATA_MAX (1u << 20)
#define TWIN_DISKS_MAX 1024u

struct twin_config {
    char name[65];
    char uuid[37];
    char type[16];         /* "pvh", "hvm", "pv"; "" when it is not said */
    char device_model[32]; /* device_model_version; "" (libxl's default) when it is not said */
    bool stubdomain;       /* device_model_stubdomain */
    unsigned disks;        /* how many, up to TWIN_DISKS_MAX + 1 */
    bool late_disk;        /* one of them cannot be opened before it was promoted */
    uint64_t max_memkb;
    uint64_t target_memkb; /* 0 when it is not said */
};

/* The 48 octets of the xl header. NULL and *data_len (what follows), or what is wrong. */
const char *libxl__twin_header_check(const unsigned char header[XL_IMAGE_HEADER_LEN],
                                     uint32_t *data_len);
/* What follows it. NULL and *config, or what is wrong. */
const char *libxl__twin_config_parse(const unsigned char *data, size_t len,
                                     struct twin_config *config);

/* NULL: the twin of this guest, of whose disks so many are replicated, can be warm; else what is in the way. */
const char *libxl__twin_config_cold(const struct twin_config *config, unsigned replicated);

#endif
