/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Who may write to a shared disk: two blocks at the start of its journal; docs/misc/disk.md, section 7.
 *
 * The owner of generation g writes block g mod 2 and nobody else does while g or g + 1 is the newest. So
 * two hosts never write the same block, and each can write its own claim and then look at the other's:
 * of two that do so at once, at least one sees the other. Only starts of a free disk may meet in a block;
 * they settle it (disk_shared.c).
 */
#ifndef DISK_CLAIM_H
#define DISK_CLAIM_H

#include <stdbool.h>
#include <stdint.h>

#include "disk_direct.h"

#define DISK_CLAIM_SIZE 4096

enum disk_claim_state {
    DISK_CLAIM_ALONE = 1, /* the owner writes to the disk, nobody may take over */
    DISK_CLAIM_PROTECTED, /* a backup that knows the token may take over with generation + 1 */
    DISK_CLAIM_FREE,      /* the owner has ended in order: whoever wants may have it */
    DISK_CLAIM_TAKING, /* a backup that is about to take over, if the owner does not go on: no owner yet */
    DISK_CLAIM_VOID /* it did not */
};

struct disk_claim {
    uint32_t state;
    uint64_t generation; /* 0: no claim */
    uint64_t size;       /* of the disk */
    uint64_t epoch;      /* taken over at this checkpoint of the generation before; 0: not so */
    uint8_t uuid[16];    /* the disk's */
    uint8_t owner[16];   /* the instance's */
    uint8_t token[16];   /* of the last link: shows that both see the same storage */
};

void disk_claim_put(uint8_t out[DISK_CLAIM_SIZE], const struct disk_claim *c);
/* False, and no claim, if it is none of ours. */
bool disk_claim_get(struct disk_claim *c, const uint8_t in[DISK_CLAIM_SIZE]);

/* Both claims, from the medium; *foreign: there is something else in their place. */
int disk_claims_read(const struct disk_direct *s, struct disk_claim two[2], bool *foreign);
/* On the medium when it returns. */
int disk_claims_write(const struct disk_direct *s, const struct disk_claim *c);
/* The newest of an owner; its generation is 0 if there is none. */
const struct disk_claim *disk_claims_top(const struct disk_claim two[2]);
/* The newest generation, of an owner or not. */
uint64_t disk_claims_newest(const struct disk_claim two[2]);

#endif
