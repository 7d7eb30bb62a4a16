/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The state machine of the backup (libxl_twin.h has states and invariants). Order of this file: small tools, the ways
 * down (drop, leave, finish), the way up (promote), the link's loss, and then who calls: channel, child, administrator.
 * Frames and acknowledgements are in libxl_twin_commit.c.
 */
#include "libxl_twin.h"

#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_channel_frame.h"
#include "libxl_twin_internal.h"

/* The disks' instances, until they have applied what is committed. */
/* What is committed is still to be brought to a disk that may be slow; an instance that fails says so. */
#define LIMIT_DISKS_MS 1800000
/* From END to a running guest: devices, hotplug scripts, device model. */
#define LIMIT_PROMOTE_MS 300000
/* The child after it has reported success. */
#define LIMIT_LEAVE_MS 30000

static void timer_fired(libxl__egc *egc, libxl__ev_time *ev);

const char *libxl__twin_state_name(enum twin_state state)
{
    static const char *const names[] = {
        [TWIN_LOOKING] = "starting",      [TWIN_COPYING] = "copying",
        [TWIN_PROTECTING] = "protecting", [TWIN_SILENT] = "link lost",
        [TWIN_ASKING] = "asking",         [TWIN_WAITING] = "waiting",
        [TWIN_PROMOTING] = "promoting",   [TWIN_DROPPING] = "dropping",
        [TWIN_LEAVING] = "leaving",
    };

    return names[state];
}

void libxl__twin_tell(libxl__twin *t, const char *fmt, ...)
{
    char line[600];
    va_list al;
    int n;

    n = snprintf(line, sizeof(line), "%s: ", t->c.domain);
    va_start(al, fmt);
    vsnprintf(line + n, sizeof(line) - (size_t)n, fmt, al);
    va_end(al);
    t->message(t->user, line);
}

void libxl__twin_set_state(libxl__twin *t, enum twin_state state)
{
    LOG(libxl__loop_gc(t->loop), DEBUG, "twin of %s: %s -> %s", t->c.domain,
        libxl__twin_state_name(t->state), libxl__twin_state_name(state));
    t->state = state;
    libxl__ev_time_deregister(t->loop, &t->timer);
}

/* ms from now timer_fired does what the state wants. */
static void set_timer(libxl__twin *t, int64_t ms)
{
    int rc = libxl__ev_time_register_rel(t->loop, &t->timer, timer_fired, ms);

    assert(!rc); /* fails only for lack of memory, which ends the process */
}

static void answer_admin(libxl__twin *t, const char *text)
{
    if (t->admin_request) libxl__control_reply(&t->control, t->admin_request, text);
    t->admin_request = 0;
}

/* ---- down ---- */

static bool processes_live(const libxl__twin *t)
{
    return t->child_live || libxl__twin_warm_alive(&t->warm);
}

static void finish(libxl__egc *egc, libxl__twin *t)
{
    assert(!processes_live(t) && !libxl__twin_domains_busy(&t->domains));
    libxl__ev_time_deregister(t->loop, &t->timer);
    libxl__channel_dispose(&t->channel);
    answer_admin(t, t->outcome == TWIN_FAILED ? "error it failed: see the log" : "ok");
    if (t->with_control) libxl__control_dispose(&t->control);
    t->finished(egc, t, t->outcome);
}

/* Nothing is left to clean. The last frames get limit_ms to be written. */
static void leave(libxl__twin *t)
{
    libxl__twin_set_state(t, TWIN_LEAVING);
    if (t->outcome == TWIN_STOPPED && !t->link_lost)
        libxl__channel_send(&t->channel, CHANNEL_STOPPED, 0, NULL, 0);
    if (!t->link_lost && libxl__channel_queued(&t->channel))
        set_timer(t, t->c.limit_ms);
    else
        set_timer(t, 0);
}

static void send_error(libxl__twin *t, const char *text)
{
    size_t len = strlen(text);

    if (t->link_lost || t->error_sent) return;
    t->error_sent = true;
    libxl__channel_send(&t->channel, CHANNEL_ERROR, 0, text,
                        len < CHANNEL_TEXT_MAX ? len : CHANNEL_TEXT_MAX);
}

static void clean(libxl__twin *t)
{
    if (processes_live(t) || libxl__twin_domains_busy(&t->domains)) return;
    if (!t->child_began) { /* a copy that is here is not ours */
        leave(t);
        return;
    }
    if (libxl__twin_domains_start(&t->domains)) {
        libxl__twin_tell(t, "cannot look for left-overs: see xl list");
        t->outcome = TWIN_FAILED;
        leave(t);
    }
}

