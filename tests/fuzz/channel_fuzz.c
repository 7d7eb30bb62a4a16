/* SPDX-License-Identifier: LGPL-2.1-only */
/* One end of a channel hears anything. First octet: bit 0 primary, bits 1..7 the size of the pieces in which the rest comes. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "libxl_channel.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct heard h = {.now_ms = 1000};
    libxl__clock clock = {fake_now, fake_advance, &h};
    libxl__loop *loop;
    libxl__channel ch;
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
    hear(loop, &h, sv[1], data + 1, size - 1, 1 + (size_t)(data[0] >> 1) * 16);
    libxl__channel_dispose(&ch);
    libxl__loop_free(loop);
    close(sv[0]);
    close(sv[1]);
    return 0;
}
