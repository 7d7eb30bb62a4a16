/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <fcntl.h>
#include <unistd.h>

#include "disk_util.h"

extern char **environ;

static int spawn(const char *const argv[], int out_fd, int err_fd, pid_t *pid)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    int r;

    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, out_fd, 1);
    posix_spawn_file_actions_adddup2(&files, err_fd, 2);
    r = posix_spawnp(pid, argv[0], &files, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return r;
}

/* Reads to the end. 0, -ETIMEDOUT, or -E2BIG when there is more than fits. */
static int read_all(int fd, char *out, size_t size)
{
    int64_t until = disk_now_ms() + DRBD_RUN_LIMIT_MS;
    size_t n = 0;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = until - disk_now_ms();
        if (left <= 0 || (poll(&p, 1, (int)left) < 0 && errno != EINTR)) return -ETIMEDOUT;
        if (!p.revents) continue;
        ssize_t got = read(fd, out + n, size - 1 - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        n += (size_t)got;
        out[n] = 0;
        if (!got) return 0;
        if (n == size - 1) return -E2BIG;
    }
}

/* The command without its options: what a person would look up. */
static void name_command(const char *const argv[], char *text, size_t size)
{
    size_t n = 0;

    for (int i = 0; argv[i] && n < size; i++) {
        int more = snprintf(text + n, size - n, "%s%s", i ? " " : "", argv[i]);
        if (more < 0) return;
        n += (size_t)more;
    }
}

static void first_line(int fd, char *text, size_t size)
{
    ssize_t n = pread(fd, text, size - 1, 0);

    text[n > 0 ? n : 0] = 0;
    text[strcspn(text, "\n")] = 0;
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c == 0x7f) *c = '?';
}

static int judge(const char *const argv[], int r, int status, int err_fd, char why[DRBD_WHY_MAX])
{
    char command[160], said[256];

    if (!r && WIFEXITED(status) && !WEXITSTATUS(status)) return 0;
    name_command(argv, command, sizeof(command));
    first_line(err_fd, said, sizeof(said));
    if (r == -ETIMEDOUT)
        snprintf(why, DRBD_WHY_MAX, "'%s' did not end within %d s", command,
                 DRBD_RUN_LIMIT_MS / 1000);
    else if (r)
        snprintf(why, DRBD_WHY_MAX, "'%s': %s", command, strerror(-r));
    else
        snprintf(why, DRBD_WHY_MAX, "'%s' failed: %s", command,
                 *said ? said : "it does not say why");
    return -1;
}

int drbd_run(const char *const argv[], char *out, size_t size, char why[DRBD_WHY_MAX])
{
    int pair[2] = {-1, -1}, err_fd = memfd_create("drbd", MFD_CLOEXEC), status = 0, r;
    pid_t pid = 0;

    out[0] = 0;
    r = err_fd < 0 || pipe2(pair, O_CLOEXEC) ? errno : spawn(argv, pair[1], err_fd, &pid);
    if (pair[1] >= 0) close(pair[1]);
    if (r) {
        snprintf(why, DRBD_WHY_MAX, "cannot start %s: %s%s", argv[0], strerror(r),
                 r == ENOENT ? " (package drbd-utils)" : "");
        r = -1;
    } else {
        r = read_all(pair[0], out, size);
        if (r && pid > 0) kill(-pid, SIGKILL);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
        r = judge(argv, r, status, err_fd, why);
    }
    if (pair[0] >= 0) close(pair[0]);
    if (err_fd >= 0) close(err_fd);
    return r;
}
