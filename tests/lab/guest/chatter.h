/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Output that nobody asked for, for tests of output commit. Each round sends the
 * same number in a UDP broadcast, an ARP announcement (in the padding), a UDP
 * multicast over IPv6 and a neighbour solicitation (in the low half of the target).
 */
#ifndef XTGUEST_CHATTER_H
#define XTGUEST_CHATTER_H

#include <stdint.h>

enum { CHATTER_PORT = 7001, CHATTER_MS_MIN = 5, CHATTER_MS_MAX = 60000 };

/* One round every interval_ms; 0 stops. 0 on success, else -1 and errno. */
int chatter_set(unsigned int interval_ms);
/* Sends a round when one is due. */
void chatter_run(uint64_t now_ns, uint64_t tick);

#endif
