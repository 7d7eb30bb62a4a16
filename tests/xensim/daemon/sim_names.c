/* SPDX-License-Identifier: LGPL-2.1-only */
/* What requests are called: in the log, in fault rules, in counts. */
#include <stdint.h>
#include <stdio.h>

#include <xen/event_channel.h>
#include <xen/hvm/dm_op.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/sysctl.h>
#include <xen/version.h>

#include "sim_hypercall.h"

struct name {
    uint64_t number;
    const char *text;
};

/* clang-format off */
#define NAME(prefix, word) {prefix##word, #word}

static const struct name domctls[] = {
    NAME(XEN_DOMCTL_, createdomain), NAME(XEN_DOMCTL_, destroydomain),
    NAME(XEN_DOMCTL_, pausedomain), NAME(XEN_DOMCTL_, unpausedomain),
    NAME(XEN_DOMCTL_, getdomaininfo), NAME(XEN_DOMCTL_, setvcpuaffinity),
    NAME(XEN_DOMCTL_, shadow_op), NAME(XEN_DOMCTL_, max_mem), NAME(XEN_DOMCTL_, setvcpucontext),
    NAME(XEN_DOMCTL_, getvcpucontext), NAME(XEN_DOMCTL_, getvcpuinfo),
    NAME(XEN_DOMCTL_, max_vcpus), NAME(XEN_DOMCTL_, scheduler_op),
    NAME(XEN_DOMCTL_, setdomainhandle), NAME(XEN_DOMCTL_, setdebugging),
    NAME(XEN_DOMCTL_, irq_permission), NAME(XEN_DOMCTL_, iomem_permission),
    NAME(XEN_DOMCTL_, ioport_permission), NAME(XEN_DOMCTL_, hypercall_init),
    NAME(XEN_DOMCTL_, settimeoffset), NAME(XEN_DOMCTL_, getvcpuaffinity),
    NAME(XEN_DOMCTL_, resumedomain), NAME(XEN_DOMCTL_, sendtrigger), NAME(XEN_DOMCTL_, subscribe),
    NAME(XEN_DOMCTL_, gethvmcontext), NAME(XEN_DOMCTL_, sethvmcontext),
    NAME(XEN_DOMCTL_, set_address_size), NAME(XEN_DOMCTL_, get_address_size),
    NAME(XEN_DOMCTL_, assign_device), NAME(XEN_DOMCTL_, bind_pt_irq),
    NAME(XEN_DOMCTL_, memory_mapping), NAME(XEN_DOMCTL_, ioport_mapping),
    NAME(XEN_DOMCTL_, set_ext_vcpucontext), NAME(XEN_DOMCTL_, get_ext_vcpucontext),
    NAME(XEN_DOMCTL_, test_assign_device), NAME(XEN_DOMCTL_, set_target),
    NAME(XEN_DOMCTL_, deassign_device), NAME(XEN_DOMCTL_, unbind_pt_irq),
    NAME(XEN_DOMCTL_, get_device_group), NAME(XEN_DOMCTL_, debug_op),
    NAME(XEN_DOMCTL_, gethvmcontext_partial), NAME(XEN_DOMCTL_, vm_event_op),
    NAME(XEN_DOMCTL_, mem_sharing_op), NAME(XEN_DOMCTL_, gettscinfo),
    NAME(XEN_DOMCTL_, settscinfo), NAME(XEN_DOMCTL_, getpageframeinfo3),
    NAME(XEN_DOMCTL_, setvcpuextstate), NAME(XEN_DOMCTL_, getvcpuextstate),
    NAME(XEN_DOMCTL_, set_access_required), NAME(XEN_DOMCTL_, audit_p2m),
    NAME(XEN_DOMCTL_, set_virq_handler), NAME(XEN_DOMCTL_, set_broken_page_p2m),
    NAME(XEN_DOMCTL_, setnodeaffinity), NAME(XEN_DOMCTL_, getnodeaffinity),
    NAME(XEN_DOMCTL_, cacheflush), NAME(XEN_DOMCTL_, get_vcpu_msrs),
    NAME(XEN_DOMCTL_, set_vcpu_msrs), NAME(XEN_DOMCTL_, setvnumainfo),
    NAME(XEN_DOMCTL_, psr_cmt_op), NAME(XEN_DOMCTL_, monitor_op), NAME(XEN_DOMCTL_, psr_alloc),
    NAME(XEN_DOMCTL_, soft_reset), NAME(XEN_DOMCTL_, vuart_op), NAME(XEN_DOMCTL_, get_cpu_policy),
    NAME(XEN_DOMCTL_, set_cpu_policy), NAME(XEN_DOMCTL_, vmtrace_op),
    NAME(XEN_DOMCTL_, get_paging_mempool_size), NAME(XEN_DOMCTL_, set_paging_mempool_size),
    NAME(XEN_DOMCTL_, gdbsx_guestmemio), NAME(XEN_DOMCTL_, gdbsx_pausevcpu),
    NAME(XEN_DOMCTL_, gdbsx_unpausevcpu), NAME(XEN_DOMCTL_, gdbsx_domstatus),
};

