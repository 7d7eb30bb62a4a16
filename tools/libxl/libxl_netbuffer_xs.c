/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Which interfaces a guest's output comes from: read from the toolstack's own part of xenstore
 * (/libxl/<domid>), which the guest cannot write.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxl.h>
#include <net/if.h>

#include "libxl_netbuffer.h"

#define EMU_SUFFIX "-emu"

struct if_list {
    char name[NETBUFFER_MAX_IFS][IF_NAMESIZE];
    const char *ptr[NETBUFFER_MAX_IFS];
    int nr;
};

/* A value of xenstore as a string of ours, or NULL (errno set). */
static char *read_value(libxl__gc *gc, struct xs_handle *xs, const char *path)
{
    unsigned int len;
    char *raw, *value;

    raw = xs_read(xs, XBT_NULL, path, &len);
    if (!raw) return NULL;
    value = libxl__strdup(gc, raw); /* xs_read ends it with a NUL */
    free(raw);
    return value;
}

static int add_if(libxl__gc *gc, struct if_list *list, const char *name)
{
    if (list->nr == NETBUFFER_MAX_IFS) {
        LOG(gc, ERROR, "net buffer: the guest has more than %d interfaces", NETBUFFER_MAX_IFS);
        return ERROR_INVAL;
    }
    snprintf(list->name[list->nr], IF_NAMESIZE, "%s", name);
    list->ptr[list->nr] = list->name[list->nr];
    list->nr++;
    return 0;
}

/* The backend must be "/local/domain/0/backend/vif/<domid>/<devid>". */
static int check_backend(libxl__gc *gc, uint32_t domid, const char *devid, const char *backend)
{
    const char *want = libxl__sprintf(gc, "/local/domain/0/backend/vif/%u/%s", domid, devid);
    unsigned int backend_domid;

    if (!strcmp(backend, want)) return 0;
    if (sscanf(backend, "/local/domain/%u/backend/vif/", &backend_domid) == 1 && backend_domid)
        LOG(gc, ERROR,
            "NIC %s of domain %u has its backend in domain %u: only backends in domain 0 can be "
            "held",
            devid, domid, backend_domid);
    else
        LOG(gc, ERROR, "NIC %s of domain %u has the unexpected backend %s", devid, domid, backend);
    return ERROR_INVAL;
}

/*
 * Both paths of one NIC: the PV interface, which always exists, and the emulated one where QEMU has
 * it.
 */
static int add_nic(libxl__gc *gc, struct xs_handle *xs, uint32_t domid, bool hvm, const char *devid,
                   struct if_list *list)
{
    const char *key = libxl__sprintf(gc, "/libxl/%u/device/vif/%s/backend", domid, devid);
    const char *backend, *name, *emu;
    int rc;

    backend = read_value(gc, xs, key);
    if (!backend) {
        LOGE(gc, ERROR, "cannot read %s", key);
        return ERROR_FAIL;
    }
    rc = check_backend(gc, domid, devid, backend);
    if (rc) return rc;
    name = read_value(gc, xs, libxl__sprintf(gc, "%s/vifname", backend));
    if (!name || !name[0]) name = libxl__sprintf(gc, "vif%u.%s", domid, devid);
    if (strlen(name) >= IF_NAMESIZE) {
        LOG(gc, ERROR, "NIC %s of domain %u: %s is too long for an interface name", devid, domid,
            name);
        return ERROR_INVAL;
    }
    rc = add_if(gc, list, name);
    emu = libxl__sprintf(gc, "%s" EMU_SUFFIX, name);
    if (!rc && hvm && strlen(emu) < IF_NAMESIZE && if_nametoindex(emu)) rc = add_if(gc, list, emu);
    return rc;
}

int libxl__netbuffer_setup(libxl__gc *gc, struct xs_handle *xs, uint32_t domid, bool hvm,
                           uint64_t limit_bytes, libxl__netbuffer **nb)
{
    struct if_list list = {.nr = 0};
    unsigned int nr = 0, i;
    char **devids, ifb[16];
    int rc = 0;

    devids = xs_directory(xs, XBT_NULL, libxl__sprintf(gc, "/libxl/%u/device/vif", domid), &nr);
    if (!devids && errno != ENOENT) {
        LOGE(gc, ERROR, "cannot list the NICs of domain %u", domid);
        return ERROR_FAIL;
    }
    for (i = 0; !rc && devids && i < nr; i++)
        rc = add_nic(gc, xs, domid, hvm, devids[i], &list);
    free(devids);
    if (rc) return rc;
    libxl__netbuffer_ifname(domid, ifb);
    return libxl__netbuffer_setup_ifs(gc, ifb, list.ptr, list.nr, limit_bytes, nb);
}
