/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <xen/sched.h>

#include "sim_cpu.h"
#include "sim_evtchn.h"
#include "sim_hypercall.h"

#define FRAMEINFO_MAX 1024

static int64_t do_create(struct sim_domain **d, struct xen_domctl *op)
{
    int rc = sim_domain_create(op->domain, &op->u.createdomain, d);

    if (!rc) op->domain = (domid_t)(*d)->domid;
    return -rc;
}

static int64_t do_info(struct xen_domctl *op)
{
    struct sim_domain *d;

    if (!op->domain) {
        sim_domain0_info(&op->u.getdomaininfo);
        return 0;
    }
    d = sim_domain_next(op->domain);
    if (!d) return -ESRCH;
    pthread_mutex_lock(&d->lock);
    sim_domain_info(d, &op->u.getdomaininfo);
    pthread_mutex_unlock(&d->lock);
    op->domain = (domid_t)d->domid;
    sim_domain_put(d);
    return 0;
}

/*
 * The log, as far as the caller has room, and whether it begins anew. As with Xen 4.17 it is read, and empty, also when
 * it is not on (paging_log_dirty_op).
 */
static int64_t read_log(struct sim_caller *c, struct sim_domain *d, struct xen_domctl_shadow_op *op,
                        bool clean)
{
    if (op->pages > SIM_GFNS) op->pages = SIM_GFNS;
    op->stats.fault_count = op->stats.dirty_count = (uint32_t)d->mem.dirty_count;
    if (op->dirty_bitmap.p &&
        sim_copy_out(c, (uintptr_t)op->dirty_bitmap.p, d->mem.dirty, (op->pages + 7) / 8))
        return -EFAULT;
    if (clean) sim_memory_log_clean(&d->mem);
    return 0;
}

/* What others write into while the guest stands still. */
static void mark_written_by_others(struct sim_domain *d)
{
    sim_memory_mark(&d->mem, d->params[HVM_PARAM_IOREQ_PFN]);
    sim_memory_mark(&d->mem, d->params[HVM_PARAM_BUFIOREQ_PFN]);
}

static int64_t do_shadow(struct sim_caller *c, struct sim_domain *d,
                         struct xen_domctl_shadow_op *op)
{
    switch (op->op) {
    case XEN_DOMCTL_SHADOW_OP_OFF:
        sim_memory_log_off(&d->mem);
        return 0;
    case XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY:
        return -sim_memory_log_on(&d->mem);
    case XEN_DOMCTL_SHADOW_OP_CLEAN:
        if (op->mode & XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL) mark_written_by_others(d);
        return read_log(c, d, op, true);
    case XEN_DOMCTL_SHADOW_OP_PEEK:
        return read_log(c, d, op, false);
    case XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION:
    case XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION:
        if (op->op == XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION) d->mempool = (uint64_t)op->mb << 20;
        op->mb = (uint32_t)(d->mempool >> 20);
        return 0;
    default:
        return -EINVAL;
    }
}

static int64_t do_frameinfo(struct sim_caller *c, const struct sim_domain *d,
                            const struct xen_domctl_getpageframeinfo3 *op)
{
    xen_pfn_t array[FRAMEINFO_MAX];
    uint64_t i;

    if (op->num > FRAMEINFO_MAX) return -E2BIG;
    if (sim_copy_in(c, array, (uintptr_t)op->array.p, op->num * sizeof(array[0]))) return -EFAULT;
    for (i = 0; i < op->num; i++)
        array[i] = sim_memory_frame(&d->mem, array[i]) == SIM_NO_FRAME ? XEN_DOMCTL_PFINFO_XTAB
                                                                       : XEN_DOMCTL_PFINFO_NOTAB;
    return -sim_copy_out(c, (uintptr_t)op->array.p, array, op->num * sizeof(array[0]));
}

static int64_t do_pause(struct sim_domain *d, bool pause)
{
    if (!pause && !d->paused) return -EINVAL;
    d->paused += pause ? 1 : -1;
    return 0;
}

static int64_t do_resume(struct sim_domain *d)
{
    d->shutdown = false;
    d->shutdown_code = 0;
    return 0;
}

static int64_t do_vcpuinfo(const struct sim_domain *d, struct xen_domctl_getvcpuinfo *op)
{
    if (op->vcpu >= d->max_vcpus) return -EINVAL;
    op->online = !op->vcpu;
    op->blocked = 1;
    op->running = 0;
    op->cpu_time = 0;
    op->cpu = 0;
    return 0;
}

static int64_t do_affinity(struct sim_caller *c, const struct xen_domctl_vcpuaffinity *op)
{
    const uint8_t all = 0xff;
    const struct xenctl_bitmap *maps[2] = {&op->cpumap_hard, &op->cpumap_soft};
    unsigned int i;

    for (i = 0; i < 2; i++)
        if (maps[i]->bitmap.p && maps[i]->nr_bits &&
            sim_copy_out(c, (uintptr_t)maps[i]->bitmap.p, &all, 1))
            return -EFAULT;
    return 0;
}

