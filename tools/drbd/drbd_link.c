/* SPDX-License-Identifier: LGPL-2.1-only */
/* The link between two instances: frames of tools/disk, without data. */
#include "drbd_instance.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk_util.h"

#define FRAME_LIMIT_MS 1000 /* for the rest of a frame that has begun */

const uint8_t drbd_kind[16] = "XENTWIN-DRBD-01";

static void lost(struct drbd_instance *in, const char *why)
{
    uint64_t closing = in->closing;
    char reply[DRBD_WHY_MAX + 16];

    if (!in->link) return;
    disk_link_free(in->link);
    in->link = NULL;
    in->handshaken = in->sync_asked = in->base_asked = false;
    in->base = in->closing = 0;
    in->phase = DRBD_LOST;
    drbd_say(in, "lost %s", why);
    snprintf(reply, sizeof(reply), "error %s", why);
    if (closing) in->barrier_done(in, reply);
}

void drbd_link_lost(struct drbd_instance *in, const char *format, ...)
{
    char why[DRBD_WHY_MAX];
    va_list al;

    va_start(al, format);
    vsnprintf(why, sizeof(why), format, al);
    va_end(al);
    lost(in, why);
}

void drbd_link_send(struct drbd_instance *in, unsigned type, uint64_t epoch, const void *payload,
                    uint32_t size)
{
    struct disk_frame f = {.type = (uint16_t)type, .epoch = epoch, .payload = size};
    int r;

    if (!in->link) return;
    r = disk_link_send(in->link, &f, payload, FRAME_LIMIT_MS);
    if (r) drbd_link_lost(in, "%s", disk_link_error(r));
}

void drbd_link_refuse(struct drbd_instance *in, const char *format, ...)
{
    char why[DRBD_WHY_MAX];
    va_list al;

    va_start(al, format);
    vsnprintf(why, sizeof(why), format, al);
    va_end(al);
    drbd_link_send(in, DISK_ERROR, 0, why, (uint32_t)strlen(why));
    lost(in, why);
}

void drbd_say_hello(struct drbd_instance *in)
{
    struct disk_hello h = {.version = DISK_LINK_VERSION, .primary = in->primary};
    uint8_t raw[DISK_HELLO_SIZE];

    h.size = in->res.size;
    h.generation = in->state.generation;
    memcpy(h.uuid, in->state.uuid, 16);
    memcpy(h.base, drbd_kind, 16);
    disk_hello_put(raw, &h);
    drbd_link_send(in, DISK_HELLO, 0, raw, sizeof(raw));
}

static int new_uuid(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct disk_state fresh = in->state;

    if (!disk_id_none(fresh.uuid)) return 0;
    if (disk_random(fresh.uuid, 16)) {
        snprintf(why, DRBD_WHY_MAX, "no random number");
        return -1;
    }
    if (!fresh.generation) fresh.generation = 1;
    return drbd_save_state(in, &fresh, why);
}

/* The configuration may have changed since the start. DRBD that gave up its connection tries again. */
static int fit_for_link(struct drbd_instance *in, char why[DRBD_WHY_MAX])
{
    struct drbd_status s;

    if (drbd_res_load(&in->res, in->resource, why) || drbd_res_suits(&in->res, why) ||
        drbd_res_status(&in->res, &s, why))
        return -1;
    if (!in->primary) return 0;
    if (strcmp(s.role, "Primary")) {
        snprintf(why, DRBD_WHY_MAX, "DRBD resource %s is %s on this host, not Primary",
                 in->resource, s.role[0] ? s.role : s.connection);
        return -1;
    }
    if (!strcmp(s.connection, "StandAlone") && drbd_res_do(&in->res, "connect", NULL, why))
        return -1;
    return new_uuid(in, why);
}

int drbd_link_start(struct drbd_instance *in, int in_fd, int out_fd, char why[DRBD_WHY_MAX])
{
    struct disk_link *l = NULL;

    if (in->link && in->primary)
        snprintf(why, DRBD_WHY_MAX, "there is a link: unprotect first");
    else if (!fit_for_link(in, why)) {
        if (in->link) drbd_link_lost(in, "another link replaces it");
        l = disk_link_new(NULL, in_fd, out_fd);
        if (!l) snprintf(why, DRBD_WHY_MAX, "no memory for the link");
    }
    if (!l) {
        close(in_fd);
        if (out_fd != in_fd) close(out_fd);
        return -1;
    }
    in->link = l;
    in->phase = DRBD_ALONE;
    in->epoch = in->committed = 0;
    in->heard_ms = disk_now_ms();
    in->until_ms = in->heard_ms + DRBD_ANSWER_MS;
    if (in->primary) drbd_say_hello(in);
    return 0;
}

void drbd_link_readable(struct drbd_instance *in)
{
    struct disk_frame f;
    bool fine;
    int r;

    r = disk_link_read(in->link, &f, FRAME_LIMIT_MS);
    if (r) {
        drbd_link_lost(in, "%s", disk_link_error(r));
        return;
    }
    in->heard_ms = disk_now_ms();
    fine = in->primary ? drbd_primary_frame(in, &f) : drbd_backup_frame(in, &f);
    if (!fine && in->link)
        drbd_link_refuse(in, "the %s sent frame %u out of turn", in->primary ? "backup" : "primary",
                         f.type);
}
