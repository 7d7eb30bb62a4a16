/* SPDX-License-Identifier: LGPL-2.1-only */
/* The disk: a regular file or a block device. Thread-safe: it only wraps system calls. */
#ifndef DISK_STORE_H
#define DISK_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "disk_direct.h"

/* Asked right before each change of a shared disk or its journal: 0, or the change is left undone with
 * that error. */
struct disk_gate {
    int (*may_write)(void *arg);
    void *arg;
};

struct disk_store {
    int fd; /* -1: not open */
    uint64_t size;
    bool block;
    struct disk_direct direct;    /* shared: the same fd; else its fd is -1 */
    const struct disk_gate *gate; /* NULL: none */
};

void disk_store_init(struct disk_store *s);
void disk_store_dispose(struct disk_store *s);

/* Opens `path` for reading and writing. Returns 0 or -errno; logs nothing. */
int disk_store_open(struct disk_store *s, const char *path);
/* The same for a disk that another host sees, too: nothing stays in the page cache. */
int disk_store_open_shared(struct disk_store *s, const char *path, bool read_only);

int disk_store_read(struct disk_store *s, void *buf, uint64_t size, uint64_t offset);
int disk_store_write(struct disk_store *s, const void *buf, uint64_t size, uint64_t offset);
/* The range reads as zeros afterwards. `trim`: its space may be freed; by writing zeros if nothing
 * else works. */
int disk_store_zero(struct disk_store *s, uint64_t size, uint64_t offset, bool trim);
/* As disk_store_zero with trim, but -EOPNOTSUPP and untouched if the space cannot be freed. */
int disk_store_punch(struct disk_store *s, uint64_t size, uint64_t offset);
int disk_store_flush(struct disk_store *s);

#endif
