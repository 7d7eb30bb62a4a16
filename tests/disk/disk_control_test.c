/* SPDX-License-Identifier: LGPL-2.1-only */
/* The control socket of an instance against clients that leave. */
#include "disk_test.h"

#include <poll.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "disk_control.h"

static atomic_bool stopped;

static void asked_to_stop(void)
{
    stopped = true;
}

static int client(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void ask(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* As a twin that is dropped: the kernel tells the instance of the answer that was not read before it hands out the rest. */
static void t_disk_control_client_leaves_with_answers_unread_all_is_done(void **state)
{
    struct folder *f = *state;
    struct disk disk = {0};
    struct disk_control c;
    struct pollfd p = {.events = POLLIN};

    stopped = false;
    snprintf(f->path, sizeof(f->path), "%s/control.sock", f->dir);
    assert_int_equal(disk_control_open(&c, &disk, f->path), 0);
    c.asked_to_stop = asked_to_stop;
    pthread_mutex_init(&disk.lock, NULL);
    assert_int_equal(disk_control_start(&c), 0);
    p.fd = client(f->path);
    ask(p.fd, "subscribe");
    assert_int_equal(poll(&p, 1, 10000), 1);
    pthread_mutex_lock(&c.lock); /* it cannot answer the next one before we have left */
    ask(p.fd, "subscribe");
    ask(p.fd, "stop");
    close(p.fd);
    pthread_mutex_unlock(&c.lock);
    for (int i = 0; i < 1000 && !stopped; i++)
        usleep(10000);
    assert_true(stopped);
    disk_control_close(&c);
    pthread_mutex_destroy(&disk.lock);
    unlink(f->path);
}

static void t_disk_clients_without_descriptors_rests_and_goes_on(void **state)
{
    struct folder *f = *state;
    struct disk_clients c;
    struct rlimit normal, none;
    struct pollfd p;
    int fd, next;

    snprintf(f->path, sizeof(f->path), "%s/control.sock", f->dir);
    assert_int_equal(disk_clients_open(&c, f->path), 0);
    assert_int_equal(disk_clients_limit_ms(&c, -1), -1);
    fd = client(f->path);
    next = dup(fd);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &normal), 0);
    none = (struct rlimit){(rlim_t)next, normal.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    disk_clients_welcome(&c);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &normal), 0);
    assert_false(disk_clients_others(&c, NULL));
    assert_int_equal(disk_clients_poll(&c).fd, -1);
    assert_in_range(disk_clients_limit_ms(&c, -1), 1, 1000);
    assert_int_equal(disk_clients_limit_ms(&c, 0), 0);
    poll(NULL, 0, disk_clients_limit_ms(&c, -1));
    usleep(10000);
    p = disk_clients_poll(&c);
    assert_int_equal(poll(&p, 1, 10000), 1);
    disk_clients_welcome(&c);
    assert_true(disk_clients_others(&c, NULL));
    close(fd);
    disk_clients_close(&c);
    unlink(f->path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            t_disk_control_client_leaves_with_answers_unread_all_is_done, folder_make,
            folder_remove),
        cmocka_unit_test_setup_teardown(t_disk_clients_without_descriptors_rests_and_goes_on,
                                        folder_make, folder_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
