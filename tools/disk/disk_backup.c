/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup's end of a link.
 *
 * What belongs to epoch 0 goes straight to the disk, which is inconsistent meanwhile; what belongs to
 * later epochs goes to the journal. The link is worked off in its order by one thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_roles.h"
#include "disk_util.h"

#define BITMAP_PIECE 65536

/* Takes no lock of the disk's: however long that is busy, we are alive. */
static void *ticker(void *arg)
{
    struct disk_link *l = arg;
    struct disk_frame f = {.type = DISK_ALIVE};
    int r;

    do {
        r = disk_link_send(l, &f, NULL, l->disk->o.limit_ms);
        if (!r) r = disk_link_sleep(l, DISK_ALIVE_MS);
    } while (!r);
    if (r == -ECANCELED) return NULL;
    pthread_mutex_lock(&l->disk->lock);
    disk_link_lost(l->disk, l, "%s", disk_link_error(r));
    pthread_mutex_unlock(&l->disk->lock);
    return NULL;
}

/* ---- handshake ---- */

static bool hello_fits(struct disk *d, struct disk_link *l)
{
    const struct disk_hello *h = &l->peer;
    const struct disk_state *s = &d->state;
    bool ours = !disk_id_none(s->uuid);

    if (!h->primary)
        disk_link_refuse(d, l, "the other side is no primary");
    else if (h->shared)
        disk_link_refuse(d, l,
                         "the primary's disk is shared storage, this one was started as a copy");
    else if (h->size != d->store.size)
        disk_link_refuse(d, l, "the disks differ in size: %" PRIu64 " here, %" PRIu64 " there",
                         d->store.size, h->size);
    else if (ours && memcmp(h->uuid, s->uuid, 16))
        disk_link_refuse(d, l, "%s is the twin of another disk: xentwin-disk reset on this host",
                         d->o.path);
    else if (ours && h->generation < s->generation)
        disk_link_refuse(d, l,
                         "the backup is newer (generation %" PRIu64 ", the primary's is %" PRIu64
                         "): the primary's disk is stale",
                         s->generation, h->generation);
    else if (ours && s->primary && h->generation == s->generation)
        disk_link_refuse(d, l, "both sides are primaries of generation %" PRIu64, h->generation);
    else
        return true;
    return false;
}

static void send_bitmap(struct disk *d, struct disk_link *l)
{
    size_t step = BITMAP_PIECE / 8;

    for (size_t i = 0; i < d->bitmap.count && !l->dead; i += step) {
        size_t n = d->bitmap.count - i < step ? d->bitmap.count - i : step;
        struct disk_frame f = {.type = DISK_BITMAP, .offset = i, .payload = (uint32_t)(n * 8)};
        disk_link_answer(d, l, &f, d->bitmap.dirty.words + i);
    }
}

static void hello(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    struct disk_hello h = {.version = DISK_LINK_VERSION, .size = d->store.size};
    uint8_t raw[DISK_HELLO_SIZE];
    int r;

    if (f->type != DISK_HELLO || disk_hello_get(&l->peer, l->payload, f->payload)) {
        disk_link_refuse(d, l, "the other side speaks another protocol");
        return;
    }
    if (!hello_fits(d, l)) return;
    /* What the last link left: committed epochs are kept, others are nobody's. */
    r = disk_wait_applied(d);
    if (!r && !l->dead) r = disk_journal_reset(&d->journal);
    if (r) {
        disk_link_refuse(d, l, "the backup's disk or journal failed: %s", strerror(-r));
        return;
    }
    h.generation = d->state.generation;
    memcpy(h.uuid, d->state.uuid, 16);
    memcpy(h.base, d->state.base, 16);
    h.resume = !disk_id_none(h.base) && !memcmp(h.base, l->peer.base, 16);
    disk_hello_put(raw, &h);
    disk_link_answer(d, l, &back, raw);
    if (h.resume) send_bitmap(d, l);
    back = (struct disk_frame){.type = DISK_READY};
    disk_link_answer(d, l, &back, NULL);
    if (l->dead) return;
    l->handshaken = true;
    d->phase = DISK_LINKED;
    disk_event(d, "linked %s", h.resume ? "bitmap" : "full");
    l->helpers = !pthread_create(&l->ticker, NULL, ticker, l);
    if (!l->helpers) disk_link_refuse(d, l, "no thread");
}

