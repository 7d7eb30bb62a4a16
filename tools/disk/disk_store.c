/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk_util.h"

static const uint8_t zeros[1 << 20];

void disk_store_init(struct disk_store *s)
{
    s->fd = -1;
    s->size = 0;
    s->block = false;
}

void disk_store_dispose(struct disk_store *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = -1;
}

int disk_store_open(struct disk_store *s, const char *path)
{
    struct stat st;
    int r = 0;

    s->fd = open(path, O_RDWR | O_CLOEXEC);
    if (s->fd < 0) return -errno;
    if (fstat(s->fd, &st)) {
        r = -errno;
        goto out;
    }
    s->block = S_ISBLK(st.st_mode);
    if (!s->block && !S_ISREG(st.st_mode)) {
        r = -ENOTBLK;
        goto out;
    }
    s->size = (uint64_t)st.st_size;
    if (s->block && ioctl(s->fd, BLKGETSIZE64, &s->size)) {
        r = -errno;
        goto out;
    }
    if (s->size == 0) r = -ENOMEDIUM;
    if (s->size > DISK_SIZE_MAX) r = -EFBIG;
out:
    if (r) disk_store_dispose(s);
    return r;
}

int disk_store_read(struct disk_store *s, void *buf, uint64_t size, uint64_t offset)
{
    return disk_pread_full(s->fd, buf, size, offset);
}

int disk_store_write(struct disk_store *s, const void *buf, uint64_t size, uint64_t offset)
{
    return disk_pwrite_full(s->fd, buf, size, offset);
}

static int try_fallocate(struct disk_store *s, int mode, uint64_t size, uint64_t offset)
{
    while (fallocate(s->fd, mode, (off_t)offset, (off_t)size)) {
        if (errno == EINTR) continue;
        /* Block devices say EINVAL for a range that is not in whole sectors. */
        if (errno == EINVAL || errno == ENODEV || errno == ENOSYS) return -EOPNOTSUPP;
        return -errno;
    }
    return 0;
}

int disk_store_punch(struct disk_store *s, uint64_t size, uint64_t offset)
{
    return try_fallocate(s, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size, offset);
}

int disk_store_zero(struct disk_store *s, uint64_t size, uint64_t offset, bool trim)
{
    int r = -EOPNOTSUPP;

    if (trim) r = disk_store_punch(s, size, offset);
    if (r == -EOPNOTSUPP)
        r = try_fallocate(s, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, size, offset);
    if (r != -EOPNOTSUPP) return r;
    while (size) {
        uint64_t n = size < sizeof(zeros) ? size : sizeof(zeros);
        r = disk_pwrite_full(s->fd, zeros, n, offset);
        if (r) return r;
        size -= n;
        offset += n;
    }
    return 0;
}

int disk_store_flush(struct disk_store *s)
{
    return fdatasync(s->fd) ? -errno : 0;
}
