/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_test.h"

#include "disk_bitmap.h"
#include "disk_state.h"
#include "disk_util.h"

#define EXTENT ((uint64_t)DISK_EXTENT_SIZE)
#define SIZE (1000 * EXTENT + 512)

static bool open_bitmap(struct disk_bitmap *b, struct folder *f, uint64_t size)
{
    bool fresh = false;

    disk_bitmap_init(b);
    assert_int_equal(disk_bitmap_open(b, folder_file(f, "bitmap"), size, &fresh), 0);
    return fresh;
}

static void t_bitmap_set_outlives_the_process(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;

    assert_true(open_bitmap(&b, f, SIZE));
    assert_int_equal(disk_bitmap_dirty_bytes(&b), 0);
    disk_bitmap_set(&b, EXTENT - 1, 2);     /* two extents */
    disk_bitmap_set(&b, 999 * EXTENT, 600); /* one, and the last one in part: two */
    disk_bitmap_dispose(&b);

    assert_false(open_bitmap(&b, f, SIZE));
    assert_int_equal(disk_bitmap_dirty_bytes(&b), 3 * EXTENT);
    disk_bitmap_set(&b, SIZE - 1, 1);
    assert_int_equal(disk_bitmap_dirty_bytes(&b), 4 * EXTENT);
    disk_bitmap_dispose(&b);
}

static void t_bitmap_of_another_size_is_new(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;

    open_bitmap(&b, f, SIZE);
    disk_bitmap_set(&b, 0, 1);
    disk_bitmap_dispose(&b);
    assert_true(open_bitmap(&b, f, SIZE + EXTENT));
    assert_int_equal(disk_bitmap_dirty_bytes(&b), 0);
    disk_bitmap_dispose(&b);
}

static void t_bitmap_commit_clears_closed_but_not_written_again(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;

    open_bitmap(&b, f, SIZE);
    disk_bitmap_sync_begin(&b, false);
    disk_bitmap_set(&b, 10 * EXTENT, 1);
    disk_bitmap_set(&b, 500 * EXTENT, 1);
    disk_bitmap_close_epoch(&b);
    disk_bitmap_set(&b, 500 * EXTENT, 1); /* in the next epoch, too */
    disk_bitmap_commit(&b);
    assert_int_equal(disk_bitmap_dirty_bytes(&b), EXTENT);
    disk_bitmap_close_epoch(&b);
    disk_bitmap_set(&b, 20 * EXTENT, 1);
    disk_bitmap_close_epoch(&b); /* two closed, one commit */
    disk_bitmap_commit(&b);
    assert_int_equal(disk_bitmap_dirty_bytes(&b), 0);
    disk_bitmap_dispose(&b);
}

static void t_bitmap_uncommitted_stays(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;

    open_bitmap(&b, f, SIZE);
    disk_bitmap_set(&b, 0, 1);
    disk_bitmap_close_epoch(&b);
    disk_bitmap_dispose(&b);
    assert_false(open_bitmap(&b, f, SIZE));
    assert_int_equal(disk_bitmap_dirty_bytes(&b), EXTENT);
    disk_bitmap_dispose(&b);
}

static void t_bitmap_sync_takes_each_run_once(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;
    uint64_t first, n, sum = 0;
    size_t cursor = 0;

    open_bitmap(&b, f, SIZE);
    disk_bitmap_set(&b, 60 * EXTENT, 10 * EXTENT); /* over the end of a word */
    disk_bitmap_set(&b, 999 * EXTENT, 1);
    assert_int_equal(disk_bitmap_sync_begin(&b, false), 11 * EXTENT);
    while ((n = disk_bitmap_take(&b, &cursor, 4, &first))) {
        assert_true(n <= 4);
        assert_true((first >= 60 && first + n <= 70) || first == 999);
        sum += n;
    }
    assert_int_equal(sum, 11);
    disk_bitmap_set(&b, 0, 1); /* while it was synchronised */
    disk_bitmap_close_epoch(&b);
    disk_bitmap_set(&b, 1 * EXTENT, 1);
    disk_bitmap_synced(&b);
    assert_int_equal(disk_bitmap_dirty_bytes(&b), EXTENT);
    disk_bitmap_dispose(&b);
}

static void t_bitmap_sync_of_all_ends_with_the_disk(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;
    uint64_t first, n, sum = 0;
    size_t cursor = 0;

    open_bitmap(&b, f, SIZE);
    assert_int_equal(disk_bitmap_sync_begin(&b, true), SIZE);
    while ((n = disk_bitmap_take(&b, &cursor, 16, &first))) {
        assert_true(first + n <= 1001);
        sum += n;
    }
    assert_int_equal(sum, 1001);
    disk_bitmap_dispose(&b);
}

static void t_bitmap_merge_is_bounded(void **state)
{
    struct folder *f = *state;
    struct disk_bitmap b;
    uint8_t words[32];

    memset(words, 0xff, sizeof(words));
    open_bitmap(&b, f, SIZE);
    assert_int_equal(b.count, 16);
    assert_false(disk_bitmap_merge(&b, 13, words, 32));
    assert_false(disk_bitmap_merge(&b, UINT64_MAX, words, 8));
    assert_false(disk_bitmap_merge(&b, 0, words, 7));
    assert_int_equal(disk_bitmap_dirty_bytes(&b), 0);
    assert_true(disk_bitmap_merge(&b, 12, words, 32));
    /* Extents 768 to 1000; what would lie behind the end is not there. */
    assert_int_equal(disk_bitmap_sync_begin(&b, false), 233 * EXTENT);
    disk_bitmap_dispose(&b);
}

static void t_state_comes_back_as_written(void **state)
{
    struct folder *f = *state;
    struct disk_state s = {.size = 12345, .generation = 7, .primary = true, .secured = true}, back;

    assert_int_equal(disk_state_load(&back, f->dir), -2);
    memset(s.uuid, 0xab, 16);
    memset(s.boot, 0x01, 16);
    assert_int_equal(disk_state_save(&s, f->dir), 0);
    assert_int_equal(disk_state_load(&back, f->dir), 0);
    assert_memory_equal(&s, &back, sizeof(s));
}

static void t_state_damaged_anywhere_is_refused(void **state)
{
    struct folder *f = *state;
    struct disk_state s = {.size = 1, .generation = 1}, back;
    char text[512];

    assert_int_equal(disk_state_save(&s, f->dir), 0);
    FILE *file = fopen(folder_file(f, "state"), "r+");
    assert_non_null(file);
    size_t n = fread(text, 1, sizeof(text), file);
    for (size_t i = 0; i + 1 < n; i++) {
        rewind(file);
        text[i] ^= 1;
        assert_int_equal(fwrite(text, 1, n, file), n);
        fflush(file);
        assert_int_not_equal(disk_state_load(&back, f->dir), 0);
        text[i] ^= 1;
    }
    fclose(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(t_bitmap_set_outlives_the_process),
        TEST(t_bitmap_of_another_size_is_new),
        TEST(t_bitmap_commit_clears_closed_but_not_written_again),
        TEST(t_bitmap_uncommitted_stays),
        TEST(t_bitmap_sync_takes_each_run_once),
        TEST(t_bitmap_sync_of_all_ends_with_the_disk),
        TEST(t_bitmap_merge_is_bounded),
        TEST(t_state_comes_back_as_written),
        TEST(t_state_damaged_anywhere_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
