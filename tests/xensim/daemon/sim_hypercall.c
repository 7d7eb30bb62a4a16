/* SPDX-License-Identifier: LGPL-2.1-only */
/* Every request comes through here. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "sim_evtchn.h"
#include "sim_fault.h"
#include "sim_hypercall.h"

#define MULTICALLS 64

static int64_t multicall(struct sim_caller *c, uint64_t list, uint64_t count);

static int64_t hypercall(struct sim_caller *c, const struct sim_request *req)
{
    switch (req->op) {
    case __HYPERVISOR_multicall:
        return multicall(c, req->args[0], req->args[1]);
    case __HYPERVISOR_domctl:
        return sim_domctl(c, req->args[0]);
    case __HYPERVISOR_sysctl:
        return sim_sysctl(c, req->args[0]);
    case __HYPERVISOR_memory_op:
        return sim_memory_op(c, req->args[0], req->args[1]);
    case __HYPERVISOR_hvm_op:
        return sim_hvm_op(c, req->args[0], req->args[1]);
    case __HYPERVISOR_xen_version:
        return sim_version_op(c, req->args[0], req->args[1]);
    case __HYPERVISOR_sched_op:
        return sim_sched_op(c, req->args[0], req->args[1]);
    case __HYPERVISOR_event_channel_op:
        return sim_evtchn_op(c, req->args[0], req->args[1]);
    default:
        return -ENOSYS;
    }
}

/* libxenctrl makes calls whose value needs 64 bits through this; ours asks for many things at once. */
static int64_t multicall(struct sim_caller *c, uint64_t list, uint64_t count)
{
    struct multicall_entry e[MULTICALLS];
    size_t size = count * sizeof(e[0]);
    uint64_t i;

    if (count > MULTICALLS) return -EINVAL;
    if (sim_copy_in(c, e, list, size)) return -EFAULT;
    for (i = 0; i < count; i++) {
        struct sim_request req = {.kind = SIM_HYPERCALL, .op = (uint32_t)e[i].op};

        memcpy(req.args, e[i].args, sizeof(req.args));
        e[i].result =
            (xen_ulong_t)(req.op == __HYPERVISOR_multicall ? -EINVAL : hypercall(c, &req));
    }
    return sim_copy_out(c, list, e, size) ? -EFAULT : 0;
}

static int64_t event(struct sim_caller *c, const struct sim_request *req, int *fd)
{
    switch (req->kind) {
    case SIM_EVTCHN_OPEN:
        return sim_evtchn_open(c, fd);
    case SIM_EVTCHN_NOTIFY:
        return sim_evtchn_notify(c, req->args[0]);
    case SIM_EVTCHN_BIND:
        return sim_evtchn_bind(c, (uint32_t)req->args[0], req->args[1]);
    case SIM_EVTCHN_VIRQ:
        return sim_evtchn_bind_virq(c, req->args[0]);
    case SIM_EVTCHN_UNBIND:
        return sim_evtchn_unbind(c, req->args[0]);
    case SIM_EVTCHN_UNMASK:
        return sim_evtchn_unmask(c, req->args[0]);
    default:
        return -ENOSYS;
    }
}

static int64_t dispatch(struct sim_caller *c, const struct sim_request *req, int *fd,
                        uint32_t *instance)
{
    switch (req->kind) {
    case SIM_HYPERCALL:
        return hypercall(c, req);
    case SIM_MEMORY:
        return sim_caller_memory(c, req->args, fd);
    case SIM_MAP:
        return sim_caller_map(c, req->args, instance);
    case SIM_UNMAP:
        return sim_caller_unmap(c, (int64_t)req->args[0]);
    case SIM_RESOURCE:
        return sim_caller_resource(c, req->args, instance);
    case SIM_RESOURCE_SIZE:
        return sim_caller_resource_size(c, req->args);
    case SIM_GRANT:
        return sim_caller_grant(c, req->args, instance);
    case SIM_DEVICE_MODEL:
        return sim_device_model(c, req->args);
    default:
        return event(c, req, fd);
    }
}

int64_t sim_request_run(struct sim_caller *c, const struct sim_request *req, int *fd,
                        uint32_t *instance)
{
    char name[SIM_NAME_MAX];
    int64_t rc;

    sim_request_name(c, req, name);
    rc = sim_fault_check(c, name);
    /* A caller that cannot undo a mapping would be our own leak. */
    if (rc && req->kind != SIM_UNMAP) return rc;
    rc = dispatch(c, req, fd, instance);
    if (rc == -ENOSYS && sim_count_missing(name))
        fprintf(stderr, "xensimd: %s (called by %s, %d) does not exist here\n", name, c->comm,
                (int)c->pid);
    return rc;
}
