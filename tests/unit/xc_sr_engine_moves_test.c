/* SPDX-License-Identifier: LGPL-2.1-only */
/* Pages that move, and guests that are larger than what may be mapped. */
#include "engine_world.h"

static unsigned int most_mapped;

static void watch_mappings(void)
{
    /* Before the first page is sent. */
    if (ts.io->bytes < PAGE && fake_mappings > most_mapped) most_mapped = fake_mappings;
}

/* Else a later pause would give up at once what is beyond the limit. */
static void t_engine_map_limit_holds_from_the_start(void **state)
{
    struct xc_sr_io io;

    start();
    fake_guest = watch_mappings;
    most_mapped = 0;
    ts.stop_after = 2;
    xc_sr_io_init(&io, ts.fd, -1, -1);
    (void)run_save_io(true, true, &io, 1024);
    assert_int_equal(ts.checkpoints, 2);
    assert_in_range(most_mapped, 1, 1024);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    finish();
}

#define MOVED_TO 2080

/* As XENMAPSPACE_gmfn does: the number of the domain's pages stays. */
static void move_page(unsigned int checkpoint)
{
    struct fake_dom *d = &fake_dom[FAKE_PRIMARY];

    if (checkpoint != 2) return;
    d->mfn[MOVED_TO] = d->mfn[100];
    d->mfn[100] = -1;
    d->unlogged[MOVED_TO] = 1;
    fake_write(FAKE_PRIMARY, MOVED_TO, 9, 4711);
}

static void t_engine_page_moved_to_another_pfn_arrives(void **state)
{
    start();
    ts.stop_after = 10;
    ts.between = move_page;
    (void)run_save(true, true);
    assert_int_equal(ts.checkpoints, 10);
    assert_int_equal(run_restore(true), 0);
    compare_backup(true);
    finish();
}

static void give_back_then_swap(unsigned int checkpoint)
{
    if (checkpoint == 2) fake_give_back(FAKE_PRIMARY, 100);
    if (checkpoint != 3) return;
    fake_give_back(FAKE_PRIMARY, 101);
    fake_populate(FAKE_PRIMARY, 101);
    fake_write(FAKE_PRIMARY, 101, 9, 4711);
}

/* A chunk that cannot be pinned again ends the save: what changes there would not be seen. */
static void t_engine_nth_call_fails_nothing_wrong_arrives(void **state)
{
    for (unsigned int n = 1; n < 200; n++) {
        start();
        ts.stop_after = 6;
        ts.between = give_back_then_swap;
        fake_fail_at = n;
        (void)run_save(true, true);
        fake_fail_at = 0;
        if (ts.checkpoints == 6) {
            assert_int_equal(run_restore(true), 0);
            compare_backup(false);
        }
        finish();
    }
}

static void t_engine_far_frame_of_a_guest_ends_the_save(void **state)
{
    start();
    fake_behind = 0x7ff00000;
    ts.stop_after = 1;
    assert_int_not_equal(run_save(true, true), 0);
    assert_non_null(strstr(last_log, "more than can be tracked"));
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_engine_map_limit_holds_from_the_start),
        cmocka_unit_test(t_engine_page_moved_to_another_pfn_arrives),
        cmocka_unit_test(t_engine_nth_call_fails_nothing_wrong_arrives),
        cmocka_unit_test(t_engine_far_frame_of_a_guest_ends_the_save),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
