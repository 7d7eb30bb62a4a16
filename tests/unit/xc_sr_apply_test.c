/* SPDX-License-Identifier: LGPL-2.1-only */
/* Checkpoints into a complete, paused domain, on the fake Xen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fake_xen.h"
#include "xc_sr_apply.h"
#include "xc_sr_record.h"

#include <xen/hvm/params.h>

#define PAGE 4096u
#define STORE_GFN 2000
#define NORMAL 0ULL
#define XALLOC 0xeULL
#define XTAB 0xfULL

static char last_log[400];

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *format, va_list al)
{
    if (level >= XTL_ERROR) vsnprintf(last_log, sizeof(last_log), format, al);
}

static xentoollog_logger logger = {vmessage, NULL, NULL};

struct fixture {
    struct xc_sr_apply a;
    struct xc_sr_record rec;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    uint32_t g;

    fake_reset();
    for (g = 0; g < 1000; g++)
        fake_populate(FAKE_BACKUP, g);
    fake_populate(FAKE_BACKUP, STORE_GFN);
    fake_dom[FAKE_BACKUP].paused = true;
    fake_dom[FAKE_BACKUP].params[HVM_PARAM_STORE_PFN] = STORE_GFN;
    f->a.env.lg = &logger;
    f->a.env.domid = FAKE_BACKUP;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    xc_sr_apply_close(&f->a);
    xc_sr_apply_close(&f->a);
    assert_int_equal(fake_mappings, 0);
    free(f->rec.body);
    free(f);
    return 0;
}

/* PAGE_DATA: entry i has type types[i]; page contents are made of pfn and seed. */
static void make_pages(struct fixture *f, unsigned int n, const uint64_t *pfns,
                       const uint64_t *types, uint8_t seed)
{
    struct sr_page_data head = {.count = n};
    uint8_t *p;
    unsigned int i;

    free(f->rec.body);
    p = f->rec.body = calloc(1, sizeof(head) + n * (8 + PAGE));
    memcpy(p, &head, sizeof(head));
    p += sizeof(head);
    for (i = 0; i < n; i++, p += 8) {
        uint64_t entry = pfns[i] | types[i] << SR_PFN_TYPE_SHIFT;

        memcpy(p, &entry, 8);
    }
    for (i = 0; i < n; i++) {
        if (types[i] != NORMAL) continue;
        memset(p, (int)(pfns[i] + seed), PAGE);
        p += PAGE;
    }
    f->rec.type = SR_REC_PAGE_DATA;
    f->rec.length = (uint32_t)(p - (uint8_t *)f->rec.body);
    assert_null(xc_sr_record_check(f->rec.type, f->rec.length, f->rec.body));
}

static int apply_one(struct fixture *f, uint64_t pfn, uint64_t type, uint8_t seed)
{
    make_pages(f, 1, &pfn, &type, seed);
    return xc_sr_apply_record(&f->a, &f->rec);
}

static void assert_page(uint32_t gfn, uint8_t value)
{
    const uint8_t *page = fake_page(FAKE_BACKUP, gfn);
    unsigned int i;

    assert_non_null(page);
    for (i = 0; i < PAGE; i++)
        if (page[i] != value) fail_msg("gfn %u is %#x at %u, not %#x", gfn, page[i], i, value);
}

static void t_apply_pages_are_written_again_and_again(void **state)
{
    struct fixture *f = *state;
    uint64_t pfns[] = {5, 999, 512, 6}, types[4] = {NORMAL};
    uint8_t seed;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    for (seed = 1; seed < 4; seed++) {
        make_pages(f, 4, pfns, types, seed);
        assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
        assert_page(5, 5 + seed);
        assert_page(999, (uint8_t)(999 + seed));
        assert_page(512, (uint8_t)(512 + seed));
        assert_page(7, 0xa5);
    }
}

