/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <xen/grant_table.h>
#include <xen/memory.h>

#include "sim_caller.h"
#include "sim_evtchn.h"

#define MAP_MAX (1UL << 20) /* pages in one mapping */

static void read_comm(struct sim_caller *c)
{
    char path[64];
    ssize_t n = 0;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)c->pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, c->comm, sizeof(c->comm) - 1);
        close(fd);
    }
    c->comm[n > 0 ? n : 0] = 0;
    c->comm[strcspn(c->comm, "\n")] = 0;
}

void sim_caller_init(struct sim_caller *c, int fd)
{
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);

    memset(c, 0, sizeof(*c));
    c->fd = fd;
    c->port_pipe[0] = c->port_pipe[1] = -1;
    if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len)) c->pid = cred.pid;
    read_comm(c);
}

static void drop(struct sim_mapped *m)
{
    uint64_t i;

    pthread_mutex_lock(&m->domain->lock);
    for (i = 0; i < m->count; i++)
        if (m->frames[i] != SIM_NO_FRAME) sim_memory_unmap(&m->domain->mem, m->frames[i]);
    pthread_mutex_unlock(&m->domain->lock);
    sim_domain_put(m->domain);
    free(m);
}

void sim_caller_dispose(struct sim_caller *c)
{
    struct sim_mapped *m;
    unsigned int i;

    for (i = 0; i < SIM_BUCKETS; i++)
        while ((m = c->mapped[i])) {
            c->mapped[i] = m->next;
            drop(m);
        }
    sim_evtchn_caller_gone(c);
    if (c->port_pipe[0] >= 0) close(c->port_pipe[0]);
    if (c->port_pipe[1] >= 0) close(c->port_pipe[1]);
    close(c->fd);
}

int sim_copy_in(const struct sim_caller *c, void *to, uint64_t from, size_t len)
{
    struct iovec here = {to, len}, there = {(void *)(uintptr_t)from, len};

    if (!len) return 0;
    return process_vm_readv(c->pid, &here, 1, &there, 1, 0) == (ssize_t)len ? 0 : EFAULT;
}

int sim_copy_out(struct sim_caller *c, uint64_t to, const void *from, size_t len)
{
    struct iovec here = {(void *)(uintptr_t)from, len}, there = {(void *)(uintptr_t)to, len};

    if (!len) return 0;
    if (process_vm_writev(c->pid, &here, 1, &there, 1, 0) != (ssize_t)len) return EFAULT;
    if (c->corrupt) {
        uint64_t at = c->corrupt % len;
        uint8_t byte = ((const uint8_t *)from)[at] ^ 1;

        c->corrupt = 0;
        return sim_copy_out(c, to + at, &byte, 1);
    }
    return 0;
}

static struct sim_mapped **bucket(struct sim_caller *c, int64_t id)
{
    return &c->mapped[(uint64_t)id % SIM_BUCKETS];
}

/* The caller's mapping of m's frames, with a reference of the domain taken. */
static int64_t keep(struct sim_caller *c, struct sim_mapped *m, uint64_t frames_at)
{
    uint64_t i;

    if (sim_copy_out(c, frames_at, m->frames, m->count * sizeof(m->frames[0]))) return -EFAULT;
    for (i = 0; i < m->count; i++)
        if (m->frames[i] != SIM_NO_FRAME) sim_memory_map(&m->domain->mem, m->frames[i]);
    m->id = ++c->last_id;
    m->next = *bucket(c, m->id);
    *bucket(c, m->id) = m;
    return m->id;
}

static int64_t begin(uint32_t domid, uint64_t count, struct sim_mapped **out, uint32_t *instance)
{
    struct sim_mapped *m;
    struct sim_domain *d;

    if (!count || count > MAP_MAX) return -EINVAL;
    d = sim_domain_get(domid);
    if (!d) return -ESRCH;
    m = calloc(1, sizeof(*m) + count * sizeof(m->frames[0]));
    if (!m) {
        sim_domain_put(d);
        return -ENOMEM;
    }
    m->domain = d;
    m->count = count;
    *instance = d->instance;
    *out = m;
    return 0;
}

static int64_t finish(struct sim_mapped *m, int64_t rc)
{
    if (rc < 0) {
        sim_domain_put(m->domain);
        free(m);
    }
    return rc;
}

static int64_t map_gfns(struct sim_caller *c, struct sim_mapped *m, const uint64_t *gfns, int *errs,
                        const uint64_t *args)
{
    int64_t rc = -ESRCH;
    uint64_t i;

    pthread_mutex_lock(&m->domain->lock);
    if (!m->domain->dying) {
        for (i = 0; i < m->count; i++) {
            m->frames[i] = sim_memory_frame(&m->domain->mem, gfns[i]);
            errs[i] = m->frames[i] == SIM_NO_FRAME ? -EINVAL : 0;
        }
        rc = -sim_copy_out(c, args[4], errs, m->count * sizeof(*errs));
        if (!rc) rc = keep(c, m, args[5]);
    }
    pthread_mutex_unlock(&m->domain->lock);
    return rc;
}

