/* SPDX-License-Identifier: LGPL-2.1-only */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xl.h"
#include "xl_disk.h"
#include "xl_opts.h"

#define SCRIPT "block-remus"
#define DRBD_SCRIPT "block-drbd"

static const char *base_name(const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;

    return slash ? slash + 1 : path;
}

static bool has_script(const libxl_device_disk *disk, const char *script)
{
    const char *base = base_name(disk->script);

    return base && !strcmp(base, script);
}

bool xl_disk_is_replicated(const libxl_device_disk *disk)
{
    return has_script(disk, SCRIPT);
}

static int take_replicated(struct xl_disks *d, const char *command, const char *name,
                           const libxl_device_disk *disk)
{
    if (d->n == DISK_MAX)
        return xl_fail(command, "'%s' has more than %d replicated disks", name, DISK_MAX);
    if (!disk->vdev || !libxl__disk_vdev_ok(disk->vdev))
        return xl_fail(command, "disk '%s' of '%s' has no usable name: vdev=xvda", disk->vdev,
                       name);
    snprintf(d->vdev[d->n], sizeof(d->vdev[0]), "%s", disk->vdev);
    d->names[d->n] = d->vdev[d->n];
    snprintf(d->target[d->n], DISK_PEER_MAX, "%s", disk->pdev_path ? disk->pdev_path : "");
    if (xl_disk_target_is_old(d->target[d->n]))
        xl_say(command, "disk %s: '%s' is blktap2's spelling; write target=remus:HOST|PATH",
               disk->vdev, disk->pdev_path);
    if (!d->shared && disk->pdev_path && xl_disk_target_is_shared(disk->pdev_path))
        d->shared = d->names[d->n];
    d->n++;
    return XL_DONE;
}

/* The disk is written to, and nothing brings that to the other host. */
static int refuse(const char *command, const char *name, const libxl_device_disk *disk)
{
    const char *vdev = disk->vdev ? disk->vdev : "?";
    const char *path = disk->pdev_path ? disk->pdev_path : "?", *bar = strchr(path, '|');

    if (!strncmp(path, "remus:", 6) || xl_disk_target_is_old(path)) {
        const char *file = bar ? bar + 1 : "PATH";

        if (!strncmp(file, "aio:", 4)) file += 4;
        return xl_fail(command,
                       "disk %s (%s) of '%s' is written as for blktap2, which is gone: write "
                       "'script=block-remus,vdev=%s,target=remus:HOST|%s' and start it again",
                       vdev, path, name, vdev, file);
    }
    if (has_script(disk, DRBD_SCRIPT))
        return xl_fail(
            command,
            "disk %s (%s) of '%s' is on DRBD, which copies each write at once and cannot take one "
            "back by itself: write 'script=block-remus,vdev=%s,target=drbd:%s', which takes a "
            "snapshot at each checkpoint, and start it again; or accept a disk that is newer than "
            "the memory with -F -d",
            vdev, path, name, vdev, path);
    return xl_fail(command,
                   "disk %s (%s) of '%s' is not replicated: use script=block-remus for it (see "
                   "xl-remus(1)), detach it, make it read-only, or accept with -F -d that the twin "
                   "sees the disk as HOST has it",
                   vdev, path, name);
}

int xl_disks_take(struct xl_disks *d, const char *command, const char *name,
                  const libxl_domain_config *config, bool allow_others, unsigned *read_only)
{
    int rc = XL_DONE;

    *d = (struct xl_disks){0};
    *read_only = 0;
    for (int i = 0; !rc && i < config->num_disks; i++) {
        const libxl_device_disk *disk = &config->disks[i];

        if (xl_disk_is_replicated(disk))
            rc = take_replicated(d, command, name, disk);
        else if (!disk->readwrite || disk->is_cdrom)
            ++*read_only;
        else if (!allow_others)
            rc = refuse(command, name, disk);
    }
    return rc;
}

int xl_disks_want_arbiter(const struct xl_disks *d, const char *command, const char *name,
                          const char *arbiter)
{
    if (!d->shared || arbiter) return XL_DONE;
    return xl_fail(
        command,
        "disk %s of '%s' is storage that both hosts write to: name an arbiter that fences "
        "the loser, --arbiter ARBITER (see xl-remus(1), DISKS)",
        d->shared, name);
}

int xl_disks_refuse_migration(libxl_ctx *ctx, uint32_t domid, const char *name)
{
    libxl_domain_config config;
    int rc = XL_DONE;

    libxl_domain_config_init(&config);
    /* A guest whose configuration cannot be read is for the stock xl to judge. */
    if (libxl_retrieve_domain_configuration(ctx, domid, &config, NULL)) goto out;
    for (int i = 0; !rc && i < config.num_disks; i++) {
        if (!xl_disk_is_replicated(&config.disks[i])) continue;
        rc = xl_fail("migrate",
                     "disk %s of '%s' belongs to this host (block-remus): it does not move with "
                     "the guest; 'xl remus %s HOST' keeps guest and disk at HOST too",
                     config.disks[i].vdev, name, name);
    }
out:
    libxl_domain_config_dispose(&config);
    return rc;
}
