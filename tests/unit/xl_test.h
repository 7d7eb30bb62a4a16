/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the tests of tools/xl share: standard error caught in a buffer.
 */
#ifndef XL_TEST_H
#define XL_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct xl_caught {
    FILE *file;
    int saved;
    char text[4096];
};

static inline void xl_catch(struct xl_caught *c)
{
    fflush(stderr);
    c->file = tmpfile();
    assert_non_null(c->file);
    c->saved = dup(STDERR_FILENO);
    dup2(fileno(c->file), STDERR_FILENO);
}

static inline const char *xl_caught(struct xl_caught *c)
{
    size_t n;

    fflush(stderr);
    dup2(c->saved, STDERR_FILENO);
    close(c->saved);
    rewind(c->file);
    n = fread(c->text, 1, sizeof(c->text) - 1, c->file);
    c->text[n] = '\0';
    fclose(c->file);
    return c->text;
}

static inline int xl_lines(const char *text)
{
    int n = 0;

    for (; *text; text++)
        n += *text == '\n';
    return n;
}

#endif
