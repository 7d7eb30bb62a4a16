/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the kept and the blocking QMP client share. */
#ifndef LIBXL_QMP_SOCKET_H
#define LIBXL_QMP_SOCKET_H

#include <sys/types.h>

#include "libxl_gc.h"
#include "libxl_qmp_json.h"

#define XEN_RUN_DIR "/var/run/xen"
#define QMP_CAPABILITIES "{\"execute\":\"qmp_capabilities\"}"

/*
 * A non-blocking connection. ERROR_NOT_READY (not logged): too many clients wait for QEMU, try
 * again.
 */
int libxl__qmp_connect(libxl__gc *gc, const char *path, int *fd);
/* Like send without blocking and without SIGPIPE; fd, unless -1, goes with the first byte. */
ssize_t libxl__qmp_write(int sock, const char *text, size_t len, int fd);
/* What an answer means: 0 or ERROR_*; an error is logged with QEMU's own words. */
int libxl__qmp_answer(libxl__gc *gc, const char *path, const char *command,
                      const struct qmp_msg *msg);

#endif
