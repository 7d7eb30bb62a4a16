/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Invariants
 *  1. At most DISK_ROUNDS_MAX questions wait for answers; a client that is asked more is given up.
 *  2. A client answers its questions in order: `answered` is the number of the round that its next answer belongs to.
 *  3. A round is done exactly once: when its last client answered, or went away.
 */
#include "libxl_disk_set.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <libxl.h>

#define UNPROTECT_LIMIT_MS 5000

bool libxl__disk_vdev_ok(const char *vdev)
{
    size_t len = strlen(vdev);

    return len >= 1 && len <= DISK_VDEV_MAX &&
           strspn(vdev, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == len;
}

static void __attribute__((format(printf, 3, 4)))
set_why(libxl__disk_set *ds, unsigned disk, const char *fmt, ...)
{
    va_list al;
    int n;

    n = snprintf(ds->why, sizeof(ds->why), "disk %s: ", ds->vdevs[disk]);
    va_start(al, fmt);
    vsnprintf(ds->why + n, sizeof(ds->why) - (size_t)n, fmt, al);
    va_end(al);
}

static bool number_after(const char *text, const char *word, uint64_t *out, const char **end)
{
    size_t len = strlen(word);
    char *stop;

    if (strncmp(text, word, len) || text[len] < '0' || text[len] > '9') return false;
    errno = 0;
    *out = strtoull(text + len, &stop, 10);
    *end = stop;
    return !errno;
}

bool libxl__disk_number(const char *text, const char *key, uint64_t *out)
{
    size_t len = strlen(key);
    const char *at, *end;

    for (at = text; (at = strstr(at, key)); at += len) {
        if ((at != text && at[-1] != ' ') || at[len] != '=') continue;
        return number_after(at + len, "=", out, &end) && (!*end || *end == ' ');
    }
    return false;
}

/* ---- connection ---- */

const char *libxl__disk_run_dir(void)
{
    static const char *const names[] = {"XENTWIN_RUNDIR", "XENTWIN_RUN_DIR"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *dir = getenv(names[i]);

        if (dir && *dir) return dir;
    }
    return "/run/xentwin";
}

/* A connected socket, or -1 with errno set. */
static int connect_instance(const char *domain, const char *vdev)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int n, fd, saved;

    n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/disk-%s-%s/control.sock",
                 libxl__disk_run_dir(), domain, vdev);
    if (n < 0 || (size_t)n >= sizeof(addr.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr))) return fd;
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

