/* SPDX-License-Identifier: LGPL-2.1-only */
/* libxencall.so.1 whose hypervisor is xensimd. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xencall.h>

#include "sim_link.h"

struct xencall_handle {
    struct sim_link link;
};

xencall_handle *xencall_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    xencall_handle *h = calloc(1, sizeof(*h));

    (void)logger;
    (void)open_flags;
    if (!h) return NULL;
    if (sim_link_open(&h->link)) {
        int saved = errno;

        free(h);
        errno = saved;
        return NULL;
    }
    return h;
}

int xencall_close(xencall_handle *h)
{
    if (!h) return 0;
    sim_link_close(&h->link);
    free(h);
    return 0;
}

int xencall_fd(xencall_handle *h)
{
    return h->link.fd;
}

static int64_t call(xencall_handle *h, unsigned int op, uint64_t a1, uint64_t a2, uint64_t a3,
                    uint64_t a4, uint64_t a5)
{
    const struct sim_request req = {SIM_HYPERCALL, op, {a1, a2, a3, a4, a5, 0}};

    return sim_link_request(&h->link, &req, NULL, NULL);
}

int xencall0(xencall_handle *h, unsigned int op)
{
    return (int)call(h, op, 0, 0, 0, 0, 0);
}

int xencall1(xencall_handle *h, unsigned int op, uint64_t a1)
{
    return (int)call(h, op, a1, 0, 0, 0, 0);
}

int xencall2(xencall_handle *h, unsigned int op, uint64_t a1, uint64_t a2)
{
    return (int)call(h, op, a1, a2, 0, 0, 0);
}

long xencall2L(xencall_handle *h, unsigned int op, uint64_t a1, uint64_t a2)
{
    return (long)call(h, op, a1, a2, 0, 0, 0);
}

int xencall3(xencall_handle *h, unsigned int op, uint64_t a1, uint64_t a2, uint64_t a3)
{
    return (int)call(h, op, a1, a2, a3, 0, 0);
}

int xencall4(xencall_handle *h, unsigned int op, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4)
{
    return (int)call(h, op, a1, a2, a3, a4, 0);
}

int xencall5(xencall_handle *h, unsigned int op, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
             uint64_t a5)
{
    return (int)call(h, op, a1, a2, a3, a4, a5);
}

void *xencall_alloc_buffer_pages(xencall_handle *h, size_t nr_pages)
{
    void *p = mmap(NULL, nr_pages << SIM_PAGE_SHIFT, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)h;
    return p == MAP_FAILED ? NULL : p;
}

void xencall_free_buffer_pages(xencall_handle *h, void *p, size_t nr_pages)
{
    int saved = errno;

    (void)h;
    if (p) munmap(p, nr_pages << SIM_PAGE_SHIFT);
    errno = saved;
}

void *xencall_alloc_buffer(xencall_handle *h, size_t size)
{
    (void)h;
    return calloc(1, size ? size : 1);
}

void xencall_free_buffer(xencall_handle *h, void *p)
{
    int saved = errno;

    (void)h;
    free(p);
    errno = saved;
}

int xencall_buffers_never_fault(xencall_handle *h)
{
    (void)h;
    return 1;
}
