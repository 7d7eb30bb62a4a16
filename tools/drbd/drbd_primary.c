/* SPDX-License-Identifier: LGPL-2.1-only */
/* The primary's part: is DRBD mirroring, and has the backup its snapshot? */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "disk_util.h"
#include "drbd_instance.h"

#define LOOK_MS 250
#define KIB 1024

static void hello(struct drbd_instance *in, const struct disk_frame *f)
{
    struct disk_hello h;

    if (disk_hello_get(&h, in->link->payload, f->payload) || h.primary)
        drbd_link_lost(in, "the other side is no backup");
    else if (memcmp(h.base, drbd_kind, 16))
        drbd_link_lost(in, "the backup's disk is no DRBD resource");
    else if (h.size != in->res.size)
        drbd_link_lost(in, "the disks differ in size: %" PRIu64 " here, %" PRIu64 " there",
                       in->res.size, h.size);
    else if (h.generation > in->state.generation)
        drbd_link_lost(in,
                       "the backup is newer (generation %" PRIu64 ", here %" PRIu64
                       "): this disk is stale",
                       h.generation, in->state.generation);
    else
        in->handshaken = true;
}

static void ready(struct drbd_instance *in)
{
    in->phase = DRBD_LINKED;
    in->until_ms = disk_now_ms() + DRBD_CONNECT_MS;
    /* What is the same already counts as done. */
    in->sync_done = 0;
    in->sync_total = in->res.size;
    drbd_say(in, "linked bitmap %" PRIu64, in->sync_total);
}

static void sealed(struct drbd_instance *in, uint64_t n)
{
    if (!n) {
        in->phase = DRBD_SYNCED;
        in->sync_done = in->sync_total;
        drbd_say(in, "synced");
        return;
    }
    in->closing = 0;
    in->epoch = n + 1;
    drbd_say(in, "barrier %" PRIu64, n);
    in->barrier_done(in, "ok");
}

static void peer_error(struct drbd_instance *in, const struct disk_frame *f)
{
    uint8_t *text = in->link->payload;
    int n = f->payload < 400 ? (int)f->payload : 400;

    for (int i = 0; i < n; i++)
        if (text[i] < 32 || text[i] > 126) text[i] = '?';
    drbd_link_lost(in, "the backup says: %.*s", n, (const char *)text);
}

bool drbd_primary_frame(struct drbd_instance *in, const struct disk_frame *f)
{
    bool linked = in->phase != DRBD_ALONE;

    switch (f->type) {
    case DISK_ERROR:
        peer_error(in, f);
        return true;
    case DISK_HELLO:
        if (in->handshaken) return false;
        hello(in, f);
        return true;
    case DISK_READY:
        if (!in->handshaken || linked) return false;
        ready(in);
        return true;
    case DISK_SEALED:
        if (f->epoch ? f->epoch != in->closing : in->phase != DRBD_SYNCING || !in->base_asked)
            return false;
        sealed(in, f->epoch);
        return true;
    default:
        return f->type == DISK_ALIVE && linked;
    }
}

/* ---- time ---- */

static void ask_base(struct drbd_instance *in)
{
    uint8_t payload[16] = {0};
    char why[DRBD_WHY_MAX];
    uint64_t generation;

    if (drbd_res_generation(&in->res, &generation, why)) {
        drbd_link_lost(in, "%s", why);
        return;
    }
    disk_put64(payload, generation);
    in->base_asked = true;
    in->until_ms = disk_now_ms() + DRBD_ANSWER_MS;
    drbd_link_send(in, DISK_BARRIER, 0, payload, sizeof(payload));
}

/* DRBD brings the backup up to date by itself: that is only waited for. */
static void look_at_sync(struct drbd_instance *in, const struct drbd_status *s, int64_t now)
{
    uint64_t left = s->out_of_sync < UINT64_MAX / KIB ? s->out_of_sync * KIB : 0;
    char why[DRBD_WHY_MAX];

    if (drbd_status_mirrored(s) && !strcmp(s->peer_role, "Secondary")) {
        ask_base(in);
        return;
    }
    if (!strncmp(s->connection, "Sync", 4) || !strncmp(s->connection, "PausedSync", 10)) {
        if (left > in->sync_total) in->sync_total = left;
        in->sync_done = in->sync_total - left;
        in->until_ms = now + DRBD_CONNECT_MS;
        drbd_say(in, "progress %" PRIu64 " %" PRIu64, in->sync_done, in->sync_total);
    } else if (now > in->until_ms) {
        drbd_status_tell(&in->res, s, why);
        drbd_link_lost(in, "%s", why);
    }
}

