/* SPDX-License-Identifier: LGPL-2.1-only */
/* Makes the PV guest of the tests, and compares it with its copy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pv_guest.h"

#define PRESENT_ACCESSED 0x061ULL
#define WRITABLE 0x002ULL
#define NO_EXECUTE (1ULL << 63)

static bool is_hole(uint64_t pfn)
{
    return pfn > 100 && pfn % 97 == 0;
}

uint64_t guest_frame(uint32_t domid, uint64_t pfn)
{
    uint64_t frame;

    for (frame = 1; frame < FAKE_FRAMES; frame++)
        if (fake_pfn(frame) == pfn && fake_owner(frame) == domid) return frame;
    return 0;
}

static uint64_t primary[GUEST_PFNS];

uint8_t *guest_page(uint32_t domid, uint64_t pfn)
{
    uint64_t frame =
        domid == FAKE_PRIMARY && pfn < GUEST_PFNS ? primary[pfn] : guest_frame(domid, pfn);

    return frame ? fake_frame(frame) : NULL;
}

uint64_t *guest_table(uint64_t pfn)
{
    return (uint64_t *)(void *)guest_page(FAKE_PRIMARY, pfn);
}

struct start_info *guest_start_info(uint32_t domid)
{
    return (struct start_info *)(void *)guest_page(domid, PFN_START_INFO);
}

shared_info_t *guest_shared(uint32_t domid)
{
    return (shared_info_t *)(void *)fake_frame(fake_dom[domid].shared);
}

static uint64_t noise;

static void fill(void *at, size_t size)
{
    uint8_t *p = at;

    for (; size; size -= size < 8 ? size : 8, p += 8) {
        noise = noise * 6364136223846793005ULL + 1442695040888963407ULL;
        memcpy(p, &noise, size < 8 ? size : 8);
    }
}

static uint64_t entry(uint64_t pfn, uint64_t flags)
{
    return primary[pfn] << 12 | PRESENT_ACCESSED | flags;
}

static void make_tables(void)
{
    uint64_t pfn, i;

    for (pfn = PFN_L4; pfn <= PFN_MISSING_L1; pfn++)
        memset(guest_page(FAKE_PRIMARY, pfn), 0, 4096);
    guest_table(PFN_L4)[0] = guest_table(PFN_USER_L4)[0] = entry(PFN_L3, WRITABLE);
    guest_table(PFN_L4)[256] = 0xabcdef000ULL | PRESENT_ACCESSED; /* the hypervisor's */
    guest_table(PFN_L4)[271] = 0xabcdee000ULL | PRESENT_ACCESSED;
    guest_table(PFN_L3)[0] = entry(PFN_L2, WRITABLE);
    for (i = 0; i < 3; i++)
        guest_table(PFN_L2)[i] = entry(PFN_L1 + i, WRITABLE);
    for (pfn = 0; pfn < GUEST_PFNS; pfn++)
        if (primary[pfn])
            guest_table(PFN_L1 + pfn / 512)[pfn % 512] = entry(pfn, pfn % 3 ? NO_EXECUTE : 0);
    guest_table(PFN_L1)[511] = 0x1234000; /* not present: swapped out, say */
    guest_table(PFN_L4)[P2M_SLOT] = entry(PFN_P2M_L3, WRITABLE);
    guest_table(PFN_P2M_L3)[0] = entry(PFN_P2M_L2, WRITABLE);
    guest_table(PFN_P2M_L2)[0] = entry(PFN_P2M_L1, WRITABLE);
    guest_table(PFN_P2M_L2)[1] = guest_table(PFN_P2M_L2)[2] = entry(PFN_MISSING_L1, WRITABLE);
    for (i = 0; i < 512; i++) {
        guest_table(PFN_MISSING_L1)[i] = entry(PFN_MISSING, 0);
        guest_table(PFN_P2M_L1)[i] = entry(i < 3 ? PFN_P2M + i : PFN_MISSING, WRITABLE);
    }
}

