/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A link is a command, `ssh HOST xentwin-disk attach ...`, whose standard input and output are one end of a socket
 * pair; the other end goes to the instance of this host. Whom to trust is thus ssh's business.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "xl.h"
#include "xl_disk.h"
#include "xl_opts.h"

#define STATUS_LIMIT_MS 5000
#define MESSAGES_MAX 16384
#define END_WAIT_MS 3000
#define SLICE_MS 50

extern char **environ;

void xl_disk_links_init(struct xl_disk_links *l)
{
    memset(l, 0, sizeof(*l));
    for (unsigned i = 0; i < DISK_MAX; i++)
        l->pid[i] = l->err_fd[i] = -1;
}

/* A blank in a path is written %20, a '%' is %25. */
static void unescape(char *text)
{
    for (char *at = text; (at = strchr(at, '%')); at++) {
        bool blank = !strncmp(at, "%20", 3);

        if (!blank && strncmp(at, "%25", 3)) continue;
        *at = blank ? ' ' : '%';
        memmove(at + 1, at + 3, strlen(at + 3) + 1);
    }
}

/* What the instance of this host says of its disk, as it was before it was escaped. */
static bool instance_value(const char *status, const char *key, char *out, size_t size)
{
    if (!xl_disk_status_value(status, key, out, size)) return false;
    unescape(out);
    return true;
}

/* `xentwin-disk attach ...` for the remote shell. False after one line. */
static bool attach_words(const struct xl_disk_links *l, unsigned i, char *out, size_t size)
{
    const char *vdev = l->disks->vdev[i];
    char path[512], shared[512] = "-", length[32], quoted[600], *status = NULL;
    libxl__gc gc;
    int rc, n;
    bool ok;

    libxl__gc_init(&gc, NULL);
    rc = libxl__disk_call(&gc, l->domain, vdev, "status", STATUS_LIMIT_MS, &status);
    ok = !rc && instance_value(status, "path", path, sizeof(path)) &&
         xl_disk_status_value(status, "size", length, sizeof(length));
    if (ok) (void)instance_value(status, "shared", shared, sizeof(shared));
    libxl__gc_dispose(&gc);
    if (!ok) {
        xl_say("remus", "disk %s: its instance on this host does not tell path and size", vdev);
        return false;
    }
    if (!xl_shell_quote(path, quoted, sizeof(quoted))) return false;
    n = snprintf(out, size, "xentwin-disk attach %s %s --size %s --path %s", l->domain, vdev,
                 length, quoted);
    if (n <= 0 || (size_t)n >= size || !strcmp(shared, "-")) return n > 0 && (size_t)n < size;
    if (!xl_shell_quote(shared, quoted, sizeof(quoted))) return false;
    size -= (size_t)n;
    n = snprintf(out + n, size, " --shared %s", quoted);
    return n > 0 && (size_t)n < size;
}

/* A file in memory that takes that much and no more; -1: none. */
static int open_messages(void)
{
    int fd = memfd_create("xentwin-disk-link", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) return -1;
    if (!ftruncate(fd, MESSAGES_MAX) && fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) >= 0)
        return fd;
    close(fd);
    return -1;
}

/* Runs the command in a process group of its own, so that Ctrl-C reaches only us. 0 or an errno. */
static int spawn(struct xl_disk_links *l, unsigned i, const char *words, int stream)
{
    char line[512], port[16] = "";
    unsigned number = strcmp(l->ssh, "ssh") ? 0 : xl_disk_target_port(l->disks->target[i], l->host);
    char *argv[] = {(char *)"sh",    (char *)"-c",  line, (char *)"sh",
                    (char *)l->host, (char *)words, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    /* Another command than plain ssh was given with -s and says itself how to get there. */
    if (number) snprintf(port, sizeof(port), " -p %u", number);
    snprintf(line, sizeof(line), "exec %s%s \"$@\"", l->ssh, port);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawn_file_actions_adddup2(&files, stream, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, stream, STDOUT_FILENO);
    if (l->err_fd[i] >= 0) posix_spawn_file_actions_adddup2(&files, l->err_fd[i], STDERR_FILENO);
    r = posix_spawn(&l->pid[i], "/bin/sh", &files, &attr, argv, environ);
    if (r) l->pid[i] = -1;
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return r;
}

int xl_disk_link_start(struct xl_disk_links *l, unsigned i)
{
    int pair[2] = {-1, -1}, r;
    char words[2048];

    if (!attach_words(l, i, words, sizeof(words))) return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        xl_say("remus", "disk %s: no socket pair: %s", l->disks->vdev[i], strerror(errno));
        return -1;
    }
    l->err_fd[i] = open_messages();
    r = spawn(l, i, words, pair[1]);
    close(pair[1]);
    if (!r) return pair[0];
    xl_say("remus", "disk %s: cannot start '%s': %s", l->disks->vdev[i], l->ssh, strerror(r));
    close(pair[0]);
    return -1;
}

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The last line that the command wrote, made printable. */
static void say_last_line(const struct xl_disk_links *l, unsigned i)
{
    char text[1024];
    off_t end = lseek(l->err_fd[i], 0, SEEK_CUR);
    size_t n = end > 0 ? (size_t)end : 0;
    char *line;
    ssize_t got;

    if (n > sizeof(text) - 1) n = sizeof(text) - 1;
    got = pread(l->err_fd[i], text, n, end - (off_t)n);
    while (got > 0 && strchr("\r\n", text[got - 1]))
        got--;
    if (got <= 0) return;
    text[got] = '\0';
    line = strrchr(text, '\n');
    line = line ? line + 1 : text;
    for (char *c = line; *c; c++)
        if (*c < ' ' || *c == 0x7f) *c = '?';
    xl_say("remus", "disk %s at %s: %s", l->disks->vdev[i], l->host, line);
}

void xl_disk_links_end(struct xl_disk_links *l, bool say)
{
    int64_t until = now_ms() + END_WAIT_MS;

    for (unsigned i = 0; i < DISK_MAX; i++) {
        int sig = SIGTERM;

        while (l->pid[i] > 0 && waitpid(l->pid[i], NULL, WNOHANG) == 0) {
            if (now_ms() >= until) {
                kill(-l->pid[i], sig);
                sig = SIGKILL;
                until = now_ms() + END_WAIT_MS;
            }
            poll(NULL, 0, SLICE_MS);
        }
        l->pid[i] = -1;
        if (l->err_fd[i] < 0) continue;
        if (say) say_last_line(l, i);
        close(l->err_fd[i]);
        l->err_fd[i] = -1;
    }
}
