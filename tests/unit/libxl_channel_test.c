/* SPDX-License-Identifier: LGPL-2.1-only */
/* The replication channel: one real end against bytes written by hand, and two real ends over a bad link. */
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
    int peer; /* the other end of its socket */
    int lost, rooms, drains, frames;
    int64_t lost_ms;
    char why[160];
    unsigned type;
    uint64_t arg, data_bytes;
    size_t len;
    unsigned char body[32];
    bool consume, dispose_in_frame, dispose_in_lost;
};

static int64_t end_now(void *user)
{
    return ((struct end *)user)->now_ms;
}

static void end_advance(void *user, int64_t until_ms)
{
}

static void on_frame(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
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

static void on_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    struct end *e = ch->user;

    e->lost++;
    e->lost_ms = e->now_ms;
    snprintf(e->why, sizeof(e->why), "%s", why);
    if (e->dispose_in_lost) libxl__channel_dispose(ch);
}

static void on_room(libxl__egc *egc, libxl__channel *ch)
{
    ((struct end *)ch->user)->rooms++;
}

static void on_drained(libxl__egc *egc, libxl__channel *ch)
{
    ((struct end *)ch->user)->drains++;
}

static struct end *end_new(bool primary, int64_t now_ms)
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

static void end_free(struct end *e)
{
    int fd = e->ch.recv_fd;

    libxl__channel_dispose(&e->ch);
    libxl__channel_dispose(&e->ch);
    libxl__loop_free(e->loop);
    close(fd);
    if (e->peer >= 0) close(e->peer);
    free(e);
}

static void turn(struct end *e)
{
    for (int i = 0; i < 4; i++)
        assert_int_equal(libxl__loop_once(e->loop, 0), 0);
}

static void pass(struct end *e, int64_t ms)
{
    for (int64_t t = 0; t < ms; t += 10) {
        e->now_ms += 10;
        turn(e);
    }
}

static size_t make(unsigned char *out, uint32_t type, uint32_t len, uint64_t arg, const void *body)
{
    struct channel_header h = {type, len, arg};

    libxl__channel_header_put(out, &h);
    if (body) memcpy(out + CHANNEL_HEADER_LEN, body, len);
    return CHANNEL_HEADER_LEN + (body ? len : 0);
}

static void say(struct end *e, uint32_t type, uint32_t len, uint64_t arg, const void *body)
{
    unsigned char out[CHANNEL_HEADER_LEN + 2048];
    size_t n = make(out, type, len, arg, body);

    assert_int_equal(write(e->peer, out, n), n);
    turn(e);
}

static void say_hello(struct end *e)
{
    struct channel_hello hello = {CHANNEL_VERSION, LIMIT_MS, e->ch.primary ? WINDOW : 0, 0};
    unsigned char body[CHANNEL_HELLO_LEN];

    libxl__channel_hello_put(body, &hello);
    say(e, CHANNEL_HELLO, sizeof(body), CHANNEL_VERSION, body);
}

static void say_echo(struct end *e, uint64_t beat, uint64_t consumed)
{
    unsigned char body[8];

    channel_put64(body, consumed);
    say(e, CHANNEL_ECHO, 8, beat, body);
}

/* Reads one whole frame that e has written; false: none is there. */
static bool hear(struct end *e, struct channel_header *h, unsigned char *body)
{
    unsigned char head[CHANNEL_HEADER_LEN];
    ssize_t r = recv(e->peer, head, sizeof(head), MSG_PEEK);

    if (r < (ssize_t)sizeof(head)) return false;
    assert_int_equal(read(e->peer, head, sizeof(head)), sizeof(head));
    libxl__channel_header_get(head, h);
    for (uint32_t got = 0; got < h->len;) {
        r = read(e->peer, body + got, h->len - got);
        if (r < 0 && errno == EAGAIN) {
            turn(e);
            continue;
        }
        assert_true(r > 0);
        got += (uint32_t)r;
    }
    return true;
}

/* The next frame of that type, skipping others. */
static bool hear_type(struct end *e, unsigned type, struct channel_header *h, unsigned char *body)
{
    while (hear(e, h, body))
        if (h->type == type) return true;
    return false;
}

static unsigned char big[CHANNEL_BODY_MAX];

