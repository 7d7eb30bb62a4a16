/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The save and the restore engine, end to end, on the fake Xen: whatever the guest does while it is
 * copied, the other side ends up with exactly what the guest had when it was suspended last.
 */
#ifndef ENGINE_WORLD_H
#define ENGINE_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <fcntl.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "fake_xen.h"
#include "xc_sr_record.h"
#include "xc_sr_restore.h"
#include "xc_sr_save.h"

#define PAGE 4096

static enum xc_sr_encode_mode encode; /* of checkpointed streams */
static struct xc_sr_save limits_of;   /* only its limits count */
static unsigned int ref_pages = FAKE_GFNS;
static char last_log[400];
static int verbose;

static inline void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                            const char *ctx, const char *format, va_list al)
{
    if (level >= XTL_ERROR || verbose) {
        vsnprintf(last_log, sizeof(last_log), format, al);
        if (verbose) fprintf(stderr, "%s\n", last_log);
    }
}

static xentoollog_logger logger = {vmessage, NULL, NULL};

/* --- what the guest had at the last suspend --- */

static struct {
    uint8_t there[FAKE_GFNS];
    uint8_t page[FAKE_GFNS][PAGE];
    uint8_t context[FAKE_CONTEXT_SIZE];
} snapshot;

static inline void take_snapshot(void)
{
    uint32_t g;

    for (g = 0; g < FAKE_GFNS; g++) {
        const uint8_t *page = fake_page(FAKE_PRIMARY, g);

        snapshot.there[g] = page != NULL;
        if (page) memcpy(snapshot.page[g], page, PAGE);
    }
    memcpy(snapshot.context, fake_dom[FAKE_PRIMARY].context, FAKE_CONTEXT_SIZE);
}

static inline bool is_shared_page(uint32_t g)
{
    return g == 2000 || g == 2001;
}

/* Pages given back lately may still be there: exact = not even those. */
static inline void compare_backup(bool exact)
{
    uint32_t g;

    for (g = 0; g < FAKE_GFNS; g++) {
        const uint8_t *page = fake_page(FAKE_BACKUP, g);

        if (snapshot.there[g] && !page) fail_msg("gfn %u is missing", g);
        if (exact && !snapshot.there[g] && page) fail_msg("gfn %u should be gone", g);
        if (!snapshot.there[g] || is_shared_page(g)) continue;
        if (memcmp(page, snapshot.page[g], PAGE)) fail_msg("gfn %u differs", g);
    }
    assert_memory_equal(fake_dom[FAKE_BACKUP].context, snapshot.context, FAKE_CONTEXT_SIZE);
}

/* --- the toolstack --- */

static struct {
    int fd;
    struct xc_sr_io *io;
    uint64_t bytes_at_suspend, first_checkpoint_bytes, written_bytes;
    unsigned int suspends, checkpoints, stop_after;
    bool plain, qemu_logs;
    void (*between)(unsigned int checkpoint);
} ts;

static inline int ts_suspend(void *data)
{
    fake_dom[FAKE_PRIMARY].suspended = true;
    fake_dom[FAKE_PRIMARY].context[0]++;
    ts.suspends++;
    ts.bytes_at_suspend = ts.io->bytes;
    take_snapshot();
    return 1;
}

static inline int ts_postcopy(void *data)
{
    /* Invariant 1 of the engine. */
    assert_int_equal(ts.io->bytes, ts.bytes_at_suspend);
    fake_dom[FAKE_PRIMARY].suspended = false;
    return 1;
}

static inline int ts_checkpoint(void *data)
{
    ts.checkpoints++;
    if (ts.checkpoints == 1) ts.first_checkpoint_bytes = ts.io->bytes - ts.bytes_at_suspend;
    if (ts.between) ts.between(ts.checkpoints);
    return ts.checkpoints < ts.stop_after;
}

