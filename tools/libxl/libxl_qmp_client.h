/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One kept QMP connection to the QEMU of an HVM guest.
 *
 * QEMU serves one client at a time on a socket, and has two for the toolstack. The kept connection
 * uses qmp-libxenstat-<domid>, so that qmp-libxl-<domid> and libxl's lock file for it stay free:
 * stock xl commands on a protected guest (block-attach, cd-insert ...) work as ever, and the guard
 * reaches QEMU while our process hangs. Who else uses the first socket, xentop, waits meanwhile for
 * what it shows of QEMU's disks.
 *
 * Answers are bounded: 1 MiB. Commands are queued and run one after another; each has its own
 * limit, from when its turn comes. A lost connection fails the command that ran; the next one
 * connects again.
 */
#ifndef LIBXL_QMP_CLIENT_H
#define LIBXL_QMP_CLIENT_H

#include "libxl_ev.h"

typedef struct libxl__qmp libxl__qmp;
typedef struct libxl__qmp_cmd libxl__qmp_cmd;
/*
 * rc 0: QEMU said "return". ERROR_QMP_*, ERROR_TIMEDOUT, ERROR_FAIL otherwise (logged with QEMU's
 * own text).
 */
typedef void libxl__qmp_callback(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc);

struct libxl__qmp_cmd {
    libxl__qmp_callback *callback; /* may close the qmp */
    void *user;
    int limit_ms;
    /* own */
    libxl__qmp *qmp;
    libxl__qmp_cmd *next;
    char *text; /* NULL: not queued */
    int fd;
};

int libxl__qmp_open(libxl__loop *loop, uint32_t domid,
                    libxl__qmp **qmp); /* connects lazily, negotiates capabilities */
/* Same on a socket of that name. */
int libxl__qmp_open_at(libxl__loop *loop, const char *path, libxl__qmp **qmp);
void libxl__qmp_close(libxl__qmp *qmp); /* queued commands get no callback; NULL is fine */

void libxl__qmp_cmd_init(libxl__qmp_cmd *cmd);
/*
 * json is the complete command object, e.g. {"execute":"stop"}, without an id; copied. fd (-1 none)
 * is passed beside it by SCM_RIGHTS and stays the caller's. The callback comes later, once, unless
 * this fails. A cmd is queued once at a time.
 */
int libxl__qmp_send(libxl__qmp *qmp, libxl__qmp_cmd *cmd, const char *json, int fd);
/* No callback any more; QEMU may still carry it out if it was sent. Not queued: fine. */
void libxl__qmp_cancel(libxl__qmp *qmp, libxl__qmp_cmd *cmd);

/*
 * Ready-made. The state file is written by QEMU through an fd set, so that no path is needed: fd is
 * ours (a memfd or file), truncated first, and is best the same one each time. live: QEMU gives its
 * disk images up until cont, for another host to open.
 */
int libxl__qmp_stop(libxl__qmp *qmp, libxl__qmp_cmd *cmd);
int libxl__qmp_cont(libxl__qmp *qmp, libxl__qmp_cmd *cmd);
int libxl__qmp_save_state(libxl__qmp *qmp, libxl__qmp_cmd *cmd, int fd, bool live);
int libxl__qmp_global_dirty_log(libxl__qmp *qmp, libxl__qmp_cmd *cmd, bool enable);

/*
 * Blocking, for the guard and clean-up: connect (qmp-libxl-<domid>), run one command (e.g.
 * {"execute":"cont"}), close; at most limit_ms.
 */
int libxl__qmp_simple_blocking(libxl__gc *gc, uint32_t domid, const char *json, int limit_ms);
/* Same on a socket of that name. */
int libxl__qmp_blocking_at(libxl__gc *gc, const char *path, const char *json, int limit_ms);

#endif
