/* SPDX-License-Identifier: LGPL-2.1-only */
/* One end of a channel with a loop and a clock of its own, and what it saw. */
#ifndef CHANNEL_FIXTURE_H
#define CHANNEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_channel.h"
#include "libxl_channel_frame.h"

#define LIMIT_MS 600
#define WINDOW (256u << 10)

struct end {
    int64_t now_ms;
    libxl__loop *loop;
    libxl__channel ch;
    int peer;             /* the other end of its socket */
    uint64_t said, heard; /* frames that went over it */
    int lost, rooms, drains, frames;
    int64_t lost_ms;
    char why[160];
    unsigned type;
    uint64_t arg, data_bytes;
    size_t len;
    unsigned char body[32];
    bool consume, dispose_in_frame, dispose_in_lost;
};

static inline int64_t end_now(void *user)
{
    return ((struct end *)user)->now_ms;
}

static inline void end_advance(void *user, int64_t until_ms)
{
}

static inline void on_frame(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                            const void *body, size_t len)
{
    struct end *e = ch->user;

    assert_int_equal(e->lost, 0);
    e->frames++;
    e->type = type;
    e->arg = arg;
    e->len = len;
    if (len) memcpy(e->body, body, len < sizeof(e->body) ? len : sizeof(e->body));
    if (type == CHANNEL_DATA) {
        e->data_bytes += len;
        if (e->consume) libxl__channel_consumed(ch, len);
    }
    if (e->dispose_in_frame && type != CHANNEL_HELLO) libxl__channel_dispose(ch);
}

static inline void on_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    struct end *e = ch->user;

    e->lost++;
    e->lost_ms = e->now_ms;
    snprintf(e->why, sizeof(e->why), "%s", why);
    if (e->dispose_in_lost) libxl__channel_dispose(ch);
}

static inline void on_room(libxl__egc *egc, libxl__channel *ch)
{
    ((struct end *)ch->user)->rooms++;
}

static inline void on_drained(libxl__egc *egc, libxl__channel *ch)
{
    ((struct end *)ch->user)->drains++;
}

static inline struct end *end_new(bool primary, int64_t now_ms)
{
    struct end *e = calloc(1, sizeof(*e));
    libxl__clock clock = {end_now, end_advance, e};
    int sv[2];

    e->now_ms = now_ms;
    assert_int_equal(libxl__loop_new(&e->loop, NULL, &clock), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv), 0);
    e->peer = sv[1];
    libxl__channel_init(&e->ch);
    e->ch.loop = e->loop;
    e->ch.send_fd = e->ch.recv_fd = sv[0];
    e->ch.primary = primary;
    e->ch.limit_ms = LIMIT_MS;
    e->ch.window = primary ? 0 : WINDOW;
    e->ch.user = e;
    e->ch.frame = on_frame;
    e->ch.lost = on_lost;
    e->ch.room = on_room;
    e->ch.drained = on_drained;
    e->consume = true;
    assert_int_equal(libxl__channel_start(&e->ch), 0);
    return e;
}

static inline void end_free(struct end *e)
{
    int fd = e->ch.recv_fd;

    libxl__channel_dispose(&e->ch);
    libxl__channel_dispose(&e->ch);
    libxl__loop_free(e->loop);
    close(fd);
    if (e->peer >= 0) close(e->peer);
    free(e);
}

static inline void turn(struct end *e)
{
    for (int i = 0; i < 4; i++)
        assert_int_equal(libxl__loop_once(e->loop, 0), 0);
}

static inline void pass(struct end *e, int64_t ms)
{
    for (int64_t t = 0; t < ms; t += 10) {
        e->now_ms += 10;
        turn(e);
    }
}

#endif
