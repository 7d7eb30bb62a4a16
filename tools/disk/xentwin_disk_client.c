/* SPDX-License-Identifier: LGPL-2.1-only */
/* A client of the control socket. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "xentwin_disk.h"

#define REACH_STEP_MS 50

const char *instance_name(const struct instance *in)
{
    return strrchr(in->run_dir, '/') + strlen("/disk-");
}

static int no_connection(const struct instance *in)
{
    if (errno == ENOENT || errno == ECONNREFUSED) return -1;
    complain("cannot ask for the instance %s: %s", instance_name(in), strerror(errno));
    return -2;
}

int client_connect(const struct instance *in)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", in->run_dir);

    if (n < 0 || (size_t)n >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return no_connection(in);
    }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0) return no_connection(in);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        int r = no_connection(in);
        close(fd);
        return r;
    }
    return fd;
}

/* The file that an instance has locked for as long as it lives. -1: it cannot be opened, or there never was one. */
static int open_lock(const struct instance *in)
{
    char lock[PATH_MAX + 8];

    snprintf(lock, sizeof(lock), "%s/lock", in->run_dir);
    return open(lock, O_RDWR | O_CLOEXEC);
}

/* Nobody has it: one that begins or ends has no socket that answers, but the lock. */
static bool lock_is_free(const struct instance *in)
{
    int fd = open_lock(in);

    if (fd < 0) return true;
    bool yes = !flock(fd, LOCK_EX | LOCK_NB);
    close(fd);
    return yes;
}

int client_reach(const struct instance *in)
{
    for (int ms = 0;; ms += REACH_STEP_MS) {
        int fd = client_connect(in);
        if (fd != -1 || lock_is_free(in)) return fd;
        if (ms >= STOP_LIMIT_MS) {
            complain("the instance %s begins or ends since %d s", instance_name(in), ms / 1000);
            return -2;
        }
        poll(NULL, 0, REACH_STEP_MS);
    }
}

int client_read(int fd, char packet[DISK_REPLY_MAX], int limit_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;

    do
        n = poll(&p, 1, limit_ms);
    while (n < 0 && errno == EINTR);
    if (n == 0) errno = ETIMEDOUT;
    if (n <= 0) return -1;
    ssize_t size = recv(fd, packet, DISK_REPLY_MAX - 1, 0);
    if (size < 0) return -1;
    packet[size] = 0;
    return (int)size;
}

static int send_request(int fd, const char *request, const int *fds, int fd_count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * 2)];
    } control = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)request, .iov_len = strlen(request)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd_count) {
        m.msg_control = control.space;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
        struct cmsghdr *h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
        memcpy(CMSG_DATA(h), fds, sizeof(int) * (size_t)fd_count);
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

int client_request(int fd, const char *request, const int *fds, int fd_count,
                   char reply[DISK_REPLY_MAX], int limit_ms)
{
    if (send_request(fd, request, fds, fd_count)) {
        snprintf(reply, DISK_REPLY_MAX, "error %s", strerror(errno));
        return -1;
    }
    do {
        int n = client_read(fd, reply, limit_ms);
        if (n <= 0) {
            snprintf(reply, DISK_REPLY_MAX, "error %s",
                     n ? strerror(errno) : "the instance has gone");
            return -1;
        }
    } while (!strncmp(reply, "event ", 6));
    return strncmp(reply, "ok", 2) ? -1 : 0;
}

static void remove_sockets(const struct instance *in)
{
    static const char *const names[] = {"nbd.sock", "control.sock", "pid"};
    char path[PATH_MAX + 16];

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        snprintf(path, sizeof(path), "%s/%s", in->run_dir, names[i]);
        unlink(path);
    }
}

int client_end(const struct instance *in, int fd, const char *word, char reply[DISK_REPLY_MAX])
{
    int n;

    if (client_request(fd, word, NULL, 0, reply, STOP_LIMIT_MS)) {
        close(fd);
        return 1;
    }
    do
        n = client_read(fd, reply, STOP_LIMIT_MS);
    while (n > 0);
    close(fd);
    /* The clean mark is written after the socket is closed, under the lock. */
    fd = open_lock(in);
    if (n == 0 && fd >= 0) n = flock(fd, LOCK_EX);
    if (n == 0) remove_sockets(in);
    if (fd >= 0) close(fd);
    if (n) snprintf(reply, DISK_REPLY_MAX, "it did not end");
    return n ? 1 : 0;
}

bool status_value(const char *reply, const char *key, char *out, size_t size)
{
    size_t n = strlen(key);

    for (const char *p = strchr(reply, ' '); p; p = strchr(p, ' ')) {
        p++;
        if (strncmp(p, key, n) || p[n] != '=') continue;
        size_t length = strcspn(p + n + 1, " ");
        if (length >= size) return false;
        memcpy(out, p + n + 1, length);
        out[length] = 0;
        return true;
    }
    return false;
}
