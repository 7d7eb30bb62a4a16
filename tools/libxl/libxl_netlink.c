/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One request, one answer. libnl builds the messages and knows the attributes; the answers are read
 * here, because a late answer to a request that timed out must be told from the answer to the next
 * one (by the sequence number).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include <linux/gen_stats.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_gact.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>

#include <libxl.h>

#include "libxl_netlink.h"

#define RECV_BYTES 65536
#define ERRNO_MAX 4095
#define DUMP_TRIES 200 /* a dump that changed while it was read is read again */
#define DUMP_PAUSE_NS 5000000
#define INGRESS_PARENT TC_H_MAKE(TC_H_INGRESS, 0)

struct libxl__nl {
    struct nl_sock *sk;
    unsigned char buf[RECV_BYTES] __attribute__((aligned(8)));
};

/* One request under way: the answers' messages go to each(). */
struct exchange {
    libxl__nl *nl;
    void (*each)(struct nlmsghdr *nh, void *user);
    void *user;
    uint32_t seq;
    int error; /* errno of the kernel's answer */
    bool changed;
    char text[96]; /* the kernel's own words, when it gave some */
};

int libxl__nl_open(libxl__gc *gc, libxl__nl **nl_out)
{
    int rc, r, on = 1;
    struct timeval limit = {.tv_sec = NL_LIMIT_MS / 1000};
    libxl__nl *nl = calloc(1, sizeof(*nl));

    if (!nl || !(nl->sk = nl_socket_alloc())) {
        LOG(gc, ERROR, "out of memory");
        rc = ERROR_NOMEM;
        goto out;
    }
    r = nl_connect(nl->sk, NETLINK_ROUTE);
    if (r) {
        LOG(gc, ERROR, "cannot open a netlink socket: %s", nl_geterror(r));
        rc = ERROR_FAIL;
        goto out;
    }
    r = setsockopt(nl_socket_get_fd(nl->sk), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    if (r) {
        LOGE(gc, ERROR, "cannot limit the wait on a netlink socket");
        rc = ERROR_FAIL;
        goto out;
    }
    /* Kernels without these two only say less in their errors. */
    setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    setsockopt(nl_socket_get_fd(nl->sk), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    *nl_out = nl;
    nl = NULL;
    rc = 0;
out:
    libxl__nl_close(nl);
    return rc;
}

void libxl__nl_close(libxl__nl *nl)
{
    if (!nl) return;
    nl_socket_free(nl->sk);
    free(nl);
}

static void take_error(struct exchange *ex, struct nlmsghdr *nh)
{
    struct nlmsgerr *err = nlmsg_data(nh);
    struct nlattr *tb[NLMSGERR_ATTR_MSG + 1] = {NULL};
    struct nlattr *attrs = (void *)(err + 1);
    int len = nlmsg_datalen(nh) - (int)sizeof(*err);

    if (nlmsg_datalen(nh) < (int)sizeof(*err) || err->error > 0 || err->error < -ERRNO_MAX) {
        ex->error = EPROTO;
        return;
    }
    ex->error = -err->error;
    if (!ex->error || !(nh->nlmsg_flags & NLM_F_ACK_TLVS) || !(nh->nlmsg_flags & NLM_F_CAPPED))
        return;
    if (len > 0 && !nla_parse(tb, NLMSGERR_ATTR_MSG, attrs, len, NULL) && tb[NLMSGERR_ATTR_MSG])
        nla_strlcpy(ex->text, tb[NLMSGERR_ATTR_MSG], sizeof(ex->text));
}

/* True when this message ends the exchange. */
static bool take_message(struct exchange *ex, struct nlmsghdr *nh)
{
    if (nh->nlmsg_seq != ex->seq) return false;
    if (nh->nlmsg_flags & NLM_F_DUMP_INTR) ex->changed = true;
    if (nh->nlmsg_type == NLMSG_ERROR) {
        take_error(ex, nh);
        return true;
    }
    if (nh->nlmsg_type == NLMSG_DONE) return true;
    if (nh->nlmsg_type >= NLMSG_MIN_TYPE && ex->each) ex->each(nh, ex->user);
    return false;
}

static int receive(struct exchange *ex)
{
    int fd = nl_socket_get_fd(ex->nl->sk);

    for (;;) {
        struct sockaddr_nl from = {0};
        socklen_t fromlen = sizeof(from);
        struct nlmsghdr *nh = (void *)ex->nl->buf;
        ssize_t got = recvfrom(fd, ex->nl->buf, RECV_BYTES, MSG_TRUNC, (void *)&from, &fromlen);
        int left = (int)got;

        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno == EAGAIN ? ETIMEDOUT : errno;
        if (got > RECV_BYTES) return EMSGSIZE;
        if (from.nl_pid) /* not the kernel */
            continue;
        for (; nlmsg_ok(nh, left); nh = nlmsg_next(nh, &left)) {
            if (take_message(ex, nh)) return ex->error;
        }
    }
}

/*
 * Sends msg (always freed) and waits for the end of its answer. 0 or an errno; ex has the details.
 */
static int run(struct exchange *ex, struct nl_msg *msg)
{
    int r;

    nl_complete_msg(ex->nl->sk, msg);
    ex->seq = nlmsg_hdr(msg)->nlmsg_seq;
    r = nl_send(ex->nl->sk, msg);
    nlmsg_free(msg);
    return r < 0 ? EIO : receive(ex);
}

static int fail(libxl__gc *gc, const struct exchange *ex, int error, const char *what)
{
    if (error == ENODEV || error == ENOENT) return ERROR_NOTFOUND;
    LOGEV(gc, ERROR, error, "%s%s%s", what, ex->text[0] ? ": " : "", ex->text);
    return error == EEXIST || error == EBUSY ? ERROR_DEVICE_EXISTS : ERROR_FAIL;
}

static struct nl_msg *new_msg(int type, int flags, const void *head, size_t len)
{
    struct nl_msg *msg = nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_ACK | flags);

    if (msg && nlmsg_append(msg, (void *)head, len, NLMSG_ALIGNTO)) {
        nlmsg_free(msg);
        msg = NULL;
    }
    return msg;
}

/*
 * Our messages are far smaller than libnl's page-sized ones: a put that fails is out of memory or a
 * bug.
 */
static int request(libxl__gc *gc, libxl__nl *nl, struct nl_msg *msg, int put, const char *what)
{
    struct exchange ex = {.nl = nl};
    int r;

    if (!msg || put < 0) {
        nlmsg_free(msg);
        LOG(gc, ERROR, "%s: out of memory", what);
        return ERROR_NOMEM;
    }
    r = run(&ex, msg);
    return r ? fail(gc, &ex, r, what) : 0;
}

static void take_link(struct nlmsghdr *nh, void *user)
{
    struct nl_link *link = user;
    struct nlattr *tb[IFLA_MAX + 1], *info[IFLA_INFO_MAX + 1];
    struct ifinfomsg *ifi = nlmsg_data(nh);
    struct rtnl_link_stats64 stats;

    if (nh->nlmsg_type != RTM_NEWLINK || nlmsg_parse(nh, sizeof(*ifi), tb, IFLA_MAX, NULL)) return;
    link->ifindex = ifi->ifi_index;
    if (tb[IFLA_LINKINFO] && !nla_parse_nested(info, IFLA_INFO_MAX, tb[IFLA_LINKINFO], NULL) &&
        info[IFLA_INFO_KIND])
        nla_strlcpy(link->kind, info[IFLA_INFO_KIND], sizeof(link->kind));
    if (tb[IFLA_STATS64] && nla_memcpy(&stats, tb[IFLA_STATS64], sizeof(stats)) >=
                                (int)offsetof(struct rtnl_link_stats64, multicast)) {
        link->rx_packets = stats.rx_packets;
        link->rx_dropped = stats.rx_dropped;
        link->tx_packets = stats.tx_packets;
    }
}

int libxl__nl_link_get(libxl__gc *gc, libxl__nl *nl, const char *name, struct nl_link *link)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *msg = new_msg(RTM_GETLINK, 0, &ifi, sizeof(ifi));
    struct exchange ex = {.nl = nl, .each = take_link, .user = link};
    int r;

    memset(link, 0, sizeof(*link));
    if (!msg || nla_put_string(msg, IFLA_IFNAME, name) < 0) {
        nlmsg_free(msg);
        return ERROR_NOMEM;
    }
    r = run(&ex, msg);
    if (!r && !link->ifindex) r = ENODEV;
    return r ? fail(gc, &ex, r, name) : 0;
}

