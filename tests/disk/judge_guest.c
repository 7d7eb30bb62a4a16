/* SPDX-License-Identifier: LGPL-2.1-only */
#include "judge_guest.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

void guest_init(struct guest *g, struct judge_model *model, uint64_t seed)
{
    memset(g, 0, sizeof(*g));
    g->model = model;
    g->random = seed;
    for (int i = 0; i < GUEST_IN_FLIGHT; i++)
        g->ops[i].buf = malloc(GUEST_WRITE_MAX);
}

void guest_dispose(struct guest *g)
{
    if (g->nbd) guest_abandon(g);
    for (int i = 0; i < GUEST_IN_FLIGHT; i++)
        free(g->ops[i].buf);
}

uint32_t guest_rnd(struct guest *g, uint32_t below)
{
    g->random = g->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((g->random >> 33) % below);
}

const char *guest_connect(struct guest *g, const char *uri)
{
    g->nbd = nbd_create();
    return g->nbd && !nbd_connect_uri(g->nbd, uri) ? NULL : nbd_get_error();
}

static void op_ended(struct guest *g, struct guest_op *o, bool ok)
{
    o->busy = false;
    if (o->logged) model_end(g->model, o->index, ok);
}

void guest_pump(struct guest *g, int ms)
{
    if (!g->nbd) return;
    if (nbd_aio_is_ready(g->nbd) || nbd_aio_is_processing(g->nbd)) (void)nbd_poll(g->nbd, ms);
    bool dead = nbd_aio_is_dead(g->nbd) || nbd_aio_is_closed(g->nbd);
    for (int i = 0; i < GUEST_IN_FLIGHT; i++) {
        struct guest_op *o = &g->ops[i];
        if (!o->busy) continue;
        int r = nbd_aio_command_completed(g->nbd, (uint64_t)o->cookie);
        if (r == 1)
            op_ended(g, o, true);
        else if (r < 0 || dead)
            op_ended(g, o, false);
    }
}

static bool busy(const struct guest *g)
{
    for (int i = 0; i < GUEST_IN_FLIGHT; i++)
        if (g->ops[i].busy) return true;
    return false;
}

bool guest_settle(struct guest *g, int ms)
{
    for (; g->nbd && busy(g) && ms > 0; ms -= 20)
        guest_pump(g, 20);
    return !busy(g);
}

void guest_abandon(struct guest *g)
{
    for (int i = 0; i < GUEST_IN_FLIGHT; i++)
        if (g->ops[i].busy) op_ended(g, &g->ops[i], false);
    nbd_close(g->nbd);
    g->nbd = NULL;
}

void guest_range(struct guest *g, uint32_t *first, uint32_t *count)
{
    uint32_t shape = guest_rnd(g, 20);

    *count = shape == 0   ? 1 + guest_rnd(g, GUEST_WRITE_MAX / SECTOR)
             : shape < 10 ? 8
                          : 1 + guest_rnd(g, 300);
    /* Half of them close together, so that many overlap. */
    *first = guest_rnd(g, 2) ? guest_rnd(g, 256) : guest_rnd(g, SECTORS - 1);
    if (*count > SECTORS - *first) *count = SECTORS - *first;
}

static struct guest_op *free_op(struct guest *g)
{
    for (int i = 0; i < GUEST_IN_FLIGHT; i++)
        if (!g->ops[i].busy) return &g->ops[i];
    return NULL;
}

void guest_issue(struct guest *g)
{
    struct guest_op *o = free_op(g);
    uint32_t first, count, kind = guest_rnd(g, 24);
    uint32_t flags = guest_rnd(g, 16) ? 0 : LIBNBD_CMD_FLAG_FUA;

    if (!o || !g->nbd || g->quiet || g->model->count > LOG_MAX - 16) return;
    guest_range(g, &first, &count);
    size_t size = (size_t)count * SECTOR;
    uint64_t offset = (uint64_t)first * SECTOR;
    if (size > g->budget) return;
    g->budget -= size;
    o->busy = true;
    o->logged = kind != 0;
    if (o->logged) o->index = model_begin(g->model, first, count, kind < 3);
    if (kind == 0)
        o->cookie = nbd_aio_flush(g->nbd, NBD_NULL_COMPLETION, 0);
    else if (kind < 3)
        o->cookie = nbd_aio_zero(g->nbd, size, offset, NBD_NULL_COMPLETION, flags);
    else {
        model_fill(o->buf, g->model->log[o->index].id, first, count);
        o->cookie = nbd_aio_pwrite(g->nbd, o->buf, size, offset, NBD_NULL_COMPLETION, flags);
    }
    if (o->cookie < 0) op_ended(g, o, false);
}

bool guest_copies(struct guest *g, int fd)
{
    static uint8_t nbd[DISK_BYTES];

    return !nbd_pread(g->nbd, nbd, DISK_BYTES, 0, 0) &&
           pwrite(fd, nbd, DISK_BYTES, 0) == (ssize_t)DISK_BYTES;
}

bool guest_sees(struct guest *g, int fd)
{
    static uint8_t file[DISK_BYTES], nbd[DISK_BYTES];

    return pread(fd, file, DISK_BYTES, 0) == (ssize_t)DISK_BYTES &&
           !nbd_pread(g->nbd, nbd, DISK_BYTES, 0, 0) && !memcmp(file, nbd, DISK_BYTES);
}
