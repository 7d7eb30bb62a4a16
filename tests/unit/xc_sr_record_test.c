/* SPDX-License-Identifier: LGPL-2.1-only */
/* What one record of the libxc stream may look like, and which field is named when it may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "xc_sr_record.h"

#define PAGES(n) (8 + (n) * (8 + SR_PAGE_SIZE))

static uint8_t body[PAGES(4)];

static void put32(size_t off, uint32_t v)
{
    memcpy(body + off, &v, sizeof(v));
}

static void put64(size_t off, uint64_t v)
{
    memcpy(body + off, &v, sizeof(v));
}

static uint64_t entry(uint64_t type, uint64_t pfn)
{
    return type << SR_PFN_TYPE_SHIFT | pfn;
}

static void expect(uint32_t type, uint32_t length, const char *part)
{
    const char *wrong = xc_sr_record_check(type, length, body);

    if (!part) {
        if (wrong) fail_msg("refused: %s", wrong);
        return;
    }
    if (!wrong) fail_msg("accepted, expected: %s", part);
    if (!strstr(wrong, part)) fail_msg("said '%s', expected '%s'", wrong, part);
}

static void t_record_name_each_type_is_named(void **state)
{
    uint32_t type;

    (void)state;
    for (type = 0; type <= SR_REC_X86_MSR_POLICY; type++)
        assert_non_null(xc_sr_record_name(type));
    assert_string_equal(xc_sr_record_name(SR_REC_PAGE_DATA), "PAGE_DATA");
    assert_string_equal(xc_sr_record_name(0x13), "unknown record");
    assert_string_equal(xc_sr_record_name(0x80000013), "unknown optional record");
}

static void t_record_unknown_only_optional_is_fine(void **state)
{
    (void)state;
    expect(0x13, 0, "unknown");
    expect(0x7fffffff, 8, "unknown");
    expect(0x80000000, 8, NULL);
    expect(0xffffffff, SR_REC_LENGTH_MAX + 1, "128 MiB");
}

static void t_record_empty_ones_carry_no_body(void **state)
{
    static const uint32_t empty[] = {SR_REC_END, SR_REC_VERIFY, SR_REC_CHECKPOINT,
                                     SR_REC_STATIC_DATA_END};
    size_t i;

    (void)state;
    for (i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
        expect(empty[i], 0, NULL);
        expect(empty[i], 1, "too long");
    }
}

static void t_page_data_each_type_counts_its_data(void **state)
{
    uint32_t type;

    (void)state;
    for (type = 0; type < 16; type++) {
        int data = type <= 4 || (type >= 9 && type <= 12);
        int known = type <= 4 || type >= 9;

        memset(body, 0, sizeof(body));
        put32(0, 1);
        put64(8, entry(type, 5));
        if (!known) {
            expect(SR_REC_PAGE_DATA, 16, "unused page type");
            continue;
        }
        expect(SR_REC_PAGE_DATA, 16 + (data ? SR_PAGE_SIZE : 0), NULL);
        expect(SR_REC_PAGE_DATA, 16 + (data ? 0 : SR_PAGE_SIZE), "does not match the pages");
    }
}

static void t_page_data_hostile_counts_are_refused(void **state)
{
    (void)state;
    memset(body, 0, sizeof(body));
    expect(SR_REC_PAGE_DATA, 8, "too short");
    expect(SR_REC_PAGE_DATA, 16, "count is 0");
    put32(0, 2);
    expect(SR_REC_PAGE_DATA, 16, "count exceeds");
    put32(0, UINT32_MAX);
    expect(SR_REC_PAGE_DATA, 16, "count exceeds");
    put32(0, 1);
    put32(4, 1);
    expect(SR_REC_PAGE_DATA, 16 + SR_PAGE_SIZE, "reserved");
    put32(4, 0);
    put64(8, 1ULL << 52);
    expect(SR_REC_PAGE_DATA, 16 + SR_PAGE_SIZE, "2^52");
    put64(8, (1ULL << 52) - 1);
    expect(SR_REC_PAGE_DATA, 16 + SR_PAGE_SIZE, NULL);
    expect(SR_REC_PAGE_DATA, 16 + SR_PAGE_SIZE - 1, "does not match");
}

static void t_page_data_mixed_types_add_up(void **state)
{
    (void)state;
    memset(body, 0, sizeof(body));
    put32(0, 3);
    put64(8, entry(SR_PAGE_NORMAL, 1));
    put64(16, entry(SR_PAGE_XTAB, 2));
    put64(24, entry(SR_PAGE_PINNED_L4, 1));
    expect(SR_REC_PAGE_DATA, 8 + 24 + 2 * SR_PAGE_SIZE, NULL);
    expect(SR_REC_PAGE_DATA, 8 + 24 + 3 * SR_PAGE_SIZE, "does not match");
}

static void t_pv_info_only_two_pairs_are_valid(void **state)
{
    int width, levels;

    (void)state;
    memset(body, 0, sizeof(body));
    for (width = 0; width < 10; width++) {
        for (levels = 0; levels < 6; levels++) {
            int ok = (width == 4 && levels == 3) || (width == 8 && levels == 4);

            body[0] = (uint8_t)width;
            body[1] = (uint8_t)levels;
            expect(SR_REC_X86_PV_INFO, 8, ok ? NULL : "do not go together");
        }
    }
    body[0] = 8;
    body[1] = 4;
    body[7] = 1;
    expect(SR_REC_X86_PV_INFO, 8, "reserved");
    expect(SR_REC_X86_PV_INFO, 9, "too long");
}

static void t_p2m_frames_count_follows_the_range(void **state)
{
    (void)state;
    memset(body, 0, sizeof(body));
    put32(0, 0);
    put32(4, 24575); /* 48 frames of 512 entries, 24 of 1024 */
    expect(SR_REC_X86_PV_P2M_FRAMES, 8 + 8 * 48, NULL);
    expect(SR_REC_X86_PV_P2M_FRAMES, 8 + 8 * 24, NULL);
    expect(SR_REC_X86_PV_P2M_FRAMES, 8 + 8 * 47, "does not match the pfn range");
    expect(SR_REC_X86_PV_P2M_FRAMES, 8 + 8 * 48 + 4, "multiple of 8");
    put32(0, 24576);
    expect(SR_REC_X86_PV_P2M_FRAMES, 8 + 8 * 48, "below start_pfn");
    put32(0, 0);
    put32(4, 0);
    put64(8, 1ULL << 52);
    expect(SR_REC_X86_PV_P2M_FRAMES, 16, "2^52");
}

