/* SPDX-License-Identifier: LGPL-2.1-only */
/* The event loop on a clock that only the test moves. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include <libxl.h>

#include "libxl_ev.h"

static int64_t fake_now;
static int advances;

static int64_t now_ms(void *user)
{
    return fake_now;
}

static void advance(void *user, int64_t until_ms)
{
    assert_true(until_ms < INT64_MAX); /* the loop would wait for ever */
    assert_true(until_ms > fake_now);
    fake_now = until_ms;
    advances++;
}

static const libxl__clock fake_clock = {.now_ms = now_ms, .advance = advance};

/* What happened, one letter per callback. */
static char story[256];

static void tell(char c)
{
    size_t n = strlen(story);

    assert_true(n + 1 < sizeof(story));
    story[n] = c;
    story[n + 1] = 0;
}

static int setup(void **state)
{
    libxl__loop *loop;

    fake_now = 1000;
    advances = 0;
    story[0] = 0;
    if (libxl__loop_new(&loop, NULL, &fake_clock)) return -1;
    *state = loop;
    return 0;
}

static int teardown(void **state)
{
    libxl__loop_free(*state);
    return 0;
}

/* ---- timers ---- */

struct timer {
    libxl__ev_time ev;
    char name;
    struct timer *victim; /* deregistered by the callback */
    int again;            /* how often the callback registers itself once more, with 0 ms */
    bool *done;
};

static void fired(libxl__egc *egc, libxl__ev_time *ev)
{
    struct timer *t = CONTAINER_OF(ev, struct timer, ev);

    assert_false(ev->registered);
    tell(t->name);
    if (t->victim) libxl__ev_time_deregister(egc->loop, &t->victim->ev);
    if (t->again-- > 0) assert_int_equal(libxl__ev_time_register_rel(egc->loop, ev, fired, 0), 0);
    if (t->done) *t->done = true;
}

static void start_timer(libxl__loop *loop, struct timer *t, char name, int64_t ms)
{
    t->name = name;
    libxl__ev_time_init(&t->ev);
    assert_int_equal(libxl__ev_time_register_rel(loop, &t->ev, fired, ms), 0);
}

static void t_timers_any_registration_order_fire_by_time(void **state)
{
    libxl__loop *loop = *state;
    static const int64_t ms[] = {50, 10, 40, 0, 30, 20};
    struct timer t[6] = {0};

    for (int i = 0; i < 6; i++)
        start_timer(loop, &t[i], "fbeadc"[i], ms[i]);
    for (int i = 0; i < 6; i++)
        assert_int_equal(libxl__loop_once(loop, -1), 0);
    assert_string_equal(story, "abcdef");
    assert_int_equal(fake_now, 1050);
}

static void t_timers_same_time_fire_in_registration_order(void **state)
{
    libxl__loop *loop = *state;
    struct timer t[8] = {0};

    for (int i = 0; i < 8; i++)
        start_timer(loop, &t[i], 'a' + i, 5);
    libxl__ev_time_deregister(loop, &t[2].ev);
    libxl__ev_time_deregister(loop, &t[2].ev);
    assert_int_equal(libxl__loop_once(loop, -1), 0);
    assert_string_equal(story, "abdefgh");
    assert_int_equal(advances, 1);
}

static void t_timer_zero_again_fires_once_per_turn(void **state)
{
    libxl__loop *loop = *state;
    struct timer t = {.again = 2};

    start_timer(loop, &t, 'x', 0);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "x");
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "xxx");
}

static void t_timer_removed_by_neighbour_does_not_fire(void **state)
{
    libxl__loop *loop = *state;
    struct timer *gone = malloc(sizeof(*gone));
    struct timer a = {0};

    *gone = (struct timer){0};
    start_timer(loop, &a, 'a', 5);
    start_timer(loop, gone, 'b', 5);
    a.victim = gone;
    assert_int_equal(libxl__loop_once(loop, -1), 0);
    free(gone);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "a");
}