static const struct name sysctls[] = {
    NAME(XEN_SYSCTL_, readconsole), NAME(XEN_SYSCTL_, tbuf_op), NAME(XEN_SYSCTL_, physinfo),
    NAME(XEN_SYSCTL_, sched_id), NAME(XEN_SYSCTL_, perfc_op),
    NAME(XEN_SYSCTL_, getdomaininfolist), NAME(XEN_SYSCTL_, debug_keys),
    NAME(XEN_SYSCTL_, getcpuinfo), NAME(XEN_SYSCTL_, availheap), NAME(XEN_SYSCTL_, get_pmstat),
    NAME(XEN_SYSCTL_, cpu_hotplug), NAME(XEN_SYSCTL_, pm_op), NAME(XEN_SYSCTL_, page_offline_op),
    NAME(XEN_SYSCTL_, lockprof_op), NAME(XEN_SYSCTL_, cputopoinfo), NAME(XEN_SYSCTL_, numainfo),
    NAME(XEN_SYSCTL_, cpupool_op), NAME(XEN_SYSCTL_, scheduler_op),
    NAME(XEN_SYSCTL_, coverage_op), NAME(XEN_SYSCTL_, psr_cmt_op), NAME(XEN_SYSCTL_, pcitopoinfo),
    NAME(XEN_SYSCTL_, psr_alloc), NAME(XEN_SYSCTL_, get_cpu_levelling_caps),
    NAME(XEN_SYSCTL_, get_cpu_featureset), NAME(XEN_SYSCTL_, livepatch_op),
    NAME(XEN_SYSCTL_, get_cpu_policy),
};

static const struct name memory_ops[] = {
    NAME(XENMEM_, increase_reservation), NAME(XENMEM_, decrease_reservation),
    NAME(XENMEM_, populate_physmap), NAME(XENMEM_, exchange), NAME(XENMEM_, maximum_ram_page),
    NAME(XENMEM_, current_reservation), NAME(XENMEM_, maximum_reservation),
    NAME(XENMEM_, maximum_gpfn), NAME(XENMEM_, machphys_mfn_list),
    NAME(XENMEM_, machphys_compat_mfn_list), NAME(XENMEM_, machphys_mapping),
    NAME(XENMEM_, add_to_physmap), NAME(XENMEM_, add_to_physmap_batch),
    NAME(XENMEM_, remove_from_physmap), NAME(XENMEM_, memory_map),
    NAME(XENMEM_, machine_memory_map), NAME(XENMEM_, set_memory_map),
    NAME(XENMEM_, set_pod_target), NAME(XENMEM_, get_pod_target),
    NAME(XENMEM_, get_sharing_freed_pages), NAME(XENMEM_, get_sharing_shared_pages),
    NAME(XENMEM_, paging_op), NAME(XENMEM_, access_op), NAME(XENMEM_, sharing_op),
    NAME(XENMEM_, claim_pages), NAME(XENMEM_, reserved_device_memory_map),
    NAME(XENMEM_, acquire_resource), NAME(XENMEM_, get_vnumainfo),
};

static const struct name hvm_ops[] = {
    NAME(HVMOP_, set_param), NAME(HVMOP_, get_param),
      NAME(HVMOP_, flush_tlbs),
    NAME(HVMOP_, pagetable_dying), NAME(HVMOP_, get_time), NAME(HVMOP_, xentrace),
    NAME(HVMOP_, set_mem_access), NAME(HVMOP_, get_mem_access), NAME(HVMOP_, get_mem_type),
    NAME(HVMOP_, set_evtchn_upcall_vector), NAME(HVMOP_, guest_request_vm_event),
    NAME(HVMOP_, altp2m),
};

static const struct name versions[] = {
    NAME(XENVER_, version), NAME(XENVER_, extraversion), NAME(XENVER_, compile_info),
    NAME(XENVER_, capabilities), NAME(XENVER_, changeset), NAME(XENVER_, platform_parameters),
    NAME(XENVER_, get_features), NAME(XENVER_, pagesize), NAME(XENVER_, guest_handle),
    NAME(XENVER_, commandline), NAME(XENVER_, build_id),
};

static const struct name sched_ops[] = {
    NAME(SCHEDOP_, yield), NAME(SCHEDOP_, block), NAME(SCHEDOP_, shutdown), NAME(SCHEDOP_, poll),
    NAME(SCHEDOP_, remote_shutdown), NAME(SCHEDOP_, shutdown_code), NAME(SCHEDOP_, watchdog),
    NAME(SCHEDOP_, pin_override),
};

