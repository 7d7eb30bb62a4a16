/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The warm twin: the child gets checkpoint 1 alone, xentwin-apply what comes later. The test program is both, see
 * fake_apply_main.
 */
#include "twin_fixture.h"

/* ---- the fake xentwin-apply ---- */

static bool apply_mode(const char *mode)
{
    return getenv("FAKE_APPLY_MODE") && !strcmp(getenv("FAKE_APPLY_MODE"), mode);
}

/* true once per test. */
static bool first_time(void)
{
    int fd = open(fake_file("once"), O_WRONLY | O_CREAT | O_EXCL, 0600);

    if (fd >= 0) close(fd);
    return fd >= 0;
}

static bool fake_answer(uint32_t kind, uint64_t n)
{
    struct apply_answer a = {.kind = kind, .n = n};

    return write(1, &a, sizeof(a)) == sizeof(a);
}

/* What it applied is in the file "applied": all or nothing of a message. */
static bool fake_apply(const struct apply_head *head)
{
    unsigned char *body = malloc(head->len);
    int null = open("/dev/null", O_WRONLY), out;
    int marks = open(fake_file("again"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    bool marked = write(marks, head->again ? "1" : "0", 1) == 1 && !close(marks);
    bool ok = marked && fake_take(body, apply_mode("die") ? head->len / 2 : head->len, null);

    if (apply_mode("die") || (apply_mode("die-once") && first_time())) _exit(1);
    if (apply_mode("mute")) pause();
    out = open(fake_file("applied"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ok = ok && write(out, body, head->len) == (ssize_t)head->len;
    close(out);
    close(null);
    free(body);
    return ok && fake_answer(APPLY_APPLIED, head->n);
}

static int fake_go(const struct apply_head *head)
{
    unsigned char state[4096];
    int out = open(fake_file("state"), O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (head->len > sizeof(state) || !fake_take(state, head->len, out)) return 1;
    if (apply_mode("die-at-go") && first_time()) return 1;
    fake_note("go");
    return fake_answer(APPLY_GONE, head->n) ? 0 : 1;
}

static int fake_apply_main(void)
{
    int null = open("/dev/null", O_WRONLY);
    struct apply_head head;

    fake_note("applier");
    fprintf(stderr, "a line for the log\n");
    if (apply_mode("no-domain")) return APPLY_EXIT_NO_DOMAIN;
    while (fake_take(&head, sizeof(head), null)) {
        if (head.kind == APPLY_GO) return fake_go(&head);
        if (apply_mode("liar")) head.n++;
        if (head.kind == APPLY_OPEN ? !fake_answer(APPLY_READY, head.n) : !fake_apply(&head))
            return 1;
    }
    fake_note("applier: end of input");
    return 0;
}

/* ---- tools ---- */

static int setup_warm(void **state)
{
    struct fixture *f;

    setup(state);
    f = *state;
    f->twin.apply = f->self;
    unsetenv("FAKE_APPLY_MODE");
    return 0;
}

/* The libxc records of checkpoints 2..n. */
static void put_later(struct bytes *b, const struct fixture *f, unsigned n)
{
    size_t pos = checkpoint_end(f->stream.p, f->stream.n, 1), size;
    size_t end = checkpoint_end(f->stream.p, f->stream.n, n);
    uint32_t head[2];
    bool xl = false;

    for (; pos < end; pos += size) {
        memcpy(head, f->stream.p + pos, 8);
        size = 8 + (((size_t)head[1] + 7) & ~(size_t)7);
        if (!xl && head[0] != 0xe) put(b, f->stream.p + pos, size);
        if (head[0] == 0xe) xl = true;
        if (xl && head[0] == 4) xl = false;
    }
}

static void assert_applied(struct fixture *f, unsigned n)
{
    struct bytes got = {0}, want = {0};

    read_file(f, "applied", &got);
    put_later(&want, f, n);
    assert_int_equal(got.n, want.n);
    if (want.n) assert_memory_equal(got.p, want.p, want.n);
    free(got.p);
    free(want.p);
}

/* Which DATA were marked as those that another process may have begun with: these, and no more. */
static void assert_marks(struct fixture *f, const char *marks)
{
    struct bytes got = {0};

    read_file(f, "again", &got);
    assert_true(got.n >= strlen(marks));
    assert_memory_equal(got.p, marks, strlen(marks));
    assert_null(memchr(got.p + strlen(marks), '1', got.n - strlen(marks)));
    free(got.p);
}

static void lose_primary(struct fixture *f)
{
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
}

static void assert_promoted(struct fixture *f, unsigned n)
{
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 1);
    assert_applied(f, n);
    assert_true(noted(f, "go\nrunning"));
}

static void assert_failed(struct fixture *f, const char *why)
{
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(noted(f, "running"));
    if (!strstr(f->told, why)) fail_msg("told '%s', not '%s'", f->told, why);
}

/* ---- the way up ---- */

static void t_warm_promotes_what_was_applied(void **state)
{
    struct fixture *f = *state;

    protect(f, 3);
    RUN_UNTIL(f, f->twin.complete);
    lose_primary(f);
    assert_promoted(f, 3);
    assert_marks(f, "0");
    assert_false(noted(f, "end of input"));
}

static void t_warm_promotes_checkpoint_1_alone(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    lose_primary(f);
    assert_promoted(f, 1);
}

static void t_warm_cut_in_a_checkpoint_promotes_the_one_before(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    RUN_UNTIL(f, f->twin.complete);
    send_part(f, 5000, false);
    turns(f, 20);
    lose_primary(f);
    assert_promoted(f, 2);
}

static void t_warm_device_model_gets_the_last_state(void **state)
{
    struct fixture *f = *state;
    struct bytes got = {0};
    unsigned char want[21];

    f->twin.device_model = true;
    protect(f, 3);
    lose_primary(f);
    assert_promoted(f, 3);
    read_file(f, "state", &got);
    memset(want, 3, sizeof(want));
    assert_int_equal(got.n, sizeof(want));
    assert_memory_equal(got.p, want, sizeof(want));
    free(got.p);
}

static void t_warm_acknowledges_while_the_domain_is_completed(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "late", 1);
    protect(f, 3);
    assert_false(f->twin.complete);
    assert_applied(f, 1);
    lose_primary(f);
    RUN_UNTIL(f, f->twin.state == TWIN_PROMOTING);
    turns(f, 20);
    assert_false(noted(f, "go"));
    write_file(f, "go", "");
    assert_promoted(f, 3);
}

static void t_warm_ack_waits_until_the_one_before_is_applied(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_APPLY_MODE", "mute", 1);
    protect(f, 1);
    RUN_UNTIL(f, f->twin.complete && f->twin.warm.ready);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 2);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.stream.committed == 3);
    turns(f, 50);
    assert_int_equal(f->acked, 2);
    /* It is killed, and the next one gets the same again. */
    setenv("FAKE_APPLY_MODE", "good", 1);
    assert_int_equal(kill(f->twin.warm.child.pid, SIGKILL), 0);
    RUN_UNTIL(f, f->acked == 3);
    lose_primary(f);
    assert_promoted(f, 3);
}

/* ---- memory given and taken meanwhile ---- */

static void protect_with_memory(struct fixture *f, uint64_t kb)
{
    protect(f, 2);
    assert_int_equal(libxl__channel_send(&f->p, CHANNEL_MEMORY, kb, NULL, 0), 0);
    RUN_UNTIL(f, f->twin.target_kb == kb);
    lose_primary(f);
}

static void t_warm_guest_gets_the_memory_it_was_given(void **state)
{
    struct fixture *f = *state;

    protect_with_memory(f, 65536);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_true(noted(f, "go\nmem-set guest--incoming 65536k\nrunning"));
}

static void t_warm_memory_of_the_configuration_is_not_set_again(void **state)
{
    struct fixture *f = *state;

    protect_with_memory(f, 98304);
    assert_promoted(f, 2);
    assert_false(noted(f, "mem-set"));
}

static void t_warm_memory_that_cannot_be_set_stops_no_guest(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "no-memory", 1);
    protect_with_memory(f, 1ull << 50);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_non_null(strstr(f->told, "see xl mem-set"));
}

