/* SPDX-License-Identifier: LGPL-2.1-only */
/* The primary's disks against fake instances: order of the requests, and every way in which an instance fails. */
#include "disk_fixture.h"

#include "libxl_disk_device.h"

struct fixture {
    libxl__loop *loop;
    libxl__disk_device dd;
    struct fake_disk disk[2];
    char dir[64];
    int links, dones, rc, losses;
    int link_ends[2];
    bool no_link, dispose_in_done;
    uint64_t done_bytes, total_bytes;
};

static const char *const names[] = {"xvda", "xvdb"};

static int make_link(void *user, unsigned disk)
{
    struct fixture *f = user;
    int pair[2];

    if (f->no_link) return -1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    f->link_ends[disk] = pair[0];
    f->links++;
    return pair[1];
}

static void done(libxl__egc *egc, libxl__disk_device *dd, int rc)
{
    struct fixture *f = dd->user;

    f->dones++;
    f->rc = rc;
    if (f->dispose_in_done) libxl__disk_device_dispose(dd);
}

static void progress(libxl__egc *egc, libxl__disk_device *dd, uint64_t bytes, uint64_t total)
{
    struct fixture *f = dd->user;

    f->done_bytes = bytes;
    f->total_bytes = total;
}

static void lost(libxl__egc *egc, libxl__disk_device *dd)
{
    ((struct fixture *)dd->user)->losses++;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    strcpy(f->dir, "/tmp/disk_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    setenv("XENTWIN_RUN_DIR", f->dir, 1);
    unsetenv("XENTWIN_RUNDIR");
    assert_int_equal(libxl__loop_new(&f->loop, NULL, NULL), 0);
    for (int i = 0; i < 2; i++) {
        fake_disk_start(&f->disk[i], f->loop, f->dir, names[i]);
        f->link_ends[i] = -1;
    }
    libxl__disk_device_init(&f->dd);
    f->dd.loop = f->loop;
    f->dd.domain = "guest";
    f->dd.vdevs = names;
    f->dd.n = 2;
    f->dd.user = f;
    f->dd.link = make_link;
    f->dd.done = done;
    f->dd.progress = progress;
    f->dd.lost = lost;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char cmd[100];

    libxl__disk_device_dispose(&f->dd);
    libxl__disk_device_dispose(&f->dd);
    for (int i = 0; i < 2; i++) {
        fake_disk_stop(&f->disk[i]);
        if (f->link_ends[i] >= 0) close(f->link_ends[i]);
    }
    libxl__loop_free(f->loop);
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f);
    return 0;
}

/* Until nothing happens any more; what is local is there at once. */
static void settle(struct fixture *f)
{
    for (int i = 0; i < 40; i++)
        assert_int_equal(libxl__loop_once(f->loop, 0), 0);
}

static void synchronise(struct fixture *f)
{
    assert_int_equal(libxl__disk_device_sync(&f->dd), 0);
    settle(f);
    assert_int_equal(f->dones, 0);
    fake_disk_send(&f->disk[0], "event linked full 4096");
    fake_disk_send(&f->disk[0], "event synced");
    settle(f);
    assert_int_equal(f->dones, 0);
    fake_disk_send(&f->disk[1], "event synced");
    settle(f);
    assert_int_equal(f->dones, 1);
    assert_int_equal(f->rc, 0);
}

static void t_disks_whole_protection_asks_in_order(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    assert_int_equal(libxl__disk_device_protect(&f->dd), 0);
    settle(f);
    assert_int_equal(libxl__disk_device_close_epoch(&f->dd, 1), 0);
    settle(f);
    libxl__disk_device_commit(&f->dd, 1);
    assert_int_equal(libxl__disk_device_close_epoch(&f->dd, 2), 0);
    settle(f);
    assert_int_equal(libxl__disk_device_unprotect(&f->dd), 0);
    settle(f);
    assert_int_equal(f->dones, 5);
    assert_int_equal(f->rc, 0);
    for (int i = 0; i < 2; i++)
        assert_string_equal(f->disk[i].said, "subscribe;unprotect;link;sync;protect;barrier 1;"
                                             "commit 1;barrier 2;unprotect;");
}

static void t_disks_link_arrives_at_its_instance(void **state)
{
    struct fixture *f = *state;
    char byte;

    synchronise(f);
    assert_int_equal(f->links, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(write(f->disk[i].link_fd, &"ab"[i], 1), 1);
        assert_int_equal(read(f->link_ends[i], &byte, 1), 1);
        assert_int_equal(byte, 'a' + i);
        close(f->disk[i].link_fd);
        f->disk[i].link_fd = -1;
        assert_int_equal(read(f->link_ends[i], &byte, 1), 0); /* no copy was kept */
    }
}

static void t_disks_progress_of_all_is_added(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(libxl__disk_device_sync(&f->dd), 0);
    settle(f);
    fake_disk_send(&f->disk[0], "event progress 10 100");
    settle(f);
    assert_int_equal(f->total_bytes, 0);
    fake_disk_send(&f->disk[1], "event progress 50 300");
    settle(f);
    assert_int_equal(f->done_bytes, 60);
    assert_int_equal(f->total_bytes, 400);
}

