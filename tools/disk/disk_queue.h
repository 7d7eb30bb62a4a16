/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What is on the way to the link: frames, one after the other, in a ring of fixed size.
 *
 *     sent              first frame not yet filled        reserved
 *       |  ready to send  |  being filled, or ready behind it  |
 *
 * A place is reserved under the lock, which settles the order; head and payload are copied in without it. Or the payload is lent:
 * its place in the ring stays empty, and it is sent from where it is until its owner takes it back.
 * Everything but disk_queue_fill and the sealing is called under the owner's lock.
 */
#ifndef DISK_QUEUE_H
#define DISK_QUEUE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "disk_frame.h"

#define DISK_QUEUE_SLOTS 8192
#define DISK_QUEUE_MIN (4u << 20)

struct disk_slot {
    uint64_t start, end, seq;
    bool ready;
    struct disk_loan *loan; /* NULL: it is in the ring */
};

/* The lender's; it stays where it is until it is done. */
struct disk_loan {
    struct disk_frame frame;
    const void *payload;
    uint8_t head[DISK_FRAME_SIZE];
    bool sealed; /* the head is there */
    bool done;   /* the queue knows nothing of it any more */
    struct disk_slot *slot;
    /* The owner waits while somebody else sends; woken when it is done, or the first that waits. */
    pthread_cond_t turn;
    struct disk_loan *next; /* of those that wait */
};

#define DISK_BATCH_PIECES 64
/* What is sent in one go. */
struct disk_batch {
    struct iovec iov[DISK_BATCH_PIECES];
    int pieces;
    struct disk_loan *loan[DISK_BATCH_PIECES];
    int loans;
};

struct disk_queue {
    uint8_t *ring;
    size_t size;
    uint64_t reserved, sent; /* octets, ever */
    uint64_t seq;            /* of the next frame */
    unsigned first, count;   /* slots in use */
    unsigned filling;        /* reserved, not ready: the ring must stay as it is */
    unsigned lent;           /* slots whose payload is somebody's */
    bool sending;            /* somebody writes to the link from the ring; its owner's */
    struct disk_loan *turns; /* whose owners wait, in the order they came */
    struct disk_slot slots[DISK_QUEUE_SLOTS];
};

void disk_queue_init(struct disk_queue *q);
void disk_queue_dispose(struct disk_queue *q);
/* 0 or -ENOMEM. */
int disk_queue_allocate(struct disk_queue *q, size_t size);
/* Empties it for a new link. Nothing may be in filling. */
void disk_queue_reset(struct disk_queue *q);

bool disk_queue_has_room(const struct disk_queue *q, size_t payload);
/* There is room. */
struct disk_slot *disk_queue_reserve(struct disk_queue *q, size_t payload);
/* Without the lock: all of the frame but the first `gone` octets. */
void disk_queue_fill(struct disk_queue *q, const struct disk_slot *slot,
                     const uint8_t head[DISK_FRAME_SIZE], const void *payload, size_t gone);
void disk_queue_ready(struct disk_queue *q, struct disk_slot *slot);

/* Its first frame can be sent. */
bool disk_queue_sendable(const struct disk_queue *q);
/* Instead of filling it: ready, with a payload that is the caller's. */
void disk_queue_lend(struct disk_queue *q, struct disk_slot *slot, struct disk_loan *loan);
/* Nobody is sending: the loan is done. Returns how much of the frame has gone; the slot is as if just reserved, and what has not
 * gone is to be filled in. */
size_t disk_queue_take_back(struct disk_queue *q, struct disk_loan *loan);

/* Somebody reads or writes the ring without the lock, or lends to it. */
bool disk_queue_in_use(const struct disk_queue *q);
/* What can be sent now, about `max` octets. What was lent has to be sealed before it is sent. */
void disk_queue_peek(const struct disk_queue *q, struct disk_batch *b, size_t max);
/* Makes its head, once. Without the lock: the queue is marked as sending, or the loan was taken back. */
void disk_loan_seal(struct disk_loan *loan);
void disk_batch_seal(struct disk_batch *b);
void disk_queue_sent(struct disk_queue *q, size_t size);

/* Until somebody wakes it, who need not have a reason. Who comes back passes the turn on when it has sent, or will not send. */
void disk_queue_wait_turn(struct disk_queue *q, struct disk_loan *loan, pthread_mutex_t *lock);
/* Nobody sends any more: the first that waits may. */
void disk_queue_pass_turn(struct disk_queue *q);

#endif
