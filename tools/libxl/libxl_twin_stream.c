/* SPDX-License-Identifier: LGPL-2.1-only */
/* See libxl_twin_stream.h for the invariants and docs/misc/replication-stream.md for the layout. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <libxl.h>

#include "libxl_channel_frame.h"
#include "libxl_twin_stream.h"
#include "xc_sr_record.h"

#define XL_HEADER_LEN 16u
#define RECORD_HEAD_LEN 8u
#define XENSTORE_DATA_MAX (1u << 20)
#define EMULATOR_CONTEXT_MAX (64u << 20)
#define EMULATOR_HEAD_LEN 8u
#define EMULATOR_ID_MAX 2u
/* An empty buffer of more than this is given back. */
#define KEEP_ROOM (16u << 20)

enum xl_record {
    XL_END = 0,
    XL_LIBXC_CONTEXT = 1,
    XL_EMULATOR_XENSTORE_DATA = 2,
    XL_EMULATOR_CONTEXT = 3,
    XL_CHECKPOINT_END = 4,
};

/* What the bytes that come next are. */
enum unit {
    UNIT_XL_HEADER,
    UNIT_LIBXC_CONTEXT,
    UNIT_IHDR,
    UNIT_DHDR,
    UNIT_XC_RECORD,
    UNIT_XL_RECORD
};

/* One libxl record kept aside, header and padding included. */
struct kept {
    unsigned char *bytes;
    size_t len;
};

struct emulator {
    struct kept xenstore, context;
};

struct twin_stream_state {
    uint64_t hold_limit;
    unsigned char *buf;
    size_t start, passable, checked, end, room;
    bool split;        /* warm */
    size_t plain_left; /* of the plain stream that was split off, at start */

    enum unit unit;
    size_t need;         /* bytes of the unit, as far as known */
    bool head_known;     /* the record's header was read and checked */
    uint32_t type, body; /* of the record: type and length */

    uint32_t version, domain_type;
    uint32_t once_seen; /* bit per libxc record type < 32: of the static ones */
    uint32_t ckpt_seen; /* same, of the open checkpoint */
    bool whole;         /* the open checkpoint's CHECKPOINT_END was read */
    bool wants_context; /* checkpoint 1 had device state */
    bool failed, finished;

    struct emulator open, done;
    uint64_t data_bytes; /* of the open checkpoint */
    XXH3_state_t *hash;
};

static int __attribute__((format(printf, 2, 3)))
stream_fail(libxl__twin_stream *ts, const char *fmt, ...)
{
    va_list al;

    ts->st->failed = true;
    va_start(al, fmt);
    vsnprintf(ts->why, sizeof(ts->why), fmt, al);
    va_end(al);
    return ERROR_FAIL;
}

/* ---- memory ---- */

static void kept_drop(struct kept *k)
{
    free(k->bytes);
    *k = (struct kept){0};
}

static void emulator_drop(struct emulator *e)
{
    kept_drop(&e->xenstore);
    kept_drop(&e->context);
}

int libxl__twin_stream_init(libxl__twin_stream *ts, uint64_t hold_limit)
{
    struct twin_stream_state *st = calloc(1, sizeof(*st));

    memset(ts, 0, sizeof(*ts));
    if (!st) return ERROR_NOMEM;
    st->hash = XXH3_createState();
    if (!st->hash) {
        free(st);
        return ERROR_NOMEM;
    }
    XXH3_64bits_reset(st->hash);
    st->hold_limit = hold_limit;
    st->need = XL_HEADER_LEN;
    ts->checkpoint = 1;
    ts->st = st;
    return 0;
}

void libxl__twin_stream_dispose(libxl__twin_stream *ts)
{
    if (!ts->st) return;
    emulator_drop(&ts->st->open);
    emulator_drop(&ts->st->done);
    XXH3_freeState(ts->st->hash);
    free(ts->st->buf);
    free(ts->st);
    ts->st = NULL;
}

static void shift_to_front(struct twin_stream_state *st)
{
    memmove(st->buf, st->buf + st->start, st->end - st->start);
    st->passable -= st->start;
    st->checked -= st->start;
    st->end -= st->start;
    st->start = 0;
}

static int append(libxl__twin_stream *ts, const void *bytes, size_t len)
{
    struct twin_stream_state *st = ts->st;
    unsigned char *grown;
    size_t room;

    if (st->start && st->end + len > st->room && st->start >= st->room / 2) shift_to_front(st);
    if (st->end + len > st->room) {
        room = st->room ? st->room : 64u << 10;
        while (room < st->end + len)
            room *= 2;
        grown = realloc(st->buf, room);
        if (!grown) return stream_fail(ts, "out of memory while holding a checkpoint");
        st->buf = grown;
        st->room = room;
    }
    if (len) memcpy(st->buf + st->end, bytes, len);
    st->end += len;
    return 0;
}

