/* SPDX-License-Identifier: LGPL-2.1-only */
/* What an instance knows about its disk when it starts; docs/misc/disk.md, section 4. */
#ifndef DISK_STATE_H
#define DISK_STATE_H

#include <stdbool.h>
#include <stdint.h>

struct disk_state {
    uint8_t uuid[16]; /* zero: never linked */
    uint8_t base[16]; /* of the last synchronisation; zero: none */
    uint8_t boot[16]; /* when it was written */
    uint64_t size, generation;
    bool primary;
    bool clean;        /* the instance ended in order */
    bool secured;      /* primary: a backup may hold a newer state than we know */
    bool inconsistent; /* backup: no state of the disk at one instant */
};

/* True if 16 octets are 0. */
bool disk_id_none(const uint8_t id[16]);
void disk_id_text(char out[33], const uint8_t id[16]);

/* -ENOENT: there is none; -EBADMSG: damaged. */
int disk_state_load(struct disk_state *s, const char *dir);
/* Replaces it; on the medium when this returns. */
int disk_state_save(const struct disk_state *s, const char *dir);

#endif
