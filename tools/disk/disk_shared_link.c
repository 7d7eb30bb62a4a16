/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The primary's end of a link, for a shared disk.
 *
 *     link -> HELLO with the token in our claim -> <- HELLO with what the backup read    linked
 *     sync -> CHECK of some extents <- DIFF; BARRIER 0 <- SEALED 0                synced
 *     protect, barrier n -> seal, flush the journal, BARRIER n <- SEALED n        protected
 *
 *        link thread   reads
 *        sender        asks for the lease
 *        syncer        compares, then flushes sealed epochs and tells of them
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define SAMPLES 64
#define SAMPLES_FULL 16 /* so many that are not empty are enough */
#define SEAL_PAYLOAD 24

/* ---- requests ---- */

/* Under the lock: from now on changes go to the journal, and what went to the disk is on its medium. */
static int begin_journaling(struct disk *d)
{
    struct disk_shared *s = d->shared;
    int r;

    r = disk_journal_reset(&d->journal);
    if (!r) r = disk_shared_claim(d, DISK_CLAIM_PROTECTED);
    if (r) return r;
    s->journaling = true;
    s->announced = 0;
    d->phase = DISK_PROTECTED;
    d->epoch = 1;
    d->closed = d->committed = 0;
    while (s->direct)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
    r = disk_store_flush(&d->store);
    pthread_mutex_lock(&d->lock);
    s->leased = true;
    return r;
}

