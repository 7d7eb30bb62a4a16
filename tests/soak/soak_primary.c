/* SPDX-License-Identifier: LGPL-2.1-only */
/* The primary host: the operation's surroundings, and a model of the guard. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../fault/fault_stubs.h"
#include "libxl_arbiter.h"
#include "libxl_control.h"
#include "libxl_guard.h"
#include "libxl_replication.h"
#include "soak.h"

static libxl__loop *loop; /* the operation's */
static int nr_completions, result;
static int xl_fd = -1;

libxl__loop *stub_loop(void)
{
    return loop;
}

void stub_completed(int rc)
{
    say("the operation is over: %d", rc);
    nr_completions++;
    result = rc;
}

bool stub_guest_is_hvm(void)
{
    return setup.hvm;
}

int completions(void)
{
    return nr_completions;
}

int completion_result(void)
{
    return result;
}

/* ---- the guard, as docs/misc/arbiter.md says; its arbiter is the real one ---- */

static struct {
    libxl__guard *g;
    bool alive, acting;
    char phase;
    libxl__arbiter arbiter;
} guard;

static void guard_is_done(void)
{
    guard.alive = false;
}

static void guard_goes_on(void)
{
    say("the guard: the guest goes on");
    suspend_withdraw();
    if (!guest.qemu_hangs) guest.qemu_stopped = guest.qemu_log = false;
    guest.suspended = guest.paused = guest.logdirty = false;
    disks_go_on_here();
    netbuf_open_and_remove();
    guard_is_done();
}

static void guard_stays_stopped(void)
{
    say("the guard: the guest stays stopped");
    suspend_withdraw();
    guest.paused = true;
    guard_is_done();
}

static void guard_leaves(void *arg)
{
    if (!procs[GUARD].alive) return;
    libxl__arbiter_dispose(&guard.arbiter);
    proc_exit(GUARD);
}

static void guard_hears(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why)
{
    say("verdict: %s: %s", granted ? "granted" : "refused", why);
    if (granted)
        guard_goes_on();
    else
        guard_stays_stopped();
    after(0, guard_leaves, NULL);
}

static void guard_asks(void)
{
    libxl__clock clock = proc_clock(GUARD);
    libxl__loop *l;

    if (setup.arbiter || setup.rule_backup) guest.paused = true;
    if (libxl__loop_new(&l, sim_logger(), &clock)) abort();
    proc_start(GUARD, l);
    libxl__arbiter_init(&guard.arbiter);
    guard.arbiter.loop = l;
    guard.arbiter.c = guard.g->c;
    guard.arbiter.c.primary = true;
    guard.arbiter.verdict = guard_hears;
    if (libxl__arbiter_ask(&guard.arbiter)) abort();
}

static void guard_acts(void *arg)
{
    if (!guard.alive || guard.acting) return;
    say("the guard: the operation died in phase %c", guard.phase);
    guard.acting = true;
    if (!guest.here || guest.ended) {
        netbuf_die();
        guard_is_done();
    } else if (guard.phase == 'U') {
        guard_goes_on();
    } else if (guard.phase == 'S') {
        guard_stays_stopped();
    } else {
        guard_asks();
    }
}

static void guard_parent_gone(void)
{
    if (guard.alive) after(between(0, 200), guard_acts, NULL);
}

bool guard_gone(void)
{
    return !guard.alive;
}

static void guard_died(libxl__egc *egc, void *arg)
{
    if (!guard.g) return;
    guard.alive = true; /* started again, and told the phase */
    if (guard.g->died) guard.g->died(egc, guard.g, 0);
}

void guard_kill(void)
{
    say("the guard is killed");
    if (!guard.alive) return;
    guard.alive = false;
    proc_kill(GUARD);
    post(XL, guard_died, NULL);
}

void libxl__guard_init(libxl__guard *g)
{
    memset(&guard, 0, sizeof(guard));
    g->phase = 'U';
}

int libxl__guard_start(libxl__guard *g)
{
    guard.g = g;
    guard.alive = true;
    guard.phase = 'U';
    return 0;
}

void libxl__guard_update(libxl__guard *g, char phase, uint64_t epoch)
{
    guard.phase = phase;
}

void libxl__guard_stop(libxl__guard *g)
{
    guard.alive = false;
    guard.g = NULL;
}

/* ---- control sockets ---- */

void libxl__control_init(libxl__control *c)
{
    c->st = NULL;
}

int libxl__control_start(libxl__control *c)
{
    return 0;
}

void libxl__control_reply(libxl__control *c, unsigned id, const char *text)
{
    say("control: %s", text);
}

void libxl__control_dispose(libxl__control *c)
{
}

/* ---- start and end ---- */

static void message(void *user, const char *line)
{
    say("%s", line);
}

void primary_start(int fd)
{
    libxl__clock clock = proc_clock(XL);
    libxl_replication_info info;

    guest_start();
    helper_start();
    nr_completions = result = 0;
    libxl_replication_info_init(&info);
    info.acknowledged = true;
    info.remus.interval = setup.interval_ms;
    info.limit_ms = setup.limit_ms;
    info.on_link_loss = setup.rule_backup ? LIBXL_LINK_LOSS_BACKUP : LIBXL_LINK_LOSS_PRIMARY;
    info.arbiter = setup.arbiter ? "witness" : NULL;
    info.domain_name = "guest";
    info.self_name = "hostA";
    info.peer_name = "hostB";
    info.session = "session";
    info.max_checkpoints = setup.checkpoints;
    info.disks = disk_names;
    info.num_disks = (unsigned)setup.disks;
    info.disk_link = disks_link_fd;
    info.message = message;
    info.lg = sim_logger();
    xl_fd = fd;
    current = XL;
    sim_own(fd);
    if (libxl__loop_new(&loop, sim_logger(), &clock)) abort();
    libxl_replication_start(NULL, &info, 1, fd, fd, NULL);
    current = NOBODY;
    proc_start(XL, loop);
}

/* The program ends when its operation does. */
void primary_look(void)
{
    if (!procs[XL].alive || !nr_completions) return;
    judge.settled_ms = now_ms;
    close(xl_fd);
    proc_exit(XL);
}

static void stops(libxl__egc *egc, void *arg)
{
    if (!nr_completions) stub_abort();
}

void user_stops(void)
{
    say("the user ends the protection");
    post(XL, stops, NULL);
}

void xl_is_killed(void)
{
    proc_kill(XL);
    helper_parent_gone();
    guard_parent_gone();
}

void primary_host_dies(void)
{
    say("the primary host dies");
    guest.here = false;
    netbuf_die();
    suspend_withdraw();
    link_source_dies(true);
    disks_of_host_die(0);
    guard.alive = false;
    proc_kill(GUARD);
    proc_kill(XL);
    helper_start();
}
