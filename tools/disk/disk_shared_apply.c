/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Committed epochs get from the journal to the shared disk: while protected, under a lease; when this
 * side goes on alone, all that the guest wrote.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define RETRY_MS 50
#define DROP_BATCH 4096

/* Under the lock: reads do not look into the journal before `before` any more. */
static void forget(struct disk *d, uint64_t before)
{
    struct disk_shared *s = d->shared;

    while (!disk_overlay_drop(&s->overlay, before, DROP_BATCH)) {
        pthread_mutex_unlock(&d->lock);
        pthread_mutex_lock(&d->lock);
    }
    /* Those of the turn before last have ended: only two turns are told apart. */
    unsigned turn = s->turn;
    s->turn = !turn;
    while (s->reads[turn])
        pthread_cond_wait(&d->changed, &d->lock);
}

/* Under the lock, given back meanwhile: brings the disk to the end of an epoch. */
static int apply_to(struct disk *d, const struct disk_seal *to)
{
    struct disk_journal *j = &d->journal;
    int r;

    d->applying = true;
    r = disk_shared_check_owner(d);
    if (!r) r = disk_journal_commit(j, to->epoch);
    pthread_mutex_unlock(&d->lock);
    if (!r) r = disk_journal_apply(j, to, &d->store);
    pthread_mutex_lock(&d->lock);
    if (!r) {
        forget(d, to->end);
        r = disk_journal_publish_applied(j, to);
    }
    pthread_mutex_unlock(&d->lock);
    if (!r) r = disk_journal_flush(j);
    pthread_mutex_lock(&d->lock);
    if (!r) disk_journal_release(j);
    d->applying = false;
    pthread_cond_broadcast(&d->room);
    pthread_cond_broadcast(&d->changed);
    return r;
}

/* The last sealed epoch that may be applied; NULL: none. */
static const struct disk_seal *committed_seal(const struct disk *d)
{
    const struct disk_journal *j = &d->journal;
    const struct disk_seal *found = NULL;

    if (d->phase != DISK_PROTECTED || d->shared->fenced) return NULL;
    for (unsigned i = 0; i < j->seal_count && j->seals[i].epoch <= d->committed; i++)
        found = &j->seals[i];
    return found;
}

/* False: nothing was to do. */
static bool apply_committed(struct disk *d)
{
    const struct disk_seal *found = committed_seal(d);

    if (!found) return false;
    struct disk_seal to = *found;
    int r = apply_to(d, &to);
    if (r == -EAGAIN) { /* no lease just now */
        struct timespec until = disk_deadline(RETRY_MS);
        pthread_cond_timedwait(&d->work, &d->lock, &until);
    } else if (r && d->link) {
        disk_link_lost(d, d->link, "the shared disk or its journal failed: %s", strerror(-r));
    }
    return true;
}

void *disk_shared_applier(void *arg)
{
    struct disk *d = arg;
    struct timespec until;

    pthread_mutex_lock(&d->lock);
    while (!d->stopping) {
        if (d->primary && apply_committed(d)) continue;
        until = disk_deadline(DISK_WATCH_MS);
        /* Nobody may take the disk away without our knowing; but a person may force it. */
        if (pthread_cond_timedwait(&d->work, &d->lock, &until) && d->primary && !d->stopping)
            (void)disk_shared_check_owner(d);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- this side goes on ---- */

/* Under the lock: all that is in the journal gets to the disk. */
static int apply_all(struct disk *d)
{
    struct disk_journal *j = &d->journal;
    uint64_t head = 0;
    int r = 0;

    disk_shared_append_begin(d);
    while (d->applying)
        pthread_cond_wait(&d->changed, &d->lock);
    if (j->open_records) {
        /* A place for its seal, if the epochs before take all of them. */
        struct disk_seal first = j->seals[0];
        if (!disk_journal_can_seal(j)) r = j->seal_count ? apply_to(d, &first) : -ENOSPC;
        if (!r) r = disk_journal_append_seal(j, d->epoch, &head);
        if (!r) disk_journal_publish_seal(j, d->epoch, head);
        /* Before its commit: a start that finds that one demands the seal. */
        if (!r) r = disk_journal_flush(j);
    }
    if (!r && j->seal_count) {
        struct disk_seal to = j->seals[j->seal_count - 1];
        r = apply_to(d, &to);
    }
    if (!r) r = disk_journal_reset(j);
    if (!r) r = disk_journal_flush(j);
    disk_shared_append_end(d);
    return r;
}

/* Under the lock: a backup that is about to take over says soon whether it does. */
static int wait_undisputed(struct disk *d)
{
    int64_t until = disk_now_ms() + d->o.limit_ms;
    bool taking;
    int r;

    for (;;) {
        r = disk_shared_look(d, &taking);
        if (r || !taking) return r;
        if (disk_now_ms() >= until) return -EBUSY;
        struct timespec next = disk_deadline(RETRY_MS);
        pthread_cond_timedwait(&d->changed, &d->lock, &next);
    }
}

/* Under the lock. Our claim first, then a look at the other one: a backup that takes over does the same,
 * so not both can believe that they are alone. */
static int go_on(struct disk *d)
{
    int r = disk_shared_claim_alone(d);

    if (!r) r = wait_undisputed(d);
    if (r) return r;
    d->shared->leased = false;
    r = apply_all(d);
    d->shared->stuck = r != 0;
    if (!r) d->shared->journaling = false;
    return r;
}

int disk_shared_unprotect(struct disk *d, char why[DISK_TEXT_MAX])
{
    int r = 0;

    if (d->shared->journaling)
        r = go_on(d);
    else if (d->shared->unsure) /* the protection did not begin, but its claim may stand there */
        r = disk_shared_claim_alone(d);
    if (r == -ESTALE)
        snprintf(why, DISK_TEXT_MAX, "unprotect: the disk belongs to another host now");
    else if (r == -EBUSY)
        snprintf(why, DISK_TEXT_MAX, "unprotect: the backup began to take the disk over");
    else if (r)
        snprintf(why, DISK_TEXT_MAX, "unprotect: the shared disk or its journal: %s", strerror(-r));
    if (!r) d->phase = DISK_ALONE;
    pthread_cond_broadcast(&d->room);
    return r;
}
