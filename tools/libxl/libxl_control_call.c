/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The control socket of a running operation: its names, and the end of who asks (xl remus --stop,
 * --status ...).
 *
 * The answer is read up to the end of file, at most CONTROL_ANSWER_MAX bytes, within one limit for
 * the whole call.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_control_path.h"

#define DOMAIN_MAX 64

/* ---- names ---- */

const char *control_dir(void)
{
    const char *dir = getenv("XENTWIN_RUN_DIR");

    return dir && *dir ? dir : "/run/xentwin";
}

static bool domain_ok(const char *domain)
{
    size_t len = strlen(domain);

    return len >= 1 && len <= DOMAIN_MAX && domain[0] != '.' &&
           len ==
               strspn(domain, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-");
}

int control_path(libxl__gc *gc, char path[CONTROL_PATH_SIZE], const char *side, const char *domain,
                 const char *suffix)
{
    if (strcmp(side, "primary") && strcmp(side, "backup")) {
        LOG(gc, ERROR, "control socket: side \"%s\" is neither primary nor backup", side);
        return ERROR_INVAL;
    }
    if (!domain_ok(domain)) {
        LOG(gc, ERROR,
            "control socket: the domain's name must be 1 to %d letters, digits or _.+- and not "
            "begin "
            "with a dot",
            DOMAIN_MAX);
        return ERROR_INVAL;
    }
    int n = snprintf(path, CONTROL_PATH_SIZE, "%s/%s-%s.%s", control_dir(), side, domain, suffix);
    if (n < 0 || (size_t)n >= CONTROL_PATH_SIZE) {
        LOG(gc, ERROR, "control socket: the folder name %s is too long", control_dir());
        return ERROR_INVAL;
    }
    return 0;
}

/* ---- the call ---- */

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* 0 when fd is ready for events, ERROR_TIMEDOUT at the deadline. */
static int wait_fd(int fd, short events, int64_t deadline_ms)
{
    struct pollfd p = {.fd = fd, .events = events};

    for (;;) {
        int64_t left = deadline_ms - now_ms();
        if (left <= 0) return ERROR_TIMEDOUT;
        int r = poll(&p, 1, left > 60000 ? 60000 : (int)left);
        if (r > 0) return 0;
        if (r < 0 && errno != EINTR) return ERROR_FAIL;
    }
}

static int call_connect(libxl__gc *gc, const char *path, int64_t deadline_ms, int *out)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd, rc;

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        LOGE(gc, ERROR, "no socket for %s", path);
        return ERROR_FAIL;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1); /* make_path has checked the size */
    while (connect(fd, (struct sockaddr *)&addr, sizeof(addr))) {
        if (errno == EINTR) continue;
        if (errno == ENOENT || errno == ECONNREFUSED) {
            rc = ERROR_NOTFOUND;
            goto out;
        }
        if (errno != EAGAIN) {
            LOGE(gc, ERROR, "cannot connect to %s", path);
            rc = ERROR_FAIL;
            goto out;
        }
        /* Its queue of connections is full. */
        rc = ERROR_TIMEDOUT;
        if (now_ms() >= deadline_ms) goto out;
        usleep(20000);
    }
    *out = fd;
    fd = -1;
    rc = 0;
out:
    if (fd >= 0) close(fd);
    return rc;
}

/* Up to the end of file, at most CONTROL_ANSWER_MAX. */
static int call_read(libxl__gc *gc, int fd, const char *path, int64_t deadline_ms, char **answer)
{
    char *buf = libxl__zalloc(gc, CONTROL_ANSWER_MAX + 1);
    size_t used = 0;

    while (used < CONTROL_ANSWER_MAX) {
        int rc = wait_fd(fd, POLLIN, deadline_ms);
        if (rc) return rc;
        ssize_t n = recv(fd, buf + used, CONTROL_ANSWER_MAX - used, 0);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        /* A reset after an answer: it was given without reading what we sent ("error busy"). */
        if (n < 0 && errno == ECONNRESET && used) break;
        if (n < 0) {
            LOGE(gc, ERROR, "%s: no answer", path);
            return ERROR_FAIL;
        }
        if (!n) break;
        used += (size_t)n;
    }
    if (!used) {
        LOG(gc, ERROR, "%s: closed without an answer", path);
        return ERROR_FAIL;
    }
    if (buf[used - 1] == '\n') buf[used - 1] = 0;
    *answer = buf;
    return 0;
}

int libxl__control_call(libxl__gc *gc, const char *side, const char *domain, const char *line,
                        int limit_ms, char **answer)
{
    char path[CONTROL_PATH_SIZE], text[CONTROL_LINE_MAX + 2];
    int64_t deadline_ms = now_ms() + limit_ms;
    int fd = -1, rc;

    rc = control_path(gc, path, side, domain, "sock");
    if (rc) goto out;
    if (strlen(line) > CONTROL_LINE_MAX || strchr(line, '\n')) {
        LOG(gc, ERROR, "control socket: a request is one line of at most %d bytes",
            CONTROL_LINE_MAX);
        rc = ERROR_INVAL;
        goto out;
    }
    int len = snprintf(text, sizeof(text), "%s\n", line);
    rc = call_connect(gc, path, deadline_ms, &fd);
    if (rc) goto out;
    /* A fresh socket's buffer has room for a line. An early "error busy" closes it: the answer is
     * still there. */
    if (send(fd, text, (size_t)len, MSG_NOSIGNAL) != len && errno != EPIPE) {
        LOGE(gc, ERROR, "%s: cannot send", path);
        rc = ERROR_FAIL;
        goto out;
    }
    rc = call_read(gc, fd, path, deadline_ms, answer);
out:
    if (fd >= 0) close(fd);
    return rc;
}
