/* SPDX-License-Identifier: LGPL-2.1-only */
/* A PV guest on the fake Xen that has a bit of everything, as it is when it has suspended itself. */
#ifndef PV_GUEST_H
#define PV_GUEST_H

#include "fake_xen_pv.h"

#define GUEST_PFNS 1536ULL
#define GUEST_CLAIMS (3ULL << 18) /* what it says: its p2m has room for that */

#define PFN_START_INFO 1
#define PFN_STORE 2
#define PFN_CONSOLE 3
#define PFN_GDT 4      /* two pages */
#define PFN_P2M 10     /* three pages */
#define PFN_MISSING 13 /* of the p2m where there is nothing */
#define PFN_L4 20
#define PFN_L3 21
#define PFN_L2 22
#define PFN_L1 23 /* three pages: all pfns, read-only */
#define PFN_USER_L4 26
#define PFN_P2M_L3 30
#define PFN_P2M_L2 31
#define PFN_P2M_L1 32
#define PFN_MISSING_L1 33
#define PFN_LISTS 40 /* list of lists, list, list of what is missing */

#define P2M_VADDR 0xffffc90000000000ULL
#define P2M_SLOT 402 /* in the top level table */

/* Makes it as domain FAKE_PRIMARY. linear: its p2m is told as a virtual address. */
void guest_make(bool linear);
/* Its page, by pfn; NULL = none. Any domain. */
uint8_t *guest_page(uint32_t domid, uint64_t pfn);
uint64_t guest_frame(uint32_t domid, uint64_t pfn); /* 0 = none */
uint64_t *guest_table(uint64_t pfn);                /* of FAKE_PRIMARY */
struct start_info *guest_start_info(uint32_t domid);
shared_info_t *guest_shared(uint32_t domid);

/* NULL, or a text that says how the backup's copy differs from the primary. */
const char *guest_compare(void);

#endif
