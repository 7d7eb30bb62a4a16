/* SPDX-License-Identifier: LGPL-2.1-only */
/* Page tables of PV guests between pfns and mfns: pure functions on tables made here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "xc_sr_stream_format.h"
#include "xc_sr_x86_pv.h"

#define PFNS 100
#define MFNS 1000

static uint64_t p2m_frames[PFNS], m2p_pfns[MFNS];
static const struct xc_sr_pv_p2m p2m = {p2m_frames, PFNS};
static const struct xc_sr_pv_m2p m2p = {m2p_pfns, MFNS};
static uint64_t table[XC_SR_PV_ENTRIES], copy[XC_SR_PV_ENTRIES];

/* pfn n is in frame 900 - 7 * n; every tenth pfn has none. */
static int setup(void **state)
{
    uint64_t pfn;

    memset(m2p_pfns, 0xff, sizeof(m2p_pfns));
    memset(p2m_frames, 0, sizeof(p2m_frames));
    for (pfn = 0; pfn < PFNS; pfn++) {
        if (pfn % 10 == 9) continue;
        p2m_frames[pfn] = 900 - 7 * pfn;
        m2p_pfns[900 - 7 * pfn] = pfn;
    }
    memset(table, 0, sizeof(table));
    memset(copy, 0xee, sizeof(copy));
    return 0;
}

static const char *normalise(unsigned int level, unsigned int *at)
{
    return xc_sr_pv_normalise(&p2m, &m2p, level, table, copy, at);
}

static void t_pv_page_types_tell_level_and_pin(void **state)
{
    static const unsigned int levels[16] = {0, 1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0};
    uint32_t type;

    for (type = 0; type < 16; type++) {
        assert_int_equal(xc_sr_pv_table_level(type), levels[type]);
        assert_int_equal(xc_sr_pv_is_pinned(type), type >= 9 && type <= 12);
    }
    assert_int_equal(xc_sr_pv_table_level(17), 0);
}

static void t_pv_pfns_limit_follows_memory_between_bounds(void **state)
{
    assert_int_equal(xc_sr_pv_pfns_limit(0), 1ULL << 27);
    assert_int_equal(xc_sr_pv_pfns_limit(98304), 1ULL << 27);
    assert_int_equal(xc_sr_pv_pfns_limit(1ULL << 30), 4 * (1ULL << 28)); /* 1 TiB */
    assert_int_equal(xc_sr_pv_pfns_limit(UINT64_MAX), 1ULL << 32);
}

static void t_pv_frame_is_the_guests_only_when_both_tables_agree(void **state)
{
    uint64_t pfn = 0;

    assert_true(xc_sr_pv_find_pfn(&p2m, &m2p, 900 - 7 * 3, &pfn));
    assert_int_equal(pfn, 3);
    assert_false(xc_sr_pv_find_pfn(&p2m, &m2p, 0, &pfn));
    assert_false(xc_sr_pv_find_pfn(&p2m, &m2p, MFNS, &pfn));
    assert_false(xc_sr_pv_find_pfn(&p2m, &m2p, UINT64_MAX, &pfn));
    assert_false(xc_sr_pv_find_pfn(&p2m, &m2p, 5, &pfn)); /* nobody's */
    m2p_pfns[5] = 3; /* a frame that says so, and a p2m that does not */
    assert_false(xc_sr_pv_find_pfn(&p2m, &m2p, 5, &pfn));
    m2p_pfns[6] = PFNS;
    assert_false(xc_sr_pv_find_pfn(&p2m, &m2p, 6, &pfn));
}

static void t_pv_table_there_and_back_is_the_same(void **state)
{
    unsigned int level, i, at;

    for (level = 1; level <= 4; level++) {
        for (i = 0; i < XC_SR_PV_ENTRIES; i++) {
            uint64_t flags = (i % 2 ? 1ULL << 63 : 0) | (level == 1 ? i % 2 * 0x80 : 0) | 0x7ff61;

            table[i] = i % 5 ? p2m_frames[i % 9] << 12 | (flags & ~XC_SR_PV_PTE_FRAME) | 1 : i << 1;
            if (level > 1) table[i] &= ~XC_SR_PV_PTE_SUPERPAGE;
            if (level == 4 && i >= 256 && i <= 271) table[i] = 0;
        }
        assert_null(normalise(level, &at));
        for (i = 0; i < XC_SR_PV_ENTRIES; i++)
            if (table[i] & 1) assert_int_equal((copy[i] & XC_SR_PV_PTE_FRAME) >> 12, i % 9);
        assert_null(xc_sr_pv_localise(&p2m, level, copy, &at));
        assert_memory_equal(copy, table, sizeof(table));
    }
}

