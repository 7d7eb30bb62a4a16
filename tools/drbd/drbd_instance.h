/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * An instance whose disk is a DRBD resource: the same control socket and link as tools/disk (docs/misc/disk.md), but the data travel by
 * DRBD. What is added here is the checkpoint: while the guest stands still, the backup takes a snapshot of the volume below DRBD.
 *
 *     primary   guest suspended | barrier n ----> BARRIER n                          SEALED n ----> ok | guest resumed
 *     backup                                       check, suspend volume, snapshot n, resume
 *
 * Invariants
 *  1. `barrier n` is answered ok only after the backup has snapshot n: the guest stands still until then.
 *  2. Before BARRIER n is sent DRBD says that both sides are the same with protocol C: each write that the guest saw done is on the
 *     backup's volume. The backup looks again after the snapshot: it is not one of a volume that is being synchronised.
 *  3. At most two snapshots: the last committed one and the sealed one.
 *  4. The backup becomes primary only if DRBD itself allows it, without force, fencing included; only then the volume is brought back.
 *  5. A volume that was brought back counts as different in every block, on the medium, before it can be used or connected.
 *
 * One thread. A request or frame is worked off before the next; commands of DRBD are waited for.
 */
#ifndef DRBD_INSTANCE_H
#define DRBD_INSTANCE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk_link.h"
#include "disk_names.h"
#include "disk_state.h"
#include "drbd_res.h"
#include "drbd_snap.h"

enum drbd_phase { DRBD_ALONE, DRBD_LINKED, DRBD_SYNCING, DRBD_SYNCED, DRBD_PROTECTED, DRBD_LOST };

struct drbd_instance {
    /* caller fills, borrowed */
    const char *resource, *run_dir, *state_dir;
    int limit_ms;
    bool primary; /* the role that is asked for; then the one that it is */
    bool force_primary;
    void (*event)(struct drbd_instance *in, const char *text); /* without "event" */
    void (*barrier_done)(struct drbd_instance *in, const char *reply);

    /* own */
    struct drbd_res res;
    struct drbd_snap snap; /* backup, linked */
    struct disk_state state;
    enum drbd_phase phase;
    struct disk_link *link; /* NULL: down */
    bool handshaken, sync_asked, base_asked;
    int64_t heard_ms, said_ms, looked_ms;
    int64_t until_ms; /* of what is waited for: the handshake, DRBD's connection, a barrier */
    uint64_t epoch;   /* primary: the open one; backup: the last sealed one */
    uint64_t committed;
    uint64_t closing; /* primary: the barrier that waits for SEALED */
    uint64_t base;    /* backup: the generation that BARRIER 0 named; 0: none is waited for */
    uint64_t sync_done, sync_total;
};

/* 0, or -1 with one line in why. */
int drbd_instance_open(struct drbd_instance *in, char why[DRBD_WHY_MAX]);
/* Ends the link; a primary's resource becomes secondary, if nobody has it open. */
void drbd_instance_close(struct drbd_instance *in);
/* At least every DRBD_TICK_MS. */
void drbd_instance_tick(struct drbd_instance *in);
void drbd_instance_status(const struct drbd_instance *in, char text[DISK_REPLY_MAX]);

#define DRBD_TICK_MS 100
#define DRBD_CONNECT_MS 60000 /* until DRBD is connected */
/* Until the other side answers: it may be starting, and has commands to wait for. */
#define DRBD_ANSWER_MS 60000

/* ---- requests: 0, or -1 with one line in why ---- */

/* The fds are ours from here on. */
int drbd_link_start(struct drbd_instance *in, int in_fd, int out_fd, char why[DRBD_WHY_MAX]);
int drbd_sync(struct drbd_instance *in, char why[DRBD_WHY_MAX]);
int drbd_protect(struct drbd_instance *in, char why[DRBD_WHY_MAX]);
/* 0: barrier_done comes, "ok" or "error ...", now or later. */
int drbd_barrier(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX]);
int drbd_commit(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX]);
int drbd_unprotect(struct drbd_instance *in, char why[DRBD_WHY_MAX]);
int drbd_promote(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX]);
int drbd_drop(struct drbd_instance *in, char why[DRBD_WHY_MAX]);

/* ---- between the files ---- */

/* The link has something to read. */
void drbd_link_readable(struct drbd_instance *in);
/* Ends the link, once, with its reason. */
void drbd_link_lost(struct drbd_instance *in, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Backup: tells the primary why, then the link is lost. */
void drbd_link_refuse(struct drbd_instance *in, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void drbd_link_send(struct drbd_instance *in, unsigned type, uint64_t epoch, const void *payload,
                    uint32_t size);
void drbd_say_hello(struct drbd_instance *in);
void drbd_say(struct drbd_instance *in, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
int drbd_save_state(struct drbd_instance *in, const struct disk_state *fresh,
                    char why[DRBD_WHY_MAX]);
/* What comes on the link; false: it is out of turn. */
bool drbd_primary_frame(struct drbd_instance *in, const struct disk_frame *f);
bool drbd_backup_frame(struct drbd_instance *in, const struct disk_frame *f);
void drbd_primary_tick(struct drbd_instance *in);
void drbd_backup_tick(struct drbd_instance *in);

/* In the HELLO's place of the base: this is DRBD. */
extern const uint8_t drbd_kind[16];

#endif
