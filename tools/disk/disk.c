/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "disk_names.h"
#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

/* ---- start and end ---- */

static void init(struct disk *d, const struct disk_options *o)
{
    pthread_condattr_t attr;

    memset(d, 0, sizeof(*d));
    d->o = *o;
    pthread_mutex_init(&d->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&d->room, &attr);
    pthread_cond_init(&d->work, &attr);
    pthread_cond_init(&d->changed, &attr);
    pthread_condattr_destroy(&attr);
    disk_store_init(&d->store);
    disk_ranges_init(&d->ranges);
    disk_bitmap_init(&d->bitmap);
    disk_queue_init(&d->queue);
    disk_journal_init(&d->journal);
}

/* Whether the state allows the role that is asked for. */
static int decide_role(struct disk *d, bool known, char why[DISK_TEXT_MAX])
{
    struct disk_state *s = &d->state;

    d->primary = d->o.primary;
    if (!d->o.primary || !known) return 0;
    if (d->o.force_primary) {
        /* Nobody can say whose data is newer: the base is given up, the generation raised. */
        if (!s->primary || s->secured) {
            s->generation++;
            memset(s->base, 0, 16);
        }
        s->inconsistent = false;
        return 0;
    }
    if (!s->primary)
        snprintf(why, DISK_TEXT_MAX,
                 "%s is a backup's disk (generation %" PRIu64
                 "%s): it may be stale and is not served; synchronise it from the other host, or "
                 "start it with --force-primary",
                 d->o.path, s->generation, s->inconsistent ? ", inconsistent" : "");
    else if (s->secured)
        snprintf(why, DISK_TEXT_MAX,
                 "%s was protected when its instance ended (generation %" PRIu64
                 "): the other host may have gone on; synchronise it from there, or start it with "
                 "--force-primary",
                 d->o.path, s->generation);
    else
        return 0;
    return -EPERM;
}

/* The state on the medium, and whether the bitmap tells the truth. */
static int load_state(struct disk *d, bool *known, bool *trusted, char why[DISK_TEXT_MAX])
{
    uint8_t boot[16];
    int r;

    r = disk_state_load(&d->state, d->o.state_dir);
    *known = r == 0;
    *trusted = false;
    if (r == -EBADMSG)
        snprintf(why, DISK_TEXT_MAX,
                 "%s/state is damaged; remove it if %s holds the data that is wanted",
                 d->o.state_dir, d->o.path);
    else if (r && r != -ENOENT)
        snprintf(why, DISK_TEXT_MAX, "cannot read %s/state: %s", d->o.state_dir, strerror(-r));
    if (r && r != -ENOENT) return r;
    if (!*known) return 0;
    if (d->state.size != d->store.size) {
        snprintf(why, DISK_TEXT_MAX,
                 "%s has %" PRIu64 " octets but had %" PRIu64
                 "; a changed size is a new disk: xentwin-disk reset",
                 d->o.path, d->store.size, d->state.size);
        return -EINVAL;
    }
    disk_boot_id(boot);
    *trusted = d->state.clean || (!disk_id_none(boot) && !memcmp(boot, d->state.boot, 16));
    return 0;
}

/* Brings what was committed to the disk; *complete as in disk_journal_open. */
static int recover_journal(struct disk *d, bool *complete, char why[DISK_TEXT_MAX])
{
    char path[PATH_MAX];
    int r;

    snprintf(path, sizeof(path), "%s/journal", d->o.state_dir);
    r = disk_journal_open(&d->journal, path, d->o.journal_bytes, complete);
    if (!r && d->journal.seal_count) {
        struct disk_seal last = d->journal.seals[d->journal.seal_count - 1];
        disk_log("%s: %u committed epochs are applied, up to %" PRIu64, d->o.path,
                 d->journal.seal_count, last.epoch);
        r = disk_journal_apply(&d->journal, &last, &d->store);
        if (!r) r = disk_journal_publish_applied(&d->journal, &last);
        if (!r) d->state.inconsistent = false;
    }
    if (!r) r = disk_journal_reset(&d->journal);
    if (!r) r = disk_journal_flush(&d->journal);
    if (r) snprintf(why, DISK_TEXT_MAX, "journal %.900s: %s", path, strerror(-r));
    return r;
}

