/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The net buffer's device, its two plugs and their turns (libxl_netbuffer.h has the picture).
 *
 *                  plug A    plug B    new frames go to
 *   setup          open      open      C     a third one, never closed
 *   plug (n)       open      CLOSED    B     what C still has was sent before protection
 *   release        open      CLOSED    B
 *   plug (n+1)     CLOSED    CLOSED    A     A is empty when it is closed; B has epoch n+1
 *   release        CLOSED    open      A     B empties itself
 *
 * The kernel does not tell whether a plug is closed. So C: a buffer that is found and whose frames
 * do not go there may hold something (libxl__netbuffer_held).
 *
 * Order of making: plugs before the device is up, device up before the first redirection, so that
 * no frame meets a queue without a plug or a device that is down. Order of taking away: open,
 * empty, redirections, empty again, device.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <libxl.h>
#include <linux/pkt_sched.h>

#include "libxl_netbuffer.h"
#include "libxl_netlink.h"

#define DRAIN_MS 1000
#define ROOT_HANDLE TC_H_MAKE(1U << 16, 0)
#define BAND_PARENT(band) TC_H_MAKE(1U << 16, (uint32_t)(band) + 1)
#define BANDS 2
#define BAND_PASS BANDS /* C, which is not used in turn */
#define ALL_BANDS (BANDS + 1)

struct libxl__netbuffer {
    libxl__nl *nl; /* NULL: a guest without NIC */
    char ifb[16];
    int ifindex;
    int current; /* the band that new frames go to; the other one is closed or open and empty */
    bool closed; /* an epoch waits in the other band for its release */
};

void libxl__netbuffer_ifname(uint32_t domid, char name[16])
{
    snprintf(name, 16, "remus%u", domid);
}

