/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Puts one guest right after the operation that protected it has died: see libxl_guard.h.
 *
 * The order of going on:
 *
 *   watch control/shutdown, withdraw a pending request     nobody will stop the guest any more
 *   QEMU cont, resume, unpause                             the guest runs
 *   log-dirty off, unless somebody alive uses it           at full speed
 *   open and remove the net buffer                         and is heard
 *   QEMU's dirty log off                                   last, since a stuck QEMU costs its limit
 *   stay a while                                           see settle()
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uuid/uuid.h>
#include <xenctrl.h>
#include <xenstore.h>

#include <libxl.h>

#include "libxl_control_path.h"
#include "libxl_disk_set.h"
#include "libxl_dom_suspend.h"
#include "libxl_guard.h"
#include "libxl_netbuffer.h"
#include "libxl_qmp_client.h"
#include "xc_sr_lock.h"

#define QMP_LIMIT_MS 1000
#define SETTLE_MS 5000
#define SETTLE_STEP_MS 100
#define WITHDRAW_TRIES 20
#define PAUSES_MAX 16
#define LOG_LOCK_MS 2000

struct recover {
    libxl__gc *gc;
    uint32_t domid;
    xc_interface *xch;
    struct xs_handle *xs;
    xc_dominfo_t info;
    bool found;     /* info is of domid, and it is not dying */
    bool withdrawn; /* a request to suspend was pending and is gone */
    bool watching;
    bool emulated; /* it has a QEMU that emulates devices */
    bool by_hand;  /* a person says that it shall run here */
    bool held;     /* so is its output: a protection died here */
    bool log_used; /* by a helper that is alive */
    int log_lock;  /* -1: we do not have it */
    int rc;        /* the first failure */
};

static void failed(struct recover *r, const char *what)
{
    LOGE(r->gc, ERROR, "domain %u: %s", r->domid, what);
    if (!r->rc) r->rc = ERROR_FAIL;
}

static void note_rc(struct recover *r, int rc)
{
    if (!r->rc) r->rc = rc;
}

/* 1 found, 0 there is no such domain (or it is dying), -1 cannot tell. */
static int get_info(xc_interface *xch, uint32_t domid, xc_dominfo_t *info)
{
    int n = xc_domain_getinfo(xch, domid, 1, info);

    if (n < 0) return errno == ESRCH ? 0 : -1;
    return n == 1 && info->domid == domid && !info->dying;
}

static int recover_open(struct recover *r, libxl__gc *gc, uint32_t domid)
{
    int n;

    *r = (struct recover){.gc = gc, .domid = domid, .log_lock = -1};
    r->xch = xc_interface_open(gc->lg, gc->lg, 0);
    if (!r->xch) {
        failed(r, "cannot talk to the hypervisor");
        return r->rc;
    }
    n = get_info(r->xch, domid, &r->info);
    if (n < 0) {
        failed(r, "cannot get its state");
        return r->rc;
    }
    r->found = n == 1;
    return 0;
}

static void recover_close(struct recover *r)
{
    if (r->xs) xs_close(r->xs);
    if (r->xch) xc_interface_close(r->xch);
}

/* ---- xenstore ---- */

static bool open_xenstore(struct recover *r)
{
    if (!r->xs) r->xs = xs_open(0);
    if (!r->xs) failed(r, "cannot talk to xenstore");
    return r->xs;
}

static char *mark_path(const struct recover *r)
{
    return libxl__sprintf(r->gc, "/libxl/%u/xentwin/stopped", r->domid);
}

static char *request_path(const struct recover *r)
{
    return libxl__sprintf(r->gc, "/local/domain/%u/control/shutdown", r->domid);
}

/* Whether the node exists; *value (may be NULL) is its text, from the gc. */
static bool read_node(const struct recover *r, xs_transaction_t t, const char *path, char **value)
{
    unsigned int len = 0;
    char *text = xs_read(r->xs, t, path, &len);

    bool found = text;

    if (value) *value = found ? libxl__sprintf(r->gc, "%.*s", (int)len, text) : NULL;
    free(text);
    return found;
}