/* The packet text, with pass_fd (-1: none) along. */
static int send_packet(int fd, const char *text, int pass_fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {(void *)text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (pass_fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = control.room;
        msg.msg_controllen = sizeof(control.room);
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass_fd, sizeof(int));
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

static void round_answered(libxl__egc *egc, libxl__disk_set *ds, uint64_t number, int rc)
{
    struct disk_round *r = &ds->rounds[number % DISK_ROUNDS_MAX];

    if (rc) r->rc = rc;
    if (--r->left || !r->done) return;
    r->done(egc, ds, r->rc);
}

static void close_client(struct disk_client *c)
{
    if (c->fd < 0) return;
    libxl__ev_fd_deregister(c->set->loop, &c->ev);
    close(c->fd);
    c->fd = -1;
}

/* Every question it still owes an answer to has failed. Its callers may dispose the set: that ends the loop. */
static void client_gone(libxl__egc *egc, struct disk_client *c, unsigned disk)
{
    libxl__disk_set *ds = c->set;

    close_client(c);
    LOG(libxl__loop_gc(ds->loop), ERROR, "domain %s: %s", ds->domain, ds->why);
    while (c->answered < ds->asked)
        round_answered(egc, ds, c->answered++, ERROR_FAIL);
    if (libxl__disk_set_isopen(ds) && ds->gone) ds->gone(egc, ds, disk);
}

/* ---- what comes ---- */

/* Events that nobody here waits for (linked, slow, ...) pass by. */
static void event_came(libxl__egc *egc, libxl__disk_set *ds, unsigned disk, const char *text)
{
    uint64_t a = 0, b = 0;
    const char *end;

    if (!strcmp(text, "synced")) {
        ds->event(egc, ds, disk, DISK_SYNCED, 0, 0, "");
    } else if (number_after(text, "barrier ", &a, &end) && !*end) {
        ds->event(egc, ds, disk, DISK_BARRIER, a, 0, "");
    } else if (number_after(text, "progress ", &a, &end) && number_after(end, " ", &b, &end) &&
               !*end) {
        ds->event(egc, ds, disk, DISK_PROGRESS, a, b, "");
    } else if (!strncmp(text, "lost", 4) && (!text[4] || text[4] == ' ')) {
        set_why(ds, disk, "%s", text[4] ? text + 5 : "the link is lost");
        ds->event(egc, ds, disk, DISK_LOST, 0, 0, text[4] ? text + 5 : "the link is lost");
    }
}

/* "ok", "ok ...": 0; "error ...": 1; else -1. */
static int answer_kind(const char *text)
{
    if (!strncmp(text, "ok", 2) && (!text[2] || text[2] == ' ')) return 0;
    if (!strncmp(text, "error", 5) && (!text[5] || text[5] == ' ')) return 1;
    return -1;
}

static void packet_came(libxl__egc *egc, struct disk_client *c, unsigned disk, const char *text)
{
    libxl__disk_set *ds = c->set;
    int kind = answer_kind(text);

    if (!strncmp(text, "event ", 6)) {
        event_came(egc, ds, disk, text + 6);
        return;
    }
    if (kind < 0 || c->answered == ds->asked) {
        set_why(ds, disk, "its instance said '%.60s', which nobody asked", text);
        client_gone(egc, c, disk);
        return;
    }
    if (!kind && text[2] && ds->words) ds->words(egc, ds, disk, text + 3);
    if (kind) set_why(ds, disk, "%s", text[5] ? text + 6 : "refused without a reason");
    round_answered(egc, ds, c->answered++, kind ? ERROR_FAIL : 0);
}

static void client_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct disk_client *c = CONTAINER_OF(ev, struct disk_client, ev);
    libxl__disk_set *ds = c->set;
    unsigned disk = (unsigned)(c - ds->clients);
    char text[DISK_TEXT_MAX + 1];
    ssize_t n;

    n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0 || (size_t)n == sizeof(text)) {
        set_why(ds, disk,
                n > 0 ? "its instance sent a packet that is too long" : "its instance ended");
        client_gone(egc, c, disk);
        return;
    }
    text[n] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if (text[i] < 0x20 || text[i] == 0x7f) text[i] = i == n - 1 ? '\0' : '?';
    packet_came(egc, c, disk, text);
}

/* ---- for the user ---- */

void libxl__disk_set_init(libxl__disk_set *ds)
{
    memset(ds, 0, sizeof(*ds));
    for (unsigned i = 0; i < DISK_MAX; i++) {
        ds->clients[i].set = ds;
        ds->clients[i].fd = -1;
        libxl__ev_fd_init(&ds->clients[i].ev);
    }
}

static void subscribed(libxl__egc *egc, libxl__disk_set *ds, int rc)
{
    if (rc) LOG(libxl__loop_gc(ds->loop), ERROR, "domain %s: %s", ds->domain, ds->why);
}

int libxl__disk_set_open(libxl__disk_set *ds)
{
    libxl__gc *gc = libxl__loop_gc(ds->loop);
    int rc = 0;

    assert(ds->n);
    if (ds->n > DISK_MAX) {
        LOG(gc, ERROR, "domain %s: %u replicated disks, at most %d can be", ds->domain, ds->n,
            DISK_MAX);
        return ERROR_INVAL;
    }
    for (unsigned i = 0; i < ds->n; i++) {
        struct disk_client *c = &ds->clients[i];

        c->fd = connect_instance(ds->domain, ds->vdevs[i]);
        if (c->fd < 0) {
            set_why(ds, i, "there is no instance of it on this host (%s)", strerror(errno));
            LOG(gc, ERROR, "domain %s: %s", ds->domain, ds->why);
            rc = ERROR_FAIL;
            continue;
        }
        if (libxl__ev_fd_register(ds->loop, &c->ev, client_readable, c->fd, POLLIN)) {
            close_client(c);
            rc = ERROR_FAIL;
        }
    }
    if (libxl__disk_set_ask(ds, subscribed, NULL, "subscribe")) rc = ERROR_FAIL;
    return rc;
}

