/* SPDX-License-Identifier: LGPL-2.1-only */
/* Runs one of DRBD's commands and waits for it, with a limit. */
#ifndef DRBD_RUN_H
#define DRBD_RUN_H

#include <stddef.h>

#define DRBD_WHY_MAX 512
#define DRBD_OUTPUT_MAX 16384
#define DRBD_RUN_LIMIT_MS 60000

/*
 * argv[0] is looked up in PATH. What it writes to its standard output goes to `out` as a string; more than fits fails. 0, or -1 with one
 * line in why: the command, and the first line that it wrote to its standard error.
 */
int drbd_run(const char *const argv[], char *out, size_t size, char why[DRBD_WHY_MAX]);

#endif
