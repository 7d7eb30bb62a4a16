/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_util.h"

#define SLOT_SIZE 4096
#define SLOT_HASHED 72
#define RING_AT (3 * SLOT_SIZE)
#define RECORD_MAGIC 0x524a5458u /* "XTJR" */
#define RECORD_SEAL 100          /* beside DISK_WRITE and DISK_ZERO */
#define RECORD_HASHED 56

static const uint8_t slot_magic[8] = {'X', 'T', 'J', 'S', 'L', 'O', 'T', '1'};

struct record {
    uint16_t type, flags;
    uint64_t session, seq, epoch, offset, span, hash;
};

void disk_journal_init(struct disk_journal *j)
{
    memset(j, 0, sizeof(*j));
    j->fd = -1;
}

void disk_journal_dispose(struct disk_journal *j)
{
    if (j->fd >= 0) close(j->fd);
    free(j->buf);
    disk_journal_init(j);
}

/* ---- the ring ---- */

uint64_t disk_journal_offset(uint64_t base, uint64_t limit, uint64_t at)
{
    return base + RING_AT + at % limit;
}

/* -ENODATA: the file ends before. */
static int read_there(int fd, void *data, size_t size, uint64_t offset)
{
    int r = disk_pread_full(fd, data, size, offset);
    off_t end = r ? lseek(fd, 0, SEEK_END) : 0;

    return r && end >= 0 && (uint64_t)end < offset + size ? -ENODATA : r;
}

static int ring_io(struct disk_journal *j, uint64_t at, void *data, size_t size, bool write)
{
    uint8_t *p = data;

    while (size) {
        uint64_t left = j->limit - at % j->limit;
        uint64_t offset = disk_journal_offset(j->base, j->limit, at);
        size_t n = size < left ? size : (size_t)left;
        int r = write ? disk_pwrite_full(j->fd, p, n, offset) : read_there(j->fd, p, n, offset);
        if (r) return r;
        p += n;
        at += n;
        size -= n;
    }
    return 0;
}

static int ring_write(struct disk_journal *j, uint64_t at, const void *data, size_t size)
{
    return ring_io(j, at, (void *)(uintptr_t)data, size, true);
}

int disk_journal_read(struct disk_journal *j, uint64_t at, void *data, size_t size)
{
    return ring_io(j, at, data, size, false);
}

static void record_put(uint8_t head[DISK_RECORD_SIZE], const struct record *rec)
{
    disk_put32(head, RECORD_MAGIC);
    disk_put16(head + 4, rec->type);
    disk_put16(head + 6, rec->flags);
    disk_put64(head + 8, rec->session);
    disk_put64(head + 16, rec->seq);
    disk_put64(head + 24, rec->epoch);
    disk_put64(head + 32, rec->offset);
    disk_put64(head + 40, rec->span);
    disk_put64(head + 48, rec->hash);
    disk_put64(head + RECORD_HASHED, XXH3_64bits(head, RECORD_HASHED));
}

static bool record_get(struct record *rec, const uint8_t head[DISK_RECORD_SIZE])
{
    if (disk_get32(head) != RECORD_MAGIC ||
        disk_get64(head + RECORD_HASHED) != XXH3_64bits(head, RECORD_HASHED))
        return false;
    rec->type = disk_get16(head + 4);
    rec->flags = disk_get16(head + 6);
    rec->session = disk_get64(head + 8);
    rec->seq = disk_get64(head + 16);
    rec->epoch = disk_get64(head + 24);
    rec->offset = disk_get64(head + 32);
    rec->span = disk_get64(head + 40);
    rec->hash = disk_get64(head + 48);
    if (rec->type == DISK_WRITE) return rec->span <= DISK_PAYLOAD_MAX;
    return rec->type == DISK_ZERO || rec->type == RECORD_SEAL;
}

