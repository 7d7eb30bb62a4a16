/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_disk_device.h"

#include <inttypes.h>
#include <libxl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static libxl__disk_device *device_of(libxl__disk_set *ds)
{
    return CONTAINER_OF(ds, libxl__disk_device, set);
}

void libxl__disk_device_init(libxl__disk_device *dd)
{
    memset(dd, 0, sizeof(*dd));
    libxl__disk_set_init(&dd->set);
}

static void operation_done(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    libxl__disk_device *dd = device_of(ds);

    if (!dd->ending) dd->done(egc, dd, rc);
}

/* ---- synchronise ---- */

static void sync_ended(libxl__egc *egc, libxl__disk_device *dd, int rc)
{
    if (!dd->syncing) return;
    dd->syncing = false;
    dd->done(egc, dd, rc);
}

/* Answered; what counts now is that every disk says it is synchronised. */
static void sync_begun(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    if (rc) sync_ended(egc, device_of(ds), rc);
}

static void linked(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    libxl__disk_device *dd = device_of(ds);

    if (!dd->syncing) return;
    if (!rc) rc = libxl__disk_set_ask(ds, sync_begun, NULL, "sync");
    if (rc) sync_ended(egc, dd, rc);
}

static void disk_synced(libxl__egc *egc, libxl__disk_device *dd, unsigned disk)
{
    dd->synced |= 1u << disk;
    if (dd->synced == (1u << dd->n) - 1) sync_ended(egc, dd, 0);
}

static void disk_progress(libxl__egc *egc, libxl__disk_device *dd, unsigned disk, uint64_t done,
                          uint64_t total)
{
    uint64_t all_done = 0, all = 0;

    dd->progress_done[disk] = done;
    dd->progress_total[disk] = total;
    for (unsigned i = 0; i < dd->n; i++) {
        /* The others are known only when they have said something, too. */
        if (!dd->progress_total[i] && !(dd->synced & 1u << i)) return;
        all_done += dd->progress_done[i];
        all += dd->progress_total[i];
    }
    if (dd->syncing && dd->progress) dd->progress(egc, dd, all_done, all);
}

static int give_links(libxl__disk_device *dd)
{
    int fds[DISK_MAX] = {0}, rc = 0;
    unsigned got = 0;

    while (!rc && got < dd->n) {
        fds[got] = dd->link(dd->user, got);
        if (fds[got] < 0) {
            snprintf(dd->set.why, sizeof(dd->set.why), "disk %s: no link to the backup",
                     dd->vdevs[got]);
            rc = ERROR_FAIL;
        } else {
            got++;
        }
    }
    dd->given = !rc;
    if (!rc) rc = libxl__disk_set_ask(&dd->set, linked, fds, "link");
    for (unsigned i = 0; i < got; i++)
        close(fds[i]); /* the instances have their own copies */
    return rc;
}

/* What a protection that was killed left open is ended. */
static void old_link_ended(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    libxl__disk_device *dd = device_of(ds);

    if (!dd->syncing) return;
    if (!rc) rc = give_links(dd);
    if (rc) sync_ended(egc, dd, rc);
}

/* ---- what the instances say ---- */

static void disk_lost(libxl__egc *egc, libxl__disk_device *dd)
{
    if (dd->ending) return;
    if (dd->syncing)
        sync_ended(egc, dd, ERROR_FAIL);
    else
        dd->lost(egc, dd);
}

static void event_came(libxl__egc *egc, libxl__disk_set *ds, unsigned disk, enum disk_event what,
                       uint64_t a, uint64_t b, const char *text)
{
    libxl__disk_device *dd = device_of(ds);

    /* Of the link that a killed protection left open: it is ended, and nothing that it says counts. */
    if (!dd->given) return;
    switch (what) {
    case DISK_SYNCED:
        disk_synced(egc, dd, disk);
        return;
    case DISK_PROGRESS:
        disk_progress(egc, dd, disk, a, b);
        return;
    case DISK_LOST:
        disk_lost(egc, dd);
        return;
    case DISK_BARRIER: /* the twin waits for it, not we */
        return;
    }
}

static void instance_gone(libxl__egc *egc, libxl__disk_set *ds, unsigned disk)
{
    disk_lost(egc, device_of(ds));
}

/* ---- operations ---- */

int libxl__disk_device_sync(libxl__disk_device *dd)
{
    int rc;

    dd->set.loop = dd->loop;
    dd->set.domain = dd->domain;
    dd->set.vdevs = dd->vdevs;
    dd->set.n = dd->n;
    dd->set.event = event_came;
    dd->set.gone = instance_gone;
    rc = libxl__disk_set_open(&dd->set);
    if (rc) {
        libxl__disk_set_dispose(&dd->set);
        return rc;
    }
    dd->syncing = true;
    rc = libxl__disk_set_ask(&dd->set, old_link_ended, NULL, "unprotect");
    if (rc) dd->syncing = false;
    return rc;
}

int libxl__disk_device_protect(libxl__disk_device *dd)
{
    return libxl__disk_set_ask(&dd->set, operation_done, NULL, "protect");
}

int libxl__disk_device_close_epoch(libxl__disk_device *dd, uint64_t n)
{
    return libxl__disk_set_ask(&dd->set, operation_done, NULL, "barrier %" PRIu64, n);
}

void libxl__disk_device_commit(libxl__disk_device *dd, uint64_t n)
{
    /* An instance that does not answer is noticed at the next barrier. */
    (void)libxl__disk_set_ask(&dd->set, NULL, NULL, "commit %" PRIu64, n);
}

static void unprotected(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    libxl__disk_device *dd = device_of(ds);

    dd->done(egc, dd, rc);
}

int libxl__disk_device_unprotect(libxl__disk_device *dd)
{
    dd->ending = true;
    dd->syncing = false;
    return libxl__disk_set_ask(&dd->set, unprotected, NULL, "unprotect");
}

void libxl__disk_device_dispose(libxl__disk_device *dd)
{
    libxl__disk_set_dispose(&dd->set);
}
