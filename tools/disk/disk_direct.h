/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Access that leaves nothing in this host's page cache: another host reads and writes the same storage.
 * Where the file system knows no O_DIRECT, writes are synchronous and pages are thrown away before a read.
 */
#ifndef DISK_DIRECT_H
#define DISK_DIRECT_H

#include <stdbool.h>
#include <stdint.h>

struct disk_direct {
    int fd;
    uint32_t align; /* of offsets, sizes and memory; 1: any */
};

/* flags: O_RDONLY or O_RDWR, and O_CREAT. 0 or -errno. */
int disk_direct_open(struct disk_direct *s, const char *path, int flags);
void disk_direct_close(struct disk_direct *s);
/* Any range within the file. A write reads and writes the whole blocks that it is part of: whoever
 * writes beside it must wait. */
int disk_direct_read(const struct disk_direct *s, void *buf, uint64_t size, uint64_t offset);
int disk_direct_write(const struct disk_direct *s, const void *buf, uint64_t size, uint64_t offset);

#endif