static void t_warm_memory_set_too_slowly_does_not_hold_the_guest(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "slow-memory", 1);
    protect_with_memory(f, 65536);
    RUN_UNTIL(f, noted(f, "mem-set"));
    f->now_ms += 10000;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_true(noted(f, "running"));
}

static void t_warm_receiver_that_dies_while_memory_is_set_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "slow-memory", 1);
    protect_with_memory(f, 65536);
    RUN_UNTIL(f, noted(f, "mem-set"));
    assert_int_equal(kill(f->twin.child.child.pid, SIGKILL), 0);
    RUN_UNTIL(f, f->twin.state == TWIN_DROPPING);
    write_file(f, "go", "");
    assert_failed(f, "killed by signal 9");
}

static void t_cold_guest_gets_the_memory_it_was_given(void **state)
{
    struct fixture *f = *state;

    f->twin.apply = NULL;
    protect_with_memory(f, 65536);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_true(noted(f, "mem-set guest--incoming 65536k\nrunning"));
}

/* ---- the applier dies ---- */

static void t_warm_applier_that_dies_once_is_started_again(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_APPLY_MODE", "die-once", 1);
    protect(f, 3);
    lose_primary(f);
    assert_promoted(f, 3);
    assert_int_equal(f->twin.warm.starts_in_vain, 0); /* what was applied counts */
    assert_marks(f, "01");
}

