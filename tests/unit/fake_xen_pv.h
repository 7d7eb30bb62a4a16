/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * PV domains in this process, behind the libxenctrl calls that the PV part of the memory engine
 * makes. Frames are a memfd, each has one owner; from the first vcpu on page tables have types, as
 * on Xen: they are validated from the top, may name only the domain's own frames, and nobody may
 * map them for writing.
 */
#ifndef FAKE_XEN_PV_H
#define FAKE_XEN_PV_H

#include <stdbool.h>
#include <stdint.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenguest.h>

#define FAKE_FRAMES 60000
#define FAKE_VCPUS 3
#define FAKE_PRIMARY 1
#define FAKE_BACKUP 2
#define FAKE_OTHER 3 /* somebody else's frames */
#define FAKE_EXTENDED 64
#define FAKE_XSAVE 600

struct fake_vcpu {
    bool online;
    struct vcpu_guest_context context;
    uint8_t extended[FAKE_EXTENDED];
    uint8_t xsave[FAKE_XSAVE];
    uint32_t xsave_size, msr_count;
    xen_domctl_vcpu_msr_t msrs[4];
};

struct fake_dom {
    bool exists, suspended, can_log;
    unsigned int width;
    uint64_t shared; /* its frame */
    uint64_t max_memkb, owned;
    struct fake_vcpu vcpus[FAKE_VCPUS];
    uint32_t tsc_khz;
    unsigned int seed_calls, policy_calls;
    uint64_t seeded_console, seeded_store;
};

extern struct fake_dom fake_dom[4];
extern unsigned int fake_mappings;   /* pages mapped now */
extern unsigned int fake_calls;      /* calls that may fail, so far */
extern unsigned int fake_fail_at;    /* this one fails; 0 = none */
extern unsigned int fake_trespasses; /* calls about frames that are not the domain's */

void fake_reset(void);
uint64_t fake_populate(uint32_t domid, uint64_t pfn); /* its frame, full of nothing */
uint8_t *fake_frame(uint64_t frame);
uint32_t fake_owner(uint64_t frame); /* 0 = nobody */
uint64_t fake_pfn(uint64_t frame);   /* by the m2p */
unsigned int fake_level(uint64_t frame);
bool fake_pinned(uint64_t frame);
/* Gives a frame its type as a page table, and those below it theirs. */
bool fake_validate(uint32_t domid, uint64_t frame, unsigned int level);
bool fake_pin(uint32_t domid, uint64_t frame, unsigned int level);

#endif
