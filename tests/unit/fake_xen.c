/* SPDX-License-Identifier: LGPL-2.1-only */
/* The fake hypervisor of the engine's tests. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xencall.h>

#include "fake_xen.h"
#include "xc_sr_env.h"

#include <xen/hvm/hvm_op.h>

#define PAGE 4096
#define MAPPINGS 4096

struct fake_dom fake_dom[3];
unsigned int fake_mappings, fake_calls, fake_fail_at;
enum fake_opening fake_opening;
int fake_room, fake_reserve, fake_hidden, fake_behind;
bool fake_behind_is_memory;
void (*fake_guest)(void);

static int memory = -1;
static uint8_t *window; /* all mfns */
static uint32_t pins[FAKE_MFNS];
static uint8_t owner[FAKE_MFNS]; /* domid while in a p2m or pinned */

static struct mapping {
    uint8_t *base;
    size_t n;
    int32_t *mfns;
} mappings[MAPPINGS];

static bool fails(void)
{
    static bool busy;

    if (fake_guest && !busy && !fake_dom[FAKE_PRIMARY].suspended) {
        busy = true;
        fake_guest();
        busy = false;
    }
    if (++fake_calls != fake_fail_at) return false;
    errno = EIO;
    return true;
}

static struct fake_dom *find(uint32_t domid)
{
    if (domid == 0 || domid > 2 || !fake_dom[domid].exists) {
        errno = ESRCH;
        return NULL;
    }
    return &fake_dom[domid];
}

void fake_reset(void)
{
    unsigned int d, g;

    if (memory < 0) {
        memory = memfd_create("fake-xen", MFD_CLOEXEC);
        if (memory < 0 || ftruncate(memory, (off_t)FAKE_MFNS * PAGE)) abort();
        window =
            mmap(NULL, (size_t)FAKE_MFNS * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
        if (window == MAP_FAILED) abort();
    }
    memset(fake_dom, 0, sizeof(fake_dom));
    memset(owner, 0, sizeof(owner));
    memset(pins, 0, sizeof(pins));
    for (d = 1; d < 3; d++) {
        fake_dom[d].exists = true;
        for (g = 0; g < FAKE_GFNS; g++)
            fake_dom[d].mfn[g] = -1;
    }
    fake_mappings = fake_calls = fake_fail_at = 0;
    fake_guest = NULL;
    fake_opening = FAKE_OPENS;
    fake_room = -1;
    fake_reserve = fake_hidden = fake_behind = 0;
    fake_behind_is_memory = false;
}

static bool in_p2m(int32_t mfn)
{
    unsigned int g;

    for (g = 0; g < FAKE_GFNS; g++)
        if (fake_dom[owner[mfn]].mfn[g] == mfn) return true;
    return false;
}

static void release(int32_t mfn)
{
    if (pins[mfn] || in_p2m(mfn)) return;
    if (owner[mfn] == FAKE_BACKUP && fake_room >= 0) fake_room++;
    owner[mfn] = 0;
}

void fake_populate(uint32_t domid, uint32_t gfn)
{
    static int32_t next;
    int32_t tries;

    if (fake_dom[domid].mfn[gfn] >= 0) return;
    for (tries = 0; tries < FAKE_MFNS; tries++) {
        next = (next + 1) % FAKE_MFNS;
        if (!owner[next]) break;
    }
    if (tries == FAKE_MFNS) abort();
    owner[next] = (uint8_t)domid;
    memset(window + (size_t)next * PAGE, 0xa5, PAGE);
    fake_dom[domid].mfn[gfn] = next;
    fake_dom[domid].unlogged[gfn] = 1;
}

void fake_give_back(uint32_t domid, uint32_t gfn)
{
    int32_t mfn = fake_dom[domid].mfn[gfn];

    if (mfn < 0) return;
    fake_dom[domid].mfn[gfn] = -1;
    fake_dom[domid].special[gfn] = 0;
    release(mfn);
}

const uint8_t *fake_page(uint32_t domid, uint32_t gfn)
{
    int32_t mfn = fake_dom[domid].mfn[gfn];

    return mfn < 0 ? NULL : window + (size_t)mfn * PAGE;
}

void fake_write(uint32_t domid, uint32_t gfn, uint32_t word, uint32_t value)
{
    struct fake_dom *dom = &fake_dom[domid];

    if (dom->mfn[gfn] < 0) return;
    memcpy(window + (size_t)dom->mfn[gfn] * PAGE + word % 1024 * 4, &value, 4);
    if (dom->log_on && !dom->unlogged[gfn]) dom->dirty[gfn] = 1;
}

/* --- handles --- */

static int handle; /* never looked at */

xc_interface *xc_interface_open(xentoollog_logger *lg, xentoollog_logger *build_lg, unsigned flags)
{
    if (fake_opening == FAKE_OPENING_KILLS) raise(SIGKILL);
    errno = EACCES;
    return fake_opening == FAKE_OPENS ? (xc_interface *)&handle : NULL;
}

xenforeignmemory_handle *xenforeignmemory_open(xentoollog_logger *lg, unsigned flags)
{
    return (xenforeignmemory_handle *)&handle;
}

/* --- libxenforeignmemory --- */

void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t domid, int prot, size_t n,
                           const xen_pfn_t *gfns, int *errs)
{
    struct fake_dom *dom = find(domid);
    struct mapping *m = mappings;
    size_t i;

    if (!dom || fails()) return NULL;
    while (m->base)
        m++;
    m->base = mmap(NULL, n * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    m->n = n;
    m->mfns = malloc(n * sizeof(*m->mfns));
    for (i = 0; i < n; i++) {
        int32_t mfn = gfns[i] < FAKE_GFNS ? dom->mfn[gfns[i]] : -1;

        errs[i] = mfn < 0 ? -EINVAL : 0;
        m->mfns[i] = mfn;
        if (mfn < 0) continue;
        if (mmap(m->base + i * PAGE, PAGE, prot, MAP_SHARED | MAP_FIXED, memory,
                 (off_t)mfn * PAGE) == MAP_FAILED)
            abort();
        pins[mfn]++;
        fake_mappings++;
    }
    return m->base;
}

int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t n)
{
    struct mapping *m = mappings;
    size_t i;

    while (m < mappings + MAPPINGS && m->base != addr)
        m++;
    if (m == mappings + MAPPINGS || m->n != n) abort();
    for (i = 0; i < n; i++) {
        if (m->mfns[i] < 0) continue;
        pins[m->mfns[i]]--;
        fake_mappings--;
        release(m->mfns[i]);
    }
    munmap(addr, n * PAGE);
    free(m->mfns);
    memset(m, 0, sizeof(*m));
    return 0;
}