static inline int ts_qemu(uint32_t domid, unsigned int enable, void *data)
{
    ts.qemu_logs = enable;
    return 0;
}

static inline int ts_restore_checkpoint(void *data)
{
    return XGR_CHECKPOINT_SUCCESS;
}

static inline int ts_static_data_done(unsigned int missing, void *data)
{
    assert_int_equal(missing, 0);
    return 0;
}

static struct save_callbacks save_cb = {
    .suspend = ts_suspend,
    .postcopy = ts_postcopy,
    .checkpoint = ts_checkpoint,
    .switch_qemu_logdirty = ts_qemu,
};

static struct restore_callbacks restore_cb = {
    .checkpoint = ts_restore_checkpoint,
    .static_data_done = ts_static_data_done,
};

static inline void start(void)
{
    uint32_t g;

    fake_reset();
    memset(&ts, 0, sizeof(ts));
    memset(&limits_of, 0, sizeof(limits_of));
    last_log[0] = 0;
    ts.fd = memfd_create("stream", MFD_CLOEXEC);
    for (g = 0; g < 1500; g++)
        if (g % 7) fake_populate(FAKE_PRIMARY, g);
    fake_populate(FAKE_PRIMARY, 2000);
    fake_populate(FAKE_PRIMARY, 2001);
    for (g = 0; g < FAKE_GFNS; g++)
        fake_write(FAKE_PRIMARY, g, g, g * 3 + 1);
    fake_dom[FAKE_PRIMARY].params[HVM_PARAM_STORE_PFN] = 2000;
    fake_dom[FAKE_PRIMARY].params[HVM_PARAM_CONSOLE_PFN] = 2001;
    fake_dom[FAKE_PRIMARY].tsc_khz = 2400000;
}

static uint32_t range_pages = 500; /* of a save that is not live: by two processes */

static inline int run_save_io(bool live, bool checkpointed, struct xc_sr_io *io, uint64_t map_limit)
{
    struct xc_sr_save s = {
        .env = {.lg = &logger, .domid = FAKE_PRIMARY, .io = io},
        .live = live || checkpointed,
        .checkpointed = checkpointed,
        .cb = &save_cb,
        .map_limit_pages = map_limit,
        .range_pages = range_pages,
        .encode = encode,
        .ref_limit_given = true,
        .ref_limit_bytes = (uint64_t)ref_pages * PAGE,
    };
    int rc;

    ts.io = io;
    s.limits = limits_of.limits;
    rc = xc_sr_save(&s);
    /* Invariant 2 of the engine, whatever happened. */
    assert_false(fake_dom[FAKE_PRIMARY].log_on);
    assert_false(ts.qemu_logs);
    assert_int_equal(fake_mappings, 0);
    return rc;
}

static inline int run_save(bool live, bool checkpointed)
{
    struct xc_sr_io io;
    int rc;

    xc_sr_io_init(&io, ts.fd, -1, -1);
    rc = run_save_io(live, checkpointed, &io, 0);
    ts.written_bytes = io.bytes;
    xc_sr_io_dispose(&io);
    return rc;
}

static uint64_t backup_max_kb; /* 0: as libxl made it */

static inline int run_restore(bool checkpointed)
{
    struct xc_sr_io io;
    struct xc_sr_restore r = {
        .env = {.lg = &logger, .domid = FAKE_BACKUP, .io = &io, .max_kb = backup_max_kb},
        .checkpointed = checkpointed,
        .cb = &restore_cb,
    };
    int rc;

    lseek(ts.fd, 0, SEEK_SET);
    xc_sr_io_init(&io, ts.fd, -1, -1);
    rc = xc_sr_restore(&r);
    if (!rc) {
        assert_int_equal(r.store_gfn, 2000);
        assert_int_equal(r.console_gfn, 2001);
    }
    assert_int_equal(fake_mappings, 0);
    return rc;
}

static inline void finish(void)
{
    close(ts.fd);
}

#endif
