/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The primary's end of a link.
 *
 *     link -> HELLO -> <- HELLO, BITMAP..., READY        linked
 *     sync -> CHECK, WRITE, ZERO ... BARRIER 0 <- SEALED 0     syncing, synced
 *     protect -> WRITE, ZERO of epoch 1 ...                    protected
 *     barrier n -> BARRIER n ... <- SEALED n;  commit n
 *
 * From the beginning of the synchronisation on each change of the guest goes to the link as well, so
 * what was compared once stays equal.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define SEND_MAX (1u << 20)
/* A payload of this size is sent from where it is; a smaller one is cheaper to copy. */
#define LEND_MIN (16u << 10)
/* With no other write beside it, so much is worth it to wake the sender, who sends it while it is written to our own disk. */
#define ASIDE_MIN (256u << 10)
/* Small writes that come faster than this are gathered: they leave when they are so much, or as old. */
#define GATHER_US 200
#define GATHER_MAX (256u << 10)
#define GATHER_MS 1
/* A socket says that it can be written only when most of it is free: a slow one is tried before. */
#define STALL_MS 100
/* What data leaves free in the queue, so that a barrier never waits. */
#define SPARE_OCTETS (16 * DISK_FRAME_SIZE)
#define SPARE_SLOTS 16

/* ---- queueing ---- */

static bool sends(const struct disk *d, const struct disk_link *l)
{
    return l && d->link == l && !l->dead &&
           (d->phase == DISK_SYNCING || d->phase == DISK_SYNCED || d->phase == DISK_PROTECTED);
}

static bool room_for(const struct disk *d, size_t payload)
{
    return d->queue.count < DISK_QUEUE_SLOTS - SPARE_SLOTS &&
           disk_queue_has_room(&d->queue, payload + SPARE_OCTETS);
}

static bool can_send(const struct disk *d)
{
    return !d->queue.sending && !d->stalled && disk_queue_sendable(&d->queue);
}

/* All that is queued shall leave; who sends just now sees to it, or the sender. */
static void push(struct disk *d)
{
    d->push = disk_queue_sendable(&d->queue);
    if (can_send(d)) pthread_cond_broadcast(&d->work);
}

/* Waits for room as long as the policy allows. */
static bool wait_room(struct disk *d, struct disk_link *l, size_t payload, struct timespec until)
{
    push(d); /* what is lent is not sent yet if our own disk is slow */
    while (sends(d, l) && !room_for(d, payload)) {
        if (!pthread_cond_timedwait(&d->room, &d->lock, &until)) continue;
        if (!sends(d, l) || room_for(d, payload)) break;
        if (!d->o.hold) {
            disk_link_lost(d, l, "the backup does not keep up: %" PRIu64 " octets waited %d ms",
                           d->queue.reserved - d->queue.sent, d->o.limit_ms);
            break;
        }
        disk_event(d, "slow %" PRIu64, d->queue.reserved - d->queue.sent);
        until = disk_deadline(d->o.limit_ms);
    }
    return sends(d, l);
}

/* Under the lock, which is given back for it: one write of what is queued, nobody else writes meanwhile. Octets or -errno. */
static ssize_t send_queued(struct disk *d, struct disk_link *l, size_t max)
{
    struct disk_batch batch;

    disk_queue_peek(&d->queue, &batch, max);
    d->queue.sending = true;
    pthread_mutex_unlock(&d->lock);
    disk_batch_seal(&batch);
    ssize_t n = disk_link_try(l, batch.iov, batch.pieces);
    pthread_mutex_lock(&d->lock);
    d->queue.sending = false;
    if (n > 0) disk_queue_sent(&d->queue, (size_t)n);
    pthread_cond_broadcast(&d->room);
    disk_queue_pass_turn(&d->queue);
    return n;
}

/* Whoever waits for the end of the link waits until the queue is left alone. */
static void leave_queue(struct disk *d)
{
    if (d->push && can_send(d)) pthread_cond_broadcast(&d->work);
    if (!disk_queue_in_use(&d->queue) && !sends(d, d->link)) pthread_cond_broadcast(&d->changed);
}

