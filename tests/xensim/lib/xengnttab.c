/* SPDX-License-Identifier: LGPL-2.1-only */
/* libxengnttab.so.1 on xensimd: mapping of granted pages. Nobody here grants pages of his own or copies by grant. */
#include <errno.h>
#include <stdlib.h>

#include <xengnttab.h>

#include "sim_frames.h"

struct xengntdev_handle {
    struct sim_frames frames;
};

xengnttab_handle *xengnttab_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    xengnttab_handle *h = calloc(1, sizeof(*h));

    (void)logger;
    (void)open_flags;
    if (!h) return NULL;
    if (!sim_frames_open(&h->frames)) return h;
    free(h);
    return NULL;
}

int xengnttab_close(xengnttab_handle *h)
{
    if (!h) return 0;
    sim_frames_close(&h->frames);
    free(h);
    return 0;
}

int xengnttab_fd(xengnttab_handle *h)
{
    return h->frames.link.fd;
}

int xengnttab_set_max_grants(xengnttab_handle *h, uint32_t nr_grants)
{
    (void)h;
    (void)nr_grants;
    return 0;
}

void *xengnttab_map_domain_grant_refs(xengnttab_handle *h, uint32_t count, uint32_t domid,
                                      uint32_t *refs, int prot)
{
    uint32_t *frames = calloc((size_t)count + 1, sizeof(*frames));
    void *p = NULL;

    if (frames) {
        const struct sim_request req = {
            SIM_GRANT, 0, {domid, count, (uintptr_t)refs, (uint64_t)prot, (uintptr_t)frames, 0}};

        p = sim_frames_map(&h->frames, &req, domid, NULL, prot, count, frames);
    }
    free(frames);
    return p;
}

void *xengnttab_map_grant_ref(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot)
{
    return xengnttab_map_domain_grant_refs(h, 1, domid, &ref, prot);
}

int xengnttab_unmap(xengnttab_handle *h, void *start, uint32_t count)
{
    return sim_frames_unmap(&h->frames, start, count);
}

static void *no_map(void)
{
    errno = EOPNOTSUPP;
    return NULL;
}

static int no(void)
{
    errno = EOPNOTSUPP;
    return -1;
}

void *xengnttab_map_grant_refs(xengnttab_handle *h, uint32_t count, uint32_t *domids,
                               uint32_t *refs, int prot)
{
    uint32_t i;

    for (i = 1; i < count; i++)
        if (domids[i] != domids[0]) return no_map();
    return count ? xengnttab_map_domain_grant_refs(h, count, domids[0], refs, prot) : no_map();
}

void *xengnttab_map_grant_ref_notify(xengnttab_handle *h, uint32_t domid, uint32_t ref, int prot,
                                     uint32_t notify_offset, evtchn_port_t notify_port)
{
    if (notify_offset != UINT32_MAX || notify_port != UINT32_MAX) return no_map();
    return xengnttab_map_grant_ref(h, domid, ref, prot);
}

int xengnttab_grant_copy(xengnttab_handle *h, uint32_t count, xengnttab_grant_copy_segment_t *segs)
{
    return no();
}

int xengnttab_dmabuf_exp_from_refs(xengnttab_handle *h, uint32_t domid, uint32_t flags,
                                   uint32_t count, const uint32_t *refs, uint32_t *dmabuf_fd)
{
    return no();
}

int xengnttab_dmabuf_exp_wait_released(xengnttab_handle *h, uint32_t fd, uint32_t wait_to_ms)
{
    return no();
}

int xengnttab_dmabuf_imp_to_refs(xengnttab_handle *h, uint32_t domid, uint32_t fd, uint32_t count,
                                 uint32_t *refs)
{
    return no();
}

int xengnttab_dmabuf_imp_release(xengnttab_handle *h, uint32_t fd)
{
    return no();
}

xengntshr_handle *xengntshr_open(struct xentoollog_logger *logger, unsigned open_flags)
{
    return no_map();
}

int xengntshr_close(xengntshr_handle *h)
{
    return 0;
}

int xengntshr_fd(xengntshr_handle *h)
{
    return no();
}

void *xengntshr_share_pages(xengntshr_handle *h, uint32_t domid, int count, uint32_t *refs,
                            int writable)
{
    return no_map();
}

void *xengntshr_share_page_notify(xengntshr_handle *h, uint32_t domid, uint32_t *ref, int writable,
                                  uint32_t notify_offset, evtchn_port_t notify_port)
{
    return no_map();
}

int xengntshr_unshare(xengntshr_handle *h, void *start, uint32_t count)
{
    return no();
}
