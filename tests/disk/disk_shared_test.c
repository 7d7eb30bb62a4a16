/* SPDX-License-Identifier: LGPL-2.1-only */
#include "shared_world.h"

/* ---- epochs ---- */

static void t_shared_epoch_reaches_the_disk_by_commit_only(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 8 * BLOCK, 7);
    assert_int_equal(disk_zero(&w->a.d, BLOCK, 9 * BLOCK, false, true), 0);
    assert_int_equal(seen(&w->a, 8 * BLOCK), 7);
    assert_int_equal(seen(&w->a, 9 * BLOCK), 0);
    assert_int_equal(seen(&w->a, 10 * BLOCK), 1);
    barrier(w, 1);
    put(&w->a, 8 * BLOCK, 9);
    assert_int_equal(on_disk(w, 8 * BLOCK), 1);
    commit(w, 1);
    assert_true(wait_applied(&w->a, 1));
    assert_int_equal(on_disk(w, 8 * BLOCK), 7);
    assert_int_equal(on_disk(w, 9 * BLOCK), 0);
    assert_int_equal(seen(&w->a, 8 * BLOCK), 9);
}

static void t_shared_promotion_drops_what_came_later(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    commit(w, 1);
    put(&w->a, 0, 8);
    barrier(w, 2);
    put(&w->a, 0, 9);
    barrier(w, 3);
    put(&w->a, 0, 11);
    assert_int_equal(disk_promote(&w->b.d, 4, w->why), -EINVAL);
    assert_int_equal(disk_promote(&w->b.d, 2, w->why), 0);
    assert_int_equal(on_disk(w, 0), 8);
    assert_int_equal(seen(&w->b, 0), 8);
    put(&w->b, 0, 10);
    assert_int_equal(on_disk(w, 0), 10);
    /* The old one neither reads nor writes, nor may it go on. */
    assert_true(wait_for(&w->a, DISK_LOST));
    assert_int_equal(disk_unprotect(&w->a.d, w->why), -ESTALE);
    assert_int_equal(seen(&w->a, 0), -1);
    assert_int_equal(on_disk(w, 0), 10);
}

static void t_shared_unprotect_brings_all_to_the_disk(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    put(&w->a, BLOCK, 8);
    assert_int_equal(disk_unprotect(&w->a.d, w->why), 0);
    assert_int_equal(disk_unprotect(&w->a.d, w->why), 0);
    assert_int_equal(on_disk(w, 0), 7);
    assert_int_equal(on_disk(w, BLOCK), 8);
    put(&w->a, 0, 9);
    assert_int_equal(on_disk(w, 0), 9);
    assert_true(wait_for(&w->b, DISK_LOST));
    assert_int_equal(disk_promote(&w->b.d, 1, w->why), -ESTALE);
    assert_string_equal(w->why, "promote: the primary went on without this side");
    usleep(1500000); /* it looks each second whether the disk is still its own */
    put(&w->a, 0, 10);
    assert_int_equal(on_disk(w, 0), 10);
}

/* A backup that has begun to take over, and stands still. */
static void t_shared_disputed_disk_waits_for_the_other(void **state)
{
    struct world *w = *state;
    struct disk_direct s;

    w->a.o.limit_ms = 2000;
    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    struct disk_claim other = w->a.d.shared->own;
    other.generation++;
    other.state = DISK_CLAIM_TAKING;
    assert_int_equal(disk_direct_open(&s, w->journal, O_RDWR), 0);
    assert_int_equal(disk_claims_write(&s, &other), 0);
    commit(w, 1);
    usleep(300000);
    assert_int_equal(on_disk(w, 0), 1);
    assert_int_equal(disk_unprotect(&w->a.d, w->why), -EBUSY);
    assert_int_equal(on_disk(w, 0), 1);
    other.state = DISK_CLAIM_VOID;
    assert_int_equal(disk_claims_write(&s, &other), 0);
    assert_int_equal(disk_unprotect(&w->a.d, w->why), 0);
    assert_int_equal(on_disk(w, 0), 7);
    disk_direct_close(&s);
}