/* The twin will never run. The first reason counts. */
void libxl__twin_drop(libxl__twin *t, enum twin_outcome outcome)
{
    assert(t->state != TWIN_LEAVING);
    if (t->state == TWIN_DROPPING) return;
    libxl__twin_set_state(t, TWIN_DROPPING);
    t->outcome = outcome;
    t->ack_due = false;
    libxl__twin_disk_drop(&t->disk);
    libxl__arbiter_dispose(&t->arbiter);
    libxl__twin_warm_close(&t->warm); /* first: what it maps cannot be destroyed */
    libxl__twin_child_close(&t->child);
    clean(t);
}

/* We cannot go on: the primary is told why, and drops us too. */
void libxl__twin_give_up(libxl__twin *t, const char *fmt, ...)
{
    char why[512];
    va_list al;

    va_start(al, fmt);
    vsnprintf(why, sizeof(why), fmt, al);
    va_end(al);
    libxl__twin_tell(t, "%s", why);
    send_error(t, why);
    libxl__twin_drop(t, TWIN_FAILED);
}

/* ---- up ---- */

/* The disks are those of the last committed checkpoint: now its memory. */
static void promote_memory(libxl__twin *t)
{
    t->disks_promoted = true;
    libxl__ev_time_deregister(t->loop, &t->timer);
    set_timer(t, LIMIT_PROMOTE_MS);
    if (t->apply) {
        libxl__twin_stream_stop(&t->stream);
        libxl__twin_warm_go(&t->warm);
    } else if (libxl__twin_stream_finish(&t->stream)) {
        libxl__twin_give_up(t, "%s", t->stream.why);
    } else {
        libxl__twin_child_more(&t->child);
    }
}

static void promotion_failed(libxl__twin *t, const char *why)
{
    libxl__twin_give_up(t, "%s; 'xentwin-disk stop %s VDEV' ends what serves its disks here", why,
                        t->disk.domain);
}

static void disks_promoted(libxl__egc *egc, libxl__twin_disk *td, int rc)
{
    libxl__twin *t = td->user;

    if (t->state != TWIN_PROMOTING) return;
    if (rc)
        promotion_failed(t, t->disk.set.why);
    else
        promote_memory(t);
}

static void promote(libxl__twin *t)
{
    int rc;

    assert(t->stream.committed && t->child_live);
    libxl__twin_tell(t, "starting the guest here, from checkpoint %llu",
                     (unsigned long long)t->stream.committed);
    libxl__twin_set_state(t, TWIN_PROMOTING);
    libxl__channel_dispose(&t->channel);
    t->link_lost = true;
    set_timer(t, LIMIT_DISKS_MS);
    rc = libxl__twin_disk_promote(&t->disk, t->stream.committed);
    if (rc == 1)
        promote_memory(t);
    else if (rc)
        promotion_failed(t, t->disk.set.why);
}

static void verdict_came(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why)
{
    libxl__twin *t = a->user;

    assert(t->state == TWIN_ASKING);
    libxl__twin_tell(t, "%s: %s", granted ? "the guest may run here" : "the guest may not run here",
                     why);
    libxl__arbiter_dispose(a);
    if (granted)
        promote(t);
    else
        libxl__twin_drop(t, TWIN_REFUSED);
}

static void ask(libxl__twin *t)
{
    libxl__twin_set_state(t, TWIN_ASKING);
    t->c.epoch = t->stream.committed;
    t->c.primary = false;
    t->arbiter.loop = t->loop;
    t->arbiter.c = t->c;
    t->arbiter.user = t;
    t->arbiter.verdict = verdict_came;
    if (libxl__arbiter_ask(&t->arbiter)) libxl__twin_give_up(t, "cannot ask the arbiter");
}

/* ---- the link ---- */

/* Rule primary without an arbiter: nobody but a person can say that the primary is dead. */
static bool only_admin_decides(const libxl__twin *t)
{
    return t->c.rule == LINK_LOSS_PRIMARY && !t->c.command && t->with_control;
}

static int64_t silence_left(const libxl__twin *t)
{
    int64_t left = t->c.limit_ms - libxl__channel_silence_ms(&t->channel);

    return left > 0 ? left : 0;
}

static void nothing_whole(libxl__twin *t)
{
    libxl__twin_tell(t, "there is no whole checkpoint yet");
    libxl__twin_drop(t, TWIN_FAILED);
}

