/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest, its QEMU and its net buffer.
 *
 * A tick of the guest counts, writes the count into one page and sends a frame with the count. So its whole memory is a function of the
 * count, and a frame tells which state has sent it.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libxl_dom_suspend.h"
#include "libxl_guard.h"
#include "libxl_netbuffer.h"
#include "libxl_qmp_client.h"
#include "soak.h"

#define FRAMES_MAX 65536

struct frame {
    uint64_t seq, epoch;
};

struct guest guest;

/* Frames of the epoch that was closed, and of the one that runs. */
static struct frame held[2][FRAMES_MAX];
static size_t nr_held[2];
static bool holding, closed; /* anything was ever plugged; a closed epoch waits */

static libxl__dom_suspend *suspend;
static bool suspend_pending, suspend_done;
static bool suspend_taken; /* and not carried out yet: it cannot be withdrawn */
static int suspend_result;
static uintptr_t suspend_number;

bool guest_runs(void)
{
    return guest.here && !guest.suspended && !guest.paused && !guest.ended;
}

static unsigned page_of(uint64_t tick)
{
    return (unsigned)((tick * 7 + tick / 5) % PAGES);
}

void memory_after(uint64_t ticks, uint64_t page[PAGES])
{
    memset(page, 0, PAGES * sizeof(*page));
    /* The newest tick that wrote a page lies less than PAGES * 5 back. */
    for (uint64_t t = ticks > PAGES * 35 ? ticks - PAGES * 35 : 1; t <= ticks; t++)
        page[page_of(t)] = t;
}

static void send_frame(uint64_t seq)
{
    struct frame f = {seq, judge.suspends + 1};

    if (!guest.netbuf || !holding) {
        judge_frame_leaves(f.seq, 0);
    } else if (nr_held[1] < FRAMES_MAX) {
        held[1][nr_held[1]++] = f;
    }
}

static void tick(void *arg)
{
    unsigned page;

    if (!guest.here || guest.ended) return;
    after(setup.tick_ms, tick, NULL);
    if (!guest_runs() || guest.frozen_until > now_ms) return;
    guest.counter++;
    page = page_of(guest.counter);
    guest.page[page] = guest.counter;
    guest.dirty[page] = true;
    disks_guest_writes(guest.counter);
    send_frame(guest.counter);
}

void guest_start(void)
{
    guest = (struct guest){.here = true};
    nr_held[0] = nr_held[1] = 0;
    holding = closed = suspend_pending = suspend_done = suspend_taken = false;
    suspend = NULL;
    after(setup.tick_ms, tick, NULL);
}

/* ---- net buffer ---- */

/* Opened: no acknowledgement is needed any more, since this side goes on. */
static void let_go(size_t which, bool opened)
{
    for (size_t i = 0; i < nr_held[which]; i++)
        judge_frame_leaves(held[which][i].seq, opened ? 0 : held[which][i].epoch);
    nr_held[which] = 0;
}

void netbuf_open_and_remove(void)
{
    if (!guest.netbuf) return;
    judge_opens();
    let_go(0, true);
    let_go(1, true);
    guest.netbuf = holding = closed = false;
}

void netbuf_die(void)
{
    nr_held[0] = nr_held[1] = 0;
    guest.netbuf = holding = closed = false;
}

int libxl__netbuffer_discard(libxl__gc *gc, const char *ifb)
{
    netbuf_die();
    return 0;
}

static bool fails(void)
{
    bool f = guest.plug_fails;

    if (f) say("the net buffer fails");
    guest.plug_fails = false;
    return f;
}

void libxl__netbuffer_ifname(uint32_t domid, char name[16])
{
    strcpy(name, "remus1");
}

int libxl__netbuffer_setup(libxl__gc *gc, struct xs_handle *xs, uint32_t domid, bool hvm,
                           uint64_t limit, libxl__netbuffer **nb)
{
    if (fails()) return ERROR_FAIL;
    guest.netbuf = true;
    *nb = (libxl__netbuffer *)&guest;
    return 0;
}

int libxl__netbuffer_plug(libxl__gc *gc, libxl__netbuffer *nb)
{
    if (fails()) return ERROR_FAIL;
    if (closed) return ERROR_INVAL;
    assert(!nr_held[0]);
    memcpy(held[0], held[1], nr_held[1] * sizeof(held[0][0]));
    nr_held[0] = nr_held[1];
    nr_held[1] = 0;
    holding = closed = true;
    return 0;
}

