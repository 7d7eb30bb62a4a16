/* SPDX-License-Identifier: LGPL-2.1-only */
/* The fake hypervisor of the tests about PV guests: vcpus, policies, the grant table. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake_xen_pv.h"

static bool fails(void)
{
    if (++fake_calls != fake_fail_at) return false;
    errno = EIO;
    return true;
}

static struct fake_vcpu *find(uint32_t domid, uint32_t vcpu)
{
    errno = ESRCH;
    if (domid >= 4 || !fake_dom[domid].exists || vcpu >= FAKE_VCPUS) return NULL;
    return fails() ? NULL : &fake_dom[domid].vcpus[vcpu];
}

static bool is_plain_frame(uint32_t domid, uint64_t frame)
{
    if (fake_owner(frame) == domid) return !fake_level(frame);
    fake_trespasses++;
    return false;
}

int xc_vcpu_getinfo(xc_interface *xch, uint32_t domid, uint32_t vcpu, xc_vcpuinfo_t *info)
{
    const struct fake_vcpu *v = find(domid, vcpu);

    if (!v) return -1;
    memset(info, 0, sizeof(*info));
    info->online = v->online;
    return 0;
}

int xc_vcpu_getcontext(xc_interface *xch, uint32_t domid, uint32_t vcpu,
                       vcpu_guest_context_any_t *ctxt)
{
    const struct fake_vcpu *v = find(domid, vcpu);

    if (!v) return -1;
    ctxt->c = v->context;
    return 0;
}

int xc_vcpu_setcontext(xc_interface *xch, uint32_t domid, uint32_t vcpu,
                       vcpu_guest_context_any_t *ctxt)
{
    struct fake_vcpu *v = find(domid, vcpu);
    const struct vcpu_guest_context *c = &ctxt->c;
    unsigned int i;

    if (!v) return -1;
    errno = EINVAL;
    if (c->gdt_ents > FIRST_RESERVED_GDT_ENTRY || !(c->flags & VGCF_online)) return -1;
    for (i = 0; i < (c->gdt_ents + 511) / 512; i++)
        if (!is_plain_frame(domid, c->gdt_frames[i])) return -1;
    if (!fake_validate(domid, c->ctrlreg[3] >> 12, 4)) return -1;
    if (c->ctrlreg[1] && !fake_validate(domid, c->ctrlreg[1] >> 12, 4)) return -1;
    v->context = *c;
    v->online = true;
    return 0;
}

static int ext_vcpucontext(struct xen_domctl *d, struct fake_vcpu *v, bool set)
{
    if (!set) d->u.ext_vcpucontext.size = FAKE_EXTENDED;
    if (d->u.ext_vcpucontext.size > FAKE_EXTENDED) return -1;
    if (set)
        memcpy(v->extended, &d->u.ext_vcpucontext, d->u.ext_vcpucontext.size);
    else
        memcpy((uint8_t *)&d->u.ext_vcpucontext + 8, v->extended + 8, FAKE_EXTENDED - 8);
    return 0;
}

static int vcpuextstate(struct xen_domctl *d, struct fake_vcpu *v, bool set)
{
    if (set) {
        if (d->u.vcpuextstate.size > FAKE_XSAVE) return -1;
        v->xsave_size = (uint32_t)d->u.vcpuextstate.size;
        memcpy(v->xsave, d->u.vcpuextstate.buffer.p, v->xsave_size);
        return 0;
    }
    d->u.vcpuextstate.xfeature_mask = v->xsave_size ? 7 : 0;
    if (d->u.vcpuextstate.buffer.p) memcpy(d->u.vcpuextstate.buffer.p, v->xsave, v->xsave_size);
    d->u.vcpuextstate.size = v->xsave_size;
    return 0;
}

static int vcpu_msrs(struct xen_domctl *d, struct fake_vcpu *v, bool set)
{
    if (set) {
        if (d->u.vcpu_msrs.msr_count > 4) return -1;
        v->msr_count = d->u.vcpu_msrs.msr_count;
        memcpy(v->msrs, d->u.vcpu_msrs.msrs.p, v->msr_count * sizeof(v->msrs[0]));
        return 0;
    }
    /* Asked how many, it says how many there may be; then fewer come. */
    if (d->u.vcpu_msrs.msrs.p) memcpy(d->u.vcpu_msrs.msrs.p, v->msrs, sizeof(v->msrs[0]) * 4);
    d->u.vcpu_msrs.msr_count = d->u.vcpu_msrs.msrs.p ? v->msr_count : 4;
    return 0;
}

