/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/random.h>
#include <unistd.h>

static void log_to_stderr(const char *line)
{
    fprintf(stderr, "%s\n", line);
}

void (*disk_log_line)(const char *line) = log_to_stderr;

void disk_log(const char *format, ...)
{
    char line[512];
    va_list al;

    va_start(al, format);
    vsnprintf(line, sizeof(line), format, al);
    va_end(al);
    disk_log_line(line);
}

int64_t disk_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t disk_now_ms(void)
{
    return disk_now_us() / 1000;
}

struct timespec disk_deadline(int64_t ms)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += (time_t)(ms / 1000);
    ts.tv_nsec += (long)(ms % 1000) * 1000000;
    if (ts.tv_nsec >= 1000000000) {
        ts.tv_nsec -= 1000000000;
        ts.tv_sec++;
    }
    return ts;
}

int disk_pread_full(int fd, void *buf, size_t size, uint64_t offset)
{
    uint8_t *p = buf;

    while (size) {
        ssize_t n = pread(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -EIO;
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int disk_pwrite_full(int fd, const void *buf, size_t size, uint64_t offset)
{
    const uint8_t *p = buf;

    while (size) {
        ssize_t n = pwrite(fd, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -EIO;
        p += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int disk_random(void *buf, size_t size)
{
    ssize_t n = getrandom(buf, size, 0);

    if (n < 0) return -errno;
    return (size_t)n == size ? 0 : -EIO;
}

void disk_boot_id(uint8_t id[16])
{
    char text[40] = "";
    size_t digits = 0;
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    memset(id, 0, 16);
    if (fd < 0) return;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    for (ssize_t i = 0; i < n && digits < 32; i++) {
        char c = text[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0) continue;
        id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | v);
        digits++;
    }
    if (digits != 32) memset(id, 0, 16);
}
