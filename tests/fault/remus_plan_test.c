/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The Remus plan against a world that fails: the n-th call, for every n; the peer lost, the helper killed, the guest
 * powered off, an abort, at every turn of the loop. Everything under the plan is a fake here (fault_world.c); epoch driver and plans are the
 * real ones, the clock is fake.
 *
 * Demanded each time: completion once; no output before its acknowledgement; the guest runs on exactly the side that
 * the rule allows, not behind a plug, or is paused behind a closed one; nothing open is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault_stubs.h"
#include "fault_world.h"

enum what {
    NOTHING,
    CALL_FAILS,
    PEER_LOST,
    HELPER_DIES,
    GUEST_ENDS,
    USER_ABORTS,
    DISKS_LOST,
    GIVES_UP,
    VCPUS_CHANGE,
    NIC_ATTACHED,
    CD_CHANGED
};

static const char *const names[] = {
    "nothing",    "the n-th call fails", "peer lost",    "helper dies", "guest ends", "user aborts",
    "disks lost", "backup gives up",     "vcpus change", "NIC comes",   "CD changes"};

static void judge(enum what what, int n, const struct world_setup *s)
{
    struct world *w = &world;
    bool may_run_there = w->backup_has_checkpoint && !w->twin_dropped;

    if (w->completions != 1) fail_msg("%s, n = %d: %d completions", names[what], n, w->completions);
    if (w->early_output) fail_msg("%s, n = %d: output before its acknowledgement", names[what], n);
    if (w->open_things) fail_msg("%s, n = %d: %d things left open", names[what], n, w->open_things);
    if (w->early_barrier) fail_msg("%s, n = %d: barrier or commit out of order", names[what], n);
    if (w->unasked_answer)
        fail_msg("%s, n = %d: an answer to a helper that did not ask", names[what], n);
    if (w->qemu_aborted)
        fail_msg("%s, n = %d: QEMU was told to end a dirty log that it did not keep", names[what],
                 n);
    if (w->disks_unprotected && w->denied)
        fail_msg("%s, n = %d: disks go on where the guest may not", names[what], n);
    if (w->disks_protected && !w->disks_unprotected && !w->denied)
        fail_msg("%s, n = %d: disks are still protected", names[what], n);
    if (w->guest == GUEST_IS_ENDED) {
        if (s->destroyed && w->plug != PLUG_NONE && !w->teardown_failed)
            fail_msg("%s, n = %d: plug of a destroyed guest left", names[what], n);
        return;
    }
    if (w->guest == GUEST_IS_PAUSED) {
        if (w->twin_dropped)
            fail_msg("%s, n = %d: paused, but its twin is dropped", names[what], n);
        if (w->plug == PLUG_NONE && w->netbuf_wanted)
            fail_msg("%s, n = %d: paused with open output", names[what], n);
        if (!w->denied) fail_msg("%s, n = %d: paused although it may run", names[what], n);
        return;
    }
    if (w->guest != GUEST_IS_RUNNING || w->vm_stopped)
        fail_msg("%s, n = %d: the guest does not run (state %d, QEMU %s)", names[what], n, w->guest,
                 w->vm_stopped ? "stopped" : "runs");
    if (w->suspends_unseen)
        fail_msg("%s, n = %d: it will suspend, and nobody will wake it", names[what], n);
    if (w->plug != PLUG_NONE && !w->teardown_failed)
        fail_msg("%s, n = %d: plug left", names[what], n);
    if (w->qemu_log && !w->qmp_failed)
        fail_msg("%s, n = %d: QEMU's dirty log left", names[what], n);
    if (may_run_there && s->rule_backup && !w->granted)
        fail_msg("%s, n = %d: both sides may run", names[what], n);
}

/* Runs one protection; returns how many fallible calls (or turns) it took. */
static int run(enum what what, int n, const struct world_setup *setup)
{
    world_start(setup);
    world.fail_call = what == CALL_FAILS ? n : 0;
    for (int turn = 1; !world.completions; turn++) {
        assert_true(turn < 5000);
        if (turn == n) {
            if (what == PEER_LOST)
                world_lose_peer();
            else if (what == HELPER_DIES)
                world_kill_helper();
            else if (what == GUEST_ENDS)
                world_end_guest();
            else if (what == USER_ABORTS)
                world_abort();
            else if (what == DISKS_LOST)
                world_lose_disks();
            else if (what == GIVES_UP)
                world_backup_gives_up();
            else if (what == VCPUS_CHANGE)
                stub_set_vcpus(2);
            else if (what == NIC_ATTACHED)
                stub_attach("vif/1", "another");
            else if (what == CD_CHANGED)
                stub_touch_devices();
        }
        world.turns = turn;
        world_turn();
    }
    judge(what, n, setup);
    world_end();
    return what == CALL_FAILS ? world.calls : world.turns;
}

