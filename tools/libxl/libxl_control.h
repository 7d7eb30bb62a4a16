/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The control socket of a running operation: /run/xentwin/<side>-<domain>.sock (mode 0600, directory 0700).
 *
 * A client connects, writes one line (a word and an optional argument, at most 256 bytes) and reads one line of answer
 * ("ok ..." or "error ..."), or for `status` several lines up to the end of file. Words: stop, status (primary); promote, discard, status (backup).
 * A stale socket of a dead process is replaced; a live one means that this domain is already being
 * protected (or received): ERROR_LOCK_FAIL.
 */
#ifndef LIBXL_CONTROL_H
#define LIBXL_CONTROL_H

#include "libxl_ev.h"

typedef struct libxl__control libxl__control;
struct libxl__control {
    libxl__loop *loop;
    const char *side;   /* "primary" or "backup" */
    const char *domain; /* checked: [A-Za-z0-9_.+-]{1,64}, no leading dot */
    void *user;
    /*
     * One request. The answer may come now or later through libxl__control_reply(ctl, id, text); a request left unanswered when
     * the control is disposed is answered "error ended".
     */
    void (*request)(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line);
    struct control_state *st;
};

void libxl__control_init(libxl__control *ctl);
int libxl__control_start(libxl__control *ctl);
/* text needs no newline; id of a client that went away is ignored. */
void libxl__control_reply(libxl__control *ctl, unsigned id, const char *text);
/* Answers what is open, removes the socket file. Safe twice. */
void libxl__control_dispose(libxl__control *ctl);
/* Removes the files of an operation that was killed; those of one that lives stay. */
void libxl__control_sweep(libxl__gc *gc, const char *side, const char *domain);

/*
 * Client side, blocking: sends line to the operation for domain on this host, waits at most limit_ms for the answer, which is
 * allocated from gc. ERROR_NOTFOUND: nobody listens. ERROR_TIMEDOUT, ERROR_FAIL.
 */
int libxl__control_call(libxl__gc *gc, const char *side, const char *domain, const char *line,
                        int limit_ms, char **answer);

#endif
