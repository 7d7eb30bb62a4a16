/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The save engine alone, on the fake Xen: a save that is not live, by two processes; and what a checkpoint does, or rather does
 * not, while the guest stands still. The linker leads allocations and writes through this file.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "fake_xen.h"
#include "xc_sr_save.h"

#define CHECKPOINTS 6
#define NEW_GFN 1600
#define GRANT_GFN 1001 /* among pages that are mapped */

static char last_log[400];
static int stream = -1;

/* ---- what the engine calls while the guest is suspended ---- */

static bool in_pause;
static unsigned int pauses, allocations, writes, lines;

#define COUNTED(type, name, counter, params, args)                                                 \
    type __real_##name params;                                                                     \
    type __wrap_##name params;                                                                     \
    type __wrap_##name params                                                                      \
    {                                                                                              \
        if (in_pause) (counter)++;                                                                 \
        return __real_##name args;                                                                 \
    }

COUNTED(void *, malloc, allocations, (size_t n), (n))
COUNTED(void *, calloc, allocations, (size_t n, size_t m), (n, m))
COUNTED(void *, realloc, allocations, (void *p, size_t n), (p, n))
COUNTED(void *, mmap64, allocations, (void *a, size_t n, int prot, int flags, int fd, off_t at),
        (a, n, prot, flags, fd, at))
COUNTED(ssize_t, write, writes, (int fd, const void *p, size_t n), (fd, p, n))
COUNTED(ssize_t, writev, writes, (int fd, const struct iovec *v, int n), (fd, v, n))
COUNTED(ssize_t, sendmsg, writes, (int fd, const struct msghdr *m, int flags), (fd, m, flags))

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *format, va_list al)
{
    if (in_pause) lines++;
    if (level >= XTL_ERROR) vsnprintf(last_log, sizeof(last_log), format, al);
}

static void progress(xentoollog_logger *lg, const char *ctx, const char *what, int percent,
                     unsigned long done, unsigned long total)
{
    if (in_pause) lines++;
}

static xentoollog_logger logger = {vmessage, progress, NULL};

/* ---- the toolstack ---- */

static void (*suspending)(void);

static int cb_suspend(void *data)
{
    if (suspending) suspending();
    fake_dom[FAKE_PRIMARY].suspended = true;
    in_pause = true;
    return 1;
}

static int cb_postcopy(void *data)
{
    in_pause = false;
    fake_dom[FAKE_PRIMARY].suspended = false;
    return 1;
}

static void (*between)(void);

static int cb_checkpoint(void *data)
{
    if (between) between();
    return ++pauses < CHECKPOINTS;
}

static struct save_callbacks callbacks = {
    .suspend = cb_suspend,
    .postcopy = cb_postcopy,
    .checkpoint = cb_checkpoint,
};

static void start(void)
{
    uint32_t g;

    fake_reset();
    last_log[0] = 0;
    between = NULL;
    stream = memfd_create("stream", MFD_CLOEXEC);
    for (g = 0; g < 1500; g++)
        if (g % 7) fake_populate(FAKE_PRIMARY, g);
    fake_dom[FAKE_PRIMARY].tsc_khz = 2400000;
}

static void finish(void)
{
    close(stream);
}

static int run(struct xc_sr_io *io, bool checkpointed, enum xc_sr_encode_mode encode)
{
    struct xc_sr_save s = {
        .env = {.lg = &logger, .domid = FAKE_PRIMARY, .io = io},
        .live = checkpointed,
        .checkpointed = checkpointed,
        .cb = &callbacks,
        .encode = encode,
        .ref_limit_given = true,
        .ref_limit_bytes = 64 << 20,
        .range_pages = 500,
    };
    int rc;

    pauses = allocations = writes = lines = 0;
    rc = xc_sr_save(&s);
    in_pause = false;
    assert_false(fake_dom[FAKE_PRIMARY].log_on);
    assert_int_equal(fake_mappings, 0);
    return rc;
}

static int run_save_io(struct xc_sr_io *io)
{
    return run(io, false, XC_SR_ENCODE_NONE);
}

static int run_save(void)
{
    struct xc_sr_io io;
    int rc;

    xc_sr_io_init(&io, stream, -1, -1);
    rc = run_save_io(&io);
    xc_sr_io_dispose(&io);
    return rc;
}

/* ---- tests ---- */

static struct {
    int fd, stop;
    size_t limit;
} impatient;

/* Says stop when it has read enough, and reads no more. */
static void *read_and_stop(void *unused)
{
    static char buf[65536];
    size_t sum = 0;
    ssize_t n = 1;

    while (n > 0 && sum < impatient.limit) {
        n = read(impatient.fd, buf, sizeof(buf));
        sum += n > 0 ? (size_t)n : 0;
    }
    eventfd_write(impatient.stop, 1);
    return NULL;
}

