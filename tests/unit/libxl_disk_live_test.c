/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Both halves of the library's disks, and the links of xl, on two real instances: "hosts" a and b are folders of one temporary folder.
 * XENTWIN_DISK_TOOL names xentwin-disk, XENTWIN_DISK_PLUGIN the plugin. Needs nbdkit and nbdcopy.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_disk_device.h"
#include "libxl_twin_disk.h"
#include "xl_disk.h"

#define SIZE (1 << 20)
#define WAIT_S 20
/* The disks of the two hosts, for a shell and a format. */
#define A "'a%%20 .img'"
#define B "'b%%20 .img'"

struct fixture {
    libxl__loop *loop;
    libxl__disk_device dd;
    libxl__twin_disk td;
    char dir[64];
    char ssh[100];
    struct xl_disks disks;
    struct xl_disk_links links;
    int dones, rc, losses;
    int readies, commits, promotes, twin_rc;
};

static const char *const names[] = {"xvda"};
static const char *tool;

static void host(const struct fixture *f, const char *name)
{
    char path[100];

    snprintf(path, sizeof(path), "%s/%s/run", f->dir, name);
    setenv("XENTWIN_RUNDIR", path, 1);
    snprintf(path, sizeof(path), "%s/%s/state", f->dir, name);
    setenv("XENTWIN_STATEDIR", path, 1);
}

