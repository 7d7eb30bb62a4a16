/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The vcpus of a PV guest, and its start info, which vcpu 0 names in rdx: the page where a guest
 * that was suspended finds its new surroundings.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_record.h"
#include "xc_sr_restore_x86_pv.h"

#define XSAVE_MAX (1U << 20) /* far above what a CPU has */
#define MSRS_MAX 4096U

/* Where the record of this type is kept, and how large it may be. */
static struct xc_sr_record *find_kept(struct xc_sr_pv_vcpu *vcpu, uint32_t type, uint32_t *max)
{
    switch (type) {
    case SR_REC_X86_PV_VCPU_BASIC:
        *max = sizeof(struct vcpu_guest_context);
        return &vcpu->basic;
    case SR_REC_X86_PV_VCPU_EXTENDED:
        *max = SR_PV_VCPU_EXTENDED_MAX;
        return &vcpu->extended;
    case SR_REC_X86_PV_VCPU_XSAVE:
        *max = XSAVE_MAX;
        return &vcpu->xsave;
    default:
        *max = MSRS_MAX * SR_MSR_ENTRY_SIZE;
        return &vcpu->msrs;
    }
}

static void *blob_of(const struct xc_sr_record *kept, uint32_t *size)
{
    *size = kept->length - (uint32_t)sizeof(struct sr_x86_pv_vcpu);
    return (uint8_t *)kept->body + sizeof(struct sr_x86_pv_vcpu);
}

int xc_sr_pv_keep_vcpu(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    struct xc_sr_pv_restore *pv = r->arch;
    const struct sr_x86_pv_vcpu *head = rec->body;
    struct xc_sr_record *kept;
    uint32_t max, size;

    blob_of(rec, &size);
    if (!size) return 0; /* old senders wrote such records */
    if (head->vcpu_id >= pv->vcpus_count) {
        SR_FAIL(&r->env, EINVAL, "%s of vcpu %u, but the guest has %u",
                xc_sr_record_name(rec->type), head->vcpu_id, pv->vcpus_count);
        return -1;
    }
    kept = find_kept(&pv->vcpus[head->vcpu_id], rec->type, &max);
    if (size > max || (rec->type == SR_REC_X86_PV_VCPU_BASIC && size != max)) {
        SR_FAIL(&r->env, EINVAL, "%s of %u bytes", xc_sr_record_name(rec->type), size);
        return -1;
    }
    return xc_sr_keep_record(r, kept, rec);
}

void xc_sr_pv_vcpus_free(struct xc_sr_restore *r)
{
    struct xc_sr_pv_restore *pv = r->arch;
    unsigned int i;

    for (i = 0; pv->vcpus && i < pv->vcpus_count; i++) {
        free(pv->vcpus[i].basic.body);
        free(pv->vcpus[i].extended.body);
        free(pv->vcpus[i].xsave.body);
        free(pv->vcpus[i].msrs.body);
    }
    free(pv->vcpus);
    pv->vcpus = NULL;
}

/* A suspended guest has left pfns in its start info. */
static int fill_start_info(struct xc_sr_restore *r, struct start_info *info)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    uint64_t store, console;

    if (xc_sr_pv_find_frame(r, "the page of xenstore", info->store_mfn, 0, &store) ||
        xc_sr_pv_find_frame(r, "the page of the console", info->console.domU.mfn, 0, &console))
        return -1;
    info->nr_pages = pv->pfns;
    info->shared_info = pv->shared_frame << SR_PAGE_SHIFT;
    info->flags = 0;
    info->store_mfn = r->store_gfn = store;
    info->store_evtchn = r->store_evtchn;
    info->console.domU.mfn = r->console_gfn = console;
    info->console.domU.evtchn = r->console_evtchn;
    return 0;
}

static int apply_start_info(struct xc_sr_restore *r, struct vcpu_guest_context *c)
{
    xen_pfn_t frame;
    uint64_t found;
    void *page;
    int rc;

    if (xc_sr_pv_find_frame(r, "the start info", c->user_regs.rdx, 0, &found)) return -1;
    frame = found;
    page = xenforeignmemory_map(r->env.fmem, r->env.domid, PROT_READ | PROT_WRITE, 1, &frame, NULL);
    if (!page) {
        SR_ERRNO(&r->env, "cannot map the start info of domain %u", r->env.domid);
        return -1;
    }
    c->user_regs.rdx = frame;
    rc = fill_start_info(r, page);
    xenforeignmemory_unmap(r->env.fmem, page, 1);
    return rc;
}

