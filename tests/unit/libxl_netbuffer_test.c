/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The net buffer's logic on a model of the kernel's side: rtnetlink, xenstore and the interface
 * table are played here. What a real kernel does is shown by netbuffer_live.c.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <libxl.h>
#include <linux/pkt_sched.h>
#include <net/if.h>

#include "libxl_netbuffer.h"
#include "libxl_netlink.h"

#define IFB "remus7"
#define IFB_INDEX 100
#define LIMIT (10 * 1000 * 1000)

static xentoollog_logger *quiet;
static libxl__gc gc;

struct plug {
    bool exists, open;
    uint32_t limit, qlen;
};

static struct kernel {
    struct {
        char name[16];
        bool ingress, foreign; /* foreign: somebody else's ingress qdisc */
        char cookie[16];
        int to;
    } ifs[8];
    int nr_ifs;
    bool ifb, ifb_up, prio;
    char ifb_kind[16];
    int band;
    struct plug plug[3];
    uint32_t passed, lost;
    bool stuck; /* an open plug does not empty itself */
    int calls, fail_at, opened;
} k;

struct libxl__nl {
    int dummy;
};
static struct libxl__nl the_nl;

static bool failing(void)
{
    return ++k.calls == k.fail_at;
}

/* What the softirq does between two calls. */
static void softirq(void)
{
    for (int b = 0; b < 3 && !k.stuck; b++) {
        if (k.plug[b].exists && k.plug[b].open) {
            k.passed += k.plug[b].qlen;
            k.plug[b].qlen = 0;
        }
    }
}

static void guest_sends(uint32_t n)
{
    for (int i = 0; i < k.nr_ifs; i++) {
        if (!k.ifs[i].ingress || !k.ifs[i].cookie[0])
            k.passed += n;
        else if (!k.ifb || !k.ifb_up)
            k.lost += n;
        else
            k.plug[k.band].qlen += n;
    }
    softirq();
}

int libxl__nl_open(libxl__gc *g, libxl__nl **nl)
{
    if (failing()) return ERROR_FAIL;
    k.opened++;
    *nl = &the_nl;
    return 0;
}

void libxl__nl_close(libxl__nl *nl)
{
    if (nl) k.opened--;
}

int libxl__nl_link_get(libxl__gc *g, libxl__nl *nl, const char *name, struct nl_link *link)
{
    memset(link, 0, sizeof(*link));
    if (failing()) return ERROR_FAIL;
    if (k.ifb && !strcmp(name, IFB)) {
        link->ifindex = IFB_INDEX;
        strcpy(link->kind, k.ifb_kind);
        return 0;
    }
    for (int i = 0; i < k.nr_ifs; i++) {
        if (!strcmp(name, k.ifs[i].name)) {
            link->ifindex = i + 1;
            return 0;
        }
    }
    return ERROR_NOTFOUND;
}

int libxl__nl_ifb_add(libxl__gc *g, libxl__nl *nl, const char *name)
{
    if (failing()) return ERROR_FAIL;
    assert_string_equal(name, IFB);
    assert_false(k.ifb);
    k.ifb = true;
    strcpy(k.ifb_kind, "ifb");
    return 0;
}

int libxl__nl_link_up(libxl__gc *g, libxl__nl *nl, int ifindex)
{
    if (failing()) return ERROR_FAIL;
    /* No frame may ever meet the device without its plugs. */
    for (int b = 0; b < 3; b++)
        assert_true(k.prio && k.plug[b].exists && k.plug[b].open);
    k.ifb_up = true;
    return 0;
}

int libxl__nl_link_del(libxl__gc *g, libxl__nl *nl, int ifindex)
{
    if (failing()) return ERROR_FAIL;
    assert_int_equal(ifindex, IFB_INDEX);
    k.lost += k.plug[0].qlen + k.plug[1].qlen + k.plug[2].qlen;
    k.ifb = k.ifb_up = k.prio = false;
    memset(k.plug, 0, sizeof(k.plug));
    return 0;
}

static int band_of(uint32_t parent)
{
    assert_true(parent >= 0x10001 && parent <= 0x10003);
    return (int)(parent & 0xf) - 1;
}

