/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_twin_disk.h"

#include <inttypes.h>
#include <libxl.h>
#include <string.h>

static libxl__twin_disk *disks_of(libxl__disk_set *ds)
{
    return CONTAINER_OF(ds, libxl__twin_disk, set);
}

void libxl__twin_disk_init(libxl__twin_disk *td)
{
    memset(td, 0, sizeof(*td));
    libxl__disk_set_init(&td->set);
}

static bool all_have(const libxl__twin_disk *td, uint64_t n)
{
    for (unsigned i = 0; i < td->n; i++)
        if (td->barrier[i] < n) return false;
    return true;
}

static void barrier_reached(libxl__egc *egc, libxl__twin_disk *td, unsigned disk, uint64_t n)
{
    if (n > td->barrier[disk]) td->barrier[disk] = n;
    if (!td->awaited || !all_have(td, td->awaited)) return;
    td->awaited = 0;
    td->ready(egc, td);
}

/* What was sealed before we subscribed has no event. */
static void words_came(libxl__egc *egc, libxl__disk_set *ds, unsigned disk, const char *text)
{
    uint64_t epoch;

    if (libxl__disk_number(text, "epoch", &epoch)) barrier_reached(egc, disks_of(ds), disk, epoch);
}

static void event_came(libxl__egc *egc, libxl__disk_set *ds, unsigned disk, enum disk_event what,
                       uint64_t a, uint64_t b, const char *text)
{
    libxl__twin_disk *td = disks_of(ds);

    switch (what) {
    case DISK_BARRIER:
        barrier_reached(egc, td, disk, a);
        return;
    case DISK_LOST: /* the primary notices too, and says over the channel what is to become of us */
        if (!td->promoting) LOG(libxl__loop_gc(td->loop), WARN, "%s: %s", td->domain, td->set.why);
        return;
    case DISK_SYNCED:
    case DISK_PROGRESS:
        return;
    }
}

static void instance_gone(libxl__egc *egc, libxl__disk_set *ds, unsigned disk)
{
    libxl__twin_disk *td = disks_of(ds);

    td->gone(egc, td);
}

static void commit_done(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    libxl__twin_disk *td = disks_of(ds);

    td->committed(egc, td, rc);
}

static void promote_done(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    libxl__twin_disk *td = disks_of(ds);

    td->promoted(egc, td, rc);
}

int libxl__twin_disk_attach(libxl__twin_disk *td)
{
    int rc;

    if (!td->n || libxl__disk_set_isopen(&td->set)) return 0;
    td->set.loop = td->loop;
    td->set.domain = td->domain;
    td->set.vdevs = td->vdevs;
    td->set.n = td->n;
    td->set.event = event_came;
    td->set.words = words_came;
    td->set.gone = instance_gone;
    rc = libxl__disk_set_open(&td->set);
    if (!rc) rc = libxl__disk_set_ask(&td->set, NULL, NULL, "status");
    return rc;
}

bool libxl__twin_disk_have(libxl__twin_disk *td, uint64_t n)
{
    if (all_have(td, n)) return true;
    td->awaited = n;
    return false;
}

static int ask(libxl__twin_disk *td, libxl__disk_done *done, const char *word, uint64_t n)
{
    if (!td->n) return 1;
    if (!libxl__disk_set_isopen(&td->set)) return ERROR_FAIL;
    return libxl__disk_set_ask(&td->set, done, NULL, "%s %" PRIu64, word, n);
}

int libxl__twin_disk_commit(libxl__twin_disk *td, uint64_t n)
{
    return ask(td, commit_done, "commit", n);
}

int libxl__twin_disk_promote(libxl__twin_disk *td, uint64_t n)
{
    td->promoting = true;
    td->awaited = 0;
    return ask(td, promote_done, "promote", n);
}

void libxl__twin_disk_drop(libxl__twin_disk *td)
{
    td->awaited = 0;
    if (!td->n || td->promoting || !libxl__disk_set_isopen(&td->set)) return;
    (void)libxl__disk_set_ask(&td->set, NULL, NULL, "drop");
    /* Nobody needs them until the next link, which starts them again. */
    (void)libxl__disk_set_ask(&td->set, NULL, NULL, "stop");
    libxl__disk_set_dispose(&td->set);
}

void libxl__twin_disk_dispose(libxl__twin_disk *td)
{
    libxl__disk_set_dispose(&td->set);
}