static void sweep(enum what what, struct world_setup setup)
{
    int most = run(NOTHING, 0, &setup), n;

    if (what == CALL_FAILS) most = world.calls;
    for (n = 1; n <= most; n++)
        run(what, n, &setup);
}

static void every_guest_and_rule(enum what what)
{
    for (int hvm = 0; hvm < 2; hvm++)
        for (int rule = 0; rule < 2; rule++)
            for (int netbuf = 0; netbuf < 2; netbuf++)
                for (int disks = 0; disks < 2; disks++)
                    sweep(what, (struct world_setup){hvm, rule, netbuf, disks, 4});
}

static void t_remus_plain_run_releases_every_epoch(void **state)
{
    struct world_setup s = {false, false, true, true, 5};

    run(NOTHING, 0, &s);
    assert_int_equal(world.result, 0);
    assert_int_equal(world.acked, 5);
    assert_int_equal(world.released, 5);
}

static void t_remus_nth_call_fails_guest_goes_on(void **state)
{
    every_guest_and_rule(CALL_FAILS);
}

static void t_remus_peer_lost_at_any_turn_one_side_runs(void **state)
{
    every_guest_and_rule(PEER_LOST);
}

static void t_remus_helper_killed_at_any_turn_guest_goes_on(void **state)
{
    every_guest_and_rule(HELPER_DIES);
}

static void t_remus_guest_ends_at_any_turn_no_twin(void **state)
{
    every_guest_and_rule(GUEST_ENDS);
}

static void t_remus_abort_at_any_turn_ends_gracefully(void **state)
{
    every_guest_and_rule(USER_ABORTS);
}

static void t_remus_disks_lost_at_any_turn_guest_goes_on(void **state)
{
    every_guest_and_rule(DISKS_LOST);
}

static void t_remus_backup_gives_up_at_any_turn_guest_goes_on(void **state)
{
    every_guest_and_rule(GIVES_UP);
}

/* The twin's QEMU could not read the state of one with other CPUs. */
static void t_remus_vcpus_of_hvm_change_ends_the_protection(void **state)
{
    struct world_setup s = {true, false, true, false, 5};

    every_guest_and_rule(VCPUS_CHANGE);
    run(VCPUS_CHANGE, run(NOTHING, 0, &s) / 2, &s);
    assert_int_equal(world.result, ERROR_FAIL);
    assert_true(world.acked < 5 && world.twin_dropped);
    /* Before the first checkpoint, too: the disks may take hours. */
    for (int turn = 4; turn < 14; turn++) {
        run(VCPUS_CHANGE, turn, &s);
        assert_int_equal(world.result, ERROR_FAIL);
        assert_int_equal(world.acked, 0);
    }
    s.hvm = false;
    run(VCPUS_CHANGE, run(NOTHING, 0, &s) / 2, &s);
    assert_int_equal(world.result, 0);
    assert_int_equal(world.acked, 5);
}

/* Its output would not be held. */
static void t_remus_nic_attached_ends_the_protection(void **state)
{
    struct world_setup s = {true, false, true, false, 5};

    every_guest_and_rule(NIC_ATTACHED);
    run(NIC_ATTACHED, run(NOTHING, 0, &s) / 2, &s);
    assert_int_equal(world.result, ERROR_FAIL);
    assert_true(world.acked < 5 && world.twin_dropped);
    run(CD_CHANGED, run(NOTHING, 0, &s) / 2, &s);
    assert_int_equal(world.result, 0);
    assert_int_equal(world.acked, 5);
}

/* Until what was done at checkpoint 2 ends the protection, or it ends by itself. */
static void go_on_until_the_end(void (*at_2)(int turns_later))
{
    struct world_setup s = {false, false, true, false, 100};
    int since = 0;

    world_start(&s);
    for (int turn = 1; !world.completions; turn++) {
        assert_true(turn < 5000);
        if (world.acked >= 2) at_2(since++);
        world_turn();
    }
    assert_int_equal(world.open_things, 0);
    assert_int_equal(world.plug, PLUG_NONE);
    world_end();
}

