/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Two instances on two hosts that are folders: DRBD's commands are fakes (fake-drbd), the device mapper is one of files (fake_dm.c); the
 * instances, the control sockets and the link are real.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "judge_side.h"

static char base[] = "/tmp/xentwin-drbd-test.XXXXXX";
static struct side a, b;
static const char *const patient[] = {"--limit-ms", "20000", NULL};
static const char *const hasty[] = {"--limit-ms", "1000", NULL};

static void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *format, ...)
{
    char text[2048];
    va_list al;

    va_start(al, format);
    vsnprintf(text, sizeof(text), format, al);
    va_end(al);
    assert_int_equal(system(text), 0);
}

/* States of the fake DRBD, "cs=Connected ...". */
static void fake(const struct side *s, const char *words)
{
    run("XENTWIN_DRBD_ROOT=%s %s/bin/fake-drbd set %s", s->dir, base, words);
}

static void put(const struct side *s, const char *name, const char *text)
{
    run("printf %%s '%s' >%s/%s", text, s->dir, name);
}

/* A file of the host, without the newline at its end. */
static const char *get(const struct side *s, const char *name)
{
    static char text[4096];
    char path[300];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", s->dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static int snapshots(const struct side *s)
{
    char path[300];
    struct dirent *e;
    int n = 0;

    snprintf(path, sizeof(path), "%s/pool", s->dir);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while ((e = readdir(dir)))
        n += e->d_name[0] >= '0' && e->d_name[0] <= '9' && strcmp(e->d_name, "1") != 0;
    closedir(dir);
    return n;
}

/* xentwin-disk as the host sees it: the folder above its run folder is its root. */
static void make_tool(void)
{
    char tool[64];
    FILE *f;

    snprintf(tool, sizeof(tool), "%s/bin/tool", base);
    f = fopen(tool, "w");
    assert_non_null(f);
    fprintf(f, "#!/bin/sh\nexport XENTWIN_DRBD_ROOT=${XENTWIN_RUNDIR%%/run} PATH=%s/bin:$PATH\n",
            base);
    fprintf(f, "XENTWIN_DRBD=%s exec %s \"$@\"\n", getenv("DRBD_TOOL"), getenv("REAL_DISK_TOOL"));
    fclose(f);
    chmod(tool, 0700);
    setenv("DISK_TOOL", tool, 1);
}

static int set_up(void **state)
{
    strcpy(strrchr(base, '.'), ".XXXXXX");
    if (!mkdtemp(base)) return -1;
    run("mkdir %s/bin && cp %s %s/bin && cd %s/bin && for n in drbdadm drbdsetup drbdmeta; do ln "
        "-s "
        "fake-drbd $n; done",
        base, getenv("FAKE_DRBD"), base, base);
    make_tool();
    side_init(&a, base, "A");
    side_init(&b, base, "B");
    for (struct side *s = &a; s; s = s == &a ? &b : NULL) {
        snprintf(s->disk, sizeof(s->disk), "drbd:r0");
        run("mkdir %s/pool", s->dir);
        put(s, "pool/now", "1");
        put(s, "pool/1", "old");
        fake(s, s == &a ? "cs=Connected" : "peer=Primary");
    }
    return 0;
}

static int tear_down(void **state)
{
    for (struct side *s = &a; s; s = s == &a ? &b : NULL) {
        side_stop(s);
        close(s->fd);
    }
    run("rm -rf %s", base);
    return 0;
}

static bool synced(void)
{
    for (int i = 0; i < 200 && !a.synced && !a.lost; i++)
        side_events(&a, 50);
    return a.synced;
}

static bool lost(const char *text)
{
    for (int i = 0; i < 200 && !a.lost; i++)
        side_events(&a, 50);
    if (a.lost && strstr(a.reason, text)) return true;
    print_message("lost: %s\n", a.reason);
    return false;
}

static void protect(const char *const *options)
{
    assert_int_equal(side_start(&a, options), 0);
    assert_int_equal(sides_link(&a, &b, NULL, options), 0);
    assert_int_equal(side_request(&a, "sync"), 0);
    assert_true(synced());
    assert_int_equal(side_request(&a, "protect"), 0);
}

/* What the guest wrote with both disks the same, and a checkpoint. */
static void checkpoint(unsigned n, const char *content)
{
    put(&b, "pool/1", content);
    assert_int_equal(side_request(&a, "barrier %u", n), 0);
    assert_int_equal(side_number(&b, "epoch"), n);
    assert_int_equal(side_request(&b, "commit %u", n), 0);
    assert_int_equal(side_request(&a, "commit %u", n), 0);
}

static void t_promoted_backup_is_at_the_checkpoint(void **state)
{
    protect(patient);
    assert_non_null(strstr(get(&a, "log"), "drbdadm primary r0"));
    checkpoint(1, "one");
    checkpoint(2, "two");
    checkpoint(3, "three");
    assert_int_equal(snapshots(&b), 1);
    put(&b, "pool/1", "late");
    run("rm -f %s/log", b.dir);
    assert_int_equal(side_request(&b, "promote 3"), 0);
    assert_string_equal(side_reply, "ok generation=2");
    assert_string_equal(get(&b, "pool/1"), "three");
    assert_string_equal(get(&b, "pool/now"), "1");
    assert_int_equal(snapshots(&b), 0);
    assert_string_equal(get(&b, "log"),
                        "drbdadm disconnect --force r0\n"
                        "drbdsetup get-gi 0\n"
                        "drbdadm primary r0\n"
                        "drbdadm secondary r0\n"
                        "drbdadm detach r0\n"
                        "drbdadm sh-md-dev r0\n"
                        "drbdadm sh-md-idx r0\n"
                        "drbdmeta --force 0 v08 /dev/vg/r0 internal set-gi "
                        "8ED546A50903E1FE:0000000000000000:0000000000000004:0000000000000000\n"
                        "drbdmeta --force 0 v08 /dev/vg/r0 internal invalidate\n"
                        "drbdadm attach r0\n"
                        "drbdadm primary --force r0\n"
                        "drbdadm connect r0\n");
    /* The metadata that were marked are those of the snapshot, not those of the volume that is given up. */
    assert_string_not_equal(get(&b, "invalid"), "1");
    assert_int_equal(side_request(&b, "promote 3"), -1);
}

static void t_sealed_checkpoint_can_be_promoted_and_a_lost_one_not(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    put(&b, "pool/1", "two");
    assert_int_equal(side_request(&a, "barrier 2"), 0);
    assert_int_equal(snapshots(&b), 2);
    put(&b, "pool/1", "late");
    assert_int_equal(side_request(&b, "promote 3"), -1);
    assert_int_equal(side_request(&b, "promote 2"), 0);
    assert_string_equal(get(&b, "pool/1"), "two");
}

static void t_fencing_that_says_no_changes_nothing(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    put(&b, "pool/1", "late");
    put(&b, "deny", "");
    assert_int_equal(side_request(&b, "promote 1"), -1);
    assert_non_null(strstr(side_reply, "Refusing to be Primary"));
    assert_string_equal(get(&b, "pool/1"), "late");
    assert_null(strstr(get(&b, "log"), "detach"));
    assert_non_null(strstr(get(&b, "states"), "cs=WFConnection"));
    assert_int_equal(side_request(&b, "status"), 0);
    assert_non_null(strstr(side_reply, "role=backup"));
}

static void t_dropped_backup_keeps_no_snapshot(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    assert_int_equal(side_request(&b, "drop"), 0);
    assert_int_equal(snapshots(&b), 0);
    assert_true(lost("closed"));
    assert_int_equal(side_request(&a, "unprotect"), 0);
}

static void t_lost_connection_ends_the_protection(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    fake(&a, "cs=WFConnection peer=Unknown pds=DUnknown");
    assert_true(lost("not the same on both hosts: WFConnection"));
    assert_int_equal(side_request(&a, "barrier 2"), -1);
    /* Nobody said yet that this side goes on. */
    side_kill(&a);
    assert_int_not_equal(side_start(&a, patient), 0);
}

static void t_barrier_is_refused_when_the_connection_is_lost_just_before(void **state)
{
    protect(patient);
    put(&a, "proc/drbd",
        " 0: cs:NetworkFailure ro:Primary/Unknown ds:UpToDate/DUnknown C r-----\n");
    assert_int_equal(side_request(&a, "barrier 1"), -1);
    assert_non_null(strstr(side_reply, "NetworkFailure"));
}

static void t_backup_that_is_not_whole_seals_nothing(void **state)
{
    protect(patient);
    fake(&b, "cs=SyncTarget ds=Inconsistent");
    assert_int_equal(side_request(&a, "barrier 1"), -1);
    assert_non_null(strstr(side_reply, "SyncTarget"));
    assert_int_equal(snapshots(&b), 0);
}

static void t_backup_that_stands_still_ends_the_protection(void **state)
{
    char text[32];

    protect(hasty);
    snprintf(text, sizeof(text), "%s", get(&b, "run/disk-g-d/pid"));
    kill((pid_t)atol(text), SIGSTOP);
    assert_int_equal(side_request(&a, "barrier 1"), -1);
    assert_true(a.lost || lost("took no snapshot"));
    kill((pid_t)atol(text), SIGCONT);
}

static void t_backing_that_is_not_thin_is_refused(void **state)
{
    run("rm -rf %s/pool", b.dir);
    assert_int_equal(side_start(&a, patient), 0);
    (void)sides_link(&a, &b, NULL, patient);
    assert_true(lost("no LVM thin volume"));
}

static void t_protocol_a_is_refused(void **state)
{
    put(&a, "proto", "A");
    assert_int_equal(side_start(&a, patient), 0);
    assert_int_equal(sides_link(&a, &b, NULL, patient), -1);
    assert_non_null(strstr(side_reply, "protocol A"));
}

static void t_resource_of_somebody_else_is_refused(void **state)
{
    put(&b, "gi", "1111111111111110:0:0:0\n");
    assert_int_equal(side_start(&a, patient), 0);
    assert_int_equal(sides_link(&a, &b, NULL, patient), 0);
    assert_int_equal(side_request(&a, "sync"), 0);
    assert_true(lost("is not the peer"));
}

static void t_snapshots_of_a_killed_backup_are_removed(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    side_kill(&b);
    assert_int_equal(snapshots(&b), 1);
    assert_true(lost("closed"));
    assert_int_equal(side_request(&a, "unprotect"), 0);
    assert_int_equal(sides_link(&a, &b, NULL, patient), 0);
    assert_int_equal(snapshots(&b), 0);
}

/* xentwin-disk on a host, without a link. */
static void tool(const struct side *s, const char *words)
{
    run("XENTWIN_RUNDIR=%s/run XENTWIN_STATEDIR=%s/state %s/bin/tool %s", s->dir, s->dir, base,
        words);
}

static void t_killed_backup_that_is_started_again_removes_its_snapshots(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    side_kill(&b);
    assert_true(lost("closed"));
    tool(&b, "reset g d"); /* their numbers are not forgotten */
    assert_int_equal(snapshots(&b), 1);
    tool(&b, "start --role backup g d drbd:r0");
    assert_int_equal(snapshots(&b), 0);
    tool(&b, "stop g d");
}

static void t_numbers_that_cannot_be_kept_are_given_back(void **state)
{
    run("mkdir -p %s/state/g-d/thin.new", b.dir);
    assert_int_equal(side_start(&a, patient), 0);
    (void)sides_link(&a, &b, NULL, patient);
    assert_true(lost("cannot write"));
    assert_int_equal(snapshots(&b), 0);
}

static void t_what_was_written_without_a_link_is_not_given_up(void **state)
{
    fake(&b, "cs=StandAlone peer=Unknown pds=DUnknown");
    assert_int_equal(side_start(&b, patient), 0);
    side_stop(&b);
    run("rm -f %s/log", b.dir);
    fake(&a, "cs=StandAlone peer=Unknown pds=DUnknown");
    assert_int_equal(side_start(&a, patient), 0);
    assert_int_equal(sides_link(&a, &b, NULL, patient), 0);
    assert_non_null(strstr(get(&b, "log"), "drbdadm connect r0\n"));
    assert_null(strstr(get(&b, "log"), "discard"));
}

static void t_one_of_many_resources_is_found(void **state)
{
    static const char one[] = "ns:1234567890 nr:1234567890 dw:1234567890 dr:1234567890 al:123 bm:0 "
                              "lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0";

    for (struct side *s = &a; s; s = s == &a ? &b : NULL)
        run("for n in $(seq 900); do printf '%%3d: cs:Connected ro:Primary/Secondary "
            "ds:UpToDate/UpToDate C r-----\\n    %s\\n' $n; done >%s/others",
            one, s->dir);
    fake(&a, "cs=Connected");
    fake(&b, "peer=Primary");
    protect(patient);
    checkpoint(1, "one");
}

static void t_old_primary_gives_its_data_up(void **state)
{
    protect(patient);
    checkpoint(1, "one");
    assert_int_equal(side_request(&b, "promote 1"), 0);
    side_kill(&a);
    fake(&a, "cs=StandAlone ro=Primary peer=Unknown pds=DUnknown");
    run("rm -f %s/log", a.dir);
    side_unattach(&b);
    assert_int_equal(sides_link(&b, &a, NULL, patient), 0);
    assert_non_null(strstr(get(&a, "log"), "drbdadm secondary r0\n"
                                           "drbdadm connect --discard-my-data r0\n"));
    assert_int_equal(side_request(&a, "status"), 0);
    assert_non_null(strstr(side_reply, "role=backup"));
}

#define LIVE(t) cmocka_unit_test_setup_teardown(t, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LIVE(t_promoted_backup_is_at_the_checkpoint),
        LIVE(t_sealed_checkpoint_can_be_promoted_and_a_lost_one_not),
        LIVE(t_fencing_that_says_no_changes_nothing),
        LIVE(t_dropped_backup_keeps_no_snapshot),
        LIVE(t_lost_connection_ends_the_protection),
        LIVE(t_barrier_is_refused_when_the_connection_is_lost_just_before),
        LIVE(t_backup_that_is_not_whole_seals_nothing),
        LIVE(t_backup_that_stands_still_ends_the_protection),
        LIVE(t_backing_that_is_not_thin_is_refused),
        LIVE(t_protocol_a_is_refused),
        LIVE(t_resource_of_somebody_else_is_refused),
        LIVE(t_snapshots_of_a_killed_backup_are_removed),
        LIVE(t_killed_backup_that_is_started_again_removes_its_snapshots),
        LIVE(t_numbers_that_cannot_be_kept_are_given_back),
        LIVE(t_what_was_written_without_a_link_is_not_given_up),
        LIVE(t_one_of_many_resources_is_found),
        LIVE(t_old_primary_gives_its_data_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