static void t_apply_page_of_xenstore_is_never_touched(void **state)
{
    struct fixture *f = *state;
    uint64_t pfns[] = {STORE_GFN, 6}, types[2] = {NORMAL, NORMAL};

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    make_pages(f, 2, pfns, types, 1);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_page(STORE_GFN, 0xa5);
    assert_page(6, 7);
    assert_int_equal(apply_one(f, STORE_GFN, XTAB, 0), 0);
    assert_page(STORE_GFN, 0xa5);
}

static void t_apply_missing_pages_come(void **state)
{
    struct fixture *f = *state;
    uint64_t pfns[] = {1500, 3, 1501, 1500, 1502, FAKE_GFNS - 1}, types[6] = {NORMAL};

    types[4] = XALLOC;
    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    make_pages(f, 6, pfns, types, 1);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_page(1500, (uint8_t)1501);
    assert_page(1501, (uint8_t)1502);
    assert_page(3, 4);
    assert_page(1502, 0xa5);
    assert_page(FAKE_GFNS - 1, (uint8_t)FAKE_GFNS);
    assert_int_equal(apply_one(f, 1502, NORMAL, 7), 0);
    assert_page(1502, (uint8_t)1509);
}

/* The guest was given more than it had when its twin was made. */
static void t_apply_more_pages_than_at_the_start_come(void **state)
{
    struct fixture *f = *state;
    uint64_t pfns[] = {1500, 1501, 1502}, types[3] = {NORMAL, NORMAL, NORMAL};

    f->a.env.max_kb = 4096;
    fake_room = 1;
    fake_reserve = 4;
    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    make_pages(f, 3, pfns, types, 1);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_page(1500, (uint8_t)1501);
    assert_page(1502, (uint8_t)1503);
    assert_int_equal(fake_room, 2);
}

static void t_apply_more_pages_than_the_maximum_are_refused(void **state)
{
    struct fixture *f = *state;
    uint64_t pfns[] = {1500, 1501, 1502}, types[3] = {NORMAL, NORMAL, NORMAL};

    f->a.env.max_kb = 4096;
    fake_room = 0;
    fake_reserve = 2;
    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    make_pages(f, 3, pfns, types, 1);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), -1);
    assert_non_null(strstr(last_log, "cannot populate 1 pages of domain 2 from pfn 0x5de"));
}

static void t_apply_maximum_comes_from_the_twin(void **state)
{
    static const char *const bad[] = {"", "x", "-1", "12k", "17179869185"};
    struct xc_sr_env env = {.lg = &logger};

    unsetenv("XENTWIN_MAX_MEMKB");
    assert_int_equal(xc_sr_read_max_kb(&env), 0);
    assert_int_equal(env.max_kb, 0);
    setenv("XENTWIN_MAX_MEMKB", "131072", 1);
    assert_int_equal(xc_sr_read_max_kb(&env), 0);
    assert_int_equal(env.max_kb, 131072);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        setenv("XENTWIN_MAX_MEMKB", bad[i], 1);
        assert_int_equal(xc_sr_read_max_kb(&env), -1);
    }
    unsetenv("XENTWIN_MAX_MEMKB");
}

static void t_apply_page_that_left_is_given_back(void **state)
{
    struct fixture *f = *state;
    uint64_t pfns[] = {10, 11, 1800, 12, 10}, types[5] = {XTAB, XTAB, XTAB, NORMAL, XTAB};

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    assert_int_equal(apply_one(f, 10, NORMAL, 1), 0);
    make_pages(f, 5, pfns, types, 1);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_null(fake_page(FAKE_BACKUP, 10));
    assert_null(fake_page(FAKE_BACKUP, 11));
    assert_page(12, 13);
    /* It comes back as another page: the old mapping must not be used. */
    assert_int_equal(apply_one(f, 10, NORMAL, 9), 0);
    assert_page(10, 19);
}

static void t_apply_pfn_out_of_bounds_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    assert_int_equal(apply_one(f, 1ULL << 40, NORMAL, 1), -1);
    assert_non_null(strstr(last_log, "out of bounds"));
}

