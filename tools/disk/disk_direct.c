/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_direct.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "disk_util.h"

#define PAGE 4096
#define WINDOW (1u << 20)

/* Whether the file takes blocks of that size. An empty file takes any. */
static bool takes(int fd, uint32_t align)
{
    void *block;

    if (posix_memalign(&block, PAGE, PAGE)) return false;
    bool ok = pread(fd, block, align, 0) >= 0;
    free(block);
    return ok;
}

int disk_direct_open(struct disk_direct *s, const char *path, int flags)
{
    s->fd = open(path, flags | O_DIRECT | O_CLOEXEC, 0600);
    if (s->fd >= 0) {
        s->align = 512;
        if (!takes(s->fd, s->align)) s->align = PAGE;
        if (takes(s->fd, s->align)) return 0;
        close(s->fd);
    } else if (errno != EINVAL) {
        return -errno;
    }
    s->align = 1;
    s->fd = open(path, flags | O_DSYNC | O_CLOEXEC, 0600);
    return s->fd < 0 ? -errno : 0;
}

void disk_direct_close(struct disk_direct *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

static bool aligned(const struct disk_direct *s, const void *buf, uint64_t size, uint64_t offset)
{
    return s->align == 1 ||
           (offset % s->align == 0 && size % s->align == 0 && (uintptr_t)buf % PAGE == 0);
}

/* The blocks around a range of at most a window. */
struct window {
    uint8_t *buf;
    uint64_t start, size;
};

static int window_new(struct window *w, const struct disk_direct *s, uint64_t *size,
                      uint64_t offset)
{
    void *buf;

    if (*size > WINDOW - 2 * PAGE) *size = WINDOW - 2 * PAGE;
    w->start = offset - offset % s->align;
    uint64_t end = offset + *size + s->align - 1;
    w->size = end - end % s->align - w->start;
    if (posix_memalign(&buf, PAGE, w->size)) return -ENOMEM;
    w->buf = buf;
    return 0;
}

int disk_direct_read(const struct disk_direct *s, void *buf, uint64_t size, uint64_t offset)
{
    uint8_t *p = buf;
    struct window w;

    if (s->align == 1) (void)posix_fadvise(s->fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
    if (aligned(s, buf, size, offset)) return disk_pread_full(s->fd, buf, size, offset);
    while (size) {
        uint64_t n = size;
        int r = window_new(&w, s, &n, offset);
        if (r) return r;
        r = disk_pread_full(s->fd, w.buf, w.size, w.start);
        memcpy(p, w.buf + (offset - w.start), n);
        free(w.buf);
        if (r) return r;
        p += n;
        size -= n;
        offset += n;
    }
    return 0;
}

/* The parts of the first and the last block that stay as they are. */
static int read_edges(const struct disk_direct *s, const struct window *w, uint64_t size,
                      uint64_t offset)
{
    uint64_t last = w->start + w->size - s->align;
    int r = 0;

    if (offset > w->start) r = disk_pread_full(s->fd, w->buf, s->align, w->start);
    if (!r && offset + size < w->start + w->size && (last > w->start || offset == w->start))
        r = disk_pread_full(s->fd, w->buf + (last - w->start), s->align, last);
    return r;
}

int disk_direct_write(const struct disk_direct *s, const void *buf, uint64_t size, uint64_t offset)
{
    const uint8_t *p = buf;
    struct window w;

    if (aligned(s, buf, size, offset)) return disk_pwrite_full(s->fd, buf, size, offset);
    while (size) {
        uint64_t n = size;
        int r = window_new(&w, s, &n, offset);
        if (r) return r;
        r = read_edges(s, &w, n, offset);
        memcpy(w.buf + (offset - w.start), p, n);
        if (!r) r = disk_pwrite_full(s->fd, w.buf, w.size, w.start);
        free(w.buf);
        if (r) return r;
        p += n;
        size -= n;
        offset += n;
    }
    return 0;
}