static int shell(struct fixture *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int shell(struct fixture *f, const char *fmt, ...)
{
    char command[600];
    va_list al;
    int n = snprintf(command, sizeof(command), "cd %s && ", f->dir);

    va_start(al, fmt);
    vsnprintf(command + n, sizeof(command) - (size_t)n, fmt, al);
    va_end(al);
    return system(command);
}

/* Through xl's own links; "ssh" is a script that runs the command as host b, whose disk is B. */
static void make_ssh(struct fixture *f)
{
    char path[100];
    FILE *script;

    snprintf(path, sizeof(path), "%s/ssh", f->dir);
    script = fopen(path, "w");
    assert_non_null(script);
    fprintf(script,
            "#!/bin/sh\n[ \"$1\" = hostB ] || exit 255\nPATH=%.*s:$PATH\n"
            "export XENTWIN_RUNDIR=%s/b/run XENTWIN_STATEDIR=%s/b/state\n"
            "exec sh -c \"exec $(echo \"$2\" | sed s,/a%%20,/b%%20,)\"\n",
            (int)(strrchr(tool, '/') - tool), tool, f->dir, f->dir);
    fclose(script);
    assert_int_equal(chmod(path, 0700), 0);
    snprintf(f->ssh, sizeof(f->ssh), "%s", path);
    f->disks = (struct xl_disks){.n = 1, .vdev = {"xvda"}, .names = {"xvda"}};
    xl_disk_links_init(&f->links);
    f->links.ssh = f->ssh;
    f->links.host = "hostB";
    f->links.domain = "guest";
    f->links.disks = &f->disks;
}

static int make_link(void *user, unsigned disk)
{
    struct fixture *f = user;

    return xl_disk_link_start(&f->links, disk);
}

static void done(libxl__egc *egc, libxl__disk_device *dd, int rc)
{
    struct fixture *f = dd->user;

    f->dones++;
    f->rc = rc;
    if (rc) printf("primary: %s\n", dd->set.why);
}

static void lost(libxl__egc *egc, libxl__disk_device *dd)
{
    ((struct fixture *)dd->user)->losses++;
}

static void ready(libxl__egc *egc, libxl__twin_disk *td)
{
    ((struct fixture *)td->user)->readies++;
}

static void committed(libxl__egc *egc, libxl__twin_disk *td, int rc)
{
    struct fixture *f = td->user;

    f->commits++;
    if (rc) printf("commit: %s\n", td->set.why);
    f->twin_rc = rc;
}

static void promoted(libxl__egc *egc, libxl__twin_disk *td, int rc)
{
    struct fixture *f = td->user;

    f->promotes++;
    if (rc) printf("promote: %s\n", td->set.why);
    f->twin_rc = rc;
}

static void gone(libxl__egc *egc, libxl__twin_disk *td)
{
}

static void init_both(struct fixture *f)
{
    libxl__disk_device_init(&f->dd);
    f->dd.loop = f->loop;
    f->dd.domain = "guest";
    f->dd.vdevs = names;
    f->dd.n = 1;
    f->dd.user = f;
    f->dd.link = make_link;
    f->dd.done = done;
    f->dd.lost = lost;
    libxl__twin_disk_init(&f->td);
    f->td.loop = f->loop;
    f->td.domain = "guest";
    f->td.vdevs = names;
    f->td.n = 1;
    f->td.user = f;
    f->td.ready = ready;
    f->td.committed = committed;
    f->td.promoted = promoted;
    f->td.gone = gone;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/disk_live.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(libxl__loop_new(&f->loop, NULL, NULL), 0);
    assert_int_equal(shell(f,
                           "head -c %d /dev/urandom >" A "; head -c %d /dev/urandom >" B "; "
                           "head -c %d /dev/urandom >one.img; head -c %d /dev/urandom >two.img",
                           SIZE, SIZE, SIZE, SIZE),
                     0);
    host(f, "a");
    assert_int_equal(shell(f, "%s start guest xvda %s/" A " >/dev/null", tool, f->dir), 0);
    make_ssh(f);
    init_both(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    libxl__disk_device_dispose(&f->dd);
    libxl__twin_disk_dispose(&f->td);
    libxl__loop_free(f->loop);
    for (const char *name = "ab"; *name; name++) {
        host(f, *name == 'a' ? "a" : "b");
        (void)!shell(f, "%s stop guest xvda", tool);
    }
    xl_disk_links_end(&f->links, false);
    assert_int_equal(shell(f, "rm -rf '%s'", f->dir), 0);
    free(f);
    return 0;
}

#define RUN_UNTIL(f, cond)                                                                         \
    do {                                                                                           \
        time_t until_ = time(NULL) + WAIT_S;                                                       \
        while (!(cond)) {                                                                          \
            assert_int_equal(libxl__loop_once((f)->loop, 20), 0);                                  \
            if (time(NULL) > until_) fail_msg("waited in vain for %s", #cond);                     \
        }                                                                                          \
    } while (0)

static void write_disk(struct fixture *f, const char *image)
{
    assert_int_equal(
        shell(f, "nbdcopy --flush %s 'nbd+unix:///?socket=%s/a/run/disk-guest-xvda/nbd.sock'",
              image, f->dir),
        0);
}

static void synchronise(struct fixture *f)
{
    host(f, "a");
    assert_int_equal(libxl__disk_device_sync(&f->dd), 0);
    RUN_UNTIL(f, f->dones == 1);
    assert_int_equal(f->rc, 0);
    host(f, "b");
    assert_int_equal(libxl__twin_disk_attach(&f->td), 0);
    assert_int_equal(libxl__disk_device_protect(&f->dd), 0);
    RUN_UNTIL(f, f->dones == 2);
    assert_int_equal(f->rc, 0);
}

static void checkpoint(struct fixture *f, uint64_t n)
{
    int before = f->dones, commits = f->commits, readies = f->readies;

    assert_int_equal(libxl__disk_device_close_epoch(&f->dd, n), 0);
    RUN_UNTIL(f, f->dones == before + 1);
    assert_int_equal(f->rc, 0);
    if (!libxl__twin_disk_have(&f->td, n)) RUN_UNTIL(f, f->readies == readies + 1);
    assert_int_equal(libxl__twin_disk_commit(&f->td, n), 0);
    RUN_UNTIL(f, f->commits == commits + 1);
    assert_int_equal(f->twin_rc, 0);
    libxl__disk_device_commit(&f->dd, n);
}

static void t_disks_live_failover_has_the_committed_checkpoint(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    checkpoint(f, 1);
    write_disk(f, "one.img");
    checkpoint(f, 2);
    write_disk(f, "two.img"); /* epoch 3, which is never closed */
    assert_int_equal(shell(f, "kill -9 $(cat a/run/disk-guest-xvda/pid)"), 0);
    RUN_UNTIL(f, f->losses == 1);
    assert_int_equal(libxl__twin_disk_promote(&f->td, 2), 0);
    RUN_UNTIL(f, f->promotes == 1);
    assert_int_equal(f->twin_rc, 0);
    assert_int_equal(shell(f, "cmp " B " one.img"), 0);
    assert_int_equal(shell(f, "cmp " A " two.img"), 0);
    /* The old side was killed while it was protected: it must not serve by itself. */
    host(f, "a");
    assert_int_not_equal(shell(f, "%s start guest xvda %s/" A " >/dev/null 2>&1", tool, f->dir), 0);
}

/* xl remus was killed, and the guard lets the guest go on. */
static void t_disks_live_unprotected_by_the_guard_starts_again(void **state)
{
    struct fixture *f = *state;
    libxl__gc gc;

    synchronise(f);
    checkpoint(f, 1);
    libxl__disk_device_dispose(&f->dd);
    host(f, "a");
    libxl__gc_init(&gc, NULL);
    assert_int_equal(libxl__disk_unprotect(&gc, "guest"), 0);
    assert_int_equal(libxl__disk_unprotect(&gc, "nobody"), 0);
    libxl__gc_dispose(&gc);
    assert_int_equal(shell(f, "%s stop guest xvda", tool), 0);
    assert_int_equal(shell(f, "%s start guest xvda %s/" A " >/dev/null", tool, f->dir), 0);
}

static void t_disks_live_sealed_but_uncommitted_can_be_promoted(void **state)
{
    struct fixture *f = *state;
    int readies;

    synchronise(f);
    checkpoint(f, 1);
    readies = f->readies;
    write_disk(f, "one.img");
    assert_int_equal(libxl__disk_device_close_epoch(&f->dd, 2), 0);
    if (!libxl__twin_disk_have(&f->td, 2)) RUN_UNTIL(f, f->readies == readies + 1);
    assert_int_equal(libxl__twin_disk_promote(&f->td, 2), 0);
    RUN_UNTIL(f, f->promotes == 1);
    assert_int_equal(f->twin_rc, 0);
    assert_int_equal(shell(f, "cmp " B " one.img"), 0);
}

static void t_disks_live_graceful_end_goes_on_alone_and_again(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    checkpoint(f, 1);
    libxl__twin_disk_drop(&f->td);
    /* The instance drops, and ends. */
    assert_int_equal(shell(f,
                           "timeout 10 sh -c 'while kill -0 $(cat b/run/disk-guest-xvda/pid); do "
                           "sleep 0.05; done' 2>/dev/null"),
                     0);
    assert_int_equal(libxl__disk_device_unprotect(&f->dd), 0);
    RUN_UNTIL(f, f->dones == 4);
    assert_int_equal(f->rc, 0);
    libxl__disk_device_dispose(&f->dd);
    libxl__twin_disk_dispose(&f->td);
    xl_disk_links_end(&f->links, false);
    write_disk(f, "one.img");
    init_both(f);
    f->dones = 0;
    synchronise(f);
    checkpoint(f, 1);
    assert_int_equal(libxl__twin_disk_promote(&f->td, 1), 0);
    RUN_UNTIL(f, f->promotes == 1);
    assert_int_equal(f->twin_rc, 0);
    assert_int_equal(shell(f, "cmp " B " one.img"), 0);
}

/* xl remus and its guard were killed: the link is still up. The next xl remus ends it and begins anew. */
static void t_disks_live_next_protection_ends_the_old_link(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    checkpoint(f, 1);
    libxl__twin_disk_dispose(&f->td);
    libxl__disk_device_dispose(&f->dd);
    init_both(f);
    f->dones = 0;
    synchronise(f);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_disks_live_failover_has_the_committed_checkpoint),
        T(t_disks_live_next_protection_ends_the_old_link),
        T(t_disks_live_unprotected_by_the_guard_starts_again),
        T(t_disks_live_sealed_but_uncommitted_can_be_promoted),
        T(t_disks_live_graceful_end_goes_on_alone_and_again),
    };

    tool = getenv("XENTWIN_DISK_TOOL");
    if (!tool || system("command -v nbdkit >/dev/null && command -v nbdcopy >/dev/null")) {
        puts("libxl_disk_live: needs nbdkit, nbdcopy and XENTWIN_DISK_TOOL");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
