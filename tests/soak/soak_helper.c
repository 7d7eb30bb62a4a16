/* SPDX-License-Identifier: LGPL-2.1-only */
/* A save helper: it asks what the real one asks, in its order, and writes records of the guest's pages. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../unit/twin_stream_make.h"
#include "libxl_save_callout.h"
#include "soak.h"

enum step {
    LOGDIRTY_ON,
    LIVE,
    SUSPENDING,
    COPYING,
    POSTCOPY,
    SENDING,
    AT_CHECKPOINT,
    LEAVING,
    GONE
};

static struct helper {
    libxl__save_callout *co;
    int fd;
    enum step step;
    bool asking;
    int rounds;
    struct bytes out, arena;
    size_t written;
    uintptr_t number; /* of this helper, for what comes late */
} h = {.fd = -1, .step = GONE};

static void ask(enum helper_call what, enum step step);

/* ---- records ---- */

static void put_dirty_pages(struct bytes *b, bool all)
{
    static unsigned char body[8 + PAGES * (8 + PAGE_BYTES)];
    unsigned char *data;
    uint32_t n = 0;

    for (unsigned i = 0; i < PAGES; i++)
        n += all || guest.dirty[i];
    if (!n) return;
    memset(body, 0, sizeof(body));
    memcpy(body, &n, 4);
    data = body + 8 + 8 * n;
    n = 0;
    for (uint64_t i = 0; i < PAGES; i++) {
        if (!all && !guest.dirty[i]) continue;
        guest.dirty[i] = false;
        memcpy(body + 8 + 8 * n++, &i, 8);
        for (unsigned w = 0; w < PAGE_BYTES / 8; w++, data += 8)
            memcpy(data, &guest.page[i], 8);
    }
    put_record(b, 0x1, body, (uint32_t)(data - body));
}

static void put_guest_contexts(struct bytes *b)
{
    uint64_t vcpu[6], params[3] = {1, 0, 0};

    for (int i = 0; i < 6; i++)
        vcpu[i] = guest.counter;
    put_record(b, 0x8, (uint64_t[3]){0}, 24);
    put_record(b, 0x9, vcpu, sizeof(vcpu));
    put_record(b, 0xa, params, sizeof(params));
    put_record(b, 0xe, NULL, 0);
}

static void put_beginning(struct bytes *b)
{
    struct bytes head = {0};

    put_stream_head(&head);
    put(b, head.p + 24, head.n - 24); /* the libxl part is not the helper's */
    free(head.p);
    put_statics(b);
}

/* ---- its life ---- */

static void exits(libxl__egc *egc, void *arg)
{
    libxl__save_callout *co = h.co;

    co->child.pid = -1;
    co->asked = false;
    co->exited(egc, co, arg != NULL);
}

static void gone(bool clean)
{
    if (h.step == GONE) return;
    say("the helper leaves%s", clean ? "" : " without cleaning up");
    if (clean) guest.logdirty = false;
    close(h.fd);
    h.fd = -1;
    h.step = GONE;
    h.number++;
    post(XL, exits, clean ? &h : NULL);
}

static void leaves(void *arg)
{
    if (h.number == (uintptr_t)arg) gone(true);
}

/* It cannot write, or is told to end: it puts back what it changed. */
static void clean_up(void)
{
    if (h.step == GONE || h.step == LEAVING) return;
    if (procs[XL].alive) {
        ask(HELPER_SWITCH_LOGDIRTY, LEAVING);
    } else {
        h.step = LEAVING;
        after(between(0, 10), leaves, (void *)h.number);
    }
}

static void call_up(libxl__egc *egc, void *arg)
{
    enum helper_call what = (enum helper_call)(uintptr_t)arg;

    if (h.step == GONE) return;
    h.co->asked = true;
    h.co->call(egc, h.co, what, h.step == LOGDIRTY_ON);
}

static void ask(enum helper_call what, enum step step)
{
    h.step = step;
    h.asking = true;
    post(XL, call_up, (void *)(uintptr_t)what);
}

