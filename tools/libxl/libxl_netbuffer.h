/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The net buffer: holds what the guest sends until the backup has the state that sent it.
 *
 * One ifb device per guest, named "remus<domid>". All frames of all protocols that come from any
 * vif<domid>.N and, for HVM, its emulated tap vif<domid>.N-emu (or the names that xenstore's
 * vifname gives) are redirected there (ingress qdisc, matchall, mirred redirect) and re-enter the
 * host as if they had come from where they came. One buffer for all NICs: an epoch is closed in one
 * call for the whole guest.
 *
 *                                             ,--> 1:1 [plug] --.
 *   vif7.0, vif7.0-emu ... --ingress--> remus7 prio 1: 1:2 [plug] +--> back to vif7.0 ... --> bridge
 *                                             '--> 1:3 [plug] --'
 *
 * Before the first epoch ends all frames go through 1:3, which is always open. Then two plugs, 1:1
 * and 1:2, used in turn: the kernel's plug can count one closed epoch, but counts without a lock
 * while frames arrive, and frames that were in it before it was first closed are never counted. So
 * no counting is asked of it: each epoch has a plug of its own. prio's map, changed under the qdisc
 * lock, sends everything to the current one; the other one is closed, then empty. A plug is only
 * ever opened for good, or closed when it is empty and nothing is sent to it.
 *
 * Invariants: (1) between _plug and the matching _release at most one closed epoch exists. (2)
 * While the buffer holds, nothing gets out but by _release or _open. (3) After _teardown no qdisc,
 * filter or device of ours is left.
 *
 * Limit: limit_bytes of held frames, half for each of the two epochs; what comes beyond is dropped
 * at the tail as on a full network card queue (TCP retransmits; the drop counter is visible through
 * _stats and `tc -s qdisc show dev remus<domid>`). Held frames are copies: they keep nothing of the
 * guest's memory mapped, and it can be destroyed at any time.
 *
 * A NIC that is attached after _setup is not held (libxl_remus_devices.c ends the protection). An
 * interface that has an ingress qdisc already is refused: its rules come first and could let frames
 * pass.
 */
#ifndef LIBXL_NETBUFFER_H
#define LIBXL_NETBUFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <xenstore.h>

#include "libxl_gc.h"

#define NETBUFFER_MAX_IFS 64
#define NETBUFFER_MIN_LIMIT (128u << 10) /* two frames of 64 KiB */

typedef struct libxl__netbuffer libxl__netbuffer;

struct netbuffer_stats {
    uint64_t held_packets, held_bytes; /* now in the buffer, both epochs */
    uint64_t dropped_packets;          /* since _setup */
};

/* All calls block for a few netlink round trips (well under a ms each); 0 or ERROR_*, logged. */

/* Name of the ifb for a domid into name[16]. */
void libxl__netbuffer_ifname(uint32_t domid, char name[16]);
/*
 * Finds the guest's interfaces through xenstore (backends in domain 0 only: another backend domain
 * is ERROR_INVAL naming it), makes the ifb and the redirections; the plug is open: frames pass. A
 * guest without NIC gives an empty buffer on which all calls succeed. Left-overs of a dead
 * protection of the same domid are removed first (_remove): the caller has made sure that they hold
 * nothing (_held). On error nothing is left.
 */
int libxl__netbuffer_setup(libxl__gc *gc, struct xs_handle *xs, uint32_t domid, bool hvm,
                           uint64_t limit_bytes, libxl__netbuffer **nb);
/* Same on explicit interface names (tests, special networks). */
int libxl__netbuffer_setup_ifs(libxl__gc *gc, const char *ifb, const char *const *ifnames, int nr,
                               uint64_t limit_bytes, libxl__netbuffer **nb);
/*
 * Closes the current epoch, holds what follows. ERROR_INVAL while a closed epoch was not released.
 */
int libxl__netbuffer_plug(libxl__gc *gc, libxl__netbuffer *nb);
int libxl__netbuffer_release(libxl__gc *gc, libxl__netbuffer *nb); /* lets the closed epoch go */
int libxl__netbuffer_open(libxl__gc *gc, libxl__netbuffer *nb); /* everything passes from now on */
int libxl__netbuffer_stats(libxl__gc *gc, libxl__netbuffer *nb, struct netbuffer_stats *st);
/*
 * Opens, waits (at most 1 s) until it drained, removes filters, qdiscs and the ifb; frees nb (NULL
 * is fine).
 */
int libxl__netbuffer_teardown(libxl__gc *gc, libxl__netbuffer *nb);
/* Frees nb and leaves the kernel's side as it is: held output stays held. */
void libxl__netbuffer_abandon(libxl__netbuffer *nb);
/*
 * Same as _teardown knowing only the ifb's name (guard, --recover): finds the redirections that
 * point at it. Not there: 0.
 */
int libxl__netbuffer_remove(libxl__gc *gc, const char *ifb);
/*
 * Whether a buffer of that name may hold output: an epoch was closed since it was made. A half-made
 * one, or one that only let everything pass, does not.
 */
int libxl__netbuffer_held(libxl__gc *gc, const char *ifb, bool *held);
/*
 * The guest runs elsewhere: what is held is dropped, never sent. Deletes the ifb; the redirections
 * stay and drop what still comes, until the interfaces go with the domain (or _remove). Not there:
 * 0.
 */
int libxl__netbuffer_discard(libxl__gc *gc, const char *ifb);

#endif