static void change_plug(int band, const struct tc_plug_qopt *opt)
{
    struct plug *p = &k.plug[band];

    switch (opt->action) {
    case TCQ_PLUG_BUFFER:
        /* The rule of libxl_netbuffer.h: only an empty plug that gets nothing is closed. */
        assert_int_equal(p->qlen, 0);
        assert_int_not_equal(band, k.band);
        assert_int_not_equal(band, 2); /* what passed before protection is never held */
        p->open = false;
        break;
    case TCQ_PLUG_RELEASE_INDEFINITE:
        p->open = true;
        break;
    default:
        fail_msg("plug action %d", opt->action);
    }
}

int libxl__nl_qdisc_set(libxl__gc *g, libxl__nl *nl, int ifindex, uint32_t parent, uint32_t handle,
                        const char *kind, const void *opt, size_t optlen, bool create)
{
    const struct tc_prio_qopt *prio = opt;
    const struct tc_plug_qopt *plug = opt;

    if (failing()) return ERROR_FAIL;
    if (!k.ifb) return ERROR_NOTFOUND;
    assert_int_equal(ifindex, IFB_INDEX);
    if (!strcmp(kind, "prio")) {
        assert_int_equal(optlen, sizeof(*prio));
        assert_int_equal(prio->bands, 3);
        for (int i = 0; i <= TC_PRIO_MAX; i++)
            assert_int_equal(prio->priomap[i], prio->priomap[0]);
        assert_true(create != k.prio);
        k.prio = true;
        k.band = prio->priomap[0];
    } else if (create) {
        assert_string_equal(kind, "plug");
        k.plug[band_of(parent)] = (struct plug){.exists = true, .limit = plug->limit};
    } else {
        assert_true(k.plug[band_of(parent)].exists);
        change_plug(band_of(parent), plug);
    }
    softirq();
    return 0;
}

int libxl__nl_qdisc_del(libxl__gc *g, libxl__nl *nl, int ifindex, uint32_t parent)
{
    if (failing()) return ERROR_FAIL;
    assert_int_equal(parent, TC_H_INGRESS);
    assert_false(k.ifs[ifindex - 1].foreign);
    k.ifs[ifindex - 1].ingress = false;
    k.ifs[ifindex - 1].cookie[0] = '\0';
    return 0;
}

int libxl__nl_qdisc_get(libxl__gc *g, libxl__nl *nl, int ifindex, uint32_t parent,
                        struct nl_qdisc *q)
{
    memset(q, 0, sizeof(*q));
    q->prio_band = -1;
    if (failing()) return ERROR_FAIL;
    if (!k.ifb || !k.prio) return ERROR_NOTFOUND;
    if (parent == TC_H_ROOT) {
        strcpy(q->kind, "prio");
        q->prio_band = k.band;
        q->qlen = k.plug[0].qlen + k.plug[1].qlen + k.plug[2].qlen;
        return 0;
    }
    strcpy(q->kind, k.plug[band_of(parent)].exists ? "plug" : "pfifo");
    q->qlen = k.plug[band_of(parent)].qlen;
    return 0;
}

int libxl__nl_redirect_add(libxl__gc *g, libxl__nl *nl, int from, int to, const char *cookie)
{
    if (failing()) return ERROR_FAIL;
    if (k.ifs[from - 1].ingress) return ERROR_DEVICE_EXISTS;
    assert_true(k.ifb_up);
    k.ifs[from - 1].ingress = true;
    strcpy(k.ifs[from - 1].cookie, cookie);
    k.ifs[from - 1].to = to;
    return 0;
}

int libxl__nl_redirect_find(libxl__gc *g, libxl__nl *nl, const char *cookie, int *ifs, int max,
                            int *nr)
{
    *nr = 0;
    if (failing()) return ERROR_FAIL;
    for (int i = 0; i < k.nr_ifs; i++)
        if (!strcmp(k.ifs[i].cookie, cookie)) ifs[(*nr)++] = i + 1;
    return 0;
}

/* xenstore: path, value; a directory is a path whose value is its entries. */
static const char *(*store)[2];

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    for (int i = 0; store && store[i][0]; i++) {
        if (!strcmp(store[i][0], path)) {
            *len = (unsigned)strlen(store[i][1]);
            return strdup(store[i][1]);
        }
    }
    errno = ENOENT;
    return NULL;
}

