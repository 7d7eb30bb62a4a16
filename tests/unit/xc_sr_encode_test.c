/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Encoded pages: what goes in comes out, whatever the backup had; each form of the inner loops
 * gives the same octets; and no octets, however wrong, are decoded beyond their page.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <lz4.h>
#include <cmocka.h>

#include "xc_sr_decode.h"
#include "xc_sr_diff.h"
#include "xc_sr_encode.h"
#include "xc_sr_record.h"
#include "xc_sr_ref.h"

#define PAGE SR_PAGE_SIZE
#define PFNS 300
#define FENCE 0x5a

static uint8_t guest[PFNS][PAGE] __attribute__((aligned(64)));
static uint8_t backup[PFNS][PAGE];
static bool there[PFNS];
static uint32_t seed;

static uint32_t dice(uint32_t sides)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % sides;
}

static void fill(uint8_t *page, uint32_t words)
{
    uint32_t i, v;

    for (i = 0; i < words; i++) {
        v = dice(1 << 24);
        memcpy(page + 4 * dice(PAGE / 4), &v, sizeof(v));
    }
}

/* ---- the reader ---- */

static void apply_record(const uint8_t *body, uint32_t length)
{
    static uint8_t scratch[SR_ENCODED_CONTENT_MAX];
    struct xc_sr_encoded pages;
    const uint8_t *at;
    uint32_t i;

    assert_null(xc_sr_record_check(SR_REC_ENCODED_PAGES, length, body));
    assert_null(xc_sr_encoded_open(&pages, body, length, scratch));
    at = pages.content;
    for (i = 0; i < pages.count; i++) {
        uint64_t entry = xc_sr_encoded_entry(pages.entries, i), pfn = xc_sr_entry_pfn(entry);

        assert_true(pfn < PFNS);
        if (!xc_sr_page_type_has_data(xc_sr_entry_type(entry))) {
            there[pfn] = false;
            memset(backup[pfn], 0xee, PAGE);
            continue;
        }
        if (xc_sr_entry_encoding(entry) == SR_ENCODING_DELTA) assert_true(there[pfn]);
        there[pfn] = true;
        at += xc_sr_decode_page(backup[pfn], xc_sr_entry_encoding(entry), at);
    }
    assert_ptr_equal(at, pages.content + pages.content_length);
}

static void apply(struct xc_sr_encoder *e)
{
    const void *records;
    const uint8_t *at, *end;
    size_t size = xc_sr_encoder_take(e, &records);

    for (at = records, end = at + size; at < end;) {
        struct sr_rhdr rhdr;

        memcpy(&rhdr, at, sizeof(rhdr));
        assert_int_equal(rhdr.type, SR_REC_ENCODED_PAGES);
        apply_record(at + sizeof(rhdr), rhdr.length);
        at += sizeof(rhdr) + xc_sr_record_padded(rhdr.length);
    }
    assert_ptr_equal(at, end);
}

static void send_page(struct xc_sr_encoder *e, uint64_t pfn)
{
    if (xc_sr_encoder_add(e, pfn, SR_PAGE_NORMAL, guest[pfn])) apply(e);
}

static void start(uint32_t with)
{
    memset(guest, 0, sizeof(guest));
    memset(backup, 0xee, sizeof(backup));
    memset(there, 0, sizeof(there));
    seed = with;
}

/* One round of a guest that does all kinds of things to its pages. */
static void change_and_send(struct xc_sr_encoder *e, uint64_t pfn)
{
    switch (dice(8)) {
    case 0:
        memset(guest[pfn], 0, PAGE);
        break;
    case 1:
        fill(guest[pfn], 2000);
        break;
    case 2:
        if (xc_sr_encoder_add(e, pfn, SR_PAGE_XTAB, NULL)) apply(e);
        return;
    case 3:
        break;
    default:
        fill(guest[pfn], 1 + dice(40));
    }
    send_page(e, pfn);
}

static void round_trips(enum xc_sr_encode_mode mode, uint64_t ref_pages)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(mode, PFNS, ref_pages * PAGE);
    unsigned int round;
    uint64_t pfn;

    assert_non_null(e);
    for (round = 0; round < 60; round++) {
        for (pfn = 0; pfn < PFNS; pfn++)
            if (!dice(3)) change_and_send(e, pfn);
        xc_sr_encoder_finish(e);
        apply(e);
        for (pfn = 0; pfn < PFNS; pfn++)
            if (there[pfn]) assert_memory_equal(guest[pfn], backup[pfn], PAGE);
    }
    xc_sr_encoder_free(e);
}

