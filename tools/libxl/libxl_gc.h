/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Memory and log of one operation.
 *
 * A gc is an arena: everything allocated from it lives until libxl__gc_dispose. A long operation keeps one
 * gc for its whole life and a second, short one per checkpoint, so that memory stays flat over time.
 * Allocation never fails: out of memory ends the process with a message (as libxl does).
 */
#ifndef LIBXL_GC_H
#define LIBXL_GC_H

#include <stdarg.h>
#include <stddef.h>
#include <xentoollog.h>

typedef struct libxl__gc {
    xentoollog_logger *lg; /* borrowed; NULL logs to stderr */
    void **ptrs;
    size_t used, room;
} libxl__gc;

/* An empty gc that logs to lg (borrowed, must outlive the gc). */
void libxl__gc_init(libxl__gc *gc, xentoollog_logger *lg);
/* Frees all that was allocated from it; safe to call twice; the gc can be used again. */
void libxl__gc_dispose(libxl__gc *gc);

void *libxl__zalloc(libxl__gc *gc, size_t bytes);
char *libxl__strdup(libxl__gc *gc, const char *s);
char *libxl__sprintf(libxl__gc *gc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Not from a gc: realloc(3) of count elements, the caller frees. Never fails, as the others. */
void *libxl__realloc_array(void *ptr, size_t count, size_t size);

/* One log line; keeps errno. errnoval is -1 for "no errno". */
void libxl__log(libxl__gc *gc, xentoollog_level level, int errnoval, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void libxl__vlog(libxl__gc *gc, xentoollog_level level, int errnoval, const char *fmt, va_list al);

/* What a NULL logger does, for whoever needs an object: warnings and errors, and never waits for who reads stderr. */
xentoollog_logger *libxl__stderr_logger(void);

#define LOG(gc, level, ...) libxl__log((gc), XTL_##level, -1, __VA_ARGS__)
#define LOGE(gc, level, ...) libxl__log((gc), XTL_##level, errno, __VA_ARGS__)
#define LOGEV(gc, level, errnoval, ...) libxl__log((gc), XTL_##level, (errnoval), __VA_ARGS__)

/* Before the definition of a function that an application may call: all else is hidden. */
#define LIBXL_REPLICATION_EXPORT __attribute__((visibility("default")))

#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