static void t_shared_no_lease_applies_nothing(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    assert_int_equal(disk_commit(&w->b.d, 1, w->why), 0);
    /* The backup says nothing any more. */
    pthread_mutex_lock(&w->b.d.lock);
    usleep(1000 * (DISK_LEASE_MS + 300));
    assert_int_equal(disk_commit(&w->a.d, 1, w->why), 0);
    usleep(500000);
    assert_int_equal(on_disk(w, 0), 1);
    pthread_mutex_unlock(&w->b.d.lock);
    assert_true(wait_applied(&w->a, 1));
    assert_int_equal(on_disk(w, 0), 7);
}

static void t_shared_promotion_waits_for_the_lease(void **state)
{
    struct world *w = *state;

    protect(w);
    barrier(w, 1);
    pthread_mutex_lock(&w->b.d.lock);
    int64_t granted = w->b.d.shared->granted_until_ms;
    pthread_mutex_unlock(&w->b.d.lock);
    assert_int_equal(disk_promote(&w->b.d, 1, w->why), 0);
    assert_true(granted > 0 && disk_shared_now_ms() >= granted);
}

/* ---- several at a time ---- */

#define WRITERS 3
#define REGION (64 * BLOCK)

struct writer {
    pthread_t thread;
    struct host *h;
    uint64_t start; /* of its own region */
    atomic_bool end;
    bool wrong;
    uint8_t last[REGION / BLOCK];
};

/* Writes, and reads back what it wrote before, wherever that is by now. */
static void *write_and_read(void *arg)
{
    struct writer *w = arg;
    unsigned x = (unsigned)w->start + 1;

    memset(w->last, 1, sizeof(w->last));
    while (!w->end && !w->wrong) {
        x = x * 1103515245 + 12345;
        unsigned at = (x >> 8) % (REGION / BLOCK), look = (x >> 16) % (REGION / BLOCK);
        uint8_t buf[BLOCK];
        w->last[at] = (uint8_t)(x >> 20);
        memset(buf, w->last[at], sizeof(buf));
        if (disk_write(&w->h->d, buf, sizeof(buf), w->start + at * BLOCK, false)) w->wrong = true;
        if (seen(w->h, w->start + look * BLOCK) != w->last[look]) w->wrong = true;
    }
    return NULL;
}

static void t_shared_busy_guest_reads_what_it_wrote(void **state)
{
    struct world *w = *state;
    struct writer writers[WRITERS];

    protect(w);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.h = &w->a, .start = i * REGION};
        assert_int_equal(pthread_create(&writers[i].thread, NULL, write_and_read, &writers[i]), 0);
    }
    for (uint64_t n = 1; n <= 12; n++) {
        barrier(w, n);
        commit(w, n);
        usleep(20000);
    }
    assert_int_equal(disk_unprotect(&w->a.d, w->why), 0);
    usleep(50000);
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i].end = true;
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
        assert_false(writers[i].wrong);
        for (unsigned k = 0; k < REGION / BLOCK; k++)
            assert_int_equal(on_disk(w, writers[i].start + k * BLOCK), writers[i].last[k]);
    }
}

/* ---- not the same storage ---- */

static void t_shared_copy_of_the_journal_is_refused(void **state)
{
    struct world *w = *state;
    char command[300], copy[96];

    assert_int_equal(host_open(&w->a, true, false), 0);
    snprintf(copy, sizeof(copy), "%s/copy", w->dir);
    snprintf(command, sizeof(command), "cp %s %s", w->journal, copy);
    assert_int_equal(system(command), 0);
    w->b.o.shared = copy;
    assert_int_equal(host_open(&w->b, false, false), 0);
    link_hosts(w);
    assert_true(wait_for(&w->a, DISK_LOST));
    assert_non_null(strstr(w->a.lost, "not the same storage"));
}

