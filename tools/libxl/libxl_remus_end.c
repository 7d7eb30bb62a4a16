/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The undo plan: how every protection ends, on purpose or not.
 *
 * The order is the safety argument. The guest is first let run *behind its plug*, which harms nobody. Then the twin
 * is ended, or, when the backup cannot be asked, the rule and the arbiter say who goes on. Only when it is decided that
 * this side does is the output opened; otherwise the guest is paused and the output stays closed. Without a net buffer
 * a guest that is suspended is not resumed before the decision.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libxl_remus.h"
#include "libxl_remus_disks.h"

#define LIMIT_LOCAL_MS 20000
#define LIMIT_QMP_MS 35000
#define LIMIT_STOP_MS 30000
#define HELPER_GRACE_MS 10000
#define LATE_SUSPEND_MS 10000
#define LATE_POLL_MS 100

static void withdraw_request(libxl__egc *egc, libxl__epoch *ep);
static void run_behind_plug(libxl__egc *egc, libxl__epoch *ep);
static void end_twin(libxl__egc *egc, libxl__epoch *ep);
static void decide_fate(libxl__egc *egc, libxl__epoch *ep);
static void settle_guest(libxl__egc *egc, libxl__epoch *ep);
static void settle_output(libxl__egc *egc, libxl__epoch *ep);
static void end_helper(libxl__egc *egc, libxl__epoch *ep);
static void end_logdirty(libxl__egc *egc, libxl__epoch *ep);
static void await_late_suspend(libxl__egc *egc, libxl__epoch *ep);

const struct step remus_undo_plan[] = {
    {"withdraw the request to suspend", withdraw_request, LIMIT_LOCAL_MS},
    {"run the guest behind its plug", run_behind_plug, LIMIT_QMP_MS},
    {"end the twin", end_twin, LIMIT_STOP_MS},
    {"decide who goes on", decide_fate, NO_LIMIT}, /* the arbiter has its own limit */
    {"settle the disks", remus_settle_disks, LIMIT_LOCAL_MS},
    {"settle the guest", settle_guest, LIMIT_QMP_MS},
    {"settle the output", settle_output, LIMIT_LOCAL_MS},
    {"end the save helper", end_helper, HELPER_GRACE_MS + 5000},
    {"end log-dirty mode", end_logdirty, LIMIT_QMP_MS},
    {"await a late suspend", await_late_suspend, LIMIT_GUEST_SUSPENDS_MS + LATE_SUSPEND_MS + 5000},
    {0},
};

/*
 * Nothing has to be decided: the backup has never held a whole checkpoint, or cannot be told apart, or has read STOP: then it
 * never runs the guest, however long it takes to remove the twin.
 */
static bool backup_cannot_run(const libxl__remus *rm)
{
    return !rm->info.acknowledged || !rm->commit_sent || rm->stop_confirmed ||
           libxl__channel_stop_read(&rm->channel);
}

static void withdraw_request(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    libxl__ev_time_deregister(rm->loop, &rm->timer);
    /* What the helper still writes goes nowhere: it gets EPIPE, cleans up and leaves. */
    remus_stream_close(rm);
    if (!libxl__dom_suspend_pending(&rm->suspend)) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_wait_for(rm, WAIT_SUSPENDED);
    libxl__dom_suspend_abort(egc, &rm->suspend);
}

static int resume_now(libxl__remus *rm)
{
    /* We never asked it to suspend: if it is suspended, somebody else copies it just now. */
    if (!rm->asked_us) return 0;
    return libxl__dom_resume_fast(rm->gc, rm->xch, libxl__loop_xs(rm->loop), rm->domid);
}

static void devices_run(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    libxl__remus *rm = cmd->user;
    int rc2;

    if (!rc) rm->vm_stopped = false;
    rc2 = resume_now(rm); /* even without its devices: a dead QEMU must not keep the guest asleep */
    remus_event(egc, rm, WAIT_DEVICES_RUN, rc ? rc : rc2);
}

static void run_guest(libxl__egc *egc, libxl__remus *rm)
{
    int rc;

    remus_wait_for(rm, WAIT_DEVICES_RUN);
    rm->qmp_first.callback = devices_run;
    if (!rm->vm_stopped || !rm->qmp) {
        devices_run(egc, &rm->qmp_first, 0);
        return;
    }
    libxl__qmp_cancel(rm->qmp, &rm->qmp_first);
    rc = libxl__qmp_cont(rm->qmp, &rm->qmp_first);
    if (rc) devices_run(egc, &rm->qmp_first, rc);
}

static void run_behind_plug(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    if (!rm->guest_ended && libxl__dom_end(rm->xch, rm->domid) != GUEST_LIVES)
        rm->guest_ended = true;
    if (rm->guest_ended || (!rm->netbuf && rm->peer_lost && !backup_cannot_run(rm))) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    run_guest(egc, rm);
}

static void end_twin(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    const char *why = rm->guest_ended ? "the guest ended" : "protection ended";
    int rc;

    if (!rm->info.acknowledged || !rm->hello_seen || rm->peer_lost || rm->stop_confirmed) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_wait_for(rm, WAIT_STOPPED); /* libxl_remus_start.c: frame_came, peer_lost */
    rc = libxl__channel_send(&rm->channel, CHANNEL_STOP, rm->acked, why, strlen(why));
    if (rc) remus_event(egc, rm, WAIT_STOPPED, rc);
}

static void verdict(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why)
{
    libxl__remus *rm = a->user;

    LOG(rm->gc, NOTICE, "domain %u: %s: %s", rm->domid,
        granted ? "this side goes on" : "this side stays stopped", why);
    rm->fate = granted ? FATE_GO_ON : FATE_STAY_STOPPED;
    remus_event(egc, rm, WAIT_VERDICT, 0);
}

