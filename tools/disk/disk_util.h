/* SPDX-License-Identifier: LGPL-2.1-only */
/* Small things that all files of the disk need. Functions that can fail return 0 or -errno. */
#ifndef DISK_UTIL_H
#define DISK_UTIL_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#define DISK_EXTENT_SHIFT 16
#define DISK_EXTENT_SIZE (1u << DISK_EXTENT_SHIFT)
/* Upper bound of one disk: the sums below it cannot overflow, and its bitmap stays within 512 MiB. */
#define DISK_SIZE_MAX (1ull << 48)

/* Takes one line without its end. Set once by the program, before any thread runs. */
extern void (*disk_log_line)(const char *line);
void disk_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t disk_now_ms(void);
int64_t disk_now_us(void);
/* The time on CLOCK_MONOTONIC that is `ms` from now. */
struct timespec disk_deadline(int64_t ms);

/* All of it, at `offset`; a short file is -EIO. */
int disk_pread_full(int fd, void *buf, size_t size, uint64_t offset);
int disk_pwrite_full(int fd, const void *buf, size_t size, uint64_t offset);

/* Random octets, or -errno. */
int disk_random(void *buf, size_t size);
/* The kernel's id of this boot, 16 octets; zero when it cannot be told. */
void disk_boot_id(uint8_t id[16]);

static inline void disk_put16(uint8_t *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void disk_put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void disk_put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static inline uint16_t disk_get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static inline uint32_t disk_get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static inline uint64_t disk_get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

#endif