static const struct name evtchn_ops[] = {
    NAME(EVTCHNOP_, bind_interdomain), NAME(EVTCHNOP_, bind_virq), NAME(EVTCHNOP_, bind_pirq),
    NAME(EVTCHNOP_, close), NAME(EVTCHNOP_, send), NAME(EVTCHNOP_, status),
    NAME(EVTCHNOP_, alloc_unbound), NAME(EVTCHNOP_, bind_ipi), NAME(EVTCHNOP_, bind_vcpu),
    NAME(EVTCHNOP_, unmask), NAME(EVTCHNOP_, reset), NAME(EVTCHNOP_, init_control),
    NAME(EVTCHNOP_, expand_array), NAME(EVTCHNOP_, set_priority),
};

static const struct name dm_ops[] = {
    NAME(XEN_DMOP_, create_ioreq_server), NAME(XEN_DMOP_, get_ioreq_server_info),
    NAME(XEN_DMOP_, map_io_range_to_ioreq_server),
    NAME(XEN_DMOP_, unmap_io_range_from_ioreq_server), NAME(XEN_DMOP_, set_ioreq_server_state),
    NAME(XEN_DMOP_, destroy_ioreq_server), NAME(XEN_DMOP_, track_dirty_vram),
    NAME(XEN_DMOP_, set_pci_intx_level), NAME(XEN_DMOP_, set_isa_irq_level),
    NAME(XEN_DMOP_, set_pci_link_route), NAME(XEN_DMOP_, modified_memory),
    NAME(XEN_DMOP_, set_mem_type), NAME(XEN_DMOP_, inject_event), NAME(XEN_DMOP_, inject_msi),
    NAME(XEN_DMOP_, map_mem_type_to_ioreq_server), NAME(XEN_DMOP_, remote_shutdown),
    NAME(XEN_DMOP_, relocate_memory), NAME(XEN_DMOP_, pin_memory_cacheattr),
    NAME(XEN_DMOP_, set_irq_level), NAME(XEN_DMOP_, nr_vcpus),
};

static const struct name hypercalls[] = {
    NAME(__HYPERVISOR_, set_trap_table), NAME(__HYPERVISOR_, mmu_update),
    NAME(__HYPERVISOR_, set_gdt), NAME(__HYPERVISOR_, stack_switch),
    NAME(__HYPERVISOR_, set_callbacks), NAME(__HYPERVISOR_, fpu_taskswitch),
    NAME(__HYPERVISOR_, sched_op_compat), NAME(__HYPERVISOR_, platform_op),
    NAME(__HYPERVISOR_, set_debugreg), NAME(__HYPERVISOR_, get_debugreg),
    NAME(__HYPERVISOR_, update_descriptor), NAME(__HYPERVISOR_, memory_op),
    NAME(__HYPERVISOR_, multicall), NAME(__HYPERVISOR_, update_va_mapping),
    NAME(__HYPERVISOR_, set_timer_op), NAME(__HYPERVISOR_, event_channel_op_compat),
    NAME(__HYPERVISOR_, xen_version), NAME(__HYPERVISOR_, console_io),
    NAME(__HYPERVISOR_, physdev_op_compat), NAME(__HYPERVISOR_, grant_table_op),
    NAME(__HYPERVISOR_, vm_assist), NAME(__HYPERVISOR_, update_va_mapping_otherdomain),
    NAME(__HYPERVISOR_, iret), NAME(__HYPERVISOR_, vcpu_op),
    NAME(__HYPERVISOR_, set_segment_base), NAME(__HYPERVISOR_, mmuext_op),
    NAME(__HYPERVISOR_, xsm_op), NAME(__HYPERVISOR_, nmi_op), NAME(__HYPERVISOR_, sched_op),
    NAME(__HYPERVISOR_, callback_op), NAME(__HYPERVISOR_, xenoprof_op),
    NAME(__HYPERVISOR_, event_channel_op), NAME(__HYPERVISOR_, physdev_op),
    NAME(__HYPERVISOR_, hvm_op), NAME(__HYPERVISOR_, sysctl), NAME(__HYPERVISOR_, domctl),
    NAME(__HYPERVISOR_, kexec_op), NAME(__HYPERVISOR_, tmem_op), NAME(__HYPERVISOR_, argo_op),
    NAME(__HYPERVISOR_, xenpmu_op), NAME(__HYPERVISOR_, dm_op), NAME(__HYPERVISOR_, hypfs_op),
    NAME(__HYPERVISOR_, arch_0), NAME(__HYPERVISOR_, arch_1), NAME(__HYPERVISOR_, arch_2),
    NAME(__HYPERVISOR_, arch_3), NAME(__HYPERVISOR_, arch_4), NAME(__HYPERVISOR_, arch_5),
    NAME(__HYPERVISOR_, arch_6), NAME(__HYPERVISOR_, arch_7),
};