int disk_shared_protect(struct disk *d, char why[DISK_TEXT_MAX])
{
    int r = -EINVAL;

    pthread_mutex_lock(&d->lock);
    if (!d->primary || d->phase != DISK_SYNCED || !d->link)
        snprintf(why, DISK_TEXT_MAX, "protect: the disks are not synchronised");
    else {
        r = begin_journaling(d);
        if (r && d->link) disk_link_lost(d, d->link, "not protected: %s", strerror(-r));
        if (r) snprintf(why, DISK_TEXT_MAX, "protect: disk or journal: %s", strerror(-r));
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* Under the lock. */
static int seal(struct disk *d, uint64_t n)
{
    uint64_t head = 0;

    disk_shared_append_begin(d);
    pthread_mutex_unlock(&d->lock);
    int r = disk_journal_append_seal(&d->journal, n, &head);
    pthread_mutex_lock(&d->lock);
    if (!r) {
        disk_journal_publish_seal(&d->journal, n, head);
        d->closed = n;
        d->epoch = n + 1;
        pthread_cond_broadcast(&d->work);
    }
    disk_shared_append_end(d);
    return r;
}

int disk_shared_barrier(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    int r = -EINVAL;

    pthread_mutex_lock(&d->lock);
    if (!d->primary || d->phase != DISK_PROTECTED || !d->link)
        snprintf(why, DISK_TEXT_MAX, "barrier: not protected");
    else if (n <= d->closed || n < d->epoch || n == UINT64_MAX)
        snprintf(why, DISK_TEXT_MAX, "barrier: %" PRIu64 " does not come after %" PRIu64, n,
                 d->closed);
    else if (!disk_journal_can_seal(&d->journal)) {
        disk_link_lost(d, d->link, "too many epochs wait for their commit");
        snprintf(why, DISK_TEXT_MAX, "barrier: too many epochs wait for their commit");
    } else {
        r = seal(d, n);
        if (r) snprintf(why, DISK_TEXT_MAX, "barrier: the shared journal: %s", strerror(-r));
        if (r && d->link) disk_link_lost(d, d->link, "the shared journal failed: %s", strerror(-r));
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

int disk_shared_commit(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    uint64_t sealed = d->primary ? d->closed : d->journal.sealed;
    uint64_t *committed = d->primary ? &d->committed : &d->journal.committed;

    if (n > sealed || n < *committed) {
        snprintf(why, DISK_TEXT_MAX,
                 "commit: %" PRIu64 " is not between the last commit %" PRIu64
                 " and the last barrier %" PRIu64,
                 n, *committed, sealed);
        return -EINVAL;
    }
    *committed = n;
    /* The backup has nothing to apply. */
    if (!d->primary) d->journal.applied = n;
    pthread_cond_broadcast(&d->work);
    return 0;
}

/* ---- sending ---- */

static int send_frame(struct disk *d, struct disk_link *l, struct disk_frame *f,
                      const void *payload)
{
    return disk_link_send(l, f, payload, d->o.limit_ms);
}

/* A frame takes no lock while it is sent. */
static void send_or_lose(struct disk *d, struct disk_link *l, struct disk_frame *f,
                         const void *payload)
{
    pthread_mutex_unlock(&d->lock);
    int r = send_frame(d, l, f, payload);
    pthread_mutex_lock(&d->lock);
    if (r) disk_link_lost(d, l, "%s", disk_link_error(r));
}

static void *lease_asker(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    int r = 0;

    while (!r) {
        struct disk_frame f = {.type = DISK_LEASE, .span = DISK_LEASE_MS};
        pthread_mutex_lock(&d->lock);
        d->shared->lease_asked_ms = disk_shared_now_ms();
        f.offset = (uint64_t)d->shared->lease_asked_ms;
        pthread_mutex_unlock(&d->lock);
        r = send_frame(d, l, &f, NULL);
        if (!r) r = disk_link_sleep(l, DISK_LEASE_EVERY_MS);
    }
    if (r == -ECANCELED) return NULL;
    pthread_mutex_lock(&d->lock);
    disk_link_lost(d, l, "%s", disk_link_error(r));
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- the proof that both see the same disk ---- */

/* Under the lock: compares an extent while nobody changes it. */
static void compare(struct disk *d, struct disk_link *l, uint64_t offset, const uint8_t *buf,
                    uint64_t span)
{
    struct disk_frame f = {.type = DISK_CHECK, .offset = offset, .span = span, .payload = 8};
    struct disk_check *c = &l->checks[0];
    uint8_t hash[8];

    disk_put64(hash, XXH3_64bits(buf, span));
    *c = (struct disk_check){.offset = offset, .span = span};
    l->first_check = 0;
    l->check_count = 1;
    send_or_lose(d, l, &f, hash);
    while (!l->dead && !c->answered)
        pthread_cond_wait(&d->work, &d->lock);
    l->check_count = 0;
    if (!l->dead && c->differs[0])
        disk_link_lost(d, l, "not the same storage: %s differs at %" PRIu64, d->o.path, offset);
}

static bool all_zero(const uint8_t *p, uint64_t size)
{
    return !p[0] && !memcmp(p, p + 1, size - 1);
}

/* Under the lock. True: it was compared, and is not empty. */
static bool sample(struct disk *d, struct disk_link *l, uint8_t *buf, uint64_t offset)
{
    uint64_t span = d->store.size - offset;
    struct disk_range range;

    if (span > DISK_EXTENT_SIZE) span = DISK_EXTENT_SIZE;
    disk_range_take(&d->ranges, &range, offset, span, &d->lock);
    pthread_mutex_unlock(&d->lock);
    int r = disk_store_read(&d->store, buf, span, offset);
    pthread_mutex_lock(&d->lock);
    bool empty = r || all_zero(buf, span);
    if (r)
        disk_link_lost(d, l, "the primary's own disk failed at %" PRIu64 ": %s", offset,
                       strerror(-r));
    else if (!empty || offset == 0)
        compare(d, l, offset, buf, span);
    disk_range_release(&d->ranges, &range);
    return !empty;
}

/* The first extents, where partition table and file system have their names, and some all over. */
static void compare_samples(struct disk *d, struct disk_link *l, uint8_t *buf)
{
    uint64_t extents = (d->store.size + DISK_EXTENT_SIZE - 1) / DISK_EXTENT_SIZE;
    unsigned full = 0;

    for (uint64_t i = 0; i < SAMPLES && i < extents && full < SAMPLES_FULL && !l->dead; i++) {
        uint64_t n = i < 8 || extents <= SAMPLES ? i : extents / SAMPLES * i;
        full += sample(d, l, buf, n << DISK_EXTENT_SHIFT);
    }
    if (!full && !l->dead)
        disk_log("%s: the disk is empty: only its journal shows that both hosts see the same",
                 d->o.path);
}

/* ---- barriers ---- */

static void tell_barrier(struct disk *d, struct disk_link *l, const struct disk_seal *s)
{
    struct disk_frame f = {.type = DISK_BARRIER, .epoch = s->epoch, .payload = SEAL_PAYLOAD};
    uint8_t payload[SEAL_PAYLOAD];

    disk_put64(payload, s->end - DISK_RECORD_SIZE);
    disk_put64(payload + 8, d->journal.session);
    disk_put64(payload + 16, d->journal.limit);
    send_or_lose(d, l, &f, payload);
}

/* Under the lock: puts what is sealed on the medium, then tells of it. */
static void flush_sealed(struct disk *d, struct disk_link *l)
{
    struct disk_seal seals[DISK_SEALS_MAX];
    unsigned n = d->journal.seal_count;

    memcpy(seals, d->journal.seals, n * sizeof(*seals));
    pthread_mutex_unlock(&d->lock);
    /* An error is told once for each open file: on that of the journal a flush of the guest may have taken it. */
    int r = fdatasync(d->shared->head.fd) ? -errno : 0;
    pthread_mutex_lock(&d->lock);
    if (r) disk_link_lost(d, l, "the shared journal failed: %s", strerror(-r));
    for (unsigned i = 0; i < n && !l->dead; i++) {
        if (seals[i].epoch <= d->shared->announced) continue;
        d->shared->announced = seals[i].epoch;
        tell_barrier(d, l, &seals[i]);
    }
}

static void *syncer(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    struct disk_frame f = {.type = DISK_BARRIER, .payload = 16};
    void *buf = NULL;

    pthread_mutex_lock(&d->lock);
    while (!l->dead && !l->sync_asked)
        pthread_cond_wait(&d->work, &d->lock);
    if (posix_memalign(&buf, 4096, DISK_EXTENT_SIZE)) disk_link_lost(d, l, "no memory");
    if (!l->dead) {
        d->phase = DISK_SYNCING;
        compare_samples(d, l, buf);
        d->sync_done = d->sync_total;
    }
    if (!l->dead) {
        l->barrier0_sent = true;
        send_or_lose(d, l, &f, d->shared->own.token);
    }
    while (!l->dead) {
        if (d->phase == DISK_PROTECTED && d->journal.sealed > d->shared->announced)
            flush_sealed(d, l);
        else
            pthread_cond_wait(&d->work, &d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    free(buf);
    return NULL;
}

/* ---- the link's thread ---- */

static bool hello_fits(struct disk *d, struct disk_link *l)
{
    const struct disk_hello *h = &l->peer;

    if (h->primary || !h->shared)
        disk_link_lost(d, l, "the other side is no backup of a shared disk");
    else if (h->size != d->store.size)
        disk_link_lost(d, l, "not the same storage: %" PRIu64 " octets here, %" PRIu64 " there",
                       d->store.size, h->size);
    else if (memcmp(h->base, d->shared->own.token, 16))
        disk_link_lost(d, l, "not the same storage: the backup reads another journal");
    else
        return true;
    return false;
}

/* Under the lock. The token is on the medium before it is on the link. */
static void say_hello(struct disk *d, struct disk_link *l)
{
    struct disk_frame f = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    struct disk_hello h = {.version = DISK_LINK_VERSION, .primary = true, .shared = true};
    uint8_t raw[DISK_HELLO_SIZE];
    int r = disk_shared_check_owner(d);

    if (!r) r = disk_random(d->shared->own.token, 16);
    if (!r) r = disk_shared_claim(d, d->shared->own.state);
    if (r) {
        disk_link_lost(d, l, "the shared journal failed: %s", strerror(-r));
        return;
    }
    h.size = d->store.size;
    h.generation = d->shared->own.generation;
    memcpy(h.uuid, d->shared->own.uuid, 16);
    memcpy(h.base, d->shared->own.token, 16);
    disk_hello_put(raw, &h);
    send_or_lose(d, l, &f, raw);
}

static void linked(struct disk *d, struct disk_link *l)
{
    l->handshaken = true;
    d->phase = DISK_LINKED;
    d->epoch = d->closed = d->committed = 0;
    d->sync_done = 0;
    d->sync_total = SAMPLES * DISK_EXTENT_SIZE;
    if (d->sync_total > d->store.size) d->sync_total = d->store.size;
    disk_event(d, "linked full %" PRIu64, d->sync_total);
    pthread_cond_broadcast(&d->changed);
}

static void sealed(struct disk *d, struct disk_link *l, uint64_t n)
{
    if (n > d->shared->announced || (n == 0 && !l->barrier0_sent))
        disk_link_lost(d, l, "the backup sealed epoch %" PRIu64 " that it was not told of", n);
    else if (n)
        disk_event(d, "barrier %" PRIu64, n);
    else if (d->phase == DISK_SYNCING) {
        d->phase = DISK_SYNCED;
        disk_event(d, "synced");
    }
}

static bool leased(struct disk *d, const struct disk_frame *f)
{
    struct disk_shared *s = d->shared;

    if (f->span != DISK_LEASE_MS || f->offset > (uint64_t)s->lease_asked_ms) return false;
    if ((int64_t)f->offset + DISK_LEASE_MS > s->lease_until_ms)
        s->lease_until_ms = (int64_t)f->offset + DISK_LEASE_MS;
    pthread_cond_broadcast(&d->room);
    pthread_cond_broadcast(&d->work);
    return true;
}

static void peer_error(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    int n = f->payload < 200 ? (int)f->payload : 200;

    for (int i = 0; i < n; i++)
        if (l->payload[i] < 32 || l->payload[i] > 126) l->payload[i] = '?';
    disk_link_lost(d, l, "the backup says: %.*s", n, (const char *)l->payload);
}

static void got_frame(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    bool ok = l->handshaken;

    if (f->type == DISK_ERROR)
        peer_error(d, l, f);
    else if (!l->handshaken) {
        ok = f->type == DISK_HELLO && !disk_hello_get(&l->peer, l->payload, f->payload);
        if (ok && hello_fits(d, l)) linked(d, l);
    } else if (f->type == DISK_DIFF)
        ok = disk_sync_answer(l, f);
    else if (f->type == DISK_SEALED)
        sealed(d, l, f->epoch);
    else
        ok = f->type == DISK_LEASE && leased(d, f);
    if (!ok && !l->dead) disk_link_lost(d, l, "the backup sent frame %u out of turn", f->type);
}

static void start_helpers(struct disk *d, struct disk_link *l)
{
    bool asks = !pthread_create(&l->sender, NULL, lease_asker, l);

    l->helpers = asks && !pthread_create(&l->syncer, NULL, syncer, l);
    if (l->helpers) return;
    disk_link_lost(d, l, "no thread");
    pthread_mutex_unlock(&d->lock);
    if (asks) pthread_join(l->sender, NULL);
    pthread_mutex_lock(&d->lock);
}

void *disk_shared_primary_link(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    struct disk_frame f;

    pthread_mutex_lock(&d->lock);
    say_hello(d, l);
    while (!l->dead) {
        int limit_ms = l->handshaken ? d->o.limit_ms : DISK_HANDSHAKE_MS;
        pthread_mutex_unlock(&d->lock);
        int r = disk_link_read(l, &f, limit_ms);
        pthread_mutex_lock(&d->lock);
        if (r)
            disk_link_lost(d, l, "%s", disk_link_error(r));
        else if (!l->dead)
            got_frame(d, l, &f);
        if (!l->dead && l->handshaken && !l->helpers) start_helpers(d, l);
    }
    pthread_mutex_unlock(&d->lock);
    if (l->helpers) {
        pthread_join(l->sender, NULL);
        pthread_join(l->syncer, NULL);
    }
    pthread_mutex_lock(&d->lock);
    disk_link_over(d, l);
    return NULL;
}