static void t_channel_start_sends_hello_first(void **state)
{
    struct end *e = end_new(true, 1000);
    struct channel_header h;

    turn(e);
    assert_true(hear(e, &h, big));
    assert_int_equal(h.type, CHANNEL_HELLO);
    assert_int_equal(h.len, CHANNEL_HELLO_LEN);
    assert_int_equal(channel_get32(big), CHANNEL_VERSION);
    assert_int_equal(channel_get32(big + 4), LIMIT_MS);
    assert_true(hear(e, &h, big));
    assert_int_equal(h.type, CHANNEL_HEARTBEAT);
    assert_int_equal(h.arg, 1000);
    end_free(e);
}

static void t_channel_hello_of_peer_is_delivered(void **state)
{
    struct end *e = end_new(true, 1000);

    assert_int_equal(libxl__channel_data_room(&e->ch), 0);
    say_hello(e);
    assert_int_equal(e->type, CHANNEL_HELLO);
    assert_int_equal(e->rooms, 1);
    assert_int_equal(e->ch.window, WINDOW);
    assert_true(libxl__channel_data_room(&e->ch) > 0);
    end_free(e);
}

static void t_channel_wrong_hello_is_lost(void **state)
{
    static const struct channel_hello bad[] = {
        {2, LIMIT_MS, WINDOW, 0}, {1, LIMIT_MS + 1, WINDOW, 0},
        {1, LIMIT_MS, 0, 0},      {1, LIMIT_MS, UINT64_MAX, 0},
        {1, LIMIT_MS, WINDOW, 1}, {1, LIMIT_MS, CHANNEL_WINDOW_MIN - 1, 0},
    };
    unsigned char body[CHANNEL_HELLO_LEN];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct end *e = end_new(true, 1000);

        libxl__channel_hello_put(body, &bad[i]);
        say(e, CHANNEL_HELLO, sizeof(body), CHANNEL_VERSION, body);
        assert_int_equal(e->lost, 1);
        assert_int_equal(e->frames, 0);
        end_free(e);
    }
}

static void t_channel_garbage_is_lost_once(void **state)
{
    for (int seed = 0; seed < 200; seed++) {
        struct end *e = end_new(seed & 1, 1000);
        unsigned char junk[300];

        srand((unsigned)seed);
        if (seed & 2) say_hello(e);
        for (size_t i = 0; i < sizeof(junk); i++)
            junk[i] = (unsigned char)(rand() >> 8);
        assert_int_equal(write(e->peer, junk, sizeof(junk)), sizeof(junk));
        pass(e, 3 * LIMIT_MS + 11000);
        assert_int_equal(e->lost, 1);
        assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_ERROR, 0, "x", 1), ERROR_FAIL);
        end_free(e);
    }
}

static void t_channel_frame_rules_are_enforced(void **state)
{
    static const struct {
        bool primary;
        uint32_t type, len;
        uint64_t arg;
    } bad[] = {
        {true, 0, 0, 0},
        {true, 10, 0, 0},
        {true, UINT32_MAX, 0, 0},
        {true, CHANNEL_DATA, 8, 1},
        {true, CHANNEL_COMMIT, 16, 1},
        {true, CHANNEL_STOP, 0, 1},
        {true, CHANNEL_HEARTBEAT, 0, 1},
        {true, CHANNEL_ACK, 1, 1},
        {true, CHANNEL_ECHO, 4, 0},
        {true, CHANNEL_ECHO, 8, 99999999},
        {true, CHANNEL_HELLO, CHANNEL_HELLO_LEN, 1},
        {false, CHANNEL_ACK, 0, 1},
        {false, CHANNEL_ECHO, 8, 0},
        {false, CHANNEL_STOPPED, 0, 0},
        {false, CHANNEL_DATA, 0, 1},
        {false, CHANNEL_DATA, CHANNEL_BODY_MAX + 1, 1},
        {false, CHANNEL_DATA, UINT32_MAX, 1},
        {false, CHANNEL_COMMIT, 15, 1},
        {false, CHANNEL_STOP, CHANNEL_TEXT_MAX + 1, 0},
        {false, CHANNEL_ERROR, UINT32_MAX, 0},
    };
    static const unsigned char zero[32];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct end *e = end_new(bad[i].primary, 1000);
        int frames;

        say_hello(e);
        frames = e->frames;
        say(e, bad[i].type, bad[i].len, bad[i].arg, bad[i].len <= sizeof(zero) ? zero : NULL);
        assert_int_equal(e->lost, 1);
        assert_int_equal(e->frames, frames);
        end_free(e);
    }
}

