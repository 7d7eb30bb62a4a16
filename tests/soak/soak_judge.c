/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Was everything promised kept? The judge knows what the guest did, which frames left, what passed on the link, and what ran in
 * the end. It never asks the product.
 *
 *  1. A frame of epoch n leaves only after ACK n was delivered (docs/misc/architecture.md, 5.1), under a valid lease: a heartbeat
 *     that was sent less than a limit ago came back (5.2). The backup asks only after a limit of silence.
 *  2. None leaves after the copy runs, and the copy has everything that a frame could tell (5.2, 5.4).
 *  3. What the copy starts with is the guest at one suspend, whose COMMIT was delivered: every page, vcpu and device state (5.3).
 *     So are its disks, every one: checkpoint n is acknowledged only when each has counted n (5.9).
 *  4. A guest that ended, or whose protection was ended, is not started again (5.6).
 *  5. In the end it runs somewhere, unless the rule wants a person; within a bound; nothing is left behind (5.5, 5.8).
 */
#include <stdarg.h>
#include <string.h>

#include "libxl_channel.h"
#include "soak.h"

struct judge judge;

void judge_start(void)
{
    memset(&judge, 0, sizeof(judge));
    judge.fault_ms = judge.settled_ms = judge.promoted_ms = -1;
}

void judge_fail(const char *fmt, ...)
{
    va_list al;

    if (judge.failed) return;
    judge.failed = true;
    va_start(al, fmt);
    vsnprintf(judge.why, sizeof(judge.why), fmt, al);
    va_end(al);
    say("WRONG: %s", judge.why);
}

/* ---- while it runs ---- */

void judge_suspended(void)
{
    judge.suspends++;
    judge.counter_at[judge.suspends % CHECKPOINTS_MAX] = guest.counter;
}

void judge_opens(void)
{
    judge.opened = true;
    if (copy_runs) judge_fail("the primary opens its output while the copy runs");
}

void judge_frame_leaves(uint64_t seq, uint64_t epoch)
{
    if (!guest.here) return;
    if (seq > judge.released) judge.released = seq;
    if (epoch) judge.left_by_release++;
    if (copy_runs)
        judge_fail("frame %lu leaves the primary while the copy runs", (unsigned long)seq);
    if (epoch && host_clock_ms(0) - (int64_t)judge.echo >= setup.limit_ms)
        judge_fail("frame %lu leaves, the lease ended %lld ms ago", (unsigned long)seq,
                   (long long)(host_clock_ms(0) - (int64_t)judge.echo - setup.limit_ms));
    if (epoch > judge.ack_delivered)
        judge_fail("frame %lu of epoch %lu leaves, acknowledged is %lu", (unsigned long)seq,
                   (unsigned long)epoch, (unsigned long)judge.ack_delivered);
}

void judge_backup_reads(void)
{
    judge.last_byte_ms = host_clock_ms(1);
}

void judge_backup_asks(void)
{
    int64_t silence = host_clock_ms(1) - judge.last_byte_ms;

    if (silence < setup.limit_ms)
        judge_fail("the backup asks after %lld ms of silence", (long long)silence);
}

void judge_frame_on_link(bool to_backup, bool delivered, uint32_t type, uint64_t arg)
{
    if (type == CHANNEL_COMMIT && delivered) {
        judge.commit_delivered = arg;
        judge.open_at_commit = judge.domain_open;
        if (arg == 1) judge.first_commit_ms = host_clock_ms(1);
    } else if ((type == CHANNEL_STOP || (type == CHANNEL_ERROR && to_backup)) && delivered) {
        judge.stop_delivered = true;
    } else if (type == CHANNEL_ACK && !delivered) {
        judge.ack_sent = arg;
        if (setup.disks && disks_committed() < arg)
            judge_fail("ACK %lu is sent, a disk has committed %lu", (unsigned long)arg,
                       (unsigned long)disks_committed());
        if (judge.open_at_commit && judge.applied + 1 < arg)
            judge_fail("ACK %lu is sent, applied is %lu", (unsigned long)arg,
                       (unsigned long)judge.applied);
        if (arg > judge.commit_delivered)
            judge_fail("ACK %lu is sent, COMMIT %lu was delivered", (unsigned long)arg,
                       (unsigned long)judge.commit_delivered);
    } else if (type == CHANNEL_ACK) {
        judge.ack_delivered = arg;
    } else if (type == CHANNEL_ECHO && delivered) {
        judge.echo = arg;
    }
}

static bool is_committed_state(uint64_t counter)
{
    for (uint64_t n = judge.ack_sent; n <= judge.commit_delivered; n++)
        if (n && judge.counter_at[n % CHECKPOINTS_MAX] == counter) return true;
    return false;
}

static bool silence_is_possible(void)
{
    return setup.nr_faults || setup.slow_percent || judge.call_failed;
}