/* ---- one unit ---- */

static void next_unit(struct twin_stream_state *st, enum unit unit)
{
    static const size_t need[] = {
        [UNIT_XL_HEADER] = XL_HEADER_LEN,     [UNIT_LIBXC_CONTEXT] = RECORD_HEAD_LEN,
        [UNIT_IHDR] = sizeof(struct sr_ihdr), [UNIT_DHDR] = sizeof(struct sr_dhdr),
        [UNIT_XC_RECORD] = RECORD_HEAD_LEN,   [UNIT_XL_RECORD] = RECORD_HEAD_LEN,
    };

    st->unit = unit;
    st->need = need[unit];
    st->head_known = false;
}

/* The unit stays in the stream. */
static void keep_unit(libxl__twin_stream *ts, enum unit next)
{
    struct twin_stream_state *st = ts->st;

    st->checked = st->end;
    if (ts->checkpoint == 1) st->passable = st->checked;
    next_unit(st, next);
}

static void drop_unit(libxl__twin_stream *ts, enum unit next)
{
    ts->st->end = ts->st->checked;
    next_unit(ts->st, next);
}

static int take_xl_header(libxl__twin_stream *ts, const unsigned char *p)
{
    static const unsigned char want[XL_HEADER_LEN] = {'L', 'i', 'b', 'x', 'l', 'F',
                                                      'm', 't', 0,   0,   0,   2};

    if (memcmp(p, want, sizeof(want)))
        return stream_fail(ts, "libxl header: not a version 2 stream with little-endian records");
    keep_unit(ts, UNIT_LIBXC_CONTEXT);
    return 0;
}

static int take_libxc_context(libxl__twin_stream *ts, const unsigned char *p)
{
    if (channel_get32(p) != XL_LIBXC_CONTEXT || channel_get32(p + 4) != 0)
        return stream_fail(ts, "libxl record 0 is not LIBXC_CONTEXT");
    keep_unit(ts, UNIT_IHDR);
    return 0;
}

static int take_ihdr(libxl__twin_stream *ts, const unsigned char *p)
{
    struct sr_ihdr ihdr;
    const char *wrong;

    memcpy(&ihdr, p, sizeof(ihdr));
    wrong = xc_sr_ihdr_check(&ihdr);
    if (wrong) return stream_fail(ts, "libxc %s", wrong);
    ts->st->version = xc_sr_ihdr_version(&ihdr);
    keep_unit(ts, UNIT_DHDR);
    return 0;
}

static int take_dhdr(libxl__twin_stream *ts, const unsigned char *p)
{
    struct sr_dhdr dhdr;
    const char *wrong;

    memcpy(&dhdr, p, sizeof(dhdr));
    wrong = xc_sr_dhdr_check(&dhdr, 0);
    if (wrong) return stream_fail(ts, "libxc %s", wrong);
    ts->st->domain_type = channel_get32(p);
    keep_unit(ts, UNIT_XC_RECORD);
    return 0;
}

/* ---- libxc records ---- */

/* NULL when a record of this type may come here. */
static const char *xc_order_check(const libxl__twin_stream *ts, uint32_t type)
{
    const struct twin_stream_state *st = ts->st;
    bool statics_end = st->version < 3 || (st->once_seen & 1u << SR_REC_STATIC_DATA_END);

    switch (type) {
    case SR_REC_X86_PV_INFO:
    case SR_REC_X86_PV_P2M_FRAMES:
    case SR_REC_X86_CPUID_POLICY:
    case SR_REC_X86_MSR_POLICY:
    case SR_REC_STATIC_DATA_END:
        if (ts->checkpoint > 1) return "belongs into the first checkpoint";
        return st->once_seen & 1u << type ? "comes twice" : NULL;
    case SR_REC_PAGE_DATA:
    case SR_REC_ENCODED_PAGES:
        return statics_end ? NULL : "comes before STATIC_DATA_END";
    case SR_REC_END:
    case SR_REC_VERIFY:
    case SR_REC_TOOLSTACK:
    case SR_REC_CHECKPOINT_DIRTY_PFN_LIST:
        return "does not belong into a replicated stream";
    case SR_REC_CHECKPOINT:
        if (!statics_end) return "comes before STATIC_DATA_END";
        if (st->domain_type == SR_DHDR_TYPE_X86_HVM && !(st->ckpt_seen & 1u << SR_REC_HVM_CONTEXT))
            return "comes without an HVM_CONTEXT before it";
        return NULL;
    default:
        return NULL;
    }
}

