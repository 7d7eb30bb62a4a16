/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the engine does with the pages of a checkpoint after the pause, and the backup with them, on one core and
 * without a hypervisor: encode by pattern, apply, and how much is left for the wire.
 */
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "xc_sr_decode.h"
#include "xc_sr_encode.h"
#include "xc_sr_record.h"

#define PAGE SR_PAGE_SIZE
#define PAGES 13000U
#define BYTES ((size_t)PAGES * PAGE)
#define TIMES 9
#define LZ4_BLOCK 65536

struct pattern {
    const char *name;
    unsigned int words; /* that change in a page */
    const char *target;
};

static const struct pattern patterns[] = {
    {"unchanged", 0, "ours>=0.7*limit"},       {"1 word changed", 1, "ours>=0.7*limit"},
    {"8 words changed", 8, "ours>=0.7*limit"}, {"64 words changed", 64, "-"},
    {"512 words changed (raw)", 512, "-"},
};

static uint8_t *guest, *copy, *packed;
static uint64_t stream_bytes;

struct job {
    struct xc_sr_encoder *encoder;
    unsigned int words;
};

static void *pages(void)
{
    void *p = aligned_alloc(PAGE, BYTES);

    if (!p) {
        fprintf(stderr, "bench: no memory for %zu bytes\n", BYTES);
        exit(1);
    }
    memset(p, 0, BYTES);
    return p;
}

/* Text-like contents: about as compressible as a program's data. */
static void fill(void)
{
    static const char letters[] = "the quick brown fox jumps over the lazy dog 0123456789";
    size_t i;

    bench_seed(1);
    for (i = 0; i < BYTES; i++)
        guest[i] = (uint8_t)(i / 64 % 3 ? letters[bench_dice(sizeof(letters))] : 0);
}

static void change(void *user)
{
    const struct job *job = user;
    size_t page;
    unsigned int i;

    for (page = 0; page < PAGES; page++)
        for (i = 0; i < job->words; i++) {
            size_t word = job->words < PAGE / 8 ? bench_dice(PAGE / 8) : i;

            guest[page * PAGE + 8 * word] ^= (uint8_t)(1 + bench_dice(255));
        }
}

static void encode(void *user)
{
    struct xc_sr_encoder *e = ((struct job *)user)->encoder;
    const void *records;
    uint64_t pfn;

    stream_bytes = 0;
    for (pfn = 0; pfn < PAGES; pfn++)
        if (xc_sr_encoder_add(e, pfn, SR_PAGE_NORMAL, guest + pfn * PAGE))
            stream_bytes += xc_sr_encoder_take(e, &records);
    xc_sr_encoder_finish(e);
    stream_bytes += xc_sr_encoder_take(e, &records);
}

static void copy_pages(void *user)
{
    size_t i;

    (void)user;
    for (i = 0; i < PAGES; i++)
        memcpy(copy + i * PAGE, guest + i * PAGE, PAGE);
}

static void lz4_pages(void *user)
{
    size_t at;

    (void)user;
    stream_bytes = 0;
    for (at = 0; at < BYTES; at += LZ4_BLOCK)
        stream_bytes += (uint64_t)LZ4_compress_default(
            (const char *)guest + at, (char *)packed,
            (int)(BYTES - at < LZ4_BLOCK ? BYTES - at : LZ4_BLOCK), LZ4_COMPRESSBOUND(LZ4_BLOCK));
}

static double gb_per_s(double seconds)
{
    return (double)BYTES / 1e9 / seconds;
}

static void bench_patterns(double memcpy_gbs, double lz4_gbs)
{
    char name[80];
    size_t i;

    for (i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
        struct job job = {NULL, patterns[i].words};
        double best;

        job.encoder = xc_sr_encoder_new(XC_SR_ENCODE_DELTA, PAGES, BYTES);
        if (!job.encoder) exit(1);
        encode(&job);
        best = bench_best_s(TIMES, change, encode, &job);
        snprintf(name, sizeof(name), "encode, %s", patterns[i].name);
        bench_row(name, "GB/s", gb_per_s(best), lz4_gbs, memcpy_gbs, patterns[i].target,
                  "one core; peer: lz4, limit: memcpy");
        xc_sr_encoder_free(job.encoder);
    }
}