/* The inverse of what the sender did. */
static int to_frames(struct xc_sr_restore *r, struct vcpu_guest_context *c)
{
    uint64_t frame, i;

    if (c->gdt_ents > FIRST_RESERVED_GDT_ENTRY) {
        SR_FAIL(&r->env, EINVAL, "X86_PV_VCPU_BASIC: a GDT of %lu entries", c->gdt_ents);
        return -1;
    }
    for (i = 0; i < (c->gdt_ents + 511) / 512; i++) {
        if (xc_sr_pv_find_frame(r, "a page of a GDT", c->gdt_frames[i], 0, &frame)) return -1;
        c->gdt_frames[i] = frame;
    }
    if (xc_sr_pv_find_frame(r, "cr3", c->ctrlreg[3] >> SR_PAGE_SHIFT, XC_SR_PV_LEVELS, &frame))
        return -1;
    c->ctrlreg[3] = frame << SR_PAGE_SHIFT;
    if (!c->ctrlreg[1]) return 0;
    if (!(c->ctrlreg[1] & 1)) {
        SR_FAIL(&r->env, EINVAL, "X86_PV_VCPU_BASIC: cr1 is %#lx", c->ctrlreg[1]);
        return -1;
    }
    if (xc_sr_pv_find_frame(r, "cr1", c->ctrlreg[1] >> SR_PAGE_SHIFT, XC_SR_PV_LEVELS, &frame))
        return -1;
    c->ctrlreg[1] = frame << SR_PAGE_SHIFT;
    return 0;
}

static int apply_basic(struct xc_sr_restore *r, unsigned int vcpu, const struct xc_sr_record *kept)
{
    vcpu_guest_context_any_t any;
    uint32_t size;

    memset(&any, 0, sizeof(any));
    memcpy(&any.c, blob_of(kept, &size), sizeof(any.c));
    if (vcpu == 0 && apply_start_info(r, &any.c)) return -1;
    if (to_frames(r, &any.c)) return -1;
    any.c.flags |= VGCF_online;
    if (xc_vcpu_setcontext(r->env.xch, r->env.domid, vcpu, &any)) {
        SR_ERRNO(&r->env, "the hypervisor refuses vcpu %u of domain %u", vcpu, r->env.domid);
        return -1;
    }
    return 0;
}

static int tell(struct xc_sr_restore *r, struct xen_domctl *domctl, unsigned int vcpu,
                const char *what)
{
    if (!xc_domctl(r->env.xch, domctl)) return 0;
    SR_ERRNO(&r->env, "the hypervisor refuses the %s of vcpu %u of domain %u", what, vcpu,
             r->env.domid);
    return -1;
}

/* The blob is the argument of the call. It does not choose the vcpu. */
static int apply_extended(struct xc_sr_restore *r, unsigned int vcpu,
                          const struct xc_sr_record *kept)
{
    struct xen_domctl domctl = {.cmd = XEN_DOMCTL_set_ext_vcpucontext,
                                .domain = (domid_t)r->env.domid};
    uint32_t size;
    void *blob = blob_of(kept, &size);

    memcpy(domctl.u.pad, blob, size);
    domctl.u.ext_vcpucontext.vcpu = vcpu;
    domctl.u.ext_vcpucontext.size = size;
    return tell(r, &domctl, vcpu, "extended context");
}

/* The blob goes into a buffer that the hypervisor reads. */
static int apply_buffer(struct xc_sr_restore *r, unsigned int vcpu, const struct xc_sr_record *kept)
{
    struct xen_domctl domctl = {.domain = (domid_t)r->env.domid};
    DECLARE_HYPERCALL_BUFFER(void, buffer);
    const char *what = "MSRs";
    uint32_t size;
    void *blob = blob_of(kept, &size);
    int rc;

    buffer = xc_hypercall_buffer_alloc(r->env.xch, buffer, size);
    if (!buffer) {
        SR_ERRNO(&r->env, "no memory for a buffer of %u bytes", size);
        return -1;
    }
    memcpy(buffer, blob, size);
    if (kept->type == SR_REC_X86_PV_VCPU_XSAVE) {
        what = "extended state";
        domctl.cmd = XEN_DOMCTL_setvcpuextstate;
        domctl.u.vcpuextstate.vcpu = vcpu;
        domctl.u.vcpuextstate.size = size;
        set_xen_guest_handle(domctl.u.vcpuextstate.buffer, buffer);
    } else {
        domctl.cmd = XEN_DOMCTL_set_vcpu_msrs;
        domctl.u.vcpu_msrs.vcpu = vcpu;
        domctl.u.vcpu_msrs.msr_count = size / SR_MSR_ENTRY_SIZE;
        set_xen_guest_handle(domctl.u.vcpu_msrs.msrs, buffer);
    }
    rc = tell(r, &domctl, vcpu, what);
    xc_hypercall_buffer_free(r->env.xch, buffer);
    return rc;
}

int xc_sr_pv_apply_vcpus(struct xc_sr_restore *r)
{
    const struct xc_sr_pv_restore *pv = r->arch;
    unsigned int i;

    if (!pv->vcpus[0].basic.body) {
        SR_FAIL(&r->env, EINVAL, "the stream has no X86_PV_VCPU_BASIC of vcpu 0");
        return -1;
    }
    for (i = 0; i < pv->vcpus_count; i++) {
        const struct xc_sr_pv_vcpu *vcpu = &pv->vcpus[i];

        if (vcpu->basic.body && apply_basic(r, i, &vcpu->basic)) return -1;
        if (vcpu->extended.body && apply_extended(r, i, &vcpu->extended)) return -1;
        if (vcpu->xsave.body && apply_buffer(r, i, &vcpu->xsave)) return -1;
        if (vcpu->msrs.body && apply_buffer(r, i, &vcpu->msrs)) return -1;
    }
    return 0;
}