static int open_all(struct disk *d, char why[DISK_TEXT_MAX])
{
    char path[PATH_MAX];
    bool known, trusted, fresh, complete;
    int r;

    r = disk_store_open(&d->store, d->o.path);
    if (r) {
        snprintf(why, DISK_TEXT_MAX, "cannot use %s as a disk: %s", d->o.path, strerror(-r));
        return r;
    }
    r = load_state(d, &known, &trusted, why);
    if (!r) r = decide_role(d, known, why);
    if (!r) r = recover_journal(d, &complete, why);
    if (r) return r;
    snprintf(path, sizeof(path), "%s/bitmap", d->o.state_dir);
    r = disk_bitmap_open(&d->bitmap, path, d->store.size, &fresh);
    if (!known || !trusted || fresh || !complete) memset(d->state.base, 0, 16);
    if (known && !complete) {
        disk_log("%s: the journal of its last session is not whole", d->o.path);
        /* An epoch may be there in part. */
        if (!d->primary) d->state.inconsistent = true;
    }
    if (!r) r = disk_queue_allocate(&d->queue, d->o.queue_bytes);
    if (r) {
        snprintf(why, DISK_TEXT_MAX, "bitmap %.900s: %s", path, strerror(-r));
        return r;
    }
    d->state.size = d->store.size;
    d->state.clean = false;
    disk_boot_id(d->state.boot);
    /* A primary that becomes a backup is written down when it begins to change. */
    if (!known || d->primary) d->state.primary = d->primary;
    if (d->o.force_primary) d->state.secured = false;
    r = disk_state_save(&d->state, d->o.state_dir);
    if (r) snprintf(why, DISK_TEXT_MAX, "cannot write %s/state: %s", d->o.state_dir, strerror(-r));
    d->opened = !r;
    return r;
}

int disk_open(struct disk *d, const struct disk_options *o, char why[DISK_TEXT_MAX])
{
    init(d, o);
    return o->shared ? disk_shared_open(d, why) : open_all(d, why);
}

int disk_start(struct disk *d)
{
    if (d->shared) return disk_shared_start(d);
    if (d->primary) return 0;
    int r = pthread_create(&d->applier, NULL, disk_applier, d);
    d->applier_runs = r == 0;
    return -r;
}

/*
 * What the kernel could not write is neither on the medium nor marked dirty any more, and nobody knows which extents that were: the
 * base is given up, so that the next synchronisation looks at all of them.
 */
static int flush_store(struct disk *d)
{
    int r = disk_store_flush(&d->store);

    if (!r || d->shared) return r;
    pthread_mutex_lock(&d->lock);
    memset(d->state.base, 0, 16);
    int saved = disk_state_save(&d->state, d->o.state_dir);
    if (saved) disk_log("%s: state not written: %s", d->o.path, strerror(-saved));
    disk_bitmap_set(&d->bitmap, 0, d->store.size);
    if (d->link)
        disk_link_lost(d, d->link, "the primary's own disk failed at a flush: %s", strerror(-r));
    pthread_mutex_unlock(&d->lock);
    return r;
}

void disk_close(struct disk *d)
{
    int r = 0;

    pthread_mutex_lock(&d->lock);
    d->stopping = true;
    if (d->link) disk_link_lost(d, d->link, "the instance ends");
    pthread_cond_broadcast(&d->work);
    while (d->link)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
    if (d->applier_runs) pthread_join(d->applier, NULL);
    if (d->opened) {
        r = flush_store(d);
        if (!r) r = disk_bitmap_flush(&d->bitmap);
        d->state.clean = true;
        if (!r) r = disk_state_save(&d->state, d->o.state_dir);
        if (r) disk_log("%s: no clean mark: %s", d->o.path, strerror(-r));
    }
    if (d->shared) disk_shared_close(d);
    disk_journal_dispose(&d->journal);
    disk_queue_dispose(&d->queue);
    disk_bitmap_dispose(&d->bitmap);
    disk_ranges_dispose(&d->ranges);
    disk_store_dispose(&d->store);
    pthread_cond_destroy(&d->room);
    pthread_cond_destroy(&d->work);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
}

/* ---- the guest ---- */

/* After a change that failed nobody knows what the disk holds there: the twins may differ, so the
 * protection ends, and the bits of the range stay. */
static void change_end(struct disk *d, struct disk_range *range, int r, uint64_t size,
                       uint64_t offset, struct disk_loan *loan)
{
    pthread_mutex_lock(&d->lock);
    if (r) disk_bitmap_set(&d->bitmap, offset, size);
    if (r && d->link)
        disk_link_lost(d, d->link, "the primary's own disk failed at %" PRIu64 ": %s", offset,
                       strerror(-r));
    if (loan) disk_loan_end(d, loan);
    disk_range_release(&d->ranges, range);
    pthread_mutex_unlock(&d->lock);
}

/*
 * A twin that waits has its device open already, and the kernel looks for partitions, QEMU for a geometry: they see a committed
 * state that is not the last. The guest itself reads after the promotion only.
 */
static bool may_look(struct disk *d)
{
    if (d->primary) return true;
    pthread_mutex_lock(&d->lock);
    bool yes = d->primary || d->phase == DISK_SYNCED || d->phase == DISK_PROTECTED;
    pthread_mutex_unlock(&d->lock);
    return yes;
}