/* Under the lock. To wake the sender costs more than a short write: who queued does that write itself. What the link does not
 * take at once, and its errors, are left to the sender. */
static void help_sender(struct disk *d, struct disk_link *l)
{
    size_t left = SEND_MAX;

    while (left && sends(d, l) && can_send(d)) {
        ssize_t n = send_queued(d, l, left);
        if (n <= 0) break;
        left -= (size_t)n < left ? (size_t)n : left;
    }
    push(d);
    leave_queue(d);
}

/*
 * A frame with nothing before it goes to the link at once, from the caller's own memory, and only what the link does not take is
 * copied.
 */
static void queue_now(struct disk *d, struct disk_link *l, struct disk_frame *f,
                      const void *payload, bool gather)
{
    bool direct = !d->queue.count && !gather, apart = f->payload && !gather;
    struct disk_slot *slot = disk_queue_reserve(&d->queue, f->payload);
    uint8_t head[DISK_FRAME_SIZE];
    ssize_t gone = 0;

    f->epoch = d->epoch;
    if (apart) pthread_mutex_unlock(&d->lock);
    f->seq = slot->seq;
    disk_frame_put(head, f, payload);
    if (direct) {
        struct iovec iov[2] = {
            {.iov_base = head, .iov_len = sizeof(head)},
            {.iov_base = (void *)(uintptr_t)payload, .iov_len = f->payload},
        };
        gone = disk_link_try(l, iov, f->payload ? 2 : 1);
        if (gone < 0) gone = 0;
    }
    disk_queue_fill(&d->queue, slot, head, payload, (size_t)gone);
    if (apart) pthread_mutex_lock(&d->lock);
    disk_queue_ready(&d->queue, slot);
    if (gone) disk_queue_sent(&d->queue, (size_t)gone);
    if (direct) pthread_cond_broadcast(&d->room);
}

/* More like this one seem to come: it can wait for them. */
static bool gathers(struct disk *d, const struct disk_frame *f)
{
    if (f->type != DISK_WRITE || f->payload >= LEND_MIN) return false;
    d->gather_more = true;
    if (d->gathering) return true;
    int64_t before = d->small_us;
    d->small_us = disk_now_us();
    if (d->small_us - before > GATHER_US) return false;
    d->gathering = true;
    pthread_cond_broadcast(&d->work);
    return true;
}

/* There is room, and a link that takes it. */
static bool may_queue(struct disk *d, struct disk_link *l, size_t payload, struct timespec until)
{
    return (room_for(d, payload) || wait_room(d, l, payload, until)) && sends(d, l);
}

static bool queue_frame(struct disk *d, struct disk_link *l, struct disk_frame *f,
                        const void *payload, struct timespec until)
{
    if (!may_queue(d, l, f->payload, until)) return false;
    bool gather = gathers(d, f);
    queue_now(d, l, f, payload, gather);
    if (!gather || d->queue.reserved - d->queue.sent >= GATHER_MAX) help_sender(d, l);
    return sends(d, l);
}

bool disk_queue_frame(struct disk *d, struct disk_link *l, struct disk_frame *f,
                      const void *payload)
{
    return queue_frame(d, l, f, payload, disk_deadline(d->o.limit_ms));
}

/*
 * Up to the end of what is lent, which is in this core's cache. What is lent behind it is its owner's to send; what was copied, what
 * the link does not take, and its errors, are left to the sender.
 */
static ssize_t send_own(struct disk *d, struct disk_link *l, const struct disk_loan *loan)
{
    ssize_t n = 1;

    while (n > 0 && !loan->done && sends(d, l) && can_send(d))
        n = send_queued(d, l, (size_t)(loan->slot->end - d->queue.sent));
    leave_queue(d);
    return n;
}

