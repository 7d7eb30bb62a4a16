/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The setup plan: from a running guest and a connected backup to the first pause. The initial copy of the
 * memory is its last step; the output is not held yet.
 *
 * Below it: what helper, channel, guest and user call at any time.
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libxl_channel_frame.h"
#include "libxl_remus.h"
#include "libxl_remus_disks.h"

#define LIMIT_LOCAL_MS 20000
#define LIMIT_GREET_MS 60000

static void take_control(libxl__egc *egc, libxl__epoch *ep);
static void set_up_output(libxl__egc *egc, libxl__epoch *ep);
static void start_guard(libxl__egc *egc, libxl__epoch *ep);
static void greet_backup(libxl__egc *egc, libxl__epoch *ep);
static void prepare_guest(libxl__egc *egc, libxl__epoch *ep);
static void first_copy(libxl__egc *egc, libxl__epoch *ep);

const struct step remus_setup_plan[] = {
    {"take the control socket", take_control, LIMIT_LOCAL_MS},
    {"start the guard", start_guard,
     LIMIT_LOCAL_MS}, /* before there is anything to be left behind */
    {"set up the net buffer", set_up_output, LIMIT_LOCAL_MS},
    {"greet the backup", greet_backup, LIMIT_GREET_MS},
    {"synchronise the disks while the guest runs", remus_sync_disks, NO_LIMIT},
    {"prepare the guest", prepare_guest, LIMIT_LOCAL_MS},
    {"copy the memory while the guest runs", first_copy, NO_LIMIT},
    {"tag the disks' writes", remus_protect_disks, LIMIT_LOCAL_MS},
    {0},
};

struct arbiter_case remus_case(const libxl__remus *rm)
{
    return (struct arbiter_case){
        .rule =
            rm->info.on_link_loss == LIBXL_LINK_LOSS_BACKUP ? LINK_LOSS_BACKUP : LINK_LOSS_PRIMARY,
        .command = rm->info.arbiter,
        .domain = rm->info.domain_name,
        .self = rm->info.self_name,
        .peer = rm->info.peer_name,
        .session = rm->info.session,
        .epoch = rm->acked,
        .primary = true,
        .limit_ms = rm->info.limit_ms,
    };
}

static void status_reply(libxl__remus *rm, unsigned id)
{
    const libxl_checkpoint_stats *s = &rm->stats;
    char text[1024];

    snprintf(text, sizeof(text),
             "ok\nside: primary\nstate: %s\ndomain: %u\npeer: %.255s\nepoch: %lu\n"
             "pause_ms: %.1f\nhold_ms: %.1f\nbytes: %lu\nunacked: %lu\nheld_packets: %lu\n"
             "dropped_packets: %lu\nsilence_ms: %ld",
             rm->acked ? "protected" : "copying", rm->domid, rm->info.peer_name,
             (unsigned long)rm->acked, (double)s->pause_us / 1e3, (double)s->hold_us / 1e3,
             (unsigned long)s->bytes, (unsigned long)(rm->checkpoint - rm->acked),
             (unsigned long)s->held_packets, (unsigned long)s->dropped_packets,
             rm->info.acknowledged ? (long)libxl__channel_silence_ms(&rm->channel) : 0L);
    libxl__control_reply(&rm->control, id, text);
}

static void control_request(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
    libxl__remus *rm = ctl->user;

    if (!strcmp(line, "status")) {
        status_reply(rm, id);
    } else if (!strcmp(line, "stop")) {
        if (rm->stop_request) {
            libxl__control_reply(ctl, id, "error already ending");
            return;
        }
        rm->stop_request = id;
        libxl__epoch_interrupt(egc, &rm->epoch, ERROR_ABORTED);
    } else {
        libxl__control_reply(ctl, id, "error a primary knows stop and status only");
    }
}

/*
 * What an earlier protection held would get out when the net buffer is made anew, also from the guard that is
 * started before that. Its twin may run, and the new backup has not been asked anything yet.
 */
static int refuse_undecided(libxl__remus *rm)
{
    bool undecided;
    int rc = libxl__recover_undecided(rm->gc, rm->domid, &undecided);

    if (rc || !undecided) return rc;
    LOG(rm->gc, ERROR,
        "domain %u: the output of an earlier protection is held, and its twin may run; if it does "
        "not: xl remus --recover %s; if it does: xl remus --discard %s",
        rm->domid, rm->info.domain_name, rm->info.domain_name);
    return ERROR_INVAL;
}

static void take_control(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    rm->control.loop = rm->loop;
    rm->control.side = "primary";
    rm->control.domain = rm->info.domain_name;
    rm->control.user = rm;
    rm->control.request = control_request;
    rc = libxl__control_start(&rm->control);
    if (rc == ERROR_LOCK_FAIL) {
        LOG(rm->gc, ERROR, "domain %u is being protected already: see xl remus --status %s",
            rm->domid, rm->info.domain_name);
        rc = ERROR_INVAL; /* LOCK_FAIL is for a side that may not run */
    }
    if (!rc) rc = refuse_undecided(rm); /* with the lock: nobody protects it now */
    libxl__epoch_next(egc, ep, rc);
}

