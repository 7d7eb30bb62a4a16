/* SPDX-License-Identifier: LGPL-2.1-only */
/* Work that is done to its end whoever is killed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "drbd_apart.h"

static int fine(const void *arg)
{
    return 0;
}

static int fails(const void *arg)
{
    return *(const int *)arg;
}

static int is_killed(const void *arg)
{
    return raise(SIGKILL);
}

static void t_apart_tells_what_came_of_it(void **state)
{
    int r = -EMEDIUMTYPE;

    assert_int_equal(drbd_apart(fine, NULL), 0);
    assert_int_equal(drbd_apart(fails, &r), r);
    assert_int_equal(drbd_apart(is_killed, NULL), -ECHILD);
}

/* One octet when it begins, one at its end. */
static int slow(const void *arg)
{
    const int *fd = arg;

    if (write(*fd, "1", 1) != 1) return -EPIPE;
    poll(NULL, 0, 300);
    return write(*fd, "2", 1) == 1 ? 0 : -EPIPE;
}

static void t_apart_caller_is_killed_work_goes_on(void **state)
{
    int fds[2], status;
    char octet = 0;
    pid_t pid;

    assert_int_equal(pipe(fds), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) _exit(drbd_apart(slow, &fds[1]) ? 1 : 0);
    close(fds[1]);
    assert_int_equal(read(fds[0], &octet, 1), 1);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(read(fds[0], &octet, 1), 1);
    assert_int_equal(octet, '2');
    assert_int_equal(read(fds[0], &octet, 1), 0);
    close(fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_apart_tells_what_came_of_it),
        cmocka_unit_test(t_apart_caller_is_killed_work_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
