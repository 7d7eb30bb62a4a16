/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Fakes with the names of the modules under the plan. Each fallible call goes through faulty(), which says whether it is
 * the one to fail; what would take time is answered at the next turn of the loop.
 */
#include "fault_stubs.h"
#include "fault_world.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libxl_remus.h"

struct world world;

static libxl__loop *loop;
static int64_t now;
static int null_fd;
static xentoollog_logger *quiet;
static libxl__save_callout *helper;
static libxl__channel *channel;
static libxl__dom_suspend *suspend;
static int suspends; /* requests so far */
static int64_t taken_ms,
    suspend_ms; /* a request: when it was taken, when it is carried out; 0: none */
static bool hvm;
static bool hello_due, stop_due, peer_silent;
static bool stop_read; /* nothing can bring the twin back; STOPPED is sent at stopped_ms */
static int64_t stopped_ms;
static uint64_t ack_due;
static struct world_setup how;
/* What the helper asks next. */
static enum {
    ASKS_LOG_ON,
    ASKS_SUSPEND,
    ASKS_POSTCOPY,
    ASKS_CHECKPOINT,
    ASKS_LOG_OFF,
    LEAVES
} helper_step;
static bool helper_alive, helper_waits, suspend_due, terminated, killed;
static int helper_fd = -1; /* its end of the stream */
static int helper_turns;   /* until it looks or leaves */
static struct qmp_job {
    libxl__qmp_cmd *cmd;
    enum { QMP_OTHER, QMP_LOG_ON, QMP_LOG_OFF } what;
    bool sent;
    int turns;
} qmp_queue[2]; /* the first is under way */
static libxl__arbiter *arbiter_due;
static libxl__control *control;

bool world_faulty(void)
{
    return ++world.calls == world.fail_call;
}

static bool faulty(void)
{
    return world_faulty();
}

static int64_t fake_now(void *user)
{
    return now;
}

static void fake_advance(void *user, int64_t until_ms)
{
    now = until_ms == INT64_MAX ? now + 1000 : until_ms;
}

static const libxl__clock fake_clock = {fake_now, fake_advance, NULL};

/* --- what fault_stubs.c asks for --- */
libxl__loop *stub_loop(void)
{
    return loop;
}
void stub_completed(int rc)
{
    world.completions++;
    world.result = rc;
}
bool stub_guest_is_hvm(void)
{
    return hvm;
}

/* --- guest --- */
int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned int sop, unsigned int *mb,
                      unsigned int mode)
{
    world.log_ends++;
    return 0;
}
void libxl__dom_suspend_init(libxl__dom_suspend *ds)
{
}
int libxl__dom_suspend_prepare(libxl__dom_suspend *ds)
{
    if (faulty()) return ERROR_FAIL;
    world.open_things++;
    suspend = ds;
    return 0;
}
int libxl__dom_suspend_start(libxl__dom_suspend *ds)
{
    if (++suspends == how.late_suspend) {
        taken_ms = now;
        suspend_ms = now + how.late_ms;
    } else {
        suspend_due = true;
    }
    return 0;
}
bool libxl__dom_suspend_pending(const libxl__dom_suspend *ds)
{
    return suspend_due || taken_ms;
}
void libxl__dom_suspend_abort(libxl__egc *egc, libxl__dom_suspend *ds)
{
    if (!suspend_due) return; /* what was taken cannot be withdrawn */
    suspend_due = false;
    ds->suspended(egc, ds, ERROR_ABORTED);
}
void libxl__dom_suspend_dispose(libxl__dom_suspend *ds)
{
    if (suspend) world.open_things--;
    suspend = NULL;
}
int libxl__dom_resume_fast(libxl__gc *gc, xc_interface *xch, struct xs_handle *xs, uint32_t domid)
{
    if (world.guest == GUEST_IS_SUSPENDED) {
        if (faulty()) return ERROR_FAIL;
        world.guest = GUEST_IS_RUNNING;
        world.resumes++;
    }
    return 0;
}
bool libxl__dom_is_suspended(xc_interface *xch, uint32_t domid)
{
    return world.guest == GUEST_IS_SUSPENDED;
}
enum guest_end libxl__dom_end(xc_interface *xch, uint32_t domid)
{
    if (world.guest != GUEST_IS_ENDED) return GUEST_LIVES;
    return how.destroyed ? GUEST_GONE : GUEST_POWEROFF;
}
int libxl__recover_undecided(libxl__gc *gc, uint32_t domid, bool *undecided)
{
    *undecided = world.undecided;
    return faulty() ? ERROR_FAIL : 0;
}
int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid)
{
    world.guest = GUEST_IS_PAUSED;
    return 0;
}

