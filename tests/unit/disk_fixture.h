/* SPDX-License-Identifier: LGPL-2.1-only */
/* Fake instances of replicated disks, one control socket each, in the same loop as what is tested. */
#ifndef DISK_FIXTURE_H
#define DISK_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_ev.h"

struct fake_disk {
    libxl__loop *loop;
    libxl__ev_fd listen_ev, client_ev;
    int listen_fd, client_fd, link_fd;
    bool mute;           /* takes requests and does not answer */
    const char *refused; /* the request that it answers with an error */
    char said[2048];     /* requests so far, each with a ';' */
    char path[108];
};

static inline void fake_disk_send(struct fake_disk *d, const char *packet)
{
    assert_int_equal(send(d->client_fd, packet, strlen(packet), MSG_NOSIGNAL), strlen(packet));
}

static inline void fake_disk_close(struct fake_disk *d)
{
    if (d->client_fd < 0) return;
    libxl__ev_fd_deregister(d->loop, &d->client_ev);
    close(d->client_fd);
    d->client_fd = -1;
}

static inline void fake_disk_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events,
                                      short revents)
{
    struct fake_disk *d = CONTAINER_OF(ev, struct fake_disk, client_ev);
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    char text[300];
    struct iovec iov = {text, sizeof(text) - 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (n <= 0) {
        fake_disk_close(d);
        return;
    }
    text[n] = '\0';
    if (msg.msg_controllen) memcpy(&d->link_fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(int));
    assert_true(strlen(d->said) + (size_t)n + 2 < sizeof(d->said));
    strcat(strcat(d->said, text), ";");
    if (d->mute) return;
    /* Who asked may have gone. */
    if (d->refused && !strncmp(text, d->refused, strlen(d->refused)))
        (void)!send(fd, "error it is refused", 19, MSG_NOSIGNAL);
    else
        (void)!send(fd, "ok", 2, MSG_NOSIGNAL);
}

static inline void fake_disk_called(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events,
                                    short revents)
{
    struct fake_disk *d = CONTAINER_OF(ev, struct fake_disk, listen_ev);

    d->client_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_true(d->client_fd >= 0);
    assert_int_equal(
        libxl__ev_fd_register(d->loop, &d->client_ev, fake_disk_readable, d->client_fd, POLLIN), 0);
}

/* dir is XENTWIN_RUN_DIR; the domain is "guest". */
static inline void fake_disk_start(struct fake_disk *d, libxl__loop *loop, const char *dir,
                                   const char *vdev)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    memset(d, 0, sizeof(*d));
    d->loop = loop;
    d->client_fd = d->link_fd = -1;
    libxl__ev_fd_init(&d->listen_ev);
    libxl__ev_fd_init(&d->client_ev);
    snprintf(d->path, sizeof(d->path), "%s/disk-guest-%s", dir, vdev);
    assert_int_equal(mkdir(d->path, 0700), 0);
    strcat(d->path, "/control.sock");
    strcpy(addr.sun_path, d->path);
    d->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(d->listen_fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(d->listen_fd, 4), 0);
    assert_int_equal(
        libxl__ev_fd_register(loop, &d->listen_ev, fake_disk_called, d->listen_fd, POLLIN), 0);
}

static inline void fake_disk_stop(struct fake_disk *d)
{
    fake_disk_close(d);
    libxl__ev_fd_deregister(d->loop, &d->listen_ev);
    close(d->listen_fd);
    if (d->link_fd >= 0) close(d->link_fd);
}

#endif