int libxl__netbuffer_release(libxl__gc *gc, libxl__netbuffer *nb)
{
    if (fails()) return ERROR_FAIL;
    closed = false;
    let_go(0, false);
    return 0;
}

int libxl__netbuffer_stats(libxl__gc *gc, libxl__netbuffer *nb, struct netbuffer_stats *st)
{
    st->held_packets = nr_held[0] + nr_held[1];
    return 0;
}

int libxl__netbuffer_teardown(libxl__gc *gc, libxl__netbuffer *nb)
{
    if (fails()) {
        guest.plug_left = true;
        return ERROR_FAIL;
    }
    netbuf_open_and_remove();
    return 0;
}

void libxl__netbuffer_abandon(libxl__netbuffer *nb)
{
}

/* ---- suspend and resume ---- */

void libxl__dom_suspend_init(libxl__dom_suspend *ds)
{
}

int libxl__dom_suspend_prepare(libxl__dom_suspend *ds)
{
    suspend = ds;
    return 0;
}

static void tell_suspended(libxl__egc *egc, void *arg)
{
    if (!suspend_pending || suspend_number != (uintptr_t)arg) return;
    suspend_pending = false;
    suspend->suspended(egc, suspend, suspend_result);
}

static void ends_suspend(uintptr_t number, int result)
{
    if (!suspend_pending || suspend_done || suspend_number != number) return;
    suspend_done = true;
    suspend_result = result;
    post(XL, tell_suspended, (void *)number);
}

static void suspends_late(void *arg)
{
    if (guest_runs()) guest.suspended = true;
}

static void suspend_too_late(void *arg)
{
    if (!suspend_pending || suspend_number != (uintptr_t)arg) return;
    if (guest.deaf && setup.late_suspend) after(between(0, 8000), suspends_late, NULL);
    ends_suspend((uintptr_t)arg, ERROR_GUEST_TIMEDOUT);
}

static void guest_suspends(void *arg)
{
    if (!suspend_pending || suspend_number != (uintptr_t)arg || suspend_done) return;
    if (guest.ended) {
        ends_suspend((uintptr_t)arg, ERROR_DOMAIN_DESTROYED);
    } else if (guest.here && !guest.deaf) {
        guest.suspended = true;
        judge_suspended();
        ends_suspend((uintptr_t)arg, 0);
    }
}

/* Whether anybody waits for it or not. */
static void suspends_as_taken(void *arg)
{
    if (!suspend_taken) return;
    suspend_taken = false;
    if (suspend_pending && !suspend_done)
        guest_suspends(arg);
    else if (guest_runs())
        guest.suspended = true;
}

bool suspend_to_come(void)
{
    return suspend_taken && guest_runs();
}

int libxl__dom_suspend_start(libxl__dom_suspend *ds)
{
    suspend_pending = true;
    suspend_done = false;
    suspend_number++;
    suspend_taken = guest.late_ms;
    if (suspend_taken)
        after(guest.late_ms, suspends_as_taken, (void *)suspend_number);
    else
        after(between(0, 3), guest_suspends, (void *)suspend_number);
    guest.late_ms = 0;
    after(ds->limit_ms, suspend_too_late, (void *)suspend_number);
    return 0;
}

bool libxl__dom_suspend_pending(const libxl__dom_suspend *ds)
{
    return suspend_pending;
}

void libxl__dom_suspend_abort(libxl__egc *egc, libxl__dom_suspend *ds)
{
    if (suspend_taken) return;
    suspend_pending = false;
    ds->suspended(egc, ds, suspend_done ? suspend_result : ERROR_ABORTED);
}

/* By the guard, which waits for one that was taken. */
void suspend_withdraw(void)
{
    suspend_pending = suspend_taken = false;
}

void libxl__dom_suspend_dispose(libxl__dom_suspend *ds)
{
    suspend_pending = false;
    suspend = NULL;
}

int libxl__dom_resume_fast(libxl__gc *gc, xc_interface *xch, struct xs_handle *xs, uint32_t domid)
{
    guest.suspended = false;
    return 0;
}

bool libxl__dom_is_suspended(xc_interface *xch, uint32_t domid)
{
    return guest.here && guest.suspended && !guest.ended;
}

enum guest_end libxl__dom_end(xc_interface *xch, uint32_t domid)
{
    return guest.ended ? GUEST_POWEROFF : GUEST_LIVES;
}

