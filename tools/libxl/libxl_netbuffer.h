/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The net buffer: holds what the guest sends until the backup has the state that sent it.
 *
 * One ifb device per guest, named "remus<domid>", with a plug qdisc as root. All frames of all protocols that come from
 * any vif<domid>.N and, for HVM, its emulated tap vif<domid>.N-emu (or the names that xenstore's vifname gives) are redirected there
 * (ingress qdisc, matchall, mirred redirect) and re-enter the host as if they had come from where they came. One plug for
 * all NICs: an epoch is closed and released in one call for the whole guest.
 *
 *      vif7.0, vif7.0-emu, vif7.1 ... --ingress--> remus7 [plug] --> back to vif7.N --> bridge
 *
 * Invariants: (1) between _plug and the matching _release at most one closed epoch exists, since sch_plug counts only one.
 * (2) while the plug buffers, nothing gets out but by _release or _open. (3) After _teardown no qdisc, filter or device of ours is left.
 *
 * Limit: limit_bytes of held frames; what comes beyond is dropped at the tail as on a full network card queue (TCP retransmits; the drop
 * counter is visible through _stats and `tc -s qdisc show dev remus<domid>`).
 */
#ifndef LIBXL_NETBUFFER_H
#define LIBXL_NETBUFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

#include "libxl_gc.h"

typedef struct libxl__netbuffer libxl__netbuffer;

struct netbuffer_stats {
    uint64_t held_packets, held_bytes, dropped_packets;
};

/* All calls block for one netlink round trip (well under a ms); 0 or ERROR_*, logged. */

/* Name of the ifb for a domid into name[16]. */
void libxl__netbuffer_ifname(uint32_t domid, char name[16]);
/*
 * Finds the guest's interfaces through xenstore (backends in domain 0 only: another backend domain is ERROR_INVAL naming it), makes the ifb
 * and the redirections; the plug is open: frames pass. A guest without NIC gives an empty buffer on which all calls succeed.
 * Left-overs of a dead protection of the same domid are removed first. On error nothing is left.
 */
int libxl__netbuffer_setup(libxl__gc *gc, struct xs_handle *xs, uint32_t domid, bool hvm,
                           uint64_t limit_bytes, libxl__netbuffer **nb);
/* Same on explicit interface names (tests, special networks). */
int libxl__netbuffer_setup_ifs(libxl__gc *gc, const char *ifb, const char *const *ifnames, int nr,
                               uint64_t limit_bytes, libxl__netbuffer **nb);
int libxl__netbuffer_plug(libxl__gc *gc, libxl__netbuffer *nb);    /* closes the current epoch, holds what follows */
int libxl__netbuffer_release(libxl__gc *gc, libxl__netbuffer *nb); /* lets the closed epoch go */
int libxl__netbuffer_open(libxl__gc *gc, libxl__netbuffer *nb);    /* everything passes from now on */
int libxl__netbuffer_stats(libxl__gc *gc, libxl__netbuffer *nb, struct netbuffer_stats *st);
/* Opens, waits (at most 1 s) until it drained, removes filters, qdiscs and the ifb; frees nb (NULL is fine). */
int libxl__netbuffer_teardown(libxl__gc *gc, libxl__netbuffer *nb);
/* Frees nb and leaves the kernel's side as it is: held output stays held. */
void libxl__netbuffer_abandon(libxl__netbuffer *nb);
/* Same clean-up knowing only the ifb's name (guard, --recover): finds the redirections that point at it. Not there: 0. */
int libxl__netbuffer_remove(libxl__gc *gc, const char *ifb);

#endif
