/* SPDX-License-Identifier: LGPL-2.1-only */
/* The reference image. slot_of[] counts slots from FIRST_SLOT on, so that a fresh table is empty. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_ref.h"
#include "xc_sr_stream_format.h"

#define UNKNOWN 0U
#define ZERO 1U
#define FIRST_SLOT 2U
#define SLOTS_MAX (1U << 30)

static const uint8_t zero_page[SR_PAGE_SIZE] __attribute__((aligned(64)));

/* Pages come when they are touched. */
static void *reserve(uint64_t bytes)
{
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void release(void *p, uint64_t bytes)
{
    if (p) munmap(p, bytes ? bytes : 1);
}

int xc_sr_ref_init(struct xc_sr_ref *ref, uint64_t pfns, uint64_t limit_bytes)
{
    uint64_t slots = limit_bytes / SR_PAGE_SIZE;

    memset(ref, 0, sizeof(*ref));
    if (slots > pfns) slots = pfns;
    if (slots > SLOTS_MAX) slots = SLOTS_MAX;
    ref->pfns = pfns;
    ref->slots = (uint32_t)slots;
    ref->free_slot = XC_SR_REF_NONE;
    ref->pages = reserve(slots * SR_PAGE_SIZE);
    ref->owners = reserve(slots * sizeof(*ref->owners));
    ref->recent = reserve(slots);
    ref->slot_of = reserve(pfns * sizeof(*ref->slot_of));
    if (!ref->pages || !ref->owners || !ref->recent || !ref->slot_of) {
        xc_sr_ref_dispose(ref);
        errno = ENOMEM;
        return -1;
    }
    /* Only fewer faults and TLB misses: no harm where there are no large pages. */
    (void)madvise(ref->pages, slots * SR_PAGE_SIZE, MADV_HUGEPAGE);
    return 0;
}

void xc_sr_ref_dispose(struct xc_sr_ref *ref)
{
    release(ref->pages, (uint64_t)ref->slots * SR_PAGE_SIZE);
    release(ref->owners, ref->slots * sizeof(*ref->owners));
    release(ref->recent, ref->slots);
    release(ref->slot_of, ref->pfns * sizeof(*ref->slot_of));
    memset(ref, 0, sizeof(*ref));
}

static void *page_of(const struct xc_sr_ref *ref, uint32_t slot)
{
    return ref->pages + (uint64_t)slot * SR_PAGE_SIZE;
}

const void *xc_sr_ref_find(struct xc_sr_ref *ref, uint64_t pfn, void **writable)
{
    uint32_t mark = pfn < ref->pfns ? ref->slot_of[pfn] : UNKNOWN;

    *writable = NULL;
    if (mark == UNKNOWN) return NULL;
    if (mark == ZERO) return zero_page;
    ref->recent[mark - FIRST_SLOT] = 1;
    return *writable = page_of(ref, mark - FIRST_SLOT);
}

/* A free slot's owner is the next free one. */
static void give_back(struct xc_sr_ref *ref, uint64_t pfn)
{
    uint32_t slot;

    if (ref->slot_of[pfn] < FIRST_SLOT) return;
    slot = ref->slot_of[pfn] - FIRST_SLOT;
    ref->owners[slot] = ref->free_slot;
    ref->free_slot = slot;
}

/* All slots are taken. One round makes every page old, so the search ends in the second. */
static uint32_t evict(struct xc_sr_ref *ref)
{
    for (;;) {
        if (++ref->victim >= ref->slots) ref->victim = 0;
        if (!ref->recent[ref->victim]) break;
        ref->recent[ref->victim] = 0;
    }
    ref->slot_of[ref->owners[ref->victim]] = UNKNOWN;
    return ref->victim;
}

static uint32_t take_slot(struct xc_sr_ref *ref)
{
    uint32_t slot = ref->free_slot;

    if (slot != XC_SR_REF_NONE) {
        ref->free_slot = (uint32_t)ref->owners[slot];
        return slot;
    }
    return ref->slots_used < ref->slots ? ref->slots_used++ : evict(ref);
}

void *xc_sr_ref_make(struct xc_sr_ref *ref, uint64_t pfn)
{
    uint32_t slot;

    if (pfn >= ref->pfns || !ref->slots) return NULL;
    if (ref->slot_of[pfn] >= FIRST_SLOT) return page_of(ref, ref->slot_of[pfn] - FIRST_SLOT);
    slot = take_slot(ref);
    ref->owners[slot] = pfn;
    ref->recent[slot] = 1;
    ref->slot_of[pfn] = slot + FIRST_SLOT;
    return page_of(ref, slot);
}

void xc_sr_ref_zero(struct xc_sr_ref *ref, uint64_t pfn)
{
    if (pfn >= ref->pfns) return;
    give_back(ref, pfn);
    ref->slot_of[pfn] = ZERO;
}

void xc_sr_ref_forget(struct xc_sr_ref *ref, uint64_t pfn)
{
    if (pfn >= ref->pfns) return;
    give_back(ref, pfn);
    ref->slot_of[pfn] = UNKNOWN;
}