static void set_up_output(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    rc = remus_watch_devices(rm); /* before: what comes in between is noticed */
    if (!rc) rc = remus_watch_vcpus(rm);
    if (!rc && libxl_defbool_val(rm->info.remus.netbuf))
        rc = libxl__netbuffer_setup(rm->gc, libxl__loop_xs(rm->loop), rm->domid,
                                    rm->kind == GUEST_HVM, rm->info.netbuf_bytes, &rm->netbuf);
    libxl__epoch_next(egc, ep, rc);
}

static void guard_died(libxl__egc *egc, libxl__guard *g, int rc)
{
    libxl__remus *rm = g->user;

    if (rc) {
        remus_message(rm, "domain %u: the guard died and cannot be started again", rm->domid);
        libxl__epoch_interrupt(egc, &rm->epoch, rc);
    }
}

static void start_guard(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    libxl__netbuffer_ifname(rm->domid, rm->ifb);
    rm->guard.loop = rm->loop;
    rm->guard.c = remus_case(rm);
    rm->guard.domid = rm->domid;
    rm->guard.uuid = rm->uuid;
    rm->guard.ifb = libxl_defbool_val(rm->info.remus.netbuf) ? rm->ifb : NULL;
    rm->guard.user = rm;
    rm->guard.died = guard_died;
    libxl__epoch_next(egc, ep, libxl__guard_start(&rm->guard));
}

static void ack_came(libxl__egc *egc, libxl__remus *rm, uint64_t n)
{
    if (n != rm->checkpoint || rm->wait != WAIT_ACK) {
        if (!libxl__epoch_undoing(&rm->epoch)) {
            LOG(rm->gc, ERROR, "domain %u: the backup acknowledged checkpoint %lu, expected %lu",
                rm->domid, (unsigned long)n, (unsigned long)rm->checkpoint);
            libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
        }
        return;
    }
    rm->acked = n;
    remus_commit_disks(rm);
    libxl__guard_update(&rm->guard, 'P', n);
    remus_event(egc, rm, WAIT_ACK, 0);
}

static void frame_came(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                       const void *body, size_t len)
{
    libxl__remus *rm = ch->user;
    char text[CHANNEL_TEXT_MAX + 1];

    switch (type) {
    case CHANNEL_HELLO:
        rm->hello_seen = true;
        remus_event(egc, rm, WAIT_HELLO, 0);
        return;
    case CHANNEL_ACK:
        ack_came(egc, rm, arg);
        return;
    case CHANNEL_STOPPED:
        rm->stop_confirmed = true;
        remus_event(egc, rm, WAIT_STOPPED, 0);
        return;
    case CHANNEL_ERROR:
        libxl__channel_text(body, len, text, sizeof(text));
        remus_message(rm, "domain %u: the backup gives up: %s", rm->domid, text);
        rm->stop_confirmed = true; /* who gives up never runs the guest */
        libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
        return;
    }
    LOG(rm->gc, ERROR, "domain %u: the backup sent a frame of type %u", rm->domid, type);
    libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
}

static void peer_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    libxl__remus *rm = ch->user;

    rm->peer_lost = true;
    rm->link_was_cause = !libxl__epoch_undoing(&rm->epoch);
    if (!rm->stop_confirmed)
        remus_message(rm, "domain %u: lost the backup %s: %s", rm->domid, rm->info.peer_name, why);
    libxl__epoch_interrupt(egc, &rm->epoch, ERROR_NOT_READY);
    remus_event(egc, rm, WAIT_STOPPED, ERROR_NOT_READY);
}

static void channel_room(libxl__egc *egc, libxl__channel *ch)
{
    remus_stream_room(egc, ch->user);
}

static void greet_backup(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    libxl__channel *ch = &rm->channel;
    int rc;

    if (!rm->info.acknowledged) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    ch->loop = rm->loop;
    ch->send_fd = rm->send_fd;
    ch->recv_fd = rm->recv_fd;
    ch->primary = true;
    ch->prologue = rm->info.prologue;
    ch->limit_ms = rm->info.limit_ms;
    ch->user = rm;
    ch->frame = frame_came;
    ch->lost = peer_lost;
    ch->room = channel_room;
    remus_wait_for(rm, WAIT_HELLO);
    rc = libxl__channel_start(ch);
    if (rc) remus_event(egc, rm, WAIT_HELLO, rc);
}

static void guest_suspended(libxl__egc *egc, libxl__dom_suspend *ds, int rc)
{
    libxl__remus *rm = ds->user;

    if (rc == ERROR_DOMAIN_DESTROYED) rm->guest_ended = true;
    if (rc == ERROR_GUEST_TIMEDOUT) rm->suspend_late = true;
    remus_event(egc, rm, WAIT_SUSPENDED, rc);
}

