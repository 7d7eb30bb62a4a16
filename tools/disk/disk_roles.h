/* SPDX-License-Identifier: LGPL-2.1-only */
/* What differs by role. Requests return 0 or -errno with one line in `why`; they take the lock
 * themselves. */
#ifndef DISK_ROLES_H
#define DISK_ROLES_H

#include "disk.h"

/* ---- primary: disk_primary.c, disk_sync.c ---- */

/* Under the lock, range held: marks it and queues it, waiting for room until then. `payload` NULL: zeros. With a loan, which is done
 * before, the payload may stay lent until disk_loan_end. */
void disk_replicate(struct disk *d, const void *payload, uint64_t size, uint64_t offset, bool trim,
                    struct timespec until, struct disk_loan *loan);
/* Under the lock, which it may give back: the payload is the caller's again. */
void disk_loan_end(struct disk *d, struct disk_loan *loan);
/* Under the lock: queues one frame, tagged with the open epoch; gives the lock back while it waits
 * and copies. False: the link is dead. */
bool disk_queue_frame(struct disk *d, struct disk_link *l, struct disk_frame *f,
                      const void *payload);
int disk_sync(struct disk *d, uint64_t rate, char why[DISK_TEXT_MAX]);
int disk_protect(struct disk *d, char why[DISK_TEXT_MAX]);
int disk_barrier(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]);
int disk_unprotect(struct disk *d, char why[DISK_TEXT_MAX]);
void *disk_primary_link(void *link); /* thread */
void *disk_syncer(void *link);       /* thread */
/* Under the lock: the answer to the oldest CHECK. False: it is none. */
bool disk_sync_answer(struct disk_link *l, const struct disk_frame *f);

/* ---- backup: disk_backup.c, disk_apply.c ---- */

int disk_promote(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]);
int disk_drop(struct disk *d, char why[DISK_TEXT_MAX]);
void *disk_backup_link(void *link); /* thread */
void *disk_applier(void *disk);     /* thread */
/* Under the lock: waits until all that is committed is on the disk. */
int disk_wait_applied(struct disk *d);

/* ---- both ---- */

int disk_commit(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]);

#endif