/* Clears a request to suspend that the guest has not accepted yet; it accepts in a transaction,
 * too. */
static void withdraw_request(struct recover *r)
{
    char *path = request_path(r), *value;

    for (int i = 0; i < WITHDRAW_TRIES; i++) {
        xs_transaction_t t = xs_transaction_start(r->xs);
        if (t == XBT_NULL) break;
        bool pending = read_node(r, t, path, &value) && !strcmp(value, "suspend");
        if (!pending) {
            xs_transaction_end(r->xs, t, true);
            return;
        }
        bool ok = xs_write(r->xs, t, path, "", 0);
        if (xs_transaction_end(r->xs, t, !ok) && ok) {
            r->withdrawn = true;
            return;
        }
        if (errno != EAGAIN) break;
    }
    failed(r, "cannot withdraw the request to suspend");
}

/* How many changes of the watched node are waiting to be looked at. */
static int drain_watch(const struct recover *r)
{
    struct pollfd p = {.fd = xs_fileno(r->xs), .events = POLLIN};
    char **event;
    int n = 0;

    while (n < 64 && poll(&p, 1, 0) > 0) {
        event = xs_check_watch(r->xs);
        if (!event) break;
        free(event);
        n++;
    }
    return n;
}

static void watch_request(struct recover *r)
{
    r->watching = xs_watch(r->xs, request_path(r), "xentwin");
    /* The first event comes for the watch itself; the read makes sure that it is here. */
    read_node(r, XBT_NULL, request_path(r), NULL);
    drain_watch(r);
}

/* ---- the guest ---- */

/* With a QEMU that emulates devices. PVH guests are HVM for the hypervisor but not here. */
static bool has_device_model(const struct recover *r)
{
    char *type;

    if (!r->info.hvm) return false;
    if (!read_node(r, XBT_NULL, libxl__sprintf(r->gc, "/libxl/%u/type", r->domid), &type))
        return false;
    return !strcmp(type, "hvm");
}

/* -1: cannot tell. */
static int is_paused(const struct recover *r)
{
    xc_dominfo_t now;
    int n = get_info(r->xch, r->domid, &now);

    return n < 0 ? -1 : n && now.paused;
}

/*
 * Our pause is one; whatever is left then is an administrator's. Only a person's word undoes all: one may be of an
 * operation or a guard that died before it could leave the mark. A person may also have unpaused the guest before:
 * then the mark is all that is left.
 */
static void unpause(struct recover *r)
{
    char *mark = mark_path(r);
    int most = r->by_hand ? PAUSES_MAX : 1;

    bool marked = read_node(r, XBT_NULL, mark, NULL);

    if (!marked && !(r->by_hand && r->held)) return;
    for (int i = 0; i < most && is_paused(r) != 0; i++) {
        if (!xc_domain_unpause(r->xch, r->domid)) continue;
        failed(r, "cannot be unpaused");
        break;
    }
    if (marked && !xs_rm(r->xs, XBT_NULL, mark)) failed(r, "cannot remove the mark of our pause");
}

static void resume(struct recover *r)
{
    int rc;

    rc = libxl__dom_resume_fast(r->gc, r->xch, r->xs, r->domid);
    note_rc(r, rc);
}

/*
 * QEMU aborts when it is told to end a global dirty log that it does not keep, and cannot be asked
 * whether it does. Starting one twice is harmless: start it, then end it.
 */
static void qemu_dirty_log_off(struct recover *r)
{
    static const char *const on =
        "{\"execute\":\"xen-set-global-dirty-log\",\"arguments\":{\"enable\":true}}";
    static const char *const off =
        "{\"execute\":\"xen-set-global-dirty-log\",\"arguments\":{\"enable\":false}}";
    int rc;

    rc = libxl__qmp_simple_blocking(r->gc, r->domid, on, QMP_LIMIT_MS);
    if (!rc) rc = libxl__qmp_simple_blocking(r->gc, r->domid, off, QMP_LIMIT_MS);
    note_rc(r, rc);
}

