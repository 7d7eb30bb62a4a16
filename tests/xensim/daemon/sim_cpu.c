/* SPDX-License-Identifier: LGPL-2.1-only */
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sim_cpu.h"

#define CONTEXT_VERSION 1
#define TSC_KHZ 2000000
#define BASIC_LEAVES 0xeU /* 0 to 0xd */
#define EXTENDED_FIRST 0x80000000U
#define EXTENDED_LEAVES 9U
#define FEATURES 18U

static uint8_t *put_record(uint8_t *at, uint16_t type, const void *body, uint32_t len)
{
    const struct hvm_save_descriptor desc = {type, 0, len};

    memcpy(at, &desc, sizeof(desc));
    if (len) memcpy(at + sizeof(desc), body, len);
    return at + sizeof(desc) + len;
}

int sim_cpu_init(struct sim_domain *d)
{
    const struct hvm_hw_mtrr mtrr = {0};

    d->context_len = (uint32_t)(sizeof(struct hvm_save_descriptor) + sizeof(mtrr));
    d->context = malloc(d->context_len);
    if (!d->context) return ENOMEM;
    put_record(d->context, HVM_SAVE_CODE(MTRR), &mtrr, sizeof(mtrr)); /* a new vcpu has it */
    sim_cpu_host_policy(d->leaves, &d->nr_leaves, d->msrs, &d->nr_msrs);
    d->tsc.tsc_mode = 1;
    d->tsc.gtsc_khz = TSC_KHZ;
    d->cpu.rflags = 2;
    d->cpu.cr0 = 0x11;
    return 0;
}

static void add_leaf(xen_cpuid_leaf_t *leaves, uint32_t *n, uint32_t leaf, uint32_t subleaf)
{
    xen_cpuid_leaf_t *l = &leaves[*n];

    *l = (xen_cpuid_leaf_t){.leaf = leaf, .subleaf = subleaf};
    if (!__get_cpuid_count(leaf, subleaf == XEN_CPUID_NO_SUBLEAF ? 0 : subleaf, &l->a, &l->b, &l->c,
                           &l->d))
        l->a = l->b = l->c = l->d = 0;
    (*n)++;
}

/* Leaves whose subleaves say different things. */
static uint32_t subleaves(uint32_t leaf)
{
    switch (leaf) {
    case 4:
        return 6;
    case 7:
    case 0xb:
    case 0xd:
        return 2;
    default:
        return 0;
    }
}

/* No extended state, and no subleaves of 7 beyond those that are there: libxenctrl writes what these announce. */
static void trim(xen_cpuid_leaf_t *leaves, uint32_t n)
{
    uint32_t i;

    for (i = 0; i < n; i++) {
        if (leaves[i].leaf == 7 && !leaves[i].subleaf) leaves[i].a = 1;
        if (leaves[i].leaf == 0xd) leaves[i].a = leaves[i].b = leaves[i].c = leaves[i].d = 0;
    }
}

void sim_cpu_host_policy(xen_cpuid_leaf_t *leaves, uint32_t *nr_leaves, xen_msr_entry_t *msrs,
                         uint32_t *nr_msrs)
{
    uint32_t leaf, sub, n = 0;

    for (leaf = 0; leaf < BASIC_LEAVES; leaf++) {
        if (!subleaves(leaf)) add_leaf(leaves, &n, leaf, XEN_CPUID_NO_SUBLEAF);
        for (sub = 0; sub < subleaves(leaf); sub++)
            add_leaf(leaves, &n, leaf, sub);
    }
    leaves[0].a = BASIC_LEAVES - 1;
    trim(leaves, n);
    leaves[n++] = (xen_cpuid_leaf_t){.leaf = 0x40000000, .subleaf = XEN_CPUID_NO_SUBLEAF};
    leaves[n++] = (xen_cpuid_leaf_t){.leaf = 0x40000100, .subleaf = XEN_CPUID_NO_SUBLEAF};
    for (leaf = 0; leaf < EXTENDED_LEAVES; leaf++) {
        add_leaf(leaves, &n, EXTENDED_FIRST + leaf, XEN_CPUID_NO_SUBLEAF);
        if (!leaf) leaves[n - 1].a = EXTENDED_FIRST + EXTENDED_LEAVES - 1;
    }
    *nr_leaves = n;
    msrs[0] = (xen_msr_entry_t){.idx = 0xce};
    msrs[1] = (xen_msr_entry_t){.idx = 0x10a};
    *nr_msrs = 2;
}