static void t_channel_frame_before_hello_is_lost(void **state)
{
    struct end *e = end_new(true, 1000);

    say(e, CHANNEL_ACK, 0, 1, NULL);
    assert_int_equal(e->lost, 1);
    end_free(e);
}

static void t_channel_error_before_hello_is_delivered(void **state)
{
    struct end *e = end_new(true, 1000);

    say(e, CHANNEL_ERROR, 4, 0, "full");
    assert_int_equal(e->lost, 0);
    assert_int_equal(e->type, CHANNEL_ERROR);
    end_free(e);
}

static void t_channel_bytes_one_by_one_are_delivered(void **state)
{
    struct end *e = end_new(false, 1000);
    unsigned char text[CHANNEL_HEADER_LEN + 16], body[16] = {1, 2, 3};
    size_t n;

    say_hello(e);
    n = make(text, CHANNEL_COMMIT, 16, 7, body);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(e->frames, 1);
        assert_int_equal(write(e->peer, text + i, 1), 1);
        turn(e);
    }
    assert_int_equal(e->frames, 2);
    assert_int_equal(e->arg, 7);
    assert_memory_equal(e->body, body, 16);
    end_free(e);
}

static void t_channel_eof_is_lost(void **state)
{
    struct end *e = end_new(false, 1000);

    say_hello(e);
    say(e, CHANNEL_STOP, 0, 1, NULL);
    close(e->peer);
    e->peer = -1;
    turn(e);
    assert_int_equal(e->lost, 1);
    assert_int_equal(e->type, CHANNEL_STOP);
    e->now_ms += 77;
    assert_int_equal(libxl__channel_silence_ms(&e->ch), 77);
    end_free(e);
}

static void t_channel_silence_is_lost_at_the_limit(void **state)
{
    struct end *e = end_new(false, 1000);

    say_hello(e);
    pass(e, LIMIT_MS - 10);
    assert_int_equal(e->lost, 0);
    pass(e, 10);
    assert_int_equal(e->lost, 1);
    pass(e, 10 * LIMIT_MS);
    assert_int_equal(e->lost, 1);
    end_free(e);
}

static void t_channel_silence_before_hello_has_longer_limit(void **state)
{
    struct end *e = end_new(true, 1000);

    pass(e, 10000);
    assert_int_equal(e->lost, 0);
    pass(e, LIMIT_MS);
    assert_int_equal(e->lost, 1);
    end_free(e);
}

static void t_channel_own_stall_is_not_the_peers_silence(void **state)
{
    struct end *e = end_new(false, 1000);

    say_hello(e);
    e->now_ms += 5 * LIMIT_MS;
    say(e, CHANNEL_HEARTBEAT, 0, 1, NULL); /* it came while we stood still */
    assert_int_equal(e->lost, 0);
    pass(e, LIMIT_MS - 10);
    assert_int_equal(e->lost, 0);
    end_free(e);
}

static void t_channel_heartbeat_is_echoed(void **state)
{
    struct end *e = end_new(false, 1000);
    struct channel_header h;

    say_hello(e);
    say(e, CHANNEL_HEARTBEAT, 0, 12345, NULL);
    assert_true(hear_type(e, CHANNEL_ECHO, &h, big));
    assert_int_equal(h.arg, 12345);
    assert_int_equal(e->frames, 1);
    say(e, CHANNEL_HEARTBEAT, 0, 12344, NULL);
    assert_int_equal(e->lost, 1);
    end_free(e);
}

static void t_channel_both_sides_speak_when_idle(void **state)
{
    for (int primary = 0; primary < 2; primary++) {
        struct end *e = end_new(primary, 1000);
        struct channel_header h;
        int beats = 0;

        say_hello(e);
        while (hear(e, &h, big))
            ;
        pass(e, LIMIT_MS / 2);
        while (hear(e, &h, big))
            beats += h.type == (primary ? CHANNEL_HEARTBEAT : CHANNEL_ECHO);
        assert_int_equal(beats, 3);
        end_free(e);
    }
}

static void t_channel_lease_runs_from_the_sending(void **state)
{
    struct end *e = end_new(true, 1000);

    say_hello(e);
    assert_false(libxl__channel_lease_valid(&e->ch));
    e->now_ms += 300;
    say_echo(e, 1000, 0);
    assert_true(libxl__channel_lease_valid(&e->ch));
    e->now_ms = 1000 + LIMIT_MS - LIMIT_MS / 8 - 1;
    assert_true(libxl__channel_lease_valid(&e->ch));
    e->now_ms++;
    assert_false(libxl__channel_lease_valid(&e->ch));
    end_free(e);
}

