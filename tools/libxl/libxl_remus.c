/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Remus: a running guest on the primary, its state at the backup, checkpoint by checkpoint.
 *
 *   guest    running | asked |        suspended            | running ........................... | asked
 *   output   epoch n is held ....... plug: n closed, n+1 held ............. release n | n+1 held ...
 *   helper                        | copy dirty pages | .. | encode, send ..... |
 *   backup                                                 | hold ... commit n: whole -> ack n
 *            ---------------------^----------------------^---------------------^-----------^--> time
 *                                 suspended              resumed               commit      ack
 *
 * Who runs where: everything here in the primary's xl (or whoever linked the library), on one thread; the copy in
 * libxl-save-helper; the hold in the backup's twin. A checkpoint has the number of the epoch it ends.
 *
 * Invariants
 *  1. Output of epoch n leaves the host only after the backup has acknowledged checkpoint n, and only under a valid lease.
 *     (release_output; bare mode, which the user must ask for, has no acknowledgement.)
 *  2. At most one checkpoint is unacknowledged: the guest is asked again only after the release.
 *  3. QEMU stands still from before the first page is copied until its state is saved: memory and device state are of one instant.
 *  4. From the moment COMMIT 1 is queued the backup may run, and the guard knows it before.
 *  5. Any error leads to remus_undo_plan (libxl_remus_end.c).
 */
#include "libxl_remus.h"
#include "libxl_remus_disks.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_SUSPEND_MS 125000 /* two waits of LIBXL's 60 s inside */
#define LIMIT_NETLINK_MS 10000
#define LIMIT_COPY_MS 60000
#define LIMIT_QMP_MS 60000
#define LIMIT_DISK_MS 30000
#define LIMIT_SEND_MS 600000 /* a living but slow backup; a dead one is noticed by its silence */
#define LEASE_POLL_MS 20

#define EMULATOR_QEMU_UPSTREAM 2
#define REC_EMULATOR_CONTEXT 3
#define REC_CHECKPOINT_END 4

static void suspend_guest(libxl__egc *egc, libxl__epoch *ep);
static void plug_output(libxl__egc *egc, libxl__epoch *ep);
static void stop_devices(libxl__egc *egc, libxl__epoch *ep);
static void copy_memory(libxl__egc *egc, libxl__epoch *ep);
static void await_device_state(libxl__egc *egc, libxl__epoch *ep);
static void resume_guest(libxl__egc *egc, libxl__epoch *ep);
static void send_memory(libxl__egc *egc, libxl__epoch *ep);
static void send_device_state(libxl__egc *egc, libxl__epoch *ep);
static void await_ack(libxl__egc *egc, libxl__epoch *ep);
static void release_output(libxl__egc *egc, libxl__epoch *ep);
static void sleep_interval(libxl__egc *egc, libxl__epoch *ep);
static void next_checkpoint(libxl__egc *egc, libxl__epoch *ep);

const struct step remus_plan[] = {
    {"suspend the guest", suspend_guest, LIMIT_SUSPEND_MS},
    {"close the epoch's output", plug_output, LIMIT_NETLINK_MS},
    {"stop the device model", stop_devices, LIMIT_QMP_MS},
    {"copy dirty memory", copy_memory, LIMIT_COPY_MS},
    {"save the device state", await_device_state, LIMIT_QMP_MS},
    {"close the disks' epoch", remus_close_disks_epoch, LIMIT_DISK_MS},
    {"resume the guest", resume_guest, LIMIT_QMP_MS},
    {"send the memory", send_memory, LIMIT_SEND_MS},
    {"send the device state", send_device_state, LIMIT_SEND_MS},
    {"await the backup's acknowledgement", await_ack, LIMIT_SEND_MS},
    {"release the epoch's output", release_output, LIMIT_SEND_MS},
    {"sleep to the next checkpoint", sleep_interval, NO_LIMIT},
    {"ask for the next checkpoint", next_checkpoint, LIMIT_COPY_MS},
    {0},
};

uint64_t remus_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

static uint64_t wall_clock_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

void remus_wait_for(libxl__remus *rm, enum remus_wait what)
{
    rm->wait = what;
}

void remus_event(libxl__egc *egc, libxl__remus *rm, enum remus_wait what, int rc)
{
    if (!rm->epoch.running || rm->wait != what) return;
    rm->wait = WAIT_NOTHING;
    libxl__epoch_next(egc, &rm->epoch, rc);
}

