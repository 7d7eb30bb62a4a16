/* SPDX-License-Identifier: LGPL-2.1-only */
/* What DRBD 8.4 says about a resource, as text: parsers that bound all they read. */
#ifndef DRBD_TEXT_H
#define DRBD_TEXT_H

#include <stdbool.h>
#include <stdint.h>

#define DRBD_WORD_MAX 24
#define DRBD_PATH_MAX 256
#define DRBD_HISTORY_SIZE 68 /* four times 16 digits, and what parts them */

/* One minor of /proc/drbd. A word that DRBD does not know is empty. */
struct drbd_status {
    char connection
        [DRBD_WORD_MAX]; /* "Connected", "WFConnection", ...; "Unconfigured": no disk, no net */
    char role[DRBD_WORD_MAX], peer_role[DRBD_WORD_MAX];
    char disk[DRBD_WORD_MAX], peer_disk[DRBD_WORD_MAX];
    char protocol;        /* 0: not connected to anybody */
    uint64_t out_of_sync; /* KiB that differ */
};

/* `drbdsetup show RESOURCE --show-defaults`. */
struct drbd_config {
    unsigned volumes;
    unsigned minor;
    char backing[DRBD_PATH_MAX]; /* empty: no disk attached */
    char protocol;               /* 0: no network configured */
    bool two_primaries;
    bool fencing; /* any but dont-care */
};

bool drbd_status_parse(struct drbd_status *s, const char *text, unsigned minor);
bool drbd_config_parse(struct drbd_config *c, const char *text);
/* `drbdsetup get-gi`: the current generation, without the bit that tells a primary. */
bool drbd_generation_parse(uint64_t *generation, const char *text);
/* The same: the four generations, as drbdmeta takes them. */
bool drbd_history_parse(char out[DRBD_HISTORY_SIZE], const char *text);

/* Both sides have the same, and each write goes to both. */
bool drbd_status_mirrored(const struct drbd_status *s);

#endif
