/* SPDX-License-Identifier: LGPL-2.1-only */
/* Who owns a shared disk, and what its journal still holds for it. */
#include "disk_shared.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "disk_util.h"

int64_t disk_shared_now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The gate of the disk and of the journal's slots. Any thread, with or without the lock. */
static int may_write(void *arg)
{
    struct disk_shared *s = arg;

    if (s->fenced) return -ESTALE;
    if (s->leased && disk_shared_now_ms() >= s->lease_until_ms) return -EAGAIN;
    return 0;
}

/* ---- claims ---- */

int disk_shared_claim(struct disk *d, enum disk_claim_state state)
{
    struct disk_claim fresh = d->shared->own;

    fresh.state = state;
    if (d->shared->fenced) return -ESTALE;
    int r = disk_claims_write(&d->shared->head, &fresh);
    d->shared->unsure = r != 0;
    if (!r) d->shared->own = fresh;
    return r;
}

static void give_up(struct disk *d, const struct disk_claim *top)
{
    d->shared->fenced = true;
    disk_log("%s: another host has taken it over with generation %" PRIu64 " (here %" PRIu64
             "): nothing is read or written here any more",
             d->o.path, top->generation, d->shared->own.generation);
    if (d->link) disk_link_lost(d, d->link, "the disk belongs to another host");
    pthread_cond_broadcast(&d->room);
    pthread_cond_broadcast(&d->changed);
}

static bool same_owner(const struct disk_claim *a, const struct disk_claim *b)
{
    return a->generation == b->generation && !memcmp(a->owner, b->owner, 16);
}

int disk_shared_look(struct disk *d, bool *taking)
{
    const struct disk_claim *own = &d->shared->own, *other;
    struct disk_claim two[2];
    bool foreign;

    *taking = false;
    if (d->shared->fenced) return -ESTALE;
    int r = disk_claims_read(&d->shared->head, two, &foreign);
    if (r) return r;
    const struct disk_claim *top = disk_claims_top(two);
    if (!same_owner(top, own)) {
        give_up(d, top);
        return -ESTALE;
    }
    other = &two[(own->generation + 1) % 2];
    *taking = other->state == DISK_CLAIM_TAKING && other->generation > own->generation;
    return 0;
}

/* Once we are alone a backup that tries sees that, and leaves it. */
int disk_shared_check_owner(struct disk *d)
{
    bool taking;
    int r = disk_shared_look(d, &taking);

    return !r && taking && d->shared->own.state == DISK_CLAIM_PROTECTED ? -EAGAIN : r;
}

int disk_shared_claim_alone(struct disk *d)
{
    int r = disk_shared_check_owner(d);

    return r && r != -EAGAIN ? r : disk_shared_claim(d, DISK_CLAIM_ALONE);
}

/* Whether the newest claim lets us have the disk. */
static int may_own(struct disk *d, const struct disk_claim *top, bool mine, bool foreign,
                   char why[DISK_TEXT_MAX])
{
    if (!top->generation && foreign)
        snprintf(
            why, DISK_TEXT_MAX,
            "%s holds something that is no journal of ours: fill its first 8 KiB with zeros if "
            "it shall be one",
            d->o.shared);
    else if (top->generation && top->size != d->store.size)
        snprintf(why, DISK_TEXT_MAX,
                 "%s has %" PRIu64 " octets but its journal %.400s is of a disk of %" PRIu64
                 "; a changed size is a new disk: give it a new journal",
                 d->o.path, d->store.size, d->o.shared, top->size);
    else if (d->o.force_primary || !top->generation || top->state == DISK_CLAIM_FREE ||
             (mine && top->state == DISK_CLAIM_ALONE))
        return 0;
    else if (mine)
        snprintf(why, DISK_TEXT_MAX,
                 "%s was protected when its instance ended (generation %" PRIu64
                 "): the other host may take it over; if that is certain not to happen, start it "
                 "with --force-primary",
                 d->o.path, top->generation);
    else
        snprintf(why, DISK_TEXT_MAX,
                 "%s is another host's (generation %" PRIu64
                 "), which did not give it back; if that host certainly does not run it, start it "
                 "with --force-primary",
                 d->o.path, top->generation);
    return -EPERM;
}

