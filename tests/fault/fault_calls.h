/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The n-th call to the system fails. The linker puts __wrap_NAME between the code and libc (--wrap in meson.build); NAME is what the
 * compiler emits: with a 64 bit off_t it is open64, stat64.
 */
#ifndef FAULT_CALLS_H
#define FAULT_CALLS_H

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

static atomic_int fail_at, own_calls; /* fail_at 0: none fails */
static atomic_int *calls =
    &own_calls; /* a test of several processes that count together shares it */

static bool fails(int error)
{
    if (atomic_fetch_add(calls, 1) + 1 != atomic_load(&fail_at)) return false;
    errno = error;
    return true;
}

/* For a call that returns -1 when it fails. */
#define WRAP(type, name, error, formal, actual)                                                    \
    type __real_##name formal;                                                                     \
    type __wrap_##name formal;                                                                     \
    type __wrap_##name formal                                                                      \
    {                                                                                              \
        return fails(error) ? -1 : __real_##name actual;                                           \
    }

static int open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d) closedir(d);
    return n;
}

#endif