static void t_channel_false_echo_is_lost(void **state)
{
    static const struct {
        uint64_t beat, consumed;
    } bad[] = {{1001, 0}, {UINT64_MAX, 0}, {1000, 1}, {1000, UINT64_MAX}};

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct end *e = end_new(true, 1000);

        say_hello(e);
        say_echo(e, bad[i].beat, bad[i].consumed);
        assert_int_equal(e->lost, 1);
        assert_false(libxl__channel_lease_valid(&e->ch));
        end_free(e);
    }
}

static void t_channel_echo_backwards_is_lost(void **state)
{
    struct end *e = end_new(true, 1000);

    say_hello(e);
    say_echo(e, 1000, 0);
    pass(e, LIMIT_MS / 3);
    say_echo(e, 0, 0);
    assert_int_equal(e->lost, 1);
    end_free(e);
}

static void t_channel_window_keeps_data_back_but_no_heartbeat(void **state)
{
    struct end *e = end_new(true, 1000);
    struct channel_header h;
    uint64_t data = 0, after = 0;
    int beats = 0;

    say_hello(e);
    for (int i = 0; i < 8; i++)
        assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_DATA, 1, big, 100000), 0);
    assert_int_equal(libxl__channel_commit(&e->ch, 1, 800000, 0), 0);
    assert_int_equal(libxl__channel_data_room(&e->ch), 0);
    turn(e);
    pass(e, LIMIT_MS / 3);
    while (hear(e, &h, big)) {
        if (h.type == CHANNEL_DATA) data += h.len;
        beats += h.type == CHANNEL_HEARTBEAT;
        assert_int_not_equal(h.type, CHANNEL_COMMIT);
        turn(e);
    }
    assert_true(data <= WINDOW && data > WINDOW - (64u << 10));
    assert_true(beats >= 2);
    assert_int_equal(e->drains, 0);

    for (uint64_t told = 0; told < 800000;) {
        told = data + after;
        say_echo(e, 1000, told);
        while (hear(e, &h, big)) {
            if (h.type == CHANNEL_DATA) after += h.len;
            turn(e);
        }
    }
    assert_int_equal(data + after, 800000);
    assert_int_equal(h.type, CHANNEL_COMMIT);
    assert_int_equal(e->drains, 1);
    assert_int_equal(e->lost, 0);
    assert_true(e->rooms >= 1);
    end_free(e);
}

static void t_channel_data_beyond_window_is_lost(void **state)
{
    struct end *e = end_new(false, 1000);

    e->consume = false;
    say_hello(e);
    for (int i = 0; i < (int)(WINDOW / 1024); i++)
        say(e, CHANNEL_DATA, 1024, 1, big);
    assert_int_equal(e->lost, 0);
    say(e, CHANNEL_DATA, 1, 1, big);
    assert_int_equal(e->lost, 1);
    assert_int_equal(e->data_bytes, WINDOW);
    end_free(e);
}

static void t_channel_stop_does_not_wait_for_window(void **state)
{
    struct end *e = end_new(true, 1000);
    struct channel_header h;

    say_hello(e);
    for (int i = 0; i < 8; i++)
        assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_DATA, 1, big, 100000), 0);
    turn(e);
    while (hear(e, &h, big))
        turn(e);
    assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_STOP, 0, "end", 3), 0);
    turn(e);
    assert_true(hear_type(e, CHANNEL_STOP, &h, big));
    assert_int_equal(libxl__channel_queued(&e->ch), 0);
    end_free(e);
}

static void t_channel_queue_has_an_end(void **state)
{
    struct end *e = end_new(true, 1000);
    unsigned n = 0;

    while (!libxl__channel_send(&e->ch, CHANNEL_DATA, 1, big, sizeof(big)))
        n++;
    assert_true(n >= 120 && n < 128);
    end_free(e);
}

static void t_channel_dispose_writes_what_is_queued(void **state)
{
    struct end *e = end_new(false, 1000);
    struct channel_header h;

    say_hello(e);
    assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_STOPPED, 0, NULL, 0), 0);
    libxl__channel_dispose(&e->ch);
    assert_true(hear_type(e, CHANNEL_STOPPED, &h, big));
    end_free(e);
}

