/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Synchronisation, the primary's side: for each run of extents that may differ, hashes go to the backup,
 * which answers with those that do differ; only their content is sent.
 *
 * Each run is read and queued while its range is held. So on the link it stands exactly between those
 * changes of the guest that it contains and those that it does not, and the backup, which works off
 * the link in order, compares like with like.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include <xxhash.h>

#include "disk_roles.h"
#include "disk_util.h"

#define RUN_SIZE (DISK_CHECK_EXTENTS * DISK_EXTENT_SIZE)
#define PROGRESS_MS 200

struct sync {
    struct disk *d;
    struct disk_link *l;
    uint8_t *buf;
    size_t cursor;   /* of the bitmap's todo */
    uint64_t looked; /* octets read, for the rate */
    int64_t began_ms, told_ms;
};

int disk_sync(struct disk *d, uint64_t rate, char why[DISK_TEXT_MAX])
{
    int r = -EINVAL;

    pthread_mutex_lock(&d->lock);
    if (!d->primary || !d->link || d->link->dead)
        snprintf(why, DISK_TEXT_MAX, "sync: there is no link");
    else if (d->link->sync_asked)
        snprintf(why, DISK_TEXT_MAX, "sync: it has begun already");
    else {
        d->link->sync_asked = true;
        d->link->sync_rate = rate;
        pthread_cond_broadcast(&d->work);
        r = 0;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

bool disk_sync_answer(struct disk_link *l, const struct disk_frame *f)
{
    for (unsigned i = 0; i < l->check_count; i++) {
        struct disk_check *c = &l->checks[(l->first_check + i) % DISK_CHECKS_MAX];
        if (c->answered) continue;
        uint64_t extents = (c->span + DISK_EXTENT_SIZE - 1) / DISK_EXTENT_SIZE;
        if (f->offset != c->offset || f->span != c->span || f->payload != extents) return false;
        memcpy(c->differs, l->payload, f->payload);
        c->answered = true;
        pthread_cond_broadcast(&l->disk->work);
        return true;
    }
    return false;
}

static void tell_progress(struct sync *s, uint64_t done)
{
    int64_t now = disk_now_ms();

    s->d->sync_done += done;
    if (now - s->told_ms < PROGRESS_MS) return;
    s->told_ms = now;
    disk_event(s->d, "progress %" PRIu64 " %" PRIu64, s->d->sync_done, s->d->sync_total);
}

static uint64_t span_of(const struct disk *d, uint64_t offset, uint64_t extents)
{
    uint64_t span = extents << DISK_EXTENT_SHIFT;

    return span < d->store.size - offset ? span : d->store.size - offset;
}

/* Under the lock. Reads a range that is held; a disk that cannot be read cannot be copied. */
static bool read_held(struct sync *s, uint64_t span, uint64_t offset)
{
    pthread_mutex_unlock(&s->d->lock);
    int r = disk_store_read(&s->d->store, s->buf, span, offset);
    pthread_mutex_lock(&s->d->lock);
    if (r)
        disk_link_lost(s->d, s->l, "the primary's own disk failed at %" PRIu64 ": %s", offset,
                       strerror(-r));
    return !r;
}

static bool send_check(struct sync *s, uint64_t first, uint64_t extents)
{
    struct disk *d = s->d;
    uint64_t offset = first << DISK_EXTENT_SHIFT, span = span_of(d, offset, extents);
    struct disk_frame f = {.type = DISK_CHECK, .offset = offset, .span = span};
    uint8_t hashes[DISK_CHECK_EXTENTS * 8];
    struct disk_range range;

    disk_range_take(&d->ranges, &range, offset, span, &d->lock);
    bool ok = read_held(s, span, offset);
    for (uint64_t i = 0; ok && i < extents; i++) {
        uint64_t at = i << DISK_EXTENT_SHIFT;
        uint64_t size = span - at < DISK_EXTENT_SIZE ? span - at : DISK_EXTENT_SIZE;
        disk_put64(hashes + i * 8, XXH3_64bits(s->buf + at, size));
    }
    if (ok) {
        struct disk_check *c =
            &s->l->checks[(s->l->first_check + s->l->check_count++) % DISK_CHECKS_MAX];
        *c = (struct disk_check){.offset = offset, .span = span};
        f.payload = (uint32_t)extents * 8;
        ok = disk_queue_frame(d, s->l, &f, hashes);
    }
    disk_range_release(&d->ranges, &range);
    s->looked += span;
    return ok;
}

static bool all_zero(const uint8_t *p, uint64_t size)
{
    return !p[0] && !memcmp(p, p + 1, size - 1);
}

static bool send_extent(struct sync *s, uint64_t offset)
{
    struct disk *d = s->d;
    uint64_t span = span_of(d, offset, 1);
    struct disk_frame f = {.type = DISK_WRITE, .offset = offset, .span = span};
    struct disk_range range;

    disk_range_take(&d->ranges, &range, offset, span, &d->lock);
    bool ok = read_held(s, span, offset);
    if (ok) {
        if (all_zero(s->buf, span)) {
            f.type = DISK_ZERO;
            f.flags = DISK_FLAG_TRIM;
        } else {
            f.payload = (uint32_t)span;
        }
        ok = disk_queue_frame(d, s->l, &f, s->buf);
    }
    disk_range_release(&d->ranges, &range);
    return ok;
}

/* Under the lock, as all of these: sends what the oldest answer asks for. */
static bool work_answer(struct sync *s)
{
    struct disk_check c = s->l->checks[s->l->first_check];

    for (unsigned i = 0; (uint64_t)i << DISK_EXTENT_SHIFT < c.span; i++)
        if (c.differs[i] && !send_extent(s, c.offset + ((uint64_t)i << DISK_EXTENT_SHIFT)))
            return false;
    s->l->first_check = (s->l->first_check + 1) % DISK_CHECKS_MAX;
    s->l->check_count--;
    tell_progress(s, c.span);
    return true;
}

/* The rate allows more, or when it will. */
static int64_t wait_rate_ms(const struct sync *s)
{
    if (!s->l->sync_rate) return 0;
    int64_t due = (int64_t)((double)s->looked * 1000 / (double)s->l->sync_rate);
    return s->began_ms + due - disk_now_ms();
}

static bool close_sync(struct sync *s)
{
    struct disk_frame f = {.type = DISK_BARRIER, .payload = 16};
    int r = disk_random(s->l->base, 16);

    if (r) {
        disk_link_lost(s->d, s->l, "no random numbers: %s", strerror(-r));
        return false;
    }
    s->l->barrier0_sent = true;
    /* Room was left for it, and what is queued later is open. */
    disk_bitmap_close_epoch(&s->d->bitmap);
    return disk_queue_frame(s->d, s->l, &f, s->l->base);
}

/* One step. False: the end, good or bad. */
static bool step(struct sync *s)
{
    struct disk_link *l = s->l;
    uint64_t first, n;

    if (l->check_count && l->checks[l->first_check].answered) return work_answer(s);
    if (l->check_count < DISK_CHECKS_MAX) {
        int64_t ms = wait_rate_ms(s);
        if (ms > 0) {
            struct timespec until = disk_deadline(ms);
            pthread_cond_timedwait(&s->d->work, &s->d->lock, &until);
            return true;
        }
        n = disk_bitmap_take(&s->d->bitmap, &s->cursor, DISK_CHECK_EXTENTS, &first);
        if (n) return send_check(s, first, n);
        if (!l->check_count) {
            close_sync(s);
            return false;
        }
    }
    pthread_cond_wait(&s->d->work, &s->d->lock);
    return true;
}

void *disk_syncer(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    struct sync s = {.d = d, .l = l};

    pthread_mutex_lock(&d->lock);
    while (!l->dead && !l->sync_asked)
        pthread_cond_wait(&d->work, &d->lock);
    s.buf = l->dead ? NULL : malloc(RUN_SIZE);
    if (!s.buf) {
        disk_link_lost(d, l, "no memory");
        goto out;
    }
    /* From here on each change goes to the link as well. */
    d->phase = DISK_SYNCING;
    d->sync_done = 0;
    d->sync_total = disk_bitmap_sync_begin(&d->bitmap, !l->by_bitmap);
    s.began_ms = disk_now_ms();
    while (!l->dead && step(&s))
        ;
out:
    pthread_mutex_unlock(&d->lock);
    free(s.buf);
    return NULL;
}
