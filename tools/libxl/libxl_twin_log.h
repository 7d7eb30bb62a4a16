/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Where a backup's words go: a file on this host, and standard error, which is the primary's terminal.
 *
 * Standard error leads through ssh to a host that may be dead: a word is written there only when it fits at once, since a
 * blocked write would keep the guest from being started. The file has all, within a limit.
 */
#ifndef LIBXL_TWIN_LOG_H
#define LIBXL_TWIN_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <xentoollog.h>

struct twin_log {
    xentoollog_logger lg; /* first: the logger is cast to us */
    int fd;               /* -1: no file */
    size_t written;
};

/* path is created when its directory is there; a file of another run that grew long is emptied. */
void libxl__twin_log_open(struct twin_log *log, const char *path);
void libxl__twin_log_close(struct twin_log *log);
/* One line for a person: file and standard error. */
void libxl__twin_log_say(struct twin_log *log, const char *line);

#endif