static int64_t put_policy(struct sim_caller *c, struct xen_domctl_cpu_policy *op,
                          const xen_cpuid_leaf_t *leaves, uint32_t nr_leaves,
                          const xen_msr_entry_t *msrs, uint32_t nr_msrs)
{
    if (op->leaves.p && op->nr_leaves < nr_leaves) return -ENOBUFS;
    if (op->msrs.p && op->nr_msrs < nr_msrs) return -ENOBUFS;
    if (op->leaves.p &&
        sim_copy_out(c, (uintptr_t)op->leaves.p, leaves, nr_leaves * sizeof(*leaves)))
        return -EFAULT;
    if (op->msrs.p && sim_copy_out(c, (uintptr_t)op->msrs.p, msrs, nr_msrs * sizeof(*msrs)))
        return -EFAULT;
    op->nr_leaves = nr_leaves;
    op->nr_msrs = nr_msrs;
    return 0;
}

int64_t sim_cpu_get_policy(struct sim_caller *c, const struct sim_domain *d,
                           struct xen_domctl_cpu_policy *op)
{
    return put_policy(c, op, d->leaves, d->nr_leaves, d->msrs, d->nr_msrs);
}

int64_t sim_cpu_host_get_policy(struct sim_caller *c, struct xen_domctl_cpu_policy *op)
{
    xen_cpuid_leaf_t leaves[SIM_LEAVES];
    xen_msr_entry_t msrs[SIM_MSRS];
    uint32_t nr_leaves, nr_msrs;

    sim_cpu_host_policy(leaves, &nr_leaves, msrs, &nr_msrs);
    /* Sizes are asked for without buffers: then as much as any policy may have. */
    if (!op->leaves.p && !op->msrs.p) {
        op->nr_leaves = SIM_LEAVES;
        op->nr_msrs = SIM_MSRS;
        return 0;
    }
    return put_policy(c, op, leaves, nr_leaves, msrs, nr_msrs);
}

int64_t sim_cpu_host_featureset(struct sim_caller *c, uint64_t to, uint32_t *nr)
{
    uint32_t features[FEATURES] = {0}, a, b, cx, dx;
    int64_t rc = 0;

    __cpuid(1, a, b, cx, dx);
    features[0] = dx;
    features[1] = cx;
    __cpuid(0x80000001, a, b, cx, dx);
    features[2] = dx;
    features[3] = cx;
    if (to && *nr < FEATURES) rc = -ENOBUFS;
    if (to && !rc) rc = -sim_copy_out(c, to, features, sizeof(features));
    *nr = FEATURES;
    return rc;
}

int64_t sim_cpu_set_policy(struct sim_caller *c, struct sim_domain *d,
                           struct xen_domctl_cpu_policy *op)
{
    op->err_leaf = op->err_subleaf = op->err_msr = ~0U;
    if (op->nr_leaves > SIM_LEAVES || op->nr_msrs > SIM_MSRS) return -E2BIG;
    if (sim_copy_in(c, d->leaves, (uintptr_t)op->leaves.p, op->nr_leaves * sizeof(d->leaves[0])) ||
        sim_copy_in(c, d->msrs, (uintptr_t)op->msrs.p, op->nr_msrs * sizeof(d->msrs[0])))
        return -EFAULT;
    if (op->nr_leaves) d->nr_leaves = op->nr_leaves;
    if (op->nr_msrs) d->nr_msrs = op->nr_msrs;
    return 0;
}

static uint32_t context_size(const struct sim_domain *d)
{
    return (uint32_t)(3 * sizeof(struct hvm_save_descriptor) + sizeof(struct hvm_save_header) +
                      sizeof(d->cpu) + d->context_len);
}

/* HEADER, CPU, what else was set, END. */
int64_t sim_cpu_get_context(struct sim_caller *c, const struct sim_domain *d,
                            struct xen_domctl_hvmcontext *op)
{
    const struct hvm_save_header header = {
        .magic = HVM_FILE_MAGIC, .version = CONTEXT_VERSION, .gtsc_khz = d->tsc.gtsc_khz};
    uint32_t size = context_size(d);
    uint8_t *blob, *at;
    int64_t rc;

    if (op->buffer.p && op->size < size) return -ENOSPC;
    op->size = size;
    if (!op->buffer.p) return 0;
    blob = malloc(size);
    if (!blob) return -ENOMEM;
    at = put_record(blob, HVM_SAVE_CODE(HEADER), &header, sizeof(header));
    at = put_record(at, HVM_SAVE_CODE(CPU), &d->cpu, sizeof(d->cpu));
    if (d->context_len) memcpy(at, d->context, d->context_len);
    put_record(at + d->context_len, HVM_SAVE_CODE(END), NULL, 0);
    rc = -sim_copy_out(c, (uintptr_t)op->buffer.p, blob, size);
    free(blob);
    return rc;
}