static void t_warm_applier_that_dies_at_go_is_started_again(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_APPLY_MODE", "die-at-go", 1);
    protect(f, 2);
    lose_primary(f);
    assert_promoted(f, 2);
}

static void t_warm_applier_killed_while_idle_is_started_again(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    RUN_UNTIL(f, f->twin.complete && f->twin.warm.ready);
    assert_int_equal(kill(f->twin.warm.child.pid, SIGKILL), 0);
    RUN_UNTIL(f, !f->twin.warm.ready);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 3);
    lose_primary(f);
    assert_promoted(f, 3);
}

static void t_warm_applier_that_always_dies_ends_the_protection(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_APPLY_MODE", "die", 1);
    protect(f, 2);
    RUN_UNTIL(f, f->errored);
    assert_non_null(strstr(f->error, "cannot be applied"));
    assert_failed(f, "cannot be applied");
    assert_true(noted(f, "dropped at the end"));
}

static void t_warm_domain_gone_ends_the_protection(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_APPLY_MODE", "no-domain", 1);
    start(f);
    send_checkpoint(f);
    assert_failed(f, "guest--incoming is gone");
}

static void t_warm_answer_to_nothing_is_not_believed(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_APPLY_MODE", "liar", 1);
    start(f);
    send_checkpoint(f);
    assert_failed(f, "cannot be applied");
}

/* ---- the ways down ---- */

static void t_warm_stop_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    protect(f, 3);
    RUN_UNTIL(f, f->twin.complete);
    libxl__channel_send(&f->p, CHANNEL_STOP, 3, "end", 3);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    assert_false(libxl__twin_warm_alive(&f->twin.warm));
    assert_true(noted(f, "dropped at the end"));
    assert_false(noted(f, "running"));
}

static void t_warm_child_that_dies_ends_the_protection(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    RUN_UNTIL(f, f->twin.complete);
    assert_int_equal(kill(f->twin.child.child.pid, SIGKILL), 0);
    assert_failed(f, "killed by signal 9");
    assert_false(libxl__twin_warm_alive(&f->twin.warm));
}

static void t_warm_waits_for_the_administrator(void **state)
{
    struct fixture *f = *state;

    f->twin.c.rule = LINK_LOSS_PRIMARY;
    f->twin.with_control = true;
    protect(f, 2);
    lose_primary(f);
    RUN_UNTIL(f, f->twin.state == TWIN_WAITING);
    turns(f, 20);
    assert_false(noted(f, "go"));
    f->twin.admin_request = 0;
    ask_admin(f, "promote");
    f->twin.admin_request = 0; /* nobody waits for the reply */
    assert_promoted(f, 2);
}

