/* SPDX-License-Identifier: LGPL-2.1-only */
/* A folder with a script that is the stock xl and one that is the helper, for tests of what we do with them. */
#ifndef XL_SCRIPT_H
#define XL_SCRIPT_H

#include <stdlib.h>
#include <sys/stat.h>

#include "xl_test.h"

static char dir[] = "/tmp/xl_test_XXXXXX";
static char script[64], helper[64];

static inline void write_file(const char *path, const char *text, mode_t mode)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

/* What the stock xl does from now on: lines of shell. */
static inline void stock_is(const char *body)
{
    char text[1024];

    snprintf(text, sizeof(text), "#!/bin/sh\n%s\n", body);
    write_file(script, text, 0755);
}

static inline void script_set_up(const char *helper_text)
{
    assert_non_null(mkdtemp(dir));
    snprintf(script, sizeof(script), "%s/xl", dir);
    snprintf(helper, sizeof(helper), "%s/libxl-save-helper", dir);
    write_file(helper, helper_text, 0755);
    setenv("XENTWIN_STOCK_XL", script, 1);
    setenv("LIBXL_SAVE_HELPER", helper, 1);
}

static inline int script_tear_down(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

#endif