static void t_disks_one_refuses_barrier_fails(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    f->disk[1].refused = "barrier";
    assert_int_equal(libxl__disk_device_close_epoch(&f->dd, 1), 0);
    settle(f);
    assert_int_equal(f->rc, ERROR_FAIL);
    assert_non_null(strstr(f->dd.set.why, "xvdb: it is refused"));
}

static void t_disks_no_instance_sync_fails_at_once(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(unlink(f->disk[1].path), 0);
    assert_int_equal(libxl__disk_device_sync(&f->dd), ERROR_FAIL);
    assert_false(libxl__disk_device_inuse(&f->dd));
    assert_non_null(strstr(f->dd.set.why, "xvdb"));
}

static void t_disks_no_link_sync_fails(void **state)
{
    struct fixture *f = *state;

    f->no_link = true;
    assert_int_equal(libxl__disk_device_sync(&f->dd), 0);
    settle(f);
    assert_int_equal(f->dones, 1);
    assert_int_equal(f->rc, ERROR_FAIL);
}

static void t_disks_link_lost_in_sync_ends_it(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(libxl__disk_device_sync(&f->dd), 0);
    settle(f);
    fake_disk_send(&f->disk[1], "event lost the disk there is smaller");
    settle(f);
    assert_int_equal(f->dones, 1);
    assert_int_equal(f->rc, ERROR_FAIL);
    assert_int_equal(f->losses, 0);
    assert_non_null(strstr(f->dd.set.why, "xvdb: the disk there is smaller"));
}

static void t_disks_link_lost_later_is_told_once_and_unprotect_works(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    fake_disk_send(&f->disk[0], "event lost end of file");
    settle(f);
    assert_int_equal(f->losses, 1);
    assert_int_equal(libxl__disk_device_unprotect(&f->dd), 0);
    fake_disk_send(&f->disk[1], "event lost end of file");
    settle(f);
    assert_int_equal(f->losses, 1);
    assert_int_equal(f->dones, 2);
    assert_int_equal(f->rc, 0);
}

static void t_disks_instance_dies_open_question_fails(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    f->disk[0].mute = true;
    assert_int_equal(libxl__disk_device_close_epoch(&f->dd, 1), 0);
    settle(f);
    assert_int_equal(f->dones, 1);
    fake_disk_close(&f->disk[0]);
    settle(f);
    assert_int_equal(f->dones, 2);
    assert_int_equal(f->rc, ERROR_FAIL);
    assert_int_equal(f->losses, 1);
    /* The other one is still asked. */
    assert_int_equal(libxl__disk_device_unprotect(&f->dd), 0);
    settle(f);
    assert_int_equal(f->dones, 3);
    assert_non_null(strstr(f->disk[1].said, "barrier 1;unprotect;"));
    fake_disk_close(&f->disk[1]);
    settle(f);
    assert_int_equal(libxl__disk_device_unprotect(&f->dd), ERROR_FAIL);
}

static void t_disks_nonsense_from_instance_is_its_end(void **state)
{
    struct fixture *f = *state;

    synchronise(f);
    fake_disk_send(&f->disk[0], "ok who asked");
    settle(f);
    assert_int_equal(f->losses, 1);
    assert_non_null(strstr(f->dd.set.why, "which nobody asked"));
}

static void t_disks_mute_instance_questions_are_bounded(void **state)
{
    struct fixture *f = *state;
    int rc = 0;

    synchronise(f);
    f->disk[0].mute = true;
    for (int i = 0; !rc && i < 100; i++)
        rc = libxl__disk_device_protect(&f->dd);
    assert_int_equal(rc, ERROR_FAIL);
}

static void t_disks_disposed_in_callback_nothing_follows(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(libxl__disk_device_sync(&f->dd), 0);
    settle(f);
    f->dispose_in_done = true;
    fake_disk_send(&f->disk[0], "event lost a");
    fake_disk_send(&f->disk[1], "event lost b");
    settle(f);
    assert_int_equal(f->dones, 1);
    assert_int_equal(f->losses, 0);
}

static void t_disk_call_answers_and_absence(void **state)
{
    struct fixture *f = *state;
    libxl__gc gc;
    char *answer;

    libxl__gc_init(&gc, NULL);
    assert_int_equal(libxl__disk_call(&gc, "guest", "xvdz", "status", 100, &answer),
                     ERROR_NOTFOUND);
    f->disk[0].mute = true;
    assert_int_equal(libxl__disk_call(&gc, "guest", "xvda", "status", 10, &answer), ERROR_FAIL);
    assert_null(answer);
    assert_true(libxl__disk_vdev_ok("xvda1"));
    assert_false(libxl__disk_vdev_ok("../xvda"));
    assert_false(libxl__disk_vdev_ok(""));
    libxl__gc_dispose(&gc);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_disks_whole_protection_asks_in_order),
        T(t_disks_link_arrives_at_its_instance),
        T(t_disks_progress_of_all_is_added),
        T(t_disks_one_refuses_barrier_fails),
        T(t_disks_no_instance_sync_fails_at_once),
        T(t_disks_no_link_sync_fails),
        T(t_disks_link_lost_in_sync_ends_it),
        T(t_disks_link_lost_later_is_told_once_and_unprotect_works),
        T(t_disks_instance_dies_open_question_fails),
        T(t_disks_nonsense_from_instance_is_its_end),
        T(t_disks_mute_instance_questions_are_bounded),
        T(t_disks_disposed_in_callback_nothing_follows),
        T(t_disk_call_answers_and_absence),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
