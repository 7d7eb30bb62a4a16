/* SPDX-License-Identifier: LGPL-2.1-only */
/* xentwin-disk start: nbdkit with our plugin, or xentwin-drbd, in the background. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>

#include "xentwin_disk.h"

#define ARGS_MAX 32
#define STATUS_LIMIT_MS 10000
#define DRBD_PREFIX "drbd:"

struct args {
    char *v[ARGS_MAX];
    int n;
};

static void add(struct args *a, const char *key, const char *value)
{
    char *text = NULL;

    if (!value || a->n >= ARGS_MAX - 1) return;
    if (asprintf(&text, "%s%s", key, value) < 0) abort();
    a->v[a->n++] = text;
}

static const char *plugin_path(void)
{
    const char *path = getenv("XENTWIN_DISK_PLUGIN");

    return path && *path ? path : XENTWIN_LIBEXECDIR "/nbdkit-xentwin-plugin.so";
}

bool instance_is_drbd(const struct instance *in)
{
    return !strncmp(in->path, DRBD_PREFIX, strlen(DRBD_PREFIX));
}

/* The program that serves it, but for nbdkit. */
static const char *part_path(const struct instance *in)
{
    const char *drbd = getenv("XENTWIN_DRBD");

    if (!instance_is_drbd(in)) return plugin_path();
    return drbd && *drbd ? drbd : XENTWIN_LIBEXECDIR "/xentwin-drbd";
}

static void make_drbd_args(const struct instance *in, struct args *a)
{
    add(a, "", part_path(in));
    add(a, "", in->path + strlen(DRBD_PREFIX));
    add(a, "", in->run_dir);
    add(a, "", in->state_dir);
    add(a, "", in->backup ? "backup" : "primary");
    add(a, "", in->limit_ms ? in->limit_ms : "3000");
    add(a, "", in->force_primary ? "force" : NULL);
}

static void make_args(const struct instance *in, struct args *a)
{
    add(a, "", "nbdkit");
    add(a, "", "--unix");
    add(a, in->run_dir, "/nbd.sock");
    add(a, "", "--pidfile");
    add(a, in->run_dir, "/pid");
    add(a, "--threads=", in->threads ? in->threads : "16");
    add(a, "", plugin_path());
    add(a, "path=", in->path);
    add(a, "run=", in->run_dir);
    add(a, "state=", in->state_dir);
    add(a, "role=", in->backup ? "backup" : "primary");
    add(a, "shared=", in->shared);
    add(a, "queue=", in->queue);
    add(a, "journal=", in->journal);
    add(a, "limit-ms=", in->limit_ms);
    add(a, "settle-ms=", in->shared ? in->settle_ms : NULL);
    add(a, "hold=", in->on_slow && !strcmp(in->on_slow, "hold") ? "true" : NULL);
    add(a, "force-primary=", in->force_primary ? "true" : NULL);
}

/* The last error that it wrote, without what it puts in front. */
static void repeat_error(int fd)
{
    static const char mark[] = "error: ";
    char text[4096];
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = 0;
    char *line = strstr(text, mark);
    if (line)
        line += strlen(mark);
    else
        line = text;
    line[strcspn(line, "\n")] = 0;
    complain("%s", *line ? line : "the instance ended without a reason");
}

static void run_program(struct args *a, int log_fd)
{
    /* Its socket is made for root alone; it leaves our session and our descriptors behind. */
    setsid();
    signal(SIGPIPE, SIG_DFL);
    dup2(log_fd, 1);
    dup2(log_fd, 2);
    close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
    execvp(a->v[0], a->v);
    dprintf(2, "error: cannot start %s: %s\n", a->v[0], strerror(errno));
    _exit(127);
}

