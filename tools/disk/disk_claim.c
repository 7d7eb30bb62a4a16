/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_claim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_util.h"

#define VERSION 1
#define HASHED 96

static const uint8_t magic[8] = {'X', 'T', 'S', 'C', 'L', 'A', 'I', 'M'};

void disk_claim_put(uint8_t out[DISK_CLAIM_SIZE], const struct disk_claim *c)
{
    memset(out, 0, DISK_CLAIM_SIZE);
    memcpy(out, magic, 8);
    disk_put32(out + 8, VERSION);
    disk_put32(out + 12, c->state);
    disk_put64(out + 16, c->generation);
    disk_put64(out + 24, c->size);
    disk_put64(out + 32, c->epoch);
    memcpy(out + 48, c->uuid, 16);
    memcpy(out + 64, c->owner, 16);
    memcpy(out + 80, c->token, 16);
    disk_put64(out + HASHED, XXH3_64bits(out, HASHED));
}

bool disk_claim_get(struct disk_claim *c, const uint8_t in[DISK_CLAIM_SIZE])
{
    memset(c, 0, sizeof(*c));
    if (memcmp(in, magic, 8) || disk_get32(in + 8) != VERSION) return false;
    if (disk_get64(in + HASHED) != XXH3_64bits(in, HASHED)) return false;
    uint32_t state = disk_get32(in + 12);
    uint64_t generation = disk_get64(in + 16);
    if (state < DISK_CLAIM_ALONE || state > DISK_CLAIM_VOID) return false;
    if (generation == 0 || generation >= UINT64_MAX - 1 || disk_get64(in + 24) > DISK_SIZE_MAX)
        return false;
    c->state = state;
    c->generation = generation;
    c->size = disk_get64(in + 24);
    c->epoch = disk_get64(in + 32);
    memcpy(c->uuid, in + 48, 16);
    memcpy(c->owner, in + 64, 16);
    memcpy(c->token, in + 80, 16);
    return true;
}

static bool all_zero(const uint8_t *p, size_t size)
{
    return !p[0] && !memcmp(p, p + 1, size - 1);
}

/* A journal that is new ends before. */
static int read_block(const struct disk_direct *s, uint8_t *block, uint64_t offset)
{
    off_t end = lseek(s->fd, 0, SEEK_END);

    if (end < 0) return -errno;
    memset(block, 0, DISK_CLAIM_SIZE);
    if ((uint64_t)end < offset + DISK_CLAIM_SIZE) return 0;
    return disk_direct_read(s, block, DISK_CLAIM_SIZE, offset);
}

int disk_claims_read(const struct disk_direct *s, struct disk_claim two[2], bool *foreign)
{
    void *block;
    int r = 0;

    *foreign = false;
    memset(two, 0, 2 * sizeof(*two));
    if (posix_memalign(&block, DISK_CLAIM_SIZE, DISK_CLAIM_SIZE)) return -ENOMEM;
    for (unsigned i = 0; !r && i < 2; i++) {
        r = read_block(s, block, i * DISK_CLAIM_SIZE);
        if (r) break;
        bool ok = disk_claim_get(&two[i], block) && two[i].generation % 2 == i;
        if (ok) continue;
        memset(&two[i], 0, sizeof(*two));
        if (!all_zero(block, DISK_CLAIM_SIZE)) *foreign = true;
    }
    free(block);
    return r;
}

int disk_claims_write(const struct disk_direct *s, const struct disk_claim *c)
{
    void *block;

    if (posix_memalign(&block, DISK_CLAIM_SIZE, DISK_CLAIM_SIZE)) return -ENOMEM;
    disk_claim_put(block, c);
    int r = disk_direct_write(s, block, DISK_CLAIM_SIZE, c->generation % 2 * DISK_CLAIM_SIZE);
    free(block);
    if (!r && fdatasync(s->fd)) r = -errno;
    return r;
}

static uint64_t owned(const struct disk_claim *c)
{
    return c->state < DISK_CLAIM_TAKING ? c->generation : 0;
}

const struct disk_claim *disk_claims_top(const struct disk_claim two[2])
{
    static const struct disk_claim none;

    if (!owned(&two[0]) && !owned(&two[1])) return &none;
    return &two[owned(&two[1]) > owned(&two[0])];
}

uint64_t disk_claims_newest(const struct disk_claim two[2])
{
    return two[0].generation > two[1].generation ? two[0].generation : two[1].generation;
}
