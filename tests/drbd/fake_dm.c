/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A device mapper of files, in place of drbd_dm.c: pool/N of the test's root is thin volume N, pool/now holds the number of the one that the
 * volume's device shows. LVM knows number 1. Without the folder there is no thin volume.
 */
#include "drbd_dm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX 4096

static void place(char path[FILE_MAX], const char *name)
{
    const char *root = getenv("XENTWIN_DRBD_ROOT");

    snprintf(path, FILE_MAX, "%s/pool/%s", root ? root : "", name);
}

static void place_of(char path[FILE_MAX], uint32_t id)
{
    char name[16];

    snprintf(name, sizeof(name), "%u", id);
    place(path, name);
}

static ssize_t load(const char *path, char text[FILE_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, FILE_MAX - 1);

    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    return n;
}

static int store(const char *path, const char *text, int flags)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0600);
    int r = fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text) ? -1 : 0;

    if (fd >= 0) close(fd);
    return r;
}

int drbd_dm_open(struct drbd_dm *dm, const char *path, char why[DRBD_WHY_MAX])
{
    char now[FILE_MAX], text[FILE_MAX];

    memset(dm, 0, sizeof(*dm));
    snprintf(dm->path, sizeof(dm->path), "%s", path);
    snprintf(dm->pool_name, sizeof(dm->pool_name), "pool");
    place(now, "now");
    if (load(now, text) > 0) {
        dm->id = (uint32_t)strtoul(text, NULL, 10);
        return 0;
    }
    snprintf(why, DRBD_WHY_MAX, "%s below DRBD is no LVM thin volume", path);
    return -1;
}

int drbd_dm_pool_fine(const struct drbd_dm *dm, char why[DRBD_WHY_MAX])
{
    return 0;
}

int drbd_dm_snapshot(const struct drbd_dm *dm, uint32_t id, uint32_t of, bool *taken,
                     char why[DRBD_WHY_MAX])
{
    char from[FILE_MAX], to[FILE_MAX], text[FILE_MAX];

    place_of(from, of);
    place_of(to, id);
    *taken = false;
    if (load(from, text) >= 0 && !store(to, text, O_EXCL)) return 0;
    *taken = errno == EEXIST;
    snprintf(why, DRBD_WHY_MAX, "no snapshot of %s: %s", dm->path, strerror(errno));
    return -1;
}

int drbd_dm_delete(const struct drbd_dm *dm, uint32_t id, char why[DRBD_WHY_MAX])
{
    char path[FILE_MAX];

    place_of(path, id);
    if (!unlink(path) || errno == ENOENT) return 0;
    snprintf(why, DRBD_WHY_MAX, "%.300s: %s", path, strerror(errno));
    return -1;
}

int drbd_dm_point(struct drbd_dm *dm, uint32_t id, char why[DRBD_WHY_MAX])
{
    char path[FILE_MAX], text[16];

    place(path, "now");
    snprintf(text, sizeof(text), "%u", id);
    if (!store(path, text, O_TRUNC)) {
        dm->id = id;
        return 0;
    }
    snprintf(why, DRBD_WHY_MAX, "%.300s: %s", path, strerror(errno));
    return -1;
}
