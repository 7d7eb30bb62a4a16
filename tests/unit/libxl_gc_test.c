/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "libxl_gc.h"

/* A logger that keeps its last line. */
struct memory_logger {
    xentoollog_logger vtable;
    xentoollog_level level;
    int errnoval, lines;
    char text[256];
};

static void keep_line(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                      const char *context, const char *fmt, va_list al)
{
    struct memory_logger *ml = (struct memory_logger *)lg;

    ml->level = level;
    ml->errnoval = errnoval;
    ml->lines++;
    vsnprintf(ml->text, sizeof(ml->text), fmt, al);
    errno = EBADF;
}

static void t_gc_many_allocations_are_zero_and_freed(void **state)
{
    libxl__gc gc;

    libxl__gc_init(&gc, NULL);
    for (size_t n = 0; n < 1000; n++) {
        unsigned char *p = libxl__zalloc(&gc, n);

        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xa5, n);
    }
    assert_int_equal(gc.used, 1000);
    libxl__gc_dispose(&gc);
    libxl__gc_dispose(&gc);
    assert_int_equal(gc.used, 0);
}

static void t_gc_disposed_can_be_used_again(void **state)
{
    struct memory_logger ml = {.vtable.vmessage = keep_line};
    libxl__gc gc;

    libxl__gc_init(&gc, &ml.vtable);
    libxl__strdup(&gc, "one");
    libxl__gc_dispose(&gc);
    assert_string_equal(libxl__strdup(&gc, "two"), "two");
    assert_string_equal(libxl__sprintf(&gc, "%s-%d", "three", 3), "three-3");
    assert_ptr_equal(gc.lg, &ml.vtable);
    libxl__gc_dispose(&gc);
}

static void t_log_with_errno_passes_it_and_keeps_it(void **state)
{
    struct memory_logger ml = {.vtable.vmessage = keep_line};
    libxl__gc gc;

    libxl__gc_init(&gc, &ml.vtable);
    errno = ENOSPC;
    LOGE(&gc, ERROR, "disk %s", "full");
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(ml.errnoval, ENOSPC);
    assert_int_equal(ml.level, XTL_ERROR);
    assert_string_equal(ml.text, "disk full");
    LOG(&gc, DEBUG, "n %d", 7);
    assert_int_equal(ml.errnoval, -1);
    LOGEV(&gc, WARN, EIO, "io");
    assert_int_equal(ml.errnoval, EIO);
    assert_int_equal(ml.lines, 3);
    libxl__gc_dispose(&gc);
}

static void t_realloc_array_grows_and_keeps_content(void **state)
{
    int *numbers = NULL;

    for (int n = 1; n <= 100; n++) {
        numbers = libxl__realloc_array(numbers, n, sizeof(*numbers));
        numbers[n - 1] = n;
    }
    for (int n = 1; n <= 100; n++)
        assert_int_equal(numbers[n - 1], n);
    free(numbers);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_gc_many_allocations_are_zero_and_freed),
        cmocka_unit_test(t_gc_disposed_can_be_used_again),
        cmocka_unit_test(t_log_with_errno_passes_it_and_keeps_it),
        cmocka_unit_test(t_realloc_array_grows_and_keeps_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