static void t_vcpu_records_sizes_are_exact(void **state)
{
    (void)state;
    memset(body, 0, sizeof(body));
    expect(SR_REC_X86_PV_VCPU_BASIC, 8, NULL);
    expect(SR_REC_X86_PV_VCPU_BASIC, 8 + 0x1430, NULL);
    expect(SR_REC_X86_PV_VCPU_BASIC, 8 + 0xaf0, NULL);
    expect(SR_REC_X86_PV_VCPU_BASIC, 8 + 0xaf1, "neither");
    expect(SR_REC_X86_PV_VCPU_BASIC, 8 + 0x1431, "too long");
    expect(SR_REC_X86_PV_VCPU_EXTENDED, 8 + 128, NULL);
    expect(SR_REC_X86_PV_VCPU_EXTENDED, 8 + 129, "too long");
    expect(SR_REC_X86_PV_VCPU_XSAVE, 8, NULL);
    expect(SR_REC_X86_PV_VCPU_XSAVE, 8 + 15, "too short");
    expect(SR_REC_X86_PV_VCPU_XSAVE, 8 + 16, NULL);
    expect(SR_REC_X86_PV_VCPU_MSRS, 8 + 32, NULL);
    expect(SR_REC_X86_PV_VCPU_MSRS, 8 + 31, "whole number");
    put32(8 + 4, 1);
    expect(SR_REC_X86_PV_VCPU_MSRS, 8 + 32, "reserved");
    put32(4, 1);
    expect(SR_REC_X86_PV_VCPU_BASIC, 8, "reserved");
    expect(SR_REC_X86_PV_VCPU_BASIC, 7, "too short");
}