static void *heap(const void *bytes, size_t n)
{
    return memcpy(malloc(n), bytes, n);
}

static void t_apply_encoded_pages(void **state)
{
    struct fixture *f = *state;
    struct sr_encoded_pages head = {.count = 1, .method = SR_METHOD_STORED};
    uint64_t entry = 9 | (uint64_t)SR_ENCODING_ZERO << SR_ENCODED_SHIFT;
    uint8_t body[sizeof(head) + 8];

    memcpy(body, &head, sizeof(head));
    memcpy(body + sizeof(head), &entry, 8);
    f->rec = (struct xc_sr_record){SR_REC_ENCODED_PAGES, sizeof(body), heap(body, sizeof(body))};
    assert_null(xc_sr_record_check(f->rec.type, f->rec.length, f->rec.body));
    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_page(9, 0);
}

/* One line of 64 octets, of which the first word changes. */
static int apply_delta(struct fixture *f, uint64_t pfn)
{
    struct sr_encoded_pages head = {.count = 1, .method = SR_METHOD_STORED, .content_length = 24};
    uint64_t entry = pfn | (uint64_t)SR_ENCODING_DELTA << SR_ENCODED_SHIFT, lines = 1;
    uint8_t body[sizeof(head) + 8 + 24] = {0}, *content = body + sizeof(head) + 8;

    free(f->rec.body);
    memcpy(body, &head, sizeof(head));
    memcpy(body + sizeof(head), &entry, 8);
    memcpy(content, &lines, 8);
    content[8] = 1;
    f->rec = (struct xc_sr_record){SR_REC_ENCODED_PAGES, sizeof(body), heap(body, sizeof(body))};
    assert_null(xc_sr_record_check(f->rec.type, f->rec.length, f->rec.body));
    return xc_sr_apply_record(&f->a, &f->rec);
}

static void t_apply_delta_without_a_page_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    assert_int_equal(apply_delta(f, 1900), -1);
    assert_non_null(strstr(last_log, "delta for pfn 0x76c"));
}

/* Behind a page that comes, in the same record: it is not made for the delta. */
static void t_apply_delta_without_a_page_is_refused_behind_one_that_comes(void **state)
{
    struct fixture *f = *state;
    struct sr_encoded_pages head = {.count = 2, .method = SR_METHOD_STORED, .content_length = 24};
    uint64_t entries[] = {1800 | (uint64_t)SR_ENCODING_ZERO << SR_ENCODED_SHIFT,
                          1900 | (uint64_t)SR_ENCODING_DELTA << SR_ENCODED_SHIFT};
    uint8_t body[sizeof(head) + sizeof(entries) + 24] = {0};

    memcpy(body, &head, sizeof(head));
    memcpy(body + sizeof(head), entries, sizeof(entries));
    body[sizeof(head) + sizeof(entries)] = body[sizeof(head) + sizeof(entries) + 8] = 1;
    f->rec = (struct xc_sr_record){SR_REC_ENCODED_PAGES, sizeof(body), heap(body, sizeof(body))};
    assert_null(xc_sr_record_check(f->rec.type, f->rec.length, f->rec.body));
    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), -1);
    assert_non_null(strstr(last_log, "delta for pfn 0x76c"));
}

/* Another process takes over: it begins with the first record again. */
static void start_over(struct fixture *f)
{
    xc_sr_apply_close(&f->a);
    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    xc_sr_apply_begin(&f->a, true);
}

/* The first `steps` of several checkpoints: pfn 5 leaves, pfn 6 leaves and comes back, as do those between. */
static int several_checkpoints(struct fixture *f, unsigned int steps)
{
    unsigned int i;

    for (i = 0; i < steps; i++) {
        int rc = i == 0   ? apply_delta(f, 5)
                 : i == 1 ? apply_delta(f, 6)
                 : i == 2 ? apply_one(f, 5, XTAB, 0)
                 : i == 3 ? apply_one(f, 6, XTAB, 0)
                 : i == 4 ? apply_one(f, 6, NORMAL, 1)
                          : apply_delta(f, 6);

        if (rc) return rc;
    }
    return 0;
}

