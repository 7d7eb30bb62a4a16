/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What is done to a guest after its protection died, on a Xen of one guest: every call that changes
 * something writes its name, and the test compares the order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>
#include <xenctrl.h>
#include <xenstore.h>

#include "libxl_dom_suspend.h"
#include "libxl_guard.h"
#include "libxl_netbuffer.h"
#include "libxl_qmp_client.h"
#include "xc_sr_lock.h"

#define DOMID 7
#define UUID "00010203-0405-0607-0809-0a0b0c0d0e0f"

/* ---- the guest ---- */

static struct {
    char log[600];
    /* hypervisor */
    bool exists, dying, hvm, shutdown, no_hypervisor;
    int reason, pauses;
    uint64_t callback_irq;
    bool log_dirty;
    /* xenstore */
    const char *type;
    char request[32];
    bool mark, no_xenstore;
    int conflicts; /* so many transactions fail first */
    bool accepts;  /* the guest accepts the request at the last conflict */
    int events[2]; /* a pipe: one byte per change of the request */
    bool watching;
    /* later */
    int suspend_after; /* the guest suspends at this sleep, -1 never */
    int other_asks_after;
    int sleeps;
    int qmp_rc, net_rc, look_rc;
    bool held;
    int log_lock;    /* a helper's */
    int helper_ends; /* at this sleep, -1 never */
} sim;

static char run_dir[] = "/tmp/guard-recover.XXXXXX";

static void say(const char *what)
{
    strcat(strcat(sim.log, what), " ");
}

static void event(void)
{
    if (sim.watching) assert_int_equal(write(sim.events[1], "", 1), 1);
}

static void suspend_guest(void)
{
    sim.shutdown = true;
    sim.reason = SHUTDOWN_suspend;
}

/* ---- hypervisor ---- */

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger,
                                unsigned open_flags)
{
    errno = ENOENT;
    return sim.no_hypervisor ? NULL : (xc_interface *)&sim;
}

int xc_interface_close(xc_interface *xch)
{
    return 0;
}

/* As the real one: the first domain from this number on. */
int xc_domain_getinfo(xc_interface *xch, uint32_t first_domid, unsigned int max_doms,
                      xc_dominfo_t *info)
{
    memset(info, 0, sizeof(*info));
    if (!sim.exists) {
        info->domid = first_domid + 1;
        return 1;
    }
    info->domid = DOMID;
    info->dying = sim.dying;
    info->hvm = sim.hvm;
    info->shutdown = sim.shutdown;
    info->shutdown_reason = (unsigned)sim.reason;
    info->paused = sim.pauses > 0;
    for (unsigned char i = 0; i < 16; i++)
        info->handle[i] = i;
    return 1;
}

int xc_domain_pause(xc_interface *xch, uint32_t domid)
{
    sim.pauses++;
    say("pause");
    return 0;
}

int xc_domain_unpause(xc_interface *xch, uint32_t domid)
{
    if (!sim.pauses) {
        errno = EINVAL; /* as the hypervisor */
        return -1;
    }
    sim.pauses--;
    say("unpause");
    return 0;
}

int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned int sop, unsigned int *mb,
                      unsigned int mode)
{
    assert_int_equal(sop, XEN_DOMCTL_SHADOW_OP_OFF);
    say("log_dirty_off");
    if (sim.log_dirty) return 0;
    errno = EINVAL;
    return -1;
}

int xc_hvm_param_get(xc_interface *handle, uint32_t dom, uint32_t param, uint64_t *value)
{
    assert_int_equal(param, HVM_PARAM_CALLBACK_IRQ);
    *value = sim.callback_irq;
    return 0;
}

/* ---- xenstore ---- */

struct xs_handle *xs_open(unsigned long flags)
{
    errno = ECONNREFUSED;
    return sim.no_xenstore ? NULL : (struct xs_handle *)&sim;
}

