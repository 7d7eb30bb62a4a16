/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * QMP text in, messages out; knows no sockets. What the client does not need is skipped: events,
 * and all of a "return" but that it came.
 */
#ifndef LIBXL_QMP_JSON_H
#define LIBXL_QMP_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QMP_MAX_BYTES (1024 * 1024) /* of one message */
#define QMP_MAX_DEPTH 64

enum qmp_kind { QMP_NONE, QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

struct qmp_msg {
    enum qmp_kind kind;
    bool has_id;
    uint64_t id; /* ours are numbers; any other id counts as none */
    /* QMP_ERROR; cut to fit, control characters replaced */
    char error_class[32];
    char desc[200];
};

typedef struct libxl__qmp_parser libxl__qmp_parser;

/* NULL: out of memory. */
libxl__qmp_parser *libxl__qmp_parser_new(void);
void libxl__qmp_parser_free(libxl__qmp_parser *p); /* NULL is fine */
/*
 * Eats up to n bytes, stops after the end of a message. *used is how many were eaten; msg->kind is
 * QMP_NONE when more are needed. 0, or ERROR_PROTOCOL_ERROR_QMP with a reason in msg->desc: then
 * the parser can only be freed.
 */
int libxl__qmp_parse(libxl__qmp_parser *p, const void *bytes, size_t n, size_t *used,
                     struct qmp_msg *msg);

#endif
