/* SPDX-License-Identifier: LGPL-2.1-only */
/* The stream's bytes: partial transfers, and what ends a wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "xc_sr_io.h"

#define TOTAL (1 << 20)

struct reader {
    int fd;
    uint8_t *bytes;
    size_t got;
};

static void *read_all(void *arg)
{
    struct reader *r = arg;
    ssize_t n;

    while ((n = read(r->fd, r->bytes + r->got, 3000)) > 0)
        r->got += (size_t)n;
    return NULL;
}

static void write_pieces(struct xc_sr_io *io, uint8_t *from)
{
    struct iovec iov[2000];
    size_t piece = TOTAL / 1999;
    unsigned int i;

    for (i = 0; i < 1999; i++)
        iov[i] = (struct iovec){from + i * piece, piece};
    iov[1999] = (struct iovec){from + 1999 * piece, TOTAL - 1999 * piece};
    assert_int_equal(xc_sr_io_writev(io, iov, 2000), 0);
}

/* More pieces than one writev takes, through something much smaller than the whole. */
static void check_transfer(int rfd, int wfd)
{
    struct reader r = {rfd, malloc(TOTAL), 0};
    uint8_t *from = malloc(TOTAL);
    struct xc_sr_io io;
    pthread_t t;
    size_t i;

    for (i = 0; i < TOTAL; i++)
        from[i] = (uint8_t)(i * 7 + i / 4096);
    xc_sr_io_init(&io, wfd, -1, -1);
    assert_int_equal(pthread_create(&t, NULL, read_all, &r), 0);
    write_pieces(&io, from);
    assert_int_equal(io.bytes, TOTAL);
    xc_sr_io_dispose(&io);
    close(wfd);
    pthread_join(t, NULL);
    assert_int_equal(r.got, TOTAL);
    assert_memory_equal(r.bytes, from, TOTAL);
    close(rfd);
    free(from);
    free(r.bytes);
}

static void t_io_writes_all_through_a_pipe(void **state)
{
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    check_transfer(p[0], p[1]);
}

static void t_io_writes_all_through_a_socket(void **state)
{
    int s[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    check_transfer(s[0], s[1]);
}

static void t_io_leaves_the_flags_of_the_fd_alone(void **state)
{
    struct xc_sr_io io;
    int p[2], flags;

    (void)state;
    assert_int_equal(pipe(p), 0);
    flags = fcntl(p[1], F_GETFL);
    xc_sr_io_init(&io, p[1], -1, -1);
    assert_int_equal(fcntl(p[1], F_GETFL), flags);
    xc_sr_io_dispose(&io);
    xc_sr_io_dispose(&io);
    close(p[0]);
    close(p[1]);
}

static void t_io_full_pipe_is_left_when_told_to_stop(void **state)
{
    static uint8_t much[TOTAL];
    struct iovec iov = {much, sizeof(much)};
    struct xc_sr_io io;
    int p[2], stop = eventfd(1, 0);

    (void)state;
    assert_int_equal(pipe(p), 0);
    xc_sr_io_init(&io, p[1], stop, -1);
    assert_int_equal(xc_sr_io_stopped(&io), XC_SR_TOLD_TO_STOP);
    assert_int_equal(xc_sr_io_writev(&io, &iov, 1), -1);
    assert_int_equal(errno, ECANCELED);
    xc_sr_io_dispose(&io);
    close(p[0]);
    close(p[1]);
    close(stop);
}

static void t_io_silent_stream_is_left_when_the_parent_dies(void **state)
{
    struct xc_sr_io io;
    int p[2], parent[2];
    char c;

    (void)state;
    assert_int_equal(pipe(p) | pipe(parent), 0);
    xc_sr_io_init(&io, p[0], -1, parent[0]);
    assert_int_equal(xc_sr_io_stopped(&io), XC_SR_RUN);
    close(parent[1]);
    assert_int_equal(xc_sr_io_stopped(&io), XC_SR_PARENT_DIED);
    assert_int_equal(xc_sr_io_read(&io, &c, 1), -1);
    assert_int_equal(errno, EOWNERDEAD);
    close(parent[0]);
    close(p[0]);
    close(p[1]);
}

static void t_io_end_and_broken_pipe_have_their_errno(void **state)
{
    struct iovec iov = {"x", 1};
    struct xc_sr_io io;
    char two[2];
    int p[2];

    (void)state;
    assert_int_equal(pipe(p), 0);
    assert_int_equal(write(p[1], "x", 1), 1);
    close(p[1]);
    xc_sr_io_init(&io, p[0], -1, -1);
    assert_int_equal(xc_sr_io_read(&io, two, 2), -1);
    assert_int_equal(errno, ENODATA);
    xc_sr_io_dispose(&io);
    close(p[0]);

    assert_int_equal(pipe(p), 0);
    xc_sr_io_init(&io, p[1], -1, -1);
    close(p[0]);
    assert_int_equal(xc_sr_io_writev(&io, &iov, 1), -1);
    assert_int_equal(errno, EPIPE);
    xc_sr_io_dispose(&io);
    close(p[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_io_writes_all_through_a_pipe),
        cmocka_unit_test(t_io_writes_all_through_a_socket),
        cmocka_unit_test(t_io_leaves_the_flags_of_the_fd_alone),
        cmocka_unit_test(t_io_full_pipe_is_left_when_told_to_stop),
        cmocka_unit_test(t_io_silent_stream_is_left_when_the_parent_dies),
        cmocka_unit_test(t_io_end_and_broken_pipe_have_their_errno),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