/*
 * A helper that is alive uses the log and ends it itself: the dead operation's, which sees that as well as we do, or that
 * of somebody who began meanwhile.
 */
static void lock_log(struct recover *r)
{
    if (r->log_lock < 0) r->log_lock = xc_sr_lock(control_dir(), r->domid);
    r->log_used = r->log_lock < 0 && errno == EWOULDBLOCK;
}

static void unlock_log(struct recover *r)
{
    if (r->log_lock >= 0) xc_sr_unlock(control_dir(), r->domid, r->log_lock);
    r->log_lock = -1;
}

static void log_dirty_off(struct recover *r)
{
    lock_log(r);
    if (r->log_used) return;
    /* EINVAL: it was not on. */
    if (xc_shadow_control(r->xch, r->domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) < 0 &&
        errno != EINVAL)
        failed(r, "log-dirty mode cannot be ended");
}

/*
 * The dead operation's helper cannot end QEMU's log, and may have been killed with it, so its end is waited for; another one's
 * log is its own.
 */
static void end_logs_left(struct recover *r)
{
    bool was_used = r->log_used;
    const struct timespec step = {.tv_nsec = SETTLE_STEP_MS * 1000000L};

    for (int ms = 0; r->log_used && ms < LOG_LOCK_MS; ms += SETTLE_STEP_MS) {
        nanosleep(&step, NULL);
        lock_log(r);
    }
    if (r->log_used) {
        LOG(r->gc, INFO, "domain %u: somebody protects or migrates it", r->domid);
        return;
    }
    if (was_used) log_dirty_off(r);
    if (r->emulated) qemu_dirty_log_off(r);
}

static void let_run(struct recover *r)
{
    int rc;

    watch_request(r);
    r->emulated = has_device_model(r);
    if (!r->info.shutdown) withdraw_request(r);
    if (r->emulated) {
        rc = libxl__qmp_simple_blocking(r->gc, r->domid, "{\"execute\":\"cont\"}", QMP_LIMIT_MS);
        note_rc(r, rc);
    }
    resume(r);
    unpause(r);
    log_dirty_off(r);
}

/* A guest that is stopped through the hypervisor stops in the call itself: nothing of it can come
 * later. */
static bool asked_through_xenstore(const struct recover *r)
{
    uint64_t callback_irq = 1;

    if (r->info.hvm) xc_hvm_param_get(r->xch, r->domid, HVM_PARAM_CALLBACK_IRQ, &callback_irq);
    return callback_irq;
}

/*
 * The guest may have accepted a request to suspend and be on its way when we looked: then nobody is
 * left to resume it. So watch it a while. A change of control/shutdown meanwhile means that
 * somebody else asked (xl save, shutdown): then hands off. xenstore answers in order, so that such
 * a change is here before the answer to the read below.
 */
static void settle(struct recover *r)
{
    const struct timespec step = {.tv_nsec = SETTLE_STEP_MS * 1000000L};

    if (r->withdrawn || r->info.shutdown || !asked_through_xenstore(r)) return;
    for (int ms = 0; ms < SETTLE_MS; ms += SETTLE_STEP_MS) {
        bool suspended = libxl__dom_is_suspended(r->xch, r->domid);
        read_node(r, XBT_NULL, request_path(r), NULL);
        if (drain_watch(r)) return;
        if (suspended) {
            LOG(r->gc, INFO, "domain %u: it suspended late, resuming it", r->domid);
            resume(r);
            return;
        }
        nanosleep(&step, NULL);
    }
}

/* Ended by itself: whoever watches the domain takes care of it. */
static bool can_run(const struct recover *r)
{
    return r->found && (!r->info.shutdown || r->info.shutdown_reason == SHUTDOWN_suspend);
}

