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

static const _Alignas(4096) uint8_t zeros[1 << 20];

void disk_store_init(struct disk_store *s)
{
    s->fd = -1;
    s->size = 0;
    s->block = false;
    s->direct.fd = -1;
    s->gate = NULL;
}

void disk_store_dispose(struct disk_store *s)
{
    if (s->fd >= 0) close(s->fd);
    s->fd = s->direct.fd = -1;
}

/* What the fd is, and how large. */
static int look(struct disk_store *s)
{
    struct stat st;

    if (fstat(s->fd, &st)) return -errno;
    s->block = S_ISBLK(st.st_mode);
    if (!s->block && !S_ISREG(st.st_mode)) return -ENOTBLK;
    s->size = (uint64_t)st.st_size;
    if (s->block && ioctl(s->fd, BLKGETSIZE64, &s->size)) return -errno;
    if (s->size == 0) return -ENOMEDIUM;
    if (s->size > DISK_SIZE_MAX) return -EFBIG;
    /* Blocks must not reach over the end. */
    return s->direct.fd >= 0 && s->size % s->direct.align ? -EINVAL : 0;
}

int disk_store_open(struct disk_store *s, const char *path)
{
    s->fd = open(path, O_RDWR | O_CLOEXEC);
    if (s->fd < 0) return -errno;
    int r = look(s);
    if (r) disk_store_dispose(s);
    return r;
}

int disk_store_open_shared(struct disk_store *s, const char *path, bool read_only)
{
    int r = disk_direct_open(&s->direct, path, read_only ? O_RDONLY : O_RDWR);

    if (r) return r;
    s->fd = s->direct.fd;
    r = look(s);
    if (r) disk_store_dispose(s);
    return r;
}

int disk_store_read(struct disk_store *s, void *buf, uint64_t size, uint64_t offset)
{
    if (s->direct.fd >= 0) return disk_direct_read(&s->direct, buf, size, offset);
    return disk_pread_full(s->fd, buf, size, offset);
}

static int may_write(const struct disk_store *s)
{
    return s->gate ? s->gate->may_write(s->gate->arg) : 0;
}

int disk_store_write(struct disk_store *s, const void *buf, uint64_t size, uint64_t offset)
{
    int r = may_write(s);

    if (r) return r;
    if (s->direct.fd >= 0) return disk_direct_write(&s->direct, buf, size, offset);
    return disk_pwrite_full(s->fd, buf, size, offset);
}

static int try_fallocate(struct disk_store *s, int mode, uint64_t size, uint64_t offset)
{
    int r = may_write(s);

    if (r) return r;
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
        r = disk_store_write(s, zeros, n, offset);
        if (r) return r;
        size -= n;
        offset += n;
    }
    return 0;
}

int disk_store_flush(struct disk_store *s)
{
    if (!fdatasync(s->fd)) return 0;
    int r = -errno;
    /* What could not be written counts as clean and would be read as if it were there. */
    (void)posix_fadvise(s->fd, 0, 0, POSIX_FADV_DONTNEED);
    return r;
}
