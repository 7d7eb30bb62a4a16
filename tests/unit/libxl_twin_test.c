/* SPDX-License-Identifier: LGPL-2.1-only */
/* The way up: acknowledgements, and promotion at the last committed checkpoint. */
#include "twin_fixture.h"

/* ---- the way up ---- */

static void t_twin_link_lost_rule_backup_promotes_last_checkpoint(void **state)
{
    struct fixture *f = *state;

    protect(f, 3);
    lose_link(f);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 3);
    assert_true(noted(f, "/our/helper"));
    assert_true(noted(f, "running"));
}

static void t_twin_link_lost_waits_for_the_limit(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS - 1;
    turns(f, 20);
    assert_int_equal(f->twin.state, TWIN_SILENT);
    assert_false(noted(f, "running"));
    f->now_ms += 1;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 1);
}

static void t_twin_silent_primary_is_lost_too(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    libxl__channel_dispose(&f->p); /* the socket stays open: no FIN ever comes */
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_living_primary_is_not_lost(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    pass(f, 5 * LIMIT_MS);
    assert_false(f->lost);
    assert_int_equal(f->twin.state, TWIN_PROTECTING);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 2);
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_cut_in_a_checkpoint_promotes_the_one_before(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    send_part(f, 5000, false);
    RUN_UNTIL(f, libxl__twin_stream_held(&f->twin.stream) > 4000);
    lose_link(f);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_whole_but_uncommitted_checkpoint_does_not_count(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    send_part(f, SIZE_MAX, false);
    RUN_UNTIL(f, libxl__twin_stream_held(&f->twin.stream) > 8192);
    turns(f, 5);
    lose_link(f);
    assert_child_got(f, 1);
}

/* ---- acknowledgement ---- */

static void t_twin_first_ack_waits_for_the_child(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "hold", 1);
    make_stream(&f->stream, 2, 2000, 2); /* 8 MB: more than a pipe holds */
    start(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.ack_due);
    turns(f, 50);
    assert_int_equal(f->acked, 0);
    assert_int_equal(f->twin.state, TWIN_COPYING);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->acked == 1);
    assert_int_equal(f->twin.state, TWIN_PROTECTING);
    libxl__channel_send(&f->p, CHANNEL_STOP, 1, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_first_copy_is_bounded_by_the_window(void **state)
{
    struct fixture *f = *state;
    uint64_t held;

    setenv("FAKE_XL_MODE", "hold", 1);
    f->stream.n = 0;
    put_stream_head(&f->stream);
    put_statics(&f->stream);
    for (int n = 0; n < 10; n++)
        put_pages(&f->stream, (uint64_t)n * 1000, 1000, n);
    put_contexts(&f->stream, 1, true);
    start(f);
    send_checkpoint(f);
    turns(f, 300);
    held = libxl__twin_stream_held(&f->twin.stream);
    assert_true(held > (8u << 20) && held < (20u << 20));
    write_file(f, "go", "");
    RUN_UNTIL(f, f->acked == 1);
    libxl__channel_send(&f->p, CHANNEL_STOP, 1, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_ack_waits_until_the_one_before_is_handed_on(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "pause", 1); /* it stops reading after checkpoint 1 */
    make_stream(&f->stream, 4, 1, 1000);
    protect(f, 2);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.stream.committed == 3);
    turns(f, 50);
    assert_int_equal(f->acked, 2);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->acked == 3);
    lose_link(f);
    assert_child_got(f, 3);
}

static void t_twin_commit_before_ack_is_refused(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "hold", 1);
    make_stream(&f->stream, 2, 2000, 2);
    start(f);
    send_checkpoint(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->errored);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(noted(f, "running"));
}

static void t_twin_wrong_checksum_gives_up(void **state)
{
    struct fixture *f = *state;
    size_t from, to;

    protect(f, 1);
    from = checkpoint_end(f->stream.p, f->stream.n, 1);
    to = checkpoint_end(f->stream.p, f->stream.n, 2);
    libxl__channel_send(&f->p, CHANNEL_DATA, 2, f->stream.p + from, to - from);
    libxl__channel_commit(&f->p, 2, to - from, 42);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_int_equal(f->acked, 1);
    assert_non_null(strstr(f->error, "checksum"));
    assert_true(noted(f, "dropped"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(t_twin_link_lost_rule_backup_promotes_last_checkpoint),
        T(t_twin_link_lost_waits_for_the_limit),
        T(t_twin_silent_primary_is_lost_too),
        T(t_twin_living_primary_is_not_lost),
        T(t_twin_cut_in_a_checkpoint_promotes_the_one_before),
        T(t_twin_whole_but_uncommitted_checkpoint_does_not_count),
        T(t_twin_first_ack_waits_for_the_child),
        T(t_twin_first_copy_is_bounded_by_the_window),
        T(t_twin_ack_waits_until_the_one_before_is_handed_on),
        T(t_twin_commit_before_ack_is_refused),
        T(t_twin_wrong_checksum_gives_up),
    };

    if (argc > 1 && getenv("FAKE_XL_DIR")) return fake_xl_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