void xs_close(struct xs_handle *xsh)
{
    sim.watching = false;
}

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    const char *text = NULL;

    if (!strcmp(path, "/libxl/7/type"))
        text = sim.type;
    else if (!strcmp(path, "/libxl/7/xentwin/stopped"))
        text = sim.mark ? "1" : NULL;
    else if (!strcmp(path, "/local/domain/7/control/shutdown"))
        text = sim.request;
    else if (!strcmp(path, "/local/domain/7/name"))
        text = "recover-test"; /* whose disks are looked for, and there are none */
    else
        fail_msg("read of %s", path);
    if (!text) return NULL;
    *len = (unsigned)strlen(text);
    return strdup(text);
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
              unsigned int len)
{
    if (!strcmp(path, "/libxl/7/xentwin/stopped")) {
        sim.mark = true;
        return true;
    }
    assert_string_equal(path, "/local/domain/7/control/shutdown");
    assert_int_equal(len, 0);
    if (!sim.conflicts) {
        say("withdraw");
        sim.request[0] = 0;
        event();
    }
    return true;
}

bool xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
    assert_string_equal(path, "/libxl/7/xentwin/stopped");
    sim.mark = false;
    return true;
}

xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
    return 5;
}

bool xs_transaction_end(struct xs_handle *h, xs_transaction_t t, bool abort)
{
    if (!abort && sim.conflicts) {
        if (!--sim.conflicts && sim.accepts) sim.request[0] = 0;
        errno = EAGAIN;
        return false;
    }
    return true;
}

bool xs_watch(struct xs_handle *h, const char *path, const char *token)
{
    sim.watching = true;
    event();
    return true;
}

int xs_fileno(struct xs_handle *h)
{
    return sim.events[0];
}

char **xs_check_watch(struct xs_handle *h)
{
    char byte;

    assert_int_equal(read(sim.events[0], &byte, 1), 1);
    return calloc(2, sizeof(char *));
}

/* ---- our own modules ---- */

int libxl__dom_resume_fast(libxl__gc *gc, xc_interface *xch, struct xs_handle *xs, uint32_t domid)
{
    say(sim.shutdown ? "resume" : "resume_nothing");
    sim.shutdown = false;
    return 0;
}

bool libxl__dom_is_suspended(xc_interface *xch, uint32_t domid)
{
    return sim.shutdown && sim.reason == SHUTDOWN_suspend;
}

int libxl__qmp_simple_blocking(libxl__gc *gc, uint32_t domid, const char *json, int limit_ms)
{
    say(strstr(json, "cont") ? "cont" : strstr(json, "true") ? "qemu_log_on" : "qemu_log_off");
    return sim.qmp_rc;
}

void libxl__netbuffer_ifname(uint32_t domid, char name[16])
{
    snprintf(name, 16, "remus%u", domid);
}

int libxl__netbuffer_held(libxl__gc *gc, const char *ifb, bool *held)
{
    assert_string_equal(ifb, "remus7");
    *held = sim.held;
    return sim.look_rc;
}

int libxl__netbuffer_remove(libxl__gc *gc, const char *ifb)
{
    assert_string_equal(ifb, "remus7");
    say("net");
    return sim.net_rc;
}

/* The code sleeps only while it waits for a late suspend: here things happen. */
int nanosleep(const struct timespec *req, struct timespec *rem)
{
    if (sim.other_asks_after == sim.sleeps) event();
    if (sim.suspend_after == sim.sleeps) suspend_guest();
    if (sim.helper_ends == sim.sleeps) xc_sr_unlock(run_dir, DOMID, sim.log_lock);
    sim.sleeps++;
    return 0;
}

/* ---- tests ---- */

static libxl__gc gc;

static int setup(void **state)
{
    memset(&sim, 0, sizeof(sim));
    assert_int_equal(pipe(sim.events), 0);
    sim.exists = sim.hvm = sim.log_dirty = true;
    sim.type = "pvh";
    sim.callback_irq = 0x20;
    sim.suspend_after = sim.other_asks_after = sim.helper_ends = -1;
    libxl__gc_init(&gc, NULL);
    return 0;
}

static int teardown(void **state)
{
    libxl__gc_dispose(&gc);
    close(sim.events[0]);
    close(sim.events[1]);
    return 0;
}

