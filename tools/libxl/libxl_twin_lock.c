/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_twin_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_LOCK "/var/lock/xl"

void libxl__twin_lock_find(const char *conf, char *path, size_t room)
{
    char line[512], value[256];
    FILE *f = fopen(conf, "re");

    snprintf(path, room, DEFAULT_LOCK);
    while (f && fgets(line, sizeof(line), f)) {
        if (sscanf(line, " lockfile = \"%255[^\"]\"", value) == 1 ||
            sscanf(line, " lockfile = '%255[^']'", value) == 1)
            snprintf(path, room, "%s", value);
    }
    if (f) fclose(f);
}

static int make_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, S_IWUSR);

    if (fd < 0) return -1;
    return close(fd);
}

void libxl__twin_lock_replace(const char *path, const char *own, int err_fd)
{
    if (!make_file(path) && !make_file(own) && !unshare(CLONE_NEWNS) &&
        !mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) && !mount(own, path, NULL, MS_BIND, NULL))
        return;
    dprintf(err_fd,
            "no lock of its own instead of %s: %s; other guests cannot be created meanwhile\n",
            path, strerror(errno));
}
