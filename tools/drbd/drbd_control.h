/* SPDX-License-Identifier: LGPL-2.1-only */
/* The control socket of an instance: its end; docs/misc/disk.md, section 2. */
#ifndef DRBD_CONTROL_H
#define DRBD_CONTROL_H

#include <poll.h>

#include "disk_request.h"
#include "drbd_instance.h"

#define DRBD_CLIENTS_MAX 16

struct drbd_client {
    int fd; /* -1: free */
    bool subscribed, failed;
    bool waits; /* its barrier is not answered yet: it is not read meanwhile */
};

struct drbd_control {
    struct drbd_instance *instance;
    struct disk_listener listener;
    bool stop; /* somebody said so */
    struct drbd_client clients[DRBD_CLIENTS_MAX];
};

/* Binds `path`; what is there is replaced (the caller holds the instance's lock). 0 or -errno. */
int drbd_control_open(struct drbd_control *c, struct drbd_instance *in, const char *path);
void drbd_control_close(struct drbd_control *c);
/* Fills p, DRBD_CLIENTS_MAX + 1 of them, and works off what poll found there. */
void drbd_control_before(const struct drbd_control *c, struct pollfd *p);
void drbd_control_after(struct drbd_control *c, const struct pollfd *p);
/* To all that subscribed. */
void drbd_control_event(struct drbd_control *c, const char *text);
/* To the one whose barrier waits. */
void drbd_control_barrier(struct drbd_control *c, const char *reply);

#endif