static void t_encode_whatever_changes_arrives(void **state)
{
    static const uint64_t room[] = {0, 1, 7, PFNS / 2, PFNS};
    unsigned int i;

    for (i = 0; i < 10; i++) {
        start(i + 1);
        round_trips(i % 2 ? XC_SR_ENCODE_LZ4 : XC_SR_ENCODE_DELTA, room[i / 2]);
    }
}

/* ---- what is chosen ---- */

static void expect(struct xc_sr_encoder *e, uint64_t unchanged, uint64_t zero, uint64_t delta,
                   uint64_t raw)
{
    const struct xc_sr_encode_counts *c = xc_sr_encoder_counts(e);

    xc_sr_encoder_finish(e);
    apply(e);
    assert_int_equal(c->unchanged, unchanged);
    assert_int_equal(c->zero, zero);
    assert_int_equal(c->delta, delta);
    assert_int_equal(c->raw, raw);
}

static void t_encode_each_kind_of_page_is_recognised(void **state)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(XC_SR_ENCODE_DELTA, PFNS, PFNS * PAGE);
    uint64_t before;

    start(1);
    fill(guest[5], 3000);
    send_page(e, 4);
    send_page(e, 5);
    expect(e, 0, 1, 0, 1);
    send_page(e, 4);
    send_page(e, 5);
    expect(e, 2, 1, 0, 1);
    guest[4][100] = guest[5][4095] ^= 1;
    before = xc_sr_encoder_counts(e)->bytes;
    send_page(e, 4);
    send_page(e, 5);
    expect(e, 2, 1, 2, 1);
    /* Record and head 24, two entries, two deltas of 24. */
    assert_int_equal(xc_sr_encoder_counts(e)->bytes - before, 24 + 16 + 48);
    fill(guest[5], 3000);
    memset(guest[4], 0, PAGE);
    send_page(e, 4);
    send_page(e, 5);
    expect(e, 2, 2, 2, 2);
    xc_sr_encoder_free(e);
}

static void t_encode_page_given_back_is_not_built_upon(void **state)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(XC_SR_ENCODE_LZ4, PFNS, PFNS * PAGE);

    start(1);
    fill(guest[9], 5);
    send_page(e, 9);
    xc_sr_encoder_add(e, 9, SR_PAGE_XTAB, NULL);
    guest[9][0] ^= 1;
    send_page(e, 9);
    expect(e, 0, 0, 0, 2);
    assert_memory_equal(guest[9], backup[9], PAGE);
    xc_sr_encoder_free(e);
}

static void t_encode_many_zero_pages_fill_whole_records(void **state)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(XC_SR_ENCODE_LZ4, 1 << 20, 0);
    const void *records;
    uint64_t pfn;

    for (pfn = 0; pfn < 10 * SR_ENCODED_COUNT_MAX; pfn++)
        xc_sr_encoder_add(e, pfn, SR_PAGE_NORMAL, guest[0]);
    xc_sr_encoder_finish(e);
    assert_int_equal(xc_sr_encoder_take(e, &records), 10 * (24 + 8 * SR_ENCODED_COUNT_MAX));
    xc_sr_encoder_free(e);
}

static void t_encode_noise_does_not_grow(void **state)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(XC_SR_ENCODE_LZ4, PFNS, 0);
    const struct xc_sr_encode_counts *c = xc_sr_encoder_counts(e);
    uint64_t pfn;

    start(1);
    for (pfn = 0; pfn < PFNS; pfn++) {
        fill(guest[pfn], 6000);
        send_page(e, pfn);
    }
    xc_sr_encoder_finish(e);
    apply(e);
    assert_true(c->bytes <= c->plain_bytes + 32 * (PFNS / 16 + 1));
    xc_sr_encoder_free(e);
}

static void t_encode_auto_follows_the_link(void **state)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(XC_SR_ENCODE_AUTO, PFNS, 0);
    const struct xc_sr_encode_counts *c = xc_sr_encoder_counts(e);
    uint64_t speeds[] = {100, 5000, 100}; /* MB/s */
    uint64_t taken[3], before;
    unsigned int i;

    start(1);
    guest[0][0] = 1;
    for (i = 0; i < 3; i++) {
        xc_sr_encoder_link(e, 64 << 20, (64 << 20) / speeds[i]);
        xc_sr_encoder_checkpoint(e);
        before = c->bytes;
        send_page(e, 0);
        xc_sr_encoder_finish(e);
        apply(e);
        taken[i] = c->bytes - before;
    }
    assert_true(taken[0] < PAGE / 8 && taken[1] > PAGE && taken[2] == taken[0]);
    /* What fits into buffers says nothing about a link. */
    xc_sr_encoder_link(e, 1 << 20, 1);
    xc_sr_encoder_checkpoint(e);
    before = c->bytes;
    send_page(e, 0);
    xc_sr_encoder_finish(e);
    apply(e);
    assert_int_equal(c->bytes - before, taken[0]);
    xc_sr_encoder_free(e);
}

