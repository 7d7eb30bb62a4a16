/* SPDX-License-Identifier: LGPL-2.1-only */
/* Sockets and answers of QMP, and the client that blocks. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_qmp_client.h"
#include "libxl_qmp_socket.h"

int libxl__qmp_connect(libxl__gc *gc, const char *path, int *fd_out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int rc, fd = -1;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        goto fail;
    }
    strcpy(addr.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) goto fail;
    if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        *fd_out = fd;
        return 0;
    }
    if (errno == EAGAIN) {
        rc = ERROR_NOT_READY;
        goto out;
    }
fail:
    LOGE(gc, ERROR, "cannot reach QEMU at %s", path);
    rc = ERROR_FAIL;
out:
    if (fd >= 0) close(fd);
    return rc;
}

ssize_t libxl__qmp_write(int sock, const char *text, size_t len, int fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct iovec iov = {.iov_base = (void *)text, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t r;

    if (fd >= 0) {
        struct cmsghdr *cmsg;

        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
    }
    do
        r = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (r < 0 && errno == EINTR);
    return r;
}

int libxl__qmp_answer(libxl__gc *gc, const char *path, const char *command,
                      const struct qmp_msg *msg)
{
    static const struct {
        const char *name;
        int rc;
    } classes[] = {{"GenericError", ERROR_QMP_GENERIC_ERROR},
                   {"CommandNotFound", ERROR_QMP_COMMAND_NOT_FOUND},
                   {"DeviceNotActive", ERROR_QMP_DEVICE_NOT_ACTIVE},
                   {"DeviceNotFound", ERROR_QMP_DEVICE_NOT_FOUND}};
    size_t i;

    if (msg->kind == QMP_RETURN) return 0;
    LOG(gc, ERROR, "%s: QEMU refuses %s: %s: %s", path, command, msg->error_class, msg->desc);
    for (i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        if (!strcmp(msg->error_class, classes[i].name)) return classes[i].rc;
    return ERROR_UNKNOWN_QMP_ERROR;
}

struct blocking {
    libxl__gc *gc;
    const char *path;
    int fd;
    int64_t until_ms;
    libxl__qmp_parser *parser;
    char buf[4096];
    size_t len, at;
};

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Waits for the socket; ERROR_TIMEDOUT is logged. */
static int wait_for(struct blocking *b, short events)
{
    struct pollfd pfd = {.fd = b->fd, .events = events};
    int64_t left = b->until_ms - now_ms();
    int r;

    r = left > 0 ? poll(&pfd, 1, (int)left) : 0;
    if (r > 0 || (r < 0 && errno == EINTR)) return 0;
    LOG(b->gc, ERROR, "%s: no answer from QEMU in time", b->path);
    return ERROR_TIMEDOUT;
}

/* The next message that is no event. */
static int next_message(struct blocking *b, struct qmp_msg *msg)
{
    size_t used;
    ssize_t got;
    int rc;

    for (;;) {
        while (b->at < b->len) {
            rc = libxl__qmp_parse(b->parser, b->buf + b->at, b->len - b->at, &used, msg);
            b->at += used;
            if (rc) LOG(b->gc, ERROR, "%s: bad answer from QEMU: %s", b->path, msg->desc);
            if (rc || (msg->kind != QMP_NONE && msg->kind != QMP_EVENT)) return rc;
        }
        rc = wait_for(b, POLLIN);
        if (rc) return rc;
        got = recv(b->fd, b->buf, sizeof(b->buf), MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
        if (got <= 0) {
            LOG(b->gc, ERROR, "%s: QEMU closed the connection", b->path);
            return ERROR_FAIL;
        }
        b->len = (size_t)got;
        b->at = 0;
    }
}

static int send_line(struct blocking *b, const char *json)
{
    const char *line = libxl__sprintf(b->gc, "%s\n", json);
    size_t len = strlen(line), done = 0;
    ssize_t r;
    int rc;

    while (done < len) {
        r = libxl__qmp_write(b->fd, line + done, len - done, -1);
        if (r > 0) {
            done += (size_t)r;
            continue;
        }
        if (errno != EAGAIN) {
            LOGE(b->gc, ERROR, "%s: cannot send a command", b->path);
            return ERROR_FAIL;
        }
        rc = wait_for(b, POLLOUT);
        if (rc) return rc;
    }
    return 0;
}

static int connect_in_time(struct blocking *b)
{
    struct timespec pause = {.tv_nsec = 20000000};
    int rc;

    for (;;) {
        rc = libxl__qmp_connect(b->gc, b->path, &b->fd);
        if (rc != ERROR_NOT_READY) return rc;
        if (now_ms() > b->until_ms) {
            LOG(b->gc, ERROR, "%s: QEMU is busy with other clients", b->path);
            return ERROR_TIMEDOUT;
        }
        nanosleep(&pause, NULL);
    }
}

/* One command and its answer. */
static int converse(struct blocking *b, const char *json)
{
    struct qmp_msg msg;
    int rc;

    rc = send_line(b, json);
    if (!rc) rc = next_message(b, &msg);
    return rc ? rc : libxl__qmp_answer(b->gc, b->path, json, &msg);
}

int libxl__qmp_blocking_at(libxl__gc *gc, const char *path, const char *json, int limit_ms)
{
    struct blocking b = {.gc = gc, .path = path, .fd = -1, .until_ms = now_ms() + limit_ms};
    struct qmp_msg msg;
    int rc;

    b.parser = libxl__qmp_parser_new();
    if (!b.parser) return ERROR_NOMEM;
    rc = connect_in_time(&b);
    if (rc) goto out;
    rc = next_message(&b, &msg);
    if (rc) goto out;
    if (msg.kind != QMP_GREETING) {
        LOG(gc, ERROR, "%s: not a QMP socket", path);
        rc = ERROR_PROTOCOL_ERROR_QMP;
        goto out;
    }
    rc = converse(&b, QMP_CAPABILITIES);
    if (rc) goto out;
    rc = converse(&b, json);
out:
    libxl__qmp_parser_free(b.parser);
    if (b.fd >= 0) close(b.fd);
    return rc;
}

int libxl__qmp_simple_blocking(libxl__gc *gc, uint32_t domid, const char *json, int limit_ms)
{
    char path[64];

    snprintf(path, sizeof(path), XEN_RUN_DIR "/qmp-libxl-%u", domid);
    return libxl__qmp_blocking_at(gc, path, json, limit_ms);
}
