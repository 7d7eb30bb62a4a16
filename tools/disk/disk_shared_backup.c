/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup of a shared disk: it holds nothing and writes nothing, but looks whether it sees what the
 * primary says, and leases the disk to it. Promoted, it first waits until that lease is over.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define SEAL_PAYLOAD 24

/* ---- the link ---- */

/* Under the lock: the primary's claim as we read it. False: refused. */
static bool read_claim(struct disk *d, struct disk_link *l, struct disk_claim *c)
{
    struct disk_claim two[2];
    bool foreign;
    int r = disk_claims_read(&d->shared->head, two, &foreign);

    *c = *disk_claims_top(two);
    if (r)
        disk_link_refuse(d, l, "the backup cannot read the shared journal: %s", strerror(-r));
    else if (c->generation != l->peer.generation || memcmp(c->token, l->peer.base, 16) ||
             memcmp(c->uuid, l->peer.uuid, 16))
        disk_link_refuse(d, l, "not the same storage: the backup's %.100s is another journal",
                         d->o.shared);
    else
        return true;
    return false;
}

static void hello(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    struct disk_hello h = {.version = DISK_LINK_VERSION, .shared = true, .size = d->store.size};
    uint8_t raw[DISK_HELLO_SIZE];
    struct disk_claim c = {0};

    if (f->type != DISK_HELLO || disk_hello_get(&l->peer, l->payload, f->payload))
        disk_link_refuse(d, l, "the other side speaks another protocol");
    else if (!l->peer.primary || !l->peer.shared)
        disk_link_refuse(d, l, "the other side is no primary of a shared disk");
    else if (l->peer.size != d->store.size)
        disk_link_refuse(d, l, "not the same storage: %" PRIu64 " octets here, %" PRIu64 " there",
                         d->store.size, l->peer.size);
    else
        (void)read_claim(d, l, &c);
    if (l->dead) return;
    h.generation = c.generation;
    memcpy(h.uuid, c.uuid, 16);
    memcpy(h.base, c.token, 16);
    disk_hello_put(raw, &h);
    disk_link_answer(d, l, &back, raw);
    if (l->dead) return;
    l->handshaken = true;
    memcpy(d->shared->token, c.token, 16);
    d->journal.sealed = d->journal.committed = d->journal.applied = 0;
    d->phase = DISK_LINKED;
    disk_event(d, "linked full");
}

static void check(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {
        .type = DISK_DIFF, .offset = f->offset, .span = f->span, .payload = 1};
    uint8_t buf[DISK_EXTENT_SIZE], differs;

    pthread_mutex_unlock(&d->lock);
    int r = disk_store_read(&d->store, buf, f->span, f->offset);
    pthread_mutex_lock(&d->lock);
    if (r) {
        disk_link_refuse(d, l, "the backup cannot read the disk at %" PRIu64 ": %s", f->offset,
                         strerror(-r));
        return;
    }
    differs = XXH3_64bits(buf, f->span) != disk_get64(l->payload);
    d->phase = DISK_SYNCING;
    disk_link_answer(d, l, &back, &differs);
}

/* Both see the same: it is this primary's backup from now on. */
static void synced(struct disk *d, struct disk_link *l)
{
    struct disk_frame back = {.type = DISK_SEALED};
    struct disk_state fresh = d->state;

    memcpy(fresh.uuid, l->peer.uuid, 16);
    memset(fresh.base, 0, 16);
    disk_boot_id(fresh.boot);
    fresh.size = d->store.size;
    fresh.generation = l->peer.generation;
    fresh.primary = fresh.clean = fresh.secured = fresh.inconsistent = false;
    int r = disk_change_state(d, &fresh);
    if (r) {
        disk_link_refuse(d, l, "the backup's state failed: %s", strerror(-r));
        return;
    }
    d->phase = DISK_SYNCED;
    disk_link_answer(d, l, &back, NULL);
    if (!l->dead) disk_event(d, "synced");
}

/* The head of a record, from the medium. */
static int read_head(struct disk *d, uint64_t at, uint64_t limit, uint8_t head[DISK_RECORD_SIZE])
{
    uint64_t first = limit - at % limit;
    uint64_t offset = disk_journal_offset(DISK_SHARED_BASE, limit, at);
    size_t n = first < DISK_RECORD_SIZE ? (size_t)first : DISK_RECORD_SIZE;
    int r = disk_direct_read(&d->shared->head, head, n, offset);

    if (r || n == DISK_RECORD_SIZE) return r;
    return disk_direct_read(&d->shared->head, head + n, DISK_RECORD_SIZE - n,
                            disk_journal_offset(DISK_SHARED_BASE, limit, 0));
}

