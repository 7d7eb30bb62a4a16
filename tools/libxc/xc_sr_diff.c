/* SPDX-License-Identifier: LGPL-2.1-only */
/* What changed in a page: plain C, AVX2 and AVX-512. */
#include <immintrin.h>
#include <string.h>

#include "xc_sr_diff.h"

#define LINE_WORDS 8U

static const uint8_t *line_of(const void *page, unsigned int i)
{
    return (const uint8_t *)page + (size_t)i * SR_LINE_SIZE;
}

/* ---- plain ---- */

static uint8_t compare_line(const uint8_t *a, const uint8_t *b)
{
    uint64_t x[LINE_WORDS], y[LINE_WORDS];
    unsigned int i, mask = 0;

    memcpy(x, a, sizeof(x));
    memcpy(y, b, sizeof(y));
    for (i = 0; i < LINE_WORDS; i++)
        mask |= (unsigned int)(x[i] != y[i]) << i;
    return (uint8_t)mask;
}

static uint64_t diff_plain(const void *page, const void *base, uint8_t masks[SR_PAGE_LINES])
{
    uint64_t lines = 0;
    unsigned int i;

    for (i = 0; i < SR_PAGE_LINES; i++) {
        masks[i] = compare_line(line_of(page, i), line_of(base, i));
        lines |= (uint64_t)(masks[i] != 0) << i;
    }
    return lines;
}

static size_t emit_plain(const void *page, void *base, uint64_t lines,
                         const uint8_t masks[SR_PAGE_LINES], uint8_t *out)
{
    uint8_t *at = out;

    for (; lines; lines &= lines - 1) {
        unsigned int i = (unsigned int)__builtin_ctzll(lines), left = masks[i];
        const uint8_t *line = line_of(page, i);

        for (; left; left &= left - 1, at += 8)
            memcpy(at, line + 8 * (size_t)__builtin_ctz(left), 8);
        if (base) memcpy((uint8_t *)base + (size_t)i * SR_LINE_SIZE, line, SR_LINE_SIZE);
    }
    return (size_t)(at - out);
}

static bool is_zero_plain(const void *page)
{
    uint64_t x[LINE_WORDS];
    unsigned int i;

    for (i = 0; i < SR_PAGE_LINES; i++) {
        memcpy(x, line_of(page, i), sizeof(x));
        if (x[0] | x[1] | x[2] | x[3] | x[4] | x[5] | x[6] | x[7]) return false;
    }
    return true;
}

static const struct xc_sr_diff_ops plain = {"plain", diff_plain, emit_plain, is_zero_plain};

/* ---- AVX2: finding is fast, words are picked one by one ---- */

#define AVX2 __attribute__((target("avx2,bmi")))

AVX2 static unsigned int equal_words(const uint8_t *a, const uint8_t *b)
{
    __m256i x = _mm256_load_si256((const __m256i *)(const void *)a);
    __m256i y = _mm256_load_si256((const __m256i *)(const void *)b);

    return (unsigned int)_mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(x, y)));
}

AVX2 static uint64_t diff_avx2(const void *page, const void *base, uint8_t masks[SR_PAGE_LINES])
{
    uint64_t lines = 0;
    unsigned int i;

    for (i = 0; i < SR_PAGE_LINES; i++) {
        const uint8_t *a = line_of(page, i), *b = line_of(base, i);
        unsigned int same = equal_words(a, b) | equal_words(a + 32, b + 32) << 4;

        masks[i] = (uint8_t)~same;
        lines |= (uint64_t)(same != 0xff) << i;
    }
    return lines;
}

AVX2 static bool is_zero_avx2(const void *page)
{
    unsigned int i;

    for (i = 0; i < SR_PAGE_LINES; i++) {
        const __m256i *line = (const __m256i *)(const void *)line_of(page, i);
        __m256i both = _mm256_or_si256(_mm256_load_si256(line), _mm256_load_si256(line + 1));

        if (!_mm256_testz_si256(both, both)) return false;
    }
    return true;
}

static const struct xc_sr_diff_ops avx2 = {"AVX2", diff_avx2, emit_plain, is_zero_avx2};

/* ---- AVX-512: one line is one register ---- */

#define AVX512 __attribute__((target("avx512f,bmi,popcnt")))

AVX512 static uint64_t diff_avx512(const void *page, const void *base, uint8_t masks[SR_PAGE_LINES])
{
    uint64_t lines = 0;
    unsigned int i;

    for (i = 0; i < SR_PAGE_LINES; i++) {
        __m512i x = _mm512_load_si512(line_of(page, i));
        __m512i y = _mm512_load_si512(line_of(base, i));
        __mmask8 mask = _mm512_cmpneq_epi64_mask(x, y);

        masks[i] = mask;
        lines |= (uint64_t)(mask != 0) << i;
    }
    return lines;
}

AVX512 static size_t emit_avx512(const void *page, void *base, uint64_t lines,
                                 const uint8_t masks[SR_PAGE_LINES], uint8_t *out)
{
    uint8_t *at = out;

    for (; lines; lines &= lines - 1) {
        unsigned int i = (unsigned int)__builtin_ctzll(lines);
        __m512i line = _mm512_load_si512(line_of(page, i));

        /* Stores whole lines, of which the next overwrites what is too much. */
        _mm512_storeu_si512(at, _mm512_maskz_compress_epi64(masks[i], line));
        at += 8 * (size_t)__builtin_popcount(masks[i]);
        if (base) _mm512_store_si512((uint8_t *)base + (size_t)i * SR_LINE_SIZE, line);
    }
    return (size_t)(at - out);
}

AVX512 static bool is_zero_avx512(const void *page)
{
    unsigned int i;

    for (i = 0; i < SR_PAGE_LINES; i++) {
        __m512i x = _mm512_load_si512(line_of(page, i));

        if (_mm512_test_epi64_mask(x, x)) return false;
    }
    return true;
}

static const struct xc_sr_diff_ops avx512 = {"AVX-512", diff_avx512, emit_avx512, is_zero_avx512};

const struct xc_sr_diff_ops *const *xc_sr_diff_forms(void)
{
    static const struct xc_sr_diff_ops *const all[] = {&avx512, &avx2, &plain, NULL};

    /* CPUs that have the one have the other. */
    if (__builtin_cpu_supports("avx512f")) return all;
    if (__builtin_cpu_supports("avx2")) return all + 1;
    return all + 2;
}
