/* SPDX-License-Identifier: LGPL-2.1-only */
/* Makes a domain with a synthetic guest in it, as a toolstack would. */
#ifndef SIM_BUILD_H
#define SIM_BUILD_H

#include "sim_guest.h"

struct sim_build {
    uint64_t mem_mib;
    uint64_t present_mib; /* so much of it has pages, spread evenly; 0 = all */
    bool empty;           /* neither RAM nor guest: for a restore */
    bool hvm;             /* with ioreq pages and a BIOS range; otherwise PVH */
    struct sim_guest_spec guest;
};

/* 0 or an errno. The domain is paused; *d has a reference. */
int sim_build_domain(const struct sim_build *b, struct sim_domain **d);

#endif