int xc_domctl(xc_interface *xch, struct xen_domctl *d)
{
    /* All of them have the vcpu's number first. */
    struct fake_vcpu *v = find(d->domain, d->u.ext_vcpucontext.vcpu);

    if (!v) return -1;
    errno = EINVAL;
    switch (d->cmd) {
    case XEN_DOMCTL_get_ext_vcpucontext:
    case XEN_DOMCTL_set_ext_vcpucontext:
        return ext_vcpucontext(d, v, d->cmd == XEN_DOMCTL_set_ext_vcpucontext);
    case XEN_DOMCTL_getvcpuextstate:
    case XEN_DOMCTL_setvcpuextstate:
        return vcpuextstate(d, v, d->cmd == XEN_DOMCTL_setvcpuextstate);
    case XEN_DOMCTL_get_vcpu_msrs:
    case XEN_DOMCTL_set_vcpu_msrs:
        return vcpu_msrs(d, v, d->cmd == XEN_DOMCTL_set_vcpu_msrs);
    default:
        abort();
    }
}

void *xc__hypercall_buffer_alloc(xc_interface *xch, xc_hypercall_buffer_t *b, size_t size)
{
    b->hbuf = fails() ? NULL : calloc(1, size);
    return b->hbuf;
}

void xc__hypercall_buffer_free(xc_interface *xch, xc_hypercall_buffer_t *b)
{
    free(b->hbuf);
}

int xc_domain_get_tsc_info(xc_interface *xch, uint32_t domid, uint32_t *mode, uint64_t *nsec,
                           uint32_t *khz, uint32_t *incarnation)
{
    *mode = *incarnation = 0;
    *nsec = 5;
    *khz = fake_dom[domid].tsc_khz;
    return fails() ? -1 : 0;
}

int xc_domain_set_tsc_info(xc_interface *xch, uint32_t domid, uint32_t mode, uint64_t nsec,
                           uint32_t khz, uint32_t incarnation)
{
    if (fails()) return -1;
    fake_dom[domid].tsc_khz = khz;
    return 0;
}

/* --- libxenguest --- */

xc_cpu_policy_t *xc_cpu_policy_init(void)
{
    return fails() ? NULL : calloc(1, 16);
}

void xc_cpu_policy_destroy(xc_cpu_policy_t *policy)
{
    free(policy);
}

int xc_cpu_policy_get_size(xc_interface *xch, uint32_t *leaves, uint32_t *msrs)
{
    *leaves = 3;
    *msrs = 2;
    return fails() ? -1 : 0;
}

int xc_cpu_policy_get_domain(xc_interface *xch, uint32_t domid, xc_cpu_policy_t *policy)
{
    return fails() ? -1 : 0;
}

int xc_cpu_policy_serialise(xc_interface *xch, const xc_cpu_policy_t *policy,
                            xen_cpuid_leaf_t *leaves, uint32_t *nr_leaves, xen_msr_entry_t *msrs,
                            uint32_t *nr_msrs)
{
    memset(leaves, 1, 3 * sizeof(*leaves));
    memset(msrs, 2, 2 * sizeof(*msrs));
    return fails() ? -1 : 0;
}

int xc_set_domain_cpu_policy(xc_interface *xch, uint32_t domid, uint32_t nr_leaves,
                             xen_cpuid_leaf_t *leaves, uint32_t nr_msrs, xen_msr_entry_t *msrs,
                             uint32_t *err_leaf, uint32_t *err_subleaf, uint32_t *err_msr)
{
    if (fails()) return -1;
    fake_dom[domid].policy_calls++;
    return 0;
}

int xc_dom_gnttab_seed(xc_interface *xch, uint32_t domid, bool is_hvm, xen_pfn_t console_gfn,
                       xen_pfn_t xenstore_gfn, uint32_t console_domid, uint32_t xenstore_domid)
{
    if (fails() || is_hvm || !is_plain_frame(domid, console_gfn) ||
        !is_plain_frame(domid, xenstore_gfn))
        return -1;
    fake_dom[domid].seed_calls++;
    fake_dom[domid].seeded_console = console_gfn;
    fake_dom[domid].seeded_store = xenstore_gfn;
    return 0;
}