/* Still mirrored? If not, why says so. */
static bool mirrored(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct drbd_status s;

    if (drbd_res_status(&in->res, &s, why)) return false;
    if (drbd_status_mirrored(&s) && !strcmp(s.role, "Primary") && !strcmp(s.peer_role, "Secondary"))
        return true;
    drbd_status_tell(&in->res, &s, why);
    return false;
}

static void look(struct drbd_instance *in, int64_t now)
{
    char why[DRBD_WHY_MAX];
    struct drbd_status s;

    in->looked_ms = now;
    if (in->phase == DRBD_LINKED && in->sync_asked) in->phase = DRBD_SYNCING;
    if (in->phase == DRBD_SYNCING) {
        if (in->base_asked) return;
        if (drbd_res_status(&in->res, &s, why))
            drbd_link_lost(in, "%s", why);
        else
            look_at_sync(in, &s, now);
    } else if (in->phase >= DRBD_SYNCED && !mirrored(in, why)) {
        drbd_link_lost(in, "%s", why);
    }
}

void drbd_primary_tick(struct drbd_instance *in)
{
    int64_t now = disk_now_ms();
    bool waits = in->phase == DRBD_ALONE || in->base_asked;

    if (in->closing && now > in->until_ms)
        drbd_link_lost(in, "the backup took no snapshot of checkpoint %" PRIu64 " within %d ms",
                       in->closing, in->limit_ms);
    else if (in->phase < DRBD_SYNCED && waits && now > in->until_ms)
        drbd_link_lost(in, "the backup does not answer");
    else if (in->phase >= DRBD_SYNCED && now > in->heard_ms + in->limit_ms)
        drbd_link_lost(in, "the backup was silent for %d ms", in->limit_ms);
    else if (now >= in->looked_ms + LOOK_MS)
        look(in, now);
}

/* ---- requests ---- */

static int no_primary(const struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    if (in->primary) return 0;
    snprintf(why, DRBD_WHY_MAX, "this is a backup");
    return -1;
}

int drbd_sync(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    if (no_primary(in, why)) return -1;
    if (!in->link || in->phase > DRBD_LINKED) {
        snprintf(why, DRBD_WHY_MAX, "sync: there is no fresh link");
        return -1;
    }
    in->sync_asked = true;
    return 0;
}

int drbd_protect(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct disk_state fresh = in->state;

    if (no_primary(in, why)) return -1;
    if (!in->link || in->phase != DRBD_SYNCED) {
        snprintf(why, DRBD_WHY_MAX, "protect: not synchronised");
        return -1;
    }
    fresh.secured = true;
    if (drbd_save_state(in, &fresh, why)) return -1;
    in->phase = DRBD_PROTECTED;
    in->epoch = 1;
    return 0;
}

int drbd_barrier(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX])
{
    if (no_primary(in, why)) return -1;
    if (!in->link || in->phase != DRBD_PROTECTED || in->closing || n < in->epoch) {
        snprintf(why, DRBD_WHY_MAX, "barrier: %s",
                 in->phase == DRBD_PROTECTED && in->link ? "out of turn" : "not protected");
        return -1;
    }
    if (!mirrored(in, why)) {
        drbd_link_lost(in, "%s", why);
        return -1;
    }
    in->closing = n;
    in->until_ms = disk_now_ms() + in->limit_ms;
    drbd_link_send(in, DISK_BARRIER, n, NULL, 0);
    return 0;
}

int drbd_unprotect(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct disk_state fresh = in->state;

    if (no_primary(in, why)) return -1;
    if (in->link) drbd_link_lost(in, "unprotected");
    in->phase = DRBD_ALONE;
    fresh.secured = false;
    return fresh.secured == in->state.secured ? 0 : drbd_save_state(in, &fresh, why);
}
