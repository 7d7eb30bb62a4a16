/* SPDX-License-Identifier: LGPL-2.1-only */
/* An instance in this process; the test is the other end of its link, and not always a polite one. */
#ifndef DISK_WORLD_H
#define DISK_WORLD_H

#include "disk_test.h"

#include "disk.h"
#include "disk_roles.h"

#define WORLD_SIZE (40u << 16)

struct world {
    struct disk d;
    char path[128], dir[64];
    int fd; /* our end */
    uint64_t seq;
    struct disk_hello mine;
    char lost[256];
    unsigned slow;
    char why[DISK_TEXT_MAX];
    uint8_t payload[DISK_PAYLOAD_MAX];
};

/* A new instance on the folder's disk, which is empty if it was not there; without a link. */
struct world *world_begin(struct folder *f, bool primary);
void world_end(struct world *w);
/* A new link; the one before is closed. */
void world_connect(struct world *w);
void world_say(struct world *w, struct disk_frame f, const void *payload);
void world_say_hello(struct world *w);
/* The next frame that is not a sign of life; false at the end. */
bool world_hear(struct world *w, struct disk_frame *f);
/* The link must end; what it was for stands in w->lost. */
void world_must_end(struct world *w);
/* A new link to a primary, up to our HELLO. */
void world_meet(struct world *w);
/* The same, and on until it protects; every extent is said to be equal. */
void world_synchronise_primary(struct world *w, uint64_t rate);

#endif