int libxl__recover_undecided(libxl__gc *gc, uint32_t domid, bool *undecided)
{
    *undecided = false;
    return 0;
}

int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid)
{
    guest.paused = true;
    return 0;
}

int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned int sop, unsigned int *mb,
                      unsigned int mode)
{
    guest.logdirty = false;
    return 0;
}

/* ---- QEMU: does it when it answers; of what was cancelled only the dirty log, which it can abort about ---- */

enum { QMP_STOP, QMP_CONT, QMP_SAVE, QMP_LOG_ON, QMP_LOG_OFF };
static struct qmp_job {
    libxl__qmp_cmd *cmd;
    int what, fd, rc;
    bool done;
    uintptr_t number;
} jobs[2];
static uintptr_t job_number;

int libxl__qmp_open(libxl__loop *loop, uint32_t domid, libxl__qmp **qmp)
{
    *qmp = (libxl__qmp *)jobs;
    memset(jobs, 0, sizeof(jobs));
    return 0;
}

void libxl__qmp_close(libxl__qmp *qmp)
{
    memset(jobs, 0, sizeof(jobs));
}

void libxl__qmp_cmd_init(libxl__qmp_cmd *cmd)
{
    memset(cmd, 0, sizeof(*cmd));
}

static struct qmp_job *job_of(uintptr_t number)
{
    for (int i = 0; i < 2; i++)
        if (jobs[i].cmd && jobs[i].number == number) return &jobs[i];
    return NULL;
}

static void switch_log(int what)
{
    if (what != QMP_LOG_ON && what != QMP_LOG_OFF) return;
    if (what == QMP_LOG_OFF && !guest.qemu_log)
        judge_fail("QEMU is told to end a dirty log that it does not keep");
    guest.qemu_log = what == QMP_LOG_ON;
}

void libxl__qmp_cancel(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    for (int i = 0; i < 2; i++) {
        if (jobs[i].cmd != cmd) continue;
        if (!guest.qemu_hangs && !jobs[i].done) switch_log(jobs[i].what);
        jobs[i].cmd = NULL;
    }
}

static void qmp_answers(libxl__egc *egc, void *arg)
{
    struct qmp_job *j = job_of((uintptr_t)arg);
    libxl__qmp_cmd *cmd;

    if (!j) return;
    cmd = j->cmd;
    j->cmd = NULL;
    cmd->callback(egc, cmd, j->rc);
}

static void save_state(int fd)
{
    uint64_t state[8];

    for (int i = 0; i < 8; i++)
        state[i] = guest.counter;
    if (ftruncate(fd, 0) || pwrite(fd, state, sizeof(state), 0) != sizeof(state)) abort();
}

static void qmp_does(void *arg)
{
    struct qmp_job *j = job_of((uintptr_t)arg);

    if (!j || !procs[XL].alive) return;
    if (guest.qemu_hangs) {
        j->rc = ERROR_TIMEDOUT;
    } else {
        if (j->what == QMP_STOP) guest.qemu_stopped = true;
        if (j->what == QMP_CONT) guest.qemu_stopped = false;
        if (j->what == QMP_SAVE) save_state(j->fd);
        switch_log(j->what);
    }
    j->done = true;
    post(XL, qmp_answers, arg);
}

static int qmp_begin(libxl__qmp_cmd *cmd, int what, int fd)
{
    struct qmp_job *j = jobs[0].cmd ? &jobs[1] : &jobs[0];
    int most = what >= QMP_LOG_ON && setup.log_ms ? setup.log_ms : 3;

    assert(!j->cmd);
    *j = (struct qmp_job){cmd, what, fd, 0, false, ++job_number};
    after(guest.qemu_hangs ? cmd->limit_ms : between(0, most), qmp_does, (void *)job_number);
    return 0;
}

int libxl__qmp_stop(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    return qmp_begin(cmd, QMP_STOP, -1);
}

int libxl__qmp_cont(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    return qmp_begin(cmd, QMP_CONT, -1);
}

int libxl__qmp_save_state(libxl__qmp *qmp, libxl__qmp_cmd *cmd, int fd, bool live)
{
    return qmp_begin(cmd, QMP_SAVE, fd);
}

int libxl__qmp_global_dirty_log(libxl__qmp *qmp, libxl__qmp_cmd *cmd, bool enable)
{
    return qmp_begin(cmd, enable ? QMP_LOG_ON : QMP_LOG_OFF, -1);
}
