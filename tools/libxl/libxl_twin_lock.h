/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A lock file of its own for the stock receiver.
 *
 * Stock xl holds its lock (/var/lock/xl) for as long as it builds a domain, and waits for it without limit. A twin is being
 * built for as long as its guest is protected: with the common lock no other guest could be created, restored or protected on
 * this host meanwhile. So the receiver gets a mount namespace in which that one path is another file; all other
 * mounts follow the host's. It gives up what the lock is for, that two creations do not count the same free memory: with a
 * fixed dom0_mem, as Xen advises, there is nothing to count.
 */
#ifndef LIBXL_TWIN_LOCK_H
#define LIBXL_TWIN_LOCK_H

#include <stddef.h>

/* Where stock xl has its lock: the lockfile of conf (/etc/xen/xl.conf) or its default, into path. */
void libxl__twin_lock_find(const char *conf, char *path, size_t room);
/*
 * In the forked child: from now on path is the file own (made when it is not there). On failure one line to err_fd, and the
 * common lock stays in use.
 */
void libxl__twin_lock_replace(const char *path, const char *own, int err_fd);

#endif
