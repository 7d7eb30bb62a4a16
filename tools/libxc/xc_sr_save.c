/* SPDX-License-Identifier: LGPL-2.1-only */
/* The driver of the save engine. The order of things is told at the head of xc_sr_save.h. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "xc_sr_record.h"
#include "xc_sr_save.h"

#define MAP_LIMIT_PAGES (64ULL << 18) /* 64 GiB of guest: 32768 mappings, 128 MiB of page tables */
#define ARENA_START_PAGES 4096

uint64_t xc_sr_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int xc_sr_save_check_stop(const struct xc_sr_save *s)
{
    switch (xc_sr_io_stopped(s->env.io)) {
    case XC_SR_RUN:
        return 0;
    case XC_SR_TOLD_TO_STOP:
        SR_FAIL(&s->env, ECANCELED, "told to stop");
        return -1;
    case XC_SR_PARENT_DIED:
    default:
        SR_FAIL(&s->env, EOWNERDEAD, "the toolstack went away");
        return -1;
    }
}

int xc_sr_write_record(struct xc_sr_save *s, uint32_t type, const void *head, size_t head_len,
                       const void *body, size_t body_len)
{
    static const uint8_t zeroes[SR_REC_ALIGN];
    struct sr_rhdr rhdr = {type, (uint32_t)(head_len + body_len)};
    size_t padding = xc_sr_record_padded(rhdr.length) - rhdr.length;
    struct iovec iov[4] = {
        {&rhdr, sizeof(rhdr)},
        {(void *)(uintptr_t)head, head_len},
        {(void *)(uintptr_t)body, body_len},
        {(void *)(uintptr_t)zeroes, padding},
    };

    if (xc_sr_io_writev(s->env.io, iov, 4)) {
        SR_ERRNO(&s->env, "cannot write %s to the stream", xc_sr_record_name(type));
        return -1;
    }
    return 0;
}

static int write_headers(struct xc_sr_save *s)
{
    int version = xc_version(s->env.xch, XENVER_version, NULL);
    struct sr_ihdr ihdr;
    struct sr_dhdr dhdr;
    struct iovec iov[2] = {{&ihdr, sizeof(ihdr)}, {&dhdr, sizeof(dhdr)}};

    if (version < 0) {
        SR_ERRNO(&s->env, "cannot read the version of Xen");
        return -1;
    }
    xc_sr_headers_fill(&ihdr, &dhdr, s->ops->dhdr_type, (uint32_t)version >> 16,
                       (uint32_t)version & 0xffff);
    if (xc_sr_io_writev(s->env.io, iov, 2)) {
        SR_ERRNO(&s->env, "cannot write the headers to the stream");
        return -1;
    }
    return 0;
}

static int setup(struct xc_sr_save *s)
{
    xc_dominfo_t info;
    xen_pfn_t pfns;

    if (xc_domain_getinfo(s->env.xch, s->env.domid, 1, &info) != 1 || info.domid != s->env.domid) {
        SR_FAIL(&s->env, ESRCH, "there is no domain %u", s->env.domid);
        return -1;
    }
    if (xc_domain_nr_gpfns(s->env.xch, s->env.domid, &pfns) < 0) {
        SR_ERRNO(&s->env, "cannot read the size of domain %u", s->env.domid);
        return -1;
    }
    if (info.hvm && pfns > XC_SR_PFNS_MAX) {
        SR_FAIL(&s->env, E2BIG, "domain %u has something at pfn %#lx: more than can be tracked",
                s->env.domid, (unsigned long)pfns - 1);
        return -1;
    }
    s->ops = info.hvm ? &xc_sr_save_x86_hvm : &xc_sr_save_x86_pv;
    s->pfns = pfns;
    if (!s->map_limit_pages) s->map_limit_pages = MAP_LIMIT_PAGES;
    return 0;
}

static int allocate(struct xc_sr_save *s)
{
    if (s->ops->write_memory) return 0;
    if (xc_sr_log_alloc(s) || xc_sr_batch_alloc(s) || xc_sr_encode_start(s)) return -1;
    if (xc_sr_dirty_alloc(&s->sent, s->pfns) || xc_sr_dirty_alloc(&s->gone, s->pfns) ||
        xc_sr_dirty_alloc(&s->suspect, s->pfns) ||
        xc_sr_map_init(&s->map, &s->env, s->pfns, s->map_limit_pages)) {
        SR_ERRNO(&s->env, "no memory to track %lu pages", (unsigned long)s->pfns);
        return -1;
    }
    if (!s->checkpointed) return 0;
    /* Not by the domain's maximum: that is what it may have now (xl mem-set), and each pfn may come in time. */
    if (xc_sr_arena_init(&s->arena, s->pfns)) {
        SR_ERRNO(&s->env, "no room to stage %lu pages", (unsigned long)s->pfns);
        return -1;
    }
    return 0;
}

static void cleanup(struct xc_sr_save *s)
{
    int saved = errno;

    xc_sr_map_dispose(&s->map);
    xc_sr_log_disable(s, xc_sr_io_stopped(s->env.io) != XC_SR_PARENT_DIED);
    xc_sr_log_free(s);
    xc_sr_dirty_free(&s->sent);
    xc_sr_dirty_free(&s->gone);
    xc_sr_dirty_free(&s->suspect);
    xc_sr_arena_dispose(&s->arena);
    free(s->batch);
    s->batch = NULL;
    xc_sr_encode_stop(s);
    if (s->ops) s->ops->cleanup(s);
    errno = saved;
}