static int check_xc_head(libxl__twin_stream *ts)
{
    struct twin_stream_state *st = ts->st;
    const char *wrong = xc_sr_record_check(st->type, st->body, NULL);

    if (!wrong) wrong = xc_order_check(ts, st->type);
    if (wrong)
        return stream_fail(ts, "checkpoint %llu: libxc record 0x%x (%s): %s",
                           (unsigned long long)ts->checkpoint, st->type,
                           xc_sr_record_name(st->type), wrong);
    return 0;
}

static int take_xc_record(libxl__twin_stream *ts, const unsigned char *p)
{
    struct twin_stream_state *st = ts->st;
    const char *wrong = xc_sr_record_check(st->type, st->body, p + RECORD_HEAD_LEN);

    if (wrong)
        return stream_fail(ts, "checkpoint %llu: %s", (unsigned long long)ts->checkpoint, wrong);
    if (st->type < 32) {
        st->ckpt_seen |= 1u << st->type;
        st->once_seen |= 1u << st->type;
    }
    if (st->type == SR_REC_CHECKPOINT)
        drop_unit(ts, UNIT_XL_RECORD);
    else if (st->type & SR_REC_OPTIONAL)
        drop_unit(ts, UNIT_XC_RECORD);
    else
        keep_unit(ts, UNIT_XC_RECORD);
    return 0;
}

/* ---- libxl records ---- */

static int check_xl_head(libxl__twin_stream *ts)
{
    struct twin_stream_state *st = ts->st;
    uint32_t min = EMULATOR_HEAD_LEN, max = 0;
    bool twice = false;

    if (st->type == XL_EMULATOR_XENSTORE_DATA) {
        max = XENSTORE_DATA_MAX;
        twice = st->open.xenstore.bytes != NULL;
    } else if (st->type == XL_EMULATOR_CONTEXT) {
        max = EMULATOR_CONTEXT_MAX;
        twice = st->open.context.bytes != NULL;
    } else if (st->type == XL_CHECKPOINT_END) {
        min = 0;
    } else {
        return stream_fail(ts, "checkpoint %llu: libxl record %u does not belong here",
                           (unsigned long long)ts->checkpoint, st->type);
    }
    if (st->body < min || st->body > max || twice)
        return stream_fail(ts, "checkpoint %llu: libxl record %u: %s",
                           (unsigned long long)ts->checkpoint, st->type,
                           twice ? "comes twice" : "length out of bounds");
    return 0;
}

/* Pairs of strings, the first a path below the device model's directory. */
static bool xenstore_data_ok(const unsigned char *p, size_t len)
{
    const unsigned char *end = p + len, *nul;
    bool key = true;

    for (; p < end; p = nul + 1, key = !key) {
        nul = memchr(p, 0, (size_t)(end - p));
        if (!nul) return false;
        if (key && (nul == p || *p == '/' || strstr((const char *)p, ".."))) return false;
    }
    return key;
}

static int take_emulator(libxl__twin_stream *ts, const unsigned char *p, struct kept *k)
{
    struct twin_stream_state *st = ts->st;
    const unsigned char *body = p + RECORD_HEAD_LEN;
    size_t len = st->end - st->checked;

    if (channel_get32(body) > EMULATOR_ID_MAX || channel_get32(body + 4) != 0)
        return stream_fail(ts, "libxl record %u: unknown emulator", st->type);
    if (st->type == XL_EMULATOR_XENSTORE_DATA &&
        !xenstore_data_ok(body + EMULATOR_HEAD_LEN, st->body - EMULATOR_HEAD_LEN))
        return stream_fail(ts, "EMULATOR_XENSTORE_DATA: not a list of relative keys and values");
    k->bytes = malloc(len);
    if (!k->bytes) return stream_fail(ts, "out of memory while holding device state");
    memcpy(k->bytes, p, len);
    k->len = len;
    drop_unit(ts, UNIT_XL_RECORD);
    return 0;
}

static int take_checkpoint_end(libxl__twin_stream *ts)
{
    struct twin_stream_state *st = ts->st;
    bool has = st->open.context.bytes != NULL;

    if (ts->checkpoint == 1) st->wants_context = has;
    if (has != st->wants_context)
        return stream_fail(ts, "checkpoint %llu: device state %s, unlike checkpoint 1",
                           (unsigned long long)ts->checkpoint, has ? "is there" : "is missing");
    st->whole = true;
    drop_unit(ts, UNIT_XC_RECORD);
    return 0;
}