int64_t sim_caller_map(struct sim_caller *c, const uint64_t *args, uint32_t *instance)
{
    struct sim_mapped *m;
    uint64_t *gfns;
    int64_t rc = begin((uint32_t)args[0], args[2], &m, instance);
    int *errs;

    if (rc) return rc;
    gfns = calloc(m->count, sizeof(*gfns));
    errs = calloc(m->count, sizeof(*errs));
    rc = -ENOMEM;
    if (gfns && errs) rc = -sim_copy_in(c, gfns, args[3], m->count * sizeof(*gfns));
    if (!rc) rc = map_gfns(c, m, gfns, errs, args);
    free(gfns);
    free(errs);
    return finish(m, rc);
}

int64_t sim_caller_resource(struct sim_caller *c, const uint64_t *args, uint32_t *instance)
{
    struct sim_mapped *m;
    int64_t rc;
    uint64_t i;

    if (args[1] != XENMEM_resource_grant_table || args[2] != XENMEM_resource_grant_table_id_shared)
        return -EOPNOTSUPP;
    if (args[3] >= SIM_GRANT_FRAMES || args[4] > SIM_GRANT_FRAMES - args[3]) return -EINVAL;
    rc = begin((uint32_t)args[0], args[4], &m, instance);
    if (rc) return rc;
    pthread_mutex_lock(&m->domain->lock);
    for (i = 0; i < m->count; i++)
        m->frames[i] = (uint32_t)(SIM_GRANT_FIRST + args[3] + i);
    rc = m->domain->dying ? -ESRCH : keep(c, m, args[5]);
    pthread_mutex_unlock(&m->domain->lock);
    return finish(m, rc);
}

int64_t sim_caller_resource_size(struct sim_caller *c, const uint64_t *args)
{
    (void)c;
    return args[1] == XENMEM_resource_grant_table ? (int64_t)SIM_GRANT_FRAMES : -EOPNOTSUPP;
}

/* The frame that entry `ref` of the grant table gives to domain 0. */
static int64_t granted_frame(const struct sim_domain *d, uint32_t ref, uint32_t *frame)
{
    const grant_entry_v1_t *table =
        (const void *)(d->mem.base + (SIM_GRANT_FIRST << SIM_PAGE_SHIFT));

    if (ref >= (SIM_GRANT_FRAMES << SIM_PAGE_SHIFT) / sizeof(*table)) return -EINVAL;
    if ((table[ref].flags & GTF_type_mask) != GTF_permit_access || table[ref].domid) return -EPERM;
    *frame = sim_memory_frame(&d->mem, table[ref].frame);
    return *frame == SIM_NO_FRAME ? -EINVAL : 0;
}

int64_t sim_caller_grant(struct sim_caller *c, const uint64_t *args, uint32_t *instance)
{
    struct sim_mapped *m;
    int64_t rc = begin((uint32_t)args[0], args[1], &m, instance);
    uint64_t i;

    if (rc) return rc;
    pthread_mutex_lock(&m->domain->lock);
    for (i = 0; i < m->count && !rc; i++) {
        uint32_t ref;

        rc = -sim_copy_in(c, &ref, args[2] + i * sizeof(ref), sizeof(ref));
        if (!rc) rc = granted_frame(m->domain, ref, &m->frames[i]);
    }
    if (!rc) rc = m->domain->dying ? -ESRCH : keep(c, m, args[4]);
    pthread_mutex_unlock(&m->domain->lock);
    return finish(m, rc);
}

int64_t sim_caller_unmap(struct sim_caller *c, int64_t id)
{
    struct sim_mapped **at, *m;

    for (at = bucket(c, id); *at && (*at)->id != id; at = &(*at)->next)
        ;
    m = *at;
    if (!m) return -EINVAL;
    *at = m->next;
    drop(m);
    return 0;
}

int64_t sim_caller_memory(struct sim_caller *c, const uint64_t *args, int *fd)
{
    const struct sim_mapped *m;
    unsigned int i;

    /* Only whose pages it maps already, and the very instance that it maps. */
    for (i = 0; i < SIM_BUCKETS; i++)
        for (m = c->mapped[i]; m; m = m->next)
            if (m->domain->domid == args[0] && m->domain->instance == args[1]) {
                *fd = m->domain->mem.fd;
                return 0;
            }
    return -ESRCH;
}
