/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One kept QMP connection to the QEMU of an HVM guest (/var/run/xen/qmp-libxl-<domid>).
 *
 * QEMU serves one client at a time on that socket, and stock xl needs it too: the connection is opened for a protection and
 * libxl's own lock file for it (userdata-l.<domid>.<uuid>.qmp-socket-lock, flock) is held meanwhile. Answers are bounded: 1 MiB.
 * Commands are queued and run one after another; each has its own limit.
 */
#ifndef LIBXL_QMP_CLIENT_H
#define LIBXL_QMP_CLIENT_H

#include "libxl_ev.h"

typedef struct libxl__qmp libxl__qmp;
typedef struct libxl__qmp_cmd libxl__qmp_cmd;
/* rc 0: QEMU said "return". ERROR_QMP_*, ERROR_TIMEDOUT, ERROR_FAIL otherwise (logged with QEMU's own text). */
typedef void libxl__qmp_callback(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc);

struct libxl__qmp_cmd {
    libxl__qmp_callback *callback;
    void *user;
    int limit_ms;
    /* own */
    libxl__qmp *qmp;
    libxl__qmp_cmd *next;
    char *text;
    int fd;
};

int libxl__qmp_open(libxl__loop *loop, uint32_t domid, libxl__qmp **qmp); /* connects lazily, negotiates capabilities */
void libxl__qmp_close(libxl__qmp *qmp); /* queued commands get no callback; NULL is fine */

void libxl__qmp_cmd_init(libxl__qmp_cmd *cmd);
/* json is the complete command object, e.g. {"execute":"stop"}; copied. fd (-1 none) is passed beside it by SCM_RIGHTS and stays the caller's. */
int libxl__qmp_send(libxl__qmp *qmp, libxl__qmp_cmd *cmd, const char *json, int fd);

/* Forgets one command: no callback any more (what QEMU was already told it still does); cmd can be sent again. Not queued: fine. */
void libxl__qmp_cancel(libxl__qmp *qmp, libxl__qmp_cmd *cmd);

/* Ready-made. The state file is written by QEMU through an fd set, so that no path is needed: fd is ours, truncated first. */
int libxl__qmp_stop(libxl__qmp *qmp, libxl__qmp_cmd *cmd);
int libxl__qmp_cont(libxl__qmp *qmp, libxl__qmp_cmd *cmd);
int libxl__qmp_save_state(libxl__qmp *qmp, libxl__qmp_cmd *cmd, int fd, bool live);
int libxl__qmp_global_dirty_log(libxl__qmp *qmp, libxl__qmp_cmd *cmd, bool enable);

/* Blocking, for the guard and clean-up: connect, run one argument-less command (e.g. "cont"), close; at most limit_ms. */
int libxl__qmp_simple_blocking(libxl__gc *gc, uint32_t domid, const char *json, int limit_ms);

#endif
