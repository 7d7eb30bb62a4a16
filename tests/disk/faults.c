/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Linked between the plugin's code and libc, in a test's build of the plugin only. DISK_FAULT says what
 * goes wrong: KIND@N, from the N-th call on (LASTS of them):
 *     eio      a write fails                    nospc    a write finds no space
 *     sync     a flush fails                    short    every transfer moves a part only
 *     late     a flush takes 300 ms
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define LASTS 3

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t size, off_t offset);
int __wrap_fdatasync(int fd);
ssize_t __real_pwrite64(int fd, const void *buf, size_t size, off_t offset);
ssize_t __real_pread64(int fd, void *buf, size_t size, off_t offset);
int __real_fdatasync(int fd);

static atomic_uint writes, syncs, transfers;

static bool planned(const char *kind, atomic_uint *calls)
{
    const char *plan = getenv("DISK_FAULT");
    size_t n = strlen(kind);

    if (!plan || strncmp(plan, kind, n) || plan[n] != '@') return false;
    unsigned at = (unsigned)strtoul(plan + n + 1, NULL, 10);
    unsigned call = atomic_fetch_add(calls, 1);
    return call >= at && call < at + LASTS;
}

static size_t shortened(size_t size)
{
    const char *plan = getenv("DISK_FAULT");

    if (size < 2 || !plan || strncmp(plan, "short", 5)) return size;
    return 1 + (atomic_fetch_add(&transfers, 1) * 7919u) % size;
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t size, off_t offset)
{
    if (planned("eio", &writes)) {
        errno = EIO;
        return -1;
    }
    if (planned("nospc", &writes)) {
        errno = ENOSPC;
        return -1;
    }
    return __real_pwrite64(fd, buf, shortened(size), offset);
}

ssize_t __wrap_pread64(int fd, void *buf, size_t size, off_t offset)
{
    return __real_pread64(fd, buf, shortened(size), offset);
}

int __wrap_fdatasync(int fd)
{
    if (planned("sync", &syncs)) {
        errno = EIO;
        return -1;
    }
    if (planned("late", &syncs)) usleep(300000);
    return __real_fdatasync(fd);
}