static int start_program(const struct instance *in)
{
    struct args a = {.n = 0};
    int status = 0, log_fd = memfd_create("instance", MFD_CLOEXEC);
    char stale[PATH_MAX + 16];

    if (instance_is_drbd(in))
        make_drbd_args(in, &a);
    else
        make_args(in, &a);
    snprintf(stale, sizeof(stale), "%s/nbd.sock", in->run_dir);
    unlink(stale);
    pid_t pid = log_fd < 0 ? -1 : fork();
    if (pid == 0) run_program(&a, log_fd);
    if (pid < 0)
        complain("cannot start a process: %s", strerror(errno));
    else if (waitpid(pid, &status, 0) == pid && status)
        repeat_error(log_fd);
    if (log_fd >= 0) close(log_fd);
    while (a.n)
        free(a.v[--a.n]);
    return pid > 0 && !status ? 0 : 1;
}

/* Whether a status names this path, as the instance got it. */
static bool same_path(const char *reply, const char *key, const char *path,
                      char told[DISK_PATH_MAX])
{
    char escaped[DISK_PATH_MAX];

    told[0] = 0;
    return disk_escape_path(path, escaped, sizeof(escaped)) &&
           status_value(reply, key, told, DISK_PATH_MAX) && !strcmp(told, escaped);
}

/* The one that runs must be of the same disk; else `why` is one line. */
static int check_running(const struct instance *in, const char *real, int fd,
                         char why[DISK_REPLY_MAX])
{
    char reply[DISK_REPLY_MAX], path[DISK_PATH_MAX];

    if (client_request(fd, "status", NULL, 0, reply, STATUS_LIMIT_MS)) {
        snprintf(why, DISK_REPLY_MAX, "the instance %s-%s does not answer: %.1000s", in->domain,
                 in->vdev, reply);
        return 1;
    }
    if (!same_path(reply, "path", real, path)) {
        snprintf(why, DISK_REPLY_MAX, "the instance %s-%s runs with another disk, %.1000s",
                 in->domain, in->vdev, path);
        return 1;
    }
    const char *shared = in->shared ? in->shared : "-";
    if (!same_path(reply, "shared", shared, path)) {
        snprintf(why, DISK_REPLY_MAX,
                 "the instance %s-%s runs with the shared journal %.500s, not %.500s", in->domain,
                 in->vdev, path, shared);
        return 1;
    }
    return 0;
}

/* One that runs is kept, or makes room for us if it may. Takes fd. */
static int use_running(const struct instance *in, const char *real, int fd, bool *kept)
{
    char why[DISK_REPLY_MAX], reply[DISK_REPLY_MAX];
    int r = check_running(in, real, fd, why);

    *kept = !r || !in->replaces;
    if (*kept) {
        close(fd);
    } else {
        r = client_end(in, fd, "leave", reply);
    }
    if (r) complain("%s", why);
    return r;
}

/* A status that holds only a path's beginning could be another disk's. */
static bool paths_fit(const struct instance *in, const char *real)
{
    const char *const paths[] = {real, in->shared};
    char escaped[DISK_PATH_MAX];

    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
        if (paths[i] && !disk_escape_path(paths[i], escaped, sizeof(escaped))) {
            complain("cannot use %s: %s", paths[i], strerror(ENAMETOOLONG));
            return false;
        }
    return true;
}

int instance_start(struct instance *in, bool *running)
{
    char real[PATH_MAX];
    int r, fd;

    if (instance_is_drbd(in)) {
        snprintf(real, sizeof(real), "%s", in->path);
    } else if (!realpath(in->path, real)) {
        complain("cannot use %s as a disk: %s", in->path, strerror(errno));
        return 1;
    }
    if (!paths_fit(in, real)) return 1;
    fd = client_reach(in);
    *running = fd >= 0;
    if (fd < -1) return 1;
    if (fd >= 0) {
        r = use_running(in, real, fd, running);
        if (r || *running) return r;
    }
    if (access(part_path(in), R_OK)) {
        complain("cannot read %s: %s", part_path(in), strerror(errno));
        return 1;
    }
    r = disk_make_dirs(in->run_dir);
    if (!r) r = disk_make_dirs(in->state_dir);
    if (r) {
        complain("cannot make %s or %s: %s", in->run_dir, in->state_dir, strerror(-r));
        return 1;
    }
    return start_program(in);
}
