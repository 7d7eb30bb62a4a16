/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_instance.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "disk_util.h"

#define SECONDARY_LIMIT_MS 10000
#define KIB 1024

void drbd_say(struct drbd_instance *in, const char *format, ...)
{
    char text[DRBD_WHY_MAX + 64];
    va_list al;

    va_start(al, format);
    vsnprintf(text, sizeof(text), format, al);
    va_end(al);
    if (in->event) in->event(in, text);
}

int drbd_save_state(struct drbd_instance *in, const struct disk_state *fresh,
                    char why[DRBD_WHY_MAX])
{
    int r = disk_state_save(fresh, in->state_dir);

    if (!r) {
        in->state = *fresh;
        return 0;
    }
    snprintf(why, DRBD_WHY_MAX, "cannot write %.200s/state: %s", in->state_dir, strerror(-r));
    return -1;
}

/* ---- start and end ---- */

static int stale(const struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    const struct disk_state *s = &in->state;

    if (!s->primary)
        snprintf(why, DRBD_WHY_MAX,
                 "drbd:%s is a backup's disk (generation %" PRIu64
                 "): the guest belongs to the other host; start it there, or here with "
                 "--force-primary",
                 in->resource, s->generation);
    else if (s->secured)
        snprintf(why, DRBD_WHY_MAX,
                 "drbd:%s was protected when its instance ended (generation %" PRIu64
                 "): the other host may have gone on; protect the guest from there, or start it "
                 "with --force-primary",
                 in->resource, s->generation);
    else
        return 0;
    return -1;
}

static int load_state(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct disk_state fresh;
    int r = disk_state_load(&in->state, in->state_dir);
    bool known = !r;

    if (r && r != -ENOENT) {
        snprintf(why, DRBD_WHY_MAX, "%.200s/state cannot be read or is damaged: %s", in->state_dir,
                 strerror(-r));
        return -1;
    }
    if (known && in->primary && !in->force_primary && stale(in, why)) return -1;
    fresh = in->state;
    if (in->force_primary && (!fresh.primary || fresh.secured)) fresh.generation++;
    if (!known || in->primary) fresh.primary = in->primary;
    if (in->force_primary) fresh.secured = false;
    fresh.size = in->res.size;
    disk_boot_id(fresh.boot);
    return drbd_save_state(in, &fresh, why);
}

/* DRBD says no while the peer is primary, or while this side is not up to date. */
static int become_primary(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct drbd_status s;

    if (drbd_res_status(&in->res, &s, why)) return -1;
    if (!strcmp(s.role, "Primary")) return 0;
    return drbd_res_do(&in->res, "primary", NULL, why);
}

int drbd_instance_open(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    if (drbd_res_load(&in->res, in->resource, why)) return -1;
    if (load_state(in, why)) return -1;
    /* No link may ever come. What cannot be removed is told by the one that comes. */
    if (in->res.config.backing[0])
        (void)drbd_snap_clean(in->state_dir, in->res.config.backing, why);
    if (in->primary && become_primary(in, why)) return -1;
    if (in->primary) return drbd_res_load(&in->res, in->resource, why);
    return 0;
}

void drbd_instance_close(struct drbd_instance *in)
{
    int64_t until = disk_now_ms() + SECONDARY_LIMIT_MS;
    char why[DRBD_WHY_MAX];

    if (in->link) drbd_link_lost(in, "the instance ends");
    if (!in->primary) {
        (void)drbd_snap_clear(&in->snap, why);
        return;
    }
    /* The guest's backend may have it open for some moments more. */
    do {
        if (!drbd_res_do(&in->res, "secondary", NULL, why)) return;
        poll(NULL, 0, DRBD_TICK_MS);
    } while (disk_now_ms() < until);
    disk_log("drbd:%s stays primary: %s", in->resource, why);
}

/* ---- status ---- */

static const char *phase_name(const struct drbd_instance *in)
{
    static const char *const names[] = {"alone",  "linked",    "syncing",
                                        "synced", "protected", "lost"};

    return in->phase == DRBD_ALONE && !in->primary ? "idle" : names[in->phase];
}

void drbd_instance_status(const struct drbd_instance *in, char text[DISK_REPLY_MAX])
{
    char uuid[33], why[DRBD_WHY_MAX];
    struct drbd_status s = {.connection = ""};

    disk_id_text(uuid, in->state.uuid);
    (void)drbd_res_status(&in->res, &s, why);
    snprintf(text, DISK_REPLY_MAX,
             "role=%s state=%s generation=%" PRIu64 " epoch=%" PRIu64 " committed=%" PRIu64
             " applied=%" PRIu64 " dirty_bytes=%" PRIu64
             " queued_bytes=0 journal_bytes=0 sync_done=%" PRIu64 " sync_total=%" PRIu64
             " link=%s size=%" PRIu64 " path=drbd:%s shared=- uuid=%s node=/dev/drbd%u",
             in->primary ? "primary" : "backup", phase_name(in), in->state.generation, in->epoch,
             in->committed, in->committed,
             s.out_of_sync < UINT64_MAX / KIB ? s.out_of_sync * KIB : UINT64_MAX, in->sync_done,
             in->sync_total, in->link ? "up" : "down", in->res.size, in->resource, uuid,
             in->res.config.minor);
}

void drbd_instance_tick(struct drbd_instance *in)
{
    if (!in->link) return;
    if (in->primary)
        drbd_primary_tick(in);
    else
        drbd_backup_tick(in);
}