/* Its disks go on too: what they write from now on is theirs alone. */
static void unprotect_disks(struct recover *r)
{
    char *name = NULL;

    if (!r->xs ||
        !read_node(r, XBT_NULL, libxl__sprintf(r->gc, "/local/domain/%u/name", r->domid), &name))
        return;
    note_rc(r, libxl__disk_unprotect(r->gc, name));
}

static int go_on(libxl__gc *gc, uint32_t domid, const char *ifb, bool by_hand)
{
    struct recover r;
    int rc;

    if (recover_open(&r, gc, domid)) goto out;
    r.by_hand = by_hand;
    if (by_hand && ifb) note_rc(&r, libxl__netbuffer_held(gc, ifb, &r.held));
    if (can_run(&r) && open_xenstore(&r)) let_run(&r);
    unprotect_disks(&r);
    if (ifb) {
        rc = libxl__netbuffer_remove(gc, ifb);
        note_rc(&r, rc);
    }
    end_logs_left(&r);
    unlock_log(&r);
    if (r.watching) settle(&r);
out:
    recover_close(&r);
    return r.rc;
}

int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb)
{
    return go_on(gc, domid, ifb, false);
}

int libxl__recover_by_hand(libxl__gc *gc, uint32_t domid, const char *ifb)
{
    return go_on(gc, domid, ifb, true);
}

/* Pauses are counted: of ours one is kept. Whoever took away the first meanwhile must not get the second, too. */
static void undo_second_pause(struct recover *r)
{
    if (xc_domain_unpause(r->xch, r->domid)) failed(r, "cannot undo the second pause");
    if (is_paused(r) != 1 && xc_domain_pause(r->xch, r->domid)) failed(r, "cannot be paused");
}

int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid)
{
    struct recover r;

    if (recover_open(&r, gc, domid) || !r.found) goto out;
    /* At once, before anything that may take time. */
    if (xc_domain_pause(r.xch, domid)) {
        failed(&r, "cannot be paused");
        goto out;
    }
    if (!open_xenstore(&r)) goto out;
    char *mark = mark_path(&r);
    if (read_node(&r, XBT_NULL, mark, NULL)) {
        /* A mark alone does not say that it is paused: somebody may have undone that by xl unpause. */
        if (r.info.paused) undo_second_pause(&r);
    } else if (!xs_write(r.xs, XBT_NULL, mark, "1", 1)) {
        failed(&r, "cannot leave the mark of our pause");
    }
out:
    recover_close(&r);
    return r.rc;
}

int libxl__recover_check_domain(libxl__gc *gc, uint32_t domid, const char *uuid)
{
    struct recover r;
    uuid_t wanted;

    if (uuid_parse(uuid, wanted)) {
        LOG(gc, ERROR, "domain %u: \"%s\" is not a uuid", domid, uuid);
        return ERROR_INVAL;
    }
    if (recover_open(&r, gc, domid)) goto out;
    if (!r.found)
        r.rc = ERROR_DOMAIN_NOTFOUND;
    else if (memcmp(wanted, r.info.handle, sizeof(wanted)))
        r.rc = ERROR_INVAL;
out:
    recover_close(&r);
    return r.rc;
}

bool libxl__recover_is_stopped(libxl__gc *gc, uint32_t domid)
{
    struct recover r;
    bool stopped = false;

    if (!recover_open(&r, gc, domid) && r.found && r.info.paused && open_xenstore(&r))
        stopped = read_node(&r, XBT_NULL, mark_path(&r), NULL);
    recover_close(&r);
    return stopped;
}

int libxl__recover_undecided(libxl__gc *gc, uint32_t domid, bool *undecided)
{
    struct recover r;
    bool marked = false, held = false;
    char ifb[16];

    if (!recover_open(&r, gc, domid) && open_xenstore(&r)) {
        marked = read_node(&r, XBT_NULL, mark_path(&r), NULL);
        libxl__netbuffer_ifname(domid, ifb);
        note_rc(&r, libxl__netbuffer_held(gc, ifb, &held));
    }
    recover_close(&r);
    *undecided = marked || held;
    return r.rc;
}
