/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the tests of the disk share: cmocka, and a folder that goes with the test. */
#ifndef DISK_TEST_H
#define DISK_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct folder {
    char dir[64], path[128];
};

static inline int folder_make(void **state)
{
    struct folder *f = calloc(1, sizeof(*f));

    if (!f) return -1;
    strcpy(f->dir, "/tmp/disk-test-XXXXXX");
    if (!mkdtemp(f->dir)) {
        free(f);
        return -1;
    }
    *state = f;
    return 0;
}

static inline char *folder_file(struct folder *f, const char *name)
{
    snprintf(f->path, sizeof(f->path), "%s/%s", f->dir, name);
    return f->path;
}

static inline int folder_remove(void **state)
{
    static const char *const names[] = {"disk",  "disk2",     "journal", "bitmap",
                                        "state", "state.new", "control"};
    struct folder *f = *state;

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        unlink(folder_file(f, names[i]));
    int r = rmdir(f->dir);
    free(f);
    return r;
}

/* A test with a folder of its own, in *state. */
#define TEST(t) cmocka_unit_test_setup_teardown(t, folder_make, folder_remove)

#endif