static bool lend(struct disk *d, struct disk_link *l, const struct disk_frame *f,
                 const void *payload, struct timespec until, struct disk_loan *loan)
{
    if (!may_queue(d, l, f->payload, until)) return false;
    struct disk_slot *slot = disk_queue_reserve(&d->queue, f->payload);
    *loan = (struct disk_loan){.frame = *f, .payload = payload};
    loan->frame.epoch = d->epoch;
    loan->frame.seq = slot->seq;
    disk_queue_lend(&d->queue, slot, loan);
    if (f->payload >= ASIDE_MIN && d->ranges.first == d->ranges.last) {
        push(d);
        return true;
    }
    /* If somebody sends just now, our own disk is written meanwhile: the loan's end sends it then. */
    if (send_own(d, l, loan) <= 0) push(d);
    return true;
}

/* Under the lock, nobody is sending: the link does not take it now, a copy waits for it. */
static void take_back(struct disk *d, struct disk_loan *loan)
{
    size_t gone = disk_queue_take_back(&d->queue, loan);

    pthread_mutex_unlock(&d->lock);
    disk_loan_seal(loan);
    disk_queue_fill(&d->queue, loan->slot, loan->head, loan->payload, gone);
    pthread_mutex_lock(&d->lock);
    disk_queue_ready(&d->queue, loan->slot);
    push(d);
}

void disk_loan_end(struct disk *d, struct disk_loan *loan)
{
    struct disk_link *l = d->link; /* stays as long as something is lent */

    if (loan->done) return;
    while (!loan->done) {
        if (d->queue.sending) {
            disk_queue_wait_turn(&d->queue, loan, &d->lock);
            continue;
        }
        (void)send_own(d, l, loan);
        if (!loan->done) take_back(d, loan);
    }
    disk_queue_pass_turn(&d->queue);
    leave_queue(d);
}

void disk_replicate(struct disk *d, const void *payload, uint64_t size, uint64_t offset, bool trim,
                    struct timespec until, struct disk_loan *loan)
{
    const uint8_t *p = payload;
    struct disk_frame f = {.type = DISK_ZERO, .flags = trim ? DISK_FLAG_TRIM : 0};
    struct disk_link *l = d->link;

    disk_bitmap_set(&d->bitmap, offset, size);
    while (size && sends(d, l)) {
        uint64_t n = payload && size > DISK_PAYLOAD_MAX ? DISK_PAYLOAD_MAX : size;
        f.offset = offset;
        f.span = n;
        if (payload) {
            f.type = DISK_WRITE;
            f.payload = (uint32_t)n;
        }
        bool ok = loan && n == size && n >= LEND_MIN ? lend(d, l, &f, p, until, loan)
                                                     : queue_frame(d, l, &f, p, until);
        /* The wait may have carried it into the next epoch, where it belongs now. So it does if the link has ended: the commit
         * of the last epoch may still come. */
        disk_bitmap_set(&d->bitmap, offset, size);
        if (!ok) break;
        offset += n;
        size -= n;
        if (payload) p += n;
    }
}

/* ---- requests ---- */

