/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_util.h"

#define HEAD_SIZE 4096
#define HASHED 32

static const uint8_t magic[8] = {'X', 'T', 'B', 'I', 'T', 'M', 'A', 'P'};

void disk_bitmap_init(struct disk_bitmap *b)
{
    memset(b, 0, sizeof(*b));
}

void disk_bitmap_dispose(struct disk_bitmap *b)
{
    if (b->map) munmap(b->map, b->map_size);
    free(b->open.words);
    free(b->closed.words);
    free(b->todo.words);
    disk_bitmap_init(b);
}

static void head_put(uint8_t *head, uint64_t size)
{
    memset(head, 0, HEAD_SIZE);
    memcpy(head, magic, 8);
    disk_put32(head + 8, 1);
    disk_put32(head + 12, DISK_EXTENT_SIZE);
    disk_put64(head + 16, size);
    disk_put64(head + HASHED, XXH3_64bits(head, HASHED));
}

/* The file as it should be; one that is not is replaced by a clean one. */
static int map_file(struct disk_bitmap *b, int fd, bool *fresh)
{
    uint8_t head[HEAD_SIZE], wanted[HEAD_SIZE];
    struct stat st;

    head_put(wanted, b->size);
    if (fstat(fd, &st)) return -errno;
    *fresh = st.st_size != (off_t)b->map_size || disk_pread_full(fd, head, HEAD_SIZE, 0) ||
             memcmp(head, wanted, HEAD_SIZE);
    if (*fresh) {
        if (ftruncate(fd, 0)) return -errno;
        /* Room now: a full file system must not kill the process at a later store. */
        int r = posix_fallocate(fd, 0, (off_t)b->map_size);
        if (r) return -r;
        r = disk_pwrite_full(fd, wanted, HEAD_SIZE, 0);
        if (r) return r;
    }
    void *map = mmap(NULL, b->map_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return -errno;
    b->map = map;
    return 0;
}

static bool bits_allocate(struct disk_bits *s, size_t count)
{
    s->words = calloc(count, sizeof(*s->words));
    s->lo = s->hi = 0;
    return s->words;
}

int disk_bitmap_open(struct disk_bitmap *b, const char *path, uint64_t size, bool *fresh)
{
    int fd = -1, r;

    b->size = size;
    b->extents = (size + DISK_EXTENT_SIZE - 1) >> DISK_EXTENT_SHIFT;
    b->count = (size_t)((b->extents + 63) / 64);
    b->map_size = HEAD_SIZE + b->count * 8;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -errno;
    r = map_file(b, fd, fresh);
    if (r) goto out;
    b->dirty = (struct disk_bits){(uint64_t *)(void *)(b->map + HEAD_SIZE), 0, b->count};
    r = -ENOMEM;
    if (!bits_allocate(&b->open, b->count) || !bits_allocate(&b->closed, b->count) ||
        !bits_allocate(&b->todo, b->count))
        goto out;
    r = 0;
out:
    close(fd);
    if (r) disk_bitmap_dispose(b);
    return r;
}

int disk_bitmap_flush(struct disk_bitmap *b)
{
    return msync(b->map, b->map_size, MS_SYNC) ? -errno : 0;
}

static void bits_widen(struct disk_bits *s, size_t lo, size_t hi)
{
    if (lo >= hi) return;
    if (s->lo >= s->hi) {
        s->lo = lo;
        s->hi = hi;
        return;
    }
    if (lo < s->lo) s->lo = lo;
    if (hi > s->hi) s->hi = hi;
}

static void bits_clear(struct disk_bits *s)
{
    if (s->lo < s->hi) memset(s->words + s->lo, 0, (s->hi - s->lo) * sizeof(*s->words));
    s->lo = s->hi = 0;
}

static void bits_or(struct disk_bits *to, const struct disk_bits *from)
{
    for (size_t i = from->lo; i < from->hi; i++)
        to->words[i] |= from->words[i];
    bits_widen(to, from->lo, from->hi);
}

void disk_bitmap_set(struct disk_bitmap *b, uint64_t offset, uint64_t span)
{
    if (!span) return;
    uint64_t first = offset >> DISK_EXTENT_SHIFT, last = (offset + span - 1) >> DISK_EXTENT_SHIFT;

    for (uint64_t e = first; e <= last; e++) {
        b->dirty.words[e / 64] |= htole64(1ull << (e % 64));
        b->open.words[e / 64] |= htole64(1ull << (e % 64));
    }
    bits_widen(&b->open, (size_t)(first / 64), (size_t)(last / 64) + 1);
}

void disk_bitmap_clear_all(struct disk_bitmap *b)
{
    memset(b->dirty.words, 0, b->count * 8);
    bits_clear(&b->open);
    bits_clear(&b->closed);
    bits_clear(&b->todo);
}

uint64_t disk_bitmap_dirty_bytes(const struct disk_bitmap *b)
{
    uint64_t n = 0;

    for (size_t i = 0; i < b->count; i++)
        n += (uint64_t)__builtin_popcountll(b->dirty.words[i]);
    n <<= DISK_EXTENT_SHIFT;
    return n < b->size ? n : b->size;
}

uint64_t disk_bitmap_sync_begin(struct disk_bitmap *b, bool all)
{
    uint64_t n = 0;

    bits_clear(&b->open);
    bits_clear(&b->closed);
    bits_clear(&b->todo);
    for (size_t i = 0; i < b->count; i++) {
        uint64_t word = b->dirty.words[i];
        if (all) {
            uint64_t left = b->extents - (uint64_t)i * 64;
            word = htole64(left >= 64 ? UINT64_MAX : (1ull << left) - 1);
        }
        b->todo.words[i] = word;
        n += (uint64_t)__builtin_popcountll(word);
    }
    b->todo.lo = 0;
    b->todo.hi = b->count;
    n <<= DISK_EXTENT_SHIFT;
    return n < b->size ? n : b->size;
}

static bool todo_has(const struct disk_bitmap *b, uint64_t e)
{
    return e < b->extents && (b->todo.words[e / 64] & htole64(1ull << (e % 64)));
}

uint64_t disk_bitmap_take(struct disk_bitmap *b, size_t *cursor, uint64_t max, uint64_t *first)
{
    uint64_t n = 0;

    while (*cursor < b->count && !b->todo.words[*cursor])
        (*cursor)++;
    if (*cursor == b->count) return 0;
    *first = (uint64_t)*cursor * 64 + (uint64_t)__builtin_ctzll(le64toh(b->todo.words[*cursor]));
    while (n < max && todo_has(b, *first + n)) {
        uint64_t e = *first + n++;
        b->todo.words[e / 64] &= ~htole64(1ull << (e % 64));
    }
    return n;
}

void disk_bitmap_synced(struct disk_bitmap *b)
{
    for (size_t i = 0; i < b->count; i++)
        b->dirty.words[i] = b->open.words[i];
    bits_clear(&b->closed);
    bits_clear(&b->todo);
}

void disk_bitmap_close_epoch(struct disk_bitmap *b)
{
    if (b->closed.lo >= b->closed.hi) {
        struct disk_bits empty = b->closed;
        b->closed = b->open;
        b->open = empty;
        return;
    }
    bits_or(&b->closed, &b->open);
    bits_clear(&b->open);
}

void disk_bitmap_commit(struct disk_bitmap *b)
{
    for (size_t i = b->closed.lo; i < b->closed.hi; i++)
        b->dirty.words[i] &= ~(b->closed.words[i] & ~b->open.words[i]);
    bits_clear(&b->closed);
}

bool disk_bitmap_merge(struct disk_bitmap *b, uint64_t first_word, const uint8_t *words,
                       size_t size)
{
    if (size % 8 || first_word > b->count || size / 8 > b->count - first_word) return false;
    for (size_t i = 0; i < size / 8; i++) {
        uint64_t word;
        memcpy(&word, words + i * 8, 8);
        b->dirty.words[first_word + i] |= word;
    }
    /* Bits behind the end of the disk mean nothing. */
    if (b->extents % 64) b->dirty.words[b->count - 1] &= htole64((1ull << (b->extents % 64)) - 1);
    return true;
}
