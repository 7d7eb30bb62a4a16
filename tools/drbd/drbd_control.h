/* SPDX-License-Identifier: LGPL-2.1-only */
/* The control socket of an instance: its end; docs/misc/disk.md, section 2. */
#ifndef DRBD_CONTROL_H
#define DRBD_CONTROL_H

#include <poll.h>

#include "disk_clients.h"
#include "drbd_instance.h"

struct drbd_control {
    struct drbd_instance *instance;
    bool stop; /* somebody said so */
    struct disk_clients clients;
};

/* Binds `path`; what is there is replaced (the caller holds the instance's lock). 0 or -errno. */
int drbd_control_open(struct drbd_control *c, struct drbd_instance *in, const char *path);
void drbd_control_close(struct drbd_control *c);
/* Fills p, DISK_CLIENTS_MAX + 1 of them, and works off what poll found there. */
void drbd_control_before(const struct drbd_control *c, struct pollfd *p);
void drbd_control_after(struct drbd_control *c, const struct pollfd *p);
/* To all that subscribed. */
void drbd_control_event(struct drbd_control *c, const char *text);
/* To the one whose barrier waits. */
void drbd_control_barrier(struct drbd_control *c, const char *reply);

#endif