/* Whichever of the two processes has the turn then: the ranges are of 2 MB. */
static void t_save_whole_stops_in_either_turn(void **state)
{
    unsigned int i;

    for (i = 0; i < 2; i++) {
        struct xc_sr_io io;
        pthread_t thread;
        int p[2];

        start();
        assert_int_equal(pipe(p), 0);
        impatient.fd = p[0];
        impatient.stop = eventfd(0, 0);
        impatient.limit = i ? 2500000 : 500000;
        assert_int_equal(pthread_create(&thread, NULL, read_and_stop, NULL), 0);
        xc_sr_io_init(&io, p[1], impatient.stop, -1);
        (void)fcntl(p[1], F_SETPIPE_SZ, 65536);
        assert_int_equal(run_save_io(&io), -1);
        assert_int_equal(errno, ECANCELED);
        assert_string_equal(last_log, "told to stop");
        assert_int_equal(waitpid(-1, NULL, 0), -1);
        pthread_join(thread, NULL);
        xc_sr_io_dispose(&io);
        close(impatient.stop);
        close(p[0]);
        close(p[1]);
        finish();
    }
}

/* In either process: both count from what was called before they parted. */
static void t_save_whole_nth_call_fails_cleans_up(void **state)
{
    unsigned int n, failed = 0;
    int rc;

    for (n = 1;; n++) {
        start();
        fake_fail_at = n;
        rc = run_save();
        failed += rc != 0;
        assert_true(!rc || last_log[0]);
        finish();
        if (fake_calls < n) break;
    }
    assert_int_equal(rc, 0);
    assert_true(failed > 15);
}

static void t_save_whole_child_fails_is_told(void **state)
{
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) skip(); /* then there is no child */
    start();
    fake_opening = FAKE_OPENS_NOTHING;
    assert_int_equal(run_save(), -1);
    assert_non_null(strstr(last_log, "a second time"));
    fake_opening = FAKE_OPENING_KILLS;
    assert_int_equal(run_save(), -1);
    assert_non_null(strstr(last_log, "second process"));
    assert_int_equal(waitpid(-1, NULL, 0), -1);
    finish();
}

static void guest_writes_much(void)
{
    uint32_t g;

    for (g = 0; g < 1500; g += pauses + 1)
        fake_write(FAKE_PRIMARY, g, g, (uint32_t)rand());
}

static void guest_gets_a_page(void)
{
    guest_writes_much();
    if (pauses == 3) fake_populate(FAKE_PRIMARY, NEW_GFN);
}

static void run_checkpoints(enum xc_sr_encode_mode encode)
{
    struct xc_sr_io io;

    xc_sr_io_init(&io, stream, -1, -1);
    assert_int_equal(run(&io, true, encode), -1); /* the toolstack ended it */
    assert_int_equal(errno, ECANCELED);
    assert_int_equal(pauses, CHECKPOINTS);
    assert_int_equal(writes, 0);
    assert_int_equal(lines, 0);
    xc_sr_io_dispose(&io);
}

static void t_save_pause_neither_allocates_nor_writes(void **state)
{
    static const enum xc_sr_encode_mode modes[] = {XC_SR_ENCODE_NONE, XC_SR_ENCODE_DELTA,
                                                   XC_SR_ENCODE_LZ4};
    unsigned int i;

    for (i = 0; i < 3; i++) {
        start();
        between = guest_writes_much;
        run_checkpoints(modes[i]);
        assert_int_equal(allocations, 0);
        finish();
    }
}

static void guest_grants(void)
{
    guest_writes_much();
    fake_write(FAKE_PRIMARY, GRANT_GFN, pauses, pauses);
}

/* It is neither sent, nor found to be gone, time and again. */
static void t_save_pause_leaves_grant_frames_alone(void **state)
{
    static const uint64_t entry = GRANT_GFN;
    static uint8_t octets[1 << 25];
    ssize_t n;

    start();
    fake_populate(FAKE_PRIMARY, GRANT_GFN);
    fake_dom[FAKE_PRIMARY].special[GRANT_GFN] = 1;
    between = guest_grants;
    run_checkpoints(XC_SR_ENCODE_NONE);
    assert_int_equal(allocations, 0);
    n = pread(stream, octets, sizeof(octets), 0);
    assert_in_range(n, 1, sizeof(octets) - 1);
    assert_null(memmem(octets, (size_t)n, &entry, sizeof(entry)));
    finish();
}

