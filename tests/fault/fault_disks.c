/* SPDX-License-Identifier: LGPL-2.1-only */
/* The replicated disks of the fake world: two of them, one operation at a time, answered at the next turn. */
#include "fault_world.h"

#include <libxl.h>

#include "libxl_remus.h"

static libxl__disk_device *device;
static bool open_set, answer_due, ending;

static int later(libxl__disk_device *dd)
{
    if (world_faulty()) return ERROR_FAIL;
    answer_due = true;
    return 0;
}

/* libxl__disk_device_inuse looks here. */
static void set_open(libxl__disk_device *dd, bool open)
{
    dd->set.asked = open;
    open_set = open;
}

void libxl__disk_device_init(libxl__disk_device *dd)
{
    device = dd;
    open_set = answer_due = ending = false;
    set_open(dd, false);
}

int libxl__disk_device_sync(libxl__disk_device *dd)
{
    for (unsigned i = 0; i < dd->n; i++)
        if (dd->link(dd->user, i) < 0) return ERROR_FAIL;
    world.open_things++;
    set_open(dd, true);
    return later(dd);
}

int libxl__disk_device_protect(libxl__disk_device *dd)
{
    world.disks_protected = true;
    return later(dd);
}

int libxl__disk_device_close_epoch(libxl__disk_device *dd, uint64_t n)
{
    if (world.guest == GUEST_IS_RUNNING || !world.disks_protected || n != world.acked + 1)
        world.early_barrier = true;
    return later(dd);
}

int libxl__disk_device_unprotect(libxl__disk_device *dd)
{
    world.disks_unprotected = true;
    ending = true;
    return later(dd);
}

void libxl__disk_device_commit(libxl__disk_device *dd, uint64_t n)
{
    if (n != world.acked) world.early_barrier = true;
}

void libxl__disk_device_dispose(libxl__disk_device *dd)
{
    if (open_set) world.open_things--;
    set_open(dd, false);
}

void world_disks_turn(libxl__egc *egc)
{
    if (!answer_due) return;
    answer_due = false;
    device->done(egc, device, 0);
}

void world_lose_disks(void)
{
    if (!open_set || ending) return;
    device->lost(&(libxl__egc){device->loop}, device);
}
