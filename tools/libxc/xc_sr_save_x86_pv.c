/* SPDX-License-Identifier: LGPL-2.1-only */
/* A PV guest on the primary: what is asked before it is suspended, and the order of the stream. */
#include <stdlib.h>
#include <sys/mman.h>

#include "xc_sr_record.h"
#include "xc_sr_save_x86_pv.h"
#include "xc_sr_x86.h"

_Static_assert(sizeof(struct vcpu_guest_context) == SR_PV_VCPU_BASIC_SIZE_64, "64 bit only");

/* The hypervisor is asked, so that the message is true on any. */
static int refuse_live(struct xc_sr_save *s)
{
    if (xc_shadow_control(s->env.xch, s->env.domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL,
                          0)) {
        SR_FAIL(&s->env, EOPNOTSUPP,
                "Debian's hypervisor is built without shadow paging: "
                "a PV guest cannot be migrated live or replicated");
        return -1;
    }
    xc_shadow_control(s->env.xch, s->env.domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0);
    SR_FAIL(&s->env, EOPNOTSUPP,
            "a PV guest is only saved suspended: "
            "it cannot be migrated live or replicated");
    return -1;
}

static int check_guest(struct xc_sr_save *s, xc_dominfo_t *info)
{
    unsigned int width;

    if (xc_domain_getinfo(s->env.xch, s->env.domid, 1, info) != 1 || info->domid != s->env.domid) {
        SR_FAIL(&s->env, ESRCH, "there is no domain %u", s->env.domid);
        return -1;
    }
    if (xc_domain_get_guest_width(s->env.xch, s->env.domid, &width)) {
        SR_ERRNO(&s->env, "cannot read the width of domain %u", s->env.domid);
        return -1;
    }
    if (width != XC_SR_PV_WIDTH) {
        SR_FAIL(&s->env, EOPNOTSUPP,
                "domain %u is a 32 bit PV guest: only 64 bit PV guests can be saved", s->env.domid);
        return -1;
    }
    return s->live || s->checkpointed ? refuse_live(s) : 0;
}

static int pv_setup(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv;
    xen_pfn_t frame;
    xc_dominfo_t info;

    if (check_guest(s, &info)) return -1;
    pv = s->arch = calloc(1, sizeof(*pv));
    if (!pv) {
        SR_ERRNO(&s->env, "no memory for the state of domain %u", s->env.domid);
        return -1;
    }
    pv->max_memkb = info.max_memkb;
    pv->vcpus = info.max_vcpu_id + 1;
    frame = info.shared_info_frame;
    pv->shared = xenforeignmemory_map(s->env.fmem, s->env.domid, PROT_READ, 1, &frame, NULL);
    if (!pv->shared) {
        SR_ERRNO(&s->env, "cannot map the shared info of domain %u", s->env.domid);
        return -1;
    }
    return xc_sr_pv_map_m2p(s) || xc_sr_pv_batch_alloc(s) ? -1 : 0;
}

static void pv_cleanup(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;

    if (!pv) return;
    xc_sr_pv_unmap(s);
    xc_sr_pv_batch_free(s);
    if (pv->shared) xenforeignmemory_unmap(s->env.fmem, (void *)(uintptr_t)pv->shared, 1);
    free(pv);
    s->arch = NULL;
}

static int pv_write_static(struct xc_sr_save *s)
{
    struct sr_x86_pv_info info = {XC_SR_PV_WIDTH, XC_SR_PV_LEVELS, {0}};

    if (xc_sr_write_record(s, SR_REC_X86_PV_INFO, NULL, 0, &info, sizeof(info))) return -1;
    return xc_sr_write_cpu_policy(s);
}

/* The reader wants to know how large the guest is before it gets the first page. */
static int pv_write_memory(struct xc_sr_save *s)
{
    const struct xc_sr_pv_save *pv = s->arch;
    struct sr_x86_pv_p2m_frames head;

    if (xc_sr_pv_map_p2m(s)) return -1;
    head = (struct sr_x86_pv_p2m_frames){0, (uint32_t)(pv->p2m.pfns - 1)};
    if (xc_sr_write_record(s, SR_REC_X86_PV_P2M_FRAMES, &head, sizeof(head), pv->p2m_pfns,
                           pv->p2m_pages * sizeof(pv->p2m_pfns[0])))
        return -1;
    return xc_sr_pv_write_pages(s);
}

static int pv_capture(struct xc_sr_save *s)
{
    struct xc_sr_pv_save *pv = s->arch;

    return xc_sr_read_tsc(s, &pv->tsc);
}

/* The guest stays suspended: the rest is written as it is read. */
static int pv_write_captured(struct xc_sr_save *s)
{
    const struct xc_sr_pv_save *pv = s->arch;

    if (xc_sr_write_record(s, SR_REC_X86_TSC_INFO, NULL, 0, &pv->tsc, sizeof(pv->tsc))) return -1;
    if (xc_sr_write_record(s, SR_REC_SHARED_INFO, NULL, 0, pv->shared, SR_PAGE_SIZE)) return -1;
    return xc_sr_pv_write_vcpus(s);
}

const struct xc_sr_save_ops xc_sr_save_x86_pv = {
    .dhdr_type = SR_DHDR_TYPE_X86_PV,
    .setup = pv_setup,
    .write_static = pv_write_static,
    .write_memory = pv_write_memory,
    .capture = pv_capture,
    .write_captured = pv_write_captured,
    .cleanup = pv_cleanup,
};