int disk_protect(struct disk *d, char why[DISK_TEXT_MAX])
{
    struct disk_state fresh;
    int r = -EINVAL;

    if (d->shared) return disk_shared_protect(d, why);
    pthread_mutex_lock(&d->lock);
    fresh = d->state;
    if (!d->primary || d->phase != DISK_SYNCED) {
        snprintf(why, DISK_TEXT_MAX, "protect: the disks are not synchronised");
    } else {
        fresh.secured = true;
        r = disk_change_state(d, &fresh);
        if (r) snprintf(why, DISK_TEXT_MAX, "protect: state not written: %s", strerror(-r));
    }
    if (!r) {
        d->phase = DISK_PROTECTED;
        d->epoch = 1;
        d->closed = d->committed = 0;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

int disk_barrier(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    struct disk_frame f = {.type = DISK_BARRIER};
    int r = -EINVAL;

    if (d->shared) return disk_shared_barrier(d, n, why);
    pthread_mutex_lock(&d->lock);
    if (!d->primary || d->phase != DISK_PROTECTED)
        snprintf(why, DISK_TEXT_MAX, "barrier: not protected");
    else if (n <= d->closed || n < d->epoch || n == UINT64_MAX)
        snprintf(why, DISK_TEXT_MAX, "barrier: %" PRIu64 " does not come after %" PRIu64, n,
                 d->closed);
    else if (!disk_queue_has_room(&d->queue, 0)) {
        disk_link_lost(d, d->link, "no room for a barrier");
        snprintf(why, DISK_TEXT_MAX, "barrier: no room");
    } else
        r = 0;
    if (!r) {
        d->epoch = n;
        queue_now(d, d->link, &f, NULL, false);
        d->closed = n;
        d->epoch = n + 1;
        disk_bitmap_close_epoch(&d->bitmap);
        /* The guest stands still: what else is queued is sent by the sender. */
        push(d);
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* Changes in flight may be at the backup already but not on our disk: their bits must stay. */
static void keep_in_flight(struct disk *d)
{
    for (struct disk_range *r = d->ranges.first; r; r = r->next)
        disk_bitmap_set(&d->bitmap, r->start, r->end - r->start);
}

static int primary_commit(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    if (n > d->closed || n < d->committed) {
        snprintf(why, DISK_TEXT_MAX,
                 "commit: %" PRIu64 " is not between the last commit %" PRIu64
                 " and the last barrier %" PRIu64,
                 n, d->committed, d->closed);
        return -EINVAL;
    }
    d->committed = n;
    /* A later barrier has merged its bits with ours: they are cleared together. */
    if (n < d->closed) return 0;
    keep_in_flight(d);
    disk_bitmap_commit(&d->bitmap);
    return 0;
}

static int backup_commit(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    int r;

    if (n == d->journal.committed && n) return 0;
    if (!disk_journal_find(&d->journal, n) || n < d->journal.committed) {
        snprintf(why, DISK_TEXT_MAX,
                 "commit: epoch %" PRIu64 " is not here (sealed %" PRIu64 ", committed %" PRIu64
                 ")",
                 n, d->journal.sealed, d->journal.committed);
        return -EINVAL;
    }
    r = disk_journal_commit(&d->journal, n);
    if (r)
        snprintf(why, DISK_TEXT_MAX, "commit: journal: %s", strerror(-r));
    else
        pthread_cond_broadcast(&d->work);
    return r;
}

int disk_commit(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    pthread_mutex_lock(&d->lock);
    int r = d->shared    ? disk_shared_commit(d, n, why)
            : d->primary ? primary_commit(d, n, why)
                         : backup_commit(d, n, why);
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* Under the lock. */
static int leave_alone(struct disk *d, char why[DISK_TEXT_MAX])
{
    struct disk_state fresh = d->state;
    int r = 0;

    d->phase = DISK_ALONE;
    fresh.secured = false;
    if (d->state.secured) r = disk_change_state(d, &fresh);
    if (r) snprintf(why, DISK_TEXT_MAX, "unprotect: state not written: %s", strerror(-r));
    return r;
}

int disk_unprotect(struct disk *d, char why[DISK_TEXT_MAX])
{
    int r = -EINVAL;

    pthread_mutex_lock(&d->lock);
    if (!d->primary) {
        snprintf(why, DISK_TEXT_MAX, "unprotect: this is a backup");
    } else {
        if (d->link) disk_link_lost(d, d->link, "unprotected");
        if (!disk_wait_unlinked(d, d->o.limit_ms)) disk_log("%s: the link lingers", d->o.path);
        r = d->shared ? disk_shared_unprotect(d, why) : leave_alone(d, why);
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* ---- the link's threads ---- */

/* What was gathered leaves each time, and nothing is gathered any more once nothing comes. */
static void gather(struct disk *d, struct disk_link *l)
{
    struct timespec until = disk_deadline(GATHER_MS);

    while (!(d->push && can_send(d)) && !l->dead)
        if (pthread_cond_timedwait(&d->work, &d->lock, &until) == ETIMEDOUT) break;
    d->gathering = d->gather_more;
    d->gather_more = false;
    d->push = true;
}

/* Under the lock, which is given back: until the link may take something. *since: when it took something last, 0 if it is not known. */
static int wait_stalled(struct disk *d, struct disk_link *l, int64_t *since)
{
    int64_t left = d->o.limit_ms;

    if (!*since) *since = disk_now_ms();
    if (!d->o.hold) left += *since - disk_now_ms();
    if (left <= 0) return -ETIMEDOUT;
    d->stalled = true;
    pthread_mutex_unlock(&d->lock);
    int r = disk_link_wait(l, left < STALL_MS ? (int)left : STALL_MS);
    pthread_mutex_lock(&d->lock);
    d->stalled = false;
    d->push = true;
    return r == -ETIMEDOUT ? 0 : r;
}

static void *sender(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    int64_t since = 0;

    pthread_mutex_lock(&d->lock);
    while (!l->dead) {
        if (!disk_queue_sendable(&d->queue)) d->push = false;
        if (!can_send(d) || (d->gathering && !d->push)) {
            /* Others may send meanwhile: when the link took something last is not known any more. */
            since = 0;
            if (d->gathering)
                gather(d, l);
            else
                pthread_cond_wait(&d->work, &d->lock);
            continue;
        }
        ssize_t n = send_queued(d, l, SEND_MAX);
        if (n == -EAGAIN)
            n = wait_stalled(d, l, &since);
        else
            since = 0;
        if (n == -ETIMEDOUT)
            disk_link_lost(d, l, "the backup takes nothing for %d ms", d->o.limit_ms);
        else if (n < 0)
            disk_link_lost(d, l, "%s", disk_link_error((int)n));
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* Both must have seen the same disk. */
static bool hello_fits(struct disk *d, struct disk_link *l)
{
    const struct disk_hello *h = &l->peer;

    if (h->shared)
        disk_link_lost(d, l, "the backup's disk is started as shared storage, this one is not");
    else if (h->primary)
        disk_link_lost(d, l, "the other side is a primary, too (generation %" PRIu64 ")",
                       h->generation);
    else if (h->size != d->store.size)
        disk_link_lost(d, l, "the disks differ in size: %" PRIu64 " here, %" PRIu64 " there",
                       d->store.size, h->size);
    else if (h->generation > d->state.generation)
        disk_link_lost(d, l,
                       "the backup is newer (generation %" PRIu64 ", here %" PRIu64
                       "): this disk is stale",
                       h->generation, d->state.generation);
    else if (!disk_id_none(h->uuid) && memcmp(h->uuid, d->state.uuid, 16))
        disk_link_lost(d, l,
                       "the backup's disk is the twin of another disk: xentwin-disk reset there");
    else if (h->resume && (disk_id_none(h->base) || memcmp(h->base, d->state.base, 16)))
        disk_link_lost(d, l, "the backup wants to resume what never was");
    else
        return true;
    return false;
}

static int say_hello(struct disk *d, struct disk_link *l)
{
    struct disk_frame f = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    struct disk_hello h = {.version = DISK_LINK_VERSION, .primary = true};
    uint8_t raw[DISK_HELLO_SIZE];
    struct disk_state fresh;
    int r = 0;

    pthread_mutex_lock(&d->lock);
    if (disk_id_none(d->state.uuid)) {
        fresh = d->state;
        r = disk_random(fresh.uuid, 16);
        if (!fresh.generation) fresh.generation = 1;
        if (!r) r = disk_change_state(d, &fresh);
    }
    h.size = d->store.size;
    h.generation = d->state.generation;
    memcpy(h.uuid, d->state.uuid, 16);
    memcpy(h.base, d->state.base, 16);
    pthread_mutex_unlock(&d->lock);
    disk_hello_put(raw, &h);
    return r ? r : disk_link_send(l, &f, raw, DISK_HANDSHAKE_MS);
}

static void sealed(struct disk *d, struct disk_link *l, uint64_t n)
{
    struct disk_state fresh = d->state;
    int r;

    if (n > d->closed || (n == 0 && !l->barrier0_sent)) {
        disk_link_lost(d, l, "the backup sealed epoch %" PRIu64 " that was never closed", n);
        return;
    }
    if (n) {
        disk_event(d, "barrier %" PRIu64, n);
        return;
    }
    if (d->phase != DISK_SYNCING) return;
    memcpy(fresh.base, l->base, 16);
    r = disk_change_state(d, &fresh);
    if (r) {
        disk_link_lost(d, l, "state not written: %s", strerror(-r));
        return;
    }
    keep_in_flight(d);
    disk_bitmap_synced(&d->bitmap);
    d->phase = DISK_SYNCED;
    d->sync_done = d->sync_total;
    disk_event(d, "synced");
}

static void peer_error(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    int n = f->payload < 200 ? (int)f->payload : 200;

    for (int i = 0; i < n; i++)
        if (l->payload[i] < 32 || l->payload[i] > 126) l->payload[i] = '?';
    disk_link_lost(d, l, "the backup says: %.*s", n, (const char *)l->payload);
}

static void ready(struct disk *d, struct disk_link *l)
{
    /* What is still copied into the queue belongs to the link before. */
    while (disk_queue_in_use(&d->queue))
        pthread_cond_wait(&d->changed, &d->lock);
    l->handshaken = true;
    d->epoch = d->closed = d->committed = 0;
    l->by_bitmap = l->peer.resume;
    d->phase = DISK_LINKED;
    d->sync_done = 0;
    d->sync_total = l->by_bitmap ? disk_bitmap_dirty_bytes(&d->bitmap) : d->store.size;
    disk_queue_reset(&d->queue);
    d->queue.seq = 1; /* the HELLO was 0 */
    disk_event(d, "linked %s %" PRIu64, l->by_bitmap ? "bitmap" : "full", d->sync_total);
    pthread_cond_broadcast(&d->work);
    pthread_cond_broadcast(&d->changed);
}

static void got_frame(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    bool ok = true;

    if (f->type == DISK_ERROR)
        peer_error(d, l, f);
    else if (!l->handshaken && l->rx_seq == 1)
        ok = f->type == DISK_HELLO && !disk_hello_get(&l->peer, l->payload, f->payload) &&
             hello_fits(d, l);
    else if (f->type == DISK_BITMAP && !l->handshaken)
        ok = l->peer.resume && disk_bitmap_merge(&d->bitmap, f->offset, l->payload, f->payload);
    else if (f->type == DISK_READY && !l->handshaken)
        ready(d, l);
    else if (f->type == DISK_DIFF)
        ok = disk_sync_answer(l, f);
    else if (f->type == DISK_SEALED && l->handshaken)
        sealed(d, l, f->epoch);
    else
        ok = f->type == DISK_ALIVE && l->handshaken;
    if (!ok) disk_link_lost(d, l, "the backup sent frame %u out of turn", f->type);
}

static bool start_helpers(struct disk *d, struct disk_link *l)
{
    if (pthread_create(&l->sender, NULL, sender, l)) return false;
    if (pthread_create(&l->syncer, NULL, disk_syncer, l)) {
        disk_link_lost(d, l, "no thread");
        pthread_mutex_unlock(&d->lock);
        pthread_join(l->sender, NULL);
        pthread_mutex_lock(&d->lock);
        return false;
    }
    l->helpers = true;
    return true;
}

void *disk_primary_link(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    struct disk_frame f;
    int r;

    r = say_hello(d, l);
    pthread_mutex_lock(&d->lock);
    if (r) disk_link_lost(d, l, "%s", disk_link_error(r));
    while (!l->dead) {
        int limit_ms = l->handshaken ? d->o.limit_ms : DISK_HANDSHAKE_MS;
        pthread_mutex_unlock(&d->lock);
        r = disk_link_read(l, &f, limit_ms);
        pthread_mutex_lock(&d->lock);
        if (r)
            disk_link_lost(d, l, "%s", disk_link_error(r));
        else if (!l->dead)
            got_frame(d, l, &f);
        if (!l->dead && l->handshaken && !l->helpers && !start_helpers(d, l))
            disk_link_lost(d, l, "no thread");
    }
    pthread_mutex_unlock(&d->lock);
    if (l->helpers) {
        pthread_join(l->sender, NULL);
        pthread_join(l->syncer, NULL);
    }
    pthread_mutex_lock(&d->lock);
    /* Somebody may be writing to the link. */
    while (disk_queue_in_use(&d->queue))
        pthread_cond_wait(&d->changed, &d->lock);
    disk_link_over(d, l);
    return NULL;
}