char **xs_directory(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *num)
{
    unsigned len, n = 0;
    char *text = xs_read(h, t, path, &len), *save, *word, **all;

    if (!text) return NULL;
    all = calloc(1, 64 * sizeof(char *) + len + 1);
    strcpy((char *)(all + 64), text);
    free(text);
    for (word = strtok_r((char *)(all + 64), " ", &save); word; word = strtok_r(NULL, " ", &save))
        all[n++] = word;
    *num = n;
    return all;
}

unsigned if_nametoindex(const char *name)
{
    for (int i = 0; i < k.nr_ifs; i++)
        if (!strcmp(k.ifs[i].name, name)) return (unsigned)i + 1;
    return 0;
}

static void no_log(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *context,
                   const char *format, va_list al)
{
}

static xentoollog_logger quiet_logger = {.vmessage = no_log};

static int setup(void **state)
{
    static const char *const names[] = {"vif7.0", "vif7.0-emu", "vif7.1", "other"};

    quiet = &quiet_logger;
    libxl__gc_init(&gc, quiet);
    memset(&k, 0, sizeof(k));
    store = NULL;
    for (k.nr_ifs = 0; k.nr_ifs < 4; k.nr_ifs++)
        strcpy(k.ifs[k.nr_ifs].name, names[k.nr_ifs]);
    return 0;
}

static int teardown(void **state)
{
    libxl__gc_dispose(&gc);
    return 0;
}

static bool clean(void)
{
    for (int i = 0; i < k.nr_ifs; i++)
        if (k.ifs[i].cookie[0]) return false;
    return !k.ifb && !k.opened;
}

static libxl__netbuffer *make(void)
{
    static const char *const nics[] = {"vif7.0", "vif7.1"};
    libxl__netbuffer *nb = NULL;

    strcpy(k.ifs[1].name, "vif7.1");
    k.nr_ifs = 2;
    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, LIMIT, &nb), 0);
    return nb;
}

static void t_epochs_in_turns_hold_and_release(void **state)
{
    libxl__netbuffer *nb = make();
    struct netbuffer_stats st;
    uint32_t before;

    guest_sends(5);
    assert_int_equal(k.passed, 10);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
    for (int epoch = 0; epoch < 10; epoch++) {
        before = k.passed;
        guest_sends(3);
        assert_int_equal(k.passed, before);
        assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
        guest_sends(4);
        assert_int_equal(k.passed, before);
        assert_int_equal(libxl__netbuffer_stats(&gc, nb, &st), 0);
        assert_int_equal(st.held_packets, epoch ? 22 : 14);
        assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
        assert_int_equal(k.passed, before + (epoch ? 14 : 6));
    }
    assert_int_equal(libxl__netbuffer_open(&gc, nb), 0);
    before = k.passed;
    guest_sends(1);
    assert_int_equal(k.passed, before + 2);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0); /* and again */
    guest_sends(1);
    assert_int_equal(k.passed, before + 2);
    assert_int_equal(libxl__netbuffer_teardown(&gc, nb), 0);
    assert_int_equal(k.passed, before + 4);
    assert_int_equal(k.lost, 0);
    assert_true(clean());
}

static void t_second_plug_before_release_is_refused(void **state)
{
    libxl__netbuffer *nb = make();

    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), ERROR_INVAL);
    assert_int_equal(libxl__netbuffer_teardown(&gc, nb), 0);
    assert_true(clean());
}

static void t_each_call_failing_at_setup_leaves_nothing(void **state)
{
    static const char *const nics[] = {"vif7.0", "vif7.1"};
    int n, rc = -1;

    for (n = 1; rc; n++) {
        libxl__netbuffer *nb = NULL;

        setup(NULL);
        strcpy(k.ifs[1].name, "vif7.1");
        k.fail_at = n;
        rc = libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, LIMIT, &nb);
        assert_true(rc ? !nb : nb != NULL);
        if (rc)
            assert_true(clean());
        else
            libxl__netbuffer_teardown(&gc, nb);
    }
    assert_true(n > 12);
}