/* About limits and rights that mean nothing here, but that a toolstack sets for every domain. */
static int64_t do_setting(struct sim_caller *c, struct sim_domain *d, struct xen_domctl *op)
{
    switch (op->cmd) {
    case XEN_DOMCTL_max_mem:
        d->mem.max_pages = op->u.max_mem.max_memkb >> (SIM_PAGE_SHIFT - 10);
        return 0;
    case XEN_DOMCTL_max_vcpus:
        return op->u.max_vcpus.max == d->max_vcpus ? 0 : -EINVAL;
    case XEN_DOMCTL_setdomainhandle:
        memcpy(d->config.handle, op->u.setdomainhandle.handle, sizeof(d->config.handle));
        return 0;
    case XEN_DOMCTL_get_paging_mempool_size:
        op->u.paging_mempool.size = d->mempool;
        return 0;
    case XEN_DOMCTL_set_paging_mempool_size:
        d->mempool = op->u.paging_mempool.size;
        return 0;
    case XEN_DOMCTL_get_address_size:
        op->u.address_size.size = 64;
        return 0;
    case XEN_DOMCTL_scheduler_op:
        op->u.scheduler_op.u.credit2.weight = 256;
        op->u.scheduler_op.u.credit2.cap = 0;
        return 0;
    case XEN_DOMCTL_getvcpuaffinity:
        return do_affinity(c, &op->u.vcpuaffinity);
    case XEN_DOMCTL_setvcpuaffinity:
    case XEN_DOMCTL_setnodeaffinity:
    case XEN_DOMCTL_settimeoffset:
    case XEN_DOMCTL_set_address_size:
    case XEN_DOMCTL_hypercall_init:
    case XEN_DOMCTL_iomem_permission:
    case XEN_DOMCTL_ioport_permission:
    case XEN_DOMCTL_irq_permission:
    case XEN_DOMCTL_subscribe:
        return 0;
    default:
        return -ENOSYS;
    }
}

static int64_t do_state(struct sim_caller *c, struct sim_domain *d, struct xen_domctl *op)
{
    switch (op->cmd) {
    case XEN_DOMCTL_gethvmcontext:
        return sim_cpu_get_context(c, d, &op->u.hvmcontext);
    case XEN_DOMCTL_sethvmcontext:
        return sim_cpu_set_context(c, d, &op->u.hvmcontext);
    case XEN_DOMCTL_gethvmcontext_partial:
        return sim_cpu_get_context_partial(c, d, &op->u.hvmcontext_partial);
    case XEN_DOMCTL_getvcpucontext:
        return sim_cpu_get_vcpu(c, d, &op->u.vcpucontext);
    case XEN_DOMCTL_setvcpucontext:
        return sim_cpu_set_vcpu(c, d, &op->u.vcpucontext);
    case XEN_DOMCTL_getvcpuinfo:
        return do_vcpuinfo(d, &op->u.getvcpuinfo);
    case XEN_DOMCTL_gettscinfo:
        op->u.tsc_info = d->tsc;
        return 0;
    case XEN_DOMCTL_settscinfo:
        d->tsc = op->u.tsc_info;
        return 0;
    case XEN_DOMCTL_get_cpu_policy:
        return sim_cpu_get_policy(c, d, &op->u.cpu_policy);
    case XEN_DOMCTL_set_cpu_policy:
        return sim_cpu_set_policy(c, d, &op->u.cpu_policy);
    default:
        return do_setting(c, d, op);
    }
}

/* Under d->lock. */
static int64_t do_locked(struct sim_caller *c, struct sim_domain *d, struct xen_domctl *op)
{
    if (d->dying) return -ESRCH;
    switch (op->cmd) {
    case XEN_DOMCTL_shadow_op:
        return do_shadow(c, d, &op->u.shadow_op);
    case XEN_DOMCTL_getpageframeinfo3:
        return do_frameinfo(c, d, &op->u.getpageframeinfo3);
    case XEN_DOMCTL_pausedomain:
        return do_pause(d, true);
    case XEN_DOMCTL_unpausedomain:
        return do_pause(d, false);
    case XEN_DOMCTL_resumedomain:
        return do_resume(d);
    default:
        return do_state(c, d, op);
    }
}

static int64_t do_domain(struct sim_caller *c, struct xen_domctl *op)
{
    struct sim_domain *d = sim_domain_get(op->domain);
    int64_t rc = 0;

    if (!d) return -ESRCH;
    if (op->cmd == XEN_DOMCTL_destroydomain) {
        sim_domain_destroy(d);
    } else {
        pthread_mutex_lock(&d->lock);
        rc = do_locked(c, d, op);
        pthread_mutex_unlock(&d->lock);
    }
    sim_domain_put(d);
    return rc;
}

int64_t sim_domctl(struct sim_caller *c, uint64_t arg)
{
    struct sim_domain *created = NULL;
    struct xen_domctl op = {0};
    int64_t rc;

    if (sim_copy_in(c, &op, arg, sizeof(op))) return -EFAULT;
    if (op.interface_version != XEN_DOMCTL_INTERFACE_VERSION) return -EACCES;
    if (op.cmd == XEN_DOMCTL_createdomain)
        rc = do_create(&created, &op);
    else if (op.cmd == XEN_DOMCTL_getdomaininfo)
        rc = do_info(&op);
    else
        rc = do_domain(c, &op);
    if (rc >= 0 || rc == -ENOBUFS || op.cmd == XEN_DOMCTL_set_cpu_policy)
        if (sim_copy_out(c, arg, &op, sizeof(op))) rc = -EFAULT;
    if (created) {
        if (rc) sim_domain_destroy(created);
        sim_domain_put(created);
    }
    return rc;
}
