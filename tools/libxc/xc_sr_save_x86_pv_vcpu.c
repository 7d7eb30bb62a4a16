/* SPDX-License-Identifier: LGPL-2.1-only */
/* The vcpus of a PV guest: registers, then what the hypervisor keeps beside them. */
#include <string.h>

#include "xc_sr_save_x86_pv.h"

#define XSAVE_MAX (1U << 20) /* far above what a CPU has */
#define MSRS_MAX 4096U

static int write_vcpu_record(struct xc_sr_save *s, uint32_t type, unsigned int vcpu,
                             const void *blob, size_t size)
{
    struct sr_x86_pv_vcpu head = {vcpu, 0};

    return size ? xc_sr_write_record(s, type, &head, sizeof(head), blob, size) : 0;
}

/* *frame: mfn -> pfn. */
static int to_pfn(struct xc_sr_save *s, unsigned int vcpu, const char *what, uint64_t *frame)
{
    const struct xc_sr_pv_save *pv = s->arch;
    uint64_t mfn = *frame;

    if (xc_sr_pv_find_pfn(&pv->p2m, &pv->m2p, mfn, frame)) return 0;
    SR_FAIL(&s->env, EINVAL, "vcpu %u of domain %u: %s is frame %#lx, which is not the guest's",
            vcpu, s->env.domid, what, (unsigned long)mfn);
    return -1;
}

static int to_pfns(struct xc_sr_save *s, unsigned int vcpu, struct vcpu_guest_context *c)
{
    uint64_t frame = c->user_regs.rdx, i;

    /* A guest that suspends hands the frame of its start info to the hypervisor. */
    if (vcpu == 0) {
        if (to_pfn(s, vcpu, "the start info", &frame)) return -1;
        c->user_regs.rdx = frame;
    }
    if (c->gdt_ents > FIRST_RESERVED_GDT_ENTRY) {
        SR_FAIL(&s->env, ERANGE, "vcpu %u of domain %u has a GDT of %lu entries", vcpu,
                s->env.domid, c->gdt_ents);
        return -1;
    }
    for (i = 0; i < (c->gdt_ents + 511) / 512; i++) {
        frame = c->gdt_frames[i];
        if (to_pfn(s, vcpu, "a page of the GDT", &frame)) return -1;
        c->gdt_frames[i] = frame;
    }
    frame = c->ctrlreg[3] >> SR_PAGE_SHIFT;
    if (to_pfn(s, vcpu, "cr3", &frame)) return -1;
    c->ctrlreg[3] = frame << SR_PAGE_SHIFT;
    if (!c->ctrlreg[1]) return 0;
    /* The page tables of user space; bit 0 tells a stream's reader that there are some. */
    frame = c->ctrlreg[1] >> SR_PAGE_SHIFT;
    if (to_pfn(s, vcpu, "cr1", &frame)) return -1;
    c->ctrlreg[1] = frame << SR_PAGE_SHIFT | 1;
    return 0;
}

static int write_basic(struct xc_sr_save *s, unsigned int vcpu)
{
    vcpu_guest_context_any_t any;

    memset(&any, 0, sizeof(any));
    if (xc_vcpu_getcontext(s->env.xch, s->env.domid, vcpu, &any)) {
        SR_ERRNO(&s->env, "cannot read vcpu %u of domain %u", vcpu, s->env.domid);
        return -1;
    }
    if (to_pfns(s, vcpu, &any.c)) return -1;
    return write_vcpu_record(s, SR_REC_X86_PV_VCPU_BASIC, vcpu, &any.c, sizeof(any.c));
}

static int ask(struct xc_sr_save *s, struct xen_domctl *domctl, unsigned int vcpu, const char *what)
{
    if (xc_domctl(s->env.xch, domctl) >= 0) return 0;
    SR_ERRNO(&s->env, "cannot read the %s of vcpu %u of domain %u", what, vcpu, s->env.domid);
    return -1;
}