static void t_pv_entries_of_the_hypervisor_are_left_out(void **state)
{
    unsigned int at, i;

    table[256] = table[271] = 0x123456789001;
    table[255] = table[272] = p2m_frames[4] << 12 | 1;
    assert_null(normalise(4, &at));
    for (i = 256; i <= 271; i++)
        assert_int_equal(copy[i], 0);
    assert_int_equal(copy[255], 4 << 12 | 1);
    assert_int_equal(copy[272], 4 << 12 | 1);
    copy[256] = copy[271] = 5 << 12 | 1; /* a stream's */
    assert_null(xc_sr_pv_localise(&p2m, 4, copy, &at));
    assert_int_equal(copy[256], 0);
    assert_int_equal(copy[271], 0);
    /* In other levels they are entries like any other. */
    assert_non_null(normalise(3, &at));
    assert_int_equal(at, 256);
}

static void t_pv_bad_entries_are_refused_with_their_index(void **state)
{
    unsigned int at;

    table[7] = p2m_frames[4] << 12 | XC_SR_PV_PTE_SUPERPAGE | 1;
    assert_null(normalise(1, &at)); /* there it is a memory type */
    assert_non_null(strstr(normalise(2, &at), "superpage"));
    assert_int_equal(at, 7);
    table[7] = 0;
    table[511] = 5 << 12 | 1;
    assert_non_null(strstr(normalise(1, &at), "not the guest's own"));
    assert_int_equal(at, 511);
    table[511] = (uint64_t)PFNS << 12 | 1;
    assert_non_null(strstr(xc_sr_pv_localise(&p2m, 1, table, &at), "cannot have"));
    table[511] = 9 << 12 | 1;
    assert_non_null(strstr(xc_sr_pv_localise(&p2m, 1, table, &at), "without memory"));
    table[511] = 4 << 12 | XC_SR_PV_PTE_SUPERPAGE | 1;
    assert_non_null(strstr(xc_sr_pv_localise(&p2m, 3, table, &at), "superpage"));
    assert_int_equal(at, 511);
}

static void t_pv_missing_pfns_are_those_present_below_the_end(void **state)
{
    uint64_t missing[XC_SR_PV_ENTRIES];

    table[0] = 9 << 12 | 1;
    table[1] = 19 << 12; /* not present */
    table[2] = 8 << 12 | 1;
    table[3] = (uint64_t)PFNS << 12 | 1;
    table[260] = 29 << 12 | 1;
    table[300] = 39 << 12 | 1;
    assert_int_equal(xc_sr_pv_find_missing(&p2m, 4, table, missing), 2);
    assert_int_equal(missing[0], 9);
    assert_int_equal(missing[1], 39);
    assert_int_equal(xc_sr_pv_find_missing(&p2m, 1, table, missing), 3);
    assert_int_equal(missing[1], 29);
}

static uint64_t random_entry(void)
{
    uint64_t pfn = rand() % 200 ? (uint64_t)rand() % 9 : (uint64_t)rand() % (2 * PFNS);

    return rand() % 8 ? 0 : pfn << 12 | (rand() & 0x7f);
}

/* Any table of a stream: what is taken has only frames of the guest in present entries. */
static void t_pv_random_tables_name_only_the_guests_frames(void **state)
{
    unsigned int seed, i, at, taken = 0;
    uint64_t pfn;

    for (seed = 1; seed <= 2000; seed++) {
        srand(seed);
        for (i = 0; i < XC_SR_PV_ENTRIES; i++)
            table[i] = random_entry();
        if (xc_sr_pv_localise(&p2m, 1 + seed % 4, table, &at)) continue;
        taken++;
        for (i = 0; i < XC_SR_PV_ENTRIES; i++) {
            if (!(table[i] & XC_SR_PV_PTE_PRESENT)) continue;
            assert_true(xc_sr_pv_find_pfn(&p2m, &m2p, table[i] >> 12, &pfn));
        }
    }
    assert_in_range(taken, 500, 1900);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(t_pv_page_types_tell_level_and_pin, setup),
        cmocka_unit_test_setup(t_pv_pfns_limit_follows_memory_between_bounds, setup),
        cmocka_unit_test_setup(t_pv_frame_is_the_guests_only_when_both_tables_agree, setup),
        cmocka_unit_test_setup(t_pv_table_there_and_back_is_the_same, setup),
        cmocka_unit_test_setup(t_pv_entries_of_the_hypervisor_are_left_out, setup),
        cmocka_unit_test_setup(t_pv_bad_entries_are_refused_with_their_index, setup),
        cmocka_unit_test_setup(t_pv_missing_pfns_are_those_present_below_the_end, setup),
        cmocka_unit_test_setup(t_pv_random_tables_name_only_the_guests_frames, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