/* An epoch counts when its end is seen from here, too. */
static void barrier(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {.type = DISK_SEALED, .epoch = f->epoch};
    uint64_t at = disk_get64(l->payload), session = disk_get64(l->payload + 8);
    uint64_t limit = disk_get64(l->payload + 16);
    uint8_t head[DISK_RECORD_SIZE] = {0};
    int r = limit < DISK_JOURNAL_MIN || limit > DISK_SIZE_MAX ? -EPROTO : 0;

    pthread_mutex_unlock(&d->lock);
    if (!r) r = read_head(d, at, limit, head);
    pthread_mutex_lock(&d->lock);
    if (r || !disk_journal_is_seal(head, session, f->epoch)) {
        disk_link_refuse(d, l,
                         "the backup does not see epoch %" PRIu64 " in the shared journal: %s",
                         f->epoch, r ? strerror(-r) : "something else is there");
        return;
    }
    if (l->dead) return;
    d->phase = DISK_PROTECTED;
    d->journal.sealed = f->epoch;
    disk_event(d, "barrier %" PRIu64, f->epoch);
    disk_link_answer(d, l, &back, NULL);
}

/* Once the link is dead no lease is given: that is what a promotion relies on. */
static bool lease(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    struct disk_frame back = {.type = DISK_LEASE, .offset = f->offset, .span = f->span};

    if (f->span != DISK_LEASE_MS || f->payload) return false;
    /* The clocks of two hosts do not run quite the same. */
    d->shared->granted_until_ms = disk_shared_now_ms() + DISK_LEASE_MS + DISK_LEASE_MS / 20;
    disk_link_answer(d, l, &back, NULL);
    return true;
}

static void got_frame(struct disk *d, struct disk_link *l, const struct disk_frame *f)
{
    bool comparing = d->phase == DISK_LINKED || d->phase == DISK_SYNCING;
    bool ok = false;

    if (!l->handshaken) {
        hello(d, l, f);
        return;
    }
    switch (f->type) {
    case DISK_CHECK:
        ok = comparing && f->span && f->span <= DISK_EXTENT_SIZE && f->span <= d->store.size &&
             f->offset <= d->store.size - f->span && f->payload == 8;
        if (ok) check(d, l, f);
        break;
    case DISK_BARRIER:
        if (f->epoch == 0) {
            ok = comparing && f->payload == 16 && !memcmp(l->payload, d->shared->token, 16);
            if (ok) synced(d, l);
        } else {
            ok = (d->phase == DISK_SYNCED || d->phase == DISK_PROTECTED) &&
                 f->payload == SEAL_PAYLOAD && f->epoch > d->journal.sealed;
            if (ok) barrier(d, l, f);
        }
        break;
    case DISK_LEASE:
        ok = lease(d, l, f);
        break;
    }
    if (!ok)
        disk_link_refuse(d, l, "the primary sent frame %u of epoch %" PRIu64 " out of turn",
                         f->type, f->epoch);
}

void *disk_shared_backup_link(void *arg)
{
    struct disk_link *l = arg;
    struct disk *d = l->disk;
    struct disk_frame f;

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
    disk_link_over(d, l);
    return NULL;
}

/* ---- promotion ---- */

static int may_promote(const struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    const struct disk_journal *j = &d->journal;

    if (d->primary)
        snprintf(why, DISK_TEXT_MAX, "promote: this is the primary already");
    else if (n == 0 || n > j->sealed)
        snprintf(why, DISK_TEXT_MAX,
                 "promote: checkpoint %" PRIu64 " is not here (sealed %" PRIu64
                 ", committed %" PRIu64 ")",
                 n, j->sealed, j->committed);
    else if (n < j->committed)
        snprintf(why, DISK_TEXT_MAX, "promote: checkpoint %" PRIu64 " was committed since",
                 j->committed);
    else
        return 0;
    return -EINVAL;
}

/* Under the lock: nothing more comes from the link, nobody looks at the disk, and the primary may not write any
 * more. */
static void end_lease(struct disk *d)
{
    if (d->link) disk_link_lost(d, d->link, "promoted");
    while (d->link || d->shared->reads[0] || d->shared->reads[1])
        pthread_cond_wait(&d->changed, &d->lock);
    for (;;) {
        int64_t left = d->shared->granted_until_ms - disk_shared_now_ms();
        if (left <= 0) break;
        struct timespec until = disk_deadline(left);
        pthread_cond_timedwait(&d->changed, &d->lock, &until);
    }
}

/* Is the disk still the primary's that we are the backup of? */
static bool still_backup(struct disk *d)
{
    struct disk_claim two[2], *c = &two[d->state.generation % 2];
    bool foreign;

    if (disk_claims_read(&d->shared->head, two, &foreign)) return false;
    /* A start that was forced leaves that claim and owns the next one; so does a promotion of ours that failed. */
    const struct disk_claim *top = disk_claims_top(two);
    return c->generation == d->state.generation && c->state == DISK_CLAIM_PROTECTED &&
           !memcmp(c->token, d->shared->token, 16) &&
           (top == c || !memcmp(top->owner, d->shared->own.owner, 16));
}