/* ---- epoch 0: straight to the disk ---- */

/* The disk is about to become a mixture; from now on it is a backup's. */
static int begin_mixture(struct disk *d, struct disk_link *l)
{
    struct disk_state fresh = d->state;

    if (d->phase == DISK_SYNCING) return 0;
    d->phase = DISK_SYNCING;
    if (fresh.inconsistent && !fresh.primary && !disk_id_none(fresh.uuid)) return 0;
    fresh.inconsistent = true;
    fresh.primary = fresh.secured = false;
    memcpy(fresh.uuid, l->peer.uuid, 16);
    return disk_change_state(d, &fresh);
}

static int change_disk(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    if (f->type == DISK_WRITE) return disk_store_write(&d->store, l->payload, f->span, f->offset);
    return disk_store_zero(&d->store, f->span, f->offset, f->flags & DISK_FLAG_TRIM);
}

static void direct(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    int r = d->phase == DISK_SYNCED ? 0 : begin_mixture(d, l);

    pthread_mutex_unlock(&d->lock);
    if (!r) r = change_disk(d, l, f);
    pthread_mutex_lock(&d->lock);
    if (r)
        disk_link_refuse(d, l, "the backup's disk failed at %" PRIu64 ": %s", f->offset,
                         strerror(-r));
}

/* Says which extents of the run differ. */
static void check(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {.type = DISK_DIFF, .offset = f->offset, .span = f->span};
    uint8_t differs[DISK_CHECK_EXTENTS] = {0};
    uint8_t buf[DISK_EXTENT_SIZE];
    int r = begin_mixture(d, l);

    pthread_mutex_unlock(&d->lock);
    for (uint64_t at = 0; !r && at < f->span; at += DISK_EXTENT_SIZE) {
        uint64_t n = f->span - at < DISK_EXTENT_SIZE ? f->span - at : DISK_EXTENT_SIZE;
        r = disk_store_read(&d->store, buf, n, f->offset + at);
        if (r) break;
        uint64_t hash = XXH3_64bits(buf, n);
        differs[back.payload] = hash != disk_get64(l->payload + (size_t)back.payload * 8);
        back.payload++;
    }
    pthread_mutex_lock(&d->lock);
    if (r)
        disk_link_refuse(d, l, "the backup's disk failed at %" PRIu64 ": %s", f->offset,
                         strerror(-r));
    else
        disk_link_answer(d, l, &back, differs);
}

static bool check_fits(const struct disk_frame *f)
{
    uint64_t extents = (f->span + DISK_EXTENT_SIZE - 1) / DISK_EXTENT_SIZE;

    return f->span && f->offset % DISK_EXTENT_SIZE == 0 && extents <= DISK_CHECK_EXTENTS &&
           f->payload == extents * 8;
}

/* The two disks are equal, apart from what comes later. */
static void base_came(struct disk *d, struct disk_link *l)
{
    struct disk_frame back = {.type = DISK_SEALED};
    int r = begin_mixture(d, l);

    pthread_mutex_unlock(&d->lock);
    if (!r) r = disk_store_flush(&d->store);
    pthread_mutex_lock(&d->lock);
    if (!r && !l->dead) {
        disk_bitmap_clear_all(&d->bitmap);
        r = disk_bitmap_flush(&d->bitmap);
    }
    if (!r && !l->dead) {
        struct disk_state fresh = d->state;
        memcpy(fresh.base, l->payload, 16);
        fresh.generation = l->peer.generation;
        r = disk_change_state(d, &fresh);
    }
    if (r) {
        disk_link_refuse(d, l, "the backup's disk or state failed: %s", strerror(-r));
        return;
    }
    if (l->dead) return;
    d->phase = DISK_SYNCED;
    disk_link_answer(d, l, &back, NULL);
    if (!l->dead) disk_event(d, "synced");
}

/* ---- epochs: to the journal ---- */

/* Epochs that are being applied give room back, and a commit may come; both take no longer than the
 * limit. */
static bool wait_journal(struct disk *d, struct disk_link *l, size_t payload, bool seal)
{
    struct timespec until = disk_deadline(d->o.limit_ms);

    while (!l->dead && !(seal ? disk_journal_can_seal(&d->journal)
                              : disk_journal_has_room(&d->journal, payload)))
        if (pthread_cond_timedwait(&d->changed, &d->lock, &until)) {
            disk_link_refuse(d, l, "the backup's journal is full: %" PRIu64 " octets",
                             disk_journal_bytes(&d->journal));
            break;
        }
    return !l->dead;
}

