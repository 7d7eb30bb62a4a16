/* SPDX-License-Identifier: LGPL-2.1-only */
/* The replication channel: one real end against bytes written by hand. */
#include "channel_fixture.h"

static size_t make(struct end *e, unsigned char *out, uint32_t type, uint32_t len, uint64_t arg,
                   const void *body)
{
    struct channel_header h = {type, len, arg};

    libxl__channel_header_put(out, &h);
    if (body) memcpy(out + CHANNEL_HEADER_LEN, body, len);
    /* A length that is a lie is refused before the check is looked at. */
    if (body || !len || type == CHANNEL_DATA) libxl__channel_seal(out, e->said);
    e->said++;
    return CHANNEL_HEADER_LEN + (body ? len : 0);
}

static void say(struct end *e, uint32_t type, uint32_t len, uint64_t arg, const void *body)
{
    unsigned char out[CHANNEL_HEADER_LEN + 2048];
    size_t n = make(e, out, type, len, arg, body);

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
    unsigned char head[CHANNEL_HEADER_LEN], whole[CHANNEL_HEADER_LEN + CHANNEL_TEXT_MAX];
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
    memcpy(whole, head, sizeof(head));
    if (h->type != CHANNEL_DATA) memcpy(whole + sizeof(head), body, h->len);
    assert_true(libxl__channel_seal_ok(whole, e->heard++));
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

/* A toolstack that wrote the configuration itself need not tell its hash. */
static void t_channel_prologue_of_one_side_only_is_fine(void **state)
{
    struct end *e = end_new(true, 1000);

    e->ch.prologue = 7;
    say_hello(e);
    assert_int_equal(e->type, CHANNEL_HELLO);
    assert_int_equal(e->lost, 0);
    end_free(e);
}

static void t_channel_wrong_hello_is_lost(void **state)
{
    static const struct channel_hello bad[] = {
        {1, LIMIT_MS, WINDOW, 0},    {2, LIMIT_MS + 1, WINDOW, 0},
        {2, LIMIT_MS, 0, 0},         {2, LIMIT_MS, UINT64_MAX, 0},
        {2, LIMIT_MS, WINDOW, 1},    {2, LIMIT_MS, CHANNEL_WINDOW_MIN - 1, 0},
        {2, LIMIT_MS, WINDOW, 0, 1},
    };
    unsigned char body[CHANNEL_HELLO_LEN];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct end *e = end_new(true, 1000);

        e->ch.prologue = 2;
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
        pass(e, 3 * LIMIT_MS + 31000);
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
        {true, CHANNEL_MEMORY, 0, 1},
        {false, CHANNEL_MEMORY, 1, 1},
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
    n = make(e, text, CHANNEL_COMMIT, 16, 7, body);
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

/* Every bit of every octet, of each frame that decides something. */
static void t_channel_damaged_frame_is_lost(void **state)
{
    static const struct {
        bool to_primary;
        uint32_t type, len;
    } frames[] = {{false, CHANNEL_HEARTBEAT, 0}, {false, CHANNEL_COMMIT, 16},
                  {false, CHANNEL_STOP, 5},      {true, CHANNEL_ECHO, 8},
                  {true, CHANNEL_ACK, 0},        {true, CHANNEL_STOPPED, 0},
                  {true, CHANNEL_ERROR, 3}};
    unsigned char out[CHANNEL_HEADER_LEN + 16], body[16] = {0};

    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++)
        for (size_t bit = 0; bit < 8 * (CHANNEL_HEADER_LEN + frames[i].len); bit++) {
            struct end *e = end_new(frames[i].to_primary, 1000);
            size_t n;

            say_hello(e);
            turn(e);
            n = make(e, out, frames[i].type, frames[i].len, frames[i].to_primary ? 1000 : 1, body);
            out[bit / 8] ^= (unsigned char)(1u << bit % 8);
            assert_int_equal(write(e->peer, out, n), n);
            turn(e);
            /* One whose length grew is still waited for: nothing of it may be believed. */
            assert_int_equal(e->frames, 1);
            if (!e->lost) assert_true(bit / 8 >= 4 && bit / 8 < 8);
            assert_int_equal(libxl__channel_lease_valid(&e->ch), false);
            end_free(e);
        }
}

static void t_channel_frame_missing_is_lost(void **state)
{
    struct end *e = end_new(true, 1000);

    say_hello(e);
    e->said++;
    say(e, CHANNEL_ACK, 0, 1, NULL);
    assert_int_equal(e->frames, 1);
    assert_int_equal(e->lost, 1);
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

    pass(e, 30000);
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

static void t_channel_stop_is_read_when_a_later_heartbeat_came_back(void **state)
{
    struct end *e = end_new(true, 1000);
    struct channel_header h;
    uint64_t beat = 0;

    say_hello(e);
    pass(e, LIMIT_MS / 6);
    say_echo(e, (uint64_t)e->now_ms, 0);
    assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_STOP, 0, "end", 3), 0);
    assert_false(libxl__channel_stop_read(&e->ch)); /* not even written */
    turn(e);
    assert_true(hear_type(e, CHANNEL_STOP, &h, big));
    say_echo(e, (uint64_t)e->now_ms, 0); /* of the heartbeat before it, as it may be */
    assert_false(libxl__channel_stop_read(&e->ch));
    pass(e, LIMIT_MS / 6);
    while (hear(e, &h, big))
        if (h.type == CHANNEL_HEARTBEAT) beat = h.arg;
    assert_false(libxl__channel_stop_read(&e->ch));
    say_echo(e, beat, 0);
    assert_true(libxl__channel_stop_read(&e->ch));
    pass(e, LIMIT_MS);
    assert_int_equal(e->lost, 1);
    assert_true(libxl__channel_stop_read(&e->ch));
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

/* A primary's channel over two pipes, as xl makes them for ssh, that has heard the other side's hello. */
static struct end *on_pipes(int to[2], int from[2])
{
    struct channel_hello hello = {CHANNEL_VERSION, LIMIT_MS, WINDOW, 0};
    unsigned char body[CHANNEL_HELLO_LEN], out[128];
    struct end *e = end_new(true, 1000);
    size_t n;

    libxl__channel_dispose(&e->ch);
    assert_int_equal(pipe(to) | pipe(from), 0);
    signal(SIGPIPE, SIG_IGN);
    libxl__channel_init(&e->ch);
    e->ch.loop = e->loop;
    e->ch.send_fd = to[1];
    e->ch.recv_fd = from[0];
    e->ch.primary = true;
    e->ch.limit_ms = LIMIT_MS;
    e->ch.user = e;
    e->ch.frame = on_frame;
    e->ch.lost = on_lost;
    assert_int_equal(libxl__channel_start(&e->ch), 0);
    e->said = 0;
    libxl__channel_hello_put(body, &hello);
    n = make(e, out, CHANNEL_HELLO, sizeof(body), CHANNEL_VERSION, body);
    assert_int_equal(write(from[1], out, n), n);
    turn(e);
    turn(e);
    assert_int_equal(e->type, CHANNEL_HELLO);
    close(to[0]);
    assert_int_equal(libxl__channel_send(&e->ch, CHANNEL_STOP, 0, "", 0), 0);
    turn(e);
    return e;
}

/* ssh closes what it reads of us as soon as the other side is gone, and passes on what that said last a moment later. */
static void t_channel_last_word_comes_behind_a_broken_pipe(void **state)
{
    unsigned char out[128];
    int to[2], from[2];
    struct end *e = on_pipes(to, from);
    size_t n = make(e, out, CHANNEL_STOPPED, 0, 0, NULL);

    assert_int_equal(e->lost, 0);
    assert_int_equal(write(from[1], out, n), n);
    turn(e);
    assert_int_equal(e->type, CHANNEL_STOPPED);
    assert_int_equal(e->lost, 0);
    close(from[1]);
    turn(e);
    assert_int_equal(e->lost, 1);
    libxl__channel_dispose(&e->ch);
}

/* Nothing comes any more, and no end of file either. */
static void t_channel_broken_pipe_is_soon_a_lost_peer(void **state)
{
    int to[2], from[2];
    struct end *e = on_pipes(to, from);

    assert_int_equal(e->lost, 0);
    e->now_ms += LIMIT_MS / 6;
    turn(e);
    assert_int_equal(e->lost, 1);
    assert_non_null(strstr(e->why, "Broken pipe"));
    libxl__channel_dispose(&e->ch);
    close(from[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_channel_last_word_comes_behind_a_broken_pipe),
        cmocka_unit_test(t_channel_broken_pipe_is_soon_a_lost_peer),
        cmocka_unit_test(t_channel_start_sends_hello_first),
        cmocka_unit_test(t_channel_hello_of_peer_is_delivered),
        cmocka_unit_test(t_channel_prologue_of_one_side_only_is_fine),
        cmocka_unit_test(t_channel_wrong_hello_is_lost),
        cmocka_unit_test(t_channel_garbage_is_lost_once),
        cmocka_unit_test(t_channel_frame_rules_are_enforced),
        cmocka_unit_test(t_channel_frame_before_hello_is_lost),
        cmocka_unit_test(t_channel_error_before_hello_is_delivered),
        cmocka_unit_test(t_channel_bytes_one_by_one_are_delivered),
        cmocka_unit_test(t_channel_damaged_frame_is_lost),
        cmocka_unit_test(t_channel_frame_missing_is_lost),
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
        cmocka_unit_test(t_channel_stop_is_read_when_a_later_heartbeat_came_back),
        cmocka_unit_test(t_channel_queue_has_an_end),
        cmocka_unit_test(t_channel_dispose_writes_what_is_queued),
        cmocka_unit_test(t_channel_dispose_in_callbacks_is_fine),
        cmocka_unit_test(t_channel_text_is_printable),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