/* Disk and journal for writing, and epoch n must be whole. */
static int open_for_writing(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    int r;

    if (!still_backup(d)) {
        snprintf(why, DISK_TEXT_MAX, "promote: the primary went on without this side");
        return -ESTALE;
    }
    disk_store_dispose(&d->store);
    r = disk_store_open_shared(&d->store, d->o.path, false);
    disk_direct_close(&d->shared->head);
    if (!r) r = disk_direct_open(&d->shared->head, d->o.shared, O_RDWR);
    if (!r && d->journal.fd >= 0) close(d->journal.fd);
    d->journal.fd = -1;
    if (!r) r = disk_shared_open_journal(d);
    if (r) {
        snprintf(why, DISK_TEXT_MAX, "promote: cannot write to disk or journal: %s", strerror(-r));
        return r;
    }
    struct disk_journal *j = &d->journal;
    j->generation = d->state.generation;
    j->slot_seq = 0;
    j->seal_count = 0;
    /* What the primary said of it does not count any more, only what is there. */
    j->sealed = j->committed = j->applied = 0;
    j->head = j->tail = 0;
    r = disk_journal_load(j);
    if (r > 0) r = disk_journal_find_seals(j, n);
    if (!r && j->sealed == n) return 0;
    snprintf(why, DISK_TEXT_MAX,
             "promote: checkpoint %" PRIu64 " is not whole in the shared journal (found %" PRIu64
             "): %s",
             n, j->sealed, r ? strerror(-r) : "it is damaged");
    return r ? r : -EBADMSG;
}

/* Our claim, then a look at the other: the primary, should it go on, does the same. */
static int claim(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    struct disk_claim *own = &d->shared->own;
    int r = 0;

    *own = (struct disk_claim){
        .generation = d->state.generation + 1, .size = d->store.size, .epoch = n};
    memcpy(own->uuid, d->state.uuid, 16);
    r = disk_random(own->owner, 16);
    if (!r) r = disk_shared_claim(d, DISK_CLAIM_TAKING);
    if (!r && !still_backup(d)) r = -ESTALE;
    if (!r) r = disk_shared_claim(d, DISK_CLAIM_ALONE);
    if (r) (void)disk_shared_claim(d, DISK_CLAIM_VOID);
    if (r == -ESTALE)
        snprintf(why, DISK_TEXT_MAX, "promote: the primary went on without this side");
    else if (r)
        snprintf(why, DISK_TEXT_MAX, "promote: the shared journal: %s", strerror(-r));
    return r;
}

/* Under the lock: the disk becomes checkpoint n, and is ours. */
static int become_primary(struct disk *d)
{
    struct disk_journal *j = &d->journal;
    struct disk_seal to = {.epoch = j->sealed, .end = j->head, .seq = j->head_seq};
    struct disk_state fresh = d->state;
    int r = 0;

    if (j->head != j->tail) r = disk_journal_apply(j, &to, &d->store);
    if (r) return r;
    memcpy(fresh.base, d->shared->own.owner, 16);
    fresh.generation = d->shared->own.generation;
    fresh.primary = true;
    r = disk_change_state(d, &fresh);
    d->shared->own.epoch = 0;
    if (!r) r = disk_shared_claim(d, DISK_CLAIM_ALONE);
    j->generation = fresh.generation;
    if (!r) r = disk_journal_reset(j);
    if (!r) r = disk_journal_flush(j);
    if (r) return r;
    d->phase = DISK_ALONE;
    d->epoch = d->closed = d->committed = 0;
    d->primary = true;
    disk_log("%s: promoted, generation %" PRIu64, d->o.path, d->state.generation);
    return 0;
}

int disk_shared_promote(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    int r;

    pthread_mutex_lock(&d->lock);
    r = may_promote(d, n, why);
    if (r) goto out;
    end_lease(d);
    r = open_for_writing(d, n, why);
    if (!r) r = claim(d, n, why);
    if (r) goto out;
    r = become_primary(d);
    if (r) snprintf(why, DISK_TEXT_MAX, "promote: %s", strerror(-r));
out:
    pthread_mutex_unlock(&d->lock);
    return r;
}

int disk_shared_drop(struct disk *d, char why[DISK_TEXT_MAX])
{
    int r = 0;

    pthread_mutex_lock(&d->lock);
    if (d->primary) {
        snprintf(why, DISK_TEXT_MAX, "drop: this is a primary");
        r = -EINVAL;
        goto out;
    }
    if (d->link) disk_link_lost(d, d->link, "dropped");
    while (d->link)
        pthread_cond_wait(&d->changed, &d->lock);
    d->journal.sealed = d->journal.committed = d->journal.applied = 0;
    d->phase = DISK_ALONE;
out:
    pthread_mutex_unlock(&d->lock);
    return r;
}