/* To map a page that came is not possible without; the count above is one that can be other than 0. */
static void t_save_pause_maps_what_is_new(void **state)
{
    start();
    between = guest_gets_a_page;
    run_checkpoints(XC_SR_ENCODE_NONE);
    assert_true(allocations > 0);
    finish();
}

static void guest_loses_its_log(void)
{
    if (pauses == 2) fake_dom[FAKE_PRIMARY].log_on = false;
    fake_write(FAKE_PRIMARY, 5, 5, pauses);
}

/* Xen still reads the log, and says that nothing was written. */
static void t_save_log_ended_by_another_ends_the_protection(void **state)
{
    struct xc_sr_io io;

    start();
    between = guest_loses_its_log;
    xc_sr_io_init(&io, stream, -1, -1);
    assert_int_equal(run(&io, true, XC_SR_ENCODE_NONE), -1);
    assert_int_equal(pauses, 3);
    assert_non_null(strstr(last_log, "somebody else ended log-dirty mode"));
    xc_sr_io_dispose(&io);
    finish();
}

static void page_is_swapped(void)
{
    if (pauses != 2) return;
    fake_give_back(FAKE_PRIMARY, 1001);
    fake_populate(FAKE_PRIMARY, 1001); /* full of what was there before */
}

static void page_is_hidden(void)
{
    page_is_swapped();
    fake_hidden = pauses == 2;
}

static void page_comes_behind(void)
{
    if (pauses == 2) fake_hidden = 1, fake_behind = 3000;
}

static void run_to_end(void (*change)(void), unsigned int ends_after, const char *why)
{
    struct xc_sr_io io;

    start();
    between = change;
    xc_sr_io_init(&io, stream, -1, -1);
    assert_int_equal(run(&io, true, XC_SR_ENCODE_NONE), -1);
    assert_int_equal(pauses, ends_after);
    assert_non_null(strstr(last_log, why));
    xc_sr_io_dispose(&io);
    finish();
}

static void t_save_rise_that_nothing_explains_ends_the_protection(void **state)
{
    run_to_end(page_is_swapped, CHECKPOINTS, "");
    run_to_end(page_is_hidden, 3, "has 1 pages more than before, and they are not found");
}

static void memory_comes_behind(void)
{
    page_comes_behind();
    fake_behind_is_memory = true;
}

/* A frame of the grant table, say, and a page that came where it may. */
static void frame_comes_behind(void)
{
    if (pauses == 2) fake_behind = 3000;
    if (pauses == 2) fake_populate(FAKE_PRIMARY, NEW_GFN);
}

static void much_comes_behind(void)
{
    page_comes_behind();
    if (pauses == 2) fake_behind = 1 << 21;
}

static void t_save_page_behind_the_end_ends_the_protection(void **state)
{
    run_to_end(memory_comes_behind, 3, "grew behind pfn 0x834");
    run_to_end(much_comes_behind, 3, "grew behind pfn 0x834");
    run_to_end(frame_comes_behind, CHECKPOINTS, "");
}

/* Between the first look at its size and the moment from which it is watched. */
static void guest_grows_at_the_start(void)
{
    if (fake_dom[FAKE_PRIMARY].log_on) fake_behind = 1, fake_behind_is_memory = true;
}

static void guest_grows_while_suspended(void)
{
    fake_behind = 1;
    fake_behind_is_memory = true;
}

static void t_save_page_behind_the_end_at_the_start_ends_the_save(void **state)
{
    struct xc_sr_io io;
    unsigned int live;

    for (live = 0; live < 2; live++) {
        start();
        fake_guest = live ? guest_grows_at_the_start : NULL;
        if (!live) suspending = guest_grows_while_suspended;
        xc_sr_io_init(&io, stream, -1, -1);
        assert_int_equal(run(&io, live, XC_SR_ENCODE_NONE), -1);
        assert_non_null(strstr(last_log, "grew behind"));
        assert_int_equal(pauses, 0);
        xc_sr_io_dispose(&io);
        suspending = NULL;
        finish();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_save_whole_stops_in_either_turn),
        cmocka_unit_test(t_save_whole_nth_call_fails_cleans_up),
        cmocka_unit_test(t_save_whole_child_fails_is_told),
        cmocka_unit_test(t_save_pause_neither_allocates_nor_writes),
        cmocka_unit_test(t_save_pause_leaves_grant_frames_alone),
        cmocka_unit_test(t_save_pause_maps_what_is_new),
        cmocka_unit_test(t_save_rise_that_nothing_explains_ends_the_protection),
        cmocka_unit_test(t_save_page_behind_the_end_ends_the_protection),
        cmocka_unit_test(t_save_page_behind_the_end_at_the_start_ends_the_save),
        cmocka_unit_test(t_save_log_ended_by_another_ends_the_protection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