static void t_fixed_records_lengths_are_exact(void **state)
{
    (void)state;
    memset(body, 0, sizeof(body));
    expect(SR_REC_SHARED_INFO, 4096, NULL);
    expect(SR_REC_SHARED_INFO, 4095, "too short");
    expect(SR_REC_SHARED_INFO, 4097, "too long");
    expect(SR_REC_X86_TSC_INFO, 24, NULL);
    expect(SR_REC_X86_TSC_INFO, 23, "too short");
    expect(SR_REC_HVM_CONTEXT, 0, "too short");
    expect(SR_REC_HVM_PARAMS, 8, NULL);
    put32(0, 2);
    expect(SR_REC_HVM_PARAMS, 8 + 32, NULL);
    expect(SR_REC_HVM_PARAMS, 8 + 16, "does not match count");
    put32(0, 0x10000002); /* 16 * count overflows 32 bits to the same length */
    expect(SR_REC_HVM_PARAMS, 8 + 32, "does not match count");
    expect(SR_REC_X86_CPUID_POLICY, 0, "too short");
    expect(SR_REC_X86_CPUID_POLICY, 48, NULL);
    expect(SR_REC_X86_CPUID_POLICY, 47, "whole number");
    expect(SR_REC_X86_MSR_POLICY, 32, NULL);
    expect(SR_REC_X86_MSR_POLICY, 33, "whole number");
    expect(SR_REC_CHECKPOINT_DIRTY_PFN_LIST, 0, NULL);
    expect(SR_REC_CHECKPOINT_DIRTY_PFN_LIST, 12, "multiple of 8");
}

static void t_record_without_body_checks_the_length(void **state)
{
    (void)state;
    assert_null(xc_sr_record_check(SR_REC_PAGE_DATA, 16, NULL));
    assert_non_null(xc_sr_record_check(SR_REC_PAGE_DATA, SR_REC_LENGTH_MAX + 1, NULL));
    assert_non_null(xc_sr_record_check(SR_REC_X86_MSR_POLICY, 17, NULL));
}

static void t_headers_ours_are_accepted_and_broken_ones_named(void **state)
{
    struct sr_ihdr ihdr;
    struct sr_dhdr dhdr;

    (void)state;
    assert_int_equal(sizeof(ihdr), 24);
    assert_int_equal(sizeof(dhdr), 16);
    xc_sr_headers_fill(&ihdr, &dhdr, SR_DHDR_TYPE_X86_HVM, 4, 17);
    assert_null(xc_sr_ihdr_check(&ihdr));
    assert_int_equal(xc_sr_ihdr_version(&ihdr), 3);
    assert_null(xc_sr_dhdr_check(&dhdr, SR_DHDR_TYPE_X86_HVM));
    assert_null(xc_sr_dhdr_check(&dhdr, 0));
    assert_non_null(strstr(xc_sr_dhdr_check(&dhdr, SR_DHDR_TYPE_X86_PV), "type"));
    dhdr.page_shift = 13;
    assert_non_null(strstr(xc_sr_dhdr_check(&dhdr, 0), "page_shift"));
    ihdr.options = 0x0100;
    assert_non_null(strstr(xc_sr_ihdr_check(&ihdr), "big endian"));
    ihdr.version = 0x04000000;
    assert_non_null(strstr(xc_sr_ihdr_check(&ihdr), "version"));
    ihdr.id = 0;
    assert_non_null(strstr(xc_sr_ihdr_check(&ihdr), "not a Xen"));
    ihdr.marker = 0;
    assert_non_null(strstr(xc_sr_ihdr_check(&ihdr), "marker"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_record_name_each_type_is_named),
        cmocka_unit_test(t_record_unknown_only_optional_is_fine),
        cmocka_unit_test(t_record_empty_ones_carry_no_body),
        cmocka_unit_test(t_page_data_each_type_counts_its_data),
        cmocka_unit_test(t_page_data_hostile_counts_are_refused),
        cmocka_unit_test(t_page_data_mixed_types_add_up),
        cmocka_unit_test(t_pv_info_only_two_pairs_are_valid),
        cmocka_unit_test(t_p2m_frames_count_follows_the_range),
        cmocka_unit_test(t_vcpu_records_sizes_are_exact),
        cmocka_unit_test(t_fixed_records_lengths_are_exact),
        cmocka_unit_test(t_record_without_body_checks_the_length),
        cmocka_unit_test(t_headers_ours_are_accepted_and_broken_ones_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
