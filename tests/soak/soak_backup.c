/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup host: the real twin, and the stock xl that it starts. The receiver reads a plain migration stream with a reader of
 * its own and keeps what a real one would put into the new domain.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/twin_stream_make.h"
#include "libxl_twin.h"
#include "soak.h"
#include "soak_child.h"

#define UUID "12345678-1234-1234-1234-123456789abc"

static const char banner[] = "xl migration receiver ready, send binary domain data.\n";
static const char received[] = "domain received, ready to unpause";
static const char permission[] = "domain is yours, you are cleared to unpause";
static const char report[] = "my copy unpause results are as follows";

static libxl__twin twin;
static int twin_fd = -1, finishes;
static enum twin_outcome outcome;
static struct bytes prefix;
static bool never_started;
bool copy_runs;

static struct receiver {
    bool half_built, started, permitted, dropping, gone; /* gone: destroyed by somebody */
    struct bytes in;                                     /* not understood yet */
    size_t at;
    int unit; /* of the stream, see take_unit */
    uint64_t page[PAGES], vcpu, device;
    bool broken_page;
    uint64_t counter; /* of the running copy */
} rx;

/* ---- the receiver's stream ---- */

enum { XL_IMAGE, XL_STREAM, XC_HEADERS, XC_RECORDS, XL_RECORDS, PERMISSION };

static void take_pages(const unsigned char *body, uint32_t len)
{
    uint32_t n;
    uint64_t pfn;

    memcpy(&n, body, 4);
    assert(len == 8 + n * (8 + PAGE_BYTES));
    for (uint32_t i = 0; i < n; i++) {
        const unsigned char *data = body + 8 + 8 * n + (size_t)i * PAGE_BYTES;

        memcpy(&pfn, body + 8 + 8 * i, 8);
        assert(pfn < PAGES);
        if (memcmp(data, data + 8, PAGE_BYTES - 8)) rx.broken_page = true;
        memcpy(&rx.page[pfn], data, 8);
    }
}

static void domain_is_built(void *arg)
{
    struct child *c = arg;

    if (c->alive && !rx.dropping) child_says(c, received, sizeof(received));
}

static void stream_ends(struct child *c)
{
    judge.applied = 1; /* a cold twin's other ones come the same way */
    if (!setup.warm && !setup.arbiter && !judge.admin_promoted) judge_backup_asks();
    after(chance(30) ? between(5, 50) : between(20, 2000), domain_is_built, c);
}

static void take_record(struct child *c, uint32_t type, const unsigned char *body, uint32_t len)
{
    if (rx.unit == XC_RECORDS) {
        if (type == 0x1) take_pages(body, len);
        if (type == 0x9) memcpy(&rx.vcpu, body, 8);
        if (type == 0x0) rx.unit = XL_RECORDS;
    } else {
        if (type == 0x3) memcpy(&rx.device, body + 8, 8);
        if (type == 0x0) {
            rx.unit = PERMISSION;
            stream_ends(c);
        }
    }
}

static void copy_ticks(void *arg)
{
    if (!copy_runs) return;
    rx.counter++;
    after(setup.tick_ms, copy_ticks, NULL);
}

static void guest_is_let_run(void *arg)
{
    struct child *c = arg;

    if (!c->alive) return;
    child_says(c, report, sizeof(report));
    if (happened(RECEIVER_CANNOT_START) || rx.gone) {
        child_says(c, "\3", 1);
        rx.half_built = false;
        child_ends(c, W_EXITCODE(1, 0));
        return;
    }
    child_says(c, "\0", 1);
    rx.half_built = false;
    copy_runs = true;
    if (rx.broken_page) judge_fail("a page of the promoted guest is a mix of two");
    judge_copy_runs(rx.page, rx.vcpu, setup.hvm ? rx.device : rx.vcpu);
    rx.counter = rx.vcpu;
    after(setup.tick_ms, copy_ticks, NULL);
    child_ends(c, 0);
}