static void t_shared_other_disk_is_refused(void **state)
{
    struct world *w = *state;
    char other[96];

    snprintf(other, sizeof(other), "%s/other", w->dir);
    make_file(other, SIZE, 2);
    w->b.o.path = other;
    assert_int_equal(host_open(&w->a, true, false), 0);
    assert_int_equal(host_open(&w->b, false, false), 0);
    link_hosts(w);
    assert_true(wait_for(&w->a, DISK_LINKED));
    assert_int_equal(disk_sync(&w->a.d, 0, w->why), 0);
    assert_true(wait_for(&w->a, DISK_LOST));
    assert_non_null(strstr(w->a.lost, "not the same storage"));
}

static void t_shared_foreign_journal_is_refused(void **state)
{
    struct world *w = *state;

    make_file(w->journal, 65536, 5);
    assert_int_equal(host_open(&w->a, true, false), -EPERM);
    assert_non_null(strstr(w->a.why, "no journal of ours"));
    w->a.o.shared = w->disk;
    assert_int_equal(host_open(&w->a, true, false), -ELOOP);
    assert_int_equal(on_disk(w, 0), 1);
}

/* ---- who may serve ---- */

static void t_shared_disk_given_back_is_anybodys(void **state)
{
    struct world *w = *state;

    assert_int_equal(host_open(&w->a, true, false), 0);
    assert_int_equal(host_open(&w->b, true, false), -EPERM);
    host_close(&w->a);
    assert_int_equal(host_open(&w->b, true, false), 0);
    assert_int_equal(host_open(&w->a, true, false), -EPERM);
    host_close(&w->b);
    assert_int_equal(host_open(&w->a, true, false), 0);
}

static void t_shared_forced_start_has_all_that_was_written(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    put(&w->a, BLOCK, 8);
    host_close(&w->a);
    host_close(&w->b);
    assert_int_equal(on_disk(w, 0), 1);
    assert_int_equal(host_open(&w->a, true, false), -EPERM);
    assert_int_equal(host_open(&w->b, true, false), -EPERM);
    assert_int_equal(on_disk(w, 0), 1);
    assert_int_equal(host_open(&w->b, true, true), 0);
    assert_int_equal(on_disk(w, 0), 7);
    assert_int_equal(on_disk(w, BLOCK), 8);
    assert_int_equal(host_open(&w->a, true, false), -EPERM);
}

static void t_shared_disk_forced_away_is_noticed(void **state)
{
    struct world *w = *state;
    uint8_t buf[BLOCK] = {0};

    assert_int_equal(host_open(&w->a, true, false), 0);
    assert_int_equal(host_open(&w->b, true, true), 0);
    usleep(1500000);
    assert_int_equal(disk_write(&w->a.d, buf, sizeof(buf), 0, false), -EIO);
    put(&w->b, 0, 3);
}

/* ---- no room ---- */

static uint8_t big[SIZE];

static void *write_much(void *arg)
{
    struct host *h = arg;

    return disk_write(&h->d, big, SIZE, 0, false) ? arg : NULL;
}

static void t_shared_full_journal_ends_the_link_and_the_write_waits(void **state)
{
    struct world *w = *state;
    pthread_t threads[3];
    void *failed;

    memset(big, 6, sizeof(big));
    w->a.o.limit_ms = 1000;
    protect(w);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_much, &w->a), 0);
    assert_true(wait_for(&w->a, DISK_LOST));
    assert_non_null(strstr(w->a.lost, "the shared journal is full"));
    assert_int_equal(on_disk(w, 0), 1);
    assert_int_equal(disk_unprotect(&w->a.d, w->why), 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    for (uint64_t at = 0; at < SIZE; at += BLOCK)
        assert_int_equal(on_disk(w, at), 6);
}

/* ---- a full journal, and one that is damaged ---- */

static bool has_room(struct host *h)
{
    pthread_mutex_lock(&h->d.lock);
    bool yes = disk_journal_has_room(&h->d.journal, BLOCK);
    pthread_mutex_unlock(&h->d.lock);
    return yes;
}

