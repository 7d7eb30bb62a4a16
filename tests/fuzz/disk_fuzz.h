/* SPDX-License-Identifier: LGPL-2.1-only */
/* A small replicated disk of its own for each input: files in memory where the machine has that. */
#ifndef DISK_FUZZ_H
#define DISK_FUZZ_H

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "disk_util.h"

#define DISK_BYTES (1u << 20)

static char disk_dir[64], disk_path[80];

static inline void disk_forget(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", disk_dir, name);
    unlink(path);
}

static inline void disk_remove_files(void)
{
    static const char *const names[] = {"disk", "journal", "state", "state.new", "bitmap"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        disk_forget(names[i]);
    rmdir(disk_dir);
}

/* The folder, once, and an empty disk in it. */
static inline void disk_fresh(void)
{
    int fd;

    if (!disk_dir[0]) {
        signal(SIGPIPE, SIG_IGN);
        stderr = fopen("/dev/null",
                       "w"); /* of the code under test; a sanitizer writes to its descriptor */
        /* A fuzzer kills us at will: whoever runs it gives a folder that is removed afterwards. */
        snprintf(disk_dir, sizeof(disk_dir), "%s/disk_fuzz_XXXXXX",
                 getenv("TMPDIR")           ? getenv("TMPDIR")
                 : access("/dev/shm", W_OK) ? "/tmp"
                                            : "/dev/shm");
        if (!mkdtemp(disk_dir)) abort();
        snprintf(disk_path, sizeof(disk_path), "%s/disk", disk_dir);
        atexit(disk_remove_files);
    }
    disk_forget("journal");
    disk_forget("state");
    disk_forget("bitmap");
    fd = open(disk_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, DISK_BYTES)) abort();
    close(fd);
}

static inline struct disk_options disk_backup_options(void)
{
    return (struct disk_options){.path = disk_path,
                                 .state_dir = disk_dir,
                                 .queue_bytes = 1 << 20,
                                 .journal_bytes = DISK_JOURNAL_MIN,
                                 .limit_ms = 1000};
}

/* What it has to say is of no interest here. */
static inline void disk_quiet(struct disk *d, const char *text)
{
}

static inline bool disk_is_zero(void)
{
    static unsigned char all[DISK_BYTES];
    int fd = open(disk_path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, all, sizeof(all)) != (ssize_t)sizeof(all)) abort();
    close(fd);
    return !all[0] && !memcmp(all, all + 1, sizeof(all) - 1);
}

#endif