static void t_each_call_failing_while_plugged_never_leaks(void **state)
{
    bool fired = true;

    for (int n = 1; fired; n++) {
        libxl__netbuffer *nb;
        uint32_t before;

        setup(NULL);
        nb = make();
        assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
        assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
        guest_sends(1);
        before = k.passed;
        k.calls = 0;
        k.fail_at = n;
        fired = libxl__netbuffer_plug(&gc, nb) != 0;
        guest_sends(1);
        assert_int_equal(k.passed, before);
        k.fail_at = 0;
        assert_int_equal(libxl__netbuffer_teardown(&gc, nb), 0);
        assert_int_equal(k.lost, 0);
        assert_true(clean());
    }
}

static void t_killed_remove_by_name_opens_and_cleans(void **state)
{
    libxl__netbuffer *nb = make();
    uint32_t before;

    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    guest_sends(7);
    before = k.passed;
    libxl__netbuffer_abandon(nb);
    assert_int_equal(k.passed, before);
    assert_int_equal(libxl__netbuffer_remove(&gc, IFB), 0);
    assert_int_equal(k.passed, before + 14);
    assert_true(clean());
    assert_int_equal(libxl__netbuffer_remove(&gc, IFB), 0);
}

static bool is_held(void)
{
    bool held = true;

    assert_int_equal(libxl__netbuffer_held(&gc, IFB, &held), 0);
    return held;
}

static void t_held_from_the_first_closed_epoch_on(void **state)
{
    libxl__netbuffer *nb;
    bool held;

    assert_false(is_held());
    nb = make();
    assert_false(is_held());
    for (int epoch = 0; epoch < 3; epoch++) {
        assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
        assert_true(is_held());
        assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
        assert_true(is_held()); /* what follows is */
    }
    libxl__netbuffer_abandon(nb);
    assert_true(is_held());
    for (int n = 1; n <= 3; n++) {
        k.calls = 0;
        k.fail_at = n;
        assert_int_equal(libxl__netbuffer_held(&gc, IFB, &held), ERROR_FAIL);
        assert_false(held);
    }
    k.fail_at = 0;
    assert_int_equal(libxl__netbuffer_remove(&gc, IFB), 0);
    assert_false(is_held());
    assert_true(clean());
}

static void t_half_made_buffer_holds_nothing(void **state)
{
    k.ifb = true; /* killed before it had its plugs */
    strcpy(k.ifb_kind, "ifb");
    assert_false(is_held());
    strcpy(k.ifb_kind, "dummy");
    assert_int_equal(libxl__netbuffer_held(&gc, IFB, &(bool){false}), ERROR_INVAL);
}

static void t_discard_drops_and_stays_closed(void **state)
{
    libxl__netbuffer *nb = make();
    uint32_t before;

    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    guest_sends(7);
    before = k.passed;
    libxl__netbuffer_abandon(nb);
    assert_int_equal(libxl__netbuffer_discard(&gc, IFB), 0);
    guest_sends(1);
    assert_int_equal(k.passed, before);
    assert_int_equal(k.lost, 16);
    assert_int_equal(libxl__netbuffer_remove(&gc, IFB), 0);
    assert_true(clean());
}

static void t_foreign_things_are_left_alone(void **state)
{
    static const char *const nics[] = {"vif7.0", "vif7.1"};
    libxl__netbuffer *nb = NULL;

    strcpy(k.ifs[1].name, "vif7.1");
    k.ifs[1].ingress = k.ifs[1].foreign = true;
    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, LIMIT, &nb),
                     ERROR_DEVICE_EXISTS);
    assert_true(clean());
    k.ifb = true;
    strcpy(k.ifb_kind, "dummy");
    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 1, LIMIT, &nb), ERROR_INVAL);
    assert_int_equal(libxl__netbuffer_discard(&gc, IFB), ERROR_INVAL);
    assert_true(k.ifb);
}

static void t_stuck_plug_is_not_closed_again(void **state)
{
    libxl__netbuffer *nb = make();

    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    guest_sends(1);
    assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    k.stuck = true;
    assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), ERROR_TIMEDOUT);
    k.stuck = false;
    assert_int_equal(libxl__netbuffer_teardown(&gc, nb), 0);
}

static void t_limits_out_of_range_are_refused(void **state)
{
    static const char *const nics[] = {"vif7.0"};
    libxl__netbuffer *nb = NULL;

    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 1, 1000, &nb), ERROR_INVAL);
    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 1, 1ULL << 40, &nb), ERROR_INVAL);
    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, "a-name-of-sixteen", nics, 1, LIMIT, &nb),
                     ERROR_INVAL);
    assert_int_equal(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 65, LIMIT, &nb), ERROR_INVAL);
    assert_int_equal(k.calls, 0);
}