static void t_apply_several_checkpoints_wherever_it_died(void **state)
{
    struct fixture *f = *state;
    unsigned int died, died_again;

    for (died = 0; died <= 6; died++) {
        for (died_again = 0; died_again <= 6; died_again++) {
            teardown(state);
            setup(state);
            f = *state;
            assert_int_equal(xc_sr_apply_open(&f->a), 0);
            xc_sr_apply_begin(&f->a, false);
            assert_int_equal(several_checkpoints(f, died), 0);
            start_over(f);
            assert_int_equal(several_checkpoints(f, died_again), 0);
            start_over(f);
            assert_int_equal(several_checkpoints(f, 6), 0);
            assert_int_equal(xc_sr_apply_end(&f->a), 0);
            assert_null(fake_page(FAKE_BACKUP, 5));
            assert_int_equal(fake_page(FAKE_BACKUP, 6)[0], 0);
            assert_int_equal(fake_page(FAKE_BACKUP, 6)[8], 7);
            assert_int_equal(fake_page(FAKE_BACKUP, 6)[4095], 7);
        }
    }
}

/* It says again, but nothing takes the page away, or the pfn never had one, or it is another DATA. */
static void t_apply_again_is_no_excuse(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    xc_sr_apply_begin(&f->a, true);
    assert_int_equal(apply_delta(f, 1900), 0);
    assert_int_equal(apply_one(f, 1900, XALLOC, 0), 0);
    assert_int_equal(apply_delta(f, 1900), 0);
    last_log[0] = 0;
    assert_int_equal(xc_sr_apply_end(&f->a), -1);
    assert_non_null(strstr(last_log, "delta for pfn 0x76c"));
    start_over(f);
    assert_int_equal(apply_delta(f, FAKE_GFNS), -1);
    start_over(f);
    assert_int_equal(apply_one(f, 5, NORMAL, 1), 0);
    assert_int_equal(xc_sr_apply_end(&f->a), 0);
    assert_int_equal(apply_delta(f, 1900), -1);
    xc_sr_apply_begin(&f->a, false);
    assert_int_equal(apply_delta(f, 1900), -1);
}

static void make_param(struct fixture *f, uint64_t index, uint64_t value)
{
    struct sr_hvm_params head = {.count = 1};
    struct sr_hvm_param param = {index, value};

    free(f->rec.body);
    f->rec.body = calloc(1, sizeof(head) + sizeof(param));
    memcpy(f->rec.body, &head, sizeof(head));
    memcpy((uint8_t *)f->rec.body + sizeof(head), &param, sizeof(param));
    f->rec.type = SR_REC_HVM_PARAMS;
    f->rec.length = sizeof(head) + sizeof(param);
}

static void t_apply_params(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    make_param(f, HVM_PARAM_STORE_PFN, STORE_GFN);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_page(STORE_GFN, 0xa5);
    make_param(f, HVM_PARAM_VM_GENERATION_ID_ADDR, 0x1234);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_int_equal(fake_dom[FAKE_BACKUP].params[HVM_PARAM_VM_GENERATION_ID_ADDR], 0x1234);
    make_param(f, HVM_PARAM_STORE_PFN, 7);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), -1);
    assert_non_null(strstr(last_log, "moved"));
    make_param(f, HVM_NR_PARAMS, 7);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), -1);
}

static void make_context(struct fixture *f, int fill)
{
    free(f->rec.body);
    f->rec =
        (struct xc_sr_record){SR_REC_HVM_CONTEXT, FAKE_CONTEXT_SIZE, malloc(FAKE_CONTEXT_SIZE)};
    memset(f->rec.body, fill, FAKE_CONTEXT_SIZE);
}

