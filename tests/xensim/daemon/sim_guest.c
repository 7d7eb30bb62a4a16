/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <xen/sched.h>

#include "sim_evtchn.h"
#include "sim_guest.h"

#define IDLE_MS 5     /* how soon a domain that is let run again gets its turn, at the latest */
#define BEHIND_MAX 20 /* ms of work that are made up for; more is forgotten, as by a loaded host */

struct sim_guest {
    pthread_t thread;
    bool started;
    atomic_bool stop;
    int wake_fd;
    struct sim_kv *kv;
    /* under d->lock */
    bool manual;
    uint64_t credit; /* ticks that manual time still grants */
    int asked;       /* shutdown code, -1 = not asked */
    atomic_uint_fast64_t time_ms;
    uint64_t last_ms;
};

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

uint64_t sim_guest_gfn(uint64_t index, uint64_t stride)
{
    uint64_t gfn = index / SIM_CHUNK * SIM_CHUNK * stride + index % SIM_CHUNK;

    return gfn < SIM_HOLE_GFN ? gfn : gfn + SIM_HOLE_GFNS;
}

struct sim_guest_state *sim_guest_state(const struct sim_domain *d)
{
    struct sim_guest_state *s;

    if (d->cpu.rip != SIM_GUEST_RIP || d->cpu.rbx % SIM_PAGE_SIZE) return NULL;
    s = sim_memory_page(&d->mem, d->cpu.rbx >> SIM_PAGE_SHIFT);
    return s && s->magic == SIM_GUEST_MAGIC ? s : NULL;
}

static void mark_state(struct sim_domain *d)
{
    sim_memory_mark(&d->mem, d->cpu.rbx >> SIM_PAGE_SHIFT);
}

bool sim_guest_verify(const struct sim_domain *d)
{
    const struct sim_guest_state *s = sim_guest_state(d);
    uint64_t i, sum = 0;

    if (!s || d->cpu.r12 != s->ticks) return false;
    for (i = 0; i < s->pages; i++) {
        const uint64_t *page =
            sim_memory_page(&d->mem, sim_guest_gfn(SIM_SET_FIRST + i, s->stride));

        if (page) sum += page[0];
    }
    return sum == s->sum;
}

int sim_guest_load(struct sim_domain *d, const struct sim_guest_spec *spec)
{
    struct sim_guest_state *s = sim_memory_page(&d->mem, SIM_STATE_GFN);
    uint64_t i, gfn, *page, sum = 0, rng = spec->state.rng;

    if (!s) return EINVAL;
    for (i = spec->ram_random ? SIM_KV_GFN + spec->state.kv_slots / 16 + 1 : SIM_SET_FIRST;; i++) {
        unsigned int k;

        gfn = sim_guest_gfn(i, spec->state.stride);
        page = sim_memory_page(&d->mem, gfn);
        if (i >= SIM_SET_FIRST &&
            (!page || (!spec->ram_random && i >= SIM_SET_FIRST + spec->state.pages)))
            break;
        if (!page || sim_domain_is_shared_page(d, gfn)) continue;
        for (k = 0; k < SIM_PAGE_SIZE / sizeof(*page); k++)
            page[k] = sim_dirty_random(&rng);
        if (i >= SIM_SET_FIRST && i < SIM_SET_FIRST + spec->state.pages) sum += page[0];
    }
    if (i < SIM_SET_FIRST + spec->state.pages) return EINVAL;
    *s = spec->state;
    s->magic = SIM_GUEST_MAGIC;
    s->sum = sum;
    d->cpu.rip = SIM_GUEST_RIP;
    d->cpu.rbx = SIM_STATE_GFN << SIM_PAGE_SHIFT;
    d->cpu.r12 = s->ticks;
    return 0;
}

void sim_guest_ask(struct sim_domain *d, uint8_t code)
{
    uint64_t one = 1;

    d->guest->asked = code;
    if (write(d->guest->wake_fd, &one, sizeof(one)) < 0) return; /* it is awake already */
}

void sim_guest_manual(struct sim_domain *d, bool manual)
{
    d->guest->manual = manual;
    d->guest->credit = 0;
}

static void tick(struct sim_domain *d, struct sim_guest_state *s)
{
    s->ticks++;
    for (s->owed += s->rate; s->owed >= 1000; s->owed -= 1000)
        sim_dirty_page(d, s);
    d->cpu.r12 = s->ticks;
    atomic_fetch_add(&d->guest->time_ms, 1);
    mark_state(d);
}

