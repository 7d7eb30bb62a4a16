/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include <xen/event_channel.h>

#include "sim_caller.h"
#include "sim_evtchn.h"

#define PORTS 1024

enum port_state { PORT_FREE, PORT_UNBOUND, PORT_INTERDOMAIN, PORT_VIRQ };

/* A port's number is its index + 1; no two domains have one in common. */
struct port {
    enum port_state state;
    uint32_t domid; /* whose */
    uint32_t remote_domid, remote_port, virq;
    struct sim_caller *caller; /* hears it; NULL = a guest */
    bool masked, pending;
};

static struct port ports[PORTS];

static struct port *port_of(uint64_t number)
{
    if (!number || number > PORTS || ports[number - 1].state == PORT_FREE) return NULL;
    return &ports[number - 1];
}

static struct port *callers_port(const struct sim_caller *c, uint64_t number)
{
    struct port *p = port_of(number);

    return p && p->caller == c ? p : NULL;
}

static int64_t new_port(enum port_state state, uint32_t domid, struct sim_caller *caller)
{
    unsigned int i;

    for (i = 0; i < PORTS && ports[i].state != PORT_FREE; i++)
        ;
    if (i == PORTS) return -ENOSPC;
    memset(&ports[i], 0, sizeof(ports[i]));
    ports[i].state = state;
    ports[i].domid = domid;
    ports[i].caller = caller;
    return i + 1;
}

void sim_evtchn_init(void)
{
    new_port(PORT_UNBOUND, 0, NULL); /* the first is SIM_XENSTORE_PORT */
}

/* The pipe holds every port once at most: what is in it is masked. */
static void deliver(struct port *p)
{
    uint32_t number = (uint32_t)(p - ports) + 1;

    if (!p->caller) return;
    if (p->masked) {
        p->pending = true;
        return;
    }
    p->masked = true;
    p->pending = write(p->caller->port_pipe[1], &number, sizeof(number)) != sizeof(number);
}

static void free_port(struct port *p)
{
    struct port *remote = p->state == PORT_INTERDOMAIN ? port_of(p->remote_port) : NULL;

    if (remote && remote->state == PORT_INTERDOMAIN) {
        remote->state = PORT_UNBOUND;
        remote->remote_domid = p->domid;
    }
    memset(p, 0, sizeof(*p));
}

int64_t sim_evtchn_open(struct sim_caller *c, int *fd)
{
    if (c->port_pipe[0] >= 0) return -EBUSY;
    if (pipe2(c->port_pipe, O_CLOEXEC | O_NONBLOCK)) return -errno;
    fcntl(c->port_pipe[0], F_SETFL, 0); /* a reader without data waits, as in the kernel */
    *fd = c->port_pipe[0];
    return 0;
}

int64_t sim_evtchn_notify(struct sim_caller *c, uint64_t port)
{
    struct port *p, *remote;
    int64_t rc = -EINVAL;

    pthread_mutex_lock(&sim_lock);
    p = callers_port(c, port);
    if (p) {
        remote = p->state == PORT_INTERDOMAIN ? port_of(p->remote_port) : NULL;
        if (remote) deliver(remote);
        rc = 0;
    }
    pthread_mutex_unlock(&sim_lock);
    return rc;
}

static int64_t bind_remote(struct sim_caller *c, uint32_t domid, uint64_t remote_port)
{
    struct port *remote = port_of(remote_port);
    int64_t number;

    if (!remote || remote->domid != domid || remote->state != PORT_UNBOUND || remote->remote_domid)
        return -EINVAL;
    number = new_port(PORT_INTERDOMAIN, 0, c);
    if (number <= 0) return number;
    ports[number - 1].remote_domid = domid;
    ports[number - 1].remote_port = (uint32_t)remote_port;
    remote->state = PORT_INTERDOMAIN;
    remote->remote_port = (uint32_t)number;
    return number;
}

int64_t sim_evtchn_bind(struct sim_caller *c, uint32_t domid, uint64_t remote_port)
{
    int64_t number;

    if (c->port_pipe[0] < 0) return -EINVAL;
    pthread_mutex_lock(&sim_lock);
    if (remote_port != UINT64_MAX) {
        number = bind_remote(c, domid, remote_port);
    } else {
        number = new_port(PORT_UNBOUND, 0, c);
        if (number > 0) ports[number - 1].remote_domid = domid;
    }
    pthread_mutex_unlock(&sim_lock);
    return number;
}

