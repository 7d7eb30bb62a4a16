/* SPDX-License-Identifier: LGPL-2.1-only */
/* The fake hypervisor of the tests about PV guests. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_xen_pv.h"
#include "xc_sr_env.h"
#include "xc_sr_x86_pv.h"

#define PAGE 4096UL
#define MAPPINGS 64
#define M2P_EXTENT 512UL
#define M2P_BASE 0x1000000UL /* frame numbers of the m2p itself */
#define M2P_PAGES M2P_EXTENT /* for up to 262144 frames */
#define STRIDE 7919          /* frames come in no order */

struct fake_dom fake_dom[4];
unsigned int fake_mappings, fake_calls, fake_fail_at, fake_trespasses;

static int memory = -1, m2p_memory = -1;
static uint8_t *window; /* all frames */
static uint64_t *m2p;
static uint64_t last_frame;
static struct {
    uint8_t owner, level, pinned;
} frames[FAKE_FRAMES];
static struct {
    void *base;
    size_t n;
} mappings[MAPPINGS];

static bool fails(void)
{
    if (++fake_calls != fake_fail_at) return false;
    errno = EIO;
    return true;
}

static struct fake_dom *find(uint32_t domid)
{
    if (domid < sizeof(fake_dom) / sizeof(fake_dom[0]) && fake_dom[domid].exists)
        return &fake_dom[domid];
    errno = ESRCH;
    return NULL;
}

static void *make(int *fd, const char *name, size_t size)
{
    void *p;

    *fd = memfd_create(name, MFD_CLOEXEC);
    if (*fd < 0 || ftruncate(*fd, (off_t)size)) abort();
    p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (p == MAP_FAILED) abort();
    return p;
}

static uint64_t take_frame(uint32_t domid)
{
    do {
        last_frame = (last_frame + STRIDE) % FAKE_FRAMES;
    } while (last_frame == 0 || frames[last_frame].owner);
    frames[last_frame].owner = (uint8_t)domid;
    fake_dom[domid].owned++;
    return last_frame;
}

void fake_reset(void)
{
    unsigned int d;

    if (memory >= 0) {
        munmap(window, FAKE_FRAMES * PAGE);
        munmap(m2p, M2P_PAGES * PAGE);
        close(memory);
        close(m2p_memory);
    }
    window = make(&memory, "fake-frames", FAKE_FRAMES * PAGE);
    m2p = make(&m2p_memory, "fake-m2p", M2P_PAGES * PAGE);
    memset(m2p, 0xff, M2P_PAGES * PAGE);
    memset(frames, 0, sizeof(frames));
    memset(fake_dom, 0, sizeof(fake_dom));
    last_frame = 0;
    for (d = 1; d < 4; d++) {
        fake_dom[d].exists = true;
        fake_dom[d].width = 8;
        fake_dom[d].max_memkb = FAKE_FRAMES * 4;
        fake_dom[d].shared = take_frame(d);
    }
    fake_mappings = fake_calls = fake_fail_at = fake_trespasses = 0;
}

uint64_t fake_populate(uint32_t domid, uint64_t pfn)
{
    uint64_t frame = take_frame(domid);

    m2p[frame] = pfn;
    return frame;
}

uint8_t *fake_frame(uint64_t frame)
{
    return window + frame * PAGE;
}

uint32_t fake_owner(uint64_t frame)
{
    return frame < FAKE_FRAMES ? frames[frame].owner : 0;
}

uint64_t fake_pfn(uint64_t frame)
{
    return m2p[frame];
}

unsigned int fake_level(uint64_t frame)
{
    return frames[frame].level;
}

bool fake_pinned(uint64_t frame)
{
    return frames[frame].pinned;
}

static bool owns(uint32_t domid, uint64_t frame)
{
    if (fake_owner(frame) == domid) return true;
    fake_trespasses++;
    errno = EPERM;
    return false;
}

/* The contents of a table may be anything: that the hypervisor finds out is no trespass. */
static bool validate(uint32_t domid, uint64_t frame, unsigned int level)
{
    const uint64_t *table = (const uint64_t *)(void *)fake_frame(frame);
    unsigned int i;

    errno = EINVAL;
    if (fake_owner(frame) != domid) return false;
    if (frames[frame].level) return frames[frame].level == level;
    frames[frame].level = (uint8_t)level;
    for (i = 0; i < 512; i++) {
        uint64_t next = (table[i] & XC_SR_PV_PTE_FRAME) / PAGE;

        if (level == 4 && i >= XC_SR_PV_XEN_FIRST && i <= XC_SR_PV_XEN_LAST) continue;
        if (!(table[i] & XC_SR_PV_PTE_PRESENT)) continue;
        if (level > 1 ? !validate(domid, next, level - 1) : fake_owner(next) != domid) return false;
    }
    return true;
}

bool fake_validate(uint32_t domid, uint64_t frame, unsigned int level)
{
    return owns(domid, frame) && validate(domid, frame, level);
}

bool fake_pin(uint32_t domid, uint64_t frame, unsigned int level)
{
    if (!fake_validate(domid, frame, level)) return false;
    frames[frame].pinned = 1;
    return true;
}

/* --- libxenforeignmemory --- */

static int map_one(uint8_t *at, uint32_t domid, int prot, uint64_t frame)
{
    bool is_m2p = domid == DOMID_XEN && frame - M2P_BASE < M2P_PAGES;
    int fd = is_m2p ? m2p_memory : memory;

    if (is_m2p)
        frame -= M2P_BASE;
    else if (!owns(domid, frame) || ((prot & PROT_WRITE) && frames[frame].level))
        return -EINVAL;
    if (mmap(at, PAGE, prot, MAP_SHARED | MAP_FIXED, fd, (off_t)(frame * PAGE)) == MAP_FAILED)
        abort();
    return 0;
}