static void t_channel_dispose_in_callbacks_is_fine(void **state)
{
    struct end *e = end_new(false, 1000);

    e->dispose_in_frame = true;
    say_hello(e);
    say(e, CHANNEL_STOP, 0, 0, NULL);
    assert_null(e->ch.st);
    end_free(e);

    e = end_new(false, 1000);
    e->dispose_in_lost = true;
    say_hello(e);
    pass(e, LIMIT_MS);
    assert_int_equal(e->lost, 1);
    assert_null(e->ch.st);
    end_free(e);
}

static void t_channel_text_is_printable(void **state)
{
    char out[8];

    libxl__channel_text("a\x1b[2J\nbcdef", 11, out, sizeof(out));
    assert_string_equal(out, "a?[2J?b");
    libxl__channel_text(NULL, 0, out, sizeof(out));
    assert_string_equal(out, "");
}

/* ---- two ends and a link ---- */

#define LINK_ROOM 4096

struct parcel {
    int64_t at_ms;
    size_t len;
    unsigned char bytes[512];
};

/* One direction: what was written by one end reaches the other in order, late, or never. */
struct direction {
    struct parcel parcels[LINK_ROOM];
    unsigned first, n;
    int64_t last_ms;
};

struct world {
    unsigned seed;
    int64_t ms;
    struct end *p, *b;
    int64_t p_stalled, b_stalled; /* until */
    int64_t cut_ms, heal_ms;
    struct direction to_b, to_p;
    int p_rate, b_rate; /* per mille */
    int64_t promoted_ms;
    unsigned releases;
};

static unsigned chance(struct world *w, unsigned n)
{
    w->seed = w->seed * 1103515245u + 12345u;
    return (w->seed >> 16) % n;
}

static void carry(struct world *w, struct direction *d, int from, int to)
{
    bool cut = w->ms >= w->cut_ms && w->ms < w->heal_ms;
    struct parcel *pa;
    ssize_t r;

    while (d->n < LINK_ROOM) {
        pa = &d->parcels[(d->first + d->n) % LINK_ROOM];
        r = read(from, pa->bytes, sizeof(pa->bytes));
        if (r <= 0) break;
        pa->len = (size_t)r;
        pa->at_ms = w->ms + (chance(w, 8) ? chance(w, 30) : chance(w, LIMIT_MS));
        if (pa->at_ms < d->last_ms) pa->at_ms = d->last_ms;
        d->last_ms = pa->at_ms;
        d->n++;
    }
    while (!cut && d->n && d->parcels[d->first].at_ms <= w->ms) {
        pa = &d->parcels[d->first];
        r = write(to, pa->bytes, pa->len);
        if (r != (ssize_t)pa->len) break;
        d->first = (d->first + 1) % LINK_ROOM;
        d->n--;
    }
}

static void maybe_stall(struct world *w, int64_t *until)
{
    if (*until < w->ms && !chance(w, 60)) *until = w->ms + chance(w, 3 * LIMIT_MS);
}

/* The backup as the twin does it: lost, then limit_ms of silence, then it runs. */
static void backup_acts(struct world *w)
{
    turn(w->b);
    if (w->b->lost && w->promoted_ms < 0 && libxl__channel_silence_ms(&w->b->ch) >= LIMIT_MS)
        w->promoted_ms = w->ms;
}

static void primary_acts(struct world *w)
{
    bool valid;

    /* Output may be released before or after the loop has looked at anything. */
    if (chance(w, 2)) turn(w->p);
    valid = libxl__channel_lease_valid(&w->p->ch);
    if (valid && w->promoted_ms >= 0) fail_msg("released at or after the promotion");
    w->releases += valid;
    turn(w->p);
    if (libxl__channel_data_room(&w->p->ch) && !chance(w, 3))
        libxl__channel_send(&w->p->ch, CHANNEL_DATA, 1, big, 1 + chance(w, 3000));
}

static void step(struct world *w)
{
    bool p_first = chance(w, 2);

    w->ms += 1 + chance(w, 10);
    w->p->now_ms = 5000 + w->ms * w->p_rate / 1000;
    w->b->now_ms = 900000 + w->ms * w->b_rate / 1000;
    maybe_stall(w, &w->p_stalled);
    maybe_stall(w, &w->b_stalled);
    carry(w, &w->to_b, w->p->peer, w->b->peer);
    carry(w, &w->to_p, w->b->peer, w->p->peer);
    if (p_first && w->p_stalled < w->ms) primary_acts(w);
    if (w->b_stalled < w->ms) backup_acts(w);
    if (!p_first && w->p_stalled < w->ms) primary_acts(w);
}

