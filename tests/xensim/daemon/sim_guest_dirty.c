/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the guest writes where: which page, and what of it. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "sim_guest.h"

#define WORDS (SIM_PAGE_SIZE / sizeof(uint64_t))

uint64_t sim_dirty_random(uint64_t *rng)
{
    uint64_t x = *rng += 0x9e3779b97f4a7c15ULL;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

/* Page k about 1/k as often as page 1. */
static uint64_t zipf(uint64_t random, uint64_t n)
{
    double u = (double)(random >> 11) / 9007199254740992.0;
    uint64_t k = (uint64_t)exp2(u * log2((double)n + 1));

    return k <= n ? (k ? k - 1 : 0) : n - 1;
}

static uint64_t choose(struct sim_guest_state *s)
{
    switch (s->choice) {
    case SIM_SEQUENTIAL:
        return s->next++ % s->pages;
    case SIM_ZIPF:
        return zipf(sim_dirty_random(&s->rng), s->pages);
    case SIM_UNIFORM:
    default:
        return sim_dirty_random(&s->rng) % s->pages;
    }
}

static void fill(struct sim_guest_state *s, uint64_t *page)
{
    unsigned int i;

    switch (s->fill) {
    case SIM_SAME:
        return;
    case SIM_ZERO:
        memset(page, 0, SIM_PAGE_SIZE);
        return;
    case SIM_SPARSE:
        page[0] = sim_dirty_random(&s->rng);
        for (i = 1; i < s->words; i++)
            page[1 + sim_dirty_random(&s->rng) % (WORDS - 1)] = sim_dirty_random(&s->rng);
        return;
    case SIM_FULL:
    default:
        for (i = 0; i < WORDS; i++)
            page[i] = sim_dirty_random(&s->rng);
        return;
    }
}

void sim_dirty_page(struct sim_domain *d, struct sim_guest_state *s)
{
    uint64_t gfn = sim_guest_gfn(SIM_SET_FIRST + choose(s), s->stride);
    uint64_t *page = sim_memory_page(&d->mem, gfn);

    s->writes++;
    if (!page) return; /* ballooned out */
    s->sum -= page[0];
    fill(s, page);
    s->sum += page[0];
    sim_memory_mark(&d->mem, gfn);
}
