/* SPDX-License-Identifier: LGPL-2.1-only */
/* HVM parameters, shutdown by others, and what a device model may tell. */
#include <errno.h>
#include <stdint.h>

#include <xen/hvm/dm_op.h>
#include <xen/sched.h>

#include "sim_evtchn.h"
#include "sim_hypercall.h"

int64_t sim_hvm_op(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    struct xen_hvm_param p = {0};
    struct sim_domain *d;

    if (op != HVMOP_get_param && op != HVMOP_set_param) return -ENOSYS;
    if (sim_copy_in(c, &p, arg, sizeof(p))) return -EFAULT;
    if (p.index >= HVM_NR_PARAMS) return -EINVAL;
    d = sim_domain_get(p.domid);
    if (!d) return -ESRCH;
    pthread_mutex_lock(&d->lock);
    if (op == HVMOP_set_param)
        d->params[p.index] = p.value;
    else
        p.value = d->params[p.index];
    pthread_mutex_unlock(&d->lock);
    sim_domain_put(d);
    return op == HVMOP_get_param ? -sim_copy_out(c, arg, &p, sizeof(p)) : 0;
}

int64_t sim_remote_shutdown(uint32_t domid, uint64_t reason)
{
    struct sim_domain *d = sim_domain_get(domid);

    if (!d) return -ESRCH;
    if (reason > SHUTDOWN_MAX) {
        sim_domain_put(d);
        return -EINVAL;
    }
    pthread_mutex_lock(&d->lock);
    sim_domain_shutdown(d, (uint8_t)reason);
    pthread_mutex_unlock(&d->lock);
    sim_domain_put(d);
    sim_evtchn_virq(VIRQ_DOM_EXC);
    return 0;
}

int64_t sim_sched_op(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    struct sched_remote_shutdown r = {0};

    if (op != SCHEDOP_remote_shutdown) return -ENOSYS;
    if (sim_copy_in(c, &r, arg, sizeof(r))) return -EFAULT;
    return sim_remote_shutdown(r.domain_id, r.reason);
}

static int64_t mark_modified(struct sim_caller *c, struct sim_domain *d, uint64_t extents,
                             uint64_t count)
{
    struct xen_dm_op_modified_memory_extent e = {0};
    uint64_t i, k;
    int rc = 0;

    pthread_mutex_lock(&d->lock);
    for (i = 0; i < count && !rc; i++) {
        rc = sim_copy_in(c, &e, extents + i * sizeof(e), sizeof(e));
        if (!rc && (e.first_pfn >= SIM_GFNS || e.nr > SIM_GFNS)) rc = EINVAL;
        for (k = 0; !rc && k < e.nr; k++)
            sim_memory_mark(&d->mem, e.first_pfn + k);
    }
    pthread_mutex_unlock(&d->lock);
    return -rc;
}

int64_t sim_device_model(struct sim_caller *c, const uint64_t *args)
{
    struct sim_domain *d;
    int64_t rc = -ENOSYS;

    if (args[1] == XEN_DMOP_remote_shutdown) return sim_remote_shutdown((uint32_t)args[0], args[2]);
    d = sim_domain_get((uint32_t)args[0]);
    if (!d) return -ESRCH;
    if (args[1] == XEN_DMOP_nr_vcpus) rc = d->max_vcpus;
    if (args[1] == XEN_DMOP_modified_memory) rc = mark_modified(c, d, args[2], args[3]);
    sim_domain_put(d);
    return rc;
}
