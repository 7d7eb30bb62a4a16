/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim_frames.h"

struct sim_mapping {
    struct sim_mapping *next;
    void *addr;
    size_t count;
    int64_t id;
};

int sim_frames_open(struct sim_frames *f)
{
    f->fd = -1;
    f->instance = 0;
    memset(f->mappings, 0, sizeof(f->mappings));
    pthread_mutex_init(&f->lock, NULL);
    return sim_link_open(&f->link);
}

static struct sim_mapping **bucket(struct sim_frames *f, const void *addr)
{
    uintptr_t page = (uintptr_t)addr >> SIM_PAGE_SHIFT;

    return &f->mappings[(page ^ page >> 9) % SIM_MAPPING_BUCKETS];
}

void sim_frames_close(struct sim_frames *f)
{
    struct sim_mapping *m;
    unsigned int i;

    for (i = 0; i < SIM_MAPPING_BUCKETS; i++)
        while ((m = f->mappings[i])) {
            f->mappings[i] = m->next;
            free(m);
        }
    if (f->fd >= 0) close(f->fd);
    pthread_mutex_destroy(&f->lock);
    sim_link_close(&f->link);
}

/* The memory of this instance of the domain, in f->fd. */
static int take_memory(struct sim_frames *f, uint32_t domid, uint32_t instance)
{
    const struct sim_request req = {SIM_MEMORY, 0, {domid, instance, 0, 0, 0, 0}};
    int fd;

    if (f->fd >= 0 && f->domid == domid && f->instance == instance) return 0;
    if (f->fd >= 0) close(f->fd);
    f->instance = 0;
    f->fd = -1;
    if (sim_link_request(&f->link, &req, &fd, NULL) < 0) return -1;
    f->fd = fd;
    f->domid = domid;
    f->instance = instance;
    return 0;
}

static int map_run(int fd, char *at, int prot, uint32_t first, size_t count)
{
    void *p = mmap(at, count << SIM_PAGE_SHIFT, prot, MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd,
                   (off_t)first << SIM_PAGE_SHIFT);

    return p == MAP_FAILED ? -1 : 0;
}

static void *map_frames(int fd, void *addr, int prot, size_t count, const uint32_t *frames)
{
    size_t i, end;
    char *base = mmap(addr, count << SIM_PAGE_SHIFT, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (addr ? MAP_FIXED : 0), -1, 0);

    if (base == MAP_FAILED) return NULL;
    for (i = 0; i < count; i = end) {
        end = i + 1;
        if (frames[i] == SIM_NO_FRAME) continue;
        while (end < count && frames[end] == frames[i] + (end - i))
            end++;
        if (map_run(fd, base + (i << SIM_PAGE_SHIFT), prot, frames[i], end - i)) {
            int saved = errno;

            munmap(base, count << SIM_PAGE_SHIFT);
            errno = saved;
            return NULL;
        }
    }
    return base;
}

static void forget(struct sim_frames *f, int64_t id)
{
    const struct sim_request req = {SIM_UNMAP, 0, {(uint64_t)id, 0, 0, 0, 0, 0}};
    int saved = errno;

    sim_link_request(&f->link, &req, NULL, NULL);
    errno = saved;
}

void *sim_frames_map(struct sim_frames *f, const struct sim_request *req, uint32_t domid,
                     void *addr, int prot, size_t count, const uint32_t *frames)
{
    struct sim_mapping *m = calloc(1, sizeof(*m));
    uint32_t instance = 0;
    int64_t id;

    if (!m) return NULL;
    id = sim_link_request(&f->link, req, NULL, &instance);
    if (id < 0) goto fail;
    pthread_mutex_lock(&f->lock);
    if (!take_memory(f, domid, instance)) m->addr = map_frames(f->fd, addr, prot, count, frames);
    if (m->addr) {
        m->count = count;
        m->id = id;
        m->next = *bucket(f, m->addr);
        *bucket(f, m->addr) = m;
    }
    pthread_mutex_unlock(&f->lock);
    if (m->addr) return m->addr;
    forget(f, id);
fail:
    free(m);
    return NULL;
}

int sim_frames_unmap(struct sim_frames *f, void *addr, size_t count)
{
    struct sim_mapping **at, *m;

    pthread_mutex_lock(&f->lock);
    for (at = bucket(f, addr); *at && (*at)->addr != addr; at = &(*at)->next)
        ;
    m = *at;
    if (m && m->count == count) *at = m->next;
    pthread_mutex_unlock(&f->lock);
    /* Every user of these libraries unmaps what it mapped, whole. */
    if (!m || m->count != count) {
        errno = EINVAL;
        return -1;
    }
    munmap(addr, count << SIM_PAGE_SHIFT);
    forget(f, m->id);
    free(m);
    return 0;
}
