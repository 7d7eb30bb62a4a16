/* SPDX-License-Identifier: LGPL-2.1-only */
/* The twin of a guest with two replicated disks: memory and disks are committed, promoted and dropped as one. */
#include "twin_fixture.h"
#include "disk_fixture.h"

static struct fake_disk disks[2];
static const char *const names[] = {"xvda", "xvdb"};

static int setup_disks(void **state)
{
    struct fixture *f;

    setup(state);
    f = *state;
    unsetenv("XENTWIN_RUNDIR");
    for (int i = 0; i < 2; i++)
        fake_disk_start(&disks[i], f->loop, f->dir, names[i]);
    f->twin.disks = names;
    f->twin.num_disks = 2;
    return 0;
}

static int teardown_disks(void **state)
{
    struct fixture *f = *state;

    libxl__channel_dispose(&f->p);
    libxl__twin_dispose(&f->twin);
    for (int i = 0; i < 2; i++)
        fake_disk_stop(&disks[i]);
    return teardown(state);
}

static void barriers(unsigned n)
{
    char event[40];

    snprintf(event, sizeof(event), "event barrier %u", n);
    for (int i = 0; i < 2; i++)
        fake_disk_send(&disks[i], event);
}

static bool asked(int i, const char *request)
{
    return strstr(disks[i].said, request) != NULL;
}

static void protect_disks(struct fixture *f, unsigned checkpoints)
{
    start(f);
    while (f->sent < checkpoints) {
        send_checkpoint(f);
        RUN_UNTIL(f, disks[0].client_fd >= 0 && disks[1].client_fd >= 0);
        barriers(f->sent);
        RUN_UNTIL(f, f->acked == f->sent);
    }
}

static void stop(struct fixture *f)
{
    libxl__channel_send(&f->p, CHANNEL_STOP, f->acked, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_disks_ack_waits_for_every_barrier_and_commit(void **state)
{
    struct fixture *f = *state;

    start(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.commit_n == 1);
    turns(f, 20);
    fake_disk_send(&disks[0], "event barrier 1");
    turns(f, 20);
    assert_int_equal(f->acked, 0);
    assert_false(asked(0, "commit"));
    disks[1].mute = true;
    fake_disk_send(&disks[1], "event barrier 1");
    RUN_UNTIL(f, asked(0, "commit 1;") && asked(1, "commit 1;"));
    turns(f, 20);
    assert_int_equal(f->acked, 0);
    fake_disk_send(&disks[1], "ok");
    RUN_UNTIL(f, f->acked == 1);
    disks[1].mute = false;
    stop(f);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    RUN_UNTIL(f, asked(0, "drop;stop;") && asked(1, "drop;stop;"));
}

/* Both disks were asked, and the first one does not answer yet. */
static void promote_a_slow_disk(struct fixture *f)
{
    protect_disks(f, 2);
    disks[0].mute = true;
    cut_link(f);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, asked(0, "promote 2;") && asked(1, "promote 2;"));
}

static void t_twin_disks_promoted_before_the_guest(void **state)
{
    struct fixture *f = *state;

    promote_a_slow_disk(f);
    turns(f, 20);
    assert_false(noted(f, "running"));
    fake_disk_send(&disks[0], "ok generation=2");
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
    assert_false(asked(0, "drop"));
}

/* An instance that still applies what is committed is well, only slow. */
static void t_twin_disks_slow_promotion_is_waited_for(void **state)
{
    struct fixture *f = *state;

    promote_a_slow_disk(f);
    f->now_ms += 600000;
    turns(f, 20);
    assert_false(f->finished);
    assert_null(strstr(f->told, "in time"));
    f->now_ms += 1300000;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_non_null(
        strstr(f->told, "its disks were not ready in time; 'xentwin-disk stop guest VDEV'"));
}

static void t_twin_disks_late_barrier_promotes_the_one_before(void **state)
{
    struct fixture *f = *state;

    protect_disks(f, 1);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.commit_n == 2);
    fake_disk_send(&disks[0], "event barrier 2");
    turns(f, 20);
    cut_link(f);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_true(asked(0, "promote 1;") && asked(1, "promote 1;"));
    assert_false(asked(0, "commit 2"));
    assert_child_got(f, 1);
}

static void t_twin_disks_barrier_after_the_link_was_lost_changes_nothing(void **state)
{
    struct fixture *f = *state;

    protect_disks(f, 1);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.commit_n == 2);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    barriers(2);
    turns(f, 20);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_true(asked(0, "promote 1;"));
    assert_child_got(f, 1);
}

static void t_twin_disks_refuse_promotion_guest_stays_down(void **state)
{
    struct fixture *f = *state;

    protect_disks(f, 1);
    disks[1].refused = "promote";
    cut_link(f);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(noted(f, "running"));
    assert_non_null(strstr(f->told, "disk xvdb: it is refused"));
}

static void t_twin_disks_instance_dies_primary_is_told(void **state)
{
    struct fixture *f = *state;

    protect_disks(f, 1);
    fake_disk_close(&disks[0]);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_non_null(strstr(f->error, "disk xvda: its instance ended"));
}

static void t_twin_disks_no_instance_gives_up(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(unlink(disks[1].path), 0);
    start(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_non_null(strstr(f->error, "disk xvdb: there is no instance"));
    assert_int_equal(f->acked, 0);
    /* The other disk's instance does not stay behind. */
    RUN_UNTIL(f, asked(0, "drop;stop;"));
}

#define TD(name) cmocka_unit_test_setup_teardown(name, setup_disks, teardown_disks)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TD(t_twin_disks_ack_waits_for_every_barrier_and_commit),
        TD(t_twin_disks_promoted_before_the_guest),
        TD(t_twin_disks_slow_promotion_is_waited_for),
        TD(t_twin_disks_late_barrier_promotes_the_one_before),
        TD(t_twin_disks_barrier_after_the_link_was_lost_changes_nothing),
        TD(t_twin_disks_refuse_promotion_guest_stays_down),
        TD(t_twin_disks_instance_dies_primary_is_told),
        TD(t_twin_disks_no_instance_gives_up),
    };

    if (argc > 1 && getenv("FAKE_XL_DIR")) return fake_xl_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
