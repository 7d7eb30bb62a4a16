/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xen/sched.h>
#include <xxhash.h>

#include "sim_cpu.h"
#include "sim_domain.h"
#include "sim_evtchn.h"
#include "sim_guest.h"

#define FIRST_RESERVED 0x7FF0U
#define DOMAIN0_PAGES 262144

struct sim_host sim_host;
pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t last_domid, last_instance;

static struct sim_domain **slot_of(uint32_t domid)
{
    unsigned int i;

    for (i = 0; i < SIM_DOMAINS; i++)
        if (sim_host.domains[i] && sim_host.domains[i]->domid == domid) return &sim_host.domains[i];
    return NULL;
}

static struct sim_domain **free_slot(void)
{
    unsigned int i;

    for (i = 0; i < SIM_DOMAINS; i++)
        if (!sim_host.domains[i]) return &sim_host.domains[i];
    return NULL;
}

static uint32_t free_domid(void)
{
    do
        last_domid = last_domid + 1 < FIRST_RESERVED ? last_domid + 1 : 1;
    while (slot_of(last_domid));
    return last_domid;
}

static void domain_free(struct sim_domain *d)
{
    sim_memory_dispose(&d->mem);
    pthread_mutex_destroy(&d->lock);
    free(d->context);
    free(d);
}

static int domain_alloc(struct sim_domain **out)
{
    struct sim_domain *d = calloc(1, sizeof(*d));
    int rc;

    if (!d) return ENOMEM;
    pthread_mutex_init(&d->lock, NULL);
    rc = sim_memory_init(&d->mem, "xensim-domain");
    if (!rc) rc = sim_cpu_init(d);
    if (!rc) rc = sim_guest_create(d);
    if (rc) {
        domain_free(d);
        return rc;
    }
    *out = d;
    return 0;
}

int sim_domain_create(uint32_t wanted, const struct xen_domctl_createdomain *config,
                      struct sim_domain **out)
{
    struct sim_domain **slot, *d;
    int rc;

    if (!(config->flags & XEN_DOMCTL_CDF_hvm)) return EOPNOTSUPP;
    if (!config->max_vcpus) return EINVAL;
    if (wanted >= FIRST_RESERVED) wanted = 0;
    rc = domain_alloc(&d);
    if (rc) return rc;
    d->config = *config;
    d->max_vcpus = config->max_vcpus;
    d->paused = 1;
    pthread_mutex_lock(&sim_lock);
    slot = free_slot();
    if (!slot || (wanted && slot_of(wanted))) {
        rc = slot ? EEXIST : ENOMEM;
    } else {
        d->domid = wanted ? wanted : free_domid();
        d->instance = ++last_instance;
        d->refs = 2;
        *slot = d;
    }
    pthread_mutex_unlock(&sim_lock);
    if (rc) {
        sim_guest_end(d);
        domain_free(d);
        return rc;
    }
    sim_guest_start(d);
    *out = d;
    return 0;
}

struct sim_domain *sim_domain_get(uint32_t domid)
{
    struct sim_domain **slot;

    pthread_mutex_lock(&sim_lock);
    slot = slot_of(domid);
    if (slot) (*slot)->refs++;
    pthread_mutex_unlock(&sim_lock);
    return slot ? *slot : NULL;
}

struct sim_domain *sim_domain_next(uint32_t domid)
{
    struct sim_domain *best = NULL;
    unsigned int i;

    pthread_mutex_lock(&sim_lock);
    for (i = 0; i < SIM_DOMAINS; i++) {
        struct sim_domain *d = sim_host.domains[i];

        if (d && d->domid >= domid && (!best || d->domid < best->domid)) best = d;
    }
    if (best) best->refs++;
    pthread_mutex_unlock(&sim_lock);
    return best;
}

void sim_domain_ref(struct sim_domain *d)
{
    pthread_mutex_lock(&sim_lock);
    d->refs++;
    pthread_mutex_unlock(&sim_lock);
}

/* A dying domain whose last page was unmapped leaves the table, which has a reference of its own. */
static bool leave_table(struct sim_domain *d)
{
    struct sim_domain **slot = slot_of(d->domid);
    bool gone;

    if (!slot || *slot != d) return false;
    pthread_mutex_lock(&d->lock);
    gone = d->dying && !d->mem.mapped;
    pthread_mutex_unlock(&d->lock);
    if (!gone) return false;
    *slot = NULL;
    d->refs--;
    return true;
}

