/* SPDX-License-Identifier: LGPL-2.1-only */
/* The driver of plans: order, the first error, interruption, limits. A fake clock; no time passes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <libxl.h>

#include "libxl_epoch.h"

static char story[256];
static int64_t now;
static int fail_at, result;
static bool done;
static char stuck; /* this step never ends by itself */
static libxl__epoch ep;

static int64_t fake_now(void *user)
{
    return now;
}

static void fake_advance(void *user, int64_t until_ms)
{
    assert_true(until_ms != INT64_MAX); /* nobody would ever wake us */
    now = until_ms;
}

static void tell(libxl__egc *egc, libxl__epoch *e, char c)
{
    size_t n = strlen(story);

    assert_true(n < sizeof(story) - 1);
    story[n] = c;
    if (c == stuck) return;
    libxl__epoch_next(egc, e, fail_at && (int)n + 1 == fail_at ? ERROR_FAIL : 0);
}

#define STEP(c)                                                                                    \
    static void step_##c(libxl__egc *egc, libxl__epoch *e)                                         \
    {                                                                                              \
        tell(egc, e, #c[0]);                                                                       \
    }
STEP(s)
STEP(t)
STEP(a)
STEP(b)
STEP(u)
STEP(v)

static const struct step setup[] = {{"s", step_s, 0}, {"t", step_t, 0}, {0}};
static const struct step repeat[] = {{"a", step_a, 100}, {"b", step_b, 0}, {0}};
static const struct step undo[] = {{"u", step_u, 100}, {"v", step_v, 0}, {0}};

static void finished(libxl__egc *egc, libxl__epoch *e, int rc)
{
    assert_false(done);
    result = rc;
    done = true;
}

static const libxl__clock clock_ops = {fake_now, fake_advance, NULL};

static void run_turns(int turns)
{
    libxl__loop *loop;

    memset(story, 0, sizeof(story));
    done = false;
    now = 1000;
    assert_int_equal(libxl__loop_new(&loop, NULL, &clock_ops), 0);
    libxl__epoch_init(&ep);
    ep.loop = loop;
    ep.setup = setup;
    ep.repeat = repeat;
    ep.undo = undo;
    ep.finished = finished;
    assert_int_equal(libxl__epoch_start(&ep), 0);
    for (int i = 0; i < turns && !done; i++)
        libxl__loop_once(loop, -1);
    if (!done) {
        libxl__epoch_interrupt(&(libxl__egc){loop}, &ep, ERROR_ABORTED);
        libxl__epoch_interrupt(&(libxl__egc){loop}, &ep, ERROR_NOT_READY);
        while (!done)
            libxl__loop_once(loop, -1);
    }
    libxl__loop_free(loop);
}

static void t_epoch_plan_repeats_until_interrupted(void **state)
{
    fail_at = 0;
    run_turns(8);
    assert_string_equal(story, "stabababuv");
    assert_int_equal(result, ERROR_ABORTED); /* the first one is kept */
    assert_int_equal(ep.round, 4);           /* setup counts as a round */
}

static void t_epoch_error_at_every_step_undoes_once(void **state)
{
    for (fail_at = 1; fail_at <= 6; fail_at++) {
        run_turns(100);
        assert_int_equal(result, ERROR_FAIL);
        assert_memory_equal(story, "stabab", (size_t)fail_at);
        assert_string_equal(story + fail_at, "uv");
    }
    fail_at = 0;
}

static void t_epoch_stuck_step_ends_at_its_limit(void **state)
{
    stuck = 'a';
    run_turns(100);
    assert_string_equal(story, "stauv");
    assert_int_equal(result, ERROR_TIMEDOUT);
    stuck = 0;
}

static void t_epoch_stuck_undo_step_does_not_stop_undo(void **state)
{
    fail_at = 3;
    stuck = 'u';
    run_turns(100);
    assert_string_equal(story, "stauv");
    assert_int_equal(result, ERROR_FAIL);
    stuck = 0;
    fail_at = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_epoch_plan_repeats_until_interrupted),
        cmocka_unit_test(t_epoch_error_at_every_step_undoes_once),
        cmocka_unit_test(t_epoch_stuck_step_ends_at_its_limit),
        cmocka_unit_test(t_epoch_stuck_undo_step_does_not_stop_undo),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
