/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A shared disk that is not to be trusted. First octet, bits 0 and 1:
 *     0  the backup hears the rest over its link, after a HELLO with the right token: frames as in disk_link_fuzz.c. It writes nothing.
 *     1  the rest is the journal's file, and a primary is started by force on it
 *     2  the rest is the journal's from octet 8192 on, behind a good claim that says what bit 2 says: protected, or being taken over
 *     3  the rest is one claim: what is taken from it must be what it says when it is written again
 */
#include <sys/socket.h>

#include "disk_claim.h"
#include "disk_fuzz.h"
#include "disk_shared.h"
#include "fuzz.h"

#define FRAME_HEAD 13

static char journal_path[96];

static struct disk_options options(bool primary)
{
    struct disk_options o = disk_backup_options();

    snprintf(journal_path, sizeof(journal_path), "%s/journal", disk_dir);
    o.shared = journal_path;
    /* A start waits for it; one whose claim takes longer fails, and waits for seconds. */
    o.settle_ms = 5;
    o.primary = o.force_primary = primary;
    return o;
}

static void start_primary(void)
{
    static struct disk d;
    struct disk_options o = options(true);
    char why[DISK_TEXT_MAX] = "";

    memset(&d, 0, sizeof(d));
    if (disk_open(&d, &o, why)) {
        if (!why[0] || !memchr(why, 0, sizeof(why)) || strchr(why, '\n')) abort();
    } else {
        d.event = disk_quiet;
        if (disk_start(&d)) abort();
    }
    disk_close(&d);
}

static void write_journal(const uint8_t *data, size_t size, off_t offset)
{
    int fd = open(journal_path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || pwrite(fd, data, size, offset) != (ssize_t)size) abort();
    close(fd);
}

static void read_claims(struct disk_claim two[2])
{
    struct disk_direct s;
    bool foreign;

    if (disk_direct_open(&s, journal_path, O_RDONLY)) abort();
    if (disk_claims_read(&s, two, &foreign)) abort();
    disk_direct_close(&s);
}

static void behind_claim(const uint8_t *data, size_t size, bool taken)
{
    uint8_t block[DISK_CLAIM_SIZE];
    struct disk_claim two[2], c;

    start_primary();
    read_claims(two);
    c = *disk_claims_top(two);
    c.state = taken ? DISK_CLAIM_ALONE : DISK_CLAIM_PROTECTED;
    c.epoch = taken ? 3 : 0;
    disk_claim_put(block, &c);
    write_journal(block, sizeof(block), (off_t)(c.generation % 2) * DISK_CLAIM_SIZE);
    write_journal(data, size, 8192);
    start_primary();
}

static void one_claim(const uint8_t *data, size_t size)
{
    uint8_t block[DISK_CLAIM_SIZE] = {0}, again[DISK_CLAIM_SIZE];
    struct disk_claim c;

    memcpy(block, data, size < sizeof(block) ? size : sizeof(block));
    if (!disk_claim_get(&c, block)) {
        if (c.generation) abort();
        return;
    }
    disk_claim_put(again, &c);
    if (memcmp(again, block, 40) || memcmp(again + 48, block + 48, 56)) abort();
}

/* ---- the link ---- */

static void say_frame(int fd, struct disk_frame *f, uint64_t seq, const void *payload)
{
    uint8_t head[DISK_FRAME_SIZE];

    f->seq = seq;
    disk_frame_put(head, f, payload);
    (void)!send(fd, head, sizeof(head), MSG_NOSIGNAL);
    if (f->payload) (void)!send(fd, payload, f->payload, MSG_NOSIGNAL);
}

static void say_hello(int fd)
{
    struct disk_hello h = {
        .version = DISK_LINK_VERSION, .primary = true, .shared = true, .size = DISK_BYTES};
    struct disk_frame f = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    uint8_t body[DISK_HELLO_SIZE];
    struct disk_claim two[2];

    read_claims(two);
    h.generation = disk_claims_top(two)->generation;
    memcpy(h.uuid, disk_claims_top(two)->uuid, 16);
    memcpy(h.base, disk_claims_top(two)->token, 16);
    disk_hello_put(body, &h);
    say_frame(fd, &f, 0, body);
}

static void say_frames(int fd, const uint8_t *p, size_t size)
{
    for (uint64_t seq = 1; size >= FRAME_HEAD; seq++) {
        struct disk_frame f = {.type = p[0],
                               .flags = p[1],
                               .epoch = p[2],
                               .payload = disk_get16(p + 3),
                               .offset = disk_get32(p + 5),
                               .span = disk_get32(p + 9)};

        p += FRAME_HEAD;
        size -= FRAME_HEAD;
        if (f.payload > size) f.payload = (uint32_t)size;
        say_frame(fd, &f, seq, p);
        p += f.payload;
        size -= f.payload;
    }
}

static void over_link(const uint8_t *data, size_t size)
{
    static struct disk d;
    struct disk_options o;
    char why[DISK_TEXT_MAX];
    int sv[2];

    start_primary();
    o = options(false);
    memset(&d, 0, sizeof(d));
    if (disk_open(&d, &o, why) || disk_start(&d)) abort();
    d.event = disk_quiet;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv)) abort();
    if (disk_link_start(&d, sv[0], sv[0], why)) abort();
    say_hello(sv[1]);
    say_frames(sv[1], data, size);
    shutdown(sv[1], SHUT_WR);
    pthread_mutex_lock(&d.lock);
    if (!disk_wait_unlinked(&d, 20000)) abort();
    pthread_mutex_unlock(&d.lock);
    close(sv[1]);
    disk_close(&d);
    if (!disk_is_zero()) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    disk_fresh();
    (void)options(false);
    switch (data[0] & 3) {
    case 0:
        over_link(data + 1, size - 1);
        break;
    case 1:
        write_journal(data + 1, size - 1, 0);
        start_primary();
        start_primary(); /* on what it made of it */
        break;
    case 2:
        behind_claim(data + 1, size - 1, data[0] & 4);
        break;
    default:
        one_claim(data + 1, size - 1);
    }
    return 0;
}