static void make_p2m(bool linear)
{
    struct arch_shared_info *arch = &guest_shared(FAKE_PRIMARY)->arch;
    uint64_t pfn, i;

    for (pfn = 0; pfn < GUEST_PFNS; pfn++)
        guest_table(PFN_P2M + pfn / 512)[pfn % 512] = primary[pfn] ? primary[pfn] : UINT64_MAX;
    memset(guest_page(FAKE_PRIMARY, PFN_MISSING), 0xff, 4096);
    for (i = 0; i < 512; i++) {
        guest_table(PFN_LISTS)[i] = primary[PFN_LISTS + (i ? 2 : 1)];
        guest_table(PFN_LISTS + 1)[i] = primary[i < 3 ? PFN_P2M + i : PFN_MISSING];
        guest_table(PFN_LISTS + 2)[i] = primary[PFN_MISSING];
    }
    arch->max_pfn = GUEST_CLAIMS;
    arch->pfn_to_mfn_frame_list_list = linear ? UINT64_MAX : primary[PFN_LISTS];
    arch->p2m_cr3 = linear ? primary[PFN_L4] << 12 : 0;
    arch->p2m_vaddr = linear ? P2M_VADDR : 0;
}

static void make_vcpu(struct fake_vcpu *v)
{
    struct vcpu_guest_context *c = &v->context;

    fill(v, sizeof(*v));
    v->online = true;
    v->xsave_size = FAKE_XSAVE;
    v->msr_count = 2;
    v->msrs[0].reserved = v->msrs[1].reserved = 0;
    c->gdt_ents = 600;
    c->gdt_frames[0] = primary[PFN_GDT];
    c->gdt_frames[1] = primary[PFN_GDT + 1];
    c->ctrlreg[3] = primary[PFN_L4] << 12;
    c->ctrlreg[1] = 0;
}

void guest_make(bool linear)
{
    struct fake_dom *dom = &fake_dom[FAKE_PRIMARY];
    uint64_t pfn;

    noise = 7;
    for (pfn = 0; pfn < GUEST_PFNS; pfn++) {
        primary[pfn] = is_hole(pfn) ? 0 : fake_populate(FAKE_PRIMARY, pfn);
        if (primary[pfn]) fill(fake_frame(primary[pfn]), 4096);
    }
    make_tables();
    fill(guest_shared(FAKE_PRIMARY), 4096);
    make_p2m(linear);
    make_vcpu(&dom->vcpus[0]);
    make_vcpu(&dom->vcpus[2]);
    dom->vcpus[0].context.user_regs.rdx = primary[PFN_START_INFO];
    dom->vcpus[0].context.ctrlreg[1] = primary[PFN_USER_L4] << 12;
    dom->vcpus[2].xsave_size = dom->vcpus[2].msr_count = 0;
    guest_start_info(FAKE_PRIMARY)->store_mfn = PFN_STORE;
    guest_start_info(FAKE_PRIMARY)->console.domU.mfn = PFN_CONSOLE;
    dom->tsc_khz = 12345;
    if (!fake_pin(FAKE_PRIMARY, primary[PFN_L4], 4) ||
        !fake_pin(FAKE_PRIMARY, primary[PFN_USER_L4], 4))
        abort();
    fake_trespasses = 0;
}

/* --- the copy --- */

static char differs[200];

static bool same_table(const uint64_t *a, const uint64_t *b, unsigned int level)
{
    const uint64_t frame = 0x000ffffffffff000ULL;
    unsigned int i;

    for (i = 0; i < 512; i++) {
        uint64_t x = level == 4 && i >= 256 && i <= 271 ? 0 : a[i];

        if (!(x & 1) && x != b[i]) return false;
        if (!(x & 1)) continue;
        if ((x & ~frame) != (b[i] & ~frame)) return false;
        if (fake_owner((b[i] & frame) >> 12) != FAKE_BACKUP) return false;
        if (fake_pfn((x & frame) >> 12) != fake_pfn((b[i] & frame) >> 12)) return false;
    }
    return true;
}

static bool same_p2m(const uint64_t *copy, uint64_t first, const uint64_t *backup)
{
    unsigned int i;

    for (i = 0; i < 512; i++)
        if (copy[i] != (backup[first + i] ? backup[first + i] : UINT64_MAX)) return false;
    return true;
}

static bool same_start_info(void)
{
    const struct start_info *info = guest_start_info(FAKE_BACKUP);
    struct start_info want = *guest_start_info(FAKE_PRIMARY);

    want.nr_pages = GUEST_PFNS;
    want.shared_info = fake_dom[FAKE_BACKUP].shared << 12;
    want.flags = 0;
    want.store_mfn = guest_frame(FAKE_BACKUP, PFN_STORE);
    want.store_evtchn = 21;
    want.console.domU.mfn = guest_frame(FAKE_BACKUP, PFN_CONSOLE);
    want.console.domU.evtchn = 22;
    return !memcmp(info, &want, sizeof(want));
}

