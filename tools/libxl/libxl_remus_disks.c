/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The steps of the plans that are about replicated disks. Without such disks each ends at once.
 *
 * Why the barrier stands between the copy of the memory and the resume: a write that the guest has seen completed before it
 * was suspended is in the instance, so it is before the barrier, and so is what QEMU held when it was stopped. A write that
 * was still under way may land on either side. The guest's frontend has no answer to it in the memory that was copied, so
 * the twin does it again, the same bytes at the same place: both are legal.
 */
#include <libxl.h>
#include <stdio.h>

#include "libxl_remus_disks.h"

#define MESSAGE_STEP_PERCENT 20

static void disks_done(libxl__egc *egc, libxl__disk_device *dd, int rc)
{
    libxl__remus *rm = dd->user;

    if (rc && !libxl__epoch_undoing(&rm->epoch))
        remus_message(rm, "domain %u: %s", rm->domid, dd->set.why);
    remus_event(egc, rm, WAIT_DISKS, rc);
}

static void disks_progress(libxl__egc *egc, libxl__disk_device *dd, uint64_t done, uint64_t total)
{
    libxl__remus *rm = dd->user;
    unsigned percent = total ? (unsigned)((double)done * 100 / (double)total) : 100;

    if (percent < rm->disk_percent + MESSAGE_STEP_PERCENT) return;
    rm->disk_percent = percent - percent % MESSAGE_STEP_PERCENT;
    remus_message(rm, "domain %u: disks: %u %% of %lu MiB synchronised", rm->domid, percent,
                  (unsigned long)(total >> 20));
}

static void disks_lost(libxl__egc *egc, libxl__disk_device *dd)
{
    libxl__remus *rm = dd->user;

    if (libxl__epoch_undoing(&rm->epoch)) return;
    remus_message(rm, "domain %u: the backup does not follow the disks any more: %s", rm->domid,
                  dd->set.why);
    libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
}

static int link_disk(void *user, unsigned disk)
{
    libxl__remus *rm = user;

    return rm->info.disk_link(rm->info.user, disk);
}

/* Starts an operation on the disks, or ends the step: without disks, or when it cannot be started. */
static void start_on_disks(libxl__egc *egc, libxl__remus *rm, int (*op)(libxl__disk_device *dd))
{
    int rc;

    if (!rm->info.num_disks) {
        libxl__epoch_next(egc, &rm->epoch, 0);
        return;
    }
    remus_wait_for(rm, WAIT_DISKS);
    rc = op(&rm->disks);
    if (rc) disks_done(egc, &rm->disks, rc);
}

void remus_sync_disks(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    rm->disks.loop = rm->loop;
    rm->disks.domain = rm->info.domain_name;
    rm->disks.vdevs = rm->info.disks;
    rm->disks.n = rm->info.num_disks;
    rm->disks.user = rm;
    rm->disks.link = link_disk;
    rm->disks.done = disks_done;
    rm->disks.progress = disks_progress;
    rm->disks.lost = disks_lost;
    start_on_disks(egc, rm, libxl__disk_device_sync);
}

void remus_protect_disks(libxl__egc *egc, libxl__epoch *ep)
{
    start_on_disks(egc, remus_of(ep), libxl__disk_device_protect);
}

static int close_this_epoch(libxl__disk_device *dd)
{
    libxl__remus *rm = dd->user;

    return libxl__disk_device_close_epoch(dd, rm->checkpoint);
}

void remus_close_disks_epoch(libxl__egc *egc, libxl__epoch *ep)
{
    start_on_disks(egc, remus_of(ep), close_this_epoch);
}

void remus_commit_disks(libxl__remus *rm)
{
    if (rm->info.num_disks) libxl__disk_device_commit(&rm->disks, rm->acked);
}

void remus_settle_disks(libxl__egc *egc, libxl__epoch *ep)
{
    libxl__remus *rm = remus_of(ep);

    /* A side that stays stopped leaves its disks as they are: what is held there must not reach a shared one. */
    if (!libxl__disk_device_inuse(&rm->disks) || rm->fate != FATE_GO_ON) {
        libxl__epoch_next(egc, ep, 0);
        return;
    }
    start_on_disks(egc, rm, libxl__disk_device_unprotect);
}