/* ---- the inner loops ---- */

static void compare_forms(const struct xc_sr_diff_ops *a, const struct xc_sr_diff_ops *b)
{
    uint8_t masks_a[SR_PAGE_LINES], masks_b[SR_PAGE_LINES];
    static uint8_t out_a[PAGE + 64], out_b[PAGE + 64];
    static uint8_t base_a[PAGE] __attribute__((aligned(64)));
    static uint8_t base_b[PAGE] __attribute__((aligned(64)));
    uint64_t lines = a->diff(guest[0], guest[1], masks_a);
    size_t size;

    assert_int_equal(lines, b->diff(guest[0], guest[1], masks_b));
    assert_memory_equal(masks_a, masks_b, sizeof(masks_a));
    assert_int_equal(a->is_zero(guest[0]), b->is_zero(guest[0]));
    memcpy(base_a, guest[1], PAGE);
    memcpy(base_b, guest[1], PAGE);
    size = a->emit(guest[0], base_a, lines, masks_a, out_a);
    assert_int_equal(size, b->emit(guest[0], base_b, lines, masks_b, out_b));
    assert_memory_equal(out_a, out_b, size);
    assert_memory_equal(base_a, guest[0], PAGE);
    assert_memory_equal(base_b, guest[0], PAGE);
    assert_int_equal(size, b->emit(guest[0], NULL, lines, masks_b, out_b));
}

static void t_diff_all_forms_agree(void **state)
{
    const struct xc_sr_diff_ops *const *forms = xc_sr_diff_forms();
    unsigned int round, i;

    for (round = 0; round < 2000; round++) {
        start(round + 1);
        fill(guest[0], round % 3 ? dice(900) : 0);
        if (round % 5) memcpy(guest[1], guest[0], PAGE);
        fill(guest[0], dice(12));
        for (i = 1; forms[i]; i++)
            compare_forms(forms[0], forms[i]);
    }
}

/* ---- hostile octets ---- */

static struct {
    struct sr_encoded_pages head;
    uint8_t rest[SR_ENCODED_COUNT_MAX * 8 + SR_ENCODED_CONTENT_MAX + 64];
} rec;

static void put_entry(uint32_t i, uint64_t type, uint64_t encoding, uint64_t pfn)
{
    uint64_t entry = type << SR_PFN_TYPE_SHIFT | encoding << SR_ENCODED_SHIFT | pfn;

    memcpy(rec.rest + (size_t)8 * i, &entry, sizeof(entry));
}

static void refused(uint32_t length, const char *part)
{
    const char *wrong = xc_sr_record_check(SR_REC_ENCODED_PAGES, length, &rec);

    if (!wrong) fail_msg("accepted, expected: %s", part);
    if (!strstr(wrong, part)) fail_msg("said '%s', expected '%s'", wrong, part);
}

/* One delta whose first 8 octets, masks and words are given. */
static uint32_t one_delta(uint64_t lines, const char *masks, size_t masks_len, uint32_t words)
{
    memset(&rec, 0, sizeof(rec));
    rec.head.count = 1;
    put_entry(0, SR_PAGE_NORMAL, SR_ENCODING_DELTA, 3);
    memcpy(rec.rest + 8, &lines, sizeof(lines));
    memcpy(rec.rest + 16, masks, masks_len);
    rec.head.content_length = (uint32_t)(8 + masks_len + 8 * words);
    return (uint32_t)sizeof(rec.head) + 8 + rec.head.content_length;
}

static void t_encoded_bad_deltas_are_refused(void **state)
{
    assert_null(
        xc_sr_record_check(SR_REC_ENCODED_PAGES, one_delta(2, "\1\0\0\0\0\0\0\0", 8, 1), &rec));
    refused(one_delta(0, "", 0, 0), "contents");
    refused(one_delta(0, "", 0, 1), "contents");
    refused(one_delta(2, "\1\0\0\0\0\0\0\0", 8, 0), "contents");
    refused(one_delta(2, "\1\0\0\0\0\0\0\0", 8, 2), "more contents");
    refused(one_delta(2, "\0\0\0\0\0\0\0\0", 8, 0), "contents");
    refused(one_delta(2, "\1\1\0\0\0\0\0\0", 8, 1), "contents");
    refused(one_delta(2, "\377\0\0\0\0\0\0\0", 8, 7), "contents");
    refused(one_delta(UINT64_MAX, "\1\1\1\1\1\1\1\1", 8, 64), "contents");
}

