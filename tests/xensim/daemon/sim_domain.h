/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The domains of one simulated host.
 *
 * Locks: sim_lock guards the table and the event channels, d->lock what is in a domain. Whoever needs both takes
 * sim_lock first. A guest runs only in short turns under its d->lock: who holds it sees the guest stand still.
 *
 * Life: in the table from creation until it was destroyed and its last page was unmapped, as dying in between. The
 * struct itself lives while somebody holds a reference.
 */
#ifndef SIM_DOMAIN_H
#define SIM_DOMAIN_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <xen/xen.h>
#include <xen/domctl.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>

#include "sim_memory.h"

#define SIM_DOMAINS 64
#define SIM_LEAVES 256 /* of a CPU policy, at most; libxenctrl counts on so many */
#define SIM_MSRS 8
#define SIM_CONTEXT_MAX 65536

struct sim_guest;

struct sim_domain {
    uint32_t domid;
    uint32_t instance; /* never used again on this host */
    unsigned int refs; /* under sim_lock */
    bool dying;
    pthread_mutex_t lock;

    struct xen_domctl_createdomain config;
    struct sim_memory mem;
    uint32_t max_vcpus;
    unsigned int paused; /* as often as it was asked */
    bool shutdown;
    uint8_t shutdown_code;
    uint64_t params[HVM_NR_PARAMS];
    struct hvm_hw_cpu cpu;
    uint8_t *context; /* the other records of the context, as they were set; no header, no end */
    uint32_t context_len;
    struct xen_domctl_tsc_info tsc;
    xen_cpuid_leaf_t leaves[SIM_LEAVES];
    xen_msr_entry_t msrs[SIM_MSRS];
    uint32_t nr_leaves, nr_msrs;
    uint64_t mempool;
    uint64_t suspends, suspend_hash; /* how often, and the memory at the last one if asked for */
    bool hash_suspends;
    struct sim_guest *guest;
};

struct sim_host {
    const char *name;
    const char *rundir;
    uint64_t total_pages;
    struct sim_domain *domains[SIM_DOMAINS];
};

extern struct sim_host sim_host;
extern pthread_mutex_t sim_lock;

/* 0 or an errno. wanted 0: the next free one. *d has a reference. */
int sim_domain_create(uint32_t wanted, const struct xen_domctl_createdomain *config,
                      struct sim_domain **d);
/* Domain with a reference, or NULL. Finds dying ones, too. */
struct sim_domain *sim_domain_get(uint32_t domid);
/* The one with the lowest number from domid on. */
struct sim_domain *sim_domain_next(uint32_t domid);
void sim_domain_ref(struct sim_domain *d);
void sim_domain_put(struct sim_domain *d);
/* Stops the guest, takes its pages. Needs a reference and no lock. */
void sim_domain_destroy(struct sim_domain *d);

/* These need d->lock. */
void sim_domain_info(const struct sim_domain *d, struct xen_domctl_getdomaininfo *info);
void sim_domain0_info(
    struct xen_domctl_getdomaininfo *info); /* who has no struct: his is the machine */
bool sim_domain_runnable(const struct sim_domain *d);
/* The guest or somebody else calls SCHEDOP_shutdown. The caller raises VIRQ_DOM_EXC after unlocking. */
void sim_domain_shutdown(struct sim_domain *d, uint8_t code);
/* A hash of gfns and contents of all pages but those that others write into. *pages: how many. */
uint64_t sim_domain_hash(const struct sim_domain *d, uint64_t *pages);
/* The pages of store, console and ioreq rings. */
bool sim_domain_is_shared_page(const struct sim_domain *d, uint64_t gfn);

uint64_t sim_pages_used(void); /* of all domains; takes sim_lock */

#endif