int disk_read(struct disk *d, void *buf, uint32_t size, uint64_t offset)
{
    if (d->shared) return disk_shared_read(d, buf, size, offset);
    return may_look(d) ? disk_store_read(&d->store, buf, size, offset) : -EIO;
}

/* Takes the range and queues the change. False: this is no primary. */
static bool change_begin(struct disk *d, struct disk_range *range, const void *buf, uint64_t size,
                         uint64_t offset, struct disk_loan *loan)
{
    struct timespec until = disk_deadline(d->o.limit_ms);

    pthread_mutex_lock(&d->lock);
    bool yes = d->primary;
    if (yes) {
        disk_range_take(&d->ranges, range, offset, size, &d->lock);
        disk_replicate(d, buf, size, offset, false, until, loan);
    }
    pthread_mutex_unlock(&d->lock);
    return yes;
}

int disk_write(struct disk *d, const void *buf, uint32_t size, uint64_t offset, bool fua)
{
    struct disk_loan loan = {.done = true};
    struct disk_range range;
    int r;

    if (d->shared) return disk_shared_change(d, DISK_CHANGE_WRITE, buf, size, offset, fua);
    if (!change_begin(d, &range, buf, size, offset, &loan)) return -EIO;
    r = disk_store_write(&d->store, buf, size, offset);
    change_end(d, &range, r, size, offset, &loan);
    if (!r && fua) r = flush_store(d);
    return r;
}

int disk_zero(struct disk *d, uint32_t size, uint64_t offset, bool trim, bool fua)
{
    struct disk_range range;
    int r;

    if (d->shared)
        return disk_shared_change(d, trim ? DISK_CHANGE_PUNCH : DISK_CHANGE_ZERO, NULL, size,
                                  offset, fua);
    if (!change_begin(d, &range, NULL, size, offset, NULL)) return -EIO;
    r = disk_store_zero(&d->store, size, offset, trim);
    change_end(d, &range, r, size, offset, NULL);
    if (!r && fua) r = flush_store(d);
    return r;
}

/* Trimmed space reads as zeros here and at the backup, or nothing happens: so the disk is asked first
 * and the backup told then. */
int disk_trim(struct disk *d, uint32_t size, uint64_t offset, bool fua)
{
    struct timespec until = disk_deadline(d->o.limit_ms);
    struct disk_range range;
    int r;

    if (d->shared) return disk_shared_change(d, DISK_CHANGE_TRIM, NULL, size, offset, fua);
    pthread_mutex_lock(&d->lock);
    bool yes = d->primary;
    if (yes) {
        disk_range_take(&d->ranges, &range, offset, size, &d->lock);
        disk_bitmap_set(&d->bitmap, offset, size);
    }
    pthread_mutex_unlock(&d->lock);
    if (!yes) return -EIO;
    r = disk_store_punch(&d->store, size, offset);
    if (!r) {
        pthread_mutex_lock(&d->lock);
        disk_replicate(d, NULL, size, offset, true, until, NULL);
        pthread_mutex_unlock(&d->lock);
    }
    bool done = !r;
    if (r == -EOPNOTSUPP) r = 0;
    change_end(d, &range, r, size, offset, NULL);
    if (done && fua) r = flush_store(d);
    return r;
}

int disk_flush(struct disk *d)
{
    if (d->shared) return disk_shared_flush(d);
    return d->primary ? flush_store(d) : -EIO;
}

/* ---- both roles ---- */

void disk_event(struct disk *d, const char *format, ...)
{
    char text[DISK_TEXT_MAX];
    va_list al;

    va_start(al, format);
    vsnprintf(text, sizeof(text), format, al);
    va_end(al);
    if (d->event) d->event(d, text);
}

void disk_link_lost(struct disk *d, struct disk_link *l, const char *format, ...)
{
    char reason[256];
    uint64_t one = 1;
    va_list al;

    if (l->dead) return;
    l->dead = true;
    va_start(al, format);
    vsnprintf(reason, sizeof(reason), format, al);
    va_end(al);
    if (d->phase != DISK_BROKEN) d->phase = DISK_LOST;
    disk_log("%s: link lost: %s", d->o.path, reason);
    disk_event(d, "lost %s", reason);
    (void)!write(l->wake, &one, sizeof(one));
    pthread_cond_broadcast(&d->room);
    pthread_cond_broadcast(&d->work);
    pthread_cond_broadcast(&d->changed);
}

void disk_link_refuse(struct disk *d, struct disk_link *l, const char *format, ...)
{
    char text[DISK_SENTENCE_MAX];
    va_list al;

    va_start(al, format);
    struct disk_frame f = disk_frame_error(text, format, al);
    va_end(al);
    pthread_mutex_unlock(&d->lock);
    (void)disk_link_send(l, &f, text, DISK_ALIVE_MS);
    pthread_mutex_lock(&d->lock);
    disk_link_lost(d, l, "%s", text);
}

