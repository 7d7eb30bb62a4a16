/* SPDX-License-Identifier: LGPL-2.1-only */
/* Two real ends of a channel over a bad link. */
#include "channel_fixture.h"

static unsigned char big[CHANNEL_BODY_MAX];

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
        cmocka_unit_test(t_channel_release_never_after_promotion),
        cmocka_unit_test(t_channel_two_ends_move_all_data),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
