/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The twin's stream from a primary that is not to be trusted. The input is a list of: u8 what, u16 length, length octets.
 * what: bits 0..1 = 0 data, 1 data and then its true COMMIT, 2 a wrong COMMIT, 3 hand on `length` octets (none follow).
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "fuzz.h"
#include "libxl_twin_stream.h"

#define HOLD (64u << 10)

/* The octets of the open checkpoint, for its true hash. */
struct open {
    uint8_t *bytes;
    size_t n;
};

static void take(libxl__twin_stream *ts, size_t n)
{
    const unsigned char *p;
    size_t have = libxl__twin_stream_peek(ts, &p);
    static volatile uint64_t touched;

    touched = XXH3_64bits(p, have); /* every octet that may be handed on is there */
    (void)touched;
    libxl__twin_stream_took(ts, n < have ? n : have);
}

static void step(libxl__twin_stream *ts, struct open *o, unsigned what, const uint8_t *p, size_t n)
{
    uint64_t before = ts->committed;

    if (what == 2) {
        libxl__twin_stream_commit(ts, ts->checkpoint, n, 1);
        if (ts->committed != before) abort();
        return;
    }
    memcpy(o->bytes + o->n, p, n);
    o->n += n;
    if (libxl__twin_stream_data(ts, ts->checkpoint, p, n) || what != 1) return;
    if (!libxl__twin_stream_commit(ts, ts->checkpoint, o->n, XXH3_64bits(o->bytes, o->n))) {
        if (ts->committed != before + 1) abort();
        o->n = 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct open o = {malloc(size + 1), 0};
    libxl__twin_stream ts;
    const unsigned char *p;

    if (libxl__twin_stream_init(&ts, HOLD)) abort();
    while (size >= 3) {
        unsigned what = data[0] & 3;
        size_t n = data[1] | (size_t)data[2] << 8;

        data += 3;
        size -= 3;
        if (what == 3) {
            take(&ts, n);
            continue;
        }
        if (n > size) n = size;
        step(&ts, &o, what, data, n);
        data += n;
        size -= n;
    }
    if (ts.committed) {
        if (libxl__twin_stream_finish(&ts)) abort();
        if (libxl__twin_stream_peek(&ts, &p) < 16) abort();
    }
    take(&ts, SIZE_MAX);
    libxl__twin_stream_dispose(&ts);
    free(o.bytes);
    return 0;
}