void sim_domain_put(struct sim_domain *d)
{
    bool left, last;

    pthread_mutex_lock(&sim_lock);
    left = leave_table(d);
    last = --d->refs == 0;
    pthread_mutex_unlock(&sim_lock);
    if (left) sim_evtchn_virq(VIRQ_DOM_EXC);
    if (last) domain_free(d);
}

void sim_domain_destroy(struct sim_domain *d)
{
    pthread_mutex_lock(&d->lock);
    if (d->dying) {
        pthread_mutex_unlock(&d->lock);
        return;
    }
    d->dying = true;
    pthread_mutex_unlock(&d->lock);
    sim_guest_end(d);
    pthread_mutex_lock(&d->lock);
    sim_memory_remove_all(&d->mem);
    pthread_mutex_unlock(&d->lock);
    sim_evtchn_domain_gone(d->domid);
    sim_evtchn_virq(VIRQ_DOM_EXC);
}

bool sim_domain_runnable(const struct sim_domain *d)
{
    return !d->paused && !d->shutdown && !d->dying;
}

void sim_domain_info(const struct sim_domain *d, struct xen_domctl_getdomaininfo *info)
{
    memset(info, 0, sizeof(*info));
    info->domain = (domid_t)d->domid;
    info->flags = XEN_DOMINF_hvm_guest | XEN_DOMINF_hap;
    if (d->dying) info->flags |= XEN_DOMINF_dying;
    if (d->paused) info->flags |= XEN_DOMINF_paused;
    if (d->shutdown)
        info->flags |= XEN_DOMINF_shutdown | (uint32_t)d->shutdown_code << XEN_DOMINF_shutdownshift;
    if (sim_domain_runnable(d)) info->flags |= XEN_DOMINF_blocked;
    info->tot_pages = d->mem.tot_pages;
    info->max_pages = d->mem.max_pages;
    info->shared_info_frame = ~0ULL;
    info->cpu_time = sim_guest_time_ns(d);
    info->nr_online_vcpus = 1;
    info->max_vcpu_id = d->max_vcpus - 1;
    memcpy(info->handle, d->config.handle, sizeof(info->handle));
    info->gpaddr_bits = 46;
    info->arch_config = d->config.arch;
}

void sim_domain0_info(struct xen_domctl_getdomaininfo *info)
{
    memset(info, 0, sizeof(*info));
    info->flags = XEN_DOMINF_running;
    info->tot_pages = info->max_pages = DOMAIN0_PAGES;
    info->shared_info_frame = ~0ULL;
    info->nr_online_vcpus = 1;
    info->gpaddr_bits = 46;
}

void sim_domain_shutdown(struct sim_domain *d, uint8_t code)
{
    uint64_t pages;

    if (d->shutdown || d->dying) return;
    d->shutdown = true;
    d->shutdown_code = code;
    if (code != SHUTDOWN_suspend) return;
    d->suspends++;
    if (d->hash_suspends) d->suspend_hash = sim_domain_hash(d, &pages);
}

bool sim_domain_is_shared_page(const struct sim_domain *d, uint64_t gfn)
{
    static const unsigned int shared[] = {HVM_PARAM_STORE_PFN, HVM_PARAM_CONSOLE_PFN,
                                          HVM_PARAM_IOREQ_PFN, HVM_PARAM_BUFIOREQ_PFN};
    unsigned int i;

    for (i = 0; i < sizeof(shared) / sizeof(shared[0]); i++)
        if (d->params[shared[i]] && d->params[shared[i]] == gfn) return true;
    return false;
}

uint64_t sim_domain_hash(const struct sim_domain *d, uint64_t *pages)
{
    uint64_t gfn, sum = 0;

    *pages = 0;
    for (gfn = 0; gfn < d->mem.gfn_end; gfn++) {
        const void *page = d->mem.p2m[gfn] ? sim_memory_page(&d->mem, gfn) : NULL;

        if (!page || sim_domain_is_shared_page(d, gfn)) continue;
        sum += XXH3_64bits_withSeed(page, SIM_PAGE_SIZE, gfn + 1);
        (*pages)++;
    }
    return sum;
}

uint64_t sim_pages_used(void)
{
    uint64_t used = 0;
    unsigned int i;

    pthread_mutex_lock(&sim_lock);
    for (i = 0; i < SIM_DOMAINS; i++) {
        struct sim_domain *d = sim_host.domains[i];

        if (!d) continue;
        pthread_mutex_lock(&d->lock);
        used += d->mem.tot_pages;
        pthread_mutex_unlock(&d->lock);
    }
    pthread_mutex_unlock(&sim_lock);
    return used;
}
