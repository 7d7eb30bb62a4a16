/* SPDX-License-Identifier: LGPL-2.1-only */
/* Sets of pfns, the staging arena, and the bounded list of held records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "xc_sr_arena.h"
#include "xc_sr_dirty.h"
#include "xc_sr_hold.h"
#include "xc_sr_record.h"

static void t_dirty_walk_finds_each_bit_once(void **state)
{
    static const uint64_t sizes[] = {1, 63, 64, 65, 1000, 4096};
    struct xc_sr_dirty d;
    size_t k;

    (void)state;
    srand(7);
    for (k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        uint64_t n = 0, seen = 0, pfn;

        assert_int_equal(xc_sr_dirty_alloc(&d, sizes[k]), 0);
        assert_true(xc_sr_dirty_next(&d, 0) == XC_SR_PFN_NONE);
        for (pfn = 0; pfn < sizes[k]; pfn++) {
            if (rand() % 3) continue;
            xc_sr_dirty_set(&d, pfn);
            n++;
        }
        assert_int_equal(xc_sr_dirty_count(&d), n);
        for (pfn = xc_sr_dirty_next(&d, 0); pfn != XC_SR_PFN_NONE;
             pfn = xc_sr_dirty_next(&d, pfn + 1)) {
            assert_true(xc_sr_dirty_test(&d, pfn));
            xc_sr_dirty_clear(&d, pfn);
            seen++;
        }
        assert_int_equal(seen, n);
        assert_int_equal(xc_sr_dirty_count(&d), 0);
        xc_sr_dirty_free(&d);
    }
}

static void t_dirty_set_all_stops_at_the_end(void **state)
{
    struct xc_sr_dirty d;

    (void)state;
    assert_int_equal(xc_sr_dirty_alloc(&d, 130), 0);
    xc_sr_dirty_set_all(&d);
    assert_int_equal(xc_sr_dirty_count(&d), 130);
    assert_true(xc_sr_dirty_test(&d, 129));
    assert_false(xc_sr_dirty_test(&d, 130));
    xc_sr_dirty_clear_all(&d);
    assert_int_equal(xc_sr_dirty_count(&d), 0);
    xc_sr_dirty_free(&d);
}

static void t_dirty_bits_beyond_the_end_are_not_found(void **state)
{
    struct xc_sr_dirty d;

    (void)state;
    assert_int_equal(xc_sr_dirty_alloc(&d, 60), 0);
    d.words[0] = 1UL << 62; /* as the hypervisor may leave it */
    assert_true(xc_sr_dirty_next(&d, 0) == XC_SR_PFN_NONE);
    assert_true(xc_sr_dirty_next(&d, 60) == XC_SR_PFN_NONE);
    xc_sr_dirty_free(&d);
}

static void t_dirty_merge_is_the_union(void **state)
{
    struct xc_sr_dirty a, b;

    (void)state;
    assert_int_equal(xc_sr_dirty_alloc(&a, 200) | xc_sr_dirty_alloc(&b, 200), 0);
    xc_sr_dirty_set(&a, 3);
    xc_sr_dirty_set(&b, 3);
    xc_sr_dirty_set(&b, 199);
    xc_sr_dirty_merge(&a, &b);
    assert_int_equal(xc_sr_dirty_count(&a), 2);
    assert_true(xc_sr_dirty_test(&a, 199));
    xc_sr_dirty_free(&a);
    xc_sr_dirty_free(&b);
}

static void t_sparse_remembers_and_refuses_the_absurd(void **state)
{
    struct xc_sr_sparse s = {NULL, 0};

    (void)state;
    assert_false(xc_sr_sparse_test(&s, 12345));
    xc_sr_sparse_clear(&s, 12345); /* nothing there: harmless */
    assert_int_equal(xc_sr_sparse_set(&s, 12345), 0);
    assert_int_equal(xc_sr_sparse_set(&s, XC_SR_SPARSE_PFNS - 1), 0);
    assert_true(xc_sr_sparse_test(&s, 12345));
    assert_true(xc_sr_sparse_test(&s, XC_SR_SPARSE_PFNS - 1));
    assert_false(xc_sr_sparse_test(&s, 12346));
    errno = 0;
    assert_int_equal(xc_sr_sparse_set(&s, XC_SR_SPARSE_PFNS), -1);
    assert_int_equal(errno, ERANGE);
    assert_false(xc_sr_sparse_test(&s, UINT64_MAX));
    xc_sr_sparse_clear(&s, 12345);
    assert_false(xc_sr_sparse_test(&s, 12345));
    xc_sr_sparse_dispose(&s);
    xc_sr_sparse_dispose(&s);
}