/* Takes one unit if it is whole. */
static bool take_unit(struct child *c)
{
    const unsigned char *p = rx.in.p + rx.at;
    size_t have = rx.in.n - rx.at, need = 0;
    uint32_t head[2];

    if (rx.unit == XL_IMAGE) {
        if (have < 48) return false;
        memcpy(head, p + 44, 4);
        need = 48 + head[0];
    } else if (rx.unit == XL_STREAM) {
        need = 16 + 8;
    } else if (rx.unit == XC_HEADERS) {
        need = 24 + 16;
    } else if (rx.unit == PERMISSION) {
        need = sizeof(permission);
    } else {
        if (have < 8) return false;
        memcpy(head, p, 8);
        need = 8 + (((size_t)head[1] + 7) & ~(size_t)7);
    }
    if (have < need) return false;
    rx.at += need;
    if (rx.unit < XC_RECORDS) {
        rx.unit++;
    } else if (rx.unit == PERMISSION) {
        if (rx.permitted || memcmp(p, permission, need)) judge_fail("a wrong permission");
        rx.permitted = true;
        after(chance(30) ? 1 : between(10, 300), guest_is_let_run, c);
    } else {
        take_record(c, head[0], p + 8, head[1]);
    }
    return true;
}

static void domain_is_destroyed(void *arg)
{
    struct child *c = arg;

    if (!c->alive) return;
    if (applier_maps_domain()) judge_fail("a domain is destroyed that xentwin-apply maps");
    rx.half_built = false;
    child_ends(c, W_EXITCODE(1, 0));
}

bool receiver_pump(struct child *c)
{
    static int64_t last_ms;
    static int taken;
    unsigned char buf[65536];
    size_t most = sizeof(buf);
    ssize_t r;

    if (!rx.started || rx.dropping) return false;
    if (last_ms != now_ms) taken = 0;
    last_ms = now_ms;
    if (setup.receiver_bytes) {
        if (taken >= setup.receiver_bytes) return false;
        most = (size_t)(setup.receiver_bytes - taken);
        if (most > sizeof(buf)) most = sizeof(buf);
    }
    r = read(c->in, buf, most);
    if (r < 0) return false;
    if (!r) {
        if (rx.permitted) return false;
        rx.dropping = true;
        if (rx.unit == PERMISSION && !c->parent_alive) {
            /* It cannot report to anybody, and leaves everything as it is. */
            child_ends(c, W_EXITCODE(1, 0));
            return true;
        }
        after(setup.drop_ms ? setup.drop_ms : between(0, 300), domain_is_destroyed, c);
        return true;
    }
    taken += (int)r;
    put(&rx.in, buf, (size_t)r);
    while (take_unit(c))
        ;
    if (rx.at == rx.in.n) rx.at = rx.in.n = 0;
    return true;
}

void receiver_dies(struct child *c, int sig)
{
    say("the receiver dies by signal %d", sig);
}

/* ---- what the twin forks ---- */

enum child_kind backup_child_kind(const libxl__ev_child *ev)
{
    if (ev == &twin.child.child) return RECEIVER;
    if (ev == &twin.warm.child) return APPLIER;
    return ev == &twin.domains.child ? LISTER : ARBITER;
}

static void receiver_begins(void *arg)
{
    struct child *c = arg;

    if (!c->alive) return;
    rx.started = rx.half_built = true;
    child_says(c, banner, sizeof(banner) - 1);
}

/* The clock would stand still for a receiver that waits for its next ms. */
static void receiver_goes_on(void *arg)
{
    struct child *c = arg;

    if (c->alive) after(1, receiver_goes_on, c);
}

static void lister_runs(void *arg)
{
    struct child *c = arg;
    static const char other[] =
        "UUID ID name\n00000000-0000-0000-0000-000000000000  0    Domain-0      \n";
    static const char ours[] = UUID "  7    guest--incoming      \n";

    if (!c->alive) return;
    if (twin.domains.destroying) {
        rx.half_built = false;
    } else {
        child_says(c, other, sizeof(other) - 1);
        if (rx.half_built) child_says(c, ours, sizeof(ours) - 1);
    }
    child_ends(c, 0);
}

void backup_child_begins(struct child *c)
{
    if (c->kind == LISTER) {
        after(between(1, 30), lister_runs, c);
    } else if (c->kind == APPLIER) {
        applier_begins(c);
    } else {
        judge.receiver_started = true;
        after(between(1, 100), receiver_begins, c);
        if (setup.receiver_bytes) after(1, receiver_goes_on, c);
    }
}

void receiver_kill(void)
{
    struct child *c = child_alive(RECEIVER);

    say("the receiver is killed");
    if (c) child_ends(c, W_EXITCODE(0, SIGKILL));
}

/* ---- the domain, for xentwin-apply ---- */

bool receiver_has_domain(void)
{
    return rx.half_built;
}

void receiver_domain_gone(void)
{
    say("the domain is destroyed");
    rx.half_built = false;
    rx.gone = true;
}

