/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <xen/xen.h>
#include <xen/sysctl.h>
#include <xen/version.h>

#include "sim_cpu.h"
#include "sim_hypercall.h"

#define CPUS 2U
#define CREDIT2 6U

static int64_t do_physinfo(struct xen_sysctl_physinfo *op)
{
    uint64_t used = sim_pages_used();

    memset(op, 0, sizeof(*op));
    op->threads_per_core = 1;
    op->cores_per_socket = CPUS;
    op->nr_cpus = CPUS;
    op->max_cpu_id = CPUS - 1;
    op->nr_nodes = 1;
    op->cpu_khz = 2000000;
    op->capabilities = XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_hap;
    op->total_pages = sim_host.total_pages;
    op->free_pages = used < sim_host.total_pages ? sim_host.total_pages - used : 0;
    op->max_mfn = sim_host.total_pages;
    return 0;
}

/* The domain from *next on; false: none. */
static bool next_info(uint32_t *next, struct xen_domctl_getdomaininfo *info)
{
    struct sim_domain *d;

    if (!*next) {
        sim_domain0_info(info);
        *next = 1;
        return true;
    }
    d = sim_domain_next(*next);
    if (!d) return false;
    pthread_mutex_lock(&d->lock);
    sim_domain_info(d, info);
    pthread_mutex_unlock(&d->lock);
    *next = d->domid + 1;
    sim_domain_put(d);
    return true;
}

static int64_t do_list(struct sim_caller *c, struct xen_sysctl_getdomaininfolist *op)
{
    struct xen_domctl_getdomaininfo info;
    uint32_t next = op->first_domain;

    for (op->num_domains = 0; op->num_domains < op->max_domains; op->num_domains++) {
        if (!next_info(&next, &info)) break;
        if (sim_copy_out(c, (uintptr_t)(op->buffer.p + op->num_domains), &info, sizeof(info)))
            return -EFAULT;
    }
    return 0;
}

static int64_t do_policy(struct sim_caller *c, struct xen_sysctl_cpu_policy *op)
{
    struct xen_domctl_cpu_policy p = {
        .nr_leaves = op->nr_leaves, .nr_msrs = op->nr_msrs, .leaves = op->leaves, .msrs = op->msrs};
    int64_t rc = sim_cpu_host_get_policy(c, &p);

    op->nr_leaves = p.nr_leaves;
    op->nr_msrs = p.nr_msrs;
    return rc;
}

static int64_t do_topology(struct sim_caller *c, struct xen_sysctl_cputopoinfo *op)
{
    struct xen_sysctl_cputopo topo = {0, 0, 0};
    uint32_t i;

    for (i = 0; op->cputopo.p && i < CPUS && i < op->num_cpus; i++) {
        topo.core = i;
        if (sim_copy_out(c, (uintptr_t)(op->cputopo.p + i), &topo, sizeof(topo))) return -EFAULT;
    }
    op->num_cpus = CPUS;
    return 0;
}

static int64_t do_numa(struct sim_caller *c, struct xen_sysctl_numainfo *op)
{
    struct xen_sysctl_meminfo mem = {sim_host.total_pages << SIM_PAGE_SHIFT, 0};
    const uint32_t distance = 10;

    mem.memfree = mem.memsize - (sim_pages_used() << SIM_PAGE_SHIFT);
    if (op->meminfo.p && op->num_nodes &&
        sim_copy_out(c, (uintptr_t)op->meminfo.p, &mem, sizeof(mem)))
        return -EFAULT;
    if (op->distance.p && op->num_nodes &&
        sim_copy_out(c, (uintptr_t)op->distance.p, &distance, sizeof(distance)))
        return -EFAULT;
    op->num_nodes = 1;
    return 0;
}

