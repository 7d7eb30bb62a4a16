/* SPDX-License-Identifier: LGPL-2.1-only */
/* QEMU's side of a QMP connection: any bytes, in pieces whose sizes the first byte chooses. */
#include <stdlib.h>
#include <string.h>

#include <libxl.h>

#include "fuzz.h"
#include "libxl_qmp_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    libxl__qmp_parser *p = libxl__qmp_parser_new();
    size_t at = 1, step = size ? 1 + data[0] : 1, used;
    struct qmp_msg msg;

    while (p && at < size) {
        size_t n = size - at < step ? size - at : step;

        if (libxl__qmp_parse(p, data + at, n, &used, &msg)) {
            if (!(memchr(msg.desc, '\0', sizeof(msg.desc)) && msg.desc[0])) abort();
            break;
        }
        if (!(used > 0 && used <= n)) abort();
        if (!(msg.kind != QMP_NONE || used == n)) abort();
        if (!(memchr(msg.desc, '\0', sizeof(msg.desc)))) abort();
        at += used;
    }
    libxl__qmp_parser_free(p);
    return 0;
}
