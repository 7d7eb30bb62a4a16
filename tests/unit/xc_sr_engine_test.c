/* SPDX-License-Identifier: LGPL-2.1-only */
#include "engine_world.h"

/* --- tests --- */

static void t_engine_plain_not_live_arrives_exactly(void **state)
{
    static const uint32_t sizes[] = {64, 525, 0, 500}; /* the last range by either of the two */
    unsigned int i;

    for (i = 0; i < 4; i++) {
        range_pages = sizes[i];
        start();
        assert_int_equal(run_save(false, false), 0);
        assert_int_equal(lseek(ts.fd, 0, SEEK_END), ts.written_bytes);
        assert_int_equal(run_restore(false), 0);
        compare_backup(true);
        if (i < 3) finish();
    }
    assert_int_equal(fake_dom[FAKE_BACKUP].tsc_khz, 2400000);
    assert_int_equal(fake_dom[FAKE_BACKUP].policy_calls, 1);
    assert_int_equal(fake_dom[FAKE_BACKUP].seed_calls, 1);
    assert_int_equal(fake_page(FAKE_BACKUP, 2000)[5], 0); /* cleared for its new owner */
    finish();
}

static void guest_writes(void)
{
    int i;

    for (i = 0; i < 3; i++)
        fake_write(FAKE_PRIMARY, (uint32_t)rand() % FAKE_GFNS, (uint32_t)rand(), (uint32_t)rand());
}

static void t_engine_live_guest_writes_arrive(void **state)
{
    unsigned int seed;

    for (seed = 1; seed < 6; seed++) {
        start();
        srand(seed);
        fake_guest = guest_writes;
        assert_int_equal(run_save(true, false), 0);
        assert_int_equal(run_restore(false), 0);
        compare_backup(true);
        finish();
    }
}

static unsigned int grows_at;

/* A page comes where nothing near it is mapped, and is written to at once, and all the time. */
static void guest_grows(void)
{
    guest_writes();
    if (fake_calls == grows_at) fake_populate(FAKE_PRIMARY, 2090);
    fake_write(FAKE_PRIMARY, 2090, 5, (uint32_t)rand());
}

static void t_engine_live_new_page_arrives_whenever_it_comes(void **state)
{
    for (grows_at = 0; grows_at < 60; grows_at++) {
        start();
        fake_guest = guest_grows;
        assert_int_equal(run_save(true, false), 0);
        assert_int_equal(run_restore(false), 0);
        compare_backup(true);
        finish();
    }
}

static void guest_writes_all(void)
{
    uint32_t g;

    for (g = 0; g < 1500; g++)
        fake_write(FAKE_PRIMARY, g, 5, (uint32_t)rand());
}

static void t_engine_rounds_are_limited(void **state)
{
    static const uint32_t rounds[] = {0, 1, 3};
    unsigned int i;

    for (i = 0; i < 3; i++) {
        start();
        fake_guest = guest_writes_all;
        limits_of.limits.rounds_given = true;
        limits_of.limits.rounds = rounds[i];
        assert_int_equal(run_save(true, false), 0);
        /* The first copy, the rounds, and the rest: 1286 pages are there, 1285 of them below 1500. */
        assert_int_equal(lseek(ts.fd, 0, SEEK_END) / (1285 * PAGE), 2 + rounds[i]);
        assert_int_equal(run_restore(false), 0);
        compare_backup(true);
        finish();
    }
}

/* 64 KiB each 2 ms. */
static void *read_slowly(void *fd)
{
    static char buf[65536];

    while (read(*(int *)fd, buf, sizeof(buf)) > 0)
        usleep(2000);
    return NULL;
}

static int save_to_slow_reader(uint64_t *bytes)
{
    struct xc_sr_io io;
    pthread_t thread;
    int p[2], rc;

    assert_int_equal(pipe(p), 0);
    assert_int_equal(pthread_create(&thread, NULL, read_slowly, &p[0]), 0);
    xc_sr_io_init(&io, p[1], -1, -1);
    rc = run_save_io(true, false, &io, 0);
    *bytes = io.bytes;
    xc_sr_io_dispose(&io);
    close(p[1]);
    pthread_join(thread, NULL);
    close(p[0]);
    return rc;
}

static void t_engine_downtime_out_of_reach_ends_the_save(void **state)
{
    uint64_t bytes;

    start();
    fake_guest = guest_writes_all;
    limits_of.limits.rounds_given = true;
    limits_of.limits.rounds = 2;
    limits_of.limits.downtime_ms = 5;
    assert_int_equal(save_to_slow_reader(&bytes), -1);
    assert_int_equal(errno, ETIME);
    assert_int_equal(ts.suspends, 0);
    assert_non_null(strstr(last_log, "more than the limit of 5 ms"));
    finish();
}