void judge_copy_runs(const uint64_t page[PAGES], uint64_t vcpu, uint64_t device)
{
    uint64_t want[PAGES];

    say("the copy runs, from count %lu", (unsigned long)vcpu);
    judge.promoted_ms = now_ms;
    memory_after(vcpu, want);
    judge_disks_of_copy(vcpu);
    if (judge.promoted) judge_fail("the copy is started twice");
    judge.promoted = true;
    if (vcpu != device)
        judge_fail("vcpu of count %lu, device state of %lu", (unsigned long)vcpu,
                   (unsigned long)device);
    for (unsigned i = 0; i < PAGES; i++)
        if (page[i] != want[i])
            judge_fail("page %u is of count %lu, expected %lu", i, (unsigned long)page[i],
                       (unsigned long)want[i]);
    if (!is_committed_state(vcpu))
        judge_fail("count %lu is none of the checkpoints %lu..%lu", (unsigned long)vcpu,
                   (unsigned long)judge.ack_sent, (unsigned long)judge.commit_delivered);
    if (guest_runs() && !guest.netbuf) judge_fail("both copies let output out");
    if (!silence_is_possible()) judge_fail("promoted without a reason");
    if (guest.ended || (setup.nr_faults == 1 && happened(USER_STOPS)))
        if (setup.nr_faults == 1 && !setup.slow_percent)
            judge_fail("promoted after an end on purpose");
    if (judge.admin_promoted) return; /* a person said that the primary's part may be forgotten */
    if (judge.opened) judge_fail("promoted after the primary has opened its output");
    if (judge.released > vcpu)
        judge_fail("frame %lu has left, the copy starts with count %lu",
                   (unsigned long)judge.released, (unsigned long)vcpu);
}

/* ---- at the end ---- */

static bool primary_is_dead(void)
{
    return happened(PRIMARY_HOST_DIES);
}

/* It cannot take over, and cannot say so. */
static bool backup_is_dumb(void)
{
    return happened(BACKUP_HOST_DIES) || happened(TWIN_KILLED) || happened(RECEIVER_CANNOT_START);
}

static bool backup_in_trouble(void)
{
    return backup_is_dumb() || happened(RECEIVER_KILLED) || happened(LINK_CORRUPTS_DATA);
}

/* What came when it had given the link up was not read any more. */
static bool backup_has_something(void)
{
    return judge.commit_delivered && judge.receiver_started &&
           judge.first_commit_ms <= judge.last_byte_ms && disks_told_by(judge.last_byte_ms);
}

/* It cannot start the copy; on a slow link the primary may not hear that any more. */
static bool copy_is_lost(void)
{
    return setup.slow_percent && (happened(APPLIER_CRASHES) || happened(COPY_DESTROYED));
}

/* Nobody runs: is that what the rule says, or too much for it? */
static bool may_wait(void)
{
    bool nobody_home = happened(GUARD_AND_XL_KILLED);

    if (guest.ended || setup.nr_faults - happened(APPLIER_KILLED) > 1) return true;
    if (setup.nr_faults && judge.call_failed) return true;
    if (judge.stop_delivered && (primary_is_dead() || nobody_home || setup.rule_backup))
        return true;
    if (setup.arbiter && (!setup.witness_for_primary || !setup.witness_for_backup)) return true;
    if (judge.refused_primary && judge.refused_backup) return true;
    if (judge.refused_backup && (primary_is_dead() || nobody_home)) return true;
    if (setup.arbiter && judge.refused_primary)
        if (backup_in_trouble() || !backup_has_something() || judge.call_failed) return true;
    if (setup.arbiter || setup.rule_backup) {
        /* The backup takes over if it has something and is well. */
        if (primary_is_dead() || nobody_home)
            return !backup_has_something() || backup_in_trouble() || !silence_is_possible();
        return copy_is_lost() || (!setup.arbiter && (!backup_has_something() || backup_is_dumb() ||
                                                     judge.call_failed));
    }
    return primary_is_dead() || nobody_home;
}