static void copied(void *arg)
{
    if (h.number == (uintptr_t)arg && h.step == COPYING) ask(HELPER_POSTCOPY, POSTCOPY);
}

static void copies(void)
{
    h.step = COPYING;
    /* What the guest does from now on would be a mix: the judge compares with the state at its suspend. */
    put_dirty_pages(&h.arena, false);
    put_guest_contexts(&h.arena);
    after(between(0, 3), copied, (void *)h.number);
}

static void hears(int value)
{
    switch (h.step) {
    case LOGDIRTY_ON:
        if (value) {
            gone(false);
            return;
        }
        guest.logdirty = true;
        put_beginning(&h.out);
        put_dirty_pages(&h.out, true);
        h.rounds = between(0, 2);
        h.step = LIVE;
        return;
    case LEAVING:
        gone(true);
        return;
    case SUSPENDING:
        value == 1 ? copies() : clean_up();
        return;
    case POSTCOPY:
        put(&h.out, h.arena.p, h.arena.n);
        h.arena.n = 0;
        h.step = SENDING;
        if (value != 1) clean_up();
        return;
    case AT_CHECKPOINT:
        value == 1 ? ask(HELPER_SUSPEND, SUSPENDING) : clean_up();
        return;
    default:
        judge_fail("an answer to a helper that did not ask");
    }
}

void libxl__save_callout_reply(libxl__save_callout *co, int value)
{
    enum who asker = current;

    if (!co->asked) judge_fail("an answer to a helper that did not ask");
    co->asked = false;
    if (h.step == GONE) return;
    assert(h.asking);
    h.asking = false;
    current = NOBODY; /* what it does is not the asker's doing */
    hears(value);
    current = asker;
}

static void drained(void)
{
    h.out.n = h.written = 0;
    if (h.step == SENDING) {
        ask(HELPER_CHECKPOINT, AT_CHECKPOINT);
    } else if (h.rounds--) {
        put_dirty_pages(&h.out, false);
    } else {
        ask(HELPER_SUSPEND, SUSPENDING);
    }
}

bool primary_pump(void)
{
    ssize_t r;

    if (h.step != LIVE && h.step != SENDING) return false;
    if (h.written == h.out.n) {
        drained();
        return true;
    }
    r = write(h.fd, h.out.p + h.written, h.out.n - h.written);
    if (r < 0 && errno == EAGAIN) return false;
    if (r < 0) {
        clean_up();
        return true;
    }
    h.written += (size_t)r;
    return true;
}

static void begins(void *arg)
{
    if (h.number == (uintptr_t)arg && procs[XL].alive) ask(HELPER_SWITCH_LOGDIRTY, LOGDIRTY_ON);
}

void libxl__save_callout_init(libxl__save_callout *co)
{
    memset(co, 0, sizeof(*co));
    libxl__ev_child_init(&co->child);
}

int libxl__save_callout_start(libxl__save_callout *co)
{
    h.co = co;
    h.fd = fcntl(co->stream_fd, F_DUPFD_CLOEXEC, 3);
    assert(h.fd >= 0);
    fcntl(h.fd, F_SETFL, O_NONBLOCK);
    h.step = LOGDIRTY_ON;
    h.asking = false;
    h.number++;
    co->child.pid = 1;
    after(between(1, 20), begins, (void *)h.number);
    return 0;
}

static void dies(void *arg)
{
    if (h.number == (uintptr_t)arg) gone(false);
}

void libxl__save_callout_terminate(libxl__save_callout *co, int grace_ms)
{
    if (h.step != GONE) after(between(0, 20), dies, (void *)h.number);
}

void libxl__save_callout_dispose(libxl__save_callout *co)
{
    assert(co->child.pid < 0);
}

void helper_kill(void)
{
    gone(false);
}

bool helper_gone(void)
{
    return h.step == GONE;
}

void helper_parent_gone(void)
{
    clean_up();
}

void helper_start(void)
{
    if (h.fd >= 0) close(h.fd);
    h.fd = -1;
    h.step = GONE;
    h.out.n = h.arena.n = h.written = 0;
    h.number++;
}
