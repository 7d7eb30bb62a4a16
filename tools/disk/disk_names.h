/* SPDX-License-Identifier: LGPL-2.1-only */
/* Where an instance has its files; docs/misc/disk.md, section 1. */
#ifndef DISK_NAMES_H
#define DISK_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#define DISK_RUN_BASE "/run/xentwin"
#define DISK_STATE_BASE "/var/lib/xentwin"
#define DISK_REQUEST_MAX 256
#define DISK_REPLY_MAX 1700
/* Of a path as a status tells it, with its end. */
#define DISK_PATH_MAX 512

/* Of a DOMAIN or VDEV. */
bool disk_name_fine(const char *name);
/* -ENAMETOOLONG. Both look at the environment. */
int disk_run_dir(char *out, size_t size, const char *domain, const char *vdev);
int disk_state_dir(char *out, size_t size, const char *domain, const char *vdev);
/* Makes a folder and those above it, 0700. */
int disk_make_dirs(const char *path);
/* As a status tells it: one word, and another one for each other path. False: `out` holds only its beginning. */
bool disk_escape_path(const char *path, char *out, size_t size);

#endif