static int setup_xs(bool hvm, libxl__netbuffer **nb)
{
    *nb = NULL;
    return libxl__netbuffer_setup(&gc, NULL, 7, hvm, LIMIT, nb);
}

static void t_hvm_guest_has_both_paths_held(void **state)
{
    static const char *s[][2] = {
        {"/libxl/7/device/vif", "0 1"},
        {"/libxl/7/device/vif/0/backend", "/local/domain/0/backend/vif/7/0"},
        {"/libxl/7/device/vif/1/backend", "/local/domain/0/backend/vif/7/1"},
        {NULL, NULL}};
    libxl__netbuffer *nb;

    store = s;
    assert_int_equal(setup_xs(true, &nb), 0);
    assert_string_equal(k.ifs[0].cookie, IFB);
    assert_string_equal(k.ifs[1].cookie, IFB);
    assert_string_equal(k.ifs[2].cookie, IFB);
    assert_string_equal(k.ifs[3].cookie, "");
    libxl__netbuffer_teardown(&gc, nb);
    assert_int_equal(setup_xs(false, &nb), 0);
    assert_string_equal(k.ifs[1].cookie, "");
    libxl__netbuffer_teardown(&gc, nb);
    assert_true(clean());
}

static void t_vifname_is_used(void **state)
{
    static const char *s[][2] = {
        {"/libxl/7/device/vif", "3"},
        {"/libxl/7/device/vif/3/backend", "/local/domain/0/backend/vif/7/3"},
        {"/local/domain/0/backend/vif/7/3/vifname", "other"},
        {NULL, NULL}};
    libxl__netbuffer *nb;

    store = s;
    assert_int_equal(setup_xs(true, &nb), 0);
    assert_string_equal(k.ifs[3].cookie, IFB);
    libxl__netbuffer_teardown(&gc, nb);
    s[2][1] = "a-name-of-sixteen";
    assert_int_equal(setup_xs(true, &nb), ERROR_INVAL);
}

static void t_backend_elsewhere_is_refused(void **state)
{
    static const char *s[][2] = {
        {"/libxl/7/device/vif", "0"}, {"/libxl/7/device/vif/0/backend", NULL}, {NULL, NULL}};
    static const char *const bad[] = {"/local/domain/3/backend/vif/7/0",
                                      "/local/domain/0/backend/vif/8/0",
                                      "/local/domain/0/backend/vif/7/00", "", "x"};
    libxl__netbuffer *nb;

    store = s;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s[1][1] = bad[i];
        assert_int_equal(setup_xs(false, &nb), ERROR_INVAL);
    }
    s[1][0] = "/elsewhere";
    assert_int_equal(setup_xs(false, &nb), ERROR_FAIL);
    assert_true(clean());
}

static void t_guest_without_nic_has_an_empty_buffer(void **state)
{
    struct netbuffer_stats st;
    libxl__netbuffer *nb;

    assert_int_equal(setup_xs(true, &nb), 0);
    assert_non_null(nb);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_release(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_plug(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_open(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_stats(&gc, nb, &st), 0);
    assert_int_equal(st.held_packets, 0);
    assert_int_equal(libxl__netbuffer_teardown(&gc, nb), 0);
    assert_int_equal(libxl__netbuffer_teardown(&gc, NULL), 0);
    assert_true(clean());
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(t_epochs_in_turns_hold_and_release),
        T(t_second_plug_before_release_is_refused),
        T(t_each_call_failing_at_setup_leaves_nothing),
        T(t_each_call_failing_while_plugged_never_leaks),
        T(t_killed_remove_by_name_opens_and_cleans),
        T(t_held_from_the_first_closed_epoch_on),
        T(t_half_made_buffer_holds_nothing),
        T(t_discard_drops_and_stays_closed),
        T(t_foreign_things_are_left_alone),
        T(t_stuck_plug_is_not_closed_again),
        T(t_limits_out_of_range_are_refused),
        T(t_hvm_guest_has_both_paths_held),
        T(t_vifname_is_used),
        T(t_backend_elsewhere_is_refused),
        T(t_guest_without_nic_has_an_empty_buffer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
