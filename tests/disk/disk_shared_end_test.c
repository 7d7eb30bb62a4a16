/* SPDX-License-Identifier: LGPL-2.1-only */
/* What ends a protection, or forbids a promotion. */
#include "shared_world.h"

#include <poll.h>
#include <stdatomic.h>

static atomic_int failing_fd = -1;

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);

/* As the kernel does it: what could not be written is told once for each open file. */
int __wrap_fdatasync(int fd)
{
    int wanted = fd;

    if (fd < 0 || !atomic_compare_exchange_strong(&failing_fd, &wanted, -1))
        return __real_fdatasync(fd);
    errno = EIO;
    return -1;
}

static void t_shared_error_that_a_flush_was_told_ends_the_link(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    failing_fd = w->a.d.journal.fd;
    assert_int_equal(disk_flush(&w->a.d), -EIO);
    assert_int_not_equal(disk_barrier(&w->a.d, 1, w->why), 0);
    assert_non_null(strstr(w->a.lost, "the shared journal failed"));
    assert_int_equal(w->b.d.journal.sealed, 0);
}

/* The flush of the guest got it first: another open file of the journal tells it again. */
static void t_shared_barrier_hears_of_an_error_itself(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    failing_fd = w->a.d.shared->head.fd;
    assert_int_equal(disk_barrier(&w->a.d, 1, w->why), 0);
    assert_true(wait_for(&w->a, DISK_LOST));
    assert_non_null(strstr(w->a.lost, "the shared journal failed"));
    assert_int_equal(w->b.d.journal.sealed, 0);
}

static void *write_on(void *arg)
{
    static uint8_t buf[BLOCK];
    struct host *h = arg;

    while (!disk_write(&h->d, buf, sizeof(buf), 0, false))
        ;
    return NULL;
}

static void t_shared_stop_under_writes_ends(void **state)
{
    struct world *w = *state;
    pthread_t writer;

    protect(w);
    assert_int_equal(pthread_create(&writer, NULL, write_on, &w->a), 0);
    poll(NULL, 0, 100);
    disk_shared_stop(&w->a.d);
    pthread_join(writer, NULL);
}

static void t_shared_promotion_over_a_forced_start_is_refused(void **state)
{
    struct world *w = *state;

    protect(w);
    put(&w->a, 0, 7);
    barrier(w, 1);
    commit(w, 1);
    assert_true(wait_applied(&w->a, 1));
    host_close(&w->a); /* killed: its claim stays */
    assert_true(wait_for(&w->b, DISK_LOST));
    assert_int_equal(host_open(&w->a, true, true), 0);
    put(&w->a, BLOCK, 9);
    assert_int_not_equal(disk_promote(&w->b.d, 1, w->why), 0);
    assert_non_null(strstr(w->why, "went on without this side"));
    put(&w->a, BLOCK, 10);
    assert_int_equal(on_disk(w, BLOCK), 10);
}

#define T(t) cmocka_unit_test_setup_teardown(t, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(t_shared_error_that_a_flush_was_told_ends_the_link),
        T(t_shared_barrier_hears_of_an_error_itself),
        T(t_shared_stop_under_writes_ends),
        T(t_shared_promotion_over_a_forced_start_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