/*
 * Keeps the kernel from giving the device an IPv6 address. Fails where there is no IPv6, which is
 * as good.
 */
static void no_ipv6(libxl__nl *nl, int ifindex)
{
    struct ifinfomsg ifi = {.ifi_index = ifindex};
    struct nl_msg *msg = new_msg(RTM_NEWLINK, 0, &ifi, sizeof(ifi));
    struct nlattr *spec = msg ? nla_nest_start(msg, IFLA_AF_SPEC) : NULL;
    struct nlattr *inet6 = spec ? nla_nest_start(msg, AF_INET6) : NULL;
    struct exchange ex = {.nl = nl};

    if (!inet6 || nla_put_u8(msg, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) < 0) {
        nlmsg_free(msg);
        return;
    }
    nla_nest_end(msg, inet6);
    nla_nest_end(msg, spec);
    run(&ex, msg);
}

int libxl__nl_ifb_add(libxl__gc *gc, libxl__nl *nl, const char *name)
{
    struct ifinfomsg ifi = {.ifi_family = AF_UNSPEC};
    struct nl_msg *msg = new_msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &ifi, sizeof(ifi));
    struct nlattr *info = NULL;
    struct nl_link link;
    char what[80];
    int rc, put = -1;

    if (msg) {
        put = nla_put_string(msg, IFLA_IFNAME, name);
        info = nla_nest_start(msg, IFLA_LINKINFO);
        put |= nla_put_string(msg, IFLA_INFO_KIND, "ifb");
    }
    if (info) nla_nest_end(msg, info);
    snprintf(what, sizeof(what), "cannot make the ifb device %s (kernel module ifb)", name);
    rc = request(gc, nl, msg, info ? put : -1, what);
    if (rc) return rc;
    rc = libxl__nl_link_get(gc, nl, name, &link);
    if (!rc) no_ipv6(nl, link.ifindex);
    return rc;
}

