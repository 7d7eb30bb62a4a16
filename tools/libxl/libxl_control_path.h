/* SPDX-License-Identifier: LGPL-2.1-only */
/* What both ends of the control socket share: where it is and how long its lines are. */
#ifndef LIBXL_CONTROL_PATH_H
#define LIBXL_CONTROL_PATH_H

#include <sys/un.h>

#include "libxl_control.h"

#define CONTROL_LINE_MAX 256 /* bytes of a request without its newline */
#define CONTROL_ANSWER_MAX 65536
#define CONTROL_PATH_SIZE sizeof(((struct sockaddr_un *)0)->sun_path)

/* /run/xentwin, or XENTWIN_RUN_DIR (tests). */
const char *control_dir(void);
/*
 * Checks side and domain and makes the path of the socket ("sock") or its lock ("lock"). 0 or
 * ERROR_INVAL, logged.
 */
int control_path(libxl__gc *gc, char path[CONTROL_PATH_SIZE], const char *side, const char *domain,
                 const char *suffix);

#endif
