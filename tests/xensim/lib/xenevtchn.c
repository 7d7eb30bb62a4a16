/* SPDX-License-Identifier: LGPL-2.1-only */
/* libxenevtchn.so.1 on xensimd. Pending ports come through a pipe, which is also what a caller polls. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <xenevtchn.h>

#include "sim_link.h"

struct xenevtchn_handle {
    struct sim_link link;
    int ports;
};

xenevtchn_handle *xenevtchn_open(struct xentoollog_logger *logger, unsigned int flags)
{
    const struct sim_request req = {SIM_EVTCHN_OPEN, 0, {0}};
    xenevtchn_handle *h = calloc(1, sizeof(*h));

    (void)logger;
    if (!h) return NULL;
    if (sim_link_open(&h->link)) goto fail;
    if (sim_link_request(&h->link, &req, &h->ports, NULL) < 0) goto fail_link;
    if (flags & XENEVTCHN_NO_CLOEXEC) fcntl(h->ports, F_SETFD, 0);
    return h;
fail_link:
    sim_link_close(&h->link);
fail:
    free(h);
    return NULL;
}

xenevtchn_handle *xenevtchn_fdopen(struct xentoollog_logger *logger, int fd, unsigned flags)
{
    (void)logger;
    (void)fd;
    (void)flags;
    errno = EOPNOTSUPP;
    return NULL;
}

int xenevtchn_close(xenevtchn_handle *h)
{
    if (!h) return 0;
    close(h->ports);
    sim_link_close(&h->link);
    free(h);
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *h)
{
    return h->ports;
}

static int request(xenevtchn_handle *h, enum sim_kind kind, uint64_t a, uint64_t b)
{
    const struct sim_request req = {kind, 0, {a, b, 0, 0, 0, 0}};

    return (int)sim_link_request(&h->link, &req, NULL, NULL);
}

int xenevtchn_notify(xenevtchn_handle *h, evtchn_port_t port)
{
    return request(h, SIM_EVTCHN_NOTIFY, port, 0);
}

xenevtchn_port_or_error_t xenevtchn_bind_unbound_port(xenevtchn_handle *h, uint32_t domid)
{
    return request(h, SIM_EVTCHN_BIND, domid, UINT64_MAX);
}

xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *h, uint32_t domid,
                                                     evtchn_port_t remote_port)
{
    return request(h, SIM_EVTCHN_BIND, domid, remote_port);
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *h, unsigned int virq)
{
    return request(h, SIM_EVTCHN_VIRQ, virq, 0);
}

int xenevtchn_unbind(xenevtchn_handle *h, evtchn_port_t port)
{
    return request(h, SIM_EVTCHN_UNBIND, port, 0);
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *h)
{
    uint32_t port;
    ssize_t n = read(h->ports, &port, sizeof(port));

    if (n == (ssize_t)sizeof(port)) return (xenevtchn_port_or_error_t)port;
    if (n >= 0) errno = EIO;
    return -1;
}

int xenevtchn_unmask(xenevtchn_handle *h, evtchn_port_t port)
{
    return request(h, SIM_EVTCHN_UNMASK, port, 0);
}

int xenevtchn_restrict(xenevtchn_handle *h, domid_t domid)
{
    (void)h;
    (void)domid;
    errno = EOPNOTSUPP;
    return -1;
}