void sim_guest_step(struct sim_domain *d, uint64_t ticks)
{
    uint64_t one = 1;

    d->guest->credit += ticks;
    if (write(d->guest->wake_fd, &one, sizeof(one)) < 0) return; /* it is awake already */
}

int sim_guest_write(struct sim_domain *d, uint64_t pages)
{
    struct sim_guest_state *s = sim_guest_state(d);

    if (!s || !s->pages || !sim_domain_runnable(d)) return EINVAL;
    while (pages--)
        sim_dirty_page(d, s);
    mark_state(d);
    return 0;
}

int sim_guest_set_rate(struct sim_domain *d, uint64_t rate)
{
    struct sim_guest_state *s = sim_guest_state(d);

    if (!s || (rate && !s->pages)) return EINVAL;
    s->rate = rate;
    mark_state(d);
    return 0;
}

/* How many ticks this turn has. */
static uint64_t turn_length(struct sim_guest *g)
{
    uint64_t now = now_ms(), n = g->manual ? g->credit : now - g->last_ms;

    g->last_ms = now;
    if (n > BEHIND_MAX) n = BEHIND_MAX;
    if (g->manual) g->credit -= n;
    return n;
}

/* Under d->lock. True: it has shut down, and domain 0 is to be told. */
static bool take_turn(struct sim_domain *d)
{
    struct sim_guest *g = d->guest;
    struct sim_guest_state *s = sim_guest_state(d);
    uint64_t n;

    if (!s || !sim_domain_runnable(d)) {
        g->last_ms = now_ms();
        return false;
    }
    if (s->ticks != d->cpu.r12) {
        fprintf(stderr, "xensimd: domain %u: its memory is of tick %lu, its registers of %lu\n",
                d->domid, (unsigned long)s->ticks, (unsigned long)d->cpu.r12);
        sim_domain_shutdown(d, SHUTDOWN_crash);
        return true;
    }
    if (g->asked >= 0) {
        sim_domain_shutdown(d, (uint8_t)g->asked);
        g->asked = -1;
        return true;
    }
    sim_kv_work(g->kv, d);
    for (n = turn_length(g); n; n--)
        tick(d, s);
    return false;
}

static void *guest_main(void *arg)
{
    struct sim_domain *d = arg;
    struct sim_guest *g = d->guest;
    bool runs = false, told;

    while (!g->stop) {
        sim_kv_wait(g->kv, g->wake_fd, runs ? 1 : IDLE_MS, runs);
        pthread_mutex_lock(&d->lock);
        runs = sim_domain_runnable(d) && (sim_guest_state(d) || sim_guest_boot(d));
        told = take_turn(d);
        pthread_mutex_unlock(&d->lock);
        if (told) sim_evtchn_virq(VIRQ_DOM_EXC);
        if (runs) sim_kv_answer(g->kv);
    }
    return NULL;
}

int sim_guest_create(struct sim_domain *d)
{
    struct sim_guest *g = calloc(1, sizeof(*g));

    if (!g) return ENOMEM;
    g->asked = -1;
    g->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (g->wake_fd < 0) {
        free(g);
        return errno;
    }
    d->guest = g;
    return 0;
}

void sim_guest_start(struct sim_domain *d)
{
    struct sim_guest *g = d->guest;

    g->last_ms = now_ms();
    g->kv = sim_kv_open(d->domid);
    if (g->kv) g->started = !pthread_create(&g->thread, NULL, guest_main, d);
    if (!g->started) fprintf(stderr, "xensimd: domain %u cannot run\n", d->domid);
}

void sim_guest_end(struct sim_domain *d)
{
    struct sim_guest *g = d->guest;
    uint64_t one = 1;

    if (!g) return;
    g->stop = true;
    if (g->started && write(g->wake_fd, &one, sizeof(one)) == sizeof(one))
        pthread_join(g->thread, NULL);
    pthread_mutex_lock(&d->lock);
    d->guest = NULL;
    pthread_mutex_unlock(&d->lock);
    sim_kv_close(g->kv);
    close(g->wake_fd);
    free(g);
}

uint64_t sim_guest_time_ns(const struct sim_domain *d)
{
    return d->guest ? d->guest->time_ms * 1000000 : 0;
}
