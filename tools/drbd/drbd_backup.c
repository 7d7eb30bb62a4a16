/* SPDX-License-Identifier: LGPL-2.1-only */
/* The backup's part: snapshots at barriers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "disk_util.h"
#include "drbd_instance.h"

/* ---- handshake ---- */

static bool hello_fits(struct drbd_instance *in, const struct disk_hello *h)
{
    const struct disk_state *s = &in->state;
    bool ours = !disk_id_none(s->uuid);

    if (!h->primary)
        drbd_link_refuse(in, "the other side is no primary");
    else if (memcmp(h->base, drbd_kind, 16))
        drbd_link_refuse(in, "the primary's disk is no DRBD resource");
    else if (h->size != in->res.size)
        drbd_link_refuse(in, "the disks differ in size: %" PRIu64 " here, %" PRIu64 " there",
                         in->res.size, h->size);
    else if (ours && memcmp(h->uuid, s->uuid, 16))
        drbd_link_refuse(in, "drbd:%s is the twin of another disk: xentwin-disk reset on this host",
                         in->resource);
    else if (ours && h->generation < s->generation)
        drbd_link_refuse(in,
                         "the backup is newer (generation %" PRIu64 ", the primary's is %" PRIu64
                         "): the primary's disk is stale",
                         s->generation, h->generation);
    else if (ours && s->primary && h->generation == s->generation)
        drbd_link_refuse(in, "both sides are primaries of generation %" PRIu64, h->generation);
    else
        return true;
    return false;
}

/*
 * DRBD of an old primary may have given up: after it had gone on alone, or met the new one while it was primary itself. What it wrote then
 * is nobody's, since the other side has the higher generation.
 */
static int reconnect(struct drbd_instance *in, bool discard, char why[DRBD_WHY_MAX])
{
    struct drbd_status s;

    if (drbd_res_status(&in->res, &s, why)) return -1;
    if (!strcmp(s.peer_role, "Primary")) return 0;
    if (!strcmp(s.role, "Primary") && drbd_res_do(&in->res, "secondary", NULL, why)) return -1;
    if (!discard && strcmp(s.connection, "StandAlone")) return 0;
    if (strcmp(s.connection, "StandAlone") && drbd_res_do(&in->res, "disconnect", NULL, why))
        return -1;
    return drbd_res_do(&in->res, "connect", discard ? "--discard-my-data" : NULL, why);
}

static int adopt(struct drbd_instance *in, const struct disk_hello *h, char why[DRBD_WHY_MAX])
{
    struct disk_state fresh = in->state;

    memcpy(fresh.uuid, h->uuid, 16);
    fresh.generation = h->generation;
    fresh.primary = fresh.secured = false;
    fresh.size = in->res.size;
    return drbd_save_state(in, &fresh, why);
}

static void hello(struct drbd_instance *in, const struct disk_frame *f)
{
    /* Without a link before, no generation says whose data are older: DRBD refuses then, and a person decides. */
    bool discard = in->state.primary && !disk_id_none(in->state.uuid);
    struct disk_hello h;
    char why[DRBD_WHY_MAX];

    if (disk_hello_get(&h, in->link->payload, f->payload)) {
        drbd_link_refuse(in, "the other side speaks another protocol");
        return;
    }
    if (!hello_fits(in, &h)) return;
    if (drbd_snap_open(&in->snap, in->state_dir, in->res.config.backing, why) ||
        reconnect(in, discard, why) || adopt(in, &h, why)) {
        drbd_link_refuse(in, "%s", why);
        return;
    }
    in->handshaken = true;
    in->phase = DRBD_LINKED;
    drbd_say_hello(in);
    drbd_link_send(in, DISK_READY, 0, NULL, 0);
    drbd_say(in, "linked");
}

/* ---- barriers ---- */

/* This side has all that the guest saw done, and it is no mixture. */
static bool whole(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct drbd_status s;

    if (drbd_res_status(&in->res, &s, why)) return false;
    if (!strcmp(s.role, "Secondary") && !strcmp(s.disk, "UpToDate")) return true;
    drbd_status_tell(&in->res, &s, why);
    return false;
}

