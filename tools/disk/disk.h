/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One instance: one disk of one guest, as primary or as backup.
 *
 *     nbdkit's threads   disk.c           requests of the guest
 *     control thread     disk_control.c   requests of the library
 *     link thread        disk_primary.c or disk_backup.c: reads the link, owns it, ends its helpers:
 *        sender          primary: sends what is queued and nbdkit's threads could not send at once
 *        syncer          primary: disk_sync.c
 *        ticker          backup: says that it is alive
 *     applier            backup: brings committed epochs to the disk
 *
 * Invariants:
 *  1. The order of overlapping writes on the link is their order on the disk: both happen while the
 *     range is held.
 *  2. An extent's bit is set before it is written, and cleared only after the peer has recorded that a
 *     checkpoint with that write is committed.
 *  3. Nothing of an epoch n >= 1 reaches the backup's disk before commit n.
 *  4. The role and the generation are on the medium before a promoted backup serves its first read.
 *  5. Whoever waits for the link waits with a limit, or until the link is dead.
 *
 * One lock, `lock`, protects every field that is not said to belong to a thread.
 */
#ifndef DISK_H
#define DISK_H

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "disk_bitmap.h"
#include "disk_journal.h"
#include "disk_link.h"
#include "disk_queue.h"
#include "disk_range.h"
#include "disk_state.h"
#include "disk_store.h"

#define DISK_TEXT_MAX 1600

enum disk_phase {
    DISK_ALONE, /* backup: idle */
    DISK_LINKED,
    DISK_SYNCING,
    DISK_SYNCED,
    DISK_PROTECTED,
    DISK_LOST,
    DISK_BROKEN /* backup: its disk failed; only a new start helps */
};

struct disk_options {
    const char *path, *state_dir;
    const char *shared; /* the journal that both hosts see; NULL: each host has a disk of its own */
    uint64_t queue_bytes, journal_bytes;
    int limit_ms, settle_ms; /* settle_ms: shared, how long a claim may take to be written */
    bool hold;    /* a slow backup holds the guest's writes instead of losing the protection */
    bool primary; /* the role that is asked for */
    bool force_primary; /* serve whatever the state says */
};

struct disk {
    struct disk_options o;
    pthread_mutex_t lock;
    pthread_cond_t room;    /* queue: room, or nobody sends any more */
    pthread_cond_t work;    /* sender, syncer and applier have something to do */
    pthread_cond_t changed; /* an epoch was applied, the link has gone */
    struct disk_store store;
    struct disk_ranges ranges;
    struct disk_bitmap bitmap;
    struct disk_state state;
    atomic_bool primary; /* serves; the reads look at it without the lock */
    bool opened;         /* its state is on the medium: the end leaves a clean mark */
    bool stopping;
    enum disk_phase phase;
    struct disk_link *link; /* freed by its own thread, which sets this to NULL */
    uint64_t sync_done, sync_total;

    /* primary */
    struct disk_queue queue;
    bool stalled;       /* the link takes nothing; the sender waits for it */
    bool push;          /* all that is queued is to leave at once */
    bool gathering;     /* small writes wait in the queue for more; the sender looks now and then */
    bool gather_more;   /* one came since it looked */
    int64_t small_us;   /* when the last small write was queued */
    uint64_t epoch;     /* what is written now belongs to it; 0: straight to the backup's disk */
    uint64_t closed;    /* the last barrier */
    uint64_t committed; /* the last commit that was told */

    /* backup */
    struct disk_journal journal;
    pthread_t applier;
    bool applier_runs;
    bool applying;
    bool appending; /* the link's thread writes at the journal's head */

    struct disk_shared *shared; /* NULL: each host has a disk of its own */

    /* Called with the lock held, must not block: "lost ...", without "event". */
    void (*event)(struct disk *d, const char *text);
    void *event_arg;
};

/* Opens disk and state and decides the role. On failure `why` is one line for a person and nothing was
 * changed. No thread is started. */
int disk_open(struct disk *d, const struct disk_options *o, char why[DISK_TEXT_MAX]);
/* After the last fork. */
int disk_start(struct disk *d);
/* Ends link and threads and writes the clean mark. Fine after a failed disk_open. */
void disk_close(struct disk *d);

/* The guest's requests; any thread. -EIO from a backup. */
int disk_read(struct disk *d, void *buf, uint32_t size, uint64_t offset);
int disk_write(struct disk *d, const void *buf, uint32_t size, uint64_t offset, bool fua);
int disk_zero(struct disk *d, uint32_t size, uint64_t offset, bool trim, bool fua);
int disk_trim(struct disk *d, uint32_t size, uint64_t offset, bool fua);
int disk_flush(struct disk *d);

/* Both roles; ours from here on: in, and out if it is another. Any thread. */
int disk_link_start(struct disk *d, int in, int out, char why[DISK_TEXT_MAX]);
void disk_status(struct disk *d, char text[DISK_TEXT_MAX]);

void disk_event(struct disk *d, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Under the lock: ends a link once, with its reason. */
void disk_link_lost(struct disk *d, struct disk_link *l, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Under the lock, which they give back while they send. refuse: tells the other end why, then ends the link. */
void disk_link_refuse(struct disk *d, struct disk_link *l, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void disk_link_answer(struct disk *d, struct disk_link *l, struct disk_frame *f,
                      const void *payload);
/* Under the lock, which it gives back for good: no thread uses the link any more. */
void disk_link_over(struct disk *d, struct disk_link *l);
/* Under the lock: makes `fresh` the state, here and on the medium; on failure it stays as it was, so that
 * a second try writes again. */
int disk_change_state(struct disk *d, const struct disk_state *fresh);
/* Under the lock: until the link is gone, at most ms. */
bool disk_wait_unlinked(struct disk *d, int64_t ms);

#endif