static void t_timers_random_churn_fire_in_order(void **state)
{
    libxl__loop *loop = *state;
    struct timer t[200] = {0};
    unsigned seed = 1;
    int64_t last = 0;
    int left = 0;

    for (int i = 0; i < 200; i++)
        start_timer(loop, &t[i], 'x', rand_r(&seed) % 1000);
    for (int i = 0; i < 200; i += 3)
        libxl__ev_time_deregister(loop, &t[i].ev);
    for (int i = 0; i < 200; i++)
        left += t[i].ev.registered;
    while (left) {
        int now_left = 0;
        int64_t earliest = INT64_MAX;

        for (int i = 0; i < 200; i++) {
            if (t[i].ev.registered && t[i].ev.at_ms < earliest) earliest = t[i].ev.at_ms;
        }
        assert_true(earliest >= last);
        story[0] = 0;
        assert_int_equal(libxl__loop_once(loop, -1), 0);
        assert_int_equal(fake_now, earliest);
        last = earliest;
        for (int i = 0; i < 200; i++)
            now_left += t[i].ev.registered;
        assert_int_equal(left - now_left, strlen(story));
        left = now_left;
    }
}

static void t_once_max_wait_before_timer_returns_early(void **state)
{
    libxl__loop *loop = *state;
    struct timer t = {0};

    start_timer(loop, &t, 'x', 100);
    assert_int_equal(libxl__loop_once(loop, 30), 0);
    assert_int_equal(fake_now, 1030);
    assert_string_equal(story, "");
    libxl__ev_time_deregister(loop, &t.ev);
}

static void t_timer_huge_delay_does_not_overflow(void **state)
{
    libxl__loop *loop = *state;
    struct timer t = {0};

    start_timer(loop, &t, 'x', INT64_MAX);
    assert_int_equal(t.ev.at_ms, INT64_MAX);
    assert_int_equal(libxl__loop_once(loop, 10), 0);
    libxl__ev_time_deregister(loop, &t.ev);
    start_timer(loop, &t, 'x', -5);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "x");
}

static void t_run_done_by_timer_returns(void **state)
{
    libxl__loop *loop = *state;
    bool done = false;
    struct timer t = {.done = &done};

    start_timer(loop, &t, 'x', 3600 * 1000);
    assert_int_equal(libxl__loop_run(loop, &done), 0);
    assert_int_equal(fake_now, 1000 + 3600 * 1000);
}

static void t_real_clock_short_timer_is_not_early(void **state)
{
    struct timer t = {0};
    libxl__loop *loop;
    int64_t start;

    assert_int_equal(libxl__loop_new(&loop, NULL, NULL), 0);
    start = libxl__loop_now_ms(loop);
    start_timer(loop, &t, 'x', 5);
    while (t.ev.registered)
        assert_int_equal(libxl__loop_once(loop, -1), 0);
    assert_true(libxl__loop_now_ms(loop) - start >= 5);
    libxl__loop_free(loop);
}

/* ---- file descriptors ---- */

struct reader {
    libxl__ev_fd ev;
    int pipe[2];
    char name;
    short revents;
    struct reader *victim, *silenced, *born;
    bool disposed;
};

static void readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct reader *r = CONTAINER_OF(ev, struct reader, ev);
    char c;

    assert_int_equal(fd, r->pipe[0]);
    assert_int_equal(events, ev->events);
    tell(r->name);
    r->revents = revents;
    if (revents & POLLIN) assert_int_equal(read(fd, &c, 1), 1);
    if (r->silenced) assert_int_equal(libxl__ev_fd_modify(egc->loop, &r->silenced->ev, 0), 0);
    if (r->born)
        assert_int_equal(
            libxl__ev_fd_register(egc->loop, &r->born->ev, readable, r->born->pipe[0], POLLIN), 0);
    if (r->victim) {
        libxl__ev_fd_deregister(egc->loop, &r->victim->ev);
        if (r->disposed) {
            close(r->victim->pipe[0]);
            close(r->victim->pipe[1]);
            free(r->victim);
        }
        r->victim = NULL;
    }
}

