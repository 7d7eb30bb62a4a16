/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xentwin-apply, as libxl_twin_warm.h describes it: it waits for the domain, then changes its pages record by record as they come. So
 * where it dies, the domain is a mixture of two checkpoints.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/twin_stream_make.h"
#include "libxl_twin_warm.h"
#include "soak.h"
#include "soak_child.h"

#define DOMAIN_MS 60000 /* that it waits for the domain */
#define HANG_MS 300000  /* longer than anybody waits for it */
#define CRASHES_MAX 6

static struct applier {
    bool ready, answering, hangs;
    struct bytes in;
    size_t at;
    struct apply_head head; /* kind 0: none */
    uint64_t left;          /* of its body */
    int64_t since_ms;
} ap;
static int crashes_left;
static bool hang_next;

/* ---- its end ---- */

static void leaves(struct child *c, int status)
{
    say("xentwin-apply leaves with %d", status);
    child_ends(c, W_EXITCODE(status, 0));
}

static bool crashes(struct child *c)
{
    if (!crashes_left || !chance(25)) return false;
    crashes_left--;
    say("xentwin-apply crashes");
    child_ends(c, W_EXITCODE(0, 11));
    return true;
}

static void twin_is_gone(void *arg)
{
    struct child *c = arg;

    if (!c->alive) return;
    receiver_domain_gone();
    leaves(c, 0);
}

/* ---- what it is told ---- */

static void answers(void *arg)
{
    struct child *c = arg;
    struct apply_answer a = {.kind = ap.head.kind + (APPLY_READY - APPLY_OPEN), .n = ap.head.n};

    if (!c->alive || crashes(c)) return;
    if (!receiver_has_domain()) {
        leaves(c, ap.head.kind == APPLY_OPEN ? APPLY_EXIT_NO_DOMAIN : 1);
        return;
    }
    if (a.kind == APPLY_GONE && !c->parent_alive) {
        twin_is_gone(c); /* it cannot say so */
        return;
    }
    ap.answering = false;
    ap.head.kind = 0;
    if (a.kind == APPLY_APPLIED) judge.applied = a.n;
    child_says(c, &a, sizeof(a));
    if (a.kind == APPLY_GONE) leaves(c, 0);
}

static void message_is_whole(struct child *c)
{
    ap.answering = true;
    after(chance(90) ? between(0, 5) : between(0, 400), answers, c);
}

static void take_head(struct child *c)
{
    memcpy(&ap.head, ap.in.p + ap.at, sizeof(ap.head));
    ap.at += sizeof(ap.head);
    ap.left = ap.head.len;
    if (ap.head.kind == APPLY_OPEN) judge.domain_open = true;
    if (ap.head.kind == APPLY_GO && !setup.arbiter && !judge.admin_promoted) judge_backup_asks();
    if (!ap.left) message_is_whole(c);
}

/* DATA: one record. GO: all of the state. False: more has to come. */
static bool take_body(struct child *c)
{
    const unsigned char *p = ap.in.p + ap.at;
    size_t have = ap.in.n - ap.at, need = ap.left;
    uint32_t head[2];

    if (ap.head.kind == APPLY_DATA) {
        if (have < 8) return false;
        memcpy(head, p, 8);
        need = 8 + (((size_t)head[1] + 7) & ~(size_t)7);
    }
    if (have < need) return false;
    if (need > ap.left) {
        judge_fail("a record is cut off");
        return false;
    }
    if (ap.head.kind == APPLY_DATA)
        receiver_takes_record(head[0], p + 8, head[1]);
    else
        receiver_takes_state(p);
    ap.at += need;
    ap.left -= need;
    if (!ap.left) message_is_whole(c);
    return !crashes(c);
}

static bool take(struct child *c)
{
    if (ap.answering || judge.failed) return false;
    if (ap.head.kind) return take_body(c);
    if (ap.in.n - ap.at < sizeof(ap.head)) return false;
    take_head(c);
    return true;
}

bool applier_pump(struct child *c)
{
    static int64_t last_ms;
    static int taken;
    unsigned char buf[16384];
    size_t most = sizeof(buf);
    ssize_t r;

    if (!ap.ready || ap.hangs) return false;
    if (last_ms != now_ms) taken = 0;
    last_ms = now_ms;
    if (setup.applier_bytes && taken >= setup.applier_bytes) return false;
    r = read(c->in, buf, most);
    if (r < 0) return false;
    if (!r) {
        ap.ready = false;
        after(between(0, 200), twin_is_gone, c);
        return true;
    }
    taken += (int)r;
    put(&ap.in, buf, (size_t)r);
    while (c->alive && take(c))
        ;
    if (ap.at == ap.in.n) ap.at = ap.in.n = 0;
    return true;
}

/* ---- its start ---- */

static void goes_on(void *arg)
{
    struct child *c = arg;

    if (c->alive) after(1, goes_on, c);
}

static void looks_for_domain(void *arg)
{
    struct child *c = arg;

    if (!c->alive) return;
    if (receiver_has_domain()) {
        ap.ready = true;
        if (setup.applier_bytes) after(1, goes_on, c);
    } else if (now_ms - ap.since_ms > DOMAIN_MS) {
        leaves(c, APPLY_EXIT_NO_DOMAIN);
    } else {
        after(50, looks_for_domain, c);
    }
}

/* Nothing hangs for ever: what is left of it then sees whether somebody is still there. */
static void hangs_no_more(void *arg)
{
    struct child *c = arg;

    if (c == child_alive(APPLIER)) ap.hangs = false;
}

void applier_begins(struct child *c)
{
    free(ap.in.p);
    ap = (struct applier){.since_ms = now_ms, .hangs = hang_next};
    if (hang_next) after(HANG_MS, hangs_no_more, c);
    hang_next = false;
    after(between(1, 50), looks_for_domain, c);
}

bool applier_maps_domain(void)
{
    struct child *c = child_alive(APPLIER);

    return c && ap.ready && judge.domain_open;
}

/* ---- faults ---- */

void applier_start(void)
{
    free(ap.in.p);
    ap = (struct applier){0};
    crashes_left = 0;
    hang_next = false;
}

void applier_fault(enum fault_kind kind)
{
    struct child *c = child_alive(APPLIER);

    if (kind == APPLIER_CRASHES) crashes_left = between(1, CRASHES_MAX);
    if (kind == APPLIER_HANGS && c) {
        ap.hangs = true;
        after(HANG_MS, hangs_no_more, c);
    }
    if (kind == APPLIER_HANGS && !c) hang_next = true;
    if (kind == APPLIER_KILLED && c) child_ends(c, W_EXITCODE(0, 9));
}