static void silence_over(libxl__twin *t)
{
    if (silence_left(t)) {
        set_timer(t, silence_left(t));
    } else if (!t->stream.committed) {
        nothing_whole(t);
    } else if (only_admin_decides(t)) {
        libxl__twin_set_state(t, TWIN_WAITING);
        libxl__twin_tell(
            t,
            "the primary goes on by the rule; checkpoint %llu is kept: xl remus --promote %s, or "
            "--discard",
            (unsigned long long)t->stream.committed, t->c.domain);
    } else {
        ask(t);
    }
}

static void link_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    libxl__twin *t = ch->user;

    t->link_lost = true;
    if (!libxl__twin_receiving(t)) return;
    libxl__twin_tell(t, "lost the primary %s: %s", t->c.peer, why);
    t->ack_due = false;
    /* Without a child (LOOKING) nothing was acknowledged, and there is nobody to build the guest. */
    if ((!t->stream.committed && !t->commit_n) || t->state == TWIN_LOOKING) {
        nothing_whole(t);
        return;
    }
    /* The first one may still become whole: its disks have their own links. */
    libxl__twin_set_state(t, TWIN_SILENT);
    set_timer(t, silence_left(t));
}

static void timer_fired(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__twin *t = CONTAINER_OF(ev, libxl__twin, timer);

    switch (t->state) {
    case TWIN_SILENT:
        silence_over(t);
        return;
    case TWIN_PROMOTING:
        if (t->disks_promoted)
            libxl__twin_give_up(t, "the guest did not start within %d s", LIMIT_PROMOTE_MS / 1000);
        else
            promotion_failed(t, "its disks were not ready in time");
        return;
    case TWIN_LEAVING:
        if (t->child_live)
            kill(t->child.child.pid, SIGKILL); /* its guest runs; EXITED comes */
        else if (processes_live(t))
            libxl__twin_warm_close(&t->warm);
        else
            finish(egc, t);
        return;
    default:
        assert(!"a timer that nobody set");
    }
}

/* ---- the channel ---- */

static void channel_drained(libxl__egc *egc, libxl__channel *ch)
{
    libxl__twin *t = ch->user;

    if (t->state == TWIN_LEAVING && !t->child_live) {
        libxl__ev_time_deregister(t->loop, &t->timer);
        set_timer(t, 0);
    }
}

/* ---- the child ---- */

static void handed(libxl__egc *egc, libxl__twin_child *c, size_t n)
{
    libxl__twin_handed_on(c->user, n);
}

static void child_says(libxl__egc *egc, libxl__twin_child *c, const char *line)
{
    libxl__twin *t = c->user;

    snprintf(t->child_line, sizeof(t->child_line), "%s", line);
    LOG(libxl__loop_gc(t->loop), INFO, "receiver: %s", line);
}

static void child_runs(libxl__twin *t)
{
    libxl__twin_tell(t, "the guest runs here");
    answer_admin(t, "ok the guest runs here");
    t->outcome = TWIN_PROMOTED;
    libxl__twin_set_state(t, TWIN_LEAVING);
    set_timer(t, LIMIT_LEAVE_MS);
}

static void child_failed(libxl__twin *t, const libxl__twin_child *c)
{
    const char *said = t->child_line[0] ? t->child_line : "nothing";

    if (t->state == TWIN_PROMOTING) answer_admin(t, "error the guest could not be started here");
    libxl__twin_give_up(t, "%s; it said last: %s", c->why, said);
}

/* All is as of the last checkpoint. What the guest had been given of memory is no part of that. */
static void permit(libxl__twin *t)
{
    if (t->target_kb && t->target_kb != t->config_target_kb) {
        if (!libxl__twin_domains_set_memory(&t->domains, t->target_kb)) return;
        LOG(libxl__loop_gc(t->loop), WARN, "cannot run the stock xl");
    }
    libxl__twin_child_permit(&t->child);
}

static void memory_set(libxl__egc *egc, libxl__twin_domains *td, int rc)
{
    libxl__twin *t = td->user;

    if (rc)
        libxl__twin_tell(t, "cannot give the guest its %llu MiB: see xl mem-set",
                         (unsigned long long)(t->target_kb >> 10));
    if (t->state == TWIN_PROMOTING)
        libxl__twin_child_permit(&t->child);
    else
        clean(t);
}

static void child_received(libxl__egc *egc, libxl__twin *t)
{
    if (t->state == TWIN_DROPPING) return;
    if (t->apply) {
        t->complete = true;
        libxl__twin_tell(t, "the twin is complete: it waits here, paused");
        libxl__twin_warm_open(egc, &t->warm);
    } else if (t->state == TWIN_PROMOTING) {
        permit(t);
    } else {
        libxl__twin_give_up(t, "the stock receiver ended the guest's move by itself");
    }
}