int libxl__nl_link_up(libxl__gc *gc, libxl__nl *nl, int ifindex)
{
    struct ifinfomsg ifi = {.ifi_index = ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};

    return request(gc, nl, new_msg(RTM_NEWLINK, 0, &ifi, sizeof(ifi)), 0, "cannot set ifb up");
}

int libxl__nl_link_del(libxl__gc *gc, libxl__nl *nl, int ifindex)
{
    struct ifinfomsg ifi = {.ifi_index = ifindex};

    return request(gc, nl, new_msg(RTM_DELLINK, 0, &ifi, sizeof(ifi)), 0, "cannot delete ifb");
}

int libxl__nl_qdisc_set(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent, uint32_t handle,
                        const char *kind, const void *opt, size_t optlen, bool create)
{
    struct tcmsg tcm = {.tcm_ifindex = ifindex, .tcm_parent = parent, .tcm_handle = handle};
    struct nl_msg *msg =
        new_msg(RTM_NEWQDISC, create ? NLM_F_CREATE | NLM_F_EXCL : 0, &tcm, sizeof(tcm));
    char what[64]; /* not of the gc: this runs at every checkpoint */
    int rc, put = -1;

    if (msg) {
        put = nla_put_string(msg, TCA_KIND, kind);
        if (opt) put |= nla_put(msg, TCA_OPTIONS, (int)optlen, opt);
    }
    snprintf(what, sizeof(what), "%s qdisc on interface %d", kind, ifindex);
    rc = request(gc, nl, msg, put, what);
    if (rc == ERROR_NOTFOUND && create) {
        LOG(gc, ERROR,
            "cannot make a %s qdisc on interface %d: kernel module sch_%s or interface missing",
            kind, ifindex, kind);
        rc = ERROR_FAIL;
    }
    return rc;
}