/* ---- the stream ---- */

static void put_with_layout(struct bytes *b, int n, const char *layout, size_t len)
{
    static const unsigned char context[16] = {2};
    unsigned char rec[64] = {2};
    size_t end;

    put_checkpoint(b, n, 1, false);
    end = b->n - 8; /* CHECKPOINT_END */
    b->n = end;
    memcpy(rec + 8, layout, len);
    put_record(b, 2, rec, (uint32_t)(8 + len));
    put_record(b, 3, context, sizeof(context));
    put_record(b, 4, NULL, 0);
}

static int feed_checkpoint(libxl__twin_stream *ts, const struct bytes *b, size_t from, uint64_t n)
{
    size_t len = b->n - from;
    int rc = libxl__twin_stream_data(ts, n, b->p + from, len);

    return rc ? rc : libxl__twin_stream_commit(ts, n, len, XXH3_64bits(b->p + from, len));
}

static void t_stream_layout_of_the_device_model_must_not_change(void **state)
{
    static const char one[] = "physmap/1\0x", two[] = "physmap/2\0x";
    libxl__twin_stream ts;
    struct bytes b = {0};
    size_t at;

    assert_int_equal(libxl__twin_stream_init(&ts, HOLD), 0);
    put_stream_head(&b);
    put_with_layout(&b, 1, one, sizeof(one));
    assert_int_equal(feed_checkpoint(&ts, &b, 0, 1), 0);
    assert_int_equal(libxl__twin_stream_split(&ts), 0);
    at = b.n;
    put_with_layout(&b, 2, one, sizeof(one));
    assert_int_equal(feed_checkpoint(&ts, &b, at, 2), 0);
    at = b.n;
    put_with_layout(&b, 3, two, sizeof(two));
    assert_int_not_equal(feed_checkpoint(&ts, &b, at, 3), 0);
    assert_non_null(strstr(ts.why, "layout"));
    libxl__twin_stream_dispose(&ts);
    free(b.p);
}

#define W(name) cmocka_unit_test_setup_teardown(name, setup_warm, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        W(t_warm_promotes_what_was_applied),
        W(t_warm_promotes_checkpoint_1_alone),
        W(t_warm_cut_in_a_checkpoint_promotes_the_one_before),
        W(t_warm_device_model_gets_the_last_state),
        W(t_warm_acknowledges_while_the_domain_is_completed),
        W(t_warm_ack_waits_until_the_one_before_is_applied),
        W(t_warm_guest_gets_the_memory_it_was_given),
        W(t_warm_memory_of_the_configuration_is_not_set_again),
        W(t_warm_memory_that_cannot_be_set_stops_no_guest),
        W(t_warm_memory_set_too_slowly_does_not_hold_the_guest),
        W(t_warm_receiver_that_dies_while_memory_is_set_leaves_nothing),
        W(t_cold_guest_gets_the_memory_it_was_given),
        W(t_warm_applier_that_dies_once_is_started_again),
        W(t_warm_applier_that_dies_at_go_is_started_again),
        W(t_warm_applier_killed_while_idle_is_started_again),
        W(t_warm_applier_that_always_dies_ends_the_protection),
        W(t_warm_domain_gone_ends_the_protection),
        W(t_warm_answer_to_nothing_is_not_believed),
        W(t_warm_stop_leaves_nothing),
        W(t_warm_child_that_dies_ends_the_protection),
        W(t_warm_waits_for_the_administrator),
        cmocka_unit_test(t_stream_layout_of_the_device_model_must_not_change),
    };

    if (argc > 1 && getenv("FAKE_XL_DIR")) {
        if (!strcmp(argv[1], UUID) || !strcmp(argv[1], "--device-model")) return fake_apply_main();
        return fake_xl_main(argc, argv);
    }
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
