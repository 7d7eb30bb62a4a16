/* SPDX-License-Identifier: LGPL-2.1-only */
/* The twin's stream: checkpointed in, plain out; every cut, every order, and captures of stock Xen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#include <libxl.h>

#include "libxl_twin_stream.h"
#include "twin_stream_make.h"

#define HOLD (1u << 20)

static void take_all(libxl__twin_stream *ts, struct bytes *out)
{
    const unsigned char *p;
    size_t n;

    while ((n = libxl__twin_stream_peek(ts, &p))) {
        if (n > 100) n = n / 2;
        put(out, p, n);
        libxl__twin_stream_took(ts, n);
    }
}

static int commit(libxl__twin_stream *ts, uint64_t n, const unsigned char *p, size_t len)
{
    return libxl__twin_stream_commit(ts, n, len, XXH3_64bits(p, len));
}

/* Feeds the stream up to `cut`, in pieces of `piece`, committing what is whole; the last error or 0. */
static int feed_stream(libxl__twin_stream *ts, const unsigned char *s, size_t len, size_t cut,
                       size_t piece, struct bytes *out)
{
    size_t pos = 0, end, n;
    unsigned ckpt;
    int rc;

    for (ckpt = 1; pos < cut; ckpt++) {
        size_t first = pos;

        end = checkpoint_end(s, len, ckpt);
        if (!end || end > cut) end = cut;
        while (pos < end) {
            n = end - pos < piece ? end - pos : piece;
            rc = libxl__twin_stream_data(ts, ckpt, s + pos, n);
            if (rc) return rc;
            pos += n;
            if (out) take_all(ts, out);
        }
        if (end != checkpoint_end(s, len, ckpt)) break;
        rc = commit(ts, ckpt, s + first, end - first);
        if (rc) return rc;
    }
    return 0;
}

static void make_small(struct bytes *b, int checkpoints, bool emulator)
{
    put_stream_head(b);
    for (int n = 1; n <= checkpoints; n++)
        put_checkpoint(b, n, n == 1 ? 3 : 2, emulator);
}

static void t_stream_pieces_of_any_size_fold_alike(void **state)
{
    static const size_t pieces[] = {1, 2, 3, 7, 8, 63, 1000, 4096, 1 << 20};
    struct bytes s = {0}, want = {0};

    make_small(&s, 4, true);
    put_folded(&want, s.p, s.n, 4);
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        for (int early = 0; early < 2; early++) {
            libxl__twin_stream ts;
            struct bytes out = {0};

            assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
            assert_int_equal(feed_stream(&ts, s.p, s.n, s.n, pieces[i], early ? &out : NULL), 0);
            assert_int_equal(ts.committed, 4);
            assert_int_equal(libxl__twin_stream_finish(&ts), 0);
            take_all(&ts, &out);
            assert_int_equal(out.n, want.n);
            assert_memory_equal(out.p, want.p, want.n);
            libxl__twin_stream_dispose(&ts);
            libxl__twin_stream_dispose(&ts);
            free(out.p);
        }
    }
    free(s.p);
    free(want.p);
}

/* Whatever the byte at which the primary dies: the plain stream is that of the last whole checkpoint. */
static void t_stream_cut_anywhere_ends_at_last_whole_checkpoint(void **state)
{
    struct bytes s = {0};

    make_small(&s, 3, true);
    for (size_t cut = checkpoint_end(s.p, s.n, 1); cut <= s.n; cut += cut % 61 ? 1 : 17) {
        struct bytes out = {0}, want = {0};
        libxl__twin_stream ts;
        unsigned whole = 1;

        while (whole < 3 && checkpoint_end(s.p, cut, whole + 1))
            whole++;
        assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
        assert_int_equal(feed_stream(&ts, s.p, s.n, cut, 997, cut & 1 ? &out : NULL), 0);
        assert_int_equal(ts.committed, whole);
        assert_int_equal(libxl__twin_stream_finish(&ts), 0);
        take_all(&ts, &out);
        put_folded(&want, s.p, s.n, whole);
        assert_int_equal(out.n, want.n);
        assert_memory_equal(out.p, want.p, want.n);
        libxl__twin_stream_dispose(&ts);
        free(out.p);
        free(want.p);
    }
    free(s.p);
}