static void process_exited(libxl__egc *egc, libxl__twin *t)
{
    if (processes_live(t)) return;
    if (t->state == TWIN_LEAVING)
        finish(egc, t);
    else
        clean(t);
}

static void child_event(libxl__egc *egc, libxl__twin_child *c, enum twin_child_event ev)
{
    libxl__twin *t = c->user;

    switch (ev) {
    case TWIN_CHILD_RECEIVED:
        child_received(egc, t);
        return;
    case TWIN_CHILD_RUNS:
        if (t->state == TWIN_PROMOTING) child_runs(t);
        return;
    case TWIN_CHILD_FAILED:
        if (t->state != TWIN_LEAVING) child_failed(t, c);
        return;
    case TWIN_CHILD_EXITED:
        t->child_live = false;
        process_exited(egc, t);
        return;
    }
}

static void warm_event(libxl__egc *egc, libxl__twin_warm *w, enum twin_warm_event ev)
{
    libxl__twin *t = w->user;

    switch (ev) {
    case TWIN_WARM_READY:
        LOG(libxl__loop_gc(t->loop), DEBUG, "twin of %s: warm", t->c.domain);
        return;
    case TWIN_WARM_APPLIED:
        libxl__twin_handed_on(t, w->applied);
        return;
    case TWIN_WARM_GONE:
        assert(t->state == TWIN_PROMOTING);
        permit(t);
        return;
    case TWIN_WARM_FAILED:
        if (t->state == TWIN_PROMOTING)
            answer_admin(t, "error the guest could not be started here");
        if (t->state != TWIN_LEAVING) libxl__twin_give_up(t, "%s", w->why);
        return;
    case TWIN_WARM_EXITED:
        if (t->state >= TWIN_DROPPING) process_exited(egc, t);
        return;
    }
}

static void prepare_warm(libxl__twin *t)
{
    libxl__twin_warm *w = &t->warm;

    w->loop = t->loop;
    w->stream = &t->stream;
    w->file = t->apply;
    w->uuid = t->uuid;
    w->name = t->c.domain;
    w->device_model = t->device_model;
    w->user = t;
    w->event = warm_event;
}

static void start_child(libxl__twin *t)
{
    libxl__twin_child *c = &t->child;

    c->loop = t->loop;
    c->stream = &t->stream;
    c->argv = t->argv;
    c->helper = t->helper;
    c->lock = t->lock;
    c->own_lock = t->own_lock;
    c->user = t;
    c->event = child_event;
    c->handed = handed;
    c->line = child_says;
    libxl__twin_set_state(t, TWIN_COPYING);
    t->domains.builders = NULL;
    t->child_began = true;
    if (libxl__twin_child_start(c)) {
        libxl__twin_give_up(t, "cannot start the stock receiver %s", t->argv[0]);
        return;
    }
    t->child_live = true;
}

static void domains_done(libxl__egc *egc, libxl__twin_domains *td, int rc, bool here,
                         const char *why)
{
    libxl__twin *t = td->user;

    if (t->state == TWIN_LOOKING) {
        if (rc)
            libxl__twin_give_up(t, "%s", why);
        else if (here)
            libxl__twin_give_up(t, "a domain named %s is already on %s", t->c.domain, t->c.self);
        else
            start_child(t);
        return;
    }
    assert(t->state == TWIN_DROPPING);
    if (rc) {
        libxl__twin_tell(t, "%s", why);
        send_error(t, why);
        t->outcome = TWIN_FAILED;
    }
    leave(t);
}

/* ---- the administrator ---- */

static void show_status(libxl__twin *t, unsigned id)
{
    char text[512];

    snprintf(text, sizeof(text),
             "ok\nside: backup\nstate: %s\ntwin: %s\npeer: %s\nepoch: %llu\nheld_bytes: %llu\n"
             "silence_ms: %lld",
             libxl__twin_state_name(t->state),
             !t->apply             ? "cold"
             : t->complete         ? "warm"
             : t->stream.committed ? "warm, being completed"
                                   : "warm, after the first checkpoint",
             t->c.peer, (unsigned long long)t->stream.committed,
             (unsigned long long)libxl__twin_stream_held(&t->stream),
             (long long)libxl__channel_silence_ms(&t->channel));
    libxl__control_reply(&t->control, id, text);
}

static bool is_word(const char *line, const char *word)
{
    size_t n = strlen(word);

    return !strncmp(line, word, n) && (!line[n] || line[n] == ' ');
}