static void t_encoded_bad_heads_are_refused(void **state)
{
    uint32_t good = one_delta(2, "\1\0\0\0\0\0\0\0", 8, 1);

    refused(good - 1, "length of the content");
    refused(good + 8, "length of the content");
    refused(20, "too short");
    rec.head.count = 0;
    refused(good, "count");
    rec.head.count = SR_ENCODED_COUNT_MAX + 1;
    refused(good, "count");
    rec.head.count = 100;
    refused(good, "count exceeds");
    rec.head.count = 1;
    rec.head.reserved = 1;
    refused(good, "reserved");
    rec.head.reserved = 0;
    rec.head.method = 2;
    refused(good, "method");
    rec.head.method = SR_METHOD_LZ4;
    refused(good, "LZ4");
    rec.head.method = 0;
    put_entry(0, SR_PAGE_NORMAL, 3, 3);
    refused(good, "contents");
    put_entry(0, SR_PAGE_XTAB, SR_ENCODING_DELTA, 3);
    refused(good, "without contents");
    put_entry(0, 5, 0, 3);
    refused(good, "page type");
    put_entry(0, SR_PAGE_NORMAL, 0x12, 3);
    refused(good, "reserved bits");
    rec.head.content_length = SR_ENCODED_CONTENT_MAX + 1;
    refused(good, "content_length");
}

/* Content that is right but for a few octets: refused, or decoded inside its page. */
static void decode_guarded(uint32_t length)
{
    static uint8_t scratch[SR_ENCODED_CONTENT_MAX], page[3 * PAGE];
    struct xc_sr_encoded pages;
    const uint8_t *at;
    uint32_t i;
    size_t k;

    if (xc_sr_encoded_open(&pages, &rec, length, scratch)) return;
    at = pages.content;
    for (i = 0; i < pages.count; i++) {
        uint64_t entry = xc_sr_encoded_entry(pages.entries, i);

        if (!xc_sr_page_type_has_data(xc_sr_entry_type(entry))) continue;
        memset(page, FENCE, sizeof(page));
        at += xc_sr_decode_page(page + PAGE, xc_sr_entry_encoding(entry), at);
        for (k = 0; k < PAGE; k++)
            if (page[k] != FENCE || page[2 * PAGE + k] != FENCE) fail_msg("beyond the page");
    }
    assert_true(at <= pages.content + pages.content_length);
}

static void t_encoded_garbage_stays_inside_the_page(void **state)
{
    unsigned int round;

    for (round = 0; round < 3000; round++) {
        struct xc_sr_encoder *e =
            xc_sr_encoder_new(round % 2 ? XC_SR_ENCODE_LZ4 : XC_SR_ENCODE_DELTA, PFNS, 8 * PAGE);
        const void *records;
        size_t size;
        uint32_t i;

        start(round + 1);
        for (i = 0; i < 6; i++) {
            fill(guest[i % 3], dice(30));
            xc_sr_encoder_add(e, i % 3, SR_PAGE_NORMAL, guest[i % 3]);
        }
        xc_sr_encoder_finish(e);
        size = xc_sr_encoder_take(e, &records) - sizeof(struct sr_rhdr);
        memcpy(&rec, (const uint8_t *)records + sizeof(struct sr_rhdr), size);
        for (i = dice(4); i; i--)
            ((uint8_t *)&rec)[dice((uint32_t)size)] = (uint8_t)dice(256);
        decode_guarded((uint32_t)size);
        xc_sr_encoder_free(e);
    }
}

static void t_encode_words_are_understood(void **state)
{
    enum xc_sr_encode_mode mode;

    assert_true(xc_sr_encode_parse("auto", &mode) && mode == XC_SR_ENCODE_AUTO);
    assert_true(xc_sr_encode_parse("none", &mode) && mode == XC_SR_ENCODE_NONE);
    assert_true(xc_sr_encode_parse("lz4", &mode) && mode == XC_SR_ENCODE_LZ4);
    assert_true(xc_sr_encode_parse("delta", &mode) && mode == XC_SR_ENCODE_DELTA);
    assert_false(xc_sr_encode_parse("", &mode));
    assert_false(xc_sr_encode_parse("LZ4", &mode));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_encode_whatever_changes_arrives),
        cmocka_unit_test(t_encode_each_kind_of_page_is_recognised),
        cmocka_unit_test(t_encode_page_given_back_is_not_built_upon),
        cmocka_unit_test(t_encode_many_zero_pages_fill_whole_records),
        cmocka_unit_test(t_encode_noise_does_not_grow),
        cmocka_unit_test(t_encode_auto_follows_the_link),
        cmocka_unit_test(t_diff_all_forms_agree),
        cmocka_unit_test(t_encoded_bad_deltas_are_refused),
        cmocka_unit_test(t_encoded_bad_heads_are_refused),
        cmocka_unit_test(t_encoded_garbage_stays_inside_the_page),
        cmocka_unit_test(t_encode_words_are_understood),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