bool disk_journal_is_seal(const uint8_t head[DISK_RECORD_SIZE], uint64_t session, uint64_t epoch)
{
    struct record rec;

    return record_get(&rec, head) && rec.type == RECORD_SEAL && rec.session == session &&
           rec.epoch == epoch;
}

static uint64_t chain(uint64_t before, const struct record *rec)
{
    uint64_t in[5] = {rec->seq, rec->type, rec->offset, rec->span, rec->hash};

    return XXH3_64bits_withSeed(in, sizeof(in), before);
}

/* ---- slots: what survives ---- */

static int slot_write(struct disk_journal *j)
{
    uint8_t slot[SLOT_SIZE] = {0};
    int r = j->gate ? j->gate->may_write(j->gate->arg) : 0;

    if (r) return r;
    j->slot_seq++;
    memcpy(slot, slot_magic, 8);
    disk_put64(slot + 8, j->generation);
    disk_put64(slot + 16, j->slot_seq);
    disk_put64(slot + 24, j->session);
    disk_put64(slot + 32, j->committed);
    disk_put64(slot + 40, j->applied);
    disk_put64(slot + 48, j->tail);
    disk_put64(slot + 56, j->tail_seq);
    disk_put64(slot + 64, j->limit);
    disk_put64(slot + SLOT_HASHED, XXH3_64bits(slot, SLOT_HASHED));
    return disk_pwrite_full(j->fd, slot, SLOT_SIZE, j->base + SLOT_SIZE * (1 + j->slot_seq % 2));
}

/* 1: there is one, newer than what was read before; 0: none; else -errno, and nobody knows. */
static int slot_read(struct disk_journal *j, unsigned i)
{
    uint8_t slot[SLOT_SIZE];
    int r = read_there(j->fd, slot, SLOT_SIZE, j->base + SLOT_SIZE * (1 + (uint64_t)i));

    if (r) return r == -ENODATA ? 0 : r;
    if (memcmp(slot, slot_magic, 8) ||
        disk_get64(slot + SLOT_HASHED) != XXH3_64bits(slot, SLOT_HASHED))
        return 0;
    if (disk_get64(slot + 8) != j->generation || disk_get64(slot + 16) <= j->slot_seq) return 0;
    uint64_t limit = disk_get64(slot + 64);
    if (limit < DISK_JOURNAL_MIN || limit > DISK_SIZE_MAX) return 0;
    j->slot_seq = disk_get64(slot + 16);
    j->session = disk_get64(slot + 24);
    j->committed = disk_get64(slot + 32);
    j->applied = disk_get64(slot + 40);
    j->tail = j->head = j->reusable = disk_get64(slot + 48);
    j->tail_seq = j->head_seq = disk_get64(slot + 56);
    j->limit = limit;
    return 1;
}

/* ---- walking from the tail ---- */

/* Reads the record at `at` whole: 1, and j->buf holds its data then; 0 if there is no such; -errno if that cannot be told. */
static int read_record(struct disk_journal *j, uint64_t at, uint64_t seq, struct record *rec)
{
    uint8_t head[DISK_RECORD_SIZE];
    int r = disk_journal_read(j, at, head, sizeof(head));

    if (r) return r == -ENODATA ? 0 : r;
    if (!record_get(rec, head) || rec->session != j->session || rec->seq != seq) return 0;
    if (rec->type != DISK_WRITE) return 1;
    r = disk_journal_read(j, at + sizeof(head), j->buf, rec->span);
    if (r) return r == -ENODATA ? 0 : r;
    return rec->hash == XXH3_64bits(j->buf, rec->span);
}

static uint64_t record_end(uint64_t at, const struct record *rec)
{
    return at + DISK_RECORD_SIZE + (rec->type == DISK_WRITE ? rec->span : 0);
}