/* BARRIER 0: this resource and the primary's are each other's, and the same. The states arrive here a little later than there. */
static void check_base(struct drbd_instance *in, int64_t now)
{
    struct drbd_status s;
    char why[DRBD_WHY_MAX];
    uint64_t generation;

    if (drbd_res_status(&in->res, &s, why)) {
        drbd_link_refuse(in, "%s", why);
        return;
    }
    if (!drbd_status_mirrored(&s) || strcmp(s.role, "Secondary")) {
        if (now < in->until_ms) return;
        drbd_status_tell(&in->res, &s, why);
        drbd_link_refuse(in, "%s", why);
        return;
    }
    if (drbd_res_generation(&in->res, &generation, why)) {
        drbd_link_refuse(in, "%s", why);
    } else if (generation != in->base) {
        drbd_link_refuse(in, "DRBD resource %s of this host is not the peer of the primary's",
                         in->resource);
    } else {
        in->base = 0;
        in->phase = DRBD_SYNCED;
        drbd_say(in, "synced");
        drbd_link_send(in, DISK_SEALED, 0, NULL, 0);
    }
}

static bool barrier0(struct drbd_instance *in, const struct disk_frame *f)
{
    if (in->phase != DRBD_LINKED || in->base || f->payload != 16) return false;
    in->base = disk_get64(in->link->payload);
    in->until_ms = disk_now_ms() + DISK_HANDSHAKE_MS / 2;
    if (!in->base) return false;
    check_base(in, disk_now_ms());
    return true;
}

static bool barrier(struct drbd_instance *in, uint64_t n)
{
    char why[DRBD_WHY_MAX];

    if (in->phase < DRBD_SYNCED || n <= in->epoch) return false;
    if (!whole(in, why) || drbd_snap_seal(&in->snap, n, why) || !whole(in, why)) {
        drbd_link_refuse(in, "%s", why);
        return true;
    }
    in->phase = DRBD_PROTECTED;
    in->epoch = n;
    drbd_say(in, "barrier %" PRIu64, n);
    drbd_link_send(in, DISK_SEALED, n, NULL, 0);
    return true;
}

bool drbd_backup_frame(struct drbd_instance *in, const struct disk_frame *f)
{
    if (!in->handshaken && f->type == DISK_HELLO) {
        hello(in, f);
        return true;
    }
    if (f->type == DISK_ERROR) {
        drbd_link_lost(in, "the primary gave up");
        return true;
    }
    if (!in->handshaken || f->type != DISK_BARRIER) return false;
    return f->epoch ? barrier(in, f->epoch) : barrier0(in, f);
}

void drbd_backup_tick(struct drbd_instance *in)
{
    int64_t now = disk_now_ms();

    if (!in->handshaken) {
        if (now > in->until_ms) drbd_link_lost(in, "the primary does not answer");
        return;
    }
    if (in->base) check_base(in, now);
    if (now < in->said_ms + DISK_ALIVE_MS) return;
    in->said_ms = now;
    drbd_link_send(in, DISK_ALIVE, 0, NULL, 0);
}

/* ---- requests ---- */

int drbd_commit(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX])
{
    int r = 0;

    if (in->primary && (in->phase != DRBD_PROTECTED || n >= in->epoch)) {
        snprintf(why, DRBD_WHY_MAX, "commit: checkpoint %" PRIu64 " was not closed", n);
        r = -1;
    } else if (!in->primary) {
        r = drbd_snap_commit(&in->snap, n, why);
    }
    if (!r) in->committed = n;
    return r;
}

int drbd_drop(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    if (in->primary) {
        snprintf(why, DRBD_WHY_MAX, "drop: this is a primary");
        return -1;
    }
    if (in->link) drbd_link_lost(in, "dropped");
    in->phase = DRBD_ALONE;
    return drbd_snap_clear(&in->snap, why);
}