static void t_apply_context_is_the_newest(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    assert_int_equal(xc_sr_apply_context(&f->a), 0);
    assert_int_equal(fake_dom[FAKE_BACKUP].context_calls, 0);
    make_context(f, 1);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    make_context(f, 2);
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
    assert_int_equal(fake_dom[FAKE_BACKUP].context_calls, 0);
    assert_int_equal(xc_sr_apply_context(&f->a), 0);
    assert_int_equal(xc_sr_apply_context(&f->a), 0);
    assert_int_equal(fake_dom[FAKE_BACKUP].context_calls, 2);
    assert_int_equal(fake_dom[FAKE_BACKUP].context[77], 2);
}

static void t_apply_static_record_is_refused(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(xc_sr_apply_open(&f->a), 0);
    f->rec.type = SR_REC_STATIC_DATA_END;
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), -1);
    f->rec.type = 0x80001234;
    assert_int_equal(xc_sr_apply_record(&f->a, &f->rec), 0);
}

static void t_apply_running_or_missing_domain_is_refused(void **state)
{
    struct fixture *f = *state;

    fake_dom[FAKE_BACKUP].paused = false;
    assert_int_equal(xc_sr_apply_open(&f->a), -1);
    assert_non_null(strstr(last_log, "not a paused"));
    fake_dom[FAKE_BACKUP].exists = false;
    assert_int_equal(xc_sr_apply_open(&f->a), -1);
    assert_non_null(strstr(last_log, "gone"));
}

/* One checkpoint: pages that are there, that come, that go. */
static int checkpoint(struct fixture *f)
{
    uint64_t pfns[] = {20, 1600, 21, 700, 1601}, types[] = {NORMAL, NORMAL, XTAB, NORMAL, NORMAL};
    int rc;

    make_pages(f, 5, pfns, types, 3);
    rc = xc_sr_apply_record(&f->a, &f->rec);
    if (rc) return rc;
    make_context(f, 9);
    rc = xc_sr_apply_record(&f->a, &f->rec);
    return rc ? rc : xc_sr_apply_context(&f->a);
}

/* Whichever call fails: another process that starts from the beginning gets everything right. */
static void t_apply_nth_call_fails_and_another_starts_over(void **state)
{
    struct fixture *f = *state;
    unsigned int n;
    int rc = -1;

    for (n = 1; rc; n++) {
        teardown(state);
        setup(state);
        f = *state;
        fake_fail_at = n;
        rc = xc_sr_apply_open(&f->a);
        if (!rc) rc = checkpoint(f);
        fake_fail_at = 0;
        xc_sr_apply_close(&f->a);
        assert_int_equal(xc_sr_apply_open(&f->a), 0);
        assert_int_equal(checkpoint(f), 0);
        assert_page(20, 23);
        assert_page(1600, (uint8_t)1603);
        assert_page(700, (uint8_t)703);
        assert_null(fake_page(FAKE_BACKUP, 21));
        assert_int_equal(fake_dom[FAKE_BACKUP].context[0], 9);
    }
    assert_true(n > 15);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_apply_pages_are_written_again_and_again),
        T(t_apply_page_of_xenstore_is_never_touched),
        T(t_apply_missing_pages_come),
        T(t_apply_more_pages_than_at_the_start_come),
        T(t_apply_more_pages_than_the_maximum_are_refused),
        T(t_apply_maximum_comes_from_the_twin),
        T(t_apply_page_that_left_is_given_back),
        T(t_apply_pfn_out_of_bounds_is_refused),
        T(t_apply_encoded_pages),
        T(t_apply_delta_without_a_page_is_refused),
        T(t_apply_delta_without_a_page_is_refused_behind_one_that_comes),
        T(t_apply_several_checkpoints_wherever_it_died),
        T(t_apply_again_is_no_excuse),
        T(t_apply_params),
        T(t_apply_context_is_the_newest),
        T(t_apply_static_record_is_refused),
        T(t_apply_running_or_missing_domain_is_refused),
        T(t_apply_nth_call_fails_and_another_starts_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
