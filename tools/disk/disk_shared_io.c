/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's requests on a shared disk.
 *
 * Not protected, they go to the disk. Protected, a change goes to the journal and a read looks there
 * first. When the link is lost nobody knows yet who goes on: changes wait, until `unprotect` says that
 * it is this side, or the instance ends.
 */
#include <errno.h>
#include <inttypes.h>

#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define PIECES 32

/* ---- reads ---- */

/* Under the lock: what of [offset, end) is in the journal, and where the look ended. */
static unsigned look_up(const struct disk *d, uint64_t offset, uint64_t *end,
                        struct disk_piece pieces[PIECES])
{
    unsigned n = 0;

    for (uint64_t at = offset; n < PIECES && at < *end; at = pieces[n++].end)
        if (!disk_overlay_find(&d->shared->overlay, at, *end, &pieces[n])) return n;
    if (n == PIECES) *end = pieces[n - 1].end;
    return n;
}

static int read_pieces(struct disk *d, uint8_t *buf, uint64_t offset, uint64_t end,
                       const struct disk_piece *pieces, unsigned n)
{
    uint64_t at = offset;
    int r = 0;

    for (unsigned i = 0; !r && i <= n; i++) {
        uint64_t next = i < n ? pieces[i].start : end;
        if (next > at) r = disk_store_read(&d->store, buf + (at - offset), next - at, at);
        if (r || i == n) break;
        uint64_t size = pieces[i].end - pieces[i].start;
        uint8_t *to = buf + (pieces[i].start - offset);
        if (pieces[i].data == DISK_OVERLAY_ZERO)
            memset(to, 0, size);
        else
            r = disk_journal_read(&d->journal, pieces[i].data, to, size);
        at = pieces[i].end;
    }
    return r;
}

int disk_shared_read(struct disk *d, void *buf, uint64_t size, uint64_t offset)
{
    struct disk_shared *s = d->shared;
    struct disk_piece pieces[PIECES];
    uint64_t at = offset, end;
    int r = 0;

    pthread_mutex_lock(&d->lock);
    /* A twin that waits has its device open already, and is shown the disk as it is. */
    bool looks = d->phase == DISK_SYNCED || d->phase == DISK_PROTECTED;
    if (s->fenced || !(d->primary || looks)) r = -EIO;
    /* As long as it is counted, what it found in the journal stays there. */
    unsigned turn = s->turn;
    s->reads[turn]++;
    while (!r && at < offset + size) {
        end = offset + size;
        unsigned n = look_up(d, at, &end, pieces);
        pthread_mutex_unlock(&d->lock);
        r = read_pieces(d, (uint8_t *)buf + (at - offset), at, end, pieces, n);
        pthread_mutex_lock(&d->lock);
        at = end;
    }
    if (!--s->reads[turn]) pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return r;
}

/* ---- changes ---- */

/* Under the lock. 0: one may go on; -EIO: never. */
static int wait_decided(struct disk *d)
{
    struct disk_shared *s = d->shared;

    while (!s->fenced && !s->stuck && !s->stopping && d->primary && s->journaling &&
           d->phase != DISK_PROTECTED)
        pthread_cond_wait(&d->room, &d->lock);
    return s->fenced || !d->primary || (s->journaling && d->phase != DISK_PROTECTED) ? -EIO : 0;
}

void disk_shared_append_begin(struct disk *d)
{
    while (d->appending)
        pthread_cond_wait(&d->room, &d->lock);
    d->appending = true;
}

void disk_shared_append_end(struct disk *d)
{
    d->appending = false;
    pthread_cond_broadcast(&d->room);
}

static bool room_for(struct disk *d, size_t payload)
{
    return disk_journal_has_room(&d->journal, payload) &&
           d->shared->overlay.count + 3 <= DISK_OVERLAY_MAX &&
           !d->shared->gate.may_write(d->shared->gate.arg);
}

/* Under the lock: until there is room and a lease. False: the link is lost. */
static bool wait_room(struct disk *d, size_t payload)
{
    struct timespec until = disk_deadline(d->o.limit_ms);

    while (d->phase == DISK_PROTECTED && !d->shared->stopping && !room_for(d, payload)) {
        if (!pthread_cond_timedwait(&d->room, &d->lock, &until)) continue;
        if (d->phase != DISK_PROTECTED || room_for(d, payload)) break;
        if (d->o.hold) {
            disk_event(d, "slow %" PRIu64, disk_journal_bytes(&d->journal));
            until = disk_deadline(d->o.limit_ms);
        } else if (d->link) {
            disk_link_lost(d, d->link, "the shared journal is full: %" PRIu64 " octets",
                           disk_journal_bytes(&d->journal));
        }
    }
    return d->phase == DISK_PROTECTED && !d->shared->stopping;
}

/* Under the lock: who waits for room lets others append, a barrier above all, whose commit makes room. */
static bool begin_append(struct disk *d, size_t payload)
{
    while (wait_room(d, payload)) {
        disk_shared_append_begin(d);
        if (d->phase == DISK_PROTECTED && room_for(d, payload)) return true;
        disk_shared_append_end(d);
    }
    return false;
}