static int write_extended(struct xc_sr_save *s, unsigned int vcpu)
{
    struct xen_domctl domctl = {.cmd = XEN_DOMCTL_get_ext_vcpucontext,
                                .domain = (domid_t)s->env.domid};

    domctl.u.ext_vcpucontext.vcpu = vcpu;
    if (ask(s, &domctl, vcpu, "extended context")) return -1;
    if (domctl.u.ext_vcpucontext.size > SR_PV_VCPU_EXTENDED_MAX) {
        SR_FAIL(&s->env, ERANGE, "vcpu %u of domain %u: an extended context of %u bytes", vcpu,
                s->env.domid, domctl.u.ext_vcpucontext.size);
        return -1;
    }
    return write_vcpu_record(s, SR_REC_X86_PV_VCPU_EXTENDED, vcpu, &domctl.u,
                             domctl.u.ext_vcpucontext.size);
}

static int write_xsave(struct xc_sr_save *s, unsigned int vcpu)
{
    struct xen_domctl domctl = {.cmd = XEN_DOMCTL_getvcpuextstate, .domain = (domid_t)s->env.domid};
    DECLARE_HYPERCALL_BUFFER(void, buffer);
    int rc = -1;

    /* Without a buffer it tells what is there and how large. */
    domctl.u.vcpuextstate.vcpu = vcpu;
    if (ask(s, &domctl, vcpu, "extended state")) return -1;
    if (!domctl.u.vcpuextstate.xfeature_mask || !domctl.u.vcpuextstate.size) return 0;
    if (domctl.u.vcpuextstate.size <= XSAVE_MAX)
        buffer = xc_hypercall_buffer_alloc(s->env.xch, buffer, domctl.u.vcpuextstate.size);
    if (!buffer) {
        SR_FAIL(&s->env, ENOMEM, "no memory for an extended state of %lu bytes",
                (unsigned long)domctl.u.vcpuextstate.size);
        return -1;
    }
    set_xen_guest_handle(domctl.u.vcpuextstate.buffer, buffer);
    rc = ask(s, &domctl, vcpu, "extended state");
    if (!rc)
        rc = write_vcpu_record(s, SR_REC_X86_PV_VCPU_XSAVE, vcpu, buffer,
                               domctl.u.vcpuextstate.size);
    xc_hypercall_buffer_free(s->env.xch, buffer);
    return rc;
}

static int write_msrs(struct xc_sr_save *s, unsigned int vcpu)
{
    struct xen_domctl domctl = {.cmd = XEN_DOMCTL_get_vcpu_msrs, .domain = (domid_t)s->env.domid};
    DECLARE_HYPERCALL_BUFFER(void, buffer);
    int rc = -1;

    domctl.u.vcpu_msrs.vcpu = vcpu;
    if (ask(s, &domctl, vcpu, "MSRs")) return -1;
    if (!domctl.u.vcpu_msrs.msr_count) return 0;
    if (domctl.u.vcpu_msrs.msr_count <= MSRS_MAX)
        buffer = xc_hypercall_buffer_alloc(s->env.xch, buffer,
                                           domctl.u.vcpu_msrs.msr_count * SR_MSR_ENTRY_SIZE);
    if (!buffer) {
        SR_FAIL(&s->env, ENOMEM, "no memory for %u MSRs", domctl.u.vcpu_msrs.msr_count);
        return -1;
    }
    set_xen_guest_handle(domctl.u.vcpu_msrs.msrs, buffer);
    rc = ask(s, &domctl, vcpu, "MSRs");
    if (!rc)
        rc = write_vcpu_record(s, SR_REC_X86_PV_VCPU_MSRS, vcpu, buffer,
                               domctl.u.vcpu_msrs.msr_count * (size_t)SR_MSR_ENTRY_SIZE);
    xc_hypercall_buffer_free(s->env.xch, buffer);
    return rc;
}

int xc_sr_pv_write_vcpus(struct xc_sr_save *s)
{
    const struct xc_sr_pv_save *pv = s->arch;
    xc_vcpuinfo_t info;
    unsigned int vcpu;

    for (vcpu = 0; vcpu < pv->vcpus; vcpu++) {
        if (xc_vcpu_getinfo(s->env.xch, s->env.domid, vcpu, &info)) {
            SR_ERRNO(&s->env, "cannot ask for vcpu %u of domain %u", vcpu, s->env.domid);
            return -1;
        }
        if (!info.online) continue;
        if (write_basic(s, vcpu) || write_extended(s, vcpu) || write_xsave(s, vcpu) ||
            write_msrs(s, vcpu))
            return -1;
    }
    return 0;
}