static void nic_again(int since)
{
    if (since == 0) stub_detach("vif/0");
    if (since == 4) stub_attach("vif/0", "the backend");
}
static void disk_again(int since)
{
    if (since == 0) stub_detach("vbd/5632");
    if (since == 4) stub_attach("vbd/5632", "of the CD");
}
static void disk_elsewhere(int since)
{
    if (since) return;
    stub_detach("vbd/5632");
    stub_attach("vbd/5632", "of a writable disk");
}
static void other_interface(int since)
{
    if (!since) stub_set_interface(4); /* nothing was seen in between */
}
static void pci_comes(int since)
{
    if (!since) stub_attach("pci/0", "pciback");
}
static void nic_goes(int since)
{
    if (!since) stub_detach("vif/0");
}
static void guest_is_destroyed(int since)
{
    if (since == 0) stub_set_interface(0);
    if (since == 1) stub_detach("vbd/5632");
    if (since == 3) stub_detach("vif/0");
    if (since == 5) world_end_guest();
}

static void t_remus_other_devices_than_at_the_start_end_it(void **state)
{
    void (*const at_once[])(int) = {nic_again, disk_again, disk_elsewhere, other_interface,
                                    pci_comes};

    for (size_t i = 0; i < sizeof(at_once) / sizeof(at_once[0]); i++) {
        go_on_until_the_end(at_once[i]);
        assert_int_equal(world.result, ERROR_FAIL);
        assert_true(world.acked < 5 && world.twin_dropped);
    }
    go_on_until_the_end(nic_goes);
    assert_int_equal(world.result, ERROR_FAIL);
    assert_true(world.acked < 100 && world.twin_dropped);
}

/* xl destroy takes the devices away first. */
static void t_remus_guest_destroyed_is_no_lost_device(void **state)
{
    go_on_until_the_end(guest_is_destroyed);
    assert_int_equal(world.result, ERROR_DOMAIN_DESTROYED);
}

/* Its twin may run: what is held stays held, also when nothing more is heard of us. */
static void t_remus_guest_held_by_an_earlier_one_is_left_alone(void **state)
{
    for (int netbuf = 0; netbuf < 2; netbuf++) {
        struct world_setup s = {true, true, netbuf, false, 4, .undecided = true};

        world_start(&s);
        for (int turn = 1; !world.completions; turn++) {
            assert_true(turn < 100);
            world_turn();
        }
        assert_int_equal(world.result, ERROR_INVAL);
        assert_int_equal(world.plug, PLUG_CLOSED);
        assert_int_equal(world.guest, GUEST_IS_RUNNING);
        assert_int_equal(world.guards, 0);
        assert_int_equal(world.open_things, 0);
        assert_false(world.backup_has_checkpoint);
        world_end();
    }
}

/* It stands still since somebody else copies it: neither is it resumed nor is the other one's log ended. */
static void t_remus_refused_start_leaves_a_suspended_guest_alone(void **state)
{
    for (int locked = 0; locked < 2; locked++) {
        struct world_setup s = {false, false, true, false, 4, .undecided = !locked};

        world_start(&s);
        world.guest = GUEST_IS_SUSPENDED;
        world.fail_call = locked; /* the first one is the control socket's lock */
        for (int turn = 1; !world.completions; turn++) {
            assert_true(turn < 100);
            world_turn();
        }
        assert_int_not_equal(world.result, 0);
        assert_int_equal(world.guest, GUEST_IS_SUSPENDED);
        assert_int_equal(world.resumes + world.log_ends, 0);
        world_end();
    }
}

static void t_remus_guest_destroyed_as_the_peer_is_lost_leaves_no_plug(void **state)
{
    struct world_setup s = {false, true, true, false, 100, .destroyed = true};

    sweep(GUEST_ENDS, s);
    world_start(&s);
    for (int turn = 1; !world.completions; turn++) {
        assert_true(turn < 5000);
        if (world.acked == 2 && world.guest != GUEST_IS_ENDED) {
            world_end_guest();
            world_lose_peer();
        }
        world_turn();
    }
    judge(GUEST_ENDS, 2, &s);
    assert_int_equal(world.result, ERROR_LOCK_FAIL);
    world_end();
}