static int take_xl_record(libxl__twin_stream *ts, const unsigned char *p)
{
    struct twin_stream_state *st = ts->st;

    if (st->type == XL_EMULATOR_XENSTORE_DATA) return take_emulator(ts, p, &st->open.xenstore);
    if (st->type == XL_EMULATOR_CONTEXT) return take_emulator(ts, p, &st->open.context);
    return take_checkpoint_end(ts);
}

/* ---- data ---- */

static bool is_record(enum unit unit)
{
    return unit == UNIT_XC_RECORD || unit == UNIT_XL_RECORD;
}

/* The record's header is there: what is it, and how long? */
static int learn_head(libxl__twin_stream *ts, const unsigned char *p)
{
    struct twin_stream_state *st = ts->st;
    int rc;

    st->type = channel_get32(p);
    st->body = channel_get32(p + 4);
    rc = st->unit == UNIT_XC_RECORD ? check_xc_head(ts) : check_xl_head(ts);
    if (rc) return rc;
    st->need = RECORD_HEAD_LEN + xc_sr_record_padded(st->body);
    st->head_known = true;
    return 0;
}

static int take_unit(libxl__twin_stream *ts, const unsigned char *p)
{
    switch (ts->st->unit) {
    case UNIT_XL_HEADER:
        return take_xl_header(ts, p);
    case UNIT_LIBXC_CONTEXT:
        return take_libxc_context(ts, p);
    case UNIT_IHDR:
        return take_ihdr(ts, p);
    case UNIT_DHDR:
        return take_dhdr(ts, p);
    case UNIT_XC_RECORD:
        return take_xc_record(ts, p);
    case UNIT_XL_RECORD:
        return take_xl_record(ts, p);
    }
    assert(!"a unit that does not exist");
    return ERROR_FAIL;
}

/* Moves len bytes at most into the current unit; *used says how many. */
static int feed(libxl__twin_stream *ts, const unsigned char *bytes, size_t len, size_t *used)
{
    struct twin_stream_state *st = ts->st;
    size_t have = st->end - st->checked, n = st->need - have;
    int rc;

    if (n > len) n = len;
    if (st->end - st->passable + n > st->hold_limit)
        return stream_fail(ts, "checkpoint %llu is larger than the hold limit of %llu bytes",
                           (unsigned long long)ts->checkpoint, (unsigned long long)st->hold_limit);
    rc = append(ts, bytes, n);
    if (rc) return rc;
    *used = n;
    if (have + n < st->need) return 0;
    if (is_record(st->unit) && !st->head_known) {
        rc = learn_head(ts, st->buf + st->checked);
        if (rc || have + n < st->need) return rc;
    }
    return take_unit(ts, st->buf + st->checked);
}

int libxl__twin_stream_prefix(libxl__twin_stream *ts, const void *bytes, size_t len)
{
    int rc = append(ts, bytes, len);

    if (!rc) ts->st->passable = ts->st->checked = ts->st->end;
    return rc;
}

int libxl__twin_stream_data(libxl__twin_stream *ts, uint64_t n, const void *bytes, size_t len)
{
    struct twin_stream_state *st = ts->st;
    const unsigned char *p = bytes;
    size_t used = 0;
    int rc;

    if (st->failed || st->finished) return ERROR_FAIL;
    if (n != ts->checkpoint)
        return stream_fail(ts, "data of checkpoint %llu while %llu is open", (unsigned long long)n,
                           (unsigned long long)ts->checkpoint);
    if (st->whole)
        return stream_fail(ts, "data after the end of checkpoint %llu", (unsigned long long)n);
    XXH3_64bits_update(st->hash, bytes, len);
    st->data_bytes += len;
    while (len) {
        if (st->whole)
            return stream_fail(ts, "data after the end of checkpoint %llu", (unsigned long long)n);
        rc = feed(ts, p, len, &used);
        if (rc) return rc;
        p += used;
        len -= used;
    }
    return 0;
}

/* A warm twin's device model has read these already. */
static bool same_xenstore(const struct kept *a, const struct kept *b)
{
    return a->len == b->len && (!a->len || !memcmp(a->bytes, b->bytes, a->len));
}

