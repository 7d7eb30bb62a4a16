/* SPDX-License-Identifier: LGPL-2.1-only */
#include "xc_sr_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define TRIES 10

static int path_of(const char *dir, uint32_t domid, char path[PATH_MAX])
{
    if (snprintf(path, PATH_MAX, "%s/log-%u.lock", dir, domid) < PATH_MAX) return 0;
    errno = ENAMETOOLONG;
    return -1;
}

/* Nobody else may have a say in who is locked out. */
static int make_dir(const char *dir)
{
    struct stat st;

    if (mkdir(dir, 0700) && errno != EEXIST) return -1;
    if (lstat(dir, &st)) return -1;
    if (S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022)) return 0;
    errno = EPERM;
    return -1;
}

/* Its owner removes the file, so a lock counts only if the path still leads to it. */
static int try_lock(const char *path)
{
    struct stat by_fd, by_path;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600), saved;

    if (fd < 0) return -1;
    if (!flock(fd, LOCK_EX | LOCK_NB)) {
        if (!fstat(fd, &by_fd) && !stat(path, &by_path) && by_fd.st_ino == by_path.st_ino &&
            by_fd.st_dev == by_path.st_dev)
            return fd;
        errno = ESTALE;
    }
    saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

int xc_sr_lock(const char *dir, uint32_t domid)
{
    char path[PATH_MAX];
    int fd = -1, i;

    if (path_of(dir, domid, path) || make_dir(dir)) return -1;
    for (i = 0; i < TRIES && fd < 0; i++) {
        fd = try_lock(path);
        if (fd < 0 && errno != ESTALE) return -1;
    }
    return fd;
}

void xc_sr_unlock(const char *dir, uint32_t domid, int fd)
{
    char path[PATH_MAX];
    int saved = errno;

    if (!path_of(dir, domid, path)) unlink(path);
    close(fd);
    errno = saved;
}