/* ---- the journal ---- */

int disk_shared_open_journal(struct disk *d)
{
    int fd = open(d->o.shared, O_RDWR | O_CLOEXEC), r;
    uint64_t size = 0, limit = d->o.journal_bytes;
    struct stat st;

    if (fd < 0) return -errno;
    r = fstat(fd, &st) ? -errno : 0;
    if (!r && S_ISBLK(st.st_mode)) {
        /* Pages from the last time that this host had it. */
        if (ioctl(fd, BLKFLSBUF, 0) || ioctl(fd, BLKGETSIZE64, &size)) r = -errno;
        if (!r && size < disk_journal_offset(DISK_SHARED_BASE, 1, 0) + DISK_JOURNAL_MIN)
            r = -ENOSPC;
        uint64_t most = size - disk_journal_offset(DISK_SHARED_BASE, 1, 0);
        if (limit > most) limit = most;
    } else if (!r) {
        /* All of it at once: then each block can be read whole, and a flush need not write its size. */
        off_t end = (off_t)disk_journal_offset(DISK_SHARED_BASE, limit, limit - 1) + 1;
        if (st.st_size < end && ftruncate(fd, end)) r = -errno;
        if (!r && fsync(fd)) r = -errno;
        if (!r) r = -posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    if (!r) r = disk_journal_take(&d->journal, fd, DISK_SHARED_BASE, limit);
    if (r) close(fd);
    return r;
}

/* What is left to apply; -EBADMSG if something is missing that was there. */
static int find_rest(struct disk_journal *j, const struct disk_claim *top)
{
    j->generation = top->epoch ? top->generation - 1 : top->generation;
    int r = disk_journal_load(j);
    /* A claim is written before the first slot of its generation. */
    if (r == 0) return top->epoch ? -EBADMSG : 0;
    if (r > 0) r = disk_journal_find_seals(j, top->epoch ? top->epoch : UINT64_MAX);
    if (!r && !top->epoch) r = disk_journal_find_open(j);
    if (r) return r;
    bool whole = top->epoch ? j->sealed == top->epoch : j->sealed >= j->committed;
    return whole ? 0 : -EBADMSG;
}

/* Brings to the disk what its last owner left in the journal. Nothing in the journal is changed, so it
 * can be done again until there is a new claim. */
static int replay(struct disk *d, const struct disk_claim *top)
{
    struct disk_journal *j = &d->journal;
    int r = disk_shared_open_journal(d);

    if (r || !top->generation || top->state == DISK_CLAIM_FREE) return r;
    r = find_rest(j, top);
    if (r && d->o.force_primary)
        disk_log("%s: its journal is not whole (%s): what is there is applied", d->o.path,
                 strerror(-r));
    else if (r)
        return r;
    struct disk_seal to = {.epoch = j->sealed, .end = j->head, .seq = j->head_seq};
    if (j->head == j->tail) return 0;
    disk_log("%s: %" PRIu64 " octets of its journal are applied", d->o.path, disk_journal_bytes(j));
    return disk_journal_apply(j, &to, &d->store);
}

/* ---- start ---- */

static bool same_claim(const struct disk_claim *a, const struct disk_claim *b)
{
    return same_owner(a, b) && a->state == b->state;
}

static void sleep_until(int64_t ms)
{
    for (int64_t left; (left = ms - disk_shared_now_ms()) > 0;)
        (void)usleep((useconds_t)left * 1000);
}

/* Whoever was here while it was written may have found the disk free, too. */
static int write_claim(struct disk *d, const struct disk_claim seen[2], char why[DISK_TEXT_MAX])
{
    int64_t began = disk_shared_now_ms();
    struct disk_claim two[2];
    bool foreign;
    int r;

    r = disk_claims_read(&d->shared->head, two, &foreign);
    if (r) return r;
    if (!same_claim(&two[0], &seen[0]) || !same_claim(&two[1], &seen[1])) return -EBUSY;
    r = disk_claims_write(&d->shared->head, &d->shared->own);
    int64_t now = disk_shared_now_ms();
    if (r || now - began <= d->o.settle_ms) return r;
    snprintf(
        why, DISK_TEXT_MAX,
        "%.900s took %" PRId64
        " ms to be claimed, in which another host may have started the disk: see that none has, "
        "then let --settle-ms be more than that on all (here %d)",
        d->o.shared, now - began, d->o.settle_ms);
    /* An owner whose claim ours has replaced knows it by then. */
    sleep_until(now + 2 * DISK_WATCH_MS);
    return -ETIMEDOUT;
}

/*
 * Two hosts that find the disk free may both claim it, even in the same block. Each writes its claim within settle_ms of a look
 * that allowed it, or fails; lets settle_ms pass; and looks again. Whoever looked before our claim was there has written by then.
 */
static int claim_first(struct disk *d, const struct disk_claim seen[2], char why[DISK_TEXT_MAX])
{
    struct disk_claim two[2];
    bool foreign;
    int r;

    r = write_claim(d, seen, why);
    if (!r) {
        sleep_until(disk_shared_now_ms() + d->o.settle_ms + 1);
        r = disk_claims_read(&d->shared->head, two, &foreign);
    }
    if (!r && !same_claim(disk_claims_top(two), &d->shared->own)) r = -EBUSY;
    if (r == -EBUSY)
        snprintf(why, DISK_TEXT_MAX, "another host has started %.900s in the same moment",
                 d->o.path);
    return r;
}

static int make_own(struct disk *d, const struct disk_claim two[2], bool keep,
                    char why[DISK_TEXT_MAX])
{
    const struct disk_claim *top = disk_claims_top(two);
    struct disk_claim *own = &d->shared->own;
    struct disk_state fresh = d->state;
    int r = 0;

    *own = (struct disk_claim){.state = DISK_CLAIM_ALONE, .size = d->store.size};
    own->generation = keep ? top->generation : disk_claims_newest(two) + 1;
    memcpy(own->uuid, top->uuid, 16);
    memcpy(own->owner, top->owner, 16);
    if (!top->generation) r = disk_random(own->uuid, 16);
    if (!r && !keep) r = disk_random(own->owner, 16);
    if (r) return r;
    memcpy(fresh.uuid, own->uuid, 16);
    memcpy(fresh.base, own->owner, 16);
    fresh.generation = own->generation;
    fresh.size = own->size;
    fresh.primary = true;
    fresh.clean = fresh.secured = fresh.inconsistent = false;
    disk_boot_id(fresh.boot);
    /* First: a claim whose owner we do not know of would be another host's. */
    r = disk_change_state(d, &fresh);
    if (!r) r = claim_first(d, two, why);
    d->journal.generation = own->generation;
    if (!r) r = disk_journal_reset(&d->journal);
    return r ? r : disk_journal_flush(&d->journal);
}

/* A backup that began to take our disk over may still do so. */
static int undisputed(struct disk *d, const struct disk_claim two[2], char why[DISK_TEXT_MAX])
{
    const struct disk_claim *top = disk_claims_top(two), *other = &two[(top->generation + 1) % 2];

    if (other->state != DISK_CLAIM_TAKING || other->generation < top->generation) return 0;
    snprintf(why, DISK_TEXT_MAX,
             "another host has begun to take %s over (generation %" PRIu64
             "); if that host certainly does not run it, start it with --force-primary",
             d->o.path, other->generation);
    return -EBUSY;
}

static int open_primary(struct disk *d, bool known, char why[DISK_TEXT_MAX])
{
    struct disk_claim two[2];
    bool foreign;
    int r;

    *why = 0;
    r = disk_claims_read(&d->shared->head, two, &foreign);
    if (r) {
        snprintf(why, DISK_TEXT_MAX, "cannot read %s: %s", d->o.shared, strerror(-r));
        return r;
    }
    const struct disk_claim *top = disk_claims_top(two);
    bool mine = top->generation && known && !memcmp(top->owner, d->state.base, 16);
    bool keep = mine && !d->o.force_primary;
    r = may_own(d, top, mine, foreign, why);
    if (!r && keep) r = undisputed(d, two, why);
    if (r) return r;
    r = replay(d, top);
    if (!r) r = make_own(d, two, keep, why);
    d->primary = !r;
    if (!r || *why) return r;
    if (r == -EBADMSG)
        snprintf(why, DISK_TEXT_MAX,
                 "journal %.900s: what the guest wrote last is not whole in it; to go on without, "
                 "start it with --force-primary",
                 d->o.shared);
    else
        snprintf(why, DISK_TEXT_MAX, "journal %.900s: %s", d->o.shared, strerror(-r));
    return r;
}

/* One file cannot be both. */
static bool same_file(struct disk *d)
{
    struct stat a, b;

    if (fstat(d->store.fd, &a) || fstat(d->shared->head.fd, &b)) return false;
    if (S_ISBLK(a.st_mode) && S_ISBLK(b.st_mode)) return a.st_rdev == b.st_rdev;
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int open_files(struct disk *d, char why[DISK_TEXT_MAX])
{
    int flags = d->o.primary ? O_RDWR | O_CREAT : O_RDONLY;
    int r = disk_store_open_shared(&d->store, d->o.path, !d->o.primary);

    if (r) {
        snprintf(why, DISK_TEXT_MAX, "cannot use %s as a shared disk: %s", d->o.path, strerror(-r));
        return r;
    }
    r = disk_direct_open(&d->shared->head, d->o.shared, flags);
    if (!r && same_file(d)) r = -ELOOP;
    /* What an instance of this host left in the page cache must not get there later. */
    if (!r && fdatasync(d->shared->head.fd)) r = -errno;
    if (r)
        snprintf(why, DISK_TEXT_MAX, "cannot use %s as the journal: %s", d->o.shared,
                 r == -ELOOP ? "it is the disk" : strerror(-r));
    return r;
}

int disk_shared_open(struct disk *d, char why[DISK_TEXT_MAX])
{
    struct disk_shared *s = calloc(1, sizeof(*s));
    int r;

    if (!s) {
        snprintf(why, DISK_TEXT_MAX, "no memory");
        return -ENOMEM;
    }
    d->shared = s;
    s->head.fd = -1;
    s->gate = (struct disk_gate){.may_write = may_write, .arg = s};
    d->store.gate = d->journal.gate = &s->gate;
    disk_overlay_init(&s->overlay);
    r = disk_state_load(&d->state, d->o.state_dir);
    if (r && r != -ENOENT) {
        snprintf(why, DISK_TEXT_MAX, "cannot use %s/state: %s", d->o.state_dir, strerror(-r));
        return r;
    }
    bool known = r == 0;
    r = open_files(d, why);
    if (!r && d->o.primary) r = open_primary(d, known, why);
    return r;
}

int disk_shared_start(struct disk *d)
{
    int r = pthread_create(&d->applier, NULL, disk_shared_applier, d);

    d->applier_runs = r == 0;
    return -r;
}

/* ---- end ---- */

void disk_shared_stop(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->shared->stopping = true;
    /* A change that finds the disk protected would try again and again, and nobody else would get the lock. */
    if (d->link) disk_link_lost(d, d->link, "the instance ends");
    pthread_cond_broadcast(&d->room);
    pthread_mutex_unlock(&d->lock);
}

/* All threads are gone. */
void disk_shared_close(struct disk *d)
{
    struct disk_shared *s = d->shared;
    int r = 0;

    /* A protected disk stays claimed as such: the backup decides. */
    if (d->primary && !s->journaling && !s->fenced) {
        r = disk_store_flush(&d->store);
        if (!r) r = disk_shared_check_owner(d);
        if (!r) r = disk_shared_claim(d, DISK_CLAIM_FREE);
        /* Ours it stays, and not one that the other host may take over. */
        if (r && s->unsure) (void)disk_shared_claim_alone(d);
    }
    if (r) disk_log("%s: not given back: %s", d->o.path, strerror(-r));
    disk_overlay_dispose(&s->overlay);
    disk_direct_close(&s->head);
    d->shared = NULL;
    d->store.gate = d->journal.gate = NULL;
    free(s);
}
