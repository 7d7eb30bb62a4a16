/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One DRBD resource of this host, with one volume, and what can be asked of it. Functions that can fail return 0, or -1 with one line in
 * `why`; each command is waited for (DRBD_RUN_LIMIT_MS).
 */
#ifndef DRBD_RES_H
#define DRBD_RES_H

#include <stdbool.h>
#include <stdint.h>

#include "drbd_run.h"
#include "drbd_text.h"

#define DRBD_NAME_MAX 64

struct drbd_res {
    char name[DRBD_NAME_MAX + 1];
    struct drbd_config config;
    uint64_t size; /* octets; 0: not known, for want of a disk */
};

/* Is it a name of a resource: 1 to 64 letters, digits, '_', '.', '-'? */
bool drbd_name_fine(const char *name);
/* Reads configuration and size; the resource must be up. */
int drbd_res_load(struct drbd_res *r, const char *name, char why[DRBD_WHY_MAX]);
/* A protection needs protocol C, one volume and one primary at a time. */
int drbd_res_suits(const struct drbd_res *r, char why[DRBD_WHY_MAX]);
int drbd_res_status(const struct drbd_res *r, struct drbd_status *s, char why[DRBD_WHY_MAX]);
int drbd_res_generation(const struct drbd_res *r, uint64_t *generation, char why[DRBD_WHY_MAX]);
/* `drbdadm COMMAND [OPTION] RESOURCE` */
int drbd_res_do(const struct drbd_res *r, const char *command, const char *option,
                char why[DRBD_WHY_MAX]);
int drbd_res_history(const struct drbd_res *r, char history[DRBD_HISTORY_SIZE],
                     char why[DRBD_WHY_MAX]);
/*
 * While no disk is attached: the metadata say that all blocks are to be copied from, or to, a peer, and have the generations of
 * `history`, by which the peer is known.
 */
int drbd_res_invalidate(const struct drbd_res *r, const char *history, char why[DRBD_WHY_MAX]);
/* One sentence: which state keeps the two sides from being the same. */
void drbd_status_tell(const struct drbd_res *r, const struct drbd_status *s,
                      char why[DRBD_WHY_MAX]);

#endif