static void bench_zero(double memcpy_gbs, double lz4_gbs)
{
    struct job job = {xc_sr_encoder_new(XC_SR_ENCODE_DELTA, PAGES, 0), 0};

    if (!job.encoder) exit(1);
    memset(guest, 0, BYTES);
    bench_row("encode, zero pages", "GB/s", gb_per_s(bench_best_s(TIMES, NULL, encode, &job)),
              lz4_gbs, memcpy_gbs, "ours>=0.7*limit", "one core; peer: lz4, limit: memcpy");
    xc_sr_encoder_free(job.encoder);
}

/* ---- apply ---- */

static struct {
    uint8_t *bytes;
    size_t size;
} stream;

static void collect(struct xc_sr_encoder *e)
{
    const void *records;
    size_t size = xc_sr_encoder_take(e, &records);

    memcpy(stream.bytes + stream.size, records, size);
    stream.size += size;
}

static void record_stream(struct xc_sr_encoder *e)
{
    uint64_t pfn;

    stream.size = 0;
    for (pfn = 0; pfn < PAGES; pfn++)
        if (xc_sr_encoder_add(e, pfn, SR_PAGE_NORMAL, guest + pfn * PAGE)) collect(e);
    xc_sr_encoder_finish(e);
    collect(e);
}

static void apply_record(const uint8_t *body, uint32_t length)
{
    static uint8_t scratch[SR_ENCODED_CONTENT_MAX];
    struct xc_sr_encoded rec;
    const uint8_t *at;
    uint32_t i;

    if (xc_sr_encoded_open(&rec, body, length, scratch)) abort();
    at = rec.content;
    for (i = 0; i < rec.count; i++) {
        uint64_t entry = xc_sr_encoded_entry(rec.entries, i);

        at += xc_sr_decode_page(copy + xc_sr_entry_pfn(entry) * PAGE, xc_sr_entry_encoding(entry),
                                at);
    }
}

static void apply(void *user)
{
    size_t at;

    (void)user;
    for (at = 0; at < stream.size;) {
        struct sr_rhdr rhdr;

        memcpy(&rhdr, stream.bytes + at, sizeof(rhdr));
        apply_record(stream.bytes + at + sizeof(rhdr), rhdr.length);
        at += sizeof(rhdr) + xc_sr_record_padded(rhdr.length);
    }
}

static void bench_apply(enum xc_sr_encode_mode mode, unsigned int words, const char *name,
                        double memcpy_gbs)
{
    struct job job = {xc_sr_encoder_new(mode, PAGES, BYTES), words};

    if (!job.encoder) exit(1);
    fill();
    record_stream(job.encoder);
    apply(NULL);
    if (words) {
        change(&job);
        record_stream(job.encoder);
    }
    bench_row(name, "GB/s", gb_per_s(bench_best_s(TIMES, NULL, apply, NULL)), BENCH_NONE,
              memcpy_gbs, "-", "of guest memory, one core, every octet checked; limit: memcpy");
    if (memcmp(guest, copy, BYTES)) {
        fprintf(stderr, "bench: %s: the pages differ\n", name);
        exit(1);
    }
    xc_sr_encoder_free(job.encoder);
}

/* ---- bytes on the wire ---- */

#define KV_RECORD 256U
#define KV_UPDATES 5000U

/* A key-value server: some records get a new value, a version and a time; a few are hot. */
static void kv_update(void)
{
    unsigned int i, k;

    for (i = 0; i < KV_UPDATES; i++) {
        uint32_t hot = bench_dice(4), records = (uint32_t)(BYTES / KV_RECORD);
        uint8_t *rec = guest + (size_t)KV_RECORD * bench_dice(hot ? records / 20 : records);

        rec[0]++;
        for (k = 8; k < 16; k++)
            rec[k] = (uint8_t)bench_dice(256);
        for (k = 32; k < 32 + 48; k++)
            rec[k] = (uint8_t)('a' + bench_dice(26));
    }
}