/* --- libxenctrl --- */

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
    struct fake_dom *dom = find(first);
    unsigned int i;

    if (!dom || fails()) return -1;
    memset(info, 0, sizeof(*info));
    info->domid = first;
    info->hvm = 1;
    info->paused = dom->paused;
    info->shutdown = dom->suspended;
    info->shutdown_reason = SHUTDOWN_suspend;
    info->max_memkb = fake_reserve ? 4 : FAKE_GFNS * 4;
    for (i = 0; i < FAKE_MFNS; i++)
        info->nr_pages += owner[i] == first;
    if (first == FAKE_PRIMARY) info->nr_pages += (unsigned long)fake_hidden;
    return 1;
}

int xc_domain_setmaxmem(xc_interface *xch, uint32_t domid, uint64_t max_kb)
{
    if (!find(domid) || fails()) return -1;
    fake_room += fake_reserve;
    fake_reserve = 0;
    return 0;
}

int xc_domain_nr_gpfns(xc_interface *xch, uint32_t domid, xen_pfn_t *gpfns)
{
    *gpfns = FAKE_GFNS + (xen_pfn_t)(domid == FAKE_PRIMARY ? fake_behind : 0);
    return fails() ? -1 : 0;
}

int xc_version(xc_interface *xch, int cmd, void *arg)
{
    return fails() ? -1 : (4 << 16) | 17;
}

