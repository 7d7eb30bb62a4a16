/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the stock xl prints about the domains of a host, some of whose names a user has chosen. */
#include "libxl_twin_domains.c"

#include "fuzz.h"

#define UUID "12345678-1234-1234-1234-123456789abc"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    libxl__twin_domains td = {.name = "guest", .uuid = UUID};
    char *text = malloc(size + 1), *line, *save = NULL;
    unsigned copy = 0;
    bool here = false;

    memcpy(text, data, size);
    text[size] = '\0';
    for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        judge_line(&td, line, &here, &copy);
        /* Only our own half-built copy may be destroyed. */
        if (copy && !strcasestr(line, UUID)) abort();
        copy = 0;
    }
    free(text);
    return 0;
}