static void go_on(int rc, const char *log)
{
    assert_int_equal(libxl__recover_go_on(&gc, DOMID, "remus7"), rc);
    assert_string_equal(sim.log, log);
}

static void t_suspended_pvh_resumes_then_opens_output(void **state)
{
    suspend_guest();
    go_on(0, "resume log_dirty_off net ");
    assert_int_equal(sim.sleeps, 0);
}

static void t_suspended_hvm_starts_qemu_before_guest(void **state)
{
    sim.type = "hvm";
    suspend_guest();
    go_on(0, "cont resume log_dirty_off net qemu_log_on qemu_log_off ");
}

static void t_hvm_qemu_dead_guest_still_resumes(void **state)
{
    sim.type = "hvm";
    sim.qmp_rc = ERROR_QMP_GENERIC_ERROR;
    suspend_guest();
    go_on(ERROR_QMP_GENERIC_ERROR, "cont resume log_dirty_off net qemu_log_on ");
}

static void t_running_log_dirty_not_on_is_fine(void **state)
{
    sim.log_dirty = false;
    go_on(0, "resume_nothing log_dirty_off net ");
}

static void t_request_pending_is_withdrawn_no_wait(void **state)
{
    strcpy(sim.request, "suspend");
    sim.conflicts = 2;
    go_on(0, "withdraw resume_nothing log_dirty_off net ");
    assert_int_equal(sim.sleeps, 0);
}

static void t_request_of_poweroff_is_left(void **state)
{
    strcpy(sim.request, "poweroff");
    go_on(0, "resume_nothing log_dirty_off net ");
    assert_string_equal(sim.request, "poweroff");
}

static void t_request_accepted_while_withdrawing_waits(void **state)
{
    strcpy(sim.request, "suspend");
    sim.conflicts = 1;
    sim.accepts = true;
    sim.suspend_after = 3;
    go_on(0, "resume_nothing log_dirty_off net resume ");
}

static void t_suspend_comes_late_is_resumed(void **state)
{
    sim.suspend_after = 20;
    go_on(0, "resume_nothing log_dirty_off net resume ");
    assert_false(sim.shutdown);
}

static void t_suspend_asked_by_others_is_theirs(void **state)
{
    sim.other_asks_after = 10;
    sim.suspend_after = 10;
    go_on(0, "resume_nothing log_dirty_off net ");
    assert_true(sim.shutdown);
}

static void t_no_suspend_comes_wait_ends(void **state)
{
    go_on(0, "resume_nothing log_dirty_off net ");
    assert_int_equal(sim.sleeps, 50);
}

static void t_guest_without_pv_drivers_no_wait(void **state)
{
    sim.type = "hvm";
    sim.callback_irq = 0;
    go_on(0, "cont resume_nothing log_dirty_off net qemu_log_on qemu_log_off ");
    assert_int_equal(sim.sleeps, 0);
}

static void t_guest_powered_off_only_output_removed(void **state)
{
    sim.shutdown = true;
    sim.reason = SHUTDOWN_poweroff;
    go_on(0, "net ");
}

static void t_guest_gone_only_output_removed(void **state)
{
    sim.exists = false;
    go_on(0, "net ");
}

static void t_guest_dying_only_output_removed(void **state)
{
    sim.dying = true;
    go_on(0, "net ");
}

static void t_xenstore_dead_output_still_opened(void **state)
{
    sim.no_xenstore = true;
    go_on(ERROR_FAIL, "net ");
}

static void t_hypervisor_unreachable_nothing_touched(void **state)
{
    sim.no_hypervisor = true;
    go_on(ERROR_FAIL, "");
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), ERROR_FAIL);
    assert_int_equal(libxl__recover_check_domain(&gc, DOMID, UUID), ERROR_FAIL);
}