void receiver_takes_record(uint32_t type, const unsigned char *body, uint32_t len)
{
    if (type == 0x1) take_pages(body, len);
    if (type == 0x9) memcpy(&rx.vcpu, body, 8);
}

void receiver_takes_state(const unsigned char *state)
{
    memcpy(&rx.device, state, 8);
}

/* By hand, while it waits. */
void copy_is_destroyed(void)
{
    if (rx.half_built && rx.unit == PERMISSION && !rx.permitted) receiver_domain_gone();
}

bool half_built(void)
{
    return rx.half_built;
}

/* ---- the twin ---- */

static void twin_tells(void *user, const char *line)
{
    say("%s", line);
}

static void twin_finished(libxl__egc *egc, libxl__twin *t, enum twin_outcome how)
{
    finishes++;
    outcome = how;
}

bool twin_finished_once(void)
{
    return finishes == 1 || (never_started && judge.call_failed);
}

bool twin_promoted(void)
{
    return finishes && outcome == TWIN_PROMOTED;
}

bool twin_promotes(void)
{
    return procs[TWIN].alive && twin.state == TWIN_PROMOTING;
}

bool twin_waits(void)
{
    return procs[TWIN].alive && twin.state == TWIN_WAITING;
}

ssize_t __real_read(int fd, void *buf, size_t n);
ssize_t __wrap_read(int fd, void *buf, size_t n);
ssize_t __wrap_read(int fd, void *buf, size_t n)
{
    ssize_t r;

    if (sim_call_fails()) {
        errno = EIO;
        return -1;
    }
    r = __real_read(fd, buf, n);
    if (r > 0 && fd == twin_fd && current == TWIN) judge_backup_reads();
    return r;
}

static void make_prefix(void)
{
    unsigned char head[48] = "Xen saved domain, xl format\n \0 \r";
    uint32_t words[4] = {0x01020304, 3, 0, 8};

    memcpy(head + 32, words, 16);
    prefix.n = 0;
    put(&prefix, head, sizeof(head));
    put(&prefix, "\4\0\0\0{ }", 8);
}

void backup_start(int fd)
{
    static const char *const argv[] = {"/stock/xl", "migrate-receive", NULL};
    libxl__clock clock = proc_clock(TWIN);

    free(rx.in.p);
    rx = (struct receiver){0};
    applier_start();
    copy_runs = false;
    finishes = 0;
    never_started = false;
    twin_fd = fd;
    make_prefix();
    current = TWIN;
    sim_own(fd);
    libxl__twin_init(&twin);
    if (libxl__loop_new(&twin.loop, sim_logger(), &clock)) abort();
    twin.recv_fd = twin.send_fd = fd;
    twin.prefix = prefix.p;
    twin.prefix_len = prefix.n;
    twin.uuid = UUID;
    twin.c = (struct arbiter_case){.rule = setup.rule_backup ? LINK_LOSS_BACKUP : LINK_LOSS_PRIMARY,
                                   .command = setup.arbiter ? "witness" : NULL,
                                   .domain = "guest",
                                   .self = "hostB",
                                   .peer = "hostA",
                                   .session = "session",
                                   .limit_ms = setup.limit_ms};
    twin.hold_limit = 8u << 20;
    twin.stock_xl = argv[0];
    twin.argv = argv;
    twin.with_control = true;
    twin.disks = disk_names;
    twin.num_disks = (unsigned)setup.disks;
    if (setup.warm) twin.apply = "/xentwin-apply";
    twin.device_model = setup.hvm;
    twin.message = twin_tells;
    twin.finished = twin_finished;
    proc_start(TWIN, twin.loop);
    /* One that cannot start is over at once. */
    if (libxl__twin_start(&twin)) never_started = true;
    current = NOBODY;
}

/* The program ends when its twin has. */
void backup_look(void)
{
    libxl__loop *loop = twin.loop;

    if (!procs[TWIN].alive || (!finishes && !never_started)) return;
    libxl__twin_dispose(&twin);
    close(twin_fd);
    assert(procs[TWIN].loop == loop);
    proc_exit(TWIN);
}

void admin_says(const char *word)
{
    libxl__egc egc = {twin.loop};

    say("the administrator: %s", word);
    judge.admin_promoted |= word[0] == 'p';
    current = TWIN;
    twin.control.request(&egc, &twin.control, 1, word);
    current = NOBODY;
}

void backup_host_dies(void)
{
    say("the backup host dies");
    link_source_dies(false);
    disks_of_host_die(1);
    proc_kill(TWIN);
    children_of_host_die(1);
    rx.half_built = false;
    copy_runs = false;
}