/* Encodes the pages that differ from `copy`, as the dirty log would name them. */
static uint64_t kv_epoch(struct xc_sr_encoder *e, uint64_t *dirty)
{
    uint64_t before = xc_sr_encoder_counts(e)->bytes, pfn;
    const void *records;

    for (pfn = 0; pfn < PAGES; pfn++) {
        if (!memcmp(guest + pfn * PAGE, copy + pfn * PAGE, PAGE)) continue;
        (*dirty)++;
        memcpy(copy + pfn * PAGE, guest + pfn * PAGE, PAGE);
        if (xc_sr_encoder_add(e, pfn, SR_PAGE_NORMAL, guest + pfn * PAGE))
            xc_sr_encoder_take(e, &records);
    }
    xc_sr_encoder_finish(e);
    xc_sr_encoder_take(e, &records);
    return xc_sr_encoder_counts(e)->bytes - before;
}

static double kv_bytes(enum xc_sr_encode_mode mode, size_t ref_bytes, double *raw)
{
    struct xc_sr_encoder *e = xc_sr_encoder_new(mode, PAGES, ref_bytes);
    uint64_t dirty = 0, bytes = 0;
    struct job job = {e, 0};
    unsigned int epoch;

    if (!e) exit(1);
    fill();
    memcpy(copy, guest, BYTES);
    encode(&job);
    for (epoch = 0; epoch < 5; epoch++) {
        kv_update();
        bytes += kv_epoch(e, &dirty);
    }
    *raw = (double)dirty / epoch * (PAGE + 8) / 1024;
    xc_sr_encoder_free(e);
    return (double)bytes / epoch / 1024;
}

static void bench_wire(void)
{
    double raw, packed_only = kv_bytes(XC_SR_ENCODE_LZ4, 0, &raw);

    bench_row("wire, key-value guest, delta", "KiB", kv_bytes(XC_SR_ENCODE_DELTA, BYTES, &raw), raw,
              packed_only, "ours<=peer/5", "per checkpoint; peer: raw pages, limit: lz4 alone");
    bench_row("wire, key-value guest, lz4", "KiB", kv_bytes(XC_SR_ENCODE_LZ4, BYTES, &raw), raw,
              packed_only, "ours<=peer/5", "per checkpoint; peer: raw pages, limit: lz4 alone");
}

/* ---- the limit of a pause ---- */

#define COPY_TIMES 31

struct copy_job {
    uint32_t pages;
    uint32_t next; /* each time others, since no cache has what a guest wrote long ago */
};

static void copy_next(void *user)
{
    struct copy_job *job = user;
    uint32_t i;

    for (i = 0; i < job->pages; i++) {
        memcpy(copy + (size_t)i * PAGE, guest + (size_t)job->next * PAGE, PAGE);
        if (++job->next == PAGES) job->next = 0;
    }
}

/* bench_encode copy N: the us that N pages take. */
static int print_copy(const char *text)
{
    struct copy_job job = {(uint32_t)strtoul(text, NULL, 10), 0};

    if (!job.pages || job.pages > PAGES) {
        fprintf(stderr, "bench_encode: copy wants a number from 1 to %u, not '%s'\n", PAGES, text);
        return 2;
    }
    guest = pages();
    copy = pages();
    printf("%.0f\n", 1e6 * bench_best_s(COPY_TIMES, NULL, copy_next, &job));
    free(copy);
    free(guest);
    return 0;
}

int main(int argc, char **argv)
{
    double memcpy_gbs, lz4_gbs;

    if (argc == 3 && !strcmp(argv[1], "copy")) return print_copy(argv[2]);

    guest = pages();
    copy = pages();
    packed = malloc(LZ4_COMPRESSBOUND(LZ4_BLOCK));
    stream.bytes = malloc(2 * BYTES);
    if (!packed || !stream.bytes) return 1;
    fill();
    memcpy_gbs = gb_per_s(bench_best_s(TIMES, NULL, copy_pages, NULL));
    lz4_gbs = gb_per_s(bench_best_s(TIMES, NULL, lz4_pages, NULL));
    bench_patterns(memcpy_gbs, lz4_gbs);
    bench_zero(memcpy_gbs, lz4_gbs);
    bench_apply(XC_SR_ENCODE_DELTA, 0, "apply, raw pages", memcpy_gbs);
    bench_apply(XC_SR_ENCODE_DELTA, 8, "apply, 8 words changed", memcpy_gbs);
    bench_apply(XC_SR_ENCODE_LZ4, 0, "apply, lz4", memcpy_gbs);
    bench_wire();
    free(stream.bytes);
    free(packed);
    free(copy);
    free(guest);
    return 0;
}
