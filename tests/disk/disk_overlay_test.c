/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_test.h"

#include <errno.h>

#include "disk_overlay.h"

#define SPAN 4096

static void put(struct disk_overlay *o, uint64_t start, uint64_t end, uint64_t at, uint64_t data)
{
    assert_int_equal(disk_overlay_reserve(o), 0);
    disk_overlay_put(o, start, end, at, data);
}

static void t_overlay_empty_finds_nothing(void **state)
{
    struct disk_overlay o;
    struct disk_piece p;

    disk_overlay_init(&o);
    assert_false(disk_overlay_find(&o, 0, UINT64_MAX, &p));
    assert_true(disk_overlay_drop(&o, UINT64_MAX, 1));
    disk_overlay_dispose(&o);
}

static void t_overlay_middle_is_hidden_by_a_later_piece(void **state)
{
    struct disk_overlay o;
    struct disk_piece p;

    disk_overlay_init(&o);
    put(&o, 100, 200, 0, 1000);
    put(&o, 140, 160, 1, DISK_OVERLAY_ZERO);
    assert_int_equal(o.count, 3);
    assert_true(disk_overlay_find(&o, 0, 500, &p));
    assert_int_equal(p.start, 100);
    assert_int_equal(p.end, 140);
    assert_int_equal(p.data, 1000);
    assert_true(disk_overlay_find(&o, 150, 500, &p));
    assert_int_equal(p.start, 150);
    assert_int_equal(p.end, 160);
    assert_true(p.data == DISK_OVERLAY_ZERO);
    assert_true(disk_overlay_find(&o, 170, 180, &p));
    assert_int_equal(p.start, 170);
    assert_int_equal(p.end, 180);
    assert_int_equal(p.data, 1070);
    assert_false(disk_overlay_find(&o, 200, 300, &p));
    assert_true(disk_overlay_drop(&o, 1, 100)); /* both halves are of the record at 0 */
    assert_int_equal(o.count, 1);
    disk_overlay_dispose(&o);
}

static void t_overlay_drop_stops_at_its_limit(void **state)
{
    struct disk_overlay o;

    disk_overlay_init(&o);
    for (uint64_t i = 0; i < 10; i++)
        put(&o, i * 10, i * 10 + 10, i, i);
    assert_false(disk_overlay_drop(&o, 8, 5));
    assert_int_equal(o.count, 5);
    assert_true(disk_overlay_drop(&o, 8, 5));
    assert_int_equal(o.count, 2);
    disk_overlay_dispose(&o);
}

/* Against an array with an entry for each octet. */
struct octets {
    uint64_t at[SPAN], data[SPAN];
    bool there[SPAN];
};

static uint32_t rnd(uint32_t below)
{
    static uint64_t x = 88172645463325252ull;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (uint32_t)(x % below);
}

static void compare(const struct disk_overlay *o, const struct octets *m)
{
    uint64_t at = 0;
    struct disk_piece p;

    while (disk_overlay_find(o, at, SPAN, &p)) {
        for (; at < p.start; at++)
            assert_false(m->there[at]);
        for (; at < p.end; at++) {
            assert_true(m->there[at]);
            uint64_t data = p.data == DISK_OVERLAY_ZERO ? p.data : p.data + (at - p.start);
            assert_true(m->data[at] == data);
        }
    }
    for (; at < SPAN; at++)
        assert_false(m->there[at]);
}

static void t_overlay_random_is_as_an_array(void **state)
{
    static struct octets m;
    struct disk_overlay o;
    uint64_t dropped = 0;

    disk_overlay_init(&o);
    for (uint64_t n = 0; n < 4000; n++) {
        uint32_t start = rnd(SPAN - 1), size = 1 + rnd(rnd(4) ? 40 : SPAN - start);
        if (size > SPAN - start) size = SPAN - start;
        uint64_t data = rnd(8) ? n * SPAN : DISK_OVERLAY_ZERO;
        put(&o, start, start + size, n, data);
        for (uint32_t i = 0; i < size; i++) {
            m.at[start + i] = n;
            m.data[start + i] = data == DISK_OVERLAY_ZERO ? data : data + i;
            m.there[start + i] = true;
        }
        if (rnd(20)) continue;
        dropped += rnd((uint32_t)(n + 1 - dropped));
        while (!disk_overlay_drop(&o, dropped, 7))
            ;
        for (uint32_t i = 0; i < SPAN; i++)
            if (m.at[i] < dropped) m.there[i] = false;
        compare(&o, &m);
    }
    compare(&o, &m);
    disk_overlay_dispose(&o);
}

static void t_overlay_full_is_said_before(void **state)
{
    struct disk_overlay o;
    uint64_t n = 0;

    disk_overlay_init(&o);
    while (!disk_overlay_reserve(&o)) {
        disk_overlay_put(&o, n * 2, n * 2 + 1, n, n);
        n++;
    }
    assert_int_equal(disk_overlay_reserve(&o), -ENOSPC);
    assert_true(o.count <= DISK_OVERLAY_MAX);
    assert_true(disk_overlay_drop(&o, n / 2, SIZE_MAX));
    assert_int_equal(disk_overlay_reserve(&o), 0);
    disk_overlay_dispose(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_overlay_empty_finds_nothing),
        cmocka_unit_test(t_overlay_middle_is_hidden_by_a_later_piece),
        cmocka_unit_test(t_overlay_drop_stops_at_its_limit),
        cmocka_unit_test(t_overlay_random_is_as_an_array),
        cmocka_unit_test(t_overlay_full_is_said_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