static void record(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    uint64_t head = 0;

    if (!wait_journal(d, l, f->payload, false)) return;
    d->phase = DISK_PROTECTED;
    d->appending = true;
    pthread_mutex_unlock(&d->lock);
    int r = disk_journal_append(&d->journal, f, l->payload, &head);
    pthread_mutex_lock(&d->lock);
    d->appending = false;
    if (r) {
        disk_link_refuse(d, l, "the backup's journal failed: %s", strerror(-r));
        return;
    }
    disk_journal_publish(&d->journal, head);
    l->last_epoch = f->epoch;
}

static void seal(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {.type = DISK_SEALED, .epoch = f->epoch};
    uint64_t head = 0;

    if (!wait_journal(d, l, 0, true)) return;
    d->phase = DISK_PROTECTED;
    d->appending = true;
    pthread_mutex_unlock(&d->lock);
    int r = disk_journal_append_seal(&d->journal, f->epoch, &head);
    pthread_mutex_lock(&d->lock);
    d->appending = false;
    if (r) {
        disk_link_refuse(d, l, "the backup's journal failed: %s", strerror(-r));
        return;
    }
    disk_journal_publish_seal(&d->journal, f->epoch, head);
    l->last_epoch = f->epoch;
    disk_event(d, "barrier %" PRIu64, f->epoch);
    disk_link_answer(d, l, &back, NULL);
}

/* ---- the thread ---- */

static bool change_fits(const struct disk *d, const struct disk_frame *f)
{
    if (!f->span || f->span > d->store.size || f->offset > d->store.size - f->span) return false;
    return f->payload == (f->type == DISK_WRITE ? f->span : 0);
}

static void got_frame(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    bool zero = d->phase == DISK_LINKED || d->phase == DISK_SYNCING || d->phase == DISK_SYNCED;
    bool later = d->phase == DISK_SYNCED || d->phase == DISK_PROTECTED;
    bool ok = false;

    if (!l->handshaken) {
        hello(d, l, f);
        return;
    }
    later = later && f->epoch > d->journal.sealed && f->epoch >= l->last_epoch;
    switch (f->type) {
    case DISK_WRITE:
    case DISK_ZERO:
        ok = change_fits(d, f) && (f->epoch ? later : zero);
        if (ok && f->epoch) record(d, l, f);
        if (ok && !f->epoch) direct(d, l, f);
        break;
    case DISK_CHECK:
        ok =
            change_fits(
                d, &(struct disk_frame){.type = DISK_ZERO, .offset = f->offset, .span = f->span}) &&
            check_fits(f) && (d->phase == DISK_LINKED || d->phase == DISK_SYNCING);
        if (ok) check(d, l, f);
        break;
    case DISK_BARRIER:
        ok = f->epoch ? later && !f->payload
                      : f->payload == 16 && (d->phase == DISK_LINKED || d->phase == DISK_SYNCING);
        if (ok && f->epoch) seal(d, l, f);
        if (ok && !f->epoch) base_came(d, l);
        break;
    }
    if (!ok)
        disk_link_refuse(d, l, "the primary sent frame %u of epoch %" PRIu64 " out of turn",
                         f->type, f->epoch);
}

void *disk_backup_link(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    struct disk_frame f;

    disk_link_read_ahead(l);
    pthread_mutex_lock(&d->lock);
    while (!l->dead) {
        pthread_mutex_unlock(&d->lock);
        int r = disk_link_read(l, &f, l->handshaken ? -1 : DISK_HANDSHAKE_MS);
        pthread_mutex_lock(&d->lock);
        if (r == -EBADMSG || r == -EPROTO)
            disk_link_refuse(d, l, "%s", disk_link_error(r));
        else if (r)
            disk_link_lost(d, l, "%s", disk_link_error(r));
        else if (!l->dead)
            got_frame(d, l, &f);
    }
    pthread_mutex_unlock(&d->lock);
    if (l->helpers) pthread_join(l->ticker, NULL);
    pthread_mutex_lock(&d->lock);
    disk_link_over(d, l);
    return NULL;
}
