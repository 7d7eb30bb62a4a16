/* SPDX-License-Identifier: LGPL-2.1-only */
/* The backup's disk: committed epochs are brought to it, and at last it is promoted or dropped. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

/* Under the lock, given back meanwhile: applies what is committed. */
static int apply_committed(struct disk *d)
{
    struct disk_seal to = *disk_journal_find(&d->journal, d->journal.committed);
    int r;

    d->applying = true;
    pthread_mutex_unlock(&d->lock);
    r = disk_journal_apply(&d->journal, &to, &d->store);
    pthread_mutex_lock(&d->lock);
    if (!r) r = disk_journal_publish_applied(&d->journal, &to);
    if (!r && d->state.inconsistent) {
        struct disk_state fresh = d->state;
        fresh.inconsistent = false;
        r = disk_change_state(d, &fresh);
    }
    pthread_mutex_unlock(&d->lock);
    if (!r) r = disk_journal_flush(&d->journal);
    pthread_mutex_lock(&d->lock);
    if (!r) disk_journal_release(&d->journal);
    if (!r && !d->appending) disk_journal_rewind(&d->journal);
    d->applying = false;
    return r;
}

void *disk_applier(void *arg)
{
    struct disk *d = arg;

    pthread_mutex_lock(&d->lock);
    while (!d->primary && d->phase != DISK_BROKEN) {
        if (d->journal.committed > d->journal.applied) {
            int r = apply_committed(d);
            if (r) {
                d->phase = DISK_BROKEN;
                d->state.inconsistent = true;
                memset(d->state.base, 0, 16);
                (void)disk_state_save(&d->state, d->o.state_dir);
                disk_log("%s: cannot apply what was committed: %s", d->o.path, strerror(-r));
                if (d->link)
                    disk_link_lost(d, d->link, "the backup's disk failed: %s", strerror(-r));
            }
            pthread_cond_broadcast(&d->changed);
            continue;
        }
        if (d->stopping) break;
        pthread_cond_wait(&d->work, &d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

int disk_wait_applied(struct disk *d)
{
    while (d->phase != DISK_BROKEN && (d->applying || d->journal.applied < d->journal.committed))
        pthread_cond_wait(&d->changed, &d->lock);
    return d->phase == DISK_BROKEN ? -EIO : 0;
}

static int may_promote(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    if (d->primary)
        snprintf(why, DISK_TEXT_MAX, "promote: this is the primary already");
    else if (d->phase == DISK_BROKEN)
        snprintf(why, DISK_TEXT_MAX, "promote: the disk failed");
    else if (n == 0)
        snprintf(why, DISK_TEXT_MAX, "promote: checkpoints are numbered from 1");
    else if (n < d->journal.committed)
        snprintf(why, DISK_TEXT_MAX, "promote: checkpoint %" PRIu64 " was committed since",
                 d->journal.committed);
    else if (n > d->journal.committed && !disk_journal_find(&d->journal, n))
        snprintf(why, DISK_TEXT_MAX,
                 "promote: checkpoint %" PRIu64 " is not here (sealed %" PRIu64
                 ", committed %" PRIu64 "%s)",
                 n, d->journal.sealed, d->journal.committed,
                 d->state.inconsistent ? ", disk inconsistent" : "");
    else
        return 0;
    return -EINVAL;
}

/* Under the lock, all is applied. The role is on the medium before anybody is served. */
static int become_primary(struct disk *d)
{
    struct disk_state fresh = d->state;
    int r;

    fresh.primary = true;
    fresh.generation++;
    r = disk_change_state(d, &fresh);
    if (r) return r;
    d->phase = DISK_ALONE;
    d->epoch = d->closed = d->committed = 0;
    d->primary = true;
    pthread_cond_broadcast(&d->work);
    disk_log("%s: promoted, generation %" PRIu64, d->o.path, d->state.generation);
    /* All of it is applied, and the next start does the same. */
    r = disk_journal_reset(&d->journal);
    if (r) disk_log("%s: the journal cannot be emptied: %s", d->o.path, strerror(-r));
    return 0;
}

int disk_promote(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX])
{
    int r;

    if (d->shared) return disk_shared_promote(d, n, why);
    pthread_mutex_lock(&d->lock);
    r = may_promote(d, n, why);
    if (r) goto out;
    if (n > d->journal.committed) r = disk_journal_commit(&d->journal, n);
    pthread_cond_broadcast(&d->work);
    if (d->link) disk_link_lost(d, d->link, "promoted");
    if (!r) r = disk_wait_applied(d);
    /* The link's thread may still append: it must be gone before the journal is emptied. */
    while (d->link)
        pthread_cond_wait(&d->changed, &d->lock);
    if (!r) r = become_primary(d);
    if (r) snprintf(why, DISK_TEXT_MAX, "promote: %s", strerror(-r));
out:
    pthread_mutex_unlock(&d->lock);
    return r;
}

int disk_drop(struct disk *d, char why[DISK_TEXT_MAX])
{
    int r = -EINVAL;

    if (d->shared) return disk_shared_drop(d, why);
    pthread_mutex_lock(&d->lock);
    if (d->primary) {
        snprintf(why, DISK_TEXT_MAX, "drop: this is a primary");
        goto out;
    }
    if (d->link) disk_link_lost(d, d->link, "dropped");
    while (d->link)
        pthread_cond_wait(&d->changed, &d->lock);
    r = disk_wait_applied(d);
    if (!r) r = disk_journal_reset(&d->journal);
    if (!r) d->phase = DISK_ALONE;
    if (r) snprintf(why, DISK_TEXT_MAX, "drop: %s", strerror(-r));
out:
    pthread_mutex_unlock(&d->lock);
    return r;
}