/* Epochs in which nothing is written do not reach into what is not applied. Returns the last one that was sealed. */
static uint64_t fill(struct world *w, unsigned barriers)
{
    uint64_t n = 0;

    w->a.o.hold = true;
    protect(w);
    for (unsigned i = 0; has_room(&w->a); i++)
        put(&w->a, i % 600 * BLOCK, 7);
    while (n < barriers && !disk_barrier(&w->a.d, n + 1, w->why)) {
        n++;
        assert_true(wait_sealed(&w->b, n));
    }
    return n;
}

static void t_shared_full_journal_is_not_written_over(void **state)
{
    struct world *w = *state;

    assert_int_equal(fill(w, 1000), DISK_SEALS_MAX);
    assert_true(w->a.lost[0] != 0);
    assert_int_equal(disk_unprotect(&w->a.d, w->why), 0);
    for (unsigned i = 0; i < 600; i++)
        assert_int_equal(on_disk(w, i * BLOCK), 7);
}

static void t_shared_full_journal_can_be_promoted(void **state)
{
    struct world *w = *state;
    uint64_t n = fill(w, 40);

    assert_int_equal(n, 40);
    disk_shared_stop(&w->a.d);
    assert_int_equal(disk_promote(&w->b.d, n, w->why), 0);
    for (unsigned i = 0; i < 600; i++)
        assert_int_equal(on_disk(w, i * BLOCK), 7);
}

static void damage(struct world *w, off_t at, size_t size)
{
    static const uint8_t zeros[8192];
    int fd = open(w->journal, O_WRONLY | O_CLOEXEC);

    assert_int_equal(pwrite(fd, zeros, size, at), size);
    assert_int_equal(fsync(fd), 0);
    close(fd);
}

static void t_shared_promotion_without_the_journals_slots_fails(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    host_close(&w->a);
    damage(w, DISK_SHARED_BASE + 4096, 8192);
    assert_int_not_equal(disk_promote(&w->b.d, 1, w->why), 0);
    assert_non_null(strstr(w->why, "not whole"));
    assert_int_equal(on_disk(w, 0), 1);
}

static struct disk_claim claim_of(struct world *w)
{
    struct disk_claim two[2];
    struct disk_direct s;
    bool foreign;

    assert_int_equal(disk_direct_open(&s, w->journal, O_RDWR), 0);
    assert_int_equal(disk_claims_read(&s, two, &foreign), 0);
    disk_direct_close(&s);
    return *disk_claims_top(two);
}

static void write_claim(struct world *w, const struct disk_claim *c)
{
    struct disk_direct s;

    assert_int_equal(disk_direct_open(&s, w->journal, O_RDWR), 0);
    assert_int_equal(disk_claims_write(&s, c), 0);
    disk_direct_close(&s);
}

/* Killed while it brought the epoch to the disk, and then a part of that cannot be read. */
static void t_shared_start_in_a_takeover_needs_the_whole_epoch(void **state)
{
    struct world *w = *state;
    struct disk_state s;

    protect(w);
    put(&w->a, 0, 7);
    put(&w->a, BLOCK, 7);
    barrier(w, 1);
    host_close(&w->a);
    host_close(&w->b);
    struct disk_claim c = claim_of(w);
    c.generation++;
    c.state = DISK_CLAIM_ALONE;
    c.epoch = 1;
    memset(c.owner, 5, 16);
    memset(c.token, 0, 16);
    write_claim(w, &c);
    assert_int_equal(disk_state_load(&s, w->b.state), 0);
    memset(s.base, 5, 16);
    s.generation = c.generation;
    s.primary = true;
    assert_int_equal(disk_state_save(&s, w->b.state), 0);
    damage(w, (off_t)disk_journal_offset(DISK_SHARED_BASE, DISK_JOURNAL_MIN, 64 + BLOCK), 64);
    assert_int_equal(host_open(&w->b, true, false), -EBADMSG);
    assert_non_null(strstr(w->b.why, "--force-primary"));
    assert_int_equal(on_disk(w, 0), 1);
    assert_int_equal(host_open(&w->b, true, true), 0);
}