int64_t sim_evtchn_bind_virq(struct sim_caller *c, uint64_t virq)
{
    int64_t number;

    if (c->port_pipe[0] < 0 || virq > UINT32_MAX) return -EINVAL;
    pthread_mutex_lock(&sim_lock);
    number = new_port(PORT_VIRQ, 0, c);
    if (number > 0) ports[number - 1].virq = (uint32_t)virq;
    pthread_mutex_unlock(&sim_lock);
    return number;
}

int64_t sim_evtchn_unbind(struct sim_caller *c, uint64_t port)
{
    struct port *p;

    pthread_mutex_lock(&sim_lock);
    p = callers_port(c, port);
    if (p) free_port(p);
    pthread_mutex_unlock(&sim_lock);
    return p ? 0 : -EINVAL;
}

int64_t sim_evtchn_unmask(struct sim_caller *c, uint64_t port)
{
    struct port *p;

    pthread_mutex_lock(&sim_lock);
    p = callers_port(c, port);
    if (p) {
        p->masked = false;
        if (p->pending) deliver(p);
    }
    pthread_mutex_unlock(&sim_lock);
    return p ? 0 : -EINVAL;
}

void sim_evtchn_virq(uint32_t virq)
{
    unsigned int i;

    pthread_mutex_lock(&sim_lock);
    for (i = 0; i < PORTS; i++)
        if (ports[i].state == PORT_VIRQ && ports[i].virq == virq) deliver(&ports[i]);
    pthread_mutex_unlock(&sim_lock);
}

void sim_evtchn_caller_gone(struct sim_caller *c)
{
    unsigned int i;

    pthread_mutex_lock(&sim_lock);
    for (i = 0; i < PORTS; i++)
        if (ports[i].state != PORT_FREE && ports[i].caller == c) free_port(&ports[i]);
    pthread_mutex_unlock(&sim_lock);
}

void sim_evtchn_domain_gone(uint32_t domid)
{
    unsigned int i;

    pthread_mutex_lock(&sim_lock);
    for (i = 0; i < PORTS; i++)
        if (ports[i].state != PORT_FREE && ports[i].domid == domid) free_port(&ports[i]);
    pthread_mutex_unlock(&sim_lock);
}

static int64_t op_alloc_unbound(struct sim_caller *c, uint64_t arg)
{
    struct evtchn_alloc_unbound a = {0};
    int64_t number;

    if (sim_copy_in(c, &a, arg, sizeof(a))) return -EFAULT;
    if (a.dom == DOMID_SELF) a.dom = 0;
    pthread_mutex_lock(&sim_lock);
    number = new_port(PORT_UNBOUND, a.dom, NULL);
    if (number > 0) ports[number - 1].remote_domid = a.remote_dom;
    pthread_mutex_unlock(&sim_lock);
    if (number < 0) return number;
    a.port = (evtchn_port_t)number;
    return -sim_copy_out(c, arg, &a, sizeof(a));
}

static void fill_status(const struct port *p, struct evtchn_status *a)
{
    a->vcpu = 0;
    a->status = EVTCHNSTAT_closed;
    if (!p) return;
    if (p->state == PORT_UNBOUND) {
        a->status = EVTCHNSTAT_unbound;
        a->u.unbound.dom = (domid_t)p->remote_domid;
    } else if (p->state == PORT_INTERDOMAIN) {
        a->status = EVTCHNSTAT_interdomain;
        a->u.interdomain.dom = (domid_t)p->remote_domid;
        a->u.interdomain.port = p->remote_port;
    } else {
        a->status = EVTCHNSTAT_virq;
        a->u.virq = p->virq;
    }
}

static int64_t op_status(struct sim_caller *c, uint64_t arg)
{
    struct evtchn_status a = {0};
    struct port *p;

    if (sim_copy_in(c, &a, arg, sizeof(a))) return -EFAULT;
    pthread_mutex_lock(&sim_lock);
    p = port_of(a.port);
    fill_status(p && p->domid == a.dom ? p : NULL, &a);
    pthread_mutex_unlock(&sim_lock);
    return -sim_copy_out(c, arg, &a, sizeof(a));
}

static int64_t op_reset(struct sim_caller *c, uint64_t arg)
{
    struct evtchn_reset a = {0};

    if (sim_copy_in(c, &a, arg, sizeof(a))) return -EFAULT;
    if (!a.dom || a.dom == DOMID_SELF) return -EPERM;
    sim_evtchn_domain_gone(a.dom);
    return 0;
}

int64_t sim_evtchn_op(struct sim_caller *c, uint64_t op, uint64_t arg)
{
    switch (op) {
    case EVTCHNOP_alloc_unbound:
        return op_alloc_unbound(c, arg);
    case EVTCHNOP_status:
        return op_status(c, arg);
    case EVTCHNOP_reset:
        return op_reset(c, arg);
    default:
        return -ENOSYS;
    }
}
