/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_channel_frame.h"

#include <string.h>
#include <xxhash.h>

#define CHECK_AT 16u

/* Who may send a frame type, and how long its body is. Wire table of
 * docs/misc/replication-stream.md. */
static const struct frame_rule {
    bool to_primary, to_backup;
    uint32_t min, max;
} rules[] = {
    [CHANNEL_HELLO] = {true, true, CHANNEL_HELLO_LEN, CHANNEL_HELLO_LEN},
    [CHANNEL_DATA] = {false, true, 1, CHANNEL_BODY_MAX},
    [CHANNEL_COMMIT] = {false, true, 16, 16},
    [CHANNEL_ACK] = {true, false, 0, 0},
    [CHANNEL_HEARTBEAT] = {false, true, 0, 0},
    [CHANNEL_ECHO] = {true, false, 8, 8},
    [CHANNEL_STOP] = {false, true, 0, CHANNEL_TEXT_MAX},
    [CHANNEL_STOPPED] = {true, false, 0, 0},
    [CHANNEL_ERROR] = {true, true, 0, CHANNEL_TEXT_MAX},
    [CHANNEL_MEMORY] = {false, true, 0, 0},
};

void libxl__channel_header_put(unsigned char out[CHANNEL_HEADER_LEN],
                               const struct channel_header *h)
{
    channel_put32(out, h->type);
    channel_put32(out + 4, h->len);
    channel_put64(out + 8, h->arg);
}

void libxl__channel_header_get(const unsigned char in[CHANNEL_HEADER_LEN], struct channel_header *h)
{
    h->type = channel_get32(in);
    h->len = channel_get32(in + 4);
    h->arg = channel_get64(in + 8);
}

size_t libxl__channel_sealed_len(const struct channel_header *h)
{
    return CHANNEL_HEADER_LEN + (h->type == CHANNEL_DATA ? 0 : h->len);
}

static uint64_t check_of(const unsigned char *frame, uint64_t number)
{
    struct channel_header h;
    uint64_t check = XXH3_64bits_withSeed(frame, CHECK_AT, number);

    libxl__channel_header_get(frame, &h);
    return XXH3_64bits_withSeed(frame + CHANNEL_HEADER_LEN,
                                libxl__channel_sealed_len(&h) - CHANNEL_HEADER_LEN, check);
}

void libxl__channel_seal(unsigned char *frame, uint64_t number)
{
    channel_put64(frame + CHECK_AT, check_of(frame, number));
}

bool libxl__channel_seal_ok(const unsigned char *frame, uint64_t number)
{
    return channel_get64(frame + CHECK_AT) == check_of(frame, number);
}

const char *libxl__channel_header_check(const struct channel_header *h, bool to_primary)
{
    const struct frame_rule *r;

    if (h->type >= sizeof(rules) / sizeof(rules[0]) || !h->type) return "unknown frame type";
    r = &rules[h->type];
    if (to_primary ? !r->to_primary : !r->to_backup) return "frame type of the wrong direction";
    if (h->len < r->min) return "frame too short for its type";
    if (h->len > r->max) return "frame too long for its type";
    return NULL;
}

void libxl__channel_hello_put(unsigned char out[CHANNEL_HELLO_LEN], const struct channel_hello *h)
{
    channel_put32(out, h->version);
    channel_put32(out + 4, h->limit_ms);
    channel_put64(out + 8, h->window);
    channel_put32(out + 16, h->flags);
    channel_put32(out + 20, 0);
    channel_put64(out + 24, h->prologue);
}

const char *libxl__channel_hello_get(const unsigned char in[CHANNEL_HELLO_LEN], int limit_ms,
                                     bool from_primary, struct channel_hello *h)
{
    h->version = channel_get32(in);
    h->limit_ms = channel_get32(in + 4);
    h->window = channel_get64(in + 8);
    h->flags = channel_get32(in + 16);
    h->prologue = channel_get64(in + 24);

    if (h->version != CHANNEL_VERSION) return "the peer speaks another version of the channel";
    if (h->limit_ms != (uint32_t)limit_ms) return "the peer has another --limit-ms";
    if (h->flags || channel_get32(in + 20)) return "HELLO with unknown flags";
    if (from_primary ? h->window != 0
                     : h->window < CHANNEL_WINDOW_MIN || h->window > CHANNEL_WINDOW_MAX)
        return "HELLO with a window out of bounds";
    return NULL;
}

void libxl__channel_text(const void *body, size_t len, char *out, size_t room)
{
    const unsigned char *p = body;
    size_t n = 0;

    while (n < len && n + 1 < room) {
        out[n] = p[n] >= ' ' && p[n] < 0x7f ? (char)p[n] : '?';
        n++;
    }
    out[n] = '\0';
}
