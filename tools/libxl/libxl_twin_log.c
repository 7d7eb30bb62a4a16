/* SPDX-License-Identifier: LGPL-2.1-only */
#include "libxl_twin_log.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OLD_MAX (1u << 20)
/* Of one run: everything, and then only warnings. */
#define ALL_MAX (4u << 20)
#define WARNINGS_MAX (8u << 20)
#define LINE_MAX_BYTES 700u

static void to_file(struct twin_log *log, const char *line)
{
    char text[LINE_MAX_BYTES + 40];
    struct timespec now;
    struct tm tm;
    size_t n;
    ssize_t r;

    if (log->fd < 0) return;
    clock_gettime(CLOCK_REALTIME, &now);
    if (!gmtime_r(&now.tv_sec, &tm)) return;
    n = strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
    n += (size_t)snprintf(text + n, sizeof(text) - n, ".%03ldZ ", now.tv_nsec / 1000000);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "%.*s\n", (int)LINE_MAX_BYTES, line);
    r = write(log->fd, text, n); /* a full disk must not keep a guest from running */
    if (r > 0) log->written += (size_t)r;
}

static void to_terminal(const char *line)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    char text[LINE_MAX_BYTES + 32];
    ssize_t r;
    int n;

    n = snprintf(text, sizeof(text), "xentwin backup: %.*s\n", (int)LINE_MAX_BYTES, line);
    if (poll(&p, 1, 0) == 1 && p.revents == POLLOUT) {
        r = write(STDERR_FILENO, text, (size_t)n);
        (void)r; /* nobody may listen there any more */
    }
}

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                     const char *context, const char *format, va_list al)
{
    struct twin_log *log = (struct twin_log *)(void *)lg;
    char line[LINE_MAX_BYTES];
    size_t n;

    if (log->written > (level >= XTL_WARN ? WARNINGS_MAX : ALL_MAX)) return;
    n = (size_t)snprintf(line, sizeof(line), "%s: ", xtl_level_to_string(level));
    vsnprintf(line + n, sizeof(line) - n, format, al);
    n = strlen(line);
    if (errnoval >= 0 && n < sizeof(line) - 1)
        snprintf(line + n, sizeof(line) - n, ": %s", strerror(errnoval));
    to_file(log, line);
    if (level >= XTL_WARN) to_terminal(line);
}

static void progress(xentoollog_logger *lg, const char *context, const char *doing_what,
                     int percent, unsigned long done, unsigned long total)
{
}

static void destroy(xentoollog_logger *lg)
{
}

void libxl__twin_log_open(struct twin_log *log, const char *path)
{
    struct stat sb;

    *log = (struct twin_log){.lg = {.vmessage = vmessage, .progress = progress, .destroy = destroy},
                             .fd = -1};
    if (path) log->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->fd >= 0 && !fstat(log->fd, &sb) && sb.st_size > OLD_MAX && ftruncate(log->fd, 0))
        libxl__twin_log_say(log, "cannot empty the log");
}

void libxl__twin_log_close(struct twin_log *log)
{
    if (log->fd >= 0) close(log->fd);
    log->fd = -1;
}

void libxl__twin_log_say(struct twin_log *log, const char *line)
{
    to_file(log, line);
    to_terminal(line);
}
