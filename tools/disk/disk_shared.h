/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A disk that both hosts see; docs/misc/disk.md, section 7. Nothing is copied: what the guest writes in
 * an epoch waits in a journal that both see, too, and gets to the disk when its checkpoint is committed.
 *
 *     guest --> journal (open epoch)           disk_shared_io.c
 *     barrier n: seal, flush, BARRIER n -->    disk_shared_link.c    backup: disk_shared_backup.c
 *     commit n:  journal --> disk              disk_shared_apply.c
 *
 * Invariants:
 *  1. While protected the disk holds a committed checkpoint, or is on the way from one to the next, and
 *     what completes the way is in the journal on the medium.
 *  2. An epoch is on the medium before the backup hears of its barrier.
 *  3. The disk is changed only by the owner of the newest claim; while protected, only as long as the
 *     backup has leased it the disk, which it has not once it takes over.
 *  4. Nothing that the owner wrote stays in its page cache, where it could reach the disk late; the
 *     journal's open end may, which a new owner does not read.
 *
 * Fields without a word on it are under the disk's lock.
 */
#ifndef DISK_SHARED_H
#define DISK_SHARED_H

#include "disk.h"
#include "disk_claim.h"
#include "disk_overlay.h"

/* The journal begins behind the first claim; its own first block is the second claim. */
#define DISK_SHARED_BASE DISK_CLAIM_SIZE
#define DISK_LEASE_MS 1000
#define DISK_LEASE_EVERY_MS 200
/* An owner looks at the claims so often, even if it has nothing else to do. */
#define DISK_WATCH_MS 1000

struct disk_shared {
    struct disk_direct head; /* the journal's file, for claims */
    struct disk_claim own;   /* primary: what its block says */
    struct disk_gate gate;
    atomic_bool fenced; /* another host has the disk: this one never writes again */
    atomic_bool leased; /* writes need a lease */
    _Atomic int64_t lease_until_ms;
    int64_t lease_asked_ms; /* the newest question */

    /* primary */
    bool journaling; /* what the guest writes goes to the journal */
    bool unsure;     /* a claim that failed to be written may stand there all the same */
    bool stuck;      /* the journal could not be brought to the disk: the guest's changes fail */
    bool stopping;
    unsigned direct;    /* changes under way to the disk itself */
    unsigned reads[2];  /* reads under way, by the turn in which they began */
    unsigned turn;      /* 0 or 1 */
    uint64_t announced; /* the last seal that the backup was told of */
    struct disk_overlay overlay;

    /* backup */
    uint8_t token[16];        /* as the primary's claim has it; zero: no link yet */
    int64_t granted_until_ms; /* the primary may write until then */
};

/* Runs on through a suspended host. */
int64_t disk_shared_now_ms(void);

/* ---- disk_shared.c: as the functions of disk.c ---- */

int disk_shared_open(struct disk *d, char why[DISK_TEXT_MAX]);
int disk_shared_start(struct disk *d);
void disk_shared_close(struct disk *d);
/* The instance was told to stop: nobody waits for a link any more. */
void disk_shared_stop(struct disk *d);
/* Under the lock: looks whether the disk is still ours. 0, -ESTALE, or the error of the read; *taking: a
 * backup is about to take it over. check_owner: that is -EAGAIN while protected. */
int disk_shared_look(struct disk *d, bool *taking);
int disk_shared_check_owner(struct disk *d);
/* The fd of the journal for what stands in its ring. */
int disk_shared_open_journal(struct disk *d);
/* Under the lock: the claim gets a new state. */
int disk_shared_claim(struct disk *d, enum disk_claim_state state);
/* Under the lock: the disk is ours, and no longer protected, if no other host has it. */
int disk_shared_claim_alone(struct disk *d);

/* ---- disk_shared_io.c: the guest ---- */

enum disk_change { DISK_CHANGE_WRITE, DISK_CHANGE_ZERO, DISK_CHANGE_PUNCH, DISK_CHANGE_TRIM };
int disk_shared_read(struct disk *d, void *buf, uint64_t size, uint64_t offset);
/* PUNCH: zeros, the space may be freed. TRIM: the space may be freed, or nothing happens. */
int disk_shared_change(struct disk *d, enum disk_change what, const void *buf, uint64_t size,
                       uint64_t offset, bool fua);
int disk_shared_flush(struct disk *d);
/* Under the lock, both: who appends to the journal has it alone. */
void disk_shared_append_begin(struct disk *d);
void disk_shared_append_end(struct disk *d);

/* ---- disk_shared_link.c, disk_shared_apply.c: the primary ---- */

int disk_shared_protect(struct disk *d, char why[DISK_TEXT_MAX]);
int disk_shared_barrier(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]);
/* Under the lock, a primary without a link. */
int disk_shared_unprotect(struct disk *d, char why[DISK_TEXT_MAX]);
void *disk_shared_primary_link(void *link); /* thread */
void *disk_shared_applier(void *disk);      /* thread */
/* Under the lock: is that the end of an epoch which can be committed? */
int disk_shared_commit(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]);

/* ---- disk_shared_backup.c ---- */

int disk_shared_promote(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]);
int disk_shared_drop(struct disk *d, char why[DISK_TEXT_MAX]);
void *disk_shared_backup_link(void *link); /* thread */

#endif