int libxl__nl_qdisc_del(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent)
{
    struct tcmsg tcm = {.tcm_ifindex = ifindex, .tcm_parent = parent};

    return request(gc, nl, new_msg(RTM_DELQDISC, 0, &tcm, sizeof(tcm)), 0, "cannot delete a qdisc");
}

static void take_qdisc(struct nlmsghdr *nh, void *user)
{
    struct nl_qdisc *q = user;
    struct nlattr *tb[TCA_MAX + 1], *st[TCA_STATS_MAX + 1];
    struct tcmsg *tcm = nlmsg_data(nh);
    struct gnet_stats_queue queue = {0};
    struct tc_prio_qopt prio = {0};

    if (nh->nlmsg_type != RTM_NEWQDISC || nlmsg_parse(nh, sizeof(*tcm), tb, TCA_MAX, NULL)) return;
    q->handle = tcm->tcm_handle;
    if (tb[TCA_KIND]) nla_strlcpy(q->kind, tb[TCA_KIND], sizeof(q->kind));
    if (tb[TCA_STATS2] && !nla_parse_nested(st, TCA_STATS_MAX, tb[TCA_STATS2], NULL) &&
        st[TCA_STATS_QUEUE])
        nla_memcpy(&queue, st[TCA_STATS_QUEUE], sizeof(queue));
    q->qlen = queue.qlen;
    q->backlog_bytes = queue.backlog;
    q->drops = queue.drops;
    if (!strcmp(q->kind, "prio") && tb[TCA_OPTIONS] &&
        nla_memcpy(&prio, tb[TCA_OPTIONS], sizeof(prio)) == (int)sizeof(prio))
        q->prio_band = prio.priomap[0];
}

int libxl__nl_qdisc_get(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent,
                        struct nl_qdisc *q)
{
    struct tcmsg tcm = {.tcm_ifindex = ifindex, .tcm_parent = parent};
    /* The kernel answers this by a notification, which the asker gets only as an echo. */
    struct nl_msg *msg = new_msg(RTM_GETQDISC, NLM_F_ECHO, &tcm, sizeof(tcm));
    struct exchange ex = {.nl = nl, .each = take_qdisc, .user = q};
    int r;

    memset(q, 0, sizeof(*q));
    q->prio_band = -1;
    r = msg ? run(&ex, msg) : ENOMEM;
    if (!r && !q->kind[0]) r = ENOENT;
    return r ? fail(gc, &ex, r, "cannot look at a qdisc") : 0;
}

/* One action of a rule. 0 or negative. */
static int put_action(struct nl_msg *msg, int nr, const char *kind, const char *cookie, int attr,
                      const void *parms, int len)
{
    struct nlattr *act = nla_nest_start(msg, nr), *opts;
    int put = nla_put_string(msg, TCA_ACT_KIND, kind);

    put |= nla_put(msg, TCA_ACT_COOKIE, (int)strlen(cookie) + 1, cookie);
    opts = nla_nest_start(msg, TCA_ACT_OPTIONS);
    put |= nla_put(msg, attr, len, parms);
    if (!act || !opts) return -1;
    nla_nest_end(msg, opts);
    nla_nest_end(msg, act);
    return put;
}