static void admin_asks(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
    libxl__twin *t = ctl->user;
    bool yes = is_word(line, "promote");

    if (is_word(line, "status")) {
        show_status(t, id);
    } else if (!yes && !is_word(line, "discard")) {
        libxl__control_reply(ctl, id, "error a backup knows promote, discard and status only");
    } else if (libxl__twin_receiving(t)) {
        libxl__control_reply(ctl, id, "error the primary is alive: use xl remus --stop there");
    } else if (t->state == TWIN_WAITING) {
        t->admin_request = id;
        libxl__twin_tell(t, "the administrator says: %s", yes ? "promote" : "discard");
        if (yes)
            promote(t);
        else
            libxl__twin_drop(t, TWIN_REFUSED);
    } else {
        libxl__control_reply(ctl, id, "error it is being decided: see xl remus --status");
    }
}

/* ---- for the user ---- */

void libxl__twin_init(libxl__twin *t)
{
    memset(t, 0, sizeof(*t));
    t->recv_fd = t->send_fd = -1;
    libxl__channel_init(&t->channel);
    libxl__twin_child_init(&t->child);
    libxl__twin_disk_init(&t->disk);
    libxl__twin_warm_init(&t->warm);
    libxl__twin_domains_init(&t->domains);
    libxl__arbiter_init(&t->arbiter);
    libxl__control_init(&t->control);
    libxl__ev_time_init(&t->timer);
}

static int start_control(libxl__twin *t)
{
    if (!t->with_control) return 0;
    t->control.loop = t->loop;
    t->control.side = "backup";
    t->control.domain = t->c.domain;
    t->control.user = t;
    t->control.request = admin_asks;
    return libxl__control_start(&t->control);
}

static int start_channel(libxl__twin *t)
{
    libxl__channel *ch = &t->channel;

    ch->loop = t->loop;
    ch->recv_fd = t->recv_fd;
    ch->send_fd = t->send_fd;
    ch->limit_ms = t->c.limit_ms;
    ch->window = CHANNEL_WINDOW_DEFAULT;
    ch->prologue = t->prologue;
    ch->user = t;
    ch->frame = libxl__twin_frame_came;
    ch->lost = link_lost;
    ch->drained = channel_drained;
    return libxl__channel_start(ch);
}

static void prepare_disks(libxl__twin *t)
{
    t->disk.loop = t->loop;
    t->disk.domain = t->c.domain;
    t->disk.vdevs = t->disks;
    t->disk.n = t->num_disks;
    t->disk.user = t;
    t->disk.ready = libxl__twin_disks_ready;
    t->disk.committed = libxl__twin_disks_committed;
    t->disk.promoted = disks_promoted;
    t->disk.gone = libxl__twin_disks_gone;
}

static int start_looking(libxl__twin *t)
{
    t->domains.loop = t->loop;
    t->domains.stock_xl = t->stock_xl;
    t->domains.name = t->c.domain;
    t->domains.uuid = t->uuid;
    t->domains.builders = t->lock;
    t->domains.user = t;
    t->domains.done = domains_done;
    t->domains.memory_set = memory_set;
    return libxl__twin_domains_start(&t->domains);
}

int libxl__twin_start(libxl__twin *t)
{
    int rc;

    t->state = TWIN_LOOKING;
    prepare_disks(t);
    prepare_warm(t);
    rc = libxl__twin_stream_init(&t->stream, t->hold_limit);
    if (!rc) rc = libxl__twin_stream_prefix(&t->stream, t->prefix, t->prefix_len);
    if (!rc) rc = start_channel(t);
    if (!rc) {
        rc = start_control(t);
        if (rc == ERROR_LOCK_FAIL)
            send_error(t, "that guest is being received there already; if an old twin of it "
                          "waits there: xl remus --discard NAME");
    }
    if (!rc) rc = start_looking(t);
    if (rc) {
        send_error(t, "the receiver cannot start");
        libxl__twin_dispose(t);
    }
    return rc;
}

void libxl__twin_terminate(libxl__egc *egc, libxl__twin *t)
{
    if (t->state >= TWIN_PROMOTING) return;
    libxl__twin_give_up(t, "the receiver on %s was told to end", t->c.self);
}

void libxl__twin_dispose(libxl__twin *t)
{
    if (!t->loop) return;
    libxl__ev_time_deregister(t->loop, &t->timer);
    libxl__arbiter_dispose(&t->arbiter);
    libxl__channel_dispose(&t->channel);
    if (t->with_control) libxl__control_dispose(&t->control);
    if (t->lock) unlink(t->own_lock);
    libxl__twin_disk_dispose(&t->disk);
    libxl__twin_child_dispose(&t->child);
    libxl__twin_warm_dispose(&t->warm);
    libxl__twin_domains_dispose(&t->domains);
    libxl__twin_stream_dispose(&t->stream);
}
