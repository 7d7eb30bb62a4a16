/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * rtnetlink, as much as the net buffer needs: an ifb device, qdiscs, and the redirection of an
 * interface's input.
 *
 * Every call is one request and its answer; it blocks until the kernel answered, at most
 * NL_LIMIT_MS. All return 0 or ERROR_*, logged with the kernel's own words; ERROR_NOTFOUND (no such
 * device or qdisc) is not logged, since callers look for things.
 */
#ifndef LIBXL_NETLINK_H
#define LIBXL_NETLINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "libxl_gc.h"

#define NL_LIMIT_MS 5000
#define NL_MAX_IFS 1024 /* interfaces with an ingress qdisc that one look at the host may find */

typedef struct libxl__nl libxl__nl;

struct nl_link {
    int ifindex;
    char kind[16]; /* "ifb", "veth", ...; empty when the driver has none */
    uint64_t rx_packets, rx_dropped, tx_packets;
};

struct nl_qdisc {
    char kind[16];
    uint32_t handle;
    uint32_t qlen, backlog_bytes;
    uint64_t drops;
    int prio_band; /* kind prio: the band of priority 0; else -1 */
};

int libxl__nl_open(libxl__gc *gc, libxl__nl **nl);
void libxl__nl_close(libxl__nl *nl); /* NULL is fine */

int libxl__nl_link_get(libxl__gc *gc, libxl__nl *nl, const char *name, struct nl_link *link);
/*
 * Made down, and without an IPv6 address of its own: else the kernel would send its own frames into
 * the buffer.
 */
int libxl__nl_ifb_add(libxl__gc *gc, libxl__nl *nl, const char *name);
int libxl__nl_link_up(libxl__gc *gc, libxl__nl *nl, int ifindex);
int libxl__nl_link_del(libxl__gc *gc, libxl__nl *nl, int ifindex);

/*
 * Makes a qdisc (create) or changes the one that is there; opt, optlen: the kind's option struct,
 * NULL for none.
 */
int libxl__nl_qdisc_set(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent, uint32_t handle,
                        const char *kind, const void *opt, size_t optlen, bool create);
int libxl__nl_qdisc_del(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent);
int libxl__nl_qdisc_get(libxl__gc *gc, libxl__nl *nl, int ifindex, uint32_t parent,
                        struct nl_qdisc *qdisc);

/*
 * Every frame of every protocol that comes in at from goes to to, as a copy that keeps nothing of
 * the sender's memory. Fails with ERROR_DEVICE_EXISTS when from has an ingress qdisc already.
 * cookie (at most 16 bytes with its NUL) marks the rule as ours, so that it is found again when to
 * is gone.
 */
int libxl__nl_redirect_add(libxl__gc *gc, libxl__nl *nl, int from, int to, const char *cookie);
/*
 * Interfaces whose ingress has a rule with that cookie: up to max of them into ifs[], their number
 * into *nr.
 */
int libxl__nl_redirect_find(libxl__gc *gc, libxl__nl *nl, const char *cookie, int *ifs, int max,
                            int *nr);

#endif