void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t domid, int prot, size_t n,
                           const xen_pfn_t *gfns, int *errs)
{
    unsigned int m = 0;
    size_t i;

    if ((domid != DOMID_XEN && !find(domid)) || fails()) return NULL;
    while (mappings[m].base)
        if (++m == MAPPINGS) abort();
    mappings[m].base = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mappings[m].n = n;
    fake_mappings += n;
    for (i = 0; i < n; i++) {
        int err = map_one((uint8_t *)mappings[m].base + i * PAGE, domid, prot, gfns[i]);

        if (errs) errs[i] = err;
        if (!err || errs) continue;
        xenforeignmemory_unmap(fmem, mappings[m].base, n);
        errno = EINVAL;
        return NULL;
    }
    return mappings[m].base;
}

int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t n)
{
    unsigned int m = 0;

    while (mappings[m].base != addr || mappings[m].n != n)
        if (++m == MAPPINGS) abort();
    munmap(addr, n * PAGE);
    fake_mappings -= n;
    mappings[m].base = NULL;
    return 0;
}

/* --- libxenctrl: the domain and its memory --- */

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
    const struct fake_dom *dom = find(first);

    if (!dom || fails()) return -1;
    memset(info, 0, sizeof(*info));
    info->domid = first;
    info->shutdown = dom->suspended;
    info->shutdown_reason = SHUTDOWN_suspend;
    info->max_memkb = dom->max_memkb;
    info->shared_info_frame = dom->shared;
    info->max_vcpu_id = FAKE_VCPUS - 1;
    info->nr_pages = dom->owned;
    return 1;
}

int xc_domain_nr_gpfns(xc_interface *xch, uint32_t domid, xen_pfn_t *gpfns)
{
    *gpfns = UINT64_MAX; /* a PV guest can make the hypervisor say anything */
    return fails() ? -1 : 0;
}

int xc_domain_get_guest_width(xc_interface *xch, uint32_t domid, unsigned int *width)
{
    const struct fake_dom *dom = find(domid);

    if (!dom || fails()) return -1;
    *width = dom->width;
    return 0;
}

int xc_version(xc_interface *xch, int cmd, void *arg)
{
    return fails() ? -1 : (4 << 16) | 17;
}

int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned int sop, unsigned int *mb,
                      unsigned int mode)
{
    const struct fake_dom *dom = find(domid);

    if (dom && dom->can_log && !fails()) return 0;
    errno = EINVAL;
    return -1;
}

int xc_maximum_ram_page(xc_interface *xch, unsigned long *max_mfn)
{
    *max_mfn = FAKE_FRAMES;
    return fails() ? -1 : 0;
}

int xc_machphys_mfn_list(xc_interface *xch, unsigned long max_extents, xen_pfn_t *starts)
{
    if (max_extents != (FAKE_FRAMES * sizeof(*m2p) - 1) / (M2P_EXTENT * PAGE) + 1) abort();
    starts[0] = M2P_BASE;
    return fails() ? -1 : 0;
}

int xc_get_pfn_type_batch(xc_interface *xch, uint32_t domid, unsigned int num, xen_pfn_t *arr)
{
    unsigned int i;

    if (!find(domid) || num > 1024 || fails()) return -1;
    for (i = 0; i < num; i++) {
        uint64_t frame = arr[i];

        arr[i] = XEN_DOMCTL_PFINFO_XTAB;
        if (fake_owner(frame) != domid) continue;
        arr[i] = (uint64_t)frames[frame].level << XEN_DOMCTL_PFINFO_LTAB_SHIFT;
        if (frames[frame].pinned) arr[i] |= XEN_DOMCTL_PFINFO_LPINTAB;
    }
    return 0;
}

int xc_domain_populate_physmap_exact(xc_interface *xch, uint32_t domid, unsigned long n,
                                     unsigned int order, unsigned int flags, xen_pfn_t *gfns)
{
    struct fake_dom *dom = find(domid);
    unsigned long i;

    if (!dom || fails()) return -1;
    errno = ENOMEM;
    for (i = 0; i < n; i++) {
        if (dom->owned >= dom->max_memkb / 4 || dom->owned >= FAKE_FRAMES / 2) return -1;
        gfns[i] = fake_populate(domid, gfns[i]);
    }
    return 0;
}

int xc_domain_decrease_reservation_exact(xc_interface *xch, uint32_t domid, unsigned long n,
                                         unsigned int order, xen_pfn_t *gfns)
{
    unsigned long i;

    if (!find(domid) || fails()) return -1;
    for (i = 0; i < n; i++) {
        if (!owns(domid, gfns[i]) || frames[gfns[i]].level) return -1;
        frames[gfns[i]].owner = 0;
        m2p[gfns[i]] = UINT64_MAX;
        fake_dom[domid].owned--;
    }
    return 0;
}

int xc_mmuext_op(xc_interface *xch, struct mmuext_op *op, unsigned int nr_ops, uint32_t domid)
{
    unsigned int i;

    if (!find(domid) || fails()) return -1;
    for (i = 0; i < nr_ops; i++) {
        if (op[i].cmd > MMUEXT_PIN_L4_TABLE) return -1;
        if (!fake_pin(domid, op[i].arg1.mfn, op[i].cmd - MMUEXT_PIN_L1_TABLE + 1)) return -1;
    }
    return 0;
}
