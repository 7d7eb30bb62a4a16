/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * To preload into Debian's xenstored and xl: files that the kernel of a domain 0 offers, and folders that one machine has
 * only once, are looked for under XENSIM_RUNDIR. Other paths stay what they are.
 *
 *   /proc/xen/NAME -> XENSIM_RUNDIR/NAME     /var/lib/xen/NAME -> XENSIM_RUNDIR/var-lib-xen/NAME     and so on, below
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

struct place {
    const char *from, *to;
};

static const struct place places[] = {
    {"/proc/xen/", "/"},
    {"/dev/xen/", "/dev-xen/"},
    {"/var/lib/xen/", "/var-lib-xen/"},
    {"/var/run/xen/", "/run-xen/"},
    {"/run/xen/", "/run-xen/"},
    {"/var/log/xen/", "/log-xen/"},
    {"/var/lock/xl", "/xl.lock"},
    {"/run/xentwin", "/run-xentwin"},
};

/* path, or what it is here, in room. */
static const char *place_of(const char *path, char room[PATH_MAX])
{
    const char *dir = getenv("XENSIM_RUNDIR");
    size_t i, len;

    for (i = 0; dir && path && i < sizeof(places) / sizeof(places[0]); i++) {
        len = strlen(places[i].from);
        if (strncmp(path, places[i].from, len)) continue;
        if (snprintf(room, PATH_MAX, "%s%s%s", dir, places[i].to, path + len) < PATH_MAX)
            return room;
    }
    return path;
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

static int open_next(const char *name, const char *path, int flags, va_list args)
{
    char room[PATH_MAX];
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;

    return NEXT(int (*)(const char *, int, ...), name)(place_of(path, room), flags, mode);
}

EXPORT int open(const char *path, int flags, ...)
{
    va_list args;
    int fd;

    va_start(args, flags);
    fd = open_next("open", path, flags, args);
    va_end(args);
    return fd;
}

EXPORT int open64(const char *path, int flags, ...)
{
    va_list args;
    int fd;

    va_start(args, flags);
    fd = open_next("open64", path, flags, args);
    va_end(args);
    return fd;
}

#define ONE_PATH(type, name, declared, passed)                                                     \
    EXPORT type name declared                                                                      \
    {                                                                                              \
        char room[PATH_MAX];                                                                       \
                                                                                                   \
        return NEXT(type(*) declared, #name) passed;                                               \
    }

ONE_PATH(FILE *, fopen, (const char *path, const char *mode), (place_of(path, room), mode))
ONE_PATH(FILE *, fopen64, (const char *path, const char *mode), (place_of(path, room), mode))
ONE_PATH(DIR *, opendir, (const char *path), (place_of(path, room)))
ONE_PATH(int, rmdir, (const char *path), (place_of(path, room)))
ONE_PATH(int, glob, (const char *path, int flags, int (*failed)(const char *, int), glob_t *found),
         (place_of(path, room), flags, failed, found))
ONE_PATH(int, unlink, (const char *path), (place_of(path, room)))
ONE_PATH(int, mkdir, (const char *path, mode_t mode), (place_of(path, room), mode))
ONE_PATH(int, access, (const char *path, int mode), (place_of(path, room), mode))
ONE_PATH(int, stat, (const char *path, struct stat *st), (place_of(path, room), st))
ONE_PATH(int, stat64, (const char *path, struct stat64 *st), (place_of(path, room), st))
ONE_PATH(int, lstat, (const char *path, struct stat *st), (place_of(path, room), st))
ONE_PATH(int, lstat64, (const char *path, struct stat64 *st), (place_of(path, room), st))

EXPORT int rename(const char *from, const char *to)
{
    char room_from[PATH_MAX], room_to[PATH_MAX];

    return NEXT(int (*)(const char *, const char *), "rename")(place_of(from, room_from),
                                                               place_of(to, room_to));
}