static void wait_a_little(void)
{
    struct timespec ts = {.tv_nsec = 500000};

    nanosleep(&ts, NULL);
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

static int set_plug(libxl__gc *gc, libxl__nl *nl, int ifindex, int band, int action)
{
    struct tc_plug_qopt opt = {.action = action};

    return libxl__nl_qdisc_set(gc, nl, ifindex, BAND_PARENT(band), 0, "plug", &opt, sizeof(opt),
                               false);
}

static int set_current(libxl__gc *gc, libxl__nl *nl, int ifindex, int band, bool create)
{
    struct tc_prio_qopt opt = {.bands = ALL_BANDS};

    memset(opt.priomap, band, sizeof(opt.priomap));
    return libxl__nl_qdisc_set(gc, nl, ifindex, TC_H_ROOT, ROOT_HANDLE, "prio", &opt, sizeof(opt),
                               create);
}

/*
 * Waits until a qdisc is empty. ERROR_TIMEDOUT is logged: frames go nowhere, which is not normal.
 */
static int drain_qdisc(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent)
{
    int64_t limit = now_ms() + DRAIN_MS;
    struct nl_qdisc q;
    int rc;

    for (;;) {
        rc = libxl__nl_qdisc_get(gc, nl, ifindex, parent, &q);
        if (rc || !q.qlen) return rc;
        if (now_ms() > limit) break;
        wait_a_little();
    }
    LOG(gc, ERROR, "net buffer: %u frames did not leave within %d ms", q.qlen, DRAIN_MS);
    return ERROR_TIMEDOUT;
}

/*
 * Waits until the device, too, has handed on all it took: it counts a frame in as received, out as
 * sent. Frames that are no redirected ones (the kernel's own) are received and dropped.
 */
static int drain_device(libxl__gc *gc, libxl__nl *nl, const char *ifb, int ifindex)
{
    int64_t limit = now_ms() + DRAIN_MS;
    struct nl_link link;
    int rc;

    rc = drain_qdisc(gc, nl, ifindex, TC_H_ROOT);
    if (rc) return rc;
    for (;;) {
        rc = libxl__nl_link_get(gc, nl, ifb, &link);
        if (rc || link.rx_packets - link.rx_dropped <= link.tx_packets) return rc;
        if (now_ms() > limit) break;
        wait_a_little();
    }
    LOG(gc, WARN, "net buffer: %s did not hand on all frames within %d ms", ifb, DRAIN_MS);
    return ERROR_TIMEDOUT;
}

/* Opens both plugs, the older epoch first. A plug that is not there (half-made buffer) is fine. */
static int open_plugs(libxl__gc *gc, libxl__nl *nl, int ifindex, int current)
{
    int rc, i;

    for (i = 1; i <= BANDS; i++) {
        int band = (current + i) % BANDS;
        struct nl_qdisc q;

        rc = libxl__nl_qdisc_get(gc, nl, ifindex, BAND_PARENT(band), &q);
        if (rc == ERROR_NOTFOUND || (!rc && strcmp(q.kind, "plug"))) continue;
        if (rc) return rc;
        rc = set_plug(gc, nl, ifindex, band, TCQ_PLUG_RELEASE_INDEFINITE);
        if (rc) return rc;
        if (i < BANDS)
            drain_qdisc(gc, nl, ifindex,
                        BAND_PARENT(band)); /* keeps the order; open it is anyway */
    }
    return 0;
}

static int find_ours(libxl__gc *gc, libxl__nl *nl, const char *ifb, struct nl_link *link)
{
    int rc = libxl__nl_link_get(gc, nl, ifb, link);

    if (!rc && strcmp(link->kind, "ifb")) {
        LOG(gc, ERROR, "interface %s is not an ifb: not made by us, rename it", ifb);
        rc = ERROR_INVAL;
    }
    return rc;
}

static int remove_redirections(libxl__gc *gc, libxl__nl *nl, const char *ifb)
{
    int ifs[NETBUFFER_MAX_IFS], nr, rc, rc2, i;

    rc = libxl__nl_redirect_find(gc, nl, ifb, ifs, NETBUFFER_MAX_IFS, &nr);
    for (i = 0; i < nr; i++) {
        rc2 = libxl__nl_qdisc_del(gc, nl, ifs[i], TC_H_INGRESS);
        if (rc2 && rc2 != ERROR_NOTFOUND) rc = rc2;
    }
    return rc;
}

static int remove_all(libxl__gc *gc, libxl__nl *nl, const char *ifb)
{
    struct nl_link link;
    struct nl_qdisc root;
    int rc, rc2;
    bool plugged = false;

    rc = find_ours(gc, nl, ifb, &link);
    if (rc && rc != ERROR_NOTFOUND) return rc;
    if (rc) /* redirections to a device that is gone drop everything: remove them all the same */
        return remove_redirections(gc, nl, ifb);
    rc = libxl__nl_qdisc_get(gc, nl, link.ifindex, TC_H_ROOT, &root);
    if (!rc && root.prio_band >= 0) {
        rc = open_plugs(gc, nl, link.ifindex, root.prio_band % BANDS);
        if (rc) return rc; /* the device stays: what it holds is not lost */
        plugged = true;
        drain_qdisc(gc, nl, link.ifindex, TC_H_ROOT);
    }
    rc = remove_redirections(gc, nl, ifb);
    if (plugged) drain_device(gc, nl, ifb, link.ifindex);
    rc2 = libxl__nl_link_del(gc, nl, link.ifindex);
    return rc ? rc : rc2 == ERROR_NOTFOUND ? 0 : rc2;
}

int libxl__netbuffer_remove(libxl__gc *gc, const char *ifb)
{
    libxl__nl *nl = NULL;
    int rc;

    rc = libxl__nl_open(gc, &nl);
    if (!rc) rc = remove_all(gc, nl, ifb);
    libxl__nl_close(nl);
    return rc;
}

static int look_whether_held(libxl__gc *gc, libxl__nl *nl, const char *ifb, bool *held)
{
    struct nl_qdisc root = {.prio_band = -1};
    struct nl_link link;
    int rc;

    rc = find_ours(gc, nl, ifb, &link);
    if (!rc) rc = libxl__nl_qdisc_get(gc, nl, link.ifindex, TC_H_ROOT, &root);
    if (!rc) *held = root.prio_band >= 0 && root.prio_band != BAND_PASS;
    return rc == ERROR_NOTFOUND ? 0 : rc;
}

int libxl__netbuffer_held(libxl__gc *gc, const char *ifb, bool *held)
{
    libxl__nl *nl = NULL;
    int rc;

    *held = false;
    rc = libxl__nl_open(gc, &nl);
    if (!rc) rc = look_whether_held(gc, nl, ifb, held);
    libxl__nl_close(nl);
    return rc;
}

int libxl__netbuffer_discard(libxl__gc *gc, const char *ifb)
{
    libxl__nl *nl = NULL;
    struct nl_link link;
    int rc;

    rc = libxl__nl_open(gc, &nl);
    if (rc) goto out;
    rc = find_ours(gc, nl, ifb, &link);
    if (!rc) rc = libxl__nl_link_del(gc, nl, link.ifindex);
    if (rc == ERROR_NOTFOUND) rc = 0;
out:
    libxl__nl_close(nl);
    return rc;
}

static int make_device(libxl__gc *gc, libxl__netbuffer *nb, uint32_t band_limit)
{
    struct tc_plug_qopt opt = {.action = TCQ_PLUG_LIMIT, .limit = band_limit};
    struct nl_link link;
    int rc, band;

    rc = libxl__nl_ifb_add(gc, nb->nl, nb->ifb);
    if (rc) return rc;
    rc = libxl__nl_link_get(gc, nb->nl, nb->ifb, &link);
    if (rc) return rc;
    nb->ifindex = link.ifindex;
    rc = set_current(gc, nb->nl, nb->ifindex, BAND_PASS, true);
    if (rc) return rc;
    for (band = 0; band < ALL_BANDS; band++) {
        rc = libxl__nl_qdisc_set(gc, nb->nl, nb->ifindex, BAND_PARENT(band),
                                 TC_H_MAKE((uint32_t)(band + 2) << 16, 0), "plug", &opt,
                                 sizeof(opt), true);
        if (rc) return rc;
        rc = set_plug(gc, nb->nl, nb->ifindex, band, TCQ_PLUG_RELEASE_INDEFINITE);
        if (rc) return rc;
    }
    return libxl__nl_link_up(gc, nb->nl, nb->ifindex);
}

static int redirect_one(libxl__gc *gc, libxl__netbuffer *nb, const char *ifname)
{
    struct nl_link link;
    int rc;

    rc = libxl__nl_link_get(gc, nb->nl, ifname, &link);
    if (rc == ERROR_NOTFOUND) {
        LOG(gc, ERROR, "net buffer: there is no interface %s", ifname);
        return ERROR_FAIL;
    }
    if (!rc) rc = libxl__nl_redirect_add(gc, nb->nl, link.ifindex, nb->ifindex, nb->ifb);
    if (rc == ERROR_DEVICE_EXISTS)
        LOG(gc, ERROR,
            "net buffer: %s has traffic rules on its ingress already, which could let output pass; "
            "remove them: tc qdisc del dev %s ingress",
            ifname, ifname);
    return rc;
}

int libxl__netbuffer_setup_ifs(libxl__gc *gc, const char *ifb, const char *const *ifnames, int nr,
                               uint64_t limit_bytes, libxl__netbuffer **nb_out)
{
    libxl__netbuffer *nb = NULL;
    bool made = false;
    int rc, i;

    if (limit_bytes < NETBUFFER_MIN_LIMIT || limit_bytes / BANDS > UINT32_MAX) {
        LOG(gc, ERROR, "net buffer limit of %llu bytes: must be %u bytes to 8 GiB",
            (unsigned long long)limit_bytes, NETBUFFER_MIN_LIMIT);
        return ERROR_INVAL;
    }
    if (nr > NETBUFFER_MAX_IFS || !ifb[0] || strlen(ifb) >= sizeof(nb->ifb)) {
        LOG(gc, ERROR, "net buffer %s of %d interfaces: at most %d, and a name under 16 characters",
            ifb, nr, NETBUFFER_MAX_IFS);
        return ERROR_INVAL;
    }
    nb = calloc(1, sizeof(*nb));
    if (!nb) return ERROR_NOMEM;
    strcpy(nb->ifb, ifb);
    nb->current = BAND_PASS;
    rc = libxl__nl_open(gc, &nb->nl);
    if (rc) goto out;
    rc = remove_all(gc, nb->nl, ifb);
    if (rc || !nr) goto out;
    made = true;
    rc = make_device(gc, nb, (uint32_t)(limit_bytes / BANDS));
    for (i = 0; !rc && i < nr; i++)
        rc = redirect_one(gc, nb, ifnames[i]);
out:
    if (rc && made) remove_all(gc, nb->nl, ifb);
    if (rc || !nr) {
        libxl__nl_close(nb->nl);
        nb->nl = NULL;
    }
    if (rc) {
        free(nb);
        return rc == ERROR_NOTFOUND ? ERROR_FAIL : rc;
    }
    *nb_out = nb;
    return 0;
}

/* The device was there at _setup: somebody took it away. */
static int gone(libxl__gc *gc, const libxl__netbuffer *nb, int rc)
{
    if (rc != ERROR_NOTFOUND) return rc;
    LOG(gc, ERROR, "net buffer: %s is gone or was changed, output cannot be held", nb->ifb);
    return ERROR_FAIL;
}

/*
 * The other plug has let its epoch go and is empty by now: closes it and sends to it what comes
 * from here on.
 */
static int turn(libxl__gc *gc, libxl__netbuffer *nb, int other)
{
    int rc;

    rc = drain_qdisc(gc, nb->nl, nb->ifindex, BAND_PARENT(other));
    if (rc) return rc;
    rc = set_plug(gc, nb->nl, nb->ifindex, other, TCQ_PLUG_BUFFER);
    if (rc) return rc;
    return set_current(gc, nb->nl, nb->ifindex, other, false);
}

int libxl__netbuffer_plug(libxl__gc *gc, libxl__netbuffer *nb)
{
    int other = (nb->current + 1) % BANDS, rc;

    if (nb->closed) {
        LOG(gc, ERROR,
            "net buffer: the closed epoch must be released before the next one is closed");
        return ERROR_INVAL;
    }
    rc = nb->nl ? turn(gc, nb, other) : 0;
    if (rc) return gone(gc, nb, rc);
    nb->current = other;
    nb->closed = true;
    return 0;
}

int libxl__netbuffer_release(libxl__gc *gc, libxl__netbuffer *nb)
{
    int rc = 0;

    if (nb->nl && nb->closed)
        rc = set_plug(gc, nb->nl, nb->ifindex, (nb->current + 1) % BANDS,
                      TCQ_PLUG_RELEASE_INDEFINITE);
    if (!rc) nb->closed = false;
    return gone(gc, nb, rc);
}

int libxl__netbuffer_open(libxl__gc *gc, libxl__netbuffer *nb)
{
    int rc = 0;

    if (nb->nl) rc = open_plugs(gc, nb->nl, nb->ifindex, nb->current);
    if (!rc) nb->closed = false;
    return gone(gc, nb, rc);
}

int libxl__netbuffer_stats(libxl__gc *gc, libxl__netbuffer *nb, struct netbuffer_stats *st)
{
    struct nl_qdisc q;
    int rc;

    memset(st, 0, sizeof(*st));
    if (!nb->nl) return 0;
    rc = libxl__nl_qdisc_get(gc, nb->nl, nb->ifindex, TC_H_ROOT, &q);
    if (rc) return gone(gc, nb, rc);
    st->held_packets = q.qlen;
    st->held_bytes = q.backlog_bytes;
    st->dropped_packets = q.drops;
    return 0;
}

int libxl__netbuffer_teardown(libxl__gc *gc, libxl__netbuffer *nb)
{
    int rc = 0;

    if (!nb) return 0;
    if (nb->nl) rc = remove_all(gc, nb->nl, nb->ifb);
    libxl__netbuffer_abandon(nb);
    return rc;
}

void libxl__netbuffer_abandon(libxl__netbuffer *nb)
{
    if (!nb) return;
    libxl__nl_close(nb->nl);
    free(nb);
}
