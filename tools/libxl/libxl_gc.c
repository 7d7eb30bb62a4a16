/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_gc.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GC_FIRST_ROOM 16
#define LOG_CONTEXT "xentwin"

/* Left out when it would block: whoever calls us may have heartbeats to send. */
static void write_stderr(const char *text, size_t len)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};

    if (poll(&p, 1, 0) == 1 && p.revents == POLLOUT)
        (void)!write(STDERR_FILENO, text, len < PIPE_BUF ? len : PIPE_BUF);
}

/* There is no memory to report with: a fixed line, then the end. */
static void out_of_memory(size_t bytes)
{
    char line[80];

    snprintf(line, sizeof(line), LOG_CONTEXT ": out of memory (%zu bytes asked)\n", bytes);
    write_stderr(line, strlen(line));
    _Exit(1);
}

void *libxl__realloc_array(void *ptr, size_t count, size_t size)
{
    void *bigger = reallocarray(ptr, count ? count : 1, size ? size : 1);

    if (!bigger) out_of_memory(size && count > SIZE_MAX / size ? SIZE_MAX : count * size);
    return bigger;
}

void libxl__gc_init(libxl__gc *gc, xentoollog_logger *lg)
{
    *gc = (libxl__gc){.lg = lg};
}

void libxl__gc_dispose(libxl__gc *gc)
{
    for (size_t i = 0; i < gc->used; i++)
        free(gc->ptrs[i]);
    free(gc->ptrs);
    libxl__gc_init(gc, gc->lg);
}

static void *own(libxl__gc *gc, void *ptr)
{
    if (gc->used == gc->room) {
        gc->room = gc->room ? 2 * gc->room : GC_FIRST_ROOM;
        gc->ptrs = libxl__realloc_array(gc->ptrs, gc->room, sizeof(*gc->ptrs));
    }
    gc->ptrs[gc->used++] = ptr;
    return ptr;
}

void *libxl__zalloc(libxl__gc *gc, size_t bytes)
{
    void *ptr = calloc(1, bytes ? bytes : 1);

    if (!ptr) out_of_memory(bytes);
    return own(gc, ptr);
}

char *libxl__strdup(libxl__gc *gc, const char *s)
{
    char *copy = strdup(s);

    if (!copy) out_of_memory(strlen(s) + 1);
    return own(gc, copy);
}

char *libxl__sprintf(libxl__gc *gc, const char *fmt, ...)
{
    char *text = NULL;
    va_list al;
    int r;

    va_start(al, fmt);
    r = vasprintf(&text, fmt, al);
    va_end(al);
    if (r < 0) out_of_memory(strlen(fmt));
    return own(gc, text);
}

/* Without a logger only what a person must see, one write per line so that threads do not mix. */
static void log_to_stderr(xentoollog_level level, int errnoval, const char *context,
                          const char *fmt, va_list al)
{
    char *text = NULL, *line = NULL;
    int n;

    if (level < XTL_WARN) return;
    if (vasprintf(&text, fmt, al) < 0) out_of_memory(strlen(fmt));
    n = asprintf(&line, "%s: %s: %s%s%s\n", context ? context : LOG_CONTEXT,
                 xtl_level_to_string(level), text, errnoval >= 0 ? ": " : "",
                 errnoval >= 0 ? strerror(errnoval) : "");
    if (n < 0) out_of_memory(strlen(text));
    write_stderr(line, (size_t)n);
    free(line);
    free(text);
}

static void stderr_message(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                           const char *context, const char *fmt, va_list al)
    __attribute__((format(printf, 5, 0)));

static void stderr_message(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                           const char *context, const char *fmt, va_list al)
{
    log_to_stderr(level, errnoval, context, fmt, al);
}

static void stderr_progress(xentoollog_logger *lg, const char *context, const char *doing,
                            int percent, unsigned long done, unsigned long total)
{
}

static void stderr_destroy(xentoollog_logger *lg)
{
}

xentoollog_logger *libxl__stderr_logger(void)
{
    static xentoollog_logger lg = {
        .vmessage = stderr_message, .progress = stderr_progress, .destroy = stderr_destroy};

    return &lg;
}

void libxl__vlog(libxl__gc *gc, xentoollog_level level, int errnoval, const char *fmt, va_list al)
{
    int saved = errno;

    if (gc->lg)
        xtl_logv(gc->lg, level, errnoval, LOG_CONTEXT, fmt, al);
    else
        log_to_stderr(level, errnoval, LOG_CONTEXT, fmt, al);
    errno = saved;
}

void libxl__log(libxl__gc *gc, xentoollog_level level, int errnoval, const char *fmt, ...)
{
    va_list al;

    va_start(al, fmt);
    libxl__vlog(gc, level, errnoval, fmt, al);
    va_end(al);
}