static void make_reader(struct reader *r, char name)
{
    *r = (struct reader){.name = name};
    libxl__ev_fd_init(&r->ev);
    assert_int_equal(pipe2(r->pipe, O_CLOEXEC), 0);
}

static void start_reader(libxl__loop *loop, struct reader *r, char name)
{
    make_reader(r, name);
    assert_int_equal(libxl__ev_fd_register(loop, &r->ev, readable, r->pipe[0], POLLIN), 0);
}

static void stop_reader(libxl__loop *loop, struct reader *r)
{
    libxl__ev_fd_deregister(loop, &r->ev);
    close(r->pipe[0]);
    close(r->pipe[1]);
}

static void feed(struct reader *r)
{
    assert_int_equal(write(r->pipe[1], "x", 1), 1);
}

static void t_fd_ready_runs_callback_each_turn(void **state)
{
    libxl__loop *loop = *state;
    struct reader a, b;

    start_reader(loop, &a, 'a');
    start_reader(loop, &b, 'b');
    feed(&b);
    feed(&b);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "bb");
    assert_int_equal(b.revents, POLLIN);
    stop_reader(loop, &a);
    stop_reader(loop, &b);
}

static void t_fd_deregisters_itself_in_callback(void **state)
{
    libxl__loop *loop = *state;
    struct reader a;

    start_reader(loop, &a, 'a');
    a.victim = &a;
    feed(&a);
    feed(&a);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_false(libxl__ev_fd_isregistered(&a.ev));
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "a");
    stop_reader(loop, &a);
}

static void t_fd_neighbour_disposed_in_callback_is_not_run(void **state)
{
    libxl__loop *loop = *state;
    struct reader a, *b = malloc(sizeof(*b)), c;

    start_reader(loop, &a, 'a');
    start_reader(loop, b, 'b');
    start_reader(loop, &c, 'c');
    a.victim = b;
    a.disposed = true;
    feed(&a);
    feed(b);
    feed(&c);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "ac");
    feed(&c);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "acc");
    stop_reader(loop, &a);
    stop_reader(loop, &c);
}

static void t_fd_registered_in_callback_runs_next_turn(void **state)
{
    libxl__loop *loop = *state;
    struct reader a, b;

    start_reader(loop, &a, 'a');
    make_reader(&b, 'b');
    feed(&a);
    feed(&b);
    a.born = &b;
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "a");
    a.born = NULL;
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "ab");
    stop_reader(loop, &a);
    stop_reader(loop, &b);
}

static void t_fd_silenced_in_callback_is_not_run(void **state)
{
    libxl__loop *loop = *state;
    struct reader a, b;

    start_reader(loop, &a, 'a');
    start_reader(loop, &b, 'b');
    a.silenced = &b;
    feed(&a);
    feed(&b);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "a");
    assert_true(libxl__ev_fd_isregistered(&b.ev));
    assert_int_equal(libxl__ev_fd_modify(loop, &b.ev, POLLIN), 0);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "ab");
    stop_reader(loop, &a);
    stop_reader(loop, &b);
}

static void t_fd_hangup_is_reported_unless_silent(void **state)
{
    libxl__loop *loop = *state;
    struct reader a;

    start_reader(loop, &a, 'a');
    assert_int_equal(libxl__ev_fd_modify(loop, &a.ev, 0), 0);
    close(a.pipe[1]);
    a.pipe[1] = -1;
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "");
    assert_int_equal(libxl__ev_fd_modify(loop, &a.ev, POLLIN), 0);
    a.victim = &a;
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "a");
    assert_int_equal(a.revents, POLLHUP);
    close(a.pipe[0]);
}

