/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's devices must stay those of the start: the twin was made of the configuration of then. A network
 * interface that is attached now would not be held (invariant 1 would be broken), a disk not be replicated.
 *
 * What counts is /libxl/<domid>/device/<kind>/<number>, which only the toolstack writes, with the backend and
 * frontend that are named there. It writes more below it (a CD-ROM's medium), so the watch alone says nothing.
 *
 *   attached               the protection ends at once
 *   detached               it ends a while later: xl destroy detaches everything first, and is no failure
 *   attached again         ends at once, also when it looks the same: the new one was never redirected
 *   an interface is gone,  it ends a while later, if it is still so: detaching begins like that; at once if there
 *   its device is not      is another one of that name
 *
 * The configuration is read by the caller, before: what changed since then it tells by what libxl_replication_devices said.
 */
#include "libxl_remus.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES_MAX 1024
#define DETACHED_MS 10000

/* Of one guest. */
struct lister {
    struct xs_handle *xs;
    uint32_t domid;
    libxl__gc *list; /* owns one struct device for each, and nothing else */
};

/* A word of xenstore, malloced, or NULL. */
static char *read_word(const struct lister *l, const char *folder, const char *node)
{
    char path[256];
    unsigned len;

    snprintf(path, sizeof(path), "%s/%s", folder, node);
    return xs_read(l->xs, XBT_NULL, path, &len);
}

struct device {
    unsigned index; /* of the interface, which another one of the same name has not; 0: none */
    bool gone;      /* it was seen that it is not there */
    char text[];    /* "vif/0 <backend> <frontend>" */
};

static unsigned interface_index(const struct lister *l, const char *kind, const char *id,
                                const char *backend)
{
    char name[IF_NAMESIZE], *given;

    if (strcmp(kind, "vif") || !backend) return 0;
    given = read_word(l, backend, "vifname");
    if (given && *given)
        snprintf(name, sizeof(name), "%s", given);
    else
        snprintf(name, sizeof(name), "vif%u.%s", l->domid, id);
    free(given);
    return if_nametoindex(name);
}

static int add_device(const struct lister *l, const char *kind, const char *id)
{
    char folder[160], text[512], *backend, *frontend;
    struct device *d;
    unsigned n = 0;
    void *nodes;

    if (l->list->used == DEVICES_MAX) return ERROR_FAIL;
    snprintf(folder, sizeof(folder), "/libxl/%u/device/%.60s/%.60s", l->domid, kind, id);
    nodes = xs_directory(l->xs, XBT_NULL, folder, &n);
    if (!nodes) return errno == ENOENT ? 0 : ERROR_FAIL; /* just removed */
    free(nodes);
    backend = read_word(l, folder, "backend");
    frontend = read_word(l, folder, "frontend");
    snprintf(text, sizeof(text), "%s/%s %s %s", kind, id, backend ? backend : "-",
             frontend ? frontend : "-");
    d = libxl__zalloc(l->list, sizeof(*d) + strlen(text) + 1);
    d->index = interface_index(l, kind, id, backend);
    strcpy(d->text, text);
    free(backend);
    free(frontend);
    return 0;
}

static int list_kind(const struct lister *l, const char *kind)
{
    char folder[96], **ids;
    unsigned n = 0;
    int rc = 0;

    snprintf(folder, sizeof(folder), "/libxl/%u/device/%.60s", l->domid, kind);
    ids = xs_directory(l->xs, XBT_NULL, folder, &n);
    if (!ids) return errno == ENOENT ? 0 : ERROR_FAIL;
    for (unsigned i = 0; !rc && i < n; i++)
        rc = add_device(l, kind, ids[i]);
    free(ids);
    return rc;
}

static int list_devices(const struct lister *l)
{
    char folder[32], **kinds;
    unsigned n = 0;
    int rc = 0;

    snprintf(folder, sizeof(folder), "/libxl/%u/device", l->domid);
    kinds = xs_directory(l->xs, XBT_NULL, folder, &n);
    if (!kinds) return errno == ENOENT ? 0 : ERROR_FAIL;
    for (unsigned i = 0; !rc && i < n; i++)
        rc = list_kind(l, kinds[i]);
    free(kinds);
    return rc;
}

/* A line for each device, and one for the vcpus; malloced, or NULL. */
static char *list_text(const libxl__gc *list, unsigned vcpus)
{
    size_t size = 24, at = 0;
    char *text;

    for (size_t i = 0; i < list->used; i++)
        size += strlen(((const struct device *)list->ptrs[i])->text) + 16;
    text = malloc(size);
    if (!text) return NULL;
    *text = 0;
    for (size_t i = 0; i < list->used; i++) {
        const struct device *d = list->ptrs[i];

        at += (size_t)snprintf(text + at, size - at, "%s %u\n", d->text, d->index);
    }
    snprintf(text + at, size - at, "vcpus %u\n", vcpus);
    return text;
}

LIBXL_REPLICATION_EXPORT char *libxl_replication_devices(libxl_ctx *ctx, uint32_t domid)
{
    struct lister l = {.xs = xs_open(0), .domid = domid};
    char *text = NULL;
    libxl__gc list;

    (void)ctx;
    if (!l.xs) return NULL;
    libxl__gc_init(&list, NULL);
    l.list = &list;
    if (!list_devices(&l)) text = list_text(&list, remus_online_vcpus(l.xs, domid));
    libxl__gc_dispose(&list);
    xs_close(l.xs);
    return text;
}

static int list_now(libxl__remus *rm, libxl__gc *list)
{
    const struct lister l = {.xs = libxl__loop_xs(rm->loop), .domid = rm->domid, .list = list};

    return list_devices(&l);
}

static struct device *find(const libxl__gc *list, const struct device *d)
{
    for (size_t i = 0; i < list->used; i++) {
        struct device *other = list->ptrs[i];

        if (!strcmp(other->text, d->text)) return other;
    }
    return NULL;
}

/* The caller must touch rm no more. */
static void end(libxl__egc *egc, libxl__remus *rm, const struct device *d, const char *what)
{
    bool nic = !strncmp(d->text, "vif/", 4);

    remus_message(rm, "domain %u: the %s %.*s was %s: protection ends, start it again", rm->domid,
                  nic ? "network interface" : "device", (int)strcspn(d->text, " "), d->text, what);
    libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
}

static void look_again(libxl__egc *egc, libxl__ev_time *ev);

/* now: what there is. late: nothing may be missing any more. */
static void compare(libxl__egc *egc, libxl__remus *rm, const libxl__gc *now, bool late)
{
    const struct device *missing = NULL;

    for (size_t i = 0; i < now->used; i++) {
        if (find(&rm->devices, now->ptrs[i])) continue;
        end(egc, rm, now->ptrs[i], "attached, and is neither held nor replicated");
        return;
    }
    for (size_t i = 0; i < rm->devices.used; i++) {
        struct device *d = rm->devices.ptrs[i], *same = find(now, d);
        bool other = same && same->index && d->index && same->index != d->index;

        if (other || (same && d->gone)) {
            end(egc, rm, d, "detached and attached again, and is not held or replicated");
            return;
        }
        if (!same) d->gone = true;
        if (!same || (d->index && same->index != d->index)) missing = d;
    }
    if (!missing) return;
    if (late || (!rm->device_timer.registered &&
                 libxl__ev_time_register_rel(rm->loop, &rm->device_timer, look_again, DETACHED_MS)))
        end(egc, rm, missing, "detached, and its twin has it");
}

static void look(libxl__egc *egc, libxl__remus *rm, bool late)
{
    libxl__gc now;

    if (libxl__epoch_undoing(&rm->epoch)) return;
    libxl__gc_init(&now, rm->gc->lg);
    if (!list_now(rm, &now)) compare(egc, rm, &now, late);
    libxl__gc_dispose(&now);
}

/* Long enough for xl destroy: the guest has ended by now, if it was that. */
static void look_again(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, device_timer);

    if (libxl__dom_end(rm->xch, rm->domid) == GUEST_LIVES) look(egc, rm, true);
}