/* --- QEMU --- */
int libxl__qmp_open(libxl__loop *l, uint32_t domid, libxl__qmp **qmp)
{
    if (faulty()) return ERROR_FAIL;
    world.open_things++;
    *qmp = (libxl__qmp *)&world;
    return 0;
}
void libxl__qmp_close(libxl__qmp *qmp)
{
    if (qmp) world.open_things--;
}
void libxl__qmp_cmd_init(libxl__qmp_cmd *cmd)
{
    memset(cmd, 0, sizeof(*cmd));
}
static void qmp_unlink(int i)
{
    if (!i) qmp_queue[0] = qmp_queue[1];
    qmp_queue[1] = (struct qmp_job){0};
}
/* What QEMU has got it does. */
void libxl__qmp_cancel(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    for (int i = 1; i >= 0; i--)
        if (qmp_queue[i].cmd == cmd) qmp_unlink(i);
}
static int qmp_begin(libxl__qmp_cmd *cmd, struct qmp_job job)
{
    int i = qmp_queue[0].cmd ? 1 : 0;

    if (faulty()) {
        world.qmp_failed = true;
        return ERROR_FAIL;
    }
    if (qmp_queue[i].cmd) abort();
    qmp_queue[i] = job;
    qmp_queue[i].cmd = cmd;
    return 0;
}
static int qmp_later(libxl__qmp_cmd *cmd)
{
    return qmp_begin(cmd, (struct qmp_job){.what = QMP_OTHER});
}
static void qmp_turn(libxl__egc *egc)
{
    struct qmp_job *job = &qmp_queue[0];
    libxl__qmp_cmd *cmd = job->cmd;

    if (!cmd) return;
    if (!job->sent) {
        job->sent = true;
        if (job->what == QMP_LOG_OFF && !world.qemu_log) world.qemu_aborted = true;
        if (job->what != QMP_OTHER) world.qemu_log = job->what == QMP_LOG_ON;
    }
    if (job->turns--) return;
    qmp_unlink(0);
    cmd->callback(egc, cmd, 0);
}
int libxl__qmp_stop(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    world.vm_stopped = true;
    return qmp_later(cmd);
}
int libxl__qmp_cont(libxl__qmp *qmp, libxl__qmp_cmd *cmd)
{
    int rc = qmp_later(cmd);

    if (!rc) world.vm_stopped = false;
    return rc;
}
int libxl__qmp_save_state(libxl__qmp *qmp, libxl__qmp_cmd *cmd, int fd, bool live)
{
    if (ftruncate(fd, 100)) abort();
    return qmp_later(cmd);
}
int libxl__qmp_global_dirty_log(libxl__qmp *qmp, libxl__qmp_cmd *cmd, bool enable)
{
    return qmp_begin(
        cmd, (struct qmp_job){.what = enable ? QMP_LOG_ON : QMP_LOG_OFF, .turns = how.log_turns});
}

/* --- output --- */
void libxl__netbuffer_ifname(uint32_t domid, char name[16])
{
    strcpy(name, "remus1");
}
int libxl__netbuffer_setup(libxl__gc *gc, struct xs_handle *xs, uint32_t domid, bool is_hvm,
                           uint64_t limit, libxl__netbuffer **nb)
{
    if (faulty()) return ERROR_FAIL;
    world.plug = PLUG_OPEN;
    *nb = (libxl__netbuffer *)&world;
    return 0;
}
int libxl__netbuffer_plug(libxl__gc *gc, libxl__netbuffer *nb)
{
    if (faulty()) return ERROR_FAIL;
    if (world.plug == PLUG_CLOSED && world.plugged != world.released)
        world.early_output = true; /* two closed epochs: the first would get lost or out */
    world.plug = PLUG_CLOSED;
    world.plugged++;
    return 0;
}
int libxl__netbuffer_release(libxl__gc *gc, libxl__netbuffer *nb)
{
    if (world.plugged > world.acked) world.early_output = true;
    if (faulty()) return ERROR_FAIL;
    world.released = world.plugged;
    return 0;
}
int libxl__netbuffer_stats(libxl__gc *gc, libxl__netbuffer *nb, struct netbuffer_stats *st)
{
    return 0;
}
static bool backup_may_run(void)
{
    return world.backup_has_checkpoint && !world.twin_dropped;
}
int libxl__netbuffer_teardown(libxl__gc *gc, libxl__netbuffer *nb)
{
    if (world.plug == PLUG_CLOSED && backup_may_run() && world.denied) world.early_output = true;
    world.plug = PLUG_NONE;
    if (faulty()) {
        world.teardown_failed = true;
        return ERROR_FAIL;
    }
    return 0;
}
void libxl__netbuffer_abandon(libxl__netbuffer *nb)
{
}
int libxl__netbuffer_discard(libxl__gc *gc, const char *ifb)
{
    world.plug = PLUG_NONE;
    return 0;
}