/* A protection lasts for months: nothing of a checkpoint or a question may be kept. */
static void t_remus_checkpoints_and_status_keep_no_memory(void **state)
{
    struct world_setup s = {true, false, true, true, 60};
    size_t kept = 0;
    int seen = 0;

    world_start(&s);
    for (int turn = 1; !world.completions; turn++) {
        assert_true(turn < 5000);
        world_ask_status();
        if (world.acked == 2) kept = world_allocations();
        if (world.acked > 2 && world.acked < 60) {
            assert_int_equal(world_allocations(), kept);
            seen++;
        }
        world_turn();
    }
    assert_true(seen > 50);
    world_end();
}

/* The helper asks to end the dirty log, leaves or is killed in every order with what the plan does, while QEMU is slow. */
static void t_remus_dirty_log_is_ended_once(void **state)
{
    static const enum what ends[] = {PEER_LOST, GIVES_UP, USER_ABORTS, HELPER_DIES};
    struct world_setup s = {.hvm = true, .netbuf = true, .checkpoints = 2};
    unsigned combinations = 8 * 6 * 3 * 3;

    for (unsigned c = 0; c < combinations; c++) {
        s.look_turns = (int)(c % 8);
        s.log_turns = (int)(c / 8 % 6);
        s.leave_turns = (int)(c / 48 % 3);
        s.grace_turns = (int)(c / 144) * 4;
        for (int i = 0; i < 4; i++)
            sweep(ends[i], s);
    }
}

/* A hotplug script hangs there: STOPPED comes when nobody waits for it any more. The end was on purpose all the same. */
static void t_remus_slow_drop_does_not_stop_the_guest(void **state)
{
    for (int c = 0; c < 8; c++) {
        struct world_setup s = {.hvm = c & 1,
                                .rule_backup = c & 2,
                                .netbuf = c & 4,
                                .checkpoints = 3,
                                .drop_ms = 80000};

        run(NOTHING, 0, &s);
        assert_int_equal(world.result, 0);
        assert_true(world.guest == GUEST_IS_RUNNING);
        sweep(USER_ABORTS, s);
        sweep(PEER_LOST, s);
        sweep(GUEST_ENDS, s);
    }
}

/* It takes the request and is slow, and meanwhile the protection ends in every way. */
static void t_remus_late_suspend_is_resumed(void **state)
{
    static const int late_ms[] = {1000, 15000, 25000, 45000, 65000};

    for (int c = 0; c < 8 * 5; c++) {
        struct world_setup s = {.hvm = c & 1,
                                .rule_backup = c & 2,
                                .netbuf = c & 4,
                                .checkpoints = 3,
                                .late_suspend = 2,
                                .late_ms = late_ms[c / 8]};

        for (enum what what = PEER_LOST; what <= VCPUS_CHANGE; what++)
            for (int n = 1; n < 1400; n += 1 + n / 8)
                run(what, n, &s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_remus_plain_run_releases_every_epoch),
        cmocka_unit_test(t_remus_nth_call_fails_guest_goes_on),
        cmocka_unit_test(t_remus_peer_lost_at_any_turn_one_side_runs),
        cmocka_unit_test(t_remus_helper_killed_at_any_turn_guest_goes_on),
        cmocka_unit_test(t_remus_guest_ends_at_any_turn_no_twin),
        cmocka_unit_test(t_remus_abort_at_any_turn_ends_gracefully),
        cmocka_unit_test(t_remus_backup_gives_up_at_any_turn_guest_goes_on),
        cmocka_unit_test(t_remus_disks_lost_at_any_turn_guest_goes_on),
        cmocka_unit_test(t_remus_vcpus_of_hvm_change_ends_the_protection),
        cmocka_unit_test(t_remus_nic_attached_ends_the_protection),
        cmocka_unit_test(t_remus_other_devices_than_at_the_start_end_it),
        cmocka_unit_test(t_remus_guest_destroyed_is_no_lost_device),
        cmocka_unit_test(t_remus_guest_held_by_an_earlier_one_is_left_alone),
        cmocka_unit_test(t_remus_refused_start_leaves_a_suspended_guest_alone),
        cmocka_unit_test(t_remus_guest_destroyed_as_the_peer_is_lost_leaves_no_plug),
        cmocka_unit_test(t_remus_checkpoints_and_status_keep_no_memory),
        cmocka_unit_test(t_remus_dirty_log_is_ended_once),
        cmocka_unit_test(t_remus_late_suspend_is_resumed),
        cmocka_unit_test(t_remus_slow_drop_does_not_stop_the_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