/* The toolstack says that the guest is suspended; believe the hypervisor. */
static int suspend_guest(struct xc_sr_save *s)
{
    uint64_t started = xc_sr_now_us();
    xc_dominfo_t info;
    int r;

    s->suspended = true;
    r = s->cb->suspend(s->cb->data);
    s->suspend_us = xc_sr_now_us() - started;
    if (r != 1) {
        SR_FAIL(&s->env, errno ? errno : EINVAL, "the toolstack could not suspend domain %u",
                s->env.domid);
        return -1;
    }
    if (xc_domain_getinfo(s->env.xch, s->env.domid, 1, &info) != 1 || info.domid != s->env.domid ||
        !info.shutdown || info.shutdown_reason != SHUTDOWN_suspend) {
        SR_FAIL(&s->env, EINVAL, "domain %u is not suspended", s->env.domid);
        return -1;
    }
    s->paused_pages = info.nr_pages;
    return xc_sr_save_check_stop(s);
}

/* The final set of a plain stream: the guest stays suspended, so it goes out directly. */
static int write_rest(struct xc_sr_save *s)
{
    if (s->ops->write_memory) return s->ops->write_memory(s);
    if (!s->live) return xc_sr_population_check_end(s) ? -1 : xc_sr_write_whole(s, "Frames");
    if (xc_sr_log_clean(s, true, NULL) || xc_sr_population_check(s)) return -1;
    xc_sr_dirty_merge(&s->dirty, &s->suspect);
    return xc_sr_write_set(s, &s->dirty, "Frames iteration last", xc_sr_dirty_count(&s->dirty));
}

/* Everything once more: the guest is suspended, so the reader must find the same bytes. */
static int write_verify(struct xc_sr_save *s)
{
    if (!s->verify || !s->live) return 0;
    if (xc_sr_write_record(s, SR_REC_VERIFY, NULL, 0, NULL, 0)) return -1;
    xc_sr_dirty_set_all(&s->dirty);
    return xc_sr_write_set(s, &s->dirty, "Frames verify", s->pfns);
}

static int save_plain(struct xc_sr_save *s)
{
    if (s->live && xc_sr_copy_live(s)) return -1;
    if (suspend_guest(s)) return -1;
    if (write_rest(s) || write_verify(s)) return -1;
    if (s->ops->capture(s) || s->ops->write_captured(s)) return -1;
    return xc_sr_write_record(s, SR_REC_END, NULL, 0, NULL, 0);
}

/* The pause: from suspend() to postcopy() nothing touches the stream. */
static int take_checkpoint(struct xc_sr_save *s)
{
    uint64_t started;

    if (suspend_guest(s)) return -1;
    started = xc_sr_now_us();
    if (xc_sr_log_clean(s, true, NULL) || xc_sr_population_check(s)) return -1;
    if (xc_sr_copy_dirty(s) || s->ops->capture(s)) return -1;
    if (xc_sr_population_settle(s)) return -1;
    s->copy_us = xc_sr_now_us() - started;
    if (s->cb->postcopy(s->cb->data) != 1) {
        SR_FAIL(&s->env, EIO, "the toolstack could not resume domain %u", s->env.domid);
        return -1;
    }
    s->suspended = false;
    return 0;
}

static int send_checkpoint(struct xc_sr_save *s)
{
    uint64_t before = s->env.io->bytes;

    if (xc_sr_write_arena(s) || s->ops->write_captured(s)) return -1;
    if (xc_sr_write_record(s, SR_REC_CHECKPOINT, NULL, 0, NULL, 0)) return -1;
    SR_LOG(&s->env, DETAIL,
           "checkpoint %lu: %lu pages, %lu bytes, %lu us in suspend(), %lu us copying",
           (unsigned long)s->epoch, (unsigned long)s->arena.pages,
           (unsigned long)(s->env.io->bytes - before), (unsigned long)s->suspend_us,
           (unsigned long)s->copy_us);
    xc_sr_encode_checkpoint(s);
    return 0;
}

/* While the guest runs: room for what is dirty by now and half as much again. */
static int make_room(struct xc_sr_save *s)
{
    uint64_t pages;

    if (xc_sr_log_peek(s, &pages)) return -1;
    pages += pages / 2;
    if (pages < s->arena.pages) pages = s->arena.pages;
    xc_sr_arena_empty(&s->arena);
    xc_sr_arena_prepare(&s->arena, pages < ARENA_START_PAGES ? ARENA_START_PAGES : pages);
    return 0;
}

static int save_checkpointed(struct xc_sr_save *s)
{
    if (xc_sr_copy_live(s) || make_room(s)) return -1;
    for (s->epoch = 1;; s->epoch++) {
        if (take_checkpoint(s) || send_checkpoint(s)) return -1;
        if (s->cb->checkpoint(s->cb->data) != 1) {
            /* The wire has no word for it: to the toolstack this is an end like any other. */
            SR_LOG(&s->env, INFO, "the toolstack ended checkpointing after checkpoint %lu",
                   (unsigned long)s->epoch);
            s->ended = true;
            errno = ECANCELED;
            return -1;
        }
        if (xc_sr_save_check_stop(s) || xc_sr_population_scan(s) || make_room(s)) return -1;
    }
}

int xc_sr_save(struct xc_sr_save *s)
{
    int rc = -1;

    if (setup(s) || s->ops->setup(s) || allocate(s)) goto out;
    if (write_headers(s) || s->ops->write_static(s)) goto out;
    if (xc_sr_write_record(s, SR_REC_STATIC_DATA_END, NULL, 0, NULL, 0)) goto out;
    rc = s->checkpointed ? save_checkpointed(s) : save_plain(s);
out:
    cleanup(s);
    return rc;
}