/* A protection or a migration that began meanwhile has the log, QEMU's too. */
static void t_log_of_a_live_helper_is_left(void **state)
{
    sim.type = "hvm";
    sim.log_lock = xc_sr_lock(run_dir, DOMID);
    assert_true(sim.log_lock >= 0);
    suspend_guest();
    go_on(0, "cont resume net ");
    assert_int_equal(xc_sr_lock(run_dir, DOMID), -1);
    xc_sr_unlock(run_dir, DOMID, sim.log_lock);
    assert_int_equal(sim.sleeps, 20);
}

/* The dead operation's helper cannot end QEMU's log, and may have been killed in the same moment. */
static void t_helper_on_its_way_out_is_waited_for(void **state)
{
    sim.type = "hvm";
    sim.log_lock = xc_sr_lock(run_dir, DOMID);
    sim.helper_ends = 3;
    suspend_guest();
    go_on(0, "cont resume net log_dirty_off qemu_log_on qemu_log_off ");
    assert_int_equal(sim.sleeps, 4);
}

static void t_helper_on_its_way_out_is_waited_for_without_qemu(void **state)
{
    sim.log_lock = xc_sr_lock(run_dir, DOMID);
    sim.helper_ends = 0;
    suspend_guest();
    go_on(0, "resume net log_dirty_off ");
    assert_int_equal(sim.sleeps, 1);
}

static void t_log_is_free_afterwards(void **state)
{
    int fd;

    suspend_guest();
    go_on(0, "resume log_dirty_off net ");
    fd = xc_sr_lock(run_dir, DOMID);
    assert_true(fd >= 0);
    xc_sr_unlock(run_dir, DOMID, fd);
}

static void t_stay_stopped_twice_pauses_once_go_on_undoes_it(void **state)
{
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    assert_int_equal(sim.pauses, 1);
    assert_true(libxl__recover_is_stopped(&gc, DOMID));
    sim.log[0] = 0;
    suspend_guest();
    go_on(0, "resume unpause log_dirty_off net ");
    assert_int_equal(sim.pauses, 0);
    assert_false(libxl__recover_is_stopped(&gc, DOMID));
}

/* A person undid our pause with xl unpause: the mark stays, and says nothing about the guest. */
static void t_stay_stopped_with_a_stale_mark_pauses(void **state)
{
    sim.mark = true;
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    assert_int_equal(sim.pauses, 1);
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    assert_int_equal(sim.pauses, 1);
    assert_true(libxl__recover_is_stopped(&gc, DOMID));
}

static void t_stale_mark_is_removed_without_unpausing(void **state)
{
    sim.mark = true;
    suspend_guest();
    go_on(0, "resume log_dirty_off net ");
    assert_false(sim.mark);
}

/* The operation died between its pause and its mark, then the guard stopped the guest, too. */
static void t_by_hand_undoes_a_pause_that_lacks_its_mark(void **state)
{
    sim.pauses = 1;
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    assert_int_equal(sim.pauses, 2);
    sim.log[0] = 0;
    suspend_guest();
    assert_int_equal(libxl__recover_by_hand(&gc, DOMID, "remus7"), 0);
    assert_string_equal(sim.log, "resume unpause unpause log_dirty_off net ");
    assert_int_equal(sim.pauses, 0);
    assert_false(sim.mark);
}

/* Both were killed, the guard before it could leave the mark. */
static void t_by_hand_undoes_the_pause_of_a_held_guest(void **state)
{
    sim.pauses = 1;
    sim.held = true;
    suspend_guest();
    assert_int_equal(libxl__recover_by_hand(&gc, DOMID, "remus7"), 0);
    assert_string_equal(sim.log, "resume unpause log_dirty_off net ");
    sim.pauses = 1;
    sim.held = false; /* nothing says that this one is not an administrator's */
    assert_int_equal(libxl__recover_by_hand(&gc, DOMID, "remus7"), 0);
    assert_int_equal(sim.pauses, 1);
}

static void t_held_or_marked_is_undecided(void **state)
{
    bool undecided;

    for (int i = 0; i < 4; i++) {
        sim.mark = i & 1;
        sim.held = i & 2;
        assert_int_equal(libxl__recover_undecided(&gc, DOMID, &undecided), 0);
        assert_int_equal(undecided, i != 0);
    }
    assert_string_equal(sim.log, "");
    sim.look_rc = ERROR_FAIL;
    assert_int_equal(libxl__recover_undecided(&gc, DOMID, &undecided), ERROR_FAIL);
    sim.look_rc = 0;
    sim.no_xenstore = true;
    assert_int_equal(libxl__recover_undecided(&gc, DOMID, &undecided), ERROR_FAIL);
}