static bool is_there(const struct fake_dom *dom, xen_pfn_t gfn)
{
    if (gfn < FAKE_GFNS) return dom->mfn[gfn] >= 0 && !dom->special[gfn];
    return fake_behind_is_memory && gfn == FAKE_GFNS + (xen_pfn_t)fake_behind - 1;
}

int xc_get_pfn_type_batch(xc_interface *xch, uint32_t domid, unsigned int num, xen_pfn_t *arr)
{
    struct fake_dom *dom = find(domid);
    unsigned int i;

    if (!dom || num > 1024 || fails()) return -1;
    for (i = 0; i < num; i++)
        arr[i] = is_there(dom, arr[i]) ? 0 : XEN_DOMCTL_PFINFO_XTAB;
    return 0;
}

int xc_shadow_control(xc_interface *xch, uint32_t domid, unsigned int sop, unsigned int *mb,
                      unsigned int mode)
{
    struct fake_dom *dom = find(domid);

    if (!dom || (sop != XEN_DOMCTL_SHADOW_OP_OFF && fails())) return -1;
    if (dom->log_on == (sop == XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY)) {
        errno = EINVAL;
        return -1;
    }
    dom->log_on = !dom->log_on;
    memset(dom->dirty, 0, sizeof(dom->dirty));
    memset(dom->unlogged, 0, sizeof(dom->unlogged));
    return 0;
}

long long xc_logdirty_control(xc_interface *xch, uint32_t domid, unsigned int sop,
                              xc_hypercall_buffer_t *bitmap, unsigned long pages, unsigned int mode,
                              xc_shadow_op_stats_t *stats)
{
    struct fake_dom *dom = find(domid);
    uint8_t *bits = bitmap->hbuf;
    unsigned int g;

    if (!dom || fails()) return -1;
    for (g = stats->dirty_count = 0; g < FAKE_GFNS; g++)
        stats->dirty_count += dom->dirty[g];
    if (sop == XEN_DOMCTL_SHADOW_OP_PEEK) return 0;
    memset(bits, 0, (FAKE_GFNS + 7) / 8);
    for (g = 0; g < FAKE_GFNS; g++)
        if (dom->dirty[g]) bits[g / 8] |= (uint8_t)(1 << g % 8);
    memset(dom->dirty, 0, sizeof(dom->dirty));
    memset(dom->unlogged, 0, sizeof(dom->unlogged));
    return FAKE_GFNS;
}

void *xc__hypercall_buffer_alloc_pages(xc_interface *xch, xc_hypercall_buffer_t *b, int nr_pages)
{
    b->hbuf = fails() ? NULL : calloc((size_t)nr_pages, PAGE);
    return b->hbuf;
}

void xc__hypercall_buffer_free_pages(xc_interface *xch, xc_hypercall_buffer_t *b, int nr_pages)
{
    free(b->param_shadow ? b->param_shadow->hbuf : b->hbuf);
}

int xc_domain_hvm_getcontext(xc_interface *xch, uint32_t domid, uint8_t *buf, uint32_t size)
{
    struct fake_dom *dom = find(domid);

    if (!dom || fails()) return -1;
    if (buf) memcpy(buf, dom->context, FAKE_CONTEXT_SIZE);
    return FAKE_CONTEXT_SIZE;
}

int xc_domain_hvm_setcontext(xc_interface *xch, uint32_t domid, uint8_t *buf, uint32_t size)
{
    struct fake_dom *dom = find(domid);

    if (!dom || size != FAKE_CONTEXT_SIZE || fails()) return -1;
    memcpy(dom->context, buf, size);
    dom->context_calls++;
    return 0;
}

/* Of hypercalls, only parameters that are read in one multicall. */
xencall_handle *xencall_open(struct xentoollog_logger *logger, unsigned int flags)
{
    return fails() ? NULL : calloc(1, 1);
}

int xencall_close(xencall_handle *xcall)
{
    free(xcall);
    return 0;
}

void *xencall_alloc_buffer(xencall_handle *xcall, size_t size)
{
    return fails() ? NULL : calloc(1, size);
}

void xencall_free_buffer(xencall_handle *xcall, void *p)
{
    free(p);
}

