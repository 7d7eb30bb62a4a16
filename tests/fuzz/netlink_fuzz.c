/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Answers of rtnetlink. The file under test is a part of this one, so that its socket can be played: datagrams of u16 length and
 * octets; after the last one the kernel says nothing more. First octet: what is asked; bit 7: sequence numbers as they come.
 */
#include <netlink/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

static ssize_t fuzz_recvfrom(int fd, void *buf, size_t len, int flags, void *from, socklen_t *fl);
static int fuzz_send(struct nl_sock *sk, struct nl_msg *msg);
#define recvfrom fuzz_recvfrom
#define nl_send fuzz_send
#include "libxl_netlink.c"

#include "fuzz.h"

static const uint8_t *next;
static size_t left;
static bool own_numbers;
static uint32_t seq;

static int fuzz_send(struct nl_sock *sk, struct nl_msg *msg)
{
    seq = nlmsg_hdr(msg)->nlmsg_seq;
    return 1;
}

static ssize_t fuzz_recvfrom(int fd, void *buf, size_t len, int flags, void *from, socklen_t *fl)
{
    struct nlmsghdr *nh = buf;
    size_t n, rest;

    if (left < 2) {
        errno = EAGAIN;
        return -1;
    }
    n = next[0] | (size_t)next[1] << 8;
    next += 2;
    left -= 2;
    if (n > left) n = left;
    if (n > len) n = len;
    memcpy(buf, next, n);
    next += n;
    left -= n;
    for (rest = n; !own_numbers && rest >= sizeof(*nh);) {
        size_t used = NLMSG_ALIGN((size_t)nh->nlmsg_len);

        nh->nlmsg_seq = seq;
        if (used < sizeof(*nh) || used > rest) break;
        rest -= used;
        nh = (void *)((char *)nh + used);
    }
    return (ssize_t)n;
}

static void ask(libxl__gc *gc, libxl__nl *nl, unsigned what)
{
    struct nl_qdisc qdisc;
    struct nl_link link;
    int ifs[4], nr;

    switch (what) {
    case 0:
        if (!libxl__nl_link_get(gc, nl, "remus1", &link) &&
            (!link.ifindex || !memchr(link.kind, 0, sizeof(link.kind))))
            abort();
        return;
    case 1:
        if (!libxl__nl_qdisc_get(gc, nl, 1, 1, &qdisc) &&
            !memchr(qdisc.kind, 0, sizeof(qdisc.kind)))
            abort();
        return;
    case 2:
        if (!libxl__nl_redirect_find(gc, nl, "remus1", ifs, 4, &nr) && (nr < 0 || nr > 4)) abort();
        return;
    default:
        libxl__nl_qdisc_set(gc, nl, 1, 1, 1, "plug", NULL, 0, true);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static libxl__nl *nl;
    libxl__gc gc;

    if (!size) return 0;
    if (!nl) {
        nl = calloc(1, sizeof(*nl));
        if (!nl || !(nl->sk = nl_socket_alloc())) abort();
    }
    libxl__gc_init(&gc, fuzz_logger());
    own_numbers = data[0] & 0x80;
    next = data + 1;
    left = size - 1;
    ask(&gc, nl, data[0] & 3);
    libxl__gc_dispose(&gc);
    return 0;
}
