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

bool disk_queue_in_use(const struct disk_queue *q)
{
    return q->filling || q->sending;
}

size_t disk_queue_peek(const struct disk_queue *q, struct iovec iov[2], size_t max)
{
    uint64_t end = q->sent;

    for (unsigned i = 0; i < q->count && end - q->sent < max; i++) {
        const struct disk_slot *slot = &q->slots[(q->first + i) % DISK_QUEUE_SLOTS];
        if (!slot->ready) break;
        end = slot->end;
    }
    size_t size = end - q->sent < max ? (size_t)(end - q->sent) : max;
    size_t start = q->size ? q->sent % q->size : 0;
    size_t first = size < q->size - start ? size : q->size - start;
    iov[0] = (struct iovec){.iov_base = q->ring + start, .iov_len = first};
    iov[1] = (struct iovec){.iov_base = q->ring, .iov_len = size - first};
    return size;
}

void disk_queue_sent(struct disk_queue *q, size_t size)
{
    q->sent += size;
    while (q->count && q->slots[q->first].ready && q->slots[q->first].end <= q->sent) {
        q->first = (q->first + 1) % DISK_QUEUE_SLOTS;
        q->count--;
    }
}
