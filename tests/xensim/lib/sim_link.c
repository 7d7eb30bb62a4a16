/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "sim_link.h"

void sim_enter_host(const char *socket)
{
    char dir[PATH_MAX];
    char *end;

    setenv(SIM_ENV_SOCKET, socket, 1);
    snprintf(dir, sizeof(dir), "%s", socket);
    end = strrchr(dir, '/');
    if (!end) return;
    *end = 0;
    setenv("XENTWIN_RUN_DIR", dir, 1);
}

static int connect_daemon(void)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const char *path = getenv(SIM_ENV_SOCKET);
    int fd;

    if (!path || !*path) {
        errno = ENOENT;
        return -1;
    }
    if (strlen(path) >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(addr.sun_path, path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

int sim_link_open(struct sim_link *link)
{
    link->fd = connect_daemon();
    link->pid = getpid();
    pthread_mutex_init(&link->lock, NULL);
    return link->fd < 0 ? -1 : 0;
}

void sim_link_close(struct sim_link *link)
{
    if (link->fd >= 0) close(link->fd);
    link->fd = -1;
    pthread_mutex_destroy(&link->lock);
}

static int take_fd(const struct msghdr *msg)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(msg);
    int fd = -1;

    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
        c->cmsg_len == CMSG_LEN(sizeof(fd)))
        memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

static int receive(int sock, struct sim_reply *reply, int *fd)
{
    char control[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {reply, sizeof(*reply)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;

    do
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0) return -1;
    *fd = take_fd(&msg);
    if (n == (ssize_t)sizeof(*reply)) return 0;
    errno = ECONNRESET;
    return -1;
}

static int exchange(struct sim_link *link, const struct sim_request *req, struct sim_reply *reply,
                    int *fd)
{
    ssize_t n;

    if (link->pid != getpid()) {
        close(link->fd);
        link->fd = connect_daemon();
        link->pid = getpid();
        if (link->fd < 0) return -1;
    }
    do
        n = send(link->fd, req, sizeof(*req), MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -1 : receive(link->fd, reply, fd);
}

int64_t sim_link_request(struct sim_link *link, const struct sim_request *req, int *fd,
                         uint32_t *instance)
{
    struct sim_reply reply = {0, 0, 0};
    int got = -1, r;

    pthread_mutex_lock(&link->lock);
    r = exchange(link, req, &reply, &got);
    pthread_mutex_unlock(&link->lock);
    if (fd)
        *fd = got;
    else if (got >= 0)
        close(got);
    if (r) return -1;
    if (reply.error) {
        errno = reply.error;
        return -1;
    }
    if (instance) *instance = reply.instance;
    return reply.value;
}
