/* SPDX-License-Identifier: LGPL-2.1-only */
/* The staging arena of one checkpoint. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "xc_sr_arena.h"
#include "xc_sr_record.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static void *reserve(uint64_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int xc_sr_arena_init(struct xc_sr_arena *a, uint64_t limit_pages)
{
    memset(a, 0, sizeof(*a));
    a->limit_pages = limit_pages;
    a->data = reserve(limit_pages * SR_PAGE_SIZE);
    a->entries = reserve(limit_pages * sizeof(*a->entries));
    if (a->data && a->entries) {
        /* Only fewer faults and TLB misses: no harm where there are no large pages. */
        (void)madvise(a->data, limit_pages * SR_PAGE_SIZE, MADV_HUGEPAGE);
        return 0;
    }
    xc_sr_arena_dispose(a);
    errno = ENOMEM;
    return -1;
}

void xc_sr_arena_dispose(struct xc_sr_arena *a)
{
    if (a->data) munmap(a->data, a->limit_pages * SR_PAGE_SIZE);
    if (a->entries) munmap(a->entries, a->limit_pages * sizeof(*a->entries));
    memset(a, 0, sizeof(*a));
}

void xc_sr_arena_prepare(struct xc_sr_arena *a, uint64_t pages)
{
    uint8_t *end = a->data + a->ready_pages * SR_PAGE_SIZE;

    if (pages > a->limit_pages) pages = a->limit_pages;
    if (pages > a->ready_pages) {
        /* Where the kernel cannot do this, the pause takes the faults. */
        if (madvise(end, (pages - a->ready_pages) * SR_PAGE_SIZE, MADV_POPULATE_WRITE)) return;
        /* Those without data come on top, but seldom. */
        (void)madvise(a->entries, pages * sizeof(*a->entries), MADV_POPULATE_WRITE);
        a->ready_pages = pages;
    } else if (pages < a->ready_pages / 4) {
        madvise(a->data + pages * SR_PAGE_SIZE, (a->ready_pages - pages) * SR_PAGE_SIZE,
                MADV_DONTNEED);
        a->ready_pages = pages;
    }
}

void xc_sr_arena_empty(struct xc_sr_arena *a)
{
    if (a->pages > a->ready_pages) a->ready_pages = a->pages;
    a->pages = 0;
    a->entries_used = 0;
}

int xc_sr_arena_add(struct xc_sr_arena *a, uint64_t pfn, uint32_t type, const void *page)
{
    if (a->entries_used == a->limit_pages) {
        errno = ENOSPC;
        return -1;
    }
    if (page) memcpy(a->data + a->pages++ * SR_PAGE_SIZE, page, SR_PAGE_SIZE);
    a->entries[a->entries_used++] = (uint64_t)type << SR_PFN_TYPE_SHIFT | pfn;
    return 0;
}