/* --- helper --- */
void libxl__save_callout_init(libxl__save_callout *co)
{
    memset(co, 0, sizeof(*co));
    libxl__ev_child_init(&co->child);
}
int libxl__save_callout_start(libxl__save_callout *co)
{
    if (faulty()) return ERROR_FAIL;
    helper = co;
    co->child.pid = 1;
    helper_alive = true;
    helper_step = ASKS_LOG_ON;
    helper_fd = fcntl(co->stream_fd, F_DUPFD_CLOEXEC, 3);
    world.open_things++;
    return 0;
}
/* It puts back what it has changed. */
static void helper_gives_up(void)
{
    helper_step = helper_step == ASKS_LOG_ON || !hvm ? LEAVES : ASKS_LOG_OFF;
    helper_turns = helper_step == LEAVES ? how.leave_turns : how.look_turns;
}
void libxl__save_callout_reply(libxl__save_callout *co, int value)
{
    if (!co->asked) world.unasked_answer = true;
    co->asked = false;
    helper_waits = false;
    if (helper_step == ASKS_LOG_OFF) {
        helper_step = LEAVES;
        helper_turns = how.leave_turns;
    } else if (helper_step == ASKS_LOG_ON && !value) {
        helper_step = ASKS_SUSPEND;
    } else if (value == 1) {
        helper_step = helper_step == ASKS_CHECKPOINT ? ASKS_SUSPEND : helper_step + 1;
    } else {
        helper_gives_up();
    }
}
void libxl__save_callout_terminate(libxl__save_callout *co, int grace_ms)
{
    if (!terminated) how.grace_turns++; /* counted from the next turn on */
    terminated = true;
}
void libxl__save_callout_dispose(libxl__save_callout *co)
{
}
static void helper_exits(libxl__egc *egc, bool clean)
{
    helper_alive = false;
    close(helper_fd);
    helper->child.pid = -1;
    world.open_things--;
    helper->exited(egc, helper, clean);
}
static bool stream_has_ended(void)
{
    struct pollfd p = {.fd = helper_fd};

    return poll(&p, 1, 0) > 0 && p.revents & POLLHUP;
}
static void helper_turn(libxl__egc *egc)
{
    static const enum helper_call asks[] = {HELPER_SWITCH_LOGDIRTY, HELPER_SUSPEND, HELPER_POSTCOPY,
                                            HELPER_CHECKPOINT, HELPER_SWITCH_LOGDIRTY};

    if (!helper_alive) return;
    if (killed || (terminated && !--how.grace_turns)) {
        helper_exits(egc, false);
        return;
    }
    if (helper_waits) return;
    if (helper_step < ASKS_LOG_OFF && (terminated || stream_has_ended())) helper_gives_up();
    if (helper_step >= ASKS_LOG_OFF && helper_turns-- > 0) return;
    if (helper_step == LEAVES) {
        helper_exits(egc, true);
        return;
    }
    helper_waits = true;
    helper->asked = true;
    helper->call(egc, helper, asks[helper_step], helper_step == ASKS_LOG_ON);
}

