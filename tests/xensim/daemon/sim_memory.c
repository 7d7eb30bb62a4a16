/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "sim_memory.h"

#define GIVEN_BACK 0x80000000U
#define LOG_BYTES (SIM_GFNS / 8)

/* Address space that becomes memory where it is touched. */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static void release(void *p, size_t bytes)
{
    if (p) munmap(p, bytes);
}

int sim_memory_init(struct sim_memory *m, const char *name)
{
    int rc;

    memset(m, 0, sizeof(*m));
    m->fd = memfd_create(name, MFD_CLOEXEC);
    if (m->fd < 0) return errno;
    if (ftruncate(m->fd, (off_t)(SIM_FRAMES << SIM_PAGE_SHIFT))) goto fail;
    m->base = mmap(NULL, SIM_FRAMES << SIM_PAGE_SHIFT, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE, m->fd, 0);
    if (m->base == MAP_FAILED) {
        m->base = NULL;
        goto fail;
    }
    m->p2m = reserve(SIM_GFNS * sizeof(*m->p2m));
    m->maps = reserve(SIM_FRAMES * sizeof(*m->maps));
    m->spare = reserve(SIM_SPARE * sizeof(*m->spare));
    m->dirty = reserve(LOG_BYTES);
    m->fresh = reserve(LOG_BYTES);
    if (m->p2m && m->maps && m->spare && m->dirty && m->fresh) return 0;
fail:
    rc = errno ? errno : ENOMEM;
    sim_memory_dispose(m);
    return rc;
}

void sim_memory_dispose(struct sim_memory *m)
{
    if (m->base) munmap(m->base, SIM_FRAMES << SIM_PAGE_SHIFT);
    release(m->p2m, SIM_GFNS * sizeof(*m->p2m));
    release(m->maps, SIM_FRAMES * sizeof(*m->maps));
    release(m->spare, SIM_SPARE * sizeof(*m->spare));
    release(m->dirty, LOG_BYTES);
    release(m->fresh, LOG_BYTES);
    if (m->fd >= 0) close(m->fd);
    memset(m, 0, sizeof(*m));
    m->fd = -1;
}

static uint32_t new_frame(struct sim_memory *m, uint64_t gfn)
{
    if (!m->maps[gfn]) return (uint32_t)gfn;
    if (m->spares) return m->spare[--m->spares];
    return m->spare_next < SIM_SPARE ? (uint32_t)(SIM_GFNS + m->spare_next++) : SIM_NO_FRAME;
}

int sim_memory_populate(struct sim_memory *m, uint64_t gfn)
{
    uint32_t frame;

    if (gfn >= SIM_GFNS) return EINVAL;
    if (m->p2m[gfn]) return EEXIST;
    if (m->tot_pages >= m->max_pages) return ENOMEM;
    frame = new_frame(m, gfn);
    if (frame == SIM_NO_FRAME) return ENOMEM;
    m->p2m[gfn] = frame + 1;
    m->tot_pages++;
    if (gfn >= m->gfn_end) m->gfn_end = gfn + 1;
    if (m->log) m->fresh[gfn / 64] |= 1UL << (gfn % 64);
    return 0;
}

/* Nobody has it any more: its next user finds zeroes. */
static void free_frame(struct sim_memory *m, uint32_t frame)
{
    m->maps[frame] = 0;
    m->tot_pages--;
    fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)frame << SIM_PAGE_SHIFT,
              (off_t)SIM_PAGE_SIZE);
    if (frame >= SIM_GFNS) m->spare[m->spares++] = frame;
}

bool sim_memory_remove(struct sim_memory *m, uint64_t gfn)
{
    uint32_t frame = sim_memory_frame(m, gfn);

    if (frame == SIM_NO_FRAME) return false;
    m->p2m[gfn] = 0;
    m->fresh[gfn / 64] &= ~(1UL << (gfn % 64));
    if (m->maps[frame])
        m->maps[frame] |= GIVEN_BACK;
    else
        free_frame(m, frame);
    return true;
}

void sim_memory_remove_all(struct sim_memory *m)
{
    uint64_t gfn;

    for (gfn = 0; gfn < m->gfn_end; gfn++)
        if (m->p2m[gfn]) sim_memory_remove(m, gfn);
}

uint32_t sim_memory_frame(const struct sim_memory *m, uint64_t gfn)
{
    return gfn < m->gfn_end && m->p2m[gfn] ? m->p2m[gfn] - 1 : SIM_NO_FRAME;
}

void *sim_memory_page(const struct sim_memory *m, uint64_t gfn)
{
    uint32_t frame = sim_memory_frame(m, gfn);

    return frame == SIM_NO_FRAME ? NULL : m->base + ((size_t)frame << SIM_PAGE_SHIFT);
}

void sim_memory_map(struct sim_memory *m, uint32_t frame)
{
    m->maps[frame]++;
    m->mapped++;
}

void sim_memory_unmap(struct sim_memory *m, uint32_t frame)
{
    m->maps[frame]--;
    m->mapped--;
    if (m->maps[frame] == GIVEN_BACK) free_frame(m, frame);
}

void sim_memory_mark(struct sim_memory *m, uint64_t gfn)
{
    uint64_t bit = 1UL << (gfn % 64);

    if (!m->log || gfn >= SIM_GFNS || (m->fresh[gfn / 64] & bit)) return;
    if (!(m->dirty[gfn / 64] & bit)) m->dirty_count++;
    m->dirty[gfn / 64] |= bit;
}

void sim_memory_log_clean(struct sim_memory *m)
{
    size_t bytes = (m->gfn_end + 63) / 64 * 8;

    memset(m->dirty, 0, bytes);
    memset(m->fresh, 0, bytes);
    m->dirty_count = 0;
}

int sim_memory_log_on(struct sim_memory *m)
{
    if (m->log) return EINVAL;
    sim_memory_log_clean(m);
    m->log = true;
    return 0;
}

void sim_memory_log_off(struct sim_memory *m)
{
    m->log = false;
    sim_memory_log_clean(m);
}