void remus_message(libxl__remus *rm, const char *fmt, ...)
{
    char line[512];
    va_list al;

    va_start(al, fmt);
    vsnprintf(line, sizeof(line), fmt, al);
    va_end(al);
    LOG(rm->gc, INFO, "%s", line);
    if (rm->info.message) rm->info.message(rm->info.user, line);
}

static void suspend_guest(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    rm->checkpoint = rm->acked + 1;
    rm->asked_us = remus_now_us();
    rm->state_saved = rm->device_failed = rm->helper_wants_checkpoint = false;
    remus_wait_for(rm, WAIT_SUSPENDED); /* libxl_remus_start.c: guest_suspended */
    rc = libxl__dom_suspend_start(&rm->suspend);
    if (rc) remus_event(egc, rm, WAIT_SUSPENDED, rc);
}

static void plug_output(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    /* The guest is suspended here: everything it has sent so far belongs to this epoch. */
    rm->suspended_us = remus_now_us();
    if (!rm->told_unwatched && rm->info.unwatched) rm->info.unwatched(rm->info.user);
    rm->told_unwatched = true;
    libxl__epoch_next(egc, ep, rm->netbuf ? libxl__netbuffer_plug(rm->gc, rm->netbuf) : 0);
}

static void stop_devices_done(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    remus_event(egc, cmd->user, WAIT_DEVICES_RUN, rc);
}

static void stop_devices(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    if (rm->kind != GUEST_HVM) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_wait_for(rm, WAIT_DEVICES_RUN);
    rm->vm_stopped = true;
    rm->qmp_first.callback = stop_devices_done;
    rc = libxl__qmp_stop(rm->qmp, &rm->qmp_first);
    if (rc) remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
}

static void state_saved(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    libxl__remus *rm = cmd->user;

    rm->state_saved = true;
    rm->device_failed = rc != 0;
    remus_event(egc, rm, WAIT_DEVICE_STATE, rc);
}

static void copy_memory(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    remus_wait_for(rm, WAIT_POSTCOPY_CALL); /* libxl_remus_start.c: helper_calls */
    libxl__save_callout_reply(&rm->helper, 1);
    if (rm->kind != GUEST_HVM) return;
    /* QEMU writes its state while the helper copies; live=false: it keeps its images. */
    rm->qmp_second.callback = state_saved;
    rc = libxl__qmp_save_state(rm->qmp, &rm->qmp_second, rm->state_fd, false);
    if (rc) remus_event(egc, rm, WAIT_POSTCOPY_CALL, rc);
}

static void await_device_state(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    if (rm->kind == GUEST_HVM && !rm->state_saved) {
        remus_wait_for(rm, WAIT_DEVICE_STATE);
        return;
    }
    libxl__epoch_next(egc, ep, rm->device_failed ? ERROR_FAIL : 0);
}

static void devices_run(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    libxl__remus *rm = cmd->user;

    if (!rc) {
        rm->vm_stopped = false;
        rc = libxl__dom_resume_fast(rm->gc, rm->xch, libxl__loop_xs(rm->loop), rm->domid);
        rm->resumed_us = remus_now_us();
        rm->resumed_ms = libxl__loop_now_ms(rm->loop);
    }
    remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
}

static void resume_guest(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    remus_wait_for(rm, WAIT_DEVICES_RUN);
    rm->qmp_first.callback = devices_run;
    if (rm->kind != GUEST_HVM) {
        devices_run(egc, &rm->qmp_first, 0);
        return;
    }
    rc = libxl__qmp_cont(rm->qmp, &rm->qmp_first);
    if (rc) remus_event(egc, rm, WAIT_DEVICES_RUN, rc);
}

static void send_memory(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    /* The guest runs from here on: nothing below belongs to its pause. */
    remus_wait_for(rm, WAIT_CHECKPOINT_CALL); /* helper_calls, when the stream is drained */
    libxl__save_callout_reply(&rm->helper, 1);
}

static int queue_device_state(libxl__remus *rm)
{
    const uint32_t head[2] = {EMULATOR_QEMU_UPSTREAM, 0};
    struct stat st;
    void *state;
    int rc;

    if (fstat(rm->state_fd, &st) || st.st_size == 0) {
        LOG(rm->gc, ERROR, "domain %u: the device model saved no state", rm->domid);
        return ERROR_FAIL;
    }
    state = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, rm->state_fd, 0);
    if (state == MAP_FAILED) {
        LOG(rm->gc, ERROR, "domain %u: cannot map the device state", rm->domid);
        return ERROR_NOMEM;
    }
    rc = remus_stream_record(rm, REC_EMULATOR_CONTEXT, head, sizeof(head), state,
                             (size_t)st.st_size);
    munmap(state, (size_t)st.st_size);
    rm->stats.device_bytes = (uint64_t)st.st_size;
    return rc;
}