/* Under the lock, appending: gives the lock back while it writes. */
static int append(struct disk *d, struct disk_frame *f, const void *payload)
{
    uint64_t at = d->journal.head, head = 0;
    int r = disk_overlay_reserve(&d->shared->overlay);

    if (r) return r;
    f->epoch = d->epoch;
    pthread_mutex_unlock(&d->lock);
    r = disk_journal_append(&d->journal, f, payload, &head);
    pthread_mutex_lock(&d->lock);
    if (r) return r;
    disk_journal_publish(&d->journal, head);
    disk_overlay_put(&d->shared->overlay, f->offset, f->offset + f->span, at,
                     payload ? at + DISK_RECORD_SIZE : DISK_OVERLAY_ZERO);
    return 0;
}

/* Under the lock. 0: it is in the journal; 1: the link was lost, at the latest now. */
static int journal_one(struct disk *d, struct disk_frame *f, const void *payload)
{
    if (!begin_append(d, f->payload)) return 1;
    int r = append(d, f, payload);
    if (r && d->link) disk_link_lost(d, d->link, "the shared journal failed: %s", strerror(-r));
    disk_shared_append_end(d);
    return r ? 1 : 0;
}

/* Under the lock, the range held: a change of a protected disk. 1: it is not protected any more. */
static int journal_change(struct disk *d, enum disk_change what, const void *buf, uint64_t size,
                          uint64_t offset)
{
    struct disk_frame f = {.type = buf ? DISK_WRITE : DISK_ZERO,
                           .flags = what == DISK_CHANGE_PUNCH ? DISK_FLAG_TRIM : 0};
    const uint8_t *p = buf;
    int r = 0;

    /* The space can only be freed on the disk itself. */
    if (what == DISK_CHANGE_TRIM) return 0;
    while (!r && size) {
        uint64_t n = buf && size > DISK_PAYLOAD_MAX ? DISK_PAYLOAD_MAX : size;
        f.offset = offset;
        f.span = n;
        f.payload = buf ? (uint32_t)n : 0;
        r = journal_one(d, &f, p);
        offset += n;
        size -= n;
        if (buf) p += n;
    }
    return r;
}

static int change_disk(struct disk *d, enum disk_change what, const void *buf, uint64_t size,
                       uint64_t offset)
{
    int r;

    switch (what) {
    case DISK_CHANGE_WRITE:
        return disk_store_write(&d->store, buf, size, offset);
    case DISK_CHANGE_TRIM:
        r = disk_store_punch(&d->store, size, offset);
        return r == -EOPNOTSUPP ? 0 : r;
    case DISK_CHANGE_ZERO:
    case DISK_CHANGE_PUNCH:
        break;
    }
    return disk_store_zero(&d->store, size, offset, what == DISK_CHANGE_PUNCH);
}

/* Under the lock, the range held. */
static int direct_change(struct disk *d, enum disk_change what, const void *buf, uint64_t size,
                         uint64_t offset)
{
    d->shared->direct++;
    pthread_mutex_unlock(&d->lock);
    int r = change_disk(d, what, buf, size, offset);
    pthread_mutex_lock(&d->lock);
    if (!--d->shared->direct) pthread_cond_broadcast(&d->changed);
    return r;
}

int disk_shared_change(struct disk *d, enum disk_change what, const void *buf, uint64_t size,
                       uint64_t offset, bool fua)
{
    uint32_t align = d->store.direct.align;
    uint64_t start = offset - offset % align, end = offset + size + align - 1;
    struct disk_range range;
    int r;

    pthread_mutex_lock(&d->lock);
    /* Whole blocks: a part of one is written by reading the rest of it. */
    disk_range_take(&d->ranges, &range, start, end - end % align - start, &d->lock);
    do {
        r = wait_decided(d);
        if (!r)
            r = d->shared->journaling ? journal_change(d, what, buf, size, offset)
                                      : direct_change(d, what, buf, size, offset);
    } while (r == 1);
    disk_range_release(&d->ranges, &range);
    pthread_mutex_unlock(&d->lock);
    if (r == -ESTALE) r = -EIO;
    return !r && fua ? disk_shared_flush(d) : r;
}

int disk_shared_flush(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    bool ok = d->primary && !d->shared->fenced, journaling = d->shared->journaling;
    pthread_mutex_unlock(&d->lock);
    if (!ok) return -EIO;
    if (!journaling) return disk_store_flush(&d->store);
    int r = disk_journal_flush(&d->journal);
    if (!r) return 0;
    /* What could not be written is marked nowhere: the open epoch would not be whole. */
    pthread_mutex_lock(&d->lock);
    if (d->link) disk_link_lost(d, d->link, "the shared journal failed: %s", strerror(-r));
    pthread_mutex_unlock(&d->lock);
    return r;
}