int disk_journal_find_seals(struct disk_journal *j, uint64_t last)
{
    uint64_t at = j->tail, seq = j->tail_seq, records = 0, sum = 0;
    struct record rec;

    j->sealed = j->applied;
    while (j->sealed < last && at - j->tail < j->limit && j->seal_count < DISK_SEALS_MAX) {
        int r = read_record(j, at, seq, &rec);
        if (r <= 0) return r;
        at = record_end(at, &rec);
        seq++;
        if (rec.type != RECORD_SEAL) {
            records++;
            sum = chain(sum, &rec);
            continue;
        }
        if (rec.offset != records || rec.hash != sum || rec.epoch <= j->sealed || rec.epoch > last)
            break;
        j->sealed = rec.epoch;
        j->seals[j->seal_count++] = (struct disk_seal){rec.epoch, at, seq};
        j->head = at;
        j->head_seq = seq;
        records = sum = 0;
    }
    return 0;
}

int disk_journal_find_open(struct disk_journal *j)
{
    struct record rec;

    while (j->head - j->tail < j->limit) {
        int r = read_record(j, j->head, j->head_seq, &rec);
        if (r <= 0) return r;
        if (rec.type == RECORD_SEAL || rec.epoch <= j->sealed) break;
        j->head = record_end(j->head, &rec);
        j->head_seq++;
        j->open_records++;
        j->open_chain = chain(j->open_chain, &rec);
    }
    return 0;
}

int disk_journal_take(struct disk_journal *j, int fd, uint64_t base, uint64_t limit)
{
    j->wanted_limit = j->limit = limit;
    j->base = base;
    if (!j->buf) j->buf = malloc(DISK_PAYLOAD_MAX);
    if (!j->buf) return -ENOMEM;
    j->fd = fd;
    return 0;
}

int disk_journal_load(struct disk_journal *j)
{
    int first = slot_read(j, 0), second = first < 0 ? first : slot_read(j, 1);

    return second < 0 ? second : first || second;
}

int disk_journal_open(struct disk_journal *j, const char *path, uint64_t limit, bool *complete)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) return -errno;
    int r = disk_journal_take(j, fd, 0, limit);
    if (r) {
        close(fd);
        return r;
    }
    *complete = false;
    r = disk_journal_load(j);
    if (!r) return disk_journal_reset(j);
    if (r > 0) r = disk_journal_find_seals(j, j->committed);
    *complete = !r && j->sealed == j->committed;
    return r;
}

int disk_journal_reset(struct disk_journal *j)
{
    int r;

    r = disk_random(&j->session, sizeof(j->session));
    if (r) return r;
    j->limit = j->wanted_limit;
    j->tail = j->head = j->reusable = 0;
    j->tail_seq = j->head_seq = 0;
    j->committed = j->applied = j->sealed = 0;
    j->seal_count = 0;
    j->open_records = j->open_chain = 0;
    return slot_write(j);
}

/* ---- appending ---- */

uint64_t disk_journal_bytes(const struct disk_journal *j)
{
    return j->head - j->tail;
}

bool disk_journal_has_room(const struct disk_journal *j, size_t payload)
{
    /* All seals must fit behind whatever is taken: epochs in which nothing is written come also while nothing is applied. */
    return j->head - j->reusable + payload + (2 + DISK_SEALS_MAX) * DISK_RECORD_SIZE <= j->limit;
}

int disk_journal_append(struct disk_journal *j, const struct disk_frame *f, const void *payload,
                        uint64_t *head)
{
    struct record rec = {.type = f->type,
                         .flags = f->flags,
                         .session = j->session,
                         .seq = j->head_seq,
                         .epoch = f->epoch,
                         .offset = f->offset,
                         .span = f->span};
    uint8_t raw[DISK_RECORD_SIZE];
    int r;

    assert(f->type == DISK_WRITE ? f->span == f->payload : f->type == DISK_ZERO);
    if (f->payload) rec.hash = XXH3_64bits(payload, f->payload);
    record_put(raw, &rec);
    r = ring_write(j, j->head, raw, sizeof(raw));
    if (!r) r = ring_write(j, j->head + sizeof(raw), payload, f->payload);
    if (r) return r;
    j->open_records++;
    j->open_chain = chain(j->open_chain, &rec);
    *head = record_end(j->head, &rec);
    return 0;
}