static void t_stream_cut_in_first_checkpoint_never_ends_plain(void **state)
{
    struct bytes s = {0};

    make_small(&s, 1, true);
    for (size_t cut = 0; cut < s.n; cut += 13) {
        struct bytes out = {0};
        libxl__twin_stream ts;

        assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
        assert_int_equal(feed_stream(&ts, s.p, s.n, cut, 500, &out), 0);
        assert_int_equal(ts.committed, 0);
        assert_true(out.n <= cut && !memcmp(out.p ? out.p : s.p, s.p, out.n));
        libxl__twin_stream_dispose(&ts);
        free(out.p);
    }
    free(s.p);
}

static void t_stream_later_checkpoint_is_held_until_commit(void **state)
{
    struct bytes s = {0}, out = {0};
    libxl__twin_stream ts;
    size_t one, two;

    make_small(&s, 2, false);
    one = checkpoint_end(s.p, s.n, 1);
    two = checkpoint_end(s.p, s.n, 2);
    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    assert_int_equal(libxl__twin_stream_data(&ts, 1, s.p, one), 0);
    assert_int_equal(commit(&ts, 1, s.p, one), 0);
    take_all(&ts, &out);
    assert_int_equal(libxl__twin_stream_held(&ts), 0);
    one = out.n;
    assert_int_equal(libxl__twin_stream_data(&ts, 2, s.p + checkpoint_end(s.p, s.n, 1),
                                             two - checkpoint_end(s.p, s.n, 1)),
                     0);
    take_all(&ts, &out);
    assert_int_equal(out.n, one);
    assert_true(libxl__twin_stream_held(&ts) > 8192);
    assert_int_equal(
        commit(&ts, 2, s.p + checkpoint_end(s.p, s.n, 1), two - checkpoint_end(s.p, s.n, 1)), 0);
    take_all(&ts, &out);
    assert_true(out.n > one + 8192);
    libxl__twin_stream_dispose(&ts);
    free(s.p);
    free(out.p);
}

static void t_stream_wrong_commit_does_not_count(void **state)
{
    struct bytes s = {0};
    size_t one;

    make_small(&s, 1, true);
    one = checkpoint_end(s.p, s.n, 1);
    for (int kind = 0; kind < 5; kind++) {
        libxl__twin_stream ts;
        size_t fed = kind == 4 ? one - 8 : one;

        assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
        assert_int_equal(libxl__twin_stream_data(&ts, 1, s.p, fed), 0);
        assert_int_equal(libxl__twin_stream_commit(&ts,
                                                   kind == 0   ? 2
                                                   : kind == 1 ? 0
                                                               : 1,
                                                   kind == 2 ? fed - 1 : fed,
                                                   XXH3_64bits(s.p, fed) ^ (kind == 3)),
                         ERROR_FAIL);
        assert_int_equal(ts.committed, 0);
        assert_true(strlen(ts.why) > 10);
        assert_int_equal(libxl__twin_stream_data(&ts, 1, s.p, 1), ERROR_FAIL);
        libxl__twin_stream_dispose(&ts);
    }
    free(s.p);
}

static void t_stream_broken_second_checkpoint_keeps_the_first(void **state)
{
    struct bytes s = {0}, out = {0}, want = {0};
    libxl__twin_stream ts;
    size_t one;

    make_small(&s, 2, true);
    one = checkpoint_end(s.p, s.n, 1);
    s.p[one] = 0x7f; /* type of its first record */
    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    assert_int_equal(feed_stream(&ts, s.p, one, one, 999, &out), 0);
    assert_int_equal(libxl__twin_stream_data(&ts, 2, s.p + one, s.n - one), ERROR_FAIL);
    assert_int_equal(libxl__twin_stream_finish(&ts), 0);
    take_all(&ts, &out);
    put_folded(&want, s.p, s.n, 1);
    assert_int_equal(out.n, want.n);
    assert_memory_equal(out.p, want.p, want.n);
    libxl__twin_stream_dispose(&ts);
    free(s.p);
    free(out.p);
    free(want.p);
}