static void judge_primary(void)
{
    bool by_guard = happened(XL_KILLED) || happened(GUARD_AND_XL_KILLED);

    if (!guest.here) return;
    if (!helper_gone()) judge_fail("the helper is left");
    if (!guard_gone()) judge_fail("the guard is left");
    if (!by_guard && completions() != 1) judge_fail("%d completions", completions());
    if (guest.ended || happened(GUARD_AND_XL_KILLED) || (by_guard && happened(GUARD_KILLED)))
        return;
    if (guest.paused) {
        if (!guest.netbuf && judge.suspends) judge_fail("paused with open output");
        if (!by_guard && completion_result() != ERROR_LOCK_FAIL)
            judge_fail("paused, but the result is %d", completion_result());
        if (setup.nr_faults == happened(USER_STOPS) && !setup.slow_percent && !judge.call_failed)
            judge_fail("paused after an end on purpose");
        if (!judge.refused_primary && !setup.rule_backup && !setup.arbiter)
            judge_fail("paused although the rule lets the primary go on");
        return;
    }
    if (guest.suspended) judge_fail("the guest is left suspended");
    if (guest.netbuf && !guest.plug_left) judge_fail("the net buffer is left");
    if (guest.logdirty) judge_fail("log-dirty mode is left");
    if (guest.qemu_log && !guest.qemu_hangs) judge_fail("QEMU's dirty log is left");
    if (guest.qemu_stopped && !guest.qemu_hangs) judge_fail("QEMU is left stopped");
    if (!happened(DISK_STANDS_STILL) && !happened(DISK_REFUSES) && !judge.call_failed)
        judge_disks_of_primary();
}

/* Nobody is there to end the paused domain: the stock receiver leaves it, and so does a copy that may be the only one. */
static bool orphan(void)
{
    if (!happened(TWIN_KILLED)) return false;
    return setup.warm ? happened(APPLIER_KILLED) : judge.killed_promoting;
}

static void judge_backup(void)
{
    if (happened(BACKUP_HOST_DIES)) return;
    if (!children_gone()) judge_fail("a child is left");
    if (half_built()) {
        if (!twin_waits() && !orphan()) judge_fail("a half-built domain is left");
    }
    if (happened(TWIN_KILLED)) return;
    if (!twin_waits() && !twin_finished_once()) judge_fail("the twin did not end once");
    if (twin_promoted() != copy_runs)
        judge_fail("the twin ended as %s, the copy %s", twin_promoted() ? "promoted" : "dropped",
                   copy_runs ? "runs" : "does not run");
    if (!twin_waits() && !copy_runs && !judge.disks_promoting && !happened(DISK_STANDS_STILL) &&
        !happened(DISK_REFUSES) && !judge.call_failed)
        judge_disks_dropped();
}

/* From the fault to a guest that runs, both sides' waits and the slowest of everything added up. */
static void judge_bound(void)
{
    int64_t bound = 4 * setup.limit_ms + (setup.arbiter ? 31000 : 0) + 6000;
    int64_t done = judge.promoted ? judge.promoted_ms : judge.settled_ms;

    if (setup.nr_faults != 1 || judge.call_failed || judge.fault_ms < 0 || done < 0 ||
        judge.admin_promoted)
        return;
    if (!judge.promoted && completions() && !completion_result()) return; /* it ended on purpose */
    if (!judge.commit_delivered) bound += 30000; /* the peer may need that long until its HELLO */
    if (happened(GUEST_IS_DEAF) || happened(QEMU_HANGS)) bound += 260000;
    if (setup.drop_ms) bound += 31000;               /* until it is not waited for any more */
    if (happened(APPLIER_HANGS)) bound += 140000;    /* until it is killed */
    if (happened(COPY_DESTROYED)) bound += 65000;    /* until it gives up looking for the domain */
    if (happened(DISK_STANDS_STILL)) bound += 40000; /* or a step is given up */
    if (happened(DISK_BARRIER_LOST))                 /* the step's limit, by the primary's clock */
        bound += 5000 + 600000LL * 1000000 / (1000000 + setup.drift_ppm[0]);
    bound += setup.faults[0].for_ms;
    if (happened(RECEIVER_CANNOT_START)) return;
    if (happened(LINK_CORRUPTS_DATA) || happened(GUARD_KILLED) || happened(PLUG_FAILS)) return;
    if (done - judge.fault_ms > bound)
        judge_fail("settled %lld ms after the fault, bound is %lld",
                   (long long)(done - judge.fault_ms), (long long)bound);
}

/* Nobody does anything by itself: before the fault the protection stands, without one it ends as it was told. */
static void judge_order(void)
{
    if (setup.slow_percent || judge.call_failed || !completions()) return;
    if (completion_result() &&
        (!setup.nr_faults || judge.fault_ms < 0 || judge.settled_ms < judge.fault_ms))
        judge_fail("ended with %d before anything happened", completion_result());
    if (!setup.nr_faults && judge.ack_delivered != setup.checkpoints)
        judge_fail("%lu checkpoints were acknowledged, asked were %lu",
                   (unsigned long)judge.ack_delivered, (unsigned long)setup.checkpoints);
}

void judge_end(void)
{
    bool primary_out = guest_runs() && !guest.netbuf;

    if (judge.failed) return;
    judge_order();
    judge_primary();
    judge_backup();
    if (primary_out && copy_runs) judge_fail("both copies run and let output out");
    if (!primary_out && !copy_runs && !guest.plug_left && !may_wait())
        judge_fail("the guest runs nowhere");
    judge_bound();
}