static void devices_changed(libxl__egc *egc, libxl__ev_xswatch *ev, const char *watchpath,
                            const char *eventpath)
{
    look(egc, CONTAINER_OF(ev, libxl__remus, device_watch), false);
}

/* Whether they are still those of the configuration. */
static int as_configured(libxl__remus *rm)
{
    char *text;
    bool same;

    if (!rm->info.devices) return 0; /* the caller sees to it */
    text = list_text(&rm->devices, rm->vcpus);
    same = text && !strcmp(text, rm->info.devices);
    free(text);
    if (same) return 0;
    remus_message(rm,
                  "domain %u: a device was attached or detached, or its vcpus changed, since its "
                  "configuration was "
                  "read: start the protection again",
                  rm->domid);
    return ERROR_FAIL;
}

int remus_watch_devices(libxl__remus *rm)
{
    char path[32];
    int rc;

    if (list_now(rm, &rm->devices)) {
        LOG(rm->gc, ERROR, "domain %u: cannot list its devices", rm->domid);
        return ERROR_FAIL;
    }
    rm->vcpus = remus_online_vcpus(libxl__loop_xs(rm->loop), rm->domid);
    rc = as_configured(rm);
    if (rc) return rc;
    snprintf(path, sizeof(path), "/libxl/%u/device", rm->domid);
    return libxl__ev_xswatch_register(rm->loop, &rm->device_watch, devices_changed, path);
}

void remus_unwatch_devices(libxl__remus *rm)
{
    libxl__ev_xswatch_deregister(rm->loop, &rm->device_watch);
    libxl__ev_time_deregister(rm->loop, &rm->device_timer);
    libxl__gc_dispose(&rm->devices);
}