static void prepare_guest(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc = 0;

    rm->suspend.loop = rm->loop;
    rm->suspend.xch = rm->xch;
    rm->suspend.domid = rm->domid;
    rm->suspend.kind = rm->kind;
    rm->suspend.limit_ms = LIMIT_GUEST_SUSPENDS_MS;
    rm->suspend.user = rm;
    rm->suspend.suspended = guest_suspended;
    if (rm->kind == GUEST_HVM) rc = libxl__qmp_open(rm->loop, rm->domid, &rm->qmp);
    if (!rc) rc = libxl__dom_suspend_prepare(&rm->suspend);
    if (!rc) rc = remus_watch_settings(rm);
    libxl__epoch_next(egc, ep, rc);
}

static void logdirty_switched(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    libxl__remus *rm = cmd->user;

    rm->log_switching = false;
    if (!rc) rm->qemu_log = rm->logdirty_enable ? QEMU_LOG_ON : QEMU_LOG_OFF;
    if (rm->helper.asked) libxl__save_callout_reply(&rm->helper, rc ? -1 : 0);
}

static void switch_logdirty(libxl__remus *rm, unsigned enable)
{
    rm->logdirty_enable = enable;
    /* QEMU aborts when it is told to end a dirty log that is not on; if nobody knows, see end_logdirty. */
    if (!rm->qmp || (!enable && rm->qemu_log != QEMU_LOG_ON)) {
        libxl__save_callout_reply(&rm->helper, 0);
        return;
    }
    /* A helper that ends in the middle of a checkpoint may ask while the device state is still being saved. */
    libxl__qmp_cancel(rm->qmp, &rm->qmp_second);
    rm->qmp_second.callback = logdirty_switched;
    if (libxl__qmp_global_dirty_log(rm->qmp, &rm->qmp_second, enable != 0)) {
        libxl__save_callout_reply(&rm->helper, -1);
        return;
    }
    rm->log_switching = true;
    rm->qemu_log = QEMU_LOG_UNKNOWN; /* until it answers */
}

static void helper_at_checkpoint(libxl__egc *egc, libxl__remus *rm)
{
    int rc = rm->info.acknowledged ? remus_stream_drain(rm) : 0;

    rm->helper_wants_checkpoint = true;
    if (rc != ERROR_NOT_READY) remus_event(egc, rm, WAIT_CHECKPOINT_CALL, rc);
}

static void helper_calls(libxl__egc *egc, libxl__save_callout *co, enum helper_call what,
                         unsigned arg)
{
    libxl__remus *rm = co->user;

    if (what == HELPER_SWITCH_LOGDIRTY) {
        switch_logdirty(rm, arg);
        return;
    }
    if (libxl__epoch_undoing(&rm->epoch)) {
        libxl__save_callout_reply(co, 0); /* it cleans up and leaves */
        return;
    }
    if (what == HELPER_SUSPEND)
        remus_event(egc, rm, WAIT_SUSPEND_CALL, 0);
    else if (what == HELPER_POSTCOPY)
        remus_event(egc, rm, WAIT_POSTCOPY_CALL, 0);
    else
        helper_at_checkpoint(egc, rm);
}

static void helper_exited(libxl__egc *egc, libxl__save_callout *co, bool clean)
{
    libxl__remus *rm = co->user;

    if (!libxl__epoch_undoing(&rm->epoch)) {
        if (libxl__dom_end(rm->xch, rm->domid) != GUEST_LIVES)
            rm->guest_ended = true;
        else
            LOG(rm->gc, ERROR, "domain %u: the save helper ended too early", rm->domid);
    }
    rm->helper_clean = clean;
    libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
    remus_event(egc, rm, WAIT_HELPER_GONE, 0);
}

static void copy_progress(libxl__egc *egc, libxl__save_callout *co, uint64_t done, uint64_t total)
{
    libxl__remus *rm = co->user;

    if (rm->info.copying && total) rm->info.copying(rm->info.user, done, total);
}

static void first_copy(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int fd = -1, rc;

    rm->helper.loop = rm->loop;
    rm->helper.domid = rm->domid;
    rm->helper.user = rm;
    rm->helper.encode = rm->info.acknowledged ? rm->info.compress : NULL;
    rm->helper.encode_cache_mib = rm->info.compress_cache_mib;
    rm->helper.call = helper_calls;
    rm->helper.progress = copy_progress;
    rm->helper.exited = helper_exited;
    rm->checkpoint = 1;
    remus_wait_for(rm, WAIT_SUSPEND_CALL);
    rc = remus_stream_open(rm, &fd);
    if (!rc) rc = remus_stream_header(rm);
    if (!rc && !rm->info.acknowledged) rc = remus_stream_write_bare(rm);
    if (!rc) {
        rm->helper.stream_fd = fd;
        rc = libxl__save_callout_start(&rm->helper);
        rm->helper_ran = !rc;
    }
    if (fd >= 0) close(fd);
    if (rc) remus_event(egc, rm, WAIT_SUSPEND_CALL, rc);
}