static const struct name shadow_ops[] = {
    {XEN_DOMCTL_SHADOW_OP_OFF, "off"}, {XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, "enable"},
    {XEN_DOMCTL_SHADOW_OP_CLEAN, "clean"}, {XEN_DOMCTL_SHADOW_OP_PEEK, "peek"},
    {XEN_DOMCTL_SHADOW_OP_GET_ALLOCATION, "get_allocation"},
    {XEN_DOMCTL_SHADOW_OP_SET_ALLOCATION, "set_allocation"},
};

static const struct name kinds[] = {
    {SIM_MEMORY, "memfd"}, {SIM_MAP, "map"}, {SIM_UNMAP, "unmap"}, {SIM_RESOURCE, "map_resource"},
    {SIM_RESOURCE_SIZE, "resource_size"}, {SIM_GRANT, "map_grant"}, {SIM_EVTCHN_OPEN, "evtchn_open"},
    {SIM_EVTCHN_NOTIFY, "evtchn_notify"}, {SIM_EVTCHN_BIND, "evtchn_bind"},
    {SIM_EVTCHN_VIRQ, "evtchn_virq"}, {SIM_EVTCHN_UNBIND, "evtchn_unbind"},
    {SIM_EVTCHN_UNMASK, "evtchn_unmask"},
};
/* clang-format on */

#define FIND(table, number) find(table, sizeof(table) / sizeof((table)[0]), number)

static const char *find(const struct name *table, size_t n, uint64_t number)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (table[i].number == number) return table[i].text;
    return NULL;
}

static void put(char name[SIM_NAME_MAX], const char *group, const char *text, uint64_t number)
{
    if (text)
        snprintf(name, SIM_NAME_MAX, "%s%s%s", group, *group ? "." : "", text);
    else
        snprintf(name, SIM_NAME_MAX, "%s%s%lu", group, *group ? "." : "", (unsigned long)number);
}

static void name_domctl(const struct sim_caller *c, uint64_t arg, char name[SIM_NAME_MAX])
{
    struct xen_domctl op = {0};

    if (sim_copy_in(c, &op, arg, sizeof(op))) op.cmd = 0;
    if (op.cmd == XEN_DOMCTL_shadow_op)
        put(name, "domctl.shadow_op", FIND(shadow_ops, op.u.shadow_op.op), op.u.shadow_op.op);
    else
        put(name, "domctl", FIND(domctls, op.cmd), op.cmd);
}

static void name_sysctl(const struct sim_caller *c, uint64_t arg, char name[SIM_NAME_MAX])
{
    uint32_t cmd = 0;

    if (sim_copy_in(c, &cmd, arg, sizeof(cmd))) cmd = 0;
    put(name, "sysctl", FIND(sysctls, cmd), cmd);
}

static void name_hypercall(const struct sim_caller *c, const struct sim_request *outer,
                           char name[SIM_NAME_MAX])
{
    struct sim_request inner = {0};
    const struct sim_request *req = outer;
    struct multicall_entry e = {0};
    uint64_t sub;

    /* By its first call: all of a list are of one kind. */
    if (outer->op == __HYPERVISOR_multicall && !sim_copy_in(c, &e, outer->args[0], sizeof(e))) {
        inner.op = (uint32_t)e.op;
        inner.args[0] = e.args[0];
        req = &inner;
    }
    sub = req->args[0];

    switch (req->op) {
    case __HYPERVISOR_domctl:
        name_domctl(c, sub, name);
        return;
    case __HYPERVISOR_sysctl:
        name_sysctl(c, sub, name);
        return;
    case __HYPERVISOR_memory_op:
        put(name, "memory", FIND(memory_ops, sub), sub);
        return;
    case __HYPERVISOR_hvm_op:
        put(name, "hvm", FIND(hvm_ops, sub), sub);
        return;
    case __HYPERVISOR_xen_version:
        put(name, "version", FIND(versions, sub), sub);
        return;
    case __HYPERVISOR_sched_op:
        put(name, "sched", FIND(sched_ops, sub), sub);
        return;
    case __HYPERVISOR_event_channel_op:
        put(name, "evtchn", FIND(evtchn_ops, sub), sub);
        return;
    default:
        put(name, "hypercall", FIND(hypercalls, req->op), req->op);
        return;
    }
}

void sim_request_name(const struct sim_caller *c, const struct sim_request *req,
                      char name[SIM_NAME_MAX])
{
    if (req->kind == SIM_HYPERCALL)
        name_hypercall(c, req, name);
    else if (req->kind == SIM_DEVICE_MODEL)
        put(name, "dm", FIND(dm_ops, req->args[1]), req->args[1]);
    else
        put(name, "", FIND(kinds, req->kind), req->kind);
}
