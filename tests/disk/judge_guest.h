/* SPDX-License-Identifier: LGPL-2.1-only */
/* A guest that writes at random over NBD, several at a time, and logs what it did. */
#ifndef JUDGE_GUEST_H
#define JUDGE_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "judge_model.h"

#define GUEST_IN_FLIGHT 8
#define GUEST_WRITE_MAX (3u << 20)

struct nbd_handle;

struct guest_op {
    bool busy, logged;
    unsigned index;
    int64_t cookie;
    uint8_t *buf;
};

struct guest {
    struct judge_model *model; /* the caller's */
    uint64_t random;
    uint64_t budget; /* octets that it may still write */
    bool quiet;      /* it stands still */
    struct nbd_handle *nbd;
    struct guest_op ops[GUEST_IN_FLIGHT];
};

void guest_init(struct guest *g, struct judge_model *model, uint64_t seed);
void guest_dispose(struct guest *g);
uint32_t guest_rnd(struct guest *g, uint32_t below);
/* NULL, or what went wrong. */
const char *guest_connect(struct guest *g, const char *uri);
void guest_range(struct guest *g, uint32_t *first, uint32_t *count);
/* Begins a write, trim, zeroing or flush, if one may. */
void guest_issue(struct guest *g);
/* Looks for completions; waits at most ms for something to happen. */
void guest_pump(struct guest *g, int ms);
/* Until nothing is in flight, at most ms. */
bool guest_settle(struct guest *g, int ms);
/* What is in flight may happen or not; the connection is closed. */
void guest_abandon(struct guest *g);
/* Reads all of the disk into the file. */
bool guest_copies(struct guest *g, int fd);
/* Reads all of the disk, and compares it with the file. */
bool guest_sees(struct guest *g, int fd);

#endif