/* --- channel and backup --- */
void libxl__channel_init(libxl__channel *ch)
{
}
int libxl__channel_start(libxl__channel *ch)
{
    if (faulty()) return ERROR_FAIL;
    channel = ch;
    hello_due = true;
    world.open_things++;
    return 0;
}
void libxl__channel_dispose(libxl__channel *ch)
{
    if (channel) world.open_things--;
    channel = NULL;
}
int libxl__channel_send(libxl__channel *ch, unsigned type, uint64_t arg, const void *body,
                        size_t len)
{
    if (faulty()) return ERROR_FAIL;
    if (type == CHANNEL_COMMIT) {
        world.backup_has_checkpoint = true;
        ack_due = arg;
    } else if (type == CHANNEL_STOP) {
        stop_due = true;
    }
    return 0;
}
int libxl__channel_commit(libxl__channel *ch, uint64_t n, uint64_t bytes, uint64_t xxh3)
{
    return libxl__channel_send(ch, CHANNEL_COMMIT, n, NULL, 0);
}
size_t libxl__channel_data_room(libxl__channel *ch)
{
    return 65536;
}
bool libxl__channel_lease_valid(const libxl__channel *ch)
{
    return !peer_silent;
}
void libxl__channel_text(const void *body, size_t len, char *out, size_t room)
{
    out[0] = 0;
}
bool libxl__channel_stop_read(const libxl__channel *ch)
{
    return stop_read;
}
int64_t libxl__channel_silence_ms(const libxl__channel *ch)
{
    return 0;
}
static void deliver(libxl__egc *egc, unsigned type, uint64_t arg)
{
    channel->frame(egc, channel, type, arg, "", 0);
}
static void backup_turn(libxl__egc *egc)
{
    if (!channel || peer_silent) return;
    if (hello_due) {
        hello_due = false;
        deliver(egc, CHANNEL_HELLO, 1);
    } else if (ack_due) {
        world.acked = ack_due;
        ack_due = 0;
        deliver(egc, CHANNEL_ACK, world.acked);
    } else if (stop_due) {
        stop_due = false;
        stop_read = world.twin_dropped = true;
        stopped_ms = now + how.drop_ms;
    } else if (stopped_ms && now >= stopped_ms) {
        stopped_ms = 0;
        deliver(egc, CHANNEL_STOPPED, 0);
    }
}

/* --- who may run --- */
void libxl__arbiter_init(libxl__arbiter *a)
{
}
int libxl__arbiter_ask(libxl__arbiter *a)
{
    arbiter_due = a;
    return 0;
}
void libxl__arbiter_dispose(libxl__arbiter *a)
{
}
void libxl__guard_init(libxl__guard *g)
{
    g->phase = 0;
}
int libxl__guard_start(libxl__guard *g)
{
    if (faulty()) return ERROR_FAIL;
    g->phase = 'U';
    world.guards++;
    world.open_things++;
    return 0;
}
void libxl__guard_update(libxl__guard *g, char phase, uint64_t epoch)
{
    if (g->phase) g->phase = phase;
}
void libxl__guard_stop(libxl__guard *g)
{
    if (g->phase) world.open_things--;
    g->phase = 0;
}
void libxl__control_init(libxl__control *c)
{
    c->st = NULL;
}
int libxl__control_start(libxl__control *c)
{
    if (faulty()) return ERROR_LOCK_FAIL;
    world.open_things++;
    c->st = (void *)&world;
    control = c;
    return 0;
}
void libxl__control_reply(libxl__control *c, unsigned id, const char *text)
{
}
void libxl__control_dispose(libxl__control *c)
{
    if (c->st) world.open_things--;
    c->st = NULL;
    control = NULL;
}
int libxl__control_call(libxl__gc *gc, const char *side, const char *domain, const char *line,
                        int limit_ms, char **answer)
{
    return ERROR_NOTFOUND;
}

/* --- the test's hand on it --- */
static int fake_link(void *user, unsigned disk)
{
    return faulty() ? -1 : null_fd;
}