/*
 * The options of a matchall rule: redirect a copy to the output of to, drop the original. A
 * redirection that ends the rule would pass the frame on itself; with "pipe" the kernel clones it,
 * and cloning copies what netback has mapped of the guest's memory. A held frame must not keep
 * that: the guest's ring would fill up, and destroying the guest would block all of xenbus in this
 * domain.
 */
static int put_redirect(struct nl_msg *msg, int to, const char *cookie)
{
    struct tc_mirred mirred = {
        .action = TC_ACT_PIPE, .eaction = TCA_EGRESS_REDIR, .ifindex = (uint32_t)to};
    struct tc_gact drop = {.action = TC_ACT_STOLEN};
    struct nlattr *opts, *acts;
    int put = nla_put_string(msg, TCA_KIND, "matchall");

    opts = nla_nest_start(msg, TCA_OPTIONS);
    put |= nla_put_u32(msg, TCA_MATCHALL_FLAGS, TCA_CLS_FLAGS_SKIP_HW);
    acts = nla_nest_start(msg, TCA_MATCHALL_ACT);
    put |= put_action(msg, 1, "mirred", cookie, TCA_MIRRED_PARMS, &mirred, sizeof(mirred));
    put |= put_action(msg, 2, "gact", cookie, TCA_GACT_PARMS, &drop, sizeof(drop));
    if (!opts || !acts) return -1;
    nla_nest_end(msg, acts);
    nla_nest_end(msg, opts);
    return put;
}

int libxl__nl_redirect_add(libxl__gc *gc, libxl__nl *nl, int from, int to, const char *cookie)
{
    struct tcmsg tcm = {.tcm_ifindex = from,
                        .tcm_parent = INGRESS_PARENT,
                        .tcm_handle = 1,
                        .tcm_info = TC_H_MAKE(1U << 16, htons(ETH_P_ALL))};
    struct nl_msg *msg;
    char what[64];
    int rc;

    rc = libxl__nl_qdisc_set(gc, nl, from, TC_H_INGRESS, INGRESS_PARENT, "ingress", NULL, 0, true);
    if (rc) return rc;
    msg = new_msg(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &tcm, sizeof(tcm));
    snprintf(what, sizeof(what), "cannot redirect interface %d", from);
    rc = request(gc, nl, msg, msg ? put_redirect(msg, to, cookie) : -1, what);
    if (rc == ERROR_NOTFOUND) {
        LOG(gc, ERROR,
            "cannot redirect interface %d: kernel module cls_matchall, act_mirred or act_gact "
            "missing",
            from);
        rc = ERROR_FAIL;
    }
    return rc;
}

struct ingress_list {
    int ifs[NL_MAX_IFS];
    int nr;
    bool full;
    uint64_t seen; /* which interfaces' qdiscs the look went by, in order */
};

static void take_ingress(struct nlmsghdr *nh, void *user)
{
    struct ingress_list *list = user;
    struct nlattr *tb[TCA_MAX + 1];
    struct tcmsg *tcm = nlmsg_data(nh);

    if (nh->nlmsg_type != RTM_NEWQDISC || nlmsg_parse(nh, sizeof(*tcm), tb, TCA_MAX, NULL)) return;
    list->seen = (list->seen ^ (uint64_t)tcm->tcm_ifindex) * 0x100000001b3u;
    if (!tb[TCA_KIND] || nla_strcmp(tb[TCA_KIND], "ingress")) return;
    if (list->nr < NL_MAX_IFS)
        list->ifs[list->nr++] = tcm->tcm_ifindex;
    else
        list->full = true;
}

struct rule_search {
    const char *cookie;
    bool found;
};