static void send_device_state(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc = 0;

    if (rm->kind == GUEST_HVM) rc = queue_device_state(rm);
    if (!rc) rc = remus_stream_record(rm, REC_CHECKPOINT_END, NULL, 0, NULL, 0);
    if (rc) {
        libxl__epoch_next(egc, ep, rc);
        return;
    }
    if (rm->info.acknowledged) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    remus_wait_for(rm, WAIT_WRITTEN);
    rc = remus_stream_flush_bare(rm);
    if (rc) remus_event(egc, rm, WAIT_WRITTEN, rc);
}

static void await_ack(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int rc;

    rm->committed_us = remus_now_us();
    if (!rm->info.acknowledged) {
        rm->acked = rm->checkpoint;
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    if (!rm->commit_sent) libxl__guard_update(&rm->guard, 'P', rm->acked);
    rm->commit_sent = true;
    remus_wait_for(rm, WAIT_ACK); /* libxl_remus_start.c: frame_came */
    rc = remus_stream_commit(rm);
    if (rc) remus_event(egc, rm, WAIT_ACK, rc);
}

static void report(libxl__remus *rm)
{
    libxl_checkpoint_stats *s = &rm->stats;
    struct netbuffer_stats nb = {0};

    s->epoch = rm->acked;
    s->pause_us = rm->resumed_us - rm->asked_us;
    s->suspend_us = rm->suspended_us - rm->asked_us;
    s->hold_us = remus_now_us() - rm->suspended_us;
    s->ack_us = remus_now_us() - rm->committed_us;
    s->bytes = rm->stream_bytes;
    /* Plain pages take 4096 of data and 8 of pfn each; the rest is small. */
    s->pages = rm->helper.checkpoint_pages ? rm->helper.checkpoint_pages : rm->stream_bytes / 4104;
    s->unacked = rm->checkpoint - rm->acked;
    if (rm->netbuf && !libxl__netbuffer_stats(rm->gc, rm->netbuf, &nb)) {
        s->held_packets = nb.held_packets;
        s->held_bytes = nb.held_bytes;
        s->dropped_packets = nb.dropped_packets;
    }
    if (rm->info.checkpoint_done) rm->info.checkpoint_done(rm->info.user, s);
    rm->stream_bytes = 0;
    if (rm->acked == 1)
        remus_message(rm, "domain %u is protected: the backup holds checkpoint 1", rm->domid);
}

static void look_at_lease(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, timer);
    int rc = 0;

    if (rm->info.acknowledged && !libxl__channel_lease_valid(&rm->channel)) {
        rc = libxl__ev_time_register_rel(rm->loop, &rm->timer, look_at_lease, LEASE_POLL_MS);
        if (!rc) return; /* a lost peer interrupts this wait */
    }
    rm->stats.released_us = wall_clock_us();
    if (!rc && rm->netbuf) rc = libxl__netbuffer_release(rm->gc, rm->netbuf);
    if (!rc) report(rm);
    remus_event(egc, rm, WAIT_LEASE, rc);
}

static void release_output(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    remus_wait_for(rm, WAIT_LEASE);
    look_at_lease(egc, &rm->timer);
}

static void slept(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, timer);

    remus_event(egc, rm, WAIT_SLEEP, 0);
}

static void sleep_interval(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);
    int64_t ms = rm->resumed_ms + rm->info.remus.interval - libxl__loop_now_ms(rm->loop);
    int rc;

    if (rm->info.max_checkpoints && rm->acked >= rm->info.max_checkpoints) {
        libxl__epoch_next(egc, ep, ERROR_ABORTED);
        return;
    }
    remus_wait_for(rm, WAIT_SLEEP);
    rc = libxl__ev_time_register_rel(rm->loop, &rm->timer, slept, ms > 0 ? ms : 0);
    if (rc) remus_event(egc, rm, WAIT_SLEEP, rc);
}

static void next_checkpoint(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    remus_wait_for(rm, WAIT_SUSPEND_CALL); /* helper_calls */
    libxl__save_callout_reply(&rm->helper, 1);
}
