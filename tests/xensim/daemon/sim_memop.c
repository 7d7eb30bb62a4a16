/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <xen/memory.h>

#include "sim_hypercall.h"

#define ORDER_MAX 18 /* 1 GiB */
#define EXTENTS_AT_ONCE 512U

/* One extent; all of it or nothing. */
static int populate(struct sim_domain *d, uint64_t gfn, unsigned int order)
{
    uint64_t i, n = 1UL << order;
    int rc = 0;

    for (i = 0; i < n && !rc; i++)
        rc = sim_memory_populate(&d->mem, gfn + i);
    if (rc)
        while (--i)
            sim_memory_remove(&d->mem, gfn + i - 1);
    return rc;
}

static int take(struct sim_domain *d, uint64_t gfn, unsigned int order)
{
    uint64_t i;

    for (i = 0; i < 1UL << order; i++)
        if (!sim_memory_remove(&d->mem, gfn + i)) return EINVAL;
    return 0;
}

/* As with Xen, the value is how many extents were done. */
static int64_t change_some(struct sim_caller *c, struct sim_domain *d, uint64_t op,
                           const struct xen_memory_reservation *r)
{
    xen_pfn_t gfns[EXTENTS_AT_ONCE];
    uint64_t done = 0, i, n;

    while (done < r->nr_extents) {
        n = r->nr_extents - done < EXTENTS_AT_ONCE ? r->nr_extents - done : EXTENTS_AT_ONCE;
        if (sim_copy_in(c, gfns, (uintptr_t)(r->extent_start.p + done), n * sizeof(gfns[0])))
            return -EFAULT;
        for (i = 0; i < n; i++, done++)
            if (op == XENMEM_populate_physmap ? populate(d, gfns[i], r->extent_order)
                                              : take(d, gfns[i], r->extent_order))
                return (int64_t)done;
    }
    return (int64_t)done;
}

static int64_t op_reservation(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    struct xen_memory_reservation r = {0};
    struct sim_domain *d;
    int64_t rc;

    if (sim_copy_in(c, &r, arg, sizeof(r))) return -EFAULT;
    if (r.extent_order > ORDER_MAX || !r.extent_start.p) return -EINVAL;
    d = sim_domain_get(r.domid);
    if (!d) return -ESRCH;
    pthread_mutex_lock(&d->lock);
    rc = d->dying ? -ESRCH : change_some(c, d, op, &r);
    pthread_mutex_unlock(&d->lock);
    sim_domain_put(d);
    return rc;
}

/* A number about a domain. */
static int64_t op_number(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    struct sim_domain *d;
    domid_t domid = 0;
    int64_t rc;

    if (sim_copy_in(c, &domid, arg, sizeof(domid))) return -EFAULT;
    d = sim_domain_get(domid);
    if (!d) return -ESRCH;
    pthread_mutex_lock(&d->lock);
    if (op == XENMEM_maximum_gpfn)
        rc = (int64_t)(d->mem.gfn_end ? d->mem.gfn_end - 1 : 0);
    else if (op == XENMEM_current_reservation)
        rc = (int64_t)d->mem.tot_pages;
    else
        rc = (int64_t)d->mem.max_pages;
    pthread_mutex_unlock(&d->lock);
    sim_domain_put(d);
    return rc;
}

static int64_t op_pod_target(struct sim_caller *c, uint64_t arg)
{
    struct xen_pod_target t = {0};
    struct sim_domain *d;

    if (sim_copy_in(c, &t, arg, sizeof(t))) return -EFAULT;
    d = sim_domain_get(t.domid);
    if (!d) return -ESRCH;
    pthread_mutex_lock(&d->lock);
    t.tot_pages = d->mem.tot_pages;
    pthread_mutex_unlock(&d->lock);
    t.pod_cache_pages = t.pod_entries = 0;
    sim_domain_put(d);
    return -sim_copy_out(c, arg, &t, sizeof(t));
}

int64_t sim_memory_op(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    switch (op) {
    case XENMEM_populate_physmap:
    case XENMEM_decrease_reservation:
        return op_reservation(c, op, arg);
    case XENMEM_maximum_gpfn:
    case XENMEM_current_reservation:
    case XENMEM_maximum_reservation:
        return op_number(c, op, arg);
    case XENMEM_get_pod_target:
    case XENMEM_set_pod_target:
        return op_pod_target(c, arg);
    case XENMEM_maximum_ram_page:
        return (int64_t)sim_host.total_pages;
    case XENMEM_claim_pages:
    case XENMEM_get_sharing_freed_pages:
    case XENMEM_get_sharing_shared_pages:
    case XENMEM_set_memory_map:
        return 0;
    case XENMEM_get_vnumainfo:
        return -EOPNOTSUPP; /* what Xen says of a guest without vNUMA */
    default:
        return -ENOSYS;
    }
}