static void take_rule(struct nlmsghdr *nh, void *user)
{
    struct rule_search *search = user;
    struct nlattr *tb[TCA_MAX + 1], *opt[TCA_MATCHALL_MAX + 1], *act[TCA_ACT_MAX + 1], *one;
    size_t len = strlen(search->cookie) + 1;
    int left;

    if (nh->nlmsg_type != RTM_NEWTFILTER ||
        nlmsg_parse(nh, sizeof(struct tcmsg), tb, TCA_MAX, NULL))
        return;
    if (!tb[TCA_KIND] || nla_strcmp(tb[TCA_KIND], "matchall") || !tb[TCA_OPTIONS] ||
        nla_parse_nested(opt, TCA_MATCHALL_MAX, tb[TCA_OPTIONS], NULL) || !opt[TCA_MATCHALL_ACT])
        return;
    nla_for_each_nested(one, opt[TCA_MATCHALL_ACT], left)
    {
        if (nla_parse_nested(act, TCA_ACT_MAX, one, NULL) || !act[TCA_ACT_COOKIE]) continue;
        if (nla_len(act[TCA_ACT_COOKIE]) >= (int)len &&
            !memcmp(nla_data(act[TCA_ACT_COOKIE]), search->cookie, len))
            search->found = true;
    }
}

static int dump(libxl__gc *gc, struct exchange *ex, int type, const struct tcmsg *tcm)
{
    struct nl_msg *msg;
    int r;

    ex->changed = false;
    ex->error = 0;
    msg = new_msg(type, NLM_F_DUMP, tcm, sizeof(*tcm));
    r = msg ? run(ex, msg) : ENOMEM;
    return r ? fail(gc, ex, r, "cannot look at the traffic rules") : 0;
}

/*
 * The kernel gives the qdiscs in pieces and counts the interfaces from the start for each piece, without a word when one went away in
 * between: then it leaves out another one. When a backup dies, all its guests' buffers go at once. So only two looks that agree count.
 */
static int find_ingress(libxl__gc *gc, libxl__nl *nl, struct ingress_list *list)
{
    struct exchange ex = {.nl = nl, .each = take_ingress, .user = list};
    const struct timespec pause = {.tv_nsec = DUMP_PAUSE_NS};
    struct tcmsg tcm = {0};
    uint64_t before = 0;
    bool agree = false;
    int rc = 0, i;

    for (i = 0; !rc && !agree && i < DUMP_TRIES; i++) {
        if (i > 1) nanosleep(&pause, NULL);
        before = list->seen;
        list->nr = 0;
        list->seen = 1;
        rc = dump(gc, &ex, RTM_GETQDISC, &tcm);
        agree = i && !ex.changed && list->seen == before;
    }
    if (!rc && !agree) {
        LOG(gc, ERROR, "the host's interfaces come and go too fast to look at all of them");
        rc = ERROR_FAIL;
    }
    if (!rc && list->full) {
        LOG(gc, ERROR, "more than %d interfaces have an ingress qdisc", NL_MAX_IFS);
        rc = ERROR_FAIL;
    }
    return rc;
}

int libxl__nl_redirect_find(libxl__gc *gc, libxl__nl *nl, const char *cookie, int *ifs, int max,
                            int *nr)
{
    struct ingress_list list = {.nr = 0};
    int rc, i;

    *nr = 0;
    rc = find_ingress(gc, nl, &list);
    for (i = 0; !rc && i < list.nr; i++) {
        struct rule_search search = {.cookie = cookie};
        struct exchange ex = {.nl = nl, .each = take_rule, .user = &search};
        struct tcmsg tcm = {.tcm_ifindex = list.ifs[i], .tcm_parent = INGRESS_PARENT};

        rc = dump(gc, &ex, RTM_GETTFILTER, &tcm);
        if (rc == ERROR_NOTFOUND) /* the interface went away meanwhile */
            rc = 0;
        if (rc || !search.found) continue;
        if (*nr == max) {
            LOG(gc, ERROR, "more than %d interfaces are redirected to %s", max, cookie);
            rc = ERROR_FAIL;
        } else {
            ifs[(*nr)++] = list.ifs[i];
        }
    }
    return rc;
}