static void t_fd_closed_behind_our_back_is_pollnval(void **state)
{
    libxl__loop *loop = *state;
    struct reader a;

    start_reader(loop, &a, 'a');
    close(a.pipe[0]);
    assert_int_equal(libxl__loop_once(loop, 0), 0);
    assert_string_equal(story, "a");
    assert_int_equal(a.revents, POLLNVAL);
    libxl__ev_fd_deregister(loop, &a.ev);
    close(a.pipe[1]);
}

static void t_fd_ready_does_not_wait_for_the_clock(void **state)
{
    libxl__loop *loop = *state;
    struct reader a;
    struct timer t = {0};

    start_reader(loop, &a, 'a');
    start_timer(loop, &t, 't', 100);
    feed(&a);
    assert_int_equal(libxl__loop_once(loop, -1), 0);
    assert_string_equal(story, "a");
    assert_int_equal(fake_now, 1000);
    assert_int_equal(libxl__loop_once(loop, -1), 0);
    assert_string_equal(story, "at");
    stop_reader(loop, &a);
}

static void t_fd_many_come_and_go_slots_stay_right(void **state)
{
    libxl__loop *loop = *state;
    struct reader r[40];

    for (int i = 0; i < 40; i++)
        start_reader(loop, &r[i], 'a' + i % 26);
    for (int i = 0; i < 40; i += 2)
        stop_reader(loop, &r[i]);
    for (int round = 0; round < 2; round++) {
        story[0] = 0;
        for (int i = 1; i < 40; i += 2)
            feed(&r[i]);
        assert_int_equal(libxl__loop_once(loop, 0), 0);
        assert_int_equal(strlen(story), 20);
    }
    for (int i = 1; i < 40; i += 2)
        stop_reader(loop, &r[i]);
}

static void t_fd_negative_is_refused(void **state)
{
    libxl__ev_fd ev;

    libxl__ev_fd_init(&ev);
    assert_int_equal(libxl__ev_fd_register(*state, &ev, readable, -1, POLLIN), ERROR_FAIL);
    assert_false(libxl__ev_fd_isregistered(&ev));
    libxl__ev_fd_deregister(*state, &ev);
}

static void t_fd_flags_set_and_cleared(void **state)
{
    libxl__gc *gc = libxl__loop_gc(*state);
    int p[2];

    assert_int_equal(pipe(p), 0);
    assert_int_equal(libxl__fd_nonblock(gc, p[0], true), 0);
    assert_true(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(libxl__fd_nonblock(gc, p[0], false), 0);
    assert_false(fcntl(p[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(libxl__fd_cloexec(gc, p[0], true), 0);
    assert_true(fcntl(p[0], F_GETFD) & FD_CLOEXEC);
    close(p[0]);
    close(p[1]);
    assert_int_equal(libxl__fd_cloexec(gc, p[0], true), ERROR_FAIL);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_timers_any_registration_order_fire_by_time),
        T(t_timers_same_time_fire_in_registration_order),
        T(t_timer_zero_again_fires_once_per_turn),
        T(t_timer_removed_by_neighbour_does_not_fire),
        T(t_timers_random_churn_fire_in_order),
        T(t_once_max_wait_before_timer_returns_early),
        T(t_timer_huge_delay_does_not_overflow),
        T(t_run_done_by_timer_returns),
        T(t_real_clock_short_timer_is_not_early),
        T(t_fd_ready_runs_callback_each_turn),
        T(t_fd_deregisters_itself_in_callback),
        T(t_fd_neighbour_disposed_in_callback_is_not_run),
        T(t_fd_registered_in_callback_runs_next_turn),
        T(t_fd_silenced_in_callback_is_not_run),
        T(t_fd_hangup_is_reported_unless_silent),
        T(t_fd_closed_behind_our_back_is_pollnval),
        T(t_fd_ready_does_not_wait_for_the_clock),
        T(t_fd_many_come_and_go_slots_stay_right),
        T(t_fd_negative_is_refused),
        T(t_fd_flags_set_and_cleared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
