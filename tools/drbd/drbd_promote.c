/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup becomes the primary, at checkpoint n.
 *
 *     disconnect                     note the generations; DRBD's fencing is on and it is still connected: wait until it notices, else refuse
 *     primary, secondary             without force: DRBD decides, and asks its fence handler. No: connected again, refused
 *     detach
 *     volume = snapshot n            metadata: every block may differ (drbd_snap.h has the order)
 *     attach, primary --force        force, since the metadata say so; that it may be primary was settled above
 *     state: primary, generation + 1
 *     connect                        an old primary that comes back is overwritten as a whole, or refused by DRBD
 *
 * Whatever fails behind "detach" leaves a resource that is not up to date: DRBD copies it anew from the other side, in full.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "disk_util.h"
#include "drbd_instance.h"

#define NOTICE_LIMIT_MS 30000

struct promotion {
    struct drbd_instance *in;
    char history
        [DRBD_HISTORY_SIZE]; /* before DRBD made a new generation: by it the old primary is known */
};

static int take_permission(struct promotion *p, char why[DRBD_WHY_MAX])
{
    struct drbd_instance *in = p->in;
    int64_t until = disk_now_ms() + NOTICE_LIMIT_MS;
    char lost[DRBD_WHY_MAX];
    struct drbd_status s;

    for (;;) {
        if (drbd_res_status(&in->res, &s, why)) return -1;
        if (!in->res.config.fencing || strcmp(s.connection, "Connected")) break;
        if (disk_now_ms() >= until) {
            snprintf(why, DRBD_WHY_MAX,
                     "DRBD resource %s has fencing and is still connected to a primary: it may not "
                     "become primary here",
                     in->resource);
            return -1;
        }
        poll(NULL, 0, DRBD_TICK_MS);
    }
    bool ours = strcmp(s.connection, "StandAlone") != 0;
    if (ours && drbd_res_do(&in->res, "disconnect", "--force", why)) return -1;
    if (drbd_res_history(&in->res, p->history, why) ||
        drbd_res_do(&in->res, "primary", NULL, why)) {
        /* The guest stays with the other side, which is to be mirrored here as before. */
        if (ours) (void)drbd_res_do(&in->res, "connect", NULL, lost);
        return -1;
    }
    return drbd_res_do(&in->res, "secondary", NULL, why);
}

static int invalidate(void *arg, char why[DRBD_WHY_MAX])
{
    struct promotion *p = arg;

    return drbd_res_invalidate(&p->in->res, p->history, why);
}

static int bring_back(struct promotion *p, uint64_t n, char why[DRBD_WHY_MAX])
{
    struct drbd_instance *in = p->in;
    char lost[DRBD_WHY_MAX];

    if (drbd_res_do(&in->res, "detach", NULL, why)) return -1;
    if (drbd_snap_restore(&in->snap, n, invalidate, p, why)) {
        (void)drbd_res_do(&in->res, "attach", NULL, lost);
        return -1;
    }
    if (drbd_res_do(&in->res, "attach", NULL, why)) return -1;
    return drbd_res_do(&in->res, "primary", "--force", why);
}

int drbd_promote(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX])
{
    struct disk_state fresh = in->state;
    struct promotion p = {.in = in};
    char lost[DRBD_WHY_MAX];

    if (in->primary || !n || (n != in->snap.sealed && n != in->snap.committed)) {
        snprintf(why, DRBD_WHY_MAX,
                 in->primary ? "promote: this is a primary"
                             : "promote: there is no snapshot of that checkpoint");
        return -1;
    }
    if (in->link) drbd_link_lost(in, "promoted");
    if (take_permission(&p, why) || bring_back(&p, n, why)) return -1;
    fresh.primary = true;
    fresh.secured = false;
    fresh.generation++;
    if (drbd_save_state(in, &fresh, why)) {
        (void)drbd_res_do(&in->res, "secondary", NULL, lost);
        return -1;
    }
    in->primary = true;
    in->phase = DRBD_ALONE;
    in->committed = n;
    if (drbd_snap_clear(&in->snap, lost)) disk_log("drbd:%s: %s", in->resource, lost);
    if (drbd_res_do(&in->res, "connect", NULL, lost)) disk_log("drbd:%s: %s", in->resource, lost);
    return 0;
}