static void decide_fate(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    if (backup_cannot_run(rm)) {
        if (libxl__channel_stop_read(&rm->channel) && !rm->stop_confirmed)
            remus_message(rm,
                          "domain %u: %s drops the twin and has not said yet that it is gone: see "
                          "xl list there",
                          rm->domid, rm->info.peer_name);
        rm->fate = FATE_GO_ON;
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    rm->arbiter.loop = rm->loop;
    rm->arbiter.c = remus_case(rm);
    rm->arbiter.user = rm;
    rm->arbiter.verdict = verdict;
    rm->fate = FATE_STAY_STOPPED; /* unless somebody says otherwise */
    remus_wait_for(rm, WAIT_VERDICT);
    if (libxl__arbiter_ask(&rm->arbiter)) remus_event(egc, rm, WAIT_VERDICT, ERROR_FAIL);
}

static void settle_guest(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    libxl__guard_update(&rm->guard, rm->fate == FATE_GO_ON ? 'U' : 'S', rm->acked);
    if (rm->guest_ended) {
        libxl__epoch_next(egc, ep, 0);
    } else if (rm->fate == FATE_GO_ON) {
        /* Taken and not carried out: it may suspend after this. */
        if (libxl__dom_suspend_pending(&rm->suspend)) rm->suspend_late = true;
        run_guest(egc, rm);
    } else {
        int rc = libxl__recover_stay_stopped(rm->gc, rm->domid);

        remus_message(rm,
                      "domain %u is paused and its output held, since the backup may run it; "
                      "if it runs there: xl remus --discard %s; if it certainly does not: "
                      "xl remus --recover %s",
                      rm->domid, rm->info.domain_name, rm->info.domain_name);
        libxl__epoch_next(egc, ep, rc);
    }
}

static void settle_output(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc = 0;

    if (rm->netbuf && rm->fate == FATE_GO_ON)
        rc = libxl__netbuffer_teardown(rm->gc, rm->netbuf);
    else if (rm->netbuf) {
        libxl__netbuffer_abandon(rm->netbuf);
        /* What a guest that is gone still wanted to send must never leave, and nobody can name it any more. */
        if (libxl__dom_end(rm->xch, rm->domid) == GUEST_GONE)
            rc = libxl__netbuffer_discard(rm->gc, rm->ifb);
    }
    rm->netbuf = NULL;
    libxl__epoch_next(egc, ep, rc);
}

static void end_helper(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    if (!libxl__save_callout_inuse(&rm->helper)) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_wait_for(rm, WAIT_HELPER_GONE);
    /* It waits for an answer: of ours, unless QEMU has the question, whose answer then is the only one. */
    if (rm->helper.asked && !rm->log_switching) libxl__save_callout_reply(&rm->helper, 0);
    libxl__save_callout_terminate(&rm->helper, HELPER_GRACE_MS);
}

static void dirty_log_ended(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    libxl__remus *rm = cmd->user;

    if (!rc) rm->qemu_log = QEMU_LOG_OFF;
    remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
}

static void end_dirty_log(libxl__egc *egc, libxl__remus *rm)
{
    int rc;

    rm->qmp_second.callback = dirty_log_ended;
    rc = libxl__qmp_global_dirty_log(rm->qmp, &rm->qmp_second, false);
    if (rc) remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
}

static void dirty_log_is_on(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    libxl__remus *rm = cmd->user;

    if (rc)
        remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
    else
        end_dirty_log(egc, rm);
}

static void end_logdirty(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    if (rm->guest_ended) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    /* The helper does this itself unless it was killed; off already is fine. Without one of ours the log is somebody else's. */
    if (rm->helper_ran && !rm->helper_clean)
        (void)xc_shadow_control(rm->xch, rm->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
    if (rm->qemu_log == QEMU_LOG_OFF || !rm->qmp) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_wait_for(rm, WAIT_DEVICES_RUN);
    libxl__qmp_cancel(rm->qmp, &rm->qmp_second);
    rm->log_switching = false;
    if (rm->qemu_log == QEMU_LOG_ON) {
        end_dirty_log(egc, rm);
        return;
    }
    /* QEMU may have ended it, and aborts when told so again; it may be told twice to keep one. */
    rm->qmp_second.callback = dirty_log_is_on;
    rc = libxl__qmp_global_dirty_log(rm->qmp, &rm->qmp_second, true);
    if (rc) remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
}

static void look_for_suspend(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, timer);
    int64_t now = libxl__loop_now_ms(rm->loop);
    int rc = 0;

    /* It still has some of its limit. */
    if (libxl__dom_suspend_pending(&rm->suspend)) rm->late_until_ms = now + LATE_SUSPEND_MS;
    if (libxl__dom_is_suspended(rm->xch, rm->domid)) {
        rc = resume_now(rm);
    } else if (!rm->guest_ended && now < rm->late_until_ms) {
        rc = libxl__ev_time_register_rel(rm->loop, &rm->timer, look_for_suspend, LATE_POLL_MS);
        if (!rc) return;
    }
    remus_event(egc, rm, WAIT_LATE_SUSPEND, rc);
}

/* A guest that took the request may stop now, whatever ended the protection, and nobody else would wake it. */
static void await_late_suspend(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    if (!rm->suspend_late || rm->guest_ended || rm->fate != FATE_GO_ON) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_message(rm, "domain %u runs, but may still suspend as it was asked: waiting to wake it",
                  rm->domid);
    rm->late_until_ms = libxl__loop_now_ms(rm->loop) + LATE_SUSPEND_MS;
    remus_wait_for(rm, WAIT_LATE_SUSPEND);
    look_for_suspend(egc, &rm->timer);
}