/* A stream that is whole but for one thing; the text must name it. */
static void refuses(const struct bytes *s, const char *says)
{
    libxl__twin_stream ts;
    size_t pos = 0, end;
    unsigned ckpt = 1;
    int rc = 0;

    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    while (!rc && pos < s->n) {
        end = checkpoint_end(s->p, s->n, ckpt);
        if (!end) end = s->n;
        rc = libxl__twin_stream_data(&ts, ckpt, s->p + pos, end - pos);
        if (!rc) rc = commit(&ts, ckpt, s->p + pos, end - pos);
        pos = end;
        ckpt++;
    }
    assert_int_equal(rc, ERROR_FAIL);
    if (!strstr(ts.why, says)) fail_msg("'%s' does not say '%s'", ts.why, says);
    libxl__twin_stream_dispose(&ts);
}

static void t_stream_wrong_heads_are_refused(void **state)
{
    static const struct {
        size_t at;
        unsigned char byte;
        const char *says;
    } bad[] = {
        {0, 'X', "libxl header"}, {11, 3, "libxl header"},  {15, 1, "libxl header"},
        {16, 0, "LIBXC_CONTEXT"}, {20, 8, "LIBXC_CONTEXT"}, {24, 0, "image header"},
        {39, 4, "image header"},  {48, 3, "domain header"}, {52, 13, "domain header"},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct bytes s = {0};

        make_small(&s, 1, true);
        s.p[bad[i].at] = bad[i].byte;
        refuses(&s, bad[i].says);
        free(s.p);
    }
}

static void t_stream_wrong_records_are_refused(void **state)
{
    /* Put behind the whole checkpoint 1, as the start of 2. */
    static const struct {
        uint32_t type, len;
        const char *says;
    } bad[] = {
        {0x0, 0, "replicated"},
        {0xd, 0, "replicated"},
        {0xf, 8, "replicated"},
        {0xb, 8, "replicated"},
        {0x10, 0, "first"},
        {0x11, 24, "first"},
        {0x12, 16, "first"},
        {0x2, 8, "first"},
        {0xe, 0, "HVM_CONTEXT"},
        {0x13, 0, "unknown"},
        {0x7fffffff, 0, "unknown"},
        {0x1, 0, "short"},
        {0x1, 0x8000001, "128 MiB"},
        {0x8, 23, "short"},
        {0x8, 25, "long"},
        {0x1, 0xffffffff, "128 MiB"},
        {0x9, 0xffffffff, "128"},
        {0x1, 24, "count is 0"},
        {0x80000001, 0xffffff00, "128 MiB"},
    };
    static const unsigned char zero[32];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct bytes s = {0};

        make_small(&s, 1, true);
        put(&s, &bad[i].type, 4);
        put(&s, &bad[i].len, 4);
        if (bad[i].len <= sizeof(zero)) put(&s, zero, (bad[i].len + 7) & ~7u);
        refuses(&s, bad[i].says);
        free(s.p);
    }
}