static void t_arena_keeps_order_and_content(void **state)
{
    uint8_t page[SR_PAGE_SIZE];
    struct xc_sr_arena a;
    unsigned int i;

    (void)state;
    assert_int_equal(xc_sr_arena_init(&a, 100), 0);
    xc_sr_arena_prepare(&a, 10);
    for (i = 0; i < 20; i++) { /* beyond what is prepared */
        memset(page, (int)i, sizeof(page));
        assert_int_equal(xc_sr_arena_add(&a, 7 * i, SR_PAGE_NORMAL, page), 0);
        assert_int_equal(xc_sr_arena_add(&a, 7 * i + 1, SR_PAGE_XTAB, NULL), 0);
    }
    assert_int_equal(a.pages, 20);
    assert_int_equal(a.entries_used, 40);
    assert_true(xc_sr_entry_pfn(a.entries[38]) == 7 * 19);
    assert_int_equal(xc_sr_entry_type(a.entries[39]), SR_PAGE_XTAB);
    assert_int_equal(a.data[19 * SR_PAGE_SIZE + 5], 19);
    xc_sr_arena_dispose(&a);
    xc_sr_arena_dispose(&a);
}

static void t_arena_full_refuses_and_empties(void **state)
{
    static const uint8_t page[SR_PAGE_SIZE];
    struct xc_sr_arena a;

    (void)state;
    assert_int_equal(xc_sr_arena_init(&a, 2), 0);
    xc_sr_arena_prepare(&a, 1000); /* cut to the limit */
    assert_int_equal(xc_sr_arena_add(&a, 1, SR_PAGE_NORMAL, page), 0);
    assert_int_equal(xc_sr_arena_add(&a, 2, SR_PAGE_NORMAL, page), 0);
    errno = 0;
    assert_int_equal(xc_sr_arena_add(&a, 3, SR_PAGE_NORMAL, page), -1);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(xc_sr_arena_add(&a, 3, SR_PAGE_XTAB, NULL), -1);
    xc_sr_arena_empty(&a);
    assert_int_equal(xc_sr_arena_add(&a, 3, SR_PAGE_NORMAL, page), 0);
    xc_sr_arena_dispose(&a);
}

static struct xc_sr_record record(uint32_t length, int fill)
{
    struct xc_sr_record rec = {SR_REC_TOOLSTACK, length, malloc(xc_sr_record_padded(length))};

    memset(rec.body, fill, length);
    return rec;
}

static void t_hold_keeps_order_until_emptied(void **state)
{
    const struct xc_sr_held *held;
    struct xc_sr_hold h;
    int i;

    (void)state;
    xc_sr_hold_init(&h, 1 << 20);
    for (i = 0; i < 5; i++) {
        struct xc_sr_record rec = record(100, i);

        assert_int_equal(xc_sr_hold_add(&h, &rec), 0);
        assert_null(rec.body);
    }
    for (held = h.first, i = 0; held; held = held->next, i++)
        assert_int_equal(((const uint8_t *)held->rec.body)[99], i);
    assert_int_equal(i, 5);
    xc_sr_hold_empty(&h);
    assert_null(h.first);
    assert_int_equal(h.bytes, 0);
    xc_sr_hold_empty(&h);
}

static void t_hold_never_exceeds_its_limit(void **state)
{
    struct xc_sr_record rec = record(4096, 1);
    struct xc_sr_hold h;
    int added = 0;

    (void)state;
    xc_sr_hold_init(&h, 10000);
    while (!xc_sr_hold_add(&h, &rec)) {
        rec = record(4096, 1);
        added++;
        assert_true(h.bytes <= 10000);
    }
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(added, 2);
    assert_non_null(rec.body); /* still ours */
    free(rec.body);
    xc_sr_hold_empty(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_dirty_walk_finds_each_bit_once),
        cmocka_unit_test(t_dirty_set_all_stops_at_the_end),
        cmocka_unit_test(t_dirty_bits_beyond_the_end_are_not_found),
        cmocka_unit_test(t_dirty_merge_is_the_union),
        cmocka_unit_test(t_sparse_remembers_and_refuses_the_absurd),
        cmocka_unit_test(t_arena_keeps_order_and_content),
        cmocka_unit_test(t_arena_full_refuses_and_empties),
        cmocka_unit_test(t_hold_keeps_order_until_emptied),
        cmocka_unit_test(t_hold_never_exceeds_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
