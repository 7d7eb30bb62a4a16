/* SPDX-License-Identifier: LGPL-2.1-only */
/* The control socket of an instance: its end; docs/misc/disk.md, section 2. */
#ifndef DISK_CONTROL_H
#define DISK_CONTROL_H

#include <pthread.h>
#include <stdbool.h>

#include "disk.h"
#include "disk_clients.h"

struct disk_control {
    struct disk *disk;
    int wake_fd;
    bool runs, stop;
    pthread_t thread;
    pthread_mutex_t lock; /* of the clients; taken after the disk's */
    struct disk_clients clients;
    void (*asked_to_stop)(void);
};

/* Binds `path`; what is there is replaced (the caller holds the instance's lock). */
int disk_control_open(struct disk_control *c, struct disk *d, const char *path);
/* After the last fork. */
int disk_control_start(struct disk_control *c);
void disk_control_close(struct disk_control *c);

#endif