static void t_channel_release_never_after_promotion(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    unsigned promotions = 0, releases = 0;

    for (unsigned seed = 1; seed <= 400; seed++) {
        memset(w, 0, sizeof(*w));
        w->seed = seed;
        w->promoted_ms = w->p_stalled = w->b_stalled = -1;
        w->p_rate = 960 + (int)chance(w, 81);
        w->b_rate = 960 + (int)chance(w, 81);
        w->cut_ms = chance(w, 6 * LIMIT_MS);
        w->heal_ms = w->cut_ms + chance(w, 4 * LIMIT_MS);
        w->p = end_new(true, 5000);
        w->b = end_new(false, 900000);
        while (w->ms < 12 * LIMIT_MS)
            step(w);
        promotions += w->promoted_ms >= 0;
        releases += w->releases;
        end_free(w->p);
        end_free(w->b);
    }
    /* The schedules must have met both, or they prove nothing. */
    assert_true(promotions > 100);
    assert_true(releases > 10000);
    free(w);
}

static void t_channel_two_ends_move_all_data(void **state)
{
    struct end *p = end_new(true, 1000), *b = end_new(false, 77);
    uint64_t sent = 0, total = 20u << 20;
    unsigned char buf[7001];
    ssize_t r;

    while (b->data_bytes < total) {
        size_t room = libxl__channel_data_room(&p->ch);

        if (room > total - sent) room = total - sent;
        if (room) assert_int_equal(libxl__channel_send(&p->ch, CHANNEL_DATA, 1, big, room), 0);
        sent += room;
        turn(p);
        while ((r = read(p->peer, buf, sizeof(buf))) > 0) {
            for (ssize_t done = 0; done < r;) {
                ssize_t n = write(b->peer, buf + done, (size_t)(r - done));

                if (n > 0) done += n;
                turn(b);
            }
        }
        turn(b);
        while ((r = read(b->peer, buf, sizeof(buf))) > 0)
            assert_int_equal(write(p->peer, buf, (size_t)r), r);
    }
    assert_int_equal(p->lost + b->lost, 0);
    assert_int_equal(b->data_bytes, total);
    end_free(p);
    end_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_channel_start_sends_hello_first),
        cmocka_unit_test(t_channel_hello_of_peer_is_delivered),
        cmocka_unit_test(t_channel_wrong_hello_is_lost),
        cmocka_unit_test(t_channel_garbage_is_lost_once),
        cmocka_unit_test(t_channel_frame_rules_are_enforced),
        cmocka_unit_test(t_channel_frame_before_hello_is_lost),
        cmocka_unit_test(t_channel_error_before_hello_is_delivered),
        cmocka_unit_test(t_channel_bytes_one_by_one_are_delivered),
        cmocka_unit_test(t_channel_eof_is_lost),
        cmocka_unit_test(t_channel_silence_is_lost_at_the_limit),
        cmocka_unit_test(t_channel_silence_before_hello_has_longer_limit),
        cmocka_unit_test(t_channel_own_stall_is_not_the_peers_silence),
        cmocka_unit_test(t_channel_heartbeat_is_echoed),
        cmocka_unit_test(t_channel_both_sides_speak_when_idle),
        cmocka_unit_test(t_channel_lease_runs_from_the_sending),
        cmocka_unit_test(t_channel_false_echo_is_lost),
        cmocka_unit_test(t_channel_echo_backwards_is_lost),
        cmocka_unit_test(t_channel_window_keeps_data_back_but_no_heartbeat),
        cmocka_unit_test(t_channel_data_beyond_window_is_lost),
        cmocka_unit_test(t_channel_stop_does_not_wait_for_window),
        cmocka_unit_test(t_channel_queue_has_an_end),
        cmocka_unit_test(t_channel_dispose_writes_what_is_queued),
        cmocka_unit_test(t_channel_dispose_in_callbacks_is_fine),
        cmocka_unit_test(t_channel_text_is_printable),
        cmocka_unit_test(t_channel_release_never_after_promotion),
        cmocka_unit_test(t_channel_two_ends_move_all_data),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
