/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_names.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

bool disk_name_fine(const char *name)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-";
    size_t n = strlen(name);

    return n >= 1 && n <= 64 && name[0] != '.' && strspn(name, fine) == n;
}

static const char *base_of(const char *variable, const char *usual)
{
    const char *value = getenv(variable);

    return value && *value ? value : usual;
}

int disk_run_dir(char *out, size_t size, const char *domain, const char *vdev)
{
    int n = snprintf(out, size, "%s/disk-%s-%s", base_of("XENTWIN_RUNDIR", DISK_RUN_BASE), domain,
                     vdev);

    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

int disk_state_dir(char *out, size_t size, const char *domain, const char *vdev)
{
    int n =
        snprintf(out, size, "%s/%s-%s", base_of("XENTWIN_STATEDIR", DISK_STATE_BASE), domain, vdev);

    return n > 0 && (size_t)n < size ? 0 : -ENAMETOOLONG;
}

bool disk_escape_path(const char *path, char *out, size_t size)
{
    size_t n = 0;

    for (; *path && n + 4 <= size; path++)
        n += (size_t)snprintf(out + n, 4,
                              *path == ' '   ? "%%20"
                              : *path == '%' ? "%%25"
                                             : "%c",
                              *path);
    out[n] = 0;
    return !*path;
}

int disk_make_dirs(const char *path)
{
    char part[PATH_MAX];

    for (size_t i = 1;; i++) {
        if (i >= sizeof(part)) return -ENAMETOOLONG;
        if (path[i] && path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0700) && errno != EEXIST) return -errno;
        if (!path[i]) return 0;
    }
}