static const char *compare_page(uint64_t pfn, const uint64_t *backup)
{
    uint64_t frame = primary[pfn], copy = backup[pfn];
    const uint64_t *a = (const uint64_t *)(void *)fake_frame(frame);
    const uint64_t *b = (const uint64_t *)(void *)fake_frame(copy);
    bool same;

    if (!frame != !copy) return "is there on one side only";
    if (!frame) return NULL;
    if (fake_level(frame) != fake_level(copy)) return "has another type";
    if (fake_pinned(frame) != fake_pinned(copy)) return "is pinned on one side only";
    if (fake_level(frame))
        same = same_table(a, b, fake_level(frame));
    else if (pfn >= PFN_P2M && pfn < PFN_P2M + 3)
        same = same_p2m(b, (pfn - PFN_P2M) * 512, backup);
    else if (pfn == PFN_START_INFO)
        same = same_start_info();
    else
        same = !memcmp(a, b, 4096);
    return same ? NULL : "has other contents";
}

static const char *compare_vcpu(unsigned int i)
{
    const struct fake_vcpu *a = &fake_dom[FAKE_PRIMARY].vcpus[i];
    const struct fake_vcpu *b = &fake_dom[FAKE_BACKUP].vcpus[i];
    struct vcpu_guest_context want = a->context;

    if (a->online != b->online) return "vcpu online on one side only";
    if (!a->online) return NULL;
    want.flags |= VGCF_online;
    want.gdt_frames[0] = guest_frame(FAKE_BACKUP, PFN_GDT);
    want.gdt_frames[1] = guest_frame(FAKE_BACKUP, PFN_GDT + 1);
    want.ctrlreg[3] = guest_frame(FAKE_BACKUP, PFN_L4) << 12;
    if (want.ctrlreg[1]) want.ctrlreg[1] = guest_frame(FAKE_BACKUP, PFN_USER_L4) << 12;
    if (i == 0) want.user_regs.rdx = guest_frame(FAKE_BACKUP, PFN_START_INFO);
    if (memcmp(&want, &b->context, sizeof(want))) return "vcpu has other registers";
    if (memcmp(a->extended + 8, b->extended + 8, FAKE_EXTENDED - 8))
        return "vcpu has another extended context";
    if (a->xsave_size != b->xsave_size || memcmp(a->xsave, b->xsave, a->xsave_size))
        return "vcpu has another extended state";
    if (a->msr_count != b->msr_count || memcmp(a->msrs, b->msrs, a->msr_count * sizeof(a->msrs[0])))
        return "vcpu has other MSRs";
    return NULL;
}

static const char *compare_shared(void)
{
    const shared_info_t *a = guest_shared(FAKE_PRIMARY), *b = guest_shared(FAKE_BACKUP);
    unsigned int i;

    if (b->arch.pfn_to_mfn_frame_list_list || b->arch.p2m_cr3 || b->arch.max_pfn != a->arch.max_pfn)
        return "shared info: the p2m of the other host";
    for (i = 0; i < XEN_LEGACY_MAX_VCPUS; i++)
        if (b->vcpu_info[i].evtchn_pending_sel ||
            memcmp(&a->vcpu_info[i].arch, &b->vcpu_info[i].arch, sizeof(a->vcpu_info[i].arch)))
            return "shared info: vcpus";
    for (i = 0; i < 64; i++)
        if (b->evtchn_pending[i] || b->evtchn_mask[i] != UINT64_MAX) return "shared info: events";
    return NULL;
}

const char *guest_compare(void)
{
    static uint64_t backup[GUEST_PFNS];
    const char *wrong = NULL;
    uint64_t i;

    memset(backup, 0, sizeof(backup));
    for (i = 1; i < FAKE_FRAMES; i++)
        if (fake_owner(i) == FAKE_BACKUP && fake_pfn(i) < GUEST_PFNS) backup[fake_pfn(i)] = i;
    for (i = 0; i < GUEST_PFNS && !wrong; i++)
        wrong = compare_page(i, backup);
    if (wrong) {
        snprintf(differs, sizeof(differs), "pfn %lu %s", (unsigned long)i - 1, wrong);
        return differs;
    }
    for (i = 0; i < FAKE_VCPUS && !wrong; i++)
        wrong = compare_vcpu((unsigned int)i);
    if (!wrong) wrong = compare_shared();
    if (!wrong && fake_dom[FAKE_BACKUP].tsc_khz != 12345) wrong = "TSC";
    return wrong;
}