/* The guard cannot know whose the first one was. */
static void t_go_on_undoes_our_pause_alone(void **state)
{
    sim.pauses = 1;
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    sim.log[0] = 0;
    suspend_guest();
    go_on(0, "resume unpause log_dirty_off net ");
    assert_int_equal(sim.pauses, 1);
}

static void t_pause_of_an_administrator_is_kept(void **state)
{
    sim.pauses = 1;
    assert_false(libxl__recover_is_stopped(&gc, DOMID));
    suspend_guest();
    go_on(0, "resume log_dirty_off net ");
    assert_int_equal(sim.pauses, 1);
}

static void t_stay_stopped_xenstore_dead_still_pauses(void **state)
{
    sim.no_xenstore = true;
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), ERROR_FAIL);
    assert_int_equal(sim.pauses, 1);
}

static void t_stay_stopped_never_opens_output(void **state)
{
    suspend_guest();
    assert_int_equal(libxl__recover_stay_stopped(&gc, DOMID), 0);
    assert_string_equal(sim.log, "pause ");
}

static void t_check_domain_by_uuid(void **state)
{
    assert_int_equal(libxl__recover_check_domain(&gc, DOMID, UUID), 0);
    assert_int_equal(
        libxl__recover_check_domain(&gc, DOMID, "ffffffff-0405-0607-0809-0a0b0c0d0e0f"),
        ERROR_INVAL);
    assert_int_equal(libxl__recover_check_domain(&gc, DOMID, "no uuid"), ERROR_INVAL);
    sim.exists = false;
    assert_int_equal(libxl__recover_check_domain(&gc, DOMID, UUID), ERROR_DOMAIN_NOTFOUND);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_suspended_pvh_resumes_then_opens_output),
        T(t_suspended_hvm_starts_qemu_before_guest),
        T(t_hvm_qemu_dead_guest_still_resumes),
        T(t_running_log_dirty_not_on_is_fine),
        T(t_request_pending_is_withdrawn_no_wait),
        T(t_request_of_poweroff_is_left),
        T(t_request_accepted_while_withdrawing_waits),
        T(t_suspend_comes_late_is_resumed),
        T(t_suspend_asked_by_others_is_theirs),
        T(t_no_suspend_comes_wait_ends),
        T(t_guest_without_pv_drivers_no_wait),
        T(t_guest_powered_off_only_output_removed),
        T(t_guest_gone_only_output_removed),
        T(t_guest_dying_only_output_removed),
        T(t_xenstore_dead_output_still_opened),
        T(t_hypervisor_unreachable_nothing_touched),
        T(t_log_of_a_live_helper_is_left),
        T(t_helper_on_its_way_out_is_waited_for),
        T(t_helper_on_its_way_out_is_waited_for_without_qemu),
        T(t_log_is_free_afterwards),
        T(t_stay_stopped_twice_pauses_once_go_on_undoes_it),
        T(t_stay_stopped_with_a_stale_mark_pauses),
        T(t_stale_mark_is_removed_without_unpausing),
        T(t_by_hand_undoes_a_pause_that_lacks_its_mark),
        T(t_by_hand_undoes_the_pause_of_a_held_guest),
        T(t_held_or_marked_is_undecided),
        T(t_go_on_undoes_our_pause_alone),
        T(t_pause_of_an_administrator_is_kept),
        T(t_stay_stopped_xenstore_dead_still_pauses),
        T(t_stay_stopped_never_opens_output),
        T(t_check_domain_by_uuid),
    };

    int failed;

    if (!mkdtemp(run_dir) || setenv("XENTWIN_RUN_DIR", run_dir, 1)) return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (rmdir(run_dir)) perror(run_dir);
    return failed;
}
