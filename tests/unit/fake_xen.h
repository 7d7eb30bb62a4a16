/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Two domains in this process, behind the libxenctrl calls that the memory engine makes. Memory is
 * a memfd, a foreign mapping shows its pages: a page that was given back stays visible to whoever
 * mapped it and keeps counting as the domain's, as on Xen. The dirty log has 4.17's blind spot:
 * what is written to a page that came after the last CLEAN is not logged. A log that is off can be read, and is empty.
 */
#ifndef FAKE_XEN_H
#define FAKE_XEN_H

#include <stdbool.h>
#include <stdint.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>

#define FAKE_GFNS 2100 /* not a multiple of anything */
#define FAKE_MFNS 5000
#define FAKE_PRIMARY 1
#define FAKE_BACKUP 2
#define FAKE_CONTEXT_SIZE 600

struct fake_dom {
    int32_t mfn[FAKE_GFNS]; /* -1 = nothing there */
    uint8_t unlogged[FAKE_GFNS];
    uint8_t dirty[FAKE_GFNS];
    uint8_t special[FAKE_GFNS]; /* can be mapped and is logged, but is no memory: a grant frame */
    bool log_on, suspended, paused, exists;
    uint8_t context[FAKE_CONTEXT_SIZE];
    uint64_t params[64];
    uint32_t tsc_khz;
    unsigned int policy_calls, seed_calls, context_calls;
};

extern struct fake_dom fake_dom[3]; /* by domid; 0 is nobody's */
extern unsigned int fake_mappings;  /* pages mapped now */
extern unsigned int fake_calls;     /* calls that may fail, so far */
extern unsigned int fake_fail_at;   /* this one fails; 0 = none */
/* What a process that opens handles of its own meets. */
extern enum fake_opening { FAKE_OPENS, FAKE_OPENS_NOTHING, FAKE_OPENING_KILLS } fake_opening;
extern int fake_room;   /* pages that may be populated yet; -1 = no limit */
extern int fake_hidden; /* pages that domain 1 has and that are nowhere */
extern int fake_behind; /* pfns behind FAKE_GFNS: the last one has a page, if it is */
extern bool fake_behind_is_memory;
extern int fake_reserve; /* so many more once the domain's maximum is raised */
/* What the guest of domain 1 does while it runs, called at every hypercall. May be NULL. */
extern void (*fake_guest)(void);

void fake_reset(void);
void fake_populate(uint32_t domid, uint32_t gfn); /* a page full of nothing comes */
void fake_give_back(uint32_t domid, uint32_t gfn);
/* The guest writes one word, logged as Xen would. */
void fake_write(uint32_t domid, uint32_t gfn, uint32_t word, uint32_t value);
const uint8_t *fake_page(uint32_t domid, uint32_t gfn); /* NULL = nothing there */

#endif