/* There is one pool, number 0, with all CPUs. */
static int64_t do_pool(struct sim_caller *c, struct xen_sysctl_cpupool_op *op)
{
    const uint8_t all = (1U << CPUS) - 1, none = 0;

    if (op->op == XEN_SYSCTL_CPUPOOL_OP_FREEINFO)
        return op->cpumap.bitmap.p ? -sim_copy_out(c, (uintptr_t)op->cpumap.bitmap.p, &none, 1) : 0;
    if (op->op != XEN_SYSCTL_CPUPOOL_OP_INFO) return -ENOSYS;
    if (op->cpupool_id) return -ENOENT;
    op->sched_id = CREDIT2;
    op->n_dom = 1;
    return op->cpumap.bitmap.p ? -sim_copy_out(c, (uintptr_t)op->cpumap.bitmap.p, &all, 1) : 0;
}

static int64_t dispatch(struct sim_caller *c, struct xen_sysctl *op)
{
    switch (op->cmd) {
    case XEN_SYSCTL_physinfo:
        return do_physinfo(&op->u.physinfo);
    case XEN_SYSCTL_getdomaininfolist:
        return do_list(c, &op->u.getdomaininfolist);
    case XEN_SYSCTL_get_cpu_policy:
        return do_policy(c, &op->u.cpu_policy);
    case XEN_SYSCTL_get_cpu_featureset:
        return sim_cpu_host_featureset(c, (uintptr_t)op->u.cpu_featureset.features.p,
                                       &op->u.cpu_featureset.nr_features);
    case XEN_SYSCTL_cputopoinfo:
        return do_topology(c, &op->u.cputopoinfo);
    case XEN_SYSCTL_numainfo:
        return do_numa(c, &op->u.numainfo);
    case XEN_SYSCTL_cpupool_op:
        return do_pool(c, &op->u.cpupool_op);
    case XEN_SYSCTL_sched_id:
        op->u.sched_id.sched_id = CREDIT2;
        return 0;
    default:
        return -ENOSYS;
    }
}

int64_t sim_sysctl(struct sim_caller *c, uint64_t arg)
{
    struct xen_sysctl op = {0};
    int64_t rc;

    if (sim_copy_in(c, &op, arg, sizeof(op))) return -EFAULT;
    if (op.interface_version != XEN_SYSCTL_INTERFACE_VERSION) return -EACCES;
    rc = dispatch(c, &op);
    if ((!rc || rc == -ENOBUFS) && sim_copy_out(c, arg, &op, sizeof(op))) rc = -EFAULT;
    return rc;
}

static int64_t put_text(struct sim_caller *c, uint64_t to, size_t size, const char *text)
{
    char buf[1024] = "";

    strncpy(buf, text, sizeof(buf) - 1);
    return -sim_copy_out(c, to, buf, size);
}

int64_t sim_version_op(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    const xen_platform_parameters_t platform = {0xffff800000000000UL};
    struct xen_feature_info features = {0};
    xen_compile_info_t compiled = {"gcc", "xensim", "localhost", "unknown"};

    switch (op) {
    case XENVER_version:
        return 4 << 16 | 17;
    case XENVER_extraversion:
        return put_text(c, arg, sizeof(xen_extraversion_t), ".7-xensim");
    case XENVER_capabilities:
        return put_text(c, arg, sizeof(xen_capabilities_info_t),
                        "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64 ");
    case XENVER_changeset:
        return put_text(c, arg, sizeof(xen_changeset_info_t), "xensim");
    case XENVER_commandline:
        return put_text(c, arg, sizeof(xen_commandline_t), "");
    case XENVER_compile_info:
        return -sim_copy_out(c, arg, &compiled, sizeof(compiled));
    case XENVER_platform_parameters:
        return -sim_copy_out(c, arg, &platform, sizeof(platform));
    case XENVER_get_features:
        if (sim_copy_in(c, &features, arg, sizeof(features))) return -EFAULT;
        features.submap = 0;
        return -sim_copy_out(c, arg, &features, sizeof(features));
    case XENVER_pagesize:
        return (int64_t)SIM_PAGE_SIZE;
    default:
        return -ENOSYS;
    }
}
