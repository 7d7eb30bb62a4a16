/* SPDX-License-Identifier: LGPL-2.1-only */
/* What an HVM or PVH guest has besides memory: platform context and parameters. */
#include <stdlib.h>
#include <string.h>
#include <xencall.h>

#include "xc_sr_record.h"
#include "xc_sr_save.h"
#include "xc_sr_x86.h"

#include <xen/hvm/hvm_op.h>
#include <xen/hvm/params.h>

/* The context grows only with vcpus that come online; they all count from the start. */
#define CONTEXT_SLACK 4096

static const uint32_t params_saved[] = {
    HVM_PARAM_STORE_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_PAGING_RING_PFN,
    HVM_PARAM_MONITOR_RING_PFN,
    HVM_PARAM_SHARING_RING_PFN,
    HVM_PARAM_VM86_TSS_SIZED,
    HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_ACPI_IOPORTS_LOCATION,
    HVM_PARAM_VIRIDIAN,
    HVM_PARAM_IDENT_PT,
    HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_IOREQ_SERVER_PFN,
    HVM_PARAM_NR_IOREQ_SERVER_PAGES,
    HVM_PARAM_X87_FIP_WIDTH,
    HVM_PARAM_MCA_CAP,
};
#define PARAMS (sizeof(params_saved) / sizeof(params_saved[0]))

/* All parameters in one hypercall: the guest stands still. */
struct param_calls {
    struct multicall_entry calls[PARAMS];
    struct xen_hvm_param args[PARAMS];
};

struct hvm_state {
    xencall_handle *xcall;
    struct param_calls *batch; /* memory that the hypervisor can write to, of xcall */
    struct sr_x86_tsc_info tsc;
    uint8_t *context;
    uint32_t context_room, context_size;
    struct sr_hvm_params params_head;
    struct sr_hvm_param params[PARAMS];
};

static int prepare_params(struct xc_sr_save *s, struct hvm_state *hvm)
{
    struct param_calls *b;
    unsigned int i;

    hvm->xcall = xencall_open(s->env.lg, 0);
    if (!hvm->xcall) {
        SR_ERRNO(&s->env, "cannot open the hypercall device");
        return -1;
    }
    hvm->batch = b = xencall_alloc_buffer(hvm->xcall, sizeof(*b));
    if (!b) {
        SR_ERRNO(&s->env, "no memory for the parameters of domain %u", s->env.domid);
        return -1;
    }
    memset(b, 0, sizeof(*b));
    for (i = 0; i < PARAMS; i++) {
        b->calls[i].op = __HYPERVISOR_hvm_op;
        b->calls[i].args[0] = HVMOP_get_param;
        b->calls[i].args[1] = (xen_ulong_t)(uintptr_t)&b->args[i];
        b->args[i].domid = (domid_t)s->env.domid;
        b->args[i].index = params_saved[i];
    }
    return 0;
}

static int hvm_setup(struct xc_sr_save *s)
{
    struct hvm_state *hvm = calloc(1, sizeof(*hvm));
    int size;

    s->arch = hvm;
    if (!hvm) {
        SR_ERRNO(&s->env, "no memory for the state of domain %u", s->env.domid);
        return -1;
    }
    if (prepare_params(s, hvm)) return -1;
    size = xc_domain_hvm_getcontext(s->env.xch, s->env.domid, NULL, 0);
    if (size <= 0) {
        SR_ERRNO(&s->env, "cannot read the context size of domain %u", s->env.domid);
        return -1;
    }
    hvm->context_room = (uint32_t)size + CONTEXT_SLACK;
    hvm->context = calloc(1, hvm->context_room);
    if (!hvm->context) SR_ERRNO(&s->env, "no memory for a context of %d bytes", size);
    return hvm->context ? 0 : -1;
}

static void hvm_cleanup(struct xc_sr_save *s)
{
    struct hvm_state *hvm = s->arch;

    if (!hvm) return;
    if (hvm->batch) xencall_free_buffer(hvm->xcall, hvm->batch);
    xencall_close(hvm->xcall);
    free(hvm->context);
    free(hvm);
    s->arch = NULL;
}

static int capture_params(struct xc_sr_save *s, struct hvm_state *hvm)
{
    struct param_calls *b = hvm->batch;
    unsigned int i, n = 0;

    if (xencall2(hvm->xcall, __HYPERVISOR_multicall, (uint64_t)(uintptr_t)b->calls, PARAMS)) {
        SR_ERRNO(&s->env, "cannot read the parameters of domain %u", s->env.domid);
        return -1;
    }
    for (i = 0; i < PARAMS; i++) {
        if (b->calls[i].result) {
            errno = (int)-b->calls[i].result;
            SR_ERRNO(&s->env, "cannot read parameter %u of domain %u", params_saved[i],
                     s->env.domid);
            return -1;
        }
        if (!b->args[i].value) continue;
        hvm->params[n].index = params_saved[i];
        hvm->params[n++].value = b->args[i].value;
    }
    hvm->params_head.count = n;
    return 0;
}

static int hvm_capture(struct xc_sr_save *s)
{
    struct hvm_state *hvm = s->arch;
    int size;

    if (xc_sr_read_tsc(s, &hvm->tsc)) return -1;
    size = xc_domain_hvm_getcontext(s->env.xch, s->env.domid, hvm->context, hvm->context_room);
    if (size <= 0) {
        SR_ERRNO(&s->env, "cannot read the context of domain %u", s->env.domid);
        return -1;
    }
    hvm->context_size = (uint32_t)size;
    return capture_params(s, hvm);
}

static int hvm_write_captured(struct xc_sr_save *s)
{
    struct hvm_state *hvm = s->arch;

    if (xc_sr_write_record(s, SR_REC_X86_TSC_INFO, NULL, 0, &hvm->tsc, sizeof(hvm->tsc))) return -1;
    if (xc_sr_write_record(s, SR_REC_HVM_CONTEXT, NULL, 0, hvm->context, hvm->context_size))
        return -1;
    if (!hvm->params_head.count) return 0;
    return xc_sr_write_record(s, SR_REC_HVM_PARAMS, &hvm->params_head, sizeof(hvm->params_head),
                              hvm->params, hvm->params_head.count * sizeof(hvm->params[0]));
}

const struct xc_sr_save_ops xc_sr_save_x86_hvm = {
    .dhdr_type = SR_DHDR_TYPE_X86_HVM,
    .setup = hvm_setup,
    .write_static = xc_sr_write_cpu_policy,
    .capture = hvm_capture,
    .write_captured = hvm_write_captured,
    .cleanup = hvm_cleanup,
};
