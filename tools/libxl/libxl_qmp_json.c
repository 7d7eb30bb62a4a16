/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A message is one JSON object. yajl calls back for its parts; depth 1 is the message itself, depth
 * 2 the "error" object. Nothing is kept but the few fields of struct qmp_msg, so what a message may
 * cost is what yajl holds of one string: bounded by QMP_MAX_BYTES.
 */
#include <stdlib.h>
#include <string.h>

#include <libxl.h>
#include <yajl/yajl_parse.h>

#include "libxl_qmp_json.h"

enum field { FIELD_OTHER, FIELD_ID, FIELD_ERROR, FIELD_CLASS, FIELD_DESC };

struct libxl__qmp_parser {
    yajl_handle yajl;
    unsigned depth;
    enum field field;  /* whose value comes next; FIELD_CLASS and _DESC only within "error" */
    bool in_error;     /* within the object of depth 1's "error" */
    bool ended;        /* the message is complete */
    size_t bytes;      /* eaten since the last message's end */
    const char *wrong; /* what we did not like, NULL: yajl's complaint */
    struct qmp_msg msg;
};

static int refuse(libxl__qmp_parser *p, const char *why)
{
    p->wrong = why;
    return 0;
}

/* Every value but an object passes here. */
static int value(libxl__qmp_parser *p)
{
    if (!p->depth) return refuse(p, "not an object");
    p->field = FIELD_OTHER;
    return 1;
}

static int take_null(void *ctx)
{
    return value(ctx);
}

static int take_boolean(void *ctx, int val)
{
    return value(ctx);
}

static int take_number(void *ctx, const char *text, size_t len)
{
    libxl__qmp_parser *p = ctx;
    uint64_t id = 0;
    size_t i;

    if (p->field == FIELD_ID && p->depth == 1 && len < 19) {
        for (i = 0; i < len && text[i] >= '0' && text[i] <= '9'; i++)
            id = id * 10 + (uint64_t)(text[i] - '0');
        p->msg.has_id = i == len;
        p->msg.id = id;
    }
    return value(p);
}

static void copy_text(char *to, size_t room, const unsigned char *text, size_t len)
{
    size_t i;

    for (i = 0; i < len && i < room - 1; i++)
        to[i] = text[i] < 0x20 || text[i] == 0x7f ? '?' : (char)text[i];
    to[i] = '\0';
}

static int take_string(void *ctx, const unsigned char *text, size_t len)
{
    libxl__qmp_parser *p = ctx;

    if (p->in_error && p->depth == 2 && p->field == FIELD_CLASS)
        copy_text(p->msg.error_class, sizeof(p->msg.error_class), text, len);
    else if (p->in_error && p->depth == 2 && p->field == FIELD_DESC)
        copy_text(p->msg.desc, sizeof(p->msg.desc), text, len);
    return value(p);
}

static bool key_is(const unsigned char *key, size_t len, const char *name)
{
    return len == strlen(name) && !memcmp(key, name, len);
}

static int take_key(void *ctx, const unsigned char *key, size_t len)
{
    libxl__qmp_parser *p = ctx;

    p->field = FIELD_OTHER;
    if (p->depth == 1) {
        if (key_is(key, len, "id"))
            p->field = FIELD_ID;
        else if (key_is(key, len, "QMP"))
            p->msg.kind = QMP_GREETING;
        else if (key_is(key, len, "return"))
            p->msg.kind = QMP_RETURN;
        else if (key_is(key, len, "event"))
            p->msg.kind = QMP_EVENT;
        else if (key_is(key, len, "error")) {
            p->msg.kind = QMP_ERROR;
            p->field = FIELD_ERROR;
        }
    } else if (p->depth == 2 && p->in_error) {
        if (key_is(key, len, "class"))
            p->field = FIELD_CLASS;
        else if (key_is(key, len, "desc"))
            p->field = FIELD_DESC;
    }
    return 1;
}

static int deeper(libxl__qmp_parser *p)
{
    if (p->depth >= QMP_MAX_DEPTH) return refuse(p, "nested too deep");
    p->depth++;
    return 1;
}

static int start_map(void *ctx)
{
    libxl__qmp_parser *p = ctx;

    if (p->depth == 1) p->in_error = p->field == FIELD_ERROR;
    p->field = FIELD_OTHER;
    return deeper(p);
}

static int end_map(void *ctx)
{
    libxl__qmp_parser *p = ctx;

    p->depth--;
    p->field = FIELD_OTHER;
    if (p->depth == 1) p->in_error = false;
    if (p->depth) return 1;
    if (p->msg.kind == QMP_NONE) return refuse(p, "an object that is no QMP message");
    p->ended = true;
    return 1;
}

static int start_array(void *ctx)
{
    libxl__qmp_parser *p = ctx;

    return value(p) && deeper(p);
}

static int end_array(void *ctx)
{
    libxl__qmp_parser *p = ctx;

    p->depth--;
    return 1;
}

static const yajl_callbacks callbacks = {
    .yajl_null = take_null,
    .yajl_boolean = take_boolean,
    .yajl_number = take_number,
    .yajl_string = take_string,
    .yajl_start_map = start_map,
    .yajl_map_key = take_key,
    .yajl_end_map = end_map,
    .yajl_start_array = start_array,
    .yajl_end_array = end_array,
};

libxl__qmp_parser *libxl__qmp_parser_new(void)
{
    libxl__qmp_parser *p = calloc(1, sizeof(*p));

    if (!p) return NULL;
    p->yajl = yajl_alloc(&callbacks, NULL, p);
    if (!p->yajl) {
        free(p);
        return NULL;
    }
    yajl_config(p->yajl, yajl_allow_multiple_values, 1);
    return p;
}

void libxl__qmp_parser_free(libxl__qmp_parser *p)
{
    if (!p) return;
    yajl_free(p->yajl);
    free(p);
}

int libxl__qmp_parse(libxl__qmp_parser *p, const void *bytes, size_t n, size_t *used,
                     struct qmp_msg *msg)
{
    const char *text = bytes, *wrong = NULL;

    *used = 0;
    while (!p->ended && *used < n) {
        /* Only a brace can end a message: whatever is fed up to one belongs to one message. */
        const char *brace = memchr(text + *used, '}', n - *used);
        size_t piece = brace ? (size_t)(brace - text) + 1 - *used : n - *used;

        p->bytes += piece;
        if (p->bytes > QMP_MAX_BYTES)
            wrong = "a message of more than 1 MiB";
        else if (yajl_parse(p->yajl, (const void *)(text + *used), piece) != yajl_status_ok)
            wrong = p->wrong ? p->wrong : "not JSON";
        if (wrong) {
            memset(msg, 0, sizeof(*msg));
            copy_text(msg->desc, sizeof(msg->desc), (const void *)wrong, strlen(wrong));
            return ERROR_PROTOCOL_ERROR_QMP;
        }
        *used += piece;
    }
    memset(msg, 0, sizeof(*msg));
    if (p->ended) {
        *msg = p->msg;
        memset(&p->msg, 0, sizeof(p->msg));
        p->ended = false;
        p->bytes = 0;
    }
    return 0;
}