/* Sorts the records of a blob: CPU into *cpu, others to `other`. -EINVAL: it is not a whole context. */
static int64_t sort_records(const uint8_t *blob, uint32_t size, struct hvm_hw_cpu *cpu,
                            uint8_t *other, uint32_t *other_len)
{
    struct hvm_save_descriptor desc;
    uint32_t at = 0;

    for (*other_len = 0; size - at >= sizeof(desc); at += sizeof(desc) + desc.length) {
        memcpy(&desc, blob + at, sizeof(desc));
        if (desc.length > size - at - sizeof(desc)) return -EINVAL;
        if (!at && desc.typecode != HVM_SAVE_CODE(HEADER)) return -EINVAL;
        if (desc.typecode == HVM_SAVE_CODE(END)) return 0;
        if (desc.typecode == HVM_SAVE_CODE(HEADER)) continue;
        if (desc.typecode == HVM_SAVE_CODE(CPU) && !desc.instance) {
            if (desc.length != sizeof(*cpu)) return -EINVAL;
            memcpy(cpu, blob + at + sizeof(desc), sizeof(*cpu));
            continue;
        }
        memcpy(other + *other_len, blob + at, sizeof(desc) + desc.length);
        *other_len += (uint32_t)sizeof(desc) + desc.length;
    }
    return -EINVAL;
}

int64_t sim_cpu_set_context(struct sim_caller *c, struct sim_domain *d,
                            const struct xen_domctl_hvmcontext *op)
{
    uint8_t *blob, *other;
    uint32_t other_len;
    int64_t rc = -ENOMEM;

    if (!op->buffer.p || op->size > SIM_CONTEXT_MAX) return -EINVAL;
    blob = malloc(op->size + 1);
    other = malloc(op->size + 1);
    if (blob && other) rc = -sim_copy_in(c, blob, (uintptr_t)op->buffer.p, op->size);
    if (!rc) rc = sort_records(blob, op->size, &d->cpu, other, &other_len);
    free(blob);
    if (rc) {
        free(other);
        return rc;
    }
    free(d->context);
    d->context = other;
    d->context_len = other_len;
    return 0;
}

/* A record's body in d->context, or NULL. */
static const uint8_t *find_record(const struct sim_domain *d, uint32_t type, uint32_t instance,
                                  uint32_t *len)
{
    struct hvm_save_descriptor desc;
    uint32_t at;

    for (at = 0; at < d->context_len; at += (uint32_t)sizeof(desc) + desc.length) {
        memcpy(&desc, d->context + at, sizeof(desc));
        *len = desc.length;
        if (desc.typecode == type && desc.instance == instance)
            return d->context + at + sizeof(desc);
    }
    return NULL;
}

int64_t sim_cpu_get_context_partial(struct sim_caller *c, const struct sim_domain *d,
                                    struct xen_domctl_hvmcontext_partial *op)
{
    const void *body;
    uint32_t len = sizeof(d->cpu);

    if (op->type == HVM_SAVE_CODE(CPU) && !op->instance) {
        body = &d->cpu;
    } else {
        body = find_record(d, op->type, op->instance, &len);
    }
    if (!body) return -ENOENT;
    if (!op->buffer.p) {
        op->bufsz = len;
        return 0;
    }
    if (op->bufsz < len) return -ENOSPC;
    op->bufsz = len;
    return -sim_copy_out(c, (uintptr_t)op->buffer.p, body, len);
}

/* Only the registers: toolstacks change the one that says how a suspend ended. */
int64_t sim_cpu_get_vcpu(struct sim_caller *c, const struct sim_domain *d,
                         const struct xen_domctl_vcpucontext *op)
{
    vcpu_guest_context_t ctx = {0};

    if (op->vcpu) return -EINVAL;
    memset(&ctx, 0, sizeof(ctx));
    ctx.flags = VGCF_online;
    ctx.user_regs.rax = d->cpu.rax;
    ctx.user_regs.rbx = d->cpu.rbx;
    ctx.user_regs.rcx = d->cpu.rcx;
    ctx.user_regs.rip = d->cpu.rip;
    return -sim_copy_out(c, (uintptr_t)op->ctxt.p, &ctx, sizeof(ctx));
}

int64_t sim_cpu_set_vcpu(struct sim_caller *c, struct sim_domain *d,
                         const struct xen_domctl_vcpucontext *op)
{
    vcpu_guest_context_t ctx = {0};

    if (op->vcpu) return -EINVAL;
    if (sim_copy_in(c, &ctx, (uintptr_t)op->ctxt.p, sizeof(ctx))) return -EFAULT;
    d->cpu.rax = ctx.user_regs.rax;
    d->cpu.rbx = ctx.user_regs.rbx;
    d->cpu.rcx = ctx.user_regs.rcx;
    d->cpu.rip = ctx.user_regs.rip;
    return 0;
}