static xen_ulong_t get_param(const struct multicall_entry *e)
{
    struct xen_hvm_param *p = (struct xen_hvm_param *)(uintptr_t)e->args[1];

    if (e->op != __HYPERVISOR_hvm_op || e->args[0] != HVMOP_get_param) return (xen_ulong_t)-ENOSYS;
    return xc_hvm_param_get(NULL, p->domid, p->index, &p->value) ? (xen_ulong_t)-EIO : 0;
}

int xencall2(xencall_handle *xcall, unsigned int op, uint64_t list, uint64_t count)
{
    struct multicall_entry *e = (struct multicall_entry *)(uintptr_t)list;
    uint64_t i;

    if (op != __HYPERVISOR_multicall || fails()) return -1;
    for (i = 0; i < count; i++)
        e[i].result = get_param(&e[i]);
    return 0;
}

int xc_hvm_param_get(xc_interface *xch, uint32_t domid, uint32_t param, uint64_t *value)
{
    struct fake_dom *dom = find(domid);

    if (!dom || param >= 64 || fails()) return -1;
    *value = dom->params[param];
    return 0;
}

int xc_hvm_param_set(xc_interface *xch, uint32_t domid, uint32_t param, uint64_t value)
{
    struct fake_dom *dom = find(domid);

    if (!dom || param >= 64 || fails()) return -1;
    dom->params[param] = value;
    return 0;
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

/* An extent comes whole or not at all; the first that fails ends it. */
static bool populate_extent(uint32_t domid, xen_pfn_t first, unsigned int order)
{
    xen_pfn_t g, end = first + (1UL << order);

    if (end > FAKE_GFNS || first % (1UL << order)) return false;
    for (g = first; g < end; g++)
        if (fake_dom[domid].mfn[g] >= 0) return false;
    for (g = first; g < end; g++)
        fake_populate(domid, (uint32_t)g);
    return true;
}

int xc_domain_populate_physmap(xc_interface *xch, uint32_t domid, unsigned long n,
                               unsigned int order, unsigned int flags, xen_pfn_t *gfns)
{
    struct fake_dom *dom = find(domid);
    unsigned long i;

    if (!dom || fails()) return -1;
    for (i = 0; i < n; i++) {
        unsigned long pages = 1UL << order;

        if (fake_room >= 0 && (unsigned long)fake_room < pages) break;
        if (!populate_extent(domid, gfns[i], order)) break;
        if (fake_room >= 0) fake_room -= (int)pages;
    }
    return (int)i;
}

int xc_domain_populate_physmap_exact(xc_interface *xch, uint32_t domid, unsigned long n,
                                     unsigned int order, unsigned int flags, xen_pfn_t *gfns)
{
    return xc_domain_populate_physmap(xch, domid, n, order, flags, gfns) == (int)n ? 0 : -1;
}

int xc_domain_decrease_reservation_exact(xc_interface *xch, uint32_t domid, unsigned long n,
                                         unsigned int order, xen_pfn_t *gfns)
{
    struct fake_dom *dom = find(domid);
    unsigned long i;

    if (!dom || fails()) return -1;
    for (i = 0; i < n; i++) {
        if (gfns[i] >= FAKE_GFNS || dom->mfn[gfns[i]] < 0) return -1;
        fake_give_back(domid, (uint32_t)gfns[i]);
    }
    return 0;
}

int xc_clear_domain_pages(xc_interface *xch, uint32_t domid, unsigned long pfn, int num)
{
    if (fails() || pfn >= FAKE_GFNS || fake_dom[domid].mfn[pfn] < 0) return -1;
    memset(window + (size_t)fake_dom[domid].mfn[pfn] * PAGE, 0, PAGE);
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
    if (fails() || nr_leaves != 3 || nr_msrs != 2) return -1;
    fake_dom[domid].policy_calls++;
    return 0;
}

int xc_dom_gnttab_seed(xc_interface *xch, uint32_t domid, bool is_hvm, xen_pfn_t console_gfn,
                       xen_pfn_t xenstore_gfn, uint32_t console_domid, uint32_t xenstore_domid)
{
    if (fails()) return -1;
    fake_dom[domid].seed_calls++;
    return 0;
}
