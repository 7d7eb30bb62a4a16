/* SPDX-License-Identifier: LGPL-2.1-only */
/* libxenforeignmemory.so.1 on xensimd: a foreign mapping is a shared mapping of the domain's memory. */
#include <errno.h>
#include <stdlib.h>

#include <xenforeignmemory.h>

#include "sim_frames.h"

struct xenforeignmemory_handle {
    struct sim_frames frames;
};

struct xenforeignmemory_resource_handle {
    void *addr;
    size_t count;
};

xenforeignmemory_handle *xenforeignmemory_open(struct xentoollog_logger *logger,
                                               unsigned open_flags)
{
    xenforeignmemory_handle *h = calloc(1, sizeof(*h));

    (void)logger;
    (void)open_flags;
    if (!h) return NULL;
    if (!sim_frames_open(&h->frames)) return h;
    free(h);
    return NULL;
}

int xenforeignmemory_close(xenforeignmemory_handle *h)
{
    if (!h) return 0;
    sim_frames_close(&h->frames);
    free(h);
    return 0;
}

/* Without err the mapping is all or nothing. */
static int check_whole(const int *errs, const int *err, size_t count)
{
    size_t i;

    if (err) return 0;
    for (i = 0; i < count; i++)
        if (errs[i]) {
            errno = -errs[i];
            return -1;
        }
    return 0;
}

void *xenforeignmemory_map2(xenforeignmemory_handle *h, uint32_t dom, void *addr, int prot,
                            int flags, size_t count, const xen_pfn_t *arr, int *err)
{
    uint32_t *frames = calloc(count + 1, sizeof(*frames));
    int *errs = err ? err : calloc(count + 1, sizeof(*errs));
    void *p = NULL;

    (void)flags;
    if (frames && errs) {
        const struct sim_request req = {
            SIM_MAP,
            0,
            {dom, (uint64_t)prot, count, (uintptr_t)arr, (uintptr_t)errs, (uintptr_t)frames}};

        p = sim_frames_map(&h->frames, &req, dom, addr, prot, count, frames);
        if (p && check_whole(errs, err, count)) {
            int saved = errno;

            sim_frames_unmap(&h->frames, p, count);
            errno = saved;
            p = NULL;
        }
    }
    if (!err) free(errs);
    free(frames);
    return p;
}

void *xenforeignmemory_map(xenforeignmemory_handle *h, uint32_t dom, int prot, size_t count,
                           const xen_pfn_t *arr, int *err)
{
    return xenforeignmemory_map2(h, dom, NULL, prot, 0, count, arr, err);
}

int xenforeignmemory_unmap(xenforeignmemory_handle *h, void *addr, size_t count)
{
    return sim_frames_unmap(&h->frames, addr, count);
}

int xenforeignmemory_restrict(xenforeignmemory_handle *h, domid_t domid)
{
    (void)h;
    (void)domid;
    errno = EOPNOTSUPP;
    return -1;
}

xenforeignmemory_resource_handle *
xenforeignmemory_map_resource(xenforeignmemory_handle *h, domid_t domid, unsigned int type,
                              unsigned int id, unsigned long frame, unsigned long nr_frames,
                              void **paddr, int prot, int flags)
{
    xenforeignmemory_resource_handle *res = calloc(1, sizeof(*res));
    uint32_t *frames = calloc(nr_frames + 1, sizeof(*frames));

    (void)flags;
    if (res && frames) {
        const struct sim_request req = {
            SIM_RESOURCE, 0, {domid, type, id, frame, nr_frames, (uintptr_t)frames}};

        res->count = nr_frames;
        res->addr = sim_frames_map(&h->frames, &req, domid, *paddr, prot, nr_frames, frames);
        *paddr = res->addr;
    }
    free(frames);
    if (res && res->addr) return res;
    free(res);
    return NULL;
}

int xenforeignmemory_unmap_resource(xenforeignmemory_handle *h,
                                    xenforeignmemory_resource_handle *res)
{
    int r = res ? sim_frames_unmap(&h->frames, res->addr, res->count) : 0;

    free(res);
    return r;
}

int xenforeignmemory_resource_size(xenforeignmemory_handle *h, domid_t domid, unsigned int type,
                                   unsigned int id, size_t *size)
{
    const struct sim_request req = {SIM_RESOURCE_SIZE, 0, {domid, type, id, 0, 0, 0}};
    int64_t n = sim_link_request(&h->frames.link, &req, NULL, NULL);

    if (n < 0) return -1;
    *size = (size_t)n << SIM_PAGE_SHIFT;
    return 0;
}