void disk_link_answer(struct disk *d, struct disk_link *l, struct disk_frame *f,
                      const void *payload)
{
    pthread_mutex_unlock(&d->lock);
    int r = disk_link_send(l, f, payload, d->o.limit_ms);
    pthread_mutex_lock(&d->lock);
    if (r) disk_link_lost(d, l, "%s", disk_link_error(r));
}

void disk_link_over(struct disk *d, struct disk_link *l)
{
    d->link = NULL;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    disk_link_free(l);
}

int disk_change_state(struct disk *d, const struct disk_state *fresh)
{
    int r = disk_state_save(fresh, d->o.state_dir);

    if (!r) d->state = *fresh;
    return r;
}

bool disk_wait_unlinked(struct disk *d, int64_t ms)
{
    struct timespec until = disk_deadline(ms);

    while (d->link)
        if (pthread_cond_timedwait(&d->changed, &d->lock, &until)) break;
    return !d->link;
}

static void *(*link_thread(const struct disk *d))(void *)
{
    if (d->shared) return d->primary ? disk_shared_primary_link : disk_shared_backup_link;
    return d->primary ? disk_primary_link : disk_backup_link;
}

int disk_link_start(struct disk *d, int in, int out, char why[DISK_TEXT_MAX])
{
    struct disk_link *l = disk_link_new(d, in, out);
    pthread_attr_t attr;
    int r = -ENOMEM;

    if (!l) {
        snprintf(why, DISK_TEXT_MAX, "the link's fds cannot be used");
        close(in);
        if (out != in) close(out);
        return r;
    }
    pthread_mutex_lock(&d->lock);
    if (d->link && d->primary && !d->link->dead)
        snprintf(why, DISK_TEXT_MAX, "there is a link already");
    else if (d->phase == DISK_BROKEN)
        snprintf(why, DISK_TEXT_MAX, "the disk failed and needs a new start");
    else if (d->shared && (d->shared->journaling || d->shared->fenced))
        snprintf(why, DISK_TEXT_MAX,
                 d->shared->fenced ? "the disk belongs to another host"
                                   : "unprotect the disk first");
    else {
        if (d->link) disk_link_lost(d, d->link, "replaced by a new link");
        if (disk_wait_unlinked(d, d->o.limit_ms)) {
            pthread_attr_init(&attr);
            pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
            d->link = l;
            r = -pthread_create(&l->thread, &attr, link_thread(d), l);
            pthread_attr_destroy(&attr);
            if (r) d->link = NULL;
        }
        if (r) snprintf(why, DISK_TEXT_MAX, "the old link does not end");
    }
    pthread_mutex_unlock(&d->lock);
    if (r) disk_link_free(l);
    return r;
}

static const char *phase_name(const struct disk *d)
{
    static const char *const names[] = {"alone",     "linked", "syncing", "synced",
                                        "protected", "lost",   "broken"};

    if (!d->primary && d->phase == DISK_ALONE) return "idle";
    return names[d->phase];
}

void disk_status(struct disk *d, char text[DISK_TEXT_MAX])
{
    char uuid[33], path[DISK_PATH_MAX], shared[DISK_PATH_MAX];

    (void)disk_escape_path(d->o.path, path, sizeof(path));
    (void)disk_escape_path(d->o.shared ? d->o.shared : "-", shared, sizeof(shared));
    pthread_mutex_lock(&d->lock);
    disk_id_text(uuid, d->state.uuid);
    snprintf(text, DISK_TEXT_MAX,
             "role=%s state=%s generation=%" PRIu64 " epoch=%" PRIu64 " committed=%" PRIu64
             " applied=%" PRIu64 " dirty_bytes=%" PRIu64 " queued_bytes=%" PRIu64
             " journal_bytes=%" PRIu64 " sync_done=%" PRIu64 " sync_total=%" PRIu64
             " link=%s size=%" PRIu64 " path=%s uuid=%s shared=%s",
             d->primary ? "primary" : "backup", phase_name(d), d->state.generation,
             d->primary ? d->epoch : d->journal.sealed,
             d->primary ? d->committed : d->journal.committed,
             d->primary && !d->shared ? d->committed : d->journal.applied,
             disk_bitmap_dirty_bytes(&d->bitmap), d->queue.reserved - d->queue.sent,
             disk_journal_bytes(&d->journal), d->sync_done, d->sync_total,
             d->link && !d->link->dead ? "up" : "down", d->store.size, path, uuid, shared);
    pthread_mutex_unlock(&d->lock);
}