static void t_shared_start_while_another_takes_over_is_refused(void **state)
{
    struct world *w = *state;

    assert_int_equal(host_open(&w->a, true, false), 0);
    put(&w->a, 0, 7);
    struct disk_claim own = w->a.d.shared->own, other = own;
    other.generation++;
    other.state = DISK_CLAIM_TAKING;
    host_close(&w->a);
    write_claim(w, &own);
    write_claim(w, &other);
    assert_int_equal(host_open(&w->a, true, false), -EBUSY);
    assert_non_null(strstr(w->a.why, "begun to take"));
    other.state = DISK_CLAIM_VOID;
    write_claim(w, &other);
    assert_int_equal(host_open(&w->a, true, false), 0);
    assert_int_equal(on_disk(w, 0), 7);
}

/* ---- two that start at once ---- */

struct starter {
    struct host *h;
    pthread_barrier_t *together;
    int r;
};

static void *start(void *arg)
{
    struct starter *s = arg;

    if (s->together) pthread_barrier_wait(s->together);
    s->r = host_open(s->h, true, false);
    return NULL;
}

static void t_shared_two_starts_at_once(void **state)
{
    struct world *w = *state;
    struct starter two[2] = {{.h = &w->a}, {.h = &w->b}};
    pthread_barrier_t together;
    pthread_t threads[2];

    pthread_barrier_init(&together, NULL, 2);
    /* The first time there is no claim at all, then a free one of either. */
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 2; i++) {
            two[i].together = &together;
            assert_int_equal(pthread_create(&threads[i], NULL, start, &two[i]), 0);
        }
        for (int i = 0; i < 2; i++)
            pthread_join(threads[i], NULL);
        /* Who looks a little later finds the other's claim. */
        int loser = two[0].r ? 0 : 1;
        assert_int_equal(two[!loser].r, 0);
        assert_true(two[loser].r == -EBUSY || two[loser].r == -EPERM);
        host_close(two[!loser].h);
    }
    pthread_barrier_destroy(&together);
}

static void t_shared_claim_that_is_replaced_does_not_count(void **state)
{
    struct world *w = *state;
    struct starter a = {.h = &w->a};
    struct disk_claim other;
    pthread_t thread;

    w->a.o.settle_ms = 1000;
    assert_int_equal(host_open(&w->a, true, false), 0);
    other = w->a.d.shared->own;
    host_close(&w->a);
    /* The other host found our free claim and takes the next block; then we both take the next after its own. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&thread, NULL, start, &a), 0);
        usleep(300000);
        other.owner[0]++;
        other.generation++;
        write_claim(w, &other);
        pthread_join(thread, NULL);
        assert_int_equal(a.r, -EBUSY);
        assert_non_null(strstr(w->a.why, "in the same moment"));
        assert_int_equal(host_open(&w->a, true, false), -EPERM);
        other.state = DISK_CLAIM_FREE;
        write_claim(w, &other);
        other.state = DISK_CLAIM_ALONE;
    }
}

#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_shared_epoch_reaches_the_disk_by_commit_only),
        T(t_shared_promotion_drops_what_came_later),
        T(t_shared_unprotect_brings_all_to_the_disk),
        T(t_shared_disputed_disk_waits_for_the_other),
        T(t_shared_no_lease_applies_nothing),
        T(t_shared_promotion_waits_for_the_lease),
        T(t_shared_busy_guest_reads_what_it_wrote),
        T(t_shared_copy_of_the_journal_is_refused),
        T(t_shared_other_disk_is_refused),
        T(t_shared_foreign_journal_is_refused),
        T(t_shared_disk_given_back_is_anybodys),
        T(t_shared_forced_start_has_all_that_was_written),
        T(t_shared_disk_forced_away_is_noticed),
        T(t_shared_full_journal_ends_the_link_and_the_write_waits),
        T(t_shared_full_journal_is_not_written_over),
        T(t_shared_full_journal_can_be_promoted),
        T(t_shared_promotion_without_the_journals_slots_fails),
        T(t_shared_start_in_a_takeover_needs_the_whole_epoch),
        T(t_shared_start_while_another_takes_over_is_refused),
        T(t_shared_two_starts_at_once),
        T(t_shared_claim_that_is_replaced_does_not_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