int libxl__twin_stream_commit(libxl__twin_stream *ts, uint64_t n, uint64_t bytes, uint64_t xxh3)
{
    struct twin_stream_state *st = ts->st;

    if (st->failed || st->finished) return ERROR_FAIL;
    if (n != ts->checkpoint || !st->whole)
        return stream_fail(ts, "commit of checkpoint %llu, which is not whole",
                           (unsigned long long)n);
    if (bytes != st->data_bytes)
        return stream_fail(ts, "checkpoint %llu: %llu bytes came, %llu were announced",
                           (unsigned long long)n, (unsigned long long)st->data_bytes,
                           (unsigned long long)bytes);
    if (xxh3 != XXH3_64bits_digest(st->hash))
        return stream_fail(ts, "checkpoint %llu: the checksum is wrong", (unsigned long long)n);

    assert(st->checked == st->end);
    if (st->split && !same_xenstore(&st->open.xenstore, &st->done.xenstore))
        return stream_fail(ts,
                           "checkpoint %llu: the device model's layout changed, which a warm "
                           "twin cannot follow: protect again",
                           (unsigned long long)n);
    st->passable = st->checked;
    emulator_drop(&st->done);
    st->done = st->open;
    st->open = (struct emulator){0};
    XXH3_64bits_reset(st->hash);
    st->data_bytes = 0;
    st->whole = false;
    st->ckpt_seen = 0;
    ts->committed = n;
    ts->checkpoint = n + 1;
    return 0;
}

static int append_end(libxl__twin_stream *ts)
{
    static const unsigned char end[RECORD_HEAD_LEN]; /* libxc END and libxl END look the same */
    struct twin_stream_state *st = ts->st;
    int rc;

    rc = append(ts, end, sizeof(end));
    if (!rc) rc = append(ts, st->done.xenstore.bytes, st->done.xenstore.len);
    if (!rc) rc = append(ts, st->done.context.bytes, st->done.context.len);
    if (!rc) rc = append(ts, end, sizeof(end));
    if (!rc) st->passable = st->checked = st->end;
    return rc;
}

void libxl__twin_stream_stop(libxl__twin_stream *ts)
{
    struct twin_stream_state *st = ts->st;

    assert(ts->committed && !st->finished);
    st->finished = true;
    st->end = st->checked = st->passable;
}

int libxl__twin_stream_finish(libxl__twin_stream *ts)
{
    assert(!ts->st->split);
    libxl__twin_stream_stop(ts);
    return append_end(ts);
}

int libxl__twin_stream_split(libxl__twin_stream *ts)
{
    struct twin_stream_state *st = ts->st;
    int rc;

    assert(ts->committed == 1 && !st->split && st->passable == st->end);
    rc = append_end(ts);
    if (rc) return rc;
    st->split = true;
    st->plain_left = st->end - st->start;
    return 0;
}

/* ---- the plain stream ---- */

/* NULL before anything came. */
static const unsigned char *first_byte(const struct twin_stream_state *st)
{
    return st->buf ? st->buf + st->start : NULL;
}

size_t libxl__twin_stream_peek(const libxl__twin_stream *ts, const unsigned char **bytes)
{
    const struct twin_stream_state *st = ts->st;

    *bytes = first_byte(st);
    return st->split ? st->plain_left : st->passable - st->start;
}

size_t libxl__twin_stream_peek_later(const libxl__twin_stream *ts, const unsigned char **bytes)
{
    const struct twin_stream_state *st = ts->st;

    *bytes = first_byte(st);
    return st->split && !st->plain_left ? st->passable - st->start : 0;
}

size_t libxl__twin_stream_emulator(const libxl__twin_stream *ts, const unsigned char **bytes)
{
    const struct kept *k = &ts->st->done.context;
    const size_t head = RECORD_HEAD_LEN + EMULATOR_HEAD_LEN;

    if (!k->bytes) return 0;
    *bytes = k->bytes + head;
    return channel_get32(k->bytes + 4) - EMULATOR_HEAD_LEN;
}

void libxl__twin_stream_took(libxl__twin_stream *ts, size_t n)
{
    struct twin_stream_state *st = ts->st;

    assert(n <= st->passable - st->start);
    st->start += n;
    st->plain_left -= n < st->plain_left ? n : st->plain_left;
    if (st->start < st->end) return;
    st->start = st->passable = st->checked = st->end = 0;
    if (st->room > KEEP_ROOM) {
        free(st->buf);
        st->buf = NULL;
        st->room = 0;
    }
}

uint64_t libxl__twin_stream_held(const libxl__twin_stream *ts)
{
    const struct twin_stream_state *st = ts->st;

    return st->end - st->start + st->open.xenstore.len + st->open.context.len +
           st->done.xenstore.len + st->done.context.len;
}