int libxl__disk_set_ask(libxl__disk_set *ds, libxl__disk_done *done, const int *fds,
                        const char *fmt, ...)
{
    struct disk_round *r = &ds->rounds[ds->asked % DISK_ROUNDS_MAX];
    char text[DISK_TEXT_MAX];
    va_list al;

    va_start(al, fmt);
    vsnprintf(text, sizeof(text), fmt, al);
    va_end(al);
    if (r->left) {
        snprintf(ds->why, sizeof(ds->why), "the disks' instances do not answer");
        return ERROR_FAIL;
    }
    *r = (struct disk_round){.done = done};
    for (unsigned i = 0; i < ds->n; i++) {
        struct disk_client *c = &ds->clients[i];

        if (c->fd < 0 || send_packet(c->fd, text, fds ? fds[i] : -1)) {
            /* A client that cannot be written to says the rest by its end of file. */
            if (c->fd >= 0) set_why(ds, i, "its instance does not take '%s'", text);
            r->rc = ERROR_FAIL;
            if (c->fd >= 0) shutdown(c->fd, SHUT_RDWR);
        }
        if (c->fd < 0)
            c->answered = ds->asked + 1;
        else
            r->left++;
    }
    ds->asked++;
    return r->left ? 0 : r->rc;
}

void libxl__disk_set_dispose(libxl__disk_set *ds)
{
    for (unsigned i = 0; i < DISK_MAX; i++)
        if (ds->clients[i].set) close_client(&ds->clients[i]);
    /* Rounds that are open are forgotten: a disposed set calls nobody. */
    memset(ds->rounds, 0, sizeof(ds->rounds));
    for (unsigned i = 0; i < DISK_MAX; i++)
        ds->clients[i].answered = 0;
    ds->asked = 0;
}

/* ---- one question ---- */

static int wait_readable(int fd, int limit_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;

    do {
        n = poll(&p, 1, limit_ms);
    } while (n < 0 && errno == EINTR);
    return n;
}

int libxl__disk_call(libxl__gc *gc, const char *domain, const char *vdev, const char *question,
                     int limit_ms, char **answer)
{
    char text[DISK_TEXT_MAX + 1];
    int fd, rc = ERROR_FAIL;
    ssize_t n;

    *answer = NULL;
    fd = connect_instance(domain, vdev);
    if (fd < 0) return errno == ENOENT || errno == ECONNREFUSED ? ERROR_NOTFOUND : ERROR_FAIL;
    if (send_packet(fd, question, -1)) goto out;
    if (wait_readable(fd, limit_ms) <= 0) goto out;
    n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);
    if (n <= 0) goto out;
    text[n] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if (text[i] < 0x20 || text[i] == 0x7f) text[i] = i == n - 1 ? '\0' : '?';
    *answer = libxl__strdup(gc, text);
    if (answer_kind(text)) goto out;
    *answer += text[2] ? 3 : 2;
    rc = 0;
out:
    close(fd);
    return rc;
}

static int unprotect_one(libxl__gc *gc, const char *domain, const char *vdev)
{
    char *answer;
    int rc;

    rc = libxl__disk_call(gc, domain, vdev, "status", UNPROTECT_LIMIT_MS, &answer);
    if (rc == ERROR_NOTFOUND || (!rc && strstr(answer, "role=backup"))) return 0;
    rc = libxl__disk_call(gc, domain, vdev, "unprotect", UNPROTECT_LIMIT_MS, &answer);
    if (rc)
        LOG(gc, ERROR, "domain %s: disk %s still counts as protected: %s", domain, vdev,
            answer ? answer : "its instance does not answer");
    return rc;
}

int libxl__disk_unprotect(libxl__gc *gc, const char *domain)
{
    const char *prefix = libxl__sprintf(gc, "disk-%s-", domain);
    DIR *dir = opendir(libxl__disk_run_dir());
    struct dirent *entry;
    int rc = 0;

    while (dir && (entry = readdir(dir))) {
        const char *vdev = entry->d_name + strlen(prefix);

        if (strncmp(entry->d_name, prefix, strlen(prefix)) || !libxl__disk_vdev_ok(vdev)) continue;
        if (unprotect_one(gc, domain, vdev)) rc = ERROR_FAIL;
    }
    if (dir) closedir(dir);
    return rc;
}