int disk_journal_append_seal(struct disk_journal *j, uint64_t epoch, uint64_t *head)
{
    struct record rec = {.type = RECORD_SEAL,
                         .session = j->session,
                         .seq = j->head_seq,
                         .epoch = epoch,
                         .offset = j->open_records,
                         .hash = j->open_chain};
    uint8_t raw[DISK_RECORD_SIZE];

    record_put(raw, &rec);
    *head = j->head + sizeof(raw);
    return ring_write(j, j->head, raw, sizeof(raw));
}

void disk_journal_publish(struct disk_journal *j, uint64_t head)
{
    j->head = head;
    j->head_seq++;
}

bool disk_journal_can_seal(const struct disk_journal *j)
{
    return j->seal_count < DISK_SEALS_MAX && j->head - j->reusable + DISK_RECORD_SIZE <= j->limit;
}

void disk_journal_publish_seal(struct disk_journal *j, uint64_t epoch, uint64_t head)
{
    disk_journal_publish(j, head);
    j->sealed = epoch;
    j->seals[j->seal_count++] = (struct disk_seal){epoch, j->head, j->head_seq};
    j->open_records = j->open_chain = 0;
}

/* ---- commit and apply ---- */

const struct disk_seal *disk_journal_find(const struct disk_journal *j, uint64_t epoch)
{
    for (unsigned i = 0; i < j->seal_count; i++)
        if (j->seals[i].epoch == epoch) return &j->seals[i];
    return NULL;
}

int disk_journal_commit(struct disk_journal *j, uint64_t epoch)
{
    uint64_t before = j->committed;
    int r;

    j->committed = epoch;
    r = slot_write(j);
    if (r) j->committed = before;
    return r;
}

int disk_journal_apply(struct disk_journal *j, const struct disk_seal *to, struct disk_store *store)
{
    uint64_t at = j->tail, seq = j->tail_seq;
    struct record rec = {0};
    int r;

    r = disk_journal_flush(j);
    if (r) return r;
    while (at < to->end) {
        r = read_record(j, at, seq, &rec);
        if (r < 0) return r;
        if (!r) return -EBADMSG;
        if (rec.type != RECORD_SEAL &&
            (rec.span > store->size || rec.offset > store->size - rec.span))
            return -EBADMSG;
        r = 0;
        if (rec.type == DISK_WRITE) r = disk_store_write(store, j->buf, rec.span, rec.offset);
        if (rec.type == DISK_ZERO)
            r = disk_store_zero(store, rec.span, rec.offset, rec.flags & DISK_FLAG_TRIM);
        if (r) return r;
        at = record_end(at, &rec);
        seq++;
    }
    return disk_store_flush(store);
}

int disk_journal_publish_applied(struct disk_journal *j, const struct disk_seal *to)
{
    unsigned gone = 0;

    j->tail = to->end;
    j->tail_seq = to->seq;
    j->applied = to->epoch;
    while (gone < j->seal_count && j->seals[gone].epoch <= j->applied)
        gone++;
    memmove(j->seals, j->seals + gone, (j->seal_count - gone) * sizeof(*j->seals));
    j->seal_count -= gone;
    return slot_write(j);
}

int disk_journal_flush(struct disk_journal *j)
{
    return fdatasync(j->fd) ? -errno : 0;
}

void disk_journal_release(struct disk_journal *j)
{
    j->reusable = j->tail;
}

/* The slots on the medium say that all is applied, so it does not matter which tail they have; and
 * old records there have lower sequence numbers. The next commit writes the new tail. */
void disk_journal_rewind(struct disk_journal *j)
{
    if (j->head == j->reusable && j->committed == j->applied) j->tail = j->head = j->reusable = 0;
}