static void t_stream_wrong_libxl_records_are_refused(void **state)
{
    static const struct {
        uint32_t type, len;
        unsigned char body[24];
        const char *says;
    } bad[] = {
        {0, 0, {0}, "does not belong"},
        {1, 0, {0}, "does not belong"},
        {5, 4, {0}, "does not belong"},
        {6, 0, {0}, "does not belong"},
        {0x80000000, 0, {0}, "does not belong"},
        {3, 7, {2}, "bounds"},
        {3, (64u << 20) + 1, {2}, "bounds"},
        {3, 16, {3}, "emulator"},
        {3, 16, {2, 0, 0, 0, 1}, "emulator"},
        {2, 0xffffffff, {2}, "bounds"},
        {2, 12, {2, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 'b', 'c'}, "relative keys"},
        {2, 12, {2, 0, 0, 0, 0, 0, 0, 0, '/', 0, 'b', 0}, "relative keys"},
        {2, 12, {2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, "relative keys"},
        {2, 14, {2, 0, 0, 0, 0, 0, 0, 0, 'a', 0, 'b', 0, 'c', 0}, "relative keys"},
        {2, 14, {2, 0, 0, 0, 0, 0, 0, 0, '.', '.', '/', 'x', 0, 0}, "relative keys"},
        {4, 8, {0}, "bounds"},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct bytes s = {0};

        make_small(&s, 1, false);
        s.n -= 8; /* CHECKPOINT_END */
        put(&s, &bad[i].type, 4);
        put(&s, &bad[i].len, 4);
        if (bad[i].len <= 24) put(&s, bad[i].body, (bad[i].len + 7) & ~7u);
        refuses(&s, bad[i].says);
        free(s.p);
    }
}

static void t_stream_device_state_must_not_come_and_go(void **state)
{
    for (int first = 0; first < 2; first++) {
        struct bytes s = {0};

        put_stream_head(&s);
        put_checkpoint(&s, 1, 1, first);
        put_checkpoint(&s, 2, 1, !first);
        refuses(&s, "unlike checkpoint 1");
        free(s.p);
    }
}

static void t_stream_pages_before_static_data_end_are_refused(void **state)
{
    struct bytes s = {0};

    put_stream_head(&s);
    put_pages(&s, 0, 1, 1);
    refuses(&s, "STATIC_DATA_END");
    free(s.p);
}

static void t_stream_bytes_behind_the_end_are_refused(void **state)
{
    struct bytes s = {0};
    libxl__twin_stream ts;

    make_small(&s, 1, true);
    for (int split = 0; split < 2; split++) {
        assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
        if (split) assert_int_equal(libxl__twin_stream_data(&ts, 1, s.p, s.n), 0);
        put(&s, "x", 1);
        assert_int_equal(
            libxl__twin_stream_data(&ts, 1, s.p + (split ? s.n - 1 : 0), split ? 1 : s.n),
            ERROR_FAIL);
        assert_non_null(strstr(ts.why, "after the end"));
        libxl__twin_stream_dispose(&ts);
        s.n--;
    }
    free(s.p);
}

static void t_stream_data_of_other_checkpoint_is_refused(void **state)
{
    struct bytes s = {0};
    libxl__twin_stream ts;

    make_small(&s, 1, true);
    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    assert_int_equal(libxl__twin_stream_data(&ts, 2, s.p, s.n), ERROR_FAIL);
    libxl__twin_stream_dispose(&ts);
    free(s.p);
}

static void t_stream_unknown_optional_record_is_left_out(void **state)
{
    struct bytes s = {0}, plain = {0}, out = {0}, want = {0};
    libxl__twin_stream ts;
    size_t at;

    make_small(&plain, 2, true);
    put_folded(&want, plain.p, plain.n, 2);
    at = checkpoint_end(plain.p, plain.n, 1);
    put(&s, plain.p, at);
    put_record(&s, 0x80000042, "hello", 5);
    put(&s, plain.p + at, plain.n - at);
    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    assert_int_equal(feed_stream(&ts, s.p, s.n, s.n, 100, &out), 0);
    assert_int_equal(libxl__twin_stream_finish(&ts), 0);
    take_all(&ts, &out);
    assert_int_equal(out.n, want.n);
    assert_memory_equal(out.p, want.p, want.n);
    libxl__twin_stream_dispose(&ts);
    free(s.p);
    free(plain.p);
    free(out.p);
    free(want.p);
}

static void t_stream_hold_limit_is_kept(void **state)
{
    struct bytes s = {0};
    libxl__twin_stream ts;
    size_t one;

    put_stream_head(&s);
    put_checkpoint(&s, 1, 2, true);
    one = s.n;
    put_checkpoint(&s, 2, 200, true);
    put_checkpoint(&s, 2, 200, true);
    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    assert_int_equal(feed_stream(&ts, s.p, one, one, 4000, NULL), 0);
    s.n = one;
    put_pages(&s, 1, 200, 2);
    put_pages(&s, 1, 200, 2);
    assert_int_equal(libxl__twin_stream_data(&ts, 2, s.p + one, s.n - one), ERROR_FAIL);
    assert_non_null(strstr(ts.why, "hold limit"));
    assert_true(libxl__twin_stream_held(&ts) < HOLD + one);
    libxl__twin_stream_dispose(&ts);
    free(s.p);
}

static void t_stream_prefix_goes_out_first(void **state)
{
    struct bytes s = {0}, out = {0};
    libxl__twin_stream ts;

    make_small(&s, 1, true);
    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    assert_int_equal(libxl__twin_stream_prefix(&ts, "prefix", 6), 0);
    assert_int_equal(feed_stream(&ts, s.p, s.n, s.n, 64, &out), 0);
    assert_memory_equal(out.p, "prefixLibxlFmt", 14);
    libxl__twin_stream_dispose(&ts);
    free(s.p);
    free(out.p);
}

/* ---- what stock Xen wrote ---- */

static bool load_capture(const char *name, struct bytes *b)
{
    const char *dir = getenv("XENTWIN_CAPTURES"), *src = getenv("XENTWIN_SRCDIR");
    char cmd[600], buf[65536];
    FILE *f;
    size_t n;

    if (dir)
        snprintf(cmd, sizeof(cmd), "xz -dc '%s/%s.xz' 2>/dev/null", dir, name);
    else
        snprintf(cmd, sizeof(cmd), "xz -dc '%s/../shared/captures/%s.xz' 2>/dev/null",
                 src ? src : ".", name);
    f = popen(cmd, "r");
    assert_non_null(f);
    while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
        put(b, buf, n);
    pclose(f);
    return b->n > 0;
}

static void fold_capture(const char *name, unsigned checkpoints)
{
    struct bytes s = {0}, out = {0}, want = {0};
    libxl__twin_stream ts;
    uint32_t prefix;
    size_t len;

    if (!load_capture(name, &s)) {
        print_message("skipped: no %s.xz (XENTWIN_CAPTURES)\n", name);
        skip();
    }
    memcpy(&prefix, s.p + 44, 4); /* xl header and configuration */
    prefix += 48;
    len = s.n - prefix;
    assert_int_equal(libxl__twin_stream_init(&ts, 64u << 20), 0);
    assert_int_equal(feed_stream(&ts, s.p + prefix, len, len, 65536, &out), 0);
    assert_int_equal(ts.committed, checkpoints);
    assert_int_equal(libxl__twin_stream_finish(&ts), 0);
    take_all(&ts, &out);
    put_folded(&want, s.p + prefix, len, checkpoints);
    assert_int_equal(out.n, want.n);
    assert_true(!memcmp(out.p, want.p, want.n));
    libxl__twin_stream_dispose(&ts);
    free(s.p);
    free(out.p);
    free(want.p);
}

/* This one was cut inside a PAGE_DATA of checkpoint 17. */
static void t_stream_capture_pvh_folds(void **state)
{
    fold_capture("cap-pvh-remus.tx", 16);
}

static void t_stream_capture_hvm_folds(void **state)
{
    fold_capture("cap-hvm-remus.tx", 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_stream_pieces_of_any_size_fold_alike),
        cmocka_unit_test(t_stream_cut_anywhere_ends_at_last_whole_checkpoint),
        cmocka_unit_test(t_stream_cut_in_first_checkpoint_never_ends_plain),
        cmocka_unit_test(t_stream_later_checkpoint_is_held_until_commit),
        cmocka_unit_test(t_stream_wrong_commit_does_not_count),
        cmocka_unit_test(t_stream_broken_second_checkpoint_keeps_the_first),
        cmocka_unit_test(t_stream_wrong_heads_are_refused),
        cmocka_unit_test(t_stream_wrong_records_are_refused),
        cmocka_unit_test(t_stream_wrong_libxl_records_are_refused),
        cmocka_unit_test(t_stream_device_state_must_not_come_and_go),
        cmocka_unit_test(t_stream_pages_before_static_data_end_are_refused),
        cmocka_unit_test(t_stream_bytes_behind_the_end_are_refused),
        cmocka_unit_test(t_stream_data_of_other_checkpoint_is_refused),
        cmocka_unit_test(t_stream_unknown_optional_record_is_left_out),
        cmocka_unit_test(t_stream_hold_limit_is_kept),
        cmocka_unit_test(t_stream_prefix_goes_out_first),
        cmocka_unit_test(t_stream_capture_pvh_folds),
        cmocka_unit_test(t_stream_capture_hvm_folds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
