/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_queue.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

void disk_queue_init(struct disk_queue *q)
{
    memset(q, 0, sizeof(*q));
}

void disk_queue_dispose(struct disk_queue *q)
{
    if (q->ring) munmap(q->ring, q->size);
    q->ring = NULL;
}

int disk_queue_allocate(struct disk_queue *q, size_t size)
{
    if (q->ring) return 0;
    /* Pages come when they are first used. */
    void *ring = mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ring == MAP_FAILED) return -errno;
    q->ring = ring;
    q->size = size;
    return 0;
}

void disk_queue_reset(struct disk_queue *q)
{
    assert(!disk_queue_in_use(q));
    q->reserved = q->sent = q->seq = 0;
    q->first = q->count = 0;
}

bool disk_queue_has_room(const struct disk_queue *q, size_t payload)
{
    return q->count < DISK_QUEUE_SLOTS &&
           q->reserved - q->sent + DISK_FRAME_SIZE + payload <= q->size;
}

struct disk_slot *disk_queue_reserve(struct disk_queue *q, size_t payload)
{
    assert(disk_queue_has_room(q, payload));
    /* An empty queue begins at the start again, so that a small queue touches few pages. */
    if (!q->count) q->reserved = q->sent = 0;
    struct disk_slot *slot = &q->slots[(q->first + q->count) % DISK_QUEUE_SLOTS];
    slot->start = q->reserved;
    q->reserved += DISK_FRAME_SIZE + payload;
    slot->end = q->reserved;
    slot->seq = q->seq++;
    slot->ready = false;
    slot->loan = NULL;
    q->count++;
    q->filling++;
    return slot;
}

static void copy_in(struct disk_queue *q, uint64_t at, const void *data, size_t size)
{
    size_t start = at % q->size;
    size_t first = size < q->size - start ? size : q->size - start;

    if (first) memcpy(q->ring + start, data, first);
    if (size > first) memcpy(q->ring, (const uint8_t *)data + first, size - first);
}

void disk_queue_fill(struct disk_queue *q, const struct disk_slot *slot,
                     const uint8_t head[DISK_FRAME_SIZE], const void *payload, size_t gone)
{
    uint64_t at = slot->start + gone, body = slot->start + DISK_FRAME_SIZE;

    if (at < body) {
        copy_in(q, at, head + gone, body - at);
        at = body;
    }
    if (at < slot->end) copy_in(q, at, (const uint8_t *)payload + (at - body), slot->end - at);
}

void disk_queue_ready(struct disk_queue *q, struct disk_slot *slot)
{
    slot->ready = true;
    q->filling--;
}

bool disk_queue_sendable(const struct disk_queue *q)
{
    return q->count && q->slots[q->first].ready;
}

void disk_queue_lend(struct disk_queue *q, struct disk_slot *slot, struct disk_loan *loan)
{
    loan->slot = slot;
    pthread_cond_init(&loan->turn, NULL);
    slot->loan = loan;
    q->lent++;
    disk_queue_ready(q, slot);
}

static void end_loan(struct disk_queue *q, struct disk_slot *slot)
{
    slot->loan->done = true;
    pthread_cond_signal(&slot->loan->turn);
    slot->loan = NULL;
    q->lent--;
}

size_t disk_queue_take_back(struct disk_queue *q, struct disk_loan *loan)
{
    struct disk_slot *slot = loan->slot;

    assert(!q->sending && slot->loan == loan);
    end_loan(q, slot);
    slot->ready = false;
    q->filling++;
    return q->sent > slot->start ? (size_t)(q->sent - slot->start) : 0;
}

bool disk_queue_in_use(const struct disk_queue *q)
{
    return q->filling || q->sending || q->lent;
}

static void add_piece(struct disk_batch *b, const void *at, size_t size)
{
    struct iovec *last = b->pieces ? &b->iov[b->pieces - 1] : NULL;

    if (!size) return;
    if (last && (uint8_t *)last->iov_base + last->iov_len == at)
        last->iov_len += size;
    else
        b->iov[b->pieces++] = (struct iovec){.iov_base = (void *)(uintptr_t)at, .iov_len = size};
}

/* The frame from `gone` on, at most two pieces. */
static void add_frame(const struct disk_queue *q, struct disk_batch *b,
                      const struct disk_slot *slot, size_t gone)
{
    size_t size = (size_t)(slot->end - slot->start), head = DISK_FRAME_SIZE;
    struct disk_loan *loan = slot->loan;

    if (loan) {
        b->loan[b->loans++] = loan;
        if (gone < head) add_piece(b, loan->head + gone, head - gone);
        size_t from = gone > head ? gone - head : 0;
        add_piece(b, (const uint8_t *)loan->payload + from, size - head - from);
    } else {
        size_t at = (slot->start + gone) % q->size;
        size_t first = size - gone < q->size - at ? size - gone : q->size - at;
        add_piece(b, q->ring + at, first);
        add_piece(b, q->ring, size - gone - first);
    }
}

void disk_queue_peek(const struct disk_queue *q, struct disk_batch *b, size_t max)
{
    uint64_t sent = q->sent;

    b->pieces = b->loans = 0;
    for (unsigned i = 0; i < q->count && sent - q->sent < max; i++) {
        const struct disk_slot *slot = &q->slots[(q->first + i) % DISK_QUEUE_SLOTS];
        if (!slot->ready || b->pieces + 2 > DISK_BATCH_PIECES) break;
        add_frame(q, b, slot, (size_t)(sent - slot->start));
        sent = slot->end;
    }
}

void disk_loan_seal(struct disk_loan *loan)
{
    if (loan->sealed) return;
    disk_frame_put(loan->head, &loan->frame, loan->payload);
    loan->sealed = true;
}

void disk_batch_seal(struct disk_batch *b)
{
    for (int i = 0; i < b->loans; i++)
        disk_loan_seal(b->loan[i]);
}

void disk_queue_sent(struct disk_queue *q, size_t size)
{
    q->sent += size;
    while (q->count) {
        struct disk_slot *slot = &q->slots[q->first];
        if (!slot->ready || slot->end > q->sent) break;
        if (slot->loan) end_loan(q, slot);
        q->first = (q->first + 1) % DISK_QUEUE_SLOTS;
        q->count--;
    }
}

void disk_queue_wait_turn(struct disk_queue *q, struct disk_loan *loan, pthread_mutex_t *lock)
{
    struct disk_loan **at = &q->turns;

    while (*at)
        at = &(*at)->next;
    loan->next = NULL;
    *at = loan;
    pthread_cond_wait(&loan->turn, lock);
    for (at = &q->turns; *at != loan;)
        at = &(*at)->next;
    *at = loan->next;
}

void disk_queue_pass_turn(struct disk_queue *q)
{
    if (q->turns && !q->sending) pthread_cond_signal(&q->turns->turn);
}
