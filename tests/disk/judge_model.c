/* SPDX-License-Identifier: LGPL-2.1-only */
#include "judge_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNKNOWN UINT32_MAX

static uint64_t mix(uint64_t x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    x ^= x >> 29;
    return x * 0xbf58476d1ce4e5b9ull;
}

void model_fill(uint8_t *buf, uint32_t id, uint32_t first, uint32_t count)
{
    uint64_t words[SECTOR / 8];

    for (uint32_t s = 0; s < count; s++) {
        words[0] = id;
        for (unsigned i = 1; i < SECTOR / 8; i++)
            words[i] = id ? mix((uint64_t)id << 32 | (first + s)) + i : 0;
        memcpy(buf + (size_t)s * SECTOR, words, SECTOR);
    }
}

/* The number of the write that a sector comes from. */
static uint32_t identify(const uint8_t *sector, uint32_t s)
{
    uint8_t should[SECTOR];
    uint64_t id;

    memcpy(&id, sector, 8);
    if (id >= UNKNOWN) return UNKNOWN;
    model_fill(should, (uint32_t)id, s, 1);
    return memcmp(should, sector, SECTOR) ? UNKNOWN : (uint32_t)id;
}

unsigned model_begin(struct judge_model *m, uint32_t first, uint32_t count, bool zero)
{
    if (m->count == LOG_MAX) {
        fprintf(stderr, "judge: the log is full\n");
        abort();
    }
    m->last_id++;
    m->log[m->count] = (struct logged){
        .first = first, .count = count, .id = zero ? 0 : m->last_id, .begun = ++m->time};
    return m->count++;
}

void model_end(struct judge_model *m, unsigned index, bool ok)
{
    m->log[index].failed = !ok;
    if (ok) m->log[index].ended = ++m->time;
}

static bool covers(const struct logged *w, uint32_t s)
{
    return s >= w->first && s - w->first < w->count;
}

/* Whether something that ended before `before` began after `than` and wrote the sector. */
static bool overwritten(const struct judge_model *m, uint32_t s, uint64_t than, uint64_t before)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct logged *w = &m->log[i];
        if (covers(w, s) && w->ended && w->ended <= before && w->begun > than) return true;
    }
    return false;
}

static bool allowed(const struct judge_model *m, uint32_t s, uint32_t id, uint64_t before,
                    uint64_t after)
{
    if (id == m->now[s] && !overwritten(m, s, 0, before)) return true;
    for (unsigned i = 0; i < m->count; i++) {
        const struct logged *w = &m->log[i];
        if (!covers(w, s) || w->id != id || w->begun > after) continue;
        if (!w->ended || !overwritten(m, s, w->ended, before)) return true;
    }
    return false;
}

unsigned model_check(const struct judge_model *m, int fd, uint64_t before, uint64_t after,
                     const char *what)
{
    static uint8_t image[DISK_BYTES];
    static uint8_t touched[SECTORS];
    unsigned wrong = 0;

    if (pread(fd, image, DISK_BYTES, 0) != (ssize_t)DISK_BYTES) {
        fprintf(stderr, "judge: %s: cannot be read\n", what);
        return 1;
    }
    memset(touched, 0, sizeof(touched));
    for (unsigned i = 0; i < m->count; i++)
        memset(touched + m->log[i].first, 1, m->log[i].count);
    for (uint32_t s = 0; s < SECTORS; s++) {
        uint32_t id = identify(image + (size_t)s * SECTOR, s);
        if (touched[s] ? allowed(m, s, id, before, after) : id == m->now[s]) continue;
        if (!wrong++)
            fprintf(stderr, "judge: %s: sector %u holds write %u, before the log it was %u\n", what,
                    s, id, m->now[s]);
    }
    return wrong;
}

void model_adopt(struct judge_model *m, int fd)
{
    static uint8_t image[DISK_BYTES];

    if (pread(fd, image, DISK_BYTES, 0) != (ssize_t)DISK_BYTES) abort();
    for (uint32_t s = 0; s < SECTORS; s++)
        m->now[s] = identify(image + (size_t)s * SECTOR, s);
    m->count = 0;
}
