/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One end of a channel hears anything. First octet: bit 0 primary, bit 1 the rest is octets of the wire, else frames without their
 * checks, which are put in here; bits 2..7 the size of the pieces in which it comes.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "libxl_channel_frame.h"

struct heard {
    int64_t now_ms;
    unsigned lost;
    uint64_t data;
};

static int64_t fake_now(void *user)
{
    return ((struct heard *)user)->now_ms;
}

static void fake_advance(void *user, int64_t until_ms)
{
}

static void take_frame(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                       const void *body, size_t len)
{
    struct heard *h = ch->user;

    if (h->lost || len > CHANNEL_BODY_MAX) abort();
    if (type != CHANNEL_DATA) return;
    h->data += len;
    if (h->data > ch->window) abort();
    if (arg & 1) {
        libxl__channel_consumed(ch, len);
        h->data -= len;
    }
}

static void take_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    if (((struct heard *)ch->user)->lost++) abort();
}

static void hear(libxl__loop *loop, struct heard *h, int fd, const uint8_t *data, size_t size,
                 size_t piece)
{
    char sink[4096];

    while (size && !h->lost) {
        size_t n = size < piece ? size : piece;
        ssize_t r = write(fd, data, n);

        if (r > 0) {
            data += r;
            size -= (size_t)r;
        }
        h->now_ms++;
        libxl__loop_once(loop, 0);
        while (read(fd, sink, sizeof(sink)) > 0)
            ;
    }
}

/* Frames of a head of 16 octets become frames of the wire; what is left over goes as it is. */
static uint8_t *seal(const uint8_t *data, size_t *size)
{
    uint8_t *out = malloc(*size + *size / 2 + CHANNEL_HEADER_LEN);
    size_t at = 0, n = 0, len;

    if (!out) abort();
    for (uint64_t number = 0; *size - at >= 16; number++) {
        memcpy(out + n, data + at, 16);
        len = channel_get32(data + at + 4);
        if (len > *size - at - 16) break;
        memcpy(out + n + CHANNEL_HEADER_LEN, data + at + 16, len);
        libxl__channel_seal(out + n, number);
        at += 16 + len;
        n += CHANNEL_HEADER_LEN + len;
    }
    memcpy(out + n, data + at, *size - at);
    *size = n + *size - at;
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct heard h = {.now_ms = 1000};
    libxl__clock clock = {fake_now, fake_advance, &h};
    libxl__loop *loop;
    libxl__channel ch;
    uint8_t *octets;
    size_t left = size - 1;
    int sv[2];

    if (!size || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) return 0;
    signal(SIGPIPE, SIG_IGN);
    if (libxl__loop_new(&loop, fuzz_logger(), &clock)) abort();
    libxl__channel_init(&ch);
    ch.loop = loop;
    ch.send_fd = ch.recv_fd = sv[0];
    ch.primary = data[0] & 1;
    ch.limit_ms = 3000;
    ch.window = CHANNEL_WINDOW_MIN;
    ch.user = &h;
    ch.frame = take_frame;
    ch.lost = take_lost;
    if (libxl__channel_start(&ch)) abort();
    if (ch.primary) libxl__channel_send(&ch, CHANNEL_DATA, 1, "data", 4);
    octets = data[0] & 2 ? NULL : seal(data + 1, &left);
    hear(loop, &h, sv[1], octets ? octets : data + 1, left, 1 + (size_t)(data[0] >> 2) * 16);
    free(octets);
    libxl__channel_dispose(&ch);
    libxl__loop_free(loop);
    close(sv[0]);
    close(sv[1]);
    return 0;
}