void world_start(const struct world_setup *setup)
{
    libxl_replication_info info;
    int rc;

    memset(&world, 0, sizeof(world));
    world.netbuf_wanted = setup->netbuf;
    world.undecided = setup->undecided;
    if (setup->undecided) world.plug = PLUG_CLOSED;
    how = *setup;
    helper = NULL;
    channel = NULL;
    suspend = NULL;
    hello_due = stop_due = stop_read = peer_silent = false;
    stopped_ms = 0;
    helper_alive = helper_waits = suspend_due = terminated = killed = false;
    suspends = 0;
    taken_ms = suspend_ms = 0;
    ack_due = 0;
    memset(qmp_queue, 0, sizeof(qmp_queue));
    arbiter_due = NULL;
    control = NULL;
    now = 1000;
    if (!quiet) quiet = (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    rc = libxl__loop_new(&loop, quiet, &fake_clock);
    if (rc) abort();
    libxl_replication_info_init(&info);
    libxl_defbool_set(&info.remus.allow_unsafe, !setup->netbuf);
    libxl_defbool_set(&info.remus.netbuf, setup->netbuf);
    info.acknowledged = true;
    info.on_link_loss = setup->rule_backup ? LIBXL_LINK_LOSS_BACKUP : LIBXL_LINK_LOSS_PRIMARY;
    info.domain_name = "guest";
    info.self_name = "a";
    info.peer_name = "b";
    info.session = "s";
    info.max_checkpoints = setup->checkpoints;
    info.lg = quiet;
    if (setup->disks) {
        static const char *const names[] = {"xvda", "xvdb"};

        info.disks = names;
        info.num_disks = 2;
        info.disk_link = fake_link;
    }
    hvm = setup->hvm;
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    libxl_replication_start(NULL, &info, 1, null_fd, null_fd, NULL);
}

static void suspend_ends(libxl__egc *egc, int rc)
{
    taken_ms = 0;
    suspend->suspended(egc, suspend, rc);
}

static void late_turn(libxl__egc *egc)
{
    if (suspend_ms && now >= suspend_ms && world.guest == GUEST_IS_RUNNING) {
        world.guest = GUEST_IS_SUSPENDED;
        suspend_ms = 0;
    }
    if (!taken_ms || !suspend) return;
    if (world.guest == GUEST_IS_ENDED)
        suspend_ends(egc, ERROR_DOMAIN_DESTROYED);
    else if (world.guest == GUEST_IS_SUSPENDED)
        suspend_ends(egc, 0);
    else if (now >= taken_ms + suspend->limit_ms)
        suspend_ends(egc, ERROR_GUEST_TIMEDOUT);
}

static void guest_turn(libxl__egc *egc)
{
    late_turn(egc);
    if (!suspend_due || !suspend) return;
    suspend_due = false;
    if (world.guest == GUEST_IS_ENDED) {
        suspend->suspended(egc, suspend, ERROR_DOMAIN_DESTROYED);
        return;
    }
    world.guest = GUEST_IS_SUSPENDED;
    suspend->suspended(egc, suspend, 0);
}

static void rest_turn(libxl__egc *egc)
{
    libxl__arbiter *a = arbiter_due;

    arbiter_due = NULL;
    qmp_turn(egc);
    if (a) {
        bool grant = a->c.rule == LINK_LOSS_PRIMARY;

        world.granted = grant;
        world.denied = !grant;
        a->verdict(egc, a, grant, "the rule");
    }
}

/* libxl's minute, and some seconds more. */
#define WORTH_WAITING_MS 69000

void world_turn(void)
{
    libxl__egc egc = {loop};

    void (*const turns[])(libxl__egc *) = {helper_turn, guest_turn, backup_turn, rest_turn,
                                           world_disks_turn};

    for (int i = 0; i < 5 && !world.completions; i++)
        turns[i](&egc);
    if (!world.completions) libxl__loop_once(loop, 50);
    if (world.completions) world.suspends_unseen = suspend_ms && how.late_ms < WORTH_WAITING_MS;
}

void world_end(void)
{
    libxl__loop_free(loop);
    close(null_fd);
}

void world_lose_peer(void)
{
    peer_silent = true;
    if (channel) channel->lost(&(libxl__egc){loop}, channel, "silence");
}

void world_backup_gives_up(void)
{
    if (!channel) return;
    world.twin_dropped = true;
    channel->frame(&(libxl__egc){loop}, channel, CHANNEL_ERROR, 0, "no memory", 9);
    world_lose_peer();
}

void world_kill_helper(void)
{
    killed = helper_alive;
}

void world_ask_status(void)
{
    if (control) control->request(&(libxl__egc){loop}, control, 1, "status");
}

size_t world_allocations(void)
{
    return libxl__loop_gc(loop)->used;
}

void world_end_guest(void)
{
    world.guest = GUEST_IS_ENDED;
}

void world_abort(void)
{
    stub_abort();
}
