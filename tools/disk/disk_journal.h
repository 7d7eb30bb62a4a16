/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup's journal: a ring in a file; docs/misc/disk.md, section 6.
 *
 *        tail                    last seal             head
 *     ....|== committed epochs ==|== sealed ==|= open =|....
 *
 *  1. A record is in the file (the page cache at least) before its epoch is sealed.
 *  2. The commit is recorded before commit returns; it and the records are on the medium before the
 *     first of them is applied.
 *  3. The tail moves on the medium only after the disk itself was flushed, and the space behind it is
 *     used again only after that.
 * So a killed process loses nothing, and a dead host leaves either the old state or one that can be
 * completed by replaying.
 *
 * The file positions of `head` belong to the one thread that appends, those of `tail` to the one that
 * applies; both publish under the owner's lock.
 */
#ifndef DISK_JOURNAL_H
#define DISK_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk_frame.h"
#include "disk_store.h"

#define DISK_JOURNAL_MIN (4u << 20)
#define DISK_RECORD_SIZE 64
#define DISK_SEALS_MAX 64

struct disk_seal {
    uint64_t epoch, end, seq; /* what comes behind it */
};

struct disk_journal {
    int fd;
    uint64_t base;       /* of its first octet in the file */
    uint64_t generation; /* shared: of the owner; slots of another one do not count. Else 0 */
    const struct disk_gate *gate; /* of the slots; NULL: none */
    uint64_t limit, wanted_limit; /* octets of the ring; taken over when it is next empty */
    uint64_t session;
    uint64_t tail, tail_seq, head, head_seq;
    uint64_t reusable; /* the tail on the medium: what is before it may be written again */
    uint64_t committed, applied, sealed; /* epochs; 0: none */
    uint64_t slot_seq;
    uint64_t open_records, open_chain; /* of the open epoch */
    struct disk_seal seals[DISK_SEALS_MAX];
    unsigned seal_count; /* those behind the tail */
    uint8_t *buf;        /* of whoever applies */
};

void disk_journal_init(struct disk_journal *j);
void disk_journal_dispose(struct disk_journal *j);

/* Opens or makes it and finds what is whole. *complete: there was one, with all that was committed. What was not
 * committed is not kept. An error if a part of it cannot be read: nobody knows then what it holds. */
int disk_journal_open(struct disk_journal *j, const char *path, uint64_t limit, bool *complete);
/*
 * Shared: takes an open file, whose slots are looked at by disk_journal_load: 0 if there is none of the
 * generation, 1 if there is, else -errno. find_seals then finds the epochs up to `last` that are whole, and find_open what follows
 * of the open one, to which one can append. On failure the fd is still the caller's.
 */
int disk_journal_take(struct disk_journal *j, int fd, uint64_t base, uint64_t limit);
int disk_journal_load(struct disk_journal *j);
int disk_journal_find_seals(struct disk_journal *j, uint64_t last);
int disk_journal_find_open(struct disk_journal *j);
/* Begins a session: empty, no epoch. Nothing may be left to apply. */
int disk_journal_reset(struct disk_journal *j);

/* Where the ring's octet at a position stands in the file. */
uint64_t disk_journal_offset(uint64_t base, uint64_t limit, uint64_t at);
/* A record's data, from any position of the ring. */
int disk_journal_read(struct disk_journal *j, uint64_t at, void *data, size_t size);
/* Is it the head of a seal of that session and epoch? */
bool disk_journal_is_seal(const uint8_t head[DISK_RECORD_SIZE], uint64_t session, uint64_t epoch);

bool disk_journal_has_room(const struct disk_journal *j, size_t payload);
uint64_t disk_journal_bytes(const struct disk_journal *j);

/* The appending thread. Writes at the head and returns where the head is then, for publish. */
int disk_journal_append(struct disk_journal *j, const struct disk_frame *f, const void *payload,
                        uint64_t *head);
int disk_journal_append_seal(struct disk_journal *j, uint64_t epoch, uint64_t *head);
/* Under the lock. */
void disk_journal_publish(struct disk_journal *j, uint64_t head);
bool disk_journal_can_seal(const struct disk_journal *j);
void disk_journal_publish_seal(struct disk_journal *j, uint64_t epoch, uint64_t head);

/* Under the lock. NULL: not sealed. */
const struct disk_seal *disk_journal_find(const struct disk_journal *j, uint64_t epoch);
/* Under the lock: records that `epoch`, which is sealed, is committed. */
int disk_journal_commit(struct disk_journal *j, uint64_t epoch);

/* The applying thread, without the lock: brings `store` from the tail to `to`. */
int disk_journal_apply(struct disk_journal *j, const struct disk_seal *to,
                       struct disk_store *store);
/* Under the lock: `to` was applied. */
int disk_journal_publish_applied(struct disk_journal *j, const struct disk_seal *to);
/* Without the lock: puts it on the medium. Then, under the lock, the space may be used again. */
int disk_journal_flush(struct disk_journal *j);
void disk_journal_release(struct disk_journal *j);
/* Under the lock, while nobody appends: an empty journal begins at the start of its ring again, so that
 * a quiet guest's stays small. */
void disk_journal_rewind(struct disk_journal *j);

#endif