static void t_engine_downtime_within_reach_is_no_matter(void **state)
{
    unsigned int seed;

    for (seed = 1; seed < 6; seed++) {
        start();
        srand(seed);
        fake_guest = guest_writes;
        limits_of.limits.downtime_ms = 1000;
        assert_int_equal(run_save(true, false), 0);
        assert_int_equal(run_restore(false), 0);
        compare_backup(true);
        finish();
    }
}

static void t_engine_rate_is_kept(void **state)
{
    struct timespec a, b;
    double s;

    start();
    limits_of.limits.rate_mb = 50;
    clock_gettime(CLOCK_MONOTONIC, &a);
    assert_int_equal(run_save(true, false), 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
    assert_true((double)lseek(ts.fd, 0, SEEK_END) / s < 55e6);
    finish();
}

/* A receiver that was slow to begin is not sent what it missed at the speed of the link. */
static void t_engine_rate_holds_after_a_stall(void **state)
{
    struct xc_sr_io io;
    struct xc_sr_save s = {.env = {.lg = &logger, .io = &io}, .limits = {.rate_mb = 10}};
    uint64_t now;

    xc_sr_io_init(&io, -1, -1, -1);
    s.live_started_us = xc_sr_now_us() - 60000000;
    assert_int_equal(xc_sr_throttle(&s), 0);
    now = xc_sr_now_us();
    io.bytes += 3000000; /* 0.3 s at that rate, of which 0.1 s may be made up for */
    assert_int_equal(xc_sr_throttle(&s), 0);
    assert_true(xc_sr_now_us() - now >= 190000);
    xc_sr_io_dispose(&io);
}

/*
 * Between checkpoints it balloons like mad: out, in elsewhere, in at the same place, and writes to
 * what came.
 */
static void guest_balloons(void)
{
    uint32_t g = (uint32_t)rand() % FAKE_GFNS;

    guest_writes();
    if (is_shared_page(g) || !ts.checkpoints) return;
    switch (rand() % 4) {
    case 0:
        fake_give_back(FAKE_PRIMARY, g);
        break;
    case 1:
        fake_populate(FAKE_PRIMARY, g);
        fake_write(FAKE_PRIMARY, g, 1, (uint32_t)rand());
        break;
    case 2:
        if (!fake_page(FAKE_PRIMARY, g)) break;
        fake_give_back(FAKE_PRIMARY, g);
        fake_populate(FAKE_PRIMARY, g);
        fake_write(FAKE_PRIMARY, g, 2, (uint32_t)rand());
        break;
    default:
        break;
    }
}

static void t_engine_checkpoints_survive_ballooning(void **state)
{
    unsigned int seed;

    for (seed = 1; seed < 20; seed++) {
        start();
        srand(seed);
        fake_guest = guest_balloons;
        ts.stop_after = 1 + seed;
        assert_int_equal(run_save(true, true), -1); /* the toolstack ends it */
        assert_int_equal(ts.checkpoints, 1 + seed);
        assert_int_equal(run_restore(true), 0);
        compare_backup(false);
        finish();
    }
}

/* In the live rounds it goes one way, as balloon drivers do. */
static void guest_inflates(void)
{
    guest_writes();
    fake_give_back(FAKE_PRIMARY, (uint32_t)rand() % 1500);
}

static void guest_deflates(void)
{
    uint32_t g = (uint32_t)rand() % 1990;

    guest_writes();
    fake_populate(FAKE_PRIMARY, g);
    fake_write(FAKE_PRIMARY, g, 3, (uint32_t)rand());
}

static void t_engine_ballooning_in_the_live_rounds_is_noticed(void **state)
{
    unsigned int seed;

    for (seed = 1; seed < 20; seed++) {
        start();
        srand(seed);
        fake_guest = seed % 2 ? guest_inflates : guest_deflates;
        if (seed % 4 < 2) {
            assert_int_equal(run_save(true, false), 0);
        } else {
            ts.stop_after = 3;
            assert_int_equal(run_save(true, true), -1);
            /* What moved goes again, not everything. */
            assert_true(ts.first_checkpoint_bytes < 600 * PAGE);
        }
        assert_int_equal(run_restore(seed % 4 >= 2), 0);
        compare_backup(false);
        finish();
    }
}

static void give_back_and_take(unsigned int checkpoint)
{
    uint32_t g;

    for (g = 100; g < 700 && checkpoint == 2; g++)
        fake_give_back(FAKE_PRIMARY, g);
    for (g = 300; g < 400 && checkpoint == 5; g++) {
        fake_populate(FAKE_PRIMARY, g);
        fake_write(FAKE_PRIMARY, g, 7, g);
    }
}

static void t_engine_pages_given_back_leave_the_backup(void **state)
{
    start();
    ts.stop_after = 8;
    ts.between = give_back_and_take;
    assert_int_equal(run_save(true, true), -1);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    assert_null(fake_page(FAKE_BACKUP, 150));
    assert_non_null(fake_page(FAKE_BACKUP, 350));
    finish();
}

static void swap_one_page(unsigned int checkpoint)
{
    if (checkpoint != 3) return;
    fake_give_back(FAKE_PRIMARY, 1001);
    fake_populate(FAKE_PRIMARY, 1001);
    fake_write(FAKE_PRIMARY, 1001, 9, 4711); /* not logged, not in the old mapping */
}

static void t_engine_page_swapped_in_place_is_noticed(void **state)
{
    start();
    ts.stop_after = 5;
    ts.between = swap_one_page;
    assert_int_equal(run_save(true, true), -1);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    finish();
}

static void frame_becomes_page(unsigned int checkpoint)
{
    if (checkpoint != 3) return;
    fake_give_back(FAKE_PRIMARY, 1990);
    fake_populate(FAKE_PRIMARY, 1990);
    fake_write(FAKE_PRIMARY, 1990, 9, 4711);
}

/* It was mapped as what it was before. */
static void t_engine_page_in_place_of_a_grant_frame_arrives(void **state)
{
    start();
    fake_populate(FAKE_PRIMARY, 1990);
    fake_dom[FAKE_PRIMARY].special[1990] = 1;
    ts.stop_after = 5;
    ts.between = frame_becomes_page;
    assert_int_equal(run_save(true, true), -1);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    finish();
}

static void dirty_everything(unsigned int checkpoint)
{
    uint32_t g;

    for (g = 0; g < FAKE_GFNS; g++)
        fake_write(FAKE_PRIMARY, g, checkpoint, checkpoint);
}

static void t_engine_all_pages_dirty_fit_the_arena(void **state)
{
    start();
    ts.stop_after = 3;
    ts.between = dirty_everything;
    assert_int_equal(run_save(true, true), -1);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    finish();
}

static void t_engine_tiny_map_limit_still_copies_all(void **state)
{
    struct xc_sr_io io;

    start();
    srand(3);
    fake_guest = guest_writes;
    ts.stop_after = 4;
    xc_sr_io_init(&io, ts.fd, -1, -1);
    assert_int_equal(run_save_io(true, true, &io, 1), -1);
    assert_int_equal(ts.checkpoints, 4);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    finish();
}

static void t_engine_stream_cut_anywhere_ends_at_a_checkpoint(void **state)
{
    off_t size, at;
    int restored = 0, refused = 0;

    start();
    srand(11);
    fake_guest = guest_writes;
    ts.stop_after = 4;
    assert_int_equal(run_save(true, true), -1);
    fake_guest = NULL;
    size = lseek(ts.fd, 0, SEEK_END);
    for (at = size - 7; at > 0; at -= size / 37) {
        uint32_t g;

        assert_int_equal(ftruncate(ts.fd, at), 0);
        for (g = 0; g < FAKE_GFNS; g++)
            fake_give_back(FAKE_BACKUP, g);
        if (run_restore(true))
            refused++;
        else
            restored++;
    }
    /* Before the first checkpoint is whole there is nothing to go on with. */
    assert_true(restored > 0 && refused > 0);
    finish();
}

/* Just enough memory for the guest: what large pages hold in vain must come back in time. */
static void t_engine_restore_with_little_memory_succeeds(void **state)
{
    uint32_t g;

    start();
    ts.stop_after = 2;
    assert_int_equal(run_save(true, true), -1);
    for (fake_room = 0, g = 0; g < FAKE_GFNS; g++)
        fake_room += fake_page(FAKE_PRIMARY, g) != NULL;
    assert_int_equal(run_restore(true), 0);
    assert_int_equal(fake_room, 0);
    compare_backup(true);
    finish();
}

static void t_engine_restore_without_memory_fails(void **state)
{
    start();
    assert_int_equal(run_save(false, false), 0);
    fake_room = 1000;
    assert_int_equal(run_restore(false), -1);
    assert_non_null(strstr(last_log, "cannot populate"));
    finish();
}

/* The guest has more than it was protected with: its twin may have it, too. */
static void t_engine_restore_with_more_memory_than_at_the_start_succeeds(void **state)
{
    start();
    ts.stop_after = 2;
    assert_int_equal(run_save(true, true), -1);
    fake_room = 1000;
    fake_reserve = FAKE_GFNS;
    backup_max_kb = FAKE_GFNS * 4;
    assert_int_equal(run_restore(true), 0);
    backup_max_kb = 0;
    assert_int_equal(fake_reserve, 0);
    compare_backup(true);
    finish();
}

static void t_engine_nth_call_fails_cleans_up(void **state)
{
    unsigned int n, ended = 0;

    for (n = 1; !ended; n++) {
        start();
        fake_fail_at = n;
        ts.stop_after = 2;
        assert_int_equal(run_save(true, true), -1);
        /* The call that failed may have been the one that ends log-dirty mode: that is exempt. */
        ended = fake_calls < n;
        if (!ended) assert_true(last_log[0] != 0);
        finish();
    }
    assert_true(n > 20);
}

/* Where it can do without (a large page), it must arrive at the same. */
static void t_engine_restore_nth_call_fails_cleans_up(void **state)
{
    unsigned int n, failed = 0;
    int rc;

    start();
    assert_int_equal(run_save(false, false), 0);
    for (n = 1;; n++) {
        uint32_t g;

        for (g = 0; g < FAKE_GFNS; g++)
            fake_give_back(FAKE_BACKUP, g);
        fake_calls = 0;
        fake_fail_at = n;
        rc = run_restore(false);
        failed += rc != 0;
        if (!rc) compare_backup(true);
        if (fake_calls < n) break;
    }
    assert_int_equal(rc, 0);
    assert_true(failed > 10);
    finish();
}

static void t_engine_broken_stream_ends_cleanly(void **state)
{
    struct xc_sr_io io;
    int p[2];

    start();
    assert_int_equal(pipe(p), 0);
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    xc_sr_io_init(&io, p[1], -1, -1);
    assert_int_equal(run_save_io(true, false, &io, 0), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(run_save_io(false, false, &io, 0), -1);
    assert_int_equal(errno, EPIPE);
    xc_sr_io_dispose(&io);
    close(p[1]);
    finish();
}

static void t_engine_told_to_stop_ends_cleanly(void **state)
{
    struct xc_sr_io io;
    int stop = eventfd(1, 0);

    start();
    xc_sr_io_init(&io, ts.fd, stop, -1);
    assert_int_equal(run_save_io(true, false, &io, 0), -1);
    assert_int_equal(errno, ECANCELED);
    assert_int_equal(ts.suspends, 0);
    close(stop);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_engine_plain_not_live_arrives_exactly),
        cmocka_unit_test(t_engine_live_guest_writes_arrive),
        cmocka_unit_test(t_engine_live_new_page_arrives_whenever_it_comes),
        cmocka_unit_test(t_engine_rounds_are_limited),
        cmocka_unit_test(t_engine_downtime_out_of_reach_ends_the_save),
        cmocka_unit_test(t_engine_downtime_within_reach_is_no_matter),
        cmocka_unit_test(t_engine_rate_is_kept),
        cmocka_unit_test(t_engine_rate_holds_after_a_stall),
        cmocka_unit_test(t_engine_checkpoints_survive_ballooning),
        cmocka_unit_test(t_engine_ballooning_in_the_live_rounds_is_noticed),
        cmocka_unit_test(t_engine_pages_given_back_leave_the_backup),
        cmocka_unit_test(t_engine_page_swapped_in_place_is_noticed),
        cmocka_unit_test(t_engine_page_in_place_of_a_grant_frame_arrives),
        cmocka_unit_test(t_engine_all_pages_dirty_fit_the_arena),
        cmocka_unit_test(t_engine_tiny_map_limit_still_copies_all),
        cmocka_unit_test(t_engine_stream_cut_anywhere_ends_at_a_checkpoint),
        cmocka_unit_test(t_engine_restore_with_little_memory_succeeds),
        cmocka_unit_test(t_engine_restore_without_memory_fails),
        cmocka_unit_test(t_engine_restore_with_more_memory_than_at_the_start_succeeds),
        cmocka_unit_test(t_engine_nth_call_fails_cleans_up),
        cmocka_unit_test(t_engine_restore_nth_call_fails_cleans_up),
        cmocka_unit_test(t_engine_broken_stream_ends_cleanly),
        cmocka_unit_test(t_engine_told_to_stop_ends_cleanly),
    };

    int failed;

    verbose = getenv("VERBOSE") != NULL;
    failed = cmocka_run_group_tests_name("plain pages", tests, NULL, NULL);
    encode = XC_SR_ENCODE_DELTA;
    failed += cmocka_run_group_tests_name("deltas", tests, NULL, NULL);
    encode = XC_SR_ENCODE_LZ4;
    ref_pages = 40;
    failed += cmocka_run_group_tests_name("lz4, little memory", tests, NULL, NULL);
    return failed != 0;
}
