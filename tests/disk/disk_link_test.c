/* SPDX-License-Identifier: LGPL-2.1-only */
/* An instance in this process; the test is the other end of its link, and not always a polite one. */
#include "disk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "disk.h"
#include "disk_roles.h"
#include "disk_util.h"

#define SIZE (40u << 16)

struct world {
    struct disk d;
    char path[128], dir[64];
    int fd; /* our end */
    uint64_t seq;
    struct disk_hello mine;
    char lost[256];
    unsigned slow;
    char why[DISK_TEXT_MAX];
    uint8_t payload[DISK_PAYLOAD_MAX];
};

static void quiet(const char *line)
{
    (void)line;
}

static void event(struct disk *d, const char *text)
{
    struct world *w = d->event_arg;

    if (!strncmp(text, "slow ", 5)) w->slow++;
    if (!strncmp(text, "lost ", 5)) snprintf(w->lost, sizeof(w->lost), "%s", text + 5);
}

static struct world *begin(struct folder *f, bool primary)
{
    struct world *w = calloc(1, sizeof(*w));
    struct disk_options o = {
        .queue_bytes = DISK_QUEUE_MIN, .journal_bytes = DISK_JOURNAL_MIN, .limit_ms = 5000};

    assert_non_null(w);
    snprintf(w->path, sizeof(w->path), "%s", folder_file(f, "disk"));
    snprintf(w->dir, sizeof(w->dir), "%s", f->dir);
    int fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, SIZE), 0);
    close(fd);
    o.path = w->path;
    o.state_dir = w->dir;
    o.primary = primary;
    disk_log_line = quiet;
    assert_int_equal(disk_open(&w->d, &o, w->why), 0);
    w->d.event_arg = w;
    w->d.event = event;
    assert_int_equal(disk_start(&w->d), 0);
    w->fd = -1;
    w->mine = (struct disk_hello){
        .version = DISK_LINK_VERSION, .primary = !primary, .size = SIZE, .generation = 1};
    memset(w->mine.uuid, 7, 16);
    return w;
}

static void connect_link(struct world *w)
{
    struct timeval limit = {.tv_sec = 20};
    int sv[2];

    if (w->fd >= 0) close(w->fd);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    w->fd = sv[0];
    w->seq = 0;
    pthread_mutex_lock(&w->d.lock);
    w->lost[0] = 0;
    pthread_mutex_unlock(&w->d.lock);
    assert_int_equal(disk_link_start(&w->d, sv[1], sv[1], w->why), 0);
}

static void end(struct world *w)
{
    if (w->fd >= 0) close(w->fd);
    disk_close(&w->d);
    free(w);
}

static void say(struct world *w, struct disk_frame f, const void *payload)
{
    uint8_t head[DISK_FRAME_SIZE];

    f.seq = w->seq++;
    disk_frame_put(head, &f, payload);
    (void)!send(w->fd, head, sizeof(head), MSG_NOSIGNAL);
    if (f.payload) (void)!send(w->fd, payload, f.payload, MSG_NOSIGNAL);
}

/* The next frame that is not a sign of life; false at the end. */
static bool hear(struct world *w, struct disk_frame *f)
{
    uint8_t head[DISK_FRAME_SIZE];

    do {
        if (recv(w->fd, head, sizeof(head), MSG_WAITALL) != sizeof(head)) return false;
        assert_int_equal(disk_frame_get(f, head), 0);
        if (f->payload)
            assert_int_equal(recv(w->fd, w->payload, f->payload, MSG_WAITALL), f->payload);
        assert_true(disk_frame_whole(head, w->payload, f->payload));
    } while (f->type == DISK_ALIVE);
    return true;
}

static void say_hello(struct world *w)
{
    uint8_t raw[DISK_HELLO_SIZE];

    disk_hello_put(raw, &w->mine);
    say(w, (struct disk_frame){.type = DISK_HELLO, .payload = sizeof(raw)}, raw);
}

/* The link must end; what it was for stands in w->lost. */
static void must_end(struct world *w)
{
    struct disk_frame f;

    while (hear(w, &f))
        ;
    pthread_mutex_lock(&w->d.lock);
    assert_true(disk_wait_unlinked(&w->d, 10000));
    assert_true(w->lost[0] != 0);
    pthread_mutex_unlock(&w->d.lock);
}

static void shake_hands(struct world *w)
{
    struct disk_frame f;

    connect_link(w);
    say_hello(w);
    assert_true(hear(w, &f));
    assert_int_equal(f.type, DISK_HELLO);
    do
        assert_true(hear(w, &f));
    while (f.type == DISK_BITMAP);
    assert_int_equal(f.type, DISK_READY);
}

static void synchronise(struct world *w)
{
    struct disk_frame f;
    uint8_t base[16];

    memset(base, 9, 16);
    shake_hands(w);
    say(w, (struct disk_frame){.type = DISK_BARRIER, .payload = 16}, base);
    assert_true(hear(w, &f));
    assert_int_equal(f.type, DISK_SEALED);
}

static void write_epoch(struct world *w, uint64_t epoch, uint64_t offset, uint8_t value)
{
    uint8_t data[512];

    memset(data, value, sizeof(data));
    say(w,
        (struct disk_frame){
            .type = DISK_WRITE, .epoch = epoch, .offset = offset, .span = 512, .payload = 512},
        data);
}

static void barrier(struct world *w, uint64_t epoch)
{
    struct disk_frame f;

    say(w, (struct disk_frame){.type = DISK_BARRIER, .epoch = epoch}, NULL);
    assert_true(hear(w, &f));
    assert_int_equal(f.type, DISK_SEALED);
    assert_int_equal(f.epoch, epoch);
}

static uint8_t octet_at(struct world *w, uint64_t offset)
{
    uint8_t c;

    assert_int_equal(disk_store_read(&w->d.store, &c, 1, offset), 0);
    return c;
}

/* ---- the backup ---- */

static void t_backup_applies_only_what_is_committed(void **state)
{
    struct world *w = begin(*state, false);

    synchronise(w);
    write_epoch(w, 1, 0, 11);
    barrier(w, 1);
    write_epoch(w, 2, 0, 22);
    barrier(w, 2);
    write_epoch(w, 3, 0, 33);
    assert_int_equal(octet_at(w, 0), 0);
    assert_int_not_equal(disk_commit(&w->d, 3, w->why), 0);
    assert_int_equal(disk_commit(&w->d, 1, w->why), 0);
    pthread_mutex_lock(&w->d.lock);
    assert_int_equal(disk_wait_applied(&w->d), 0);
    pthread_mutex_unlock(&w->d.lock);
    assert_int_equal(octet_at(w, 0), 11);
    assert_int_not_equal(disk_promote(&w->d, 3, w->why), 0);
    assert_int_equal(disk_promote(&w->d, 2, w->why), 0);
    assert_int_equal(octet_at(w, 0), 22);
    assert_int_equal(w->d.state.generation, 2);
    end(w);
}

static void t_backup_serves_nobody_before_promotion(void **state)
{
    struct world *w = begin(*state, false);
    uint8_t data[512] = {1};

    assert_int_equal(disk_read(&w->d, data, 512, 0), -EIO);
    assert_int_equal(disk_write(&w->d, data, 512, 0, false), -EIO);
    assert_int_equal(disk_zero(&w->d, 512, 0, true, false), -EIO);
    assert_int_equal(disk_trim(&w->d, 512, 0, false), -EIO);
    assert_int_equal(disk_flush(&w->d), -EIO);
    assert_int_not_equal(disk_promote(&w->d, 1, w->why), 0);
    end(w);
}

static void t_backup_synchronised_can_be_looked_at(void **state)
{
    struct world *w = begin(*state, false);
    uint8_t data[512] = {1};

    synchronise(w);
    write_epoch(w, 1, 0, 11);
    barrier(w, 1);
    assert_int_equal(disk_read(&w->d, data, 512, 0), 0);
    assert_int_equal(data[0], 0);
    assert_int_equal(disk_write(&w->d, data, 512, 0, false), -EIO);
    assert_int_equal(disk_flush(&w->d), -EIO);
    end(w);
}

static void t_backup_dropped_keeps_committed_only(void **state)
{
    struct world *w = begin(*state, false);

    synchronise(w);
    write_epoch(w, 1, 0, 11);
    barrier(w, 1);
    assert_int_equal(disk_commit(&w->d, 1, w->why), 0);
    write_epoch(w, 2, 0, 22);
    barrier(w, 2);
    assert_int_equal(disk_drop(&w->d, w->why), 0);
    assert_int_equal(octet_at(w, 0), 11);
    assert_int_not_equal(disk_promote(&w->d, 1, w->why), 0);
    end(w);
}

static void t_backup_refuses_who_does_not_fit(void **state)
{
    struct world *w = begin(*state, false);

    synchronise(w); /* it has our uuid and generation now */
    w->mine.size++;
    connect_link(w);
    say_hello(w);
    must_end(w);
    assert_non_null(strstr(w->lost, "size"));
    w->mine.size--;
    w->mine.generation = 0;
    connect_link(w);
    say_hello(w);
    must_end(w);
    assert_non_null(strstr(w->lost, "newer"));
    w->mine.generation = 1;
    w->mine.uuid[3]++;
    connect_link(w);
    say_hello(w);
    must_end(w);
    assert_non_null(strstr(w->lost, "another disk"));
    w->mine.uuid[3]--;
    w->mine.primary = false;
    connect_link(w);
    say_hello(w);
    must_end(w);
    w->mine.primary = true;
    w->mine.version++;
    connect_link(w);
    say_hello(w);
    must_end(w);
    end(w);
}

static void t_backup_out_of_turn_ends_the_link(void **state)
{
    static const struct disk_frame wrong[] = {
        {.type = DISK_WRITE, .epoch = 1, .span = 512, .payload = 512}, /* not synchronised */
        {.type = DISK_BARRIER, .epoch = 1},
        {.type = DISK_BARRIER, .payload = 8},
        {.type = DISK_WRITE, .offset = SIZE, .span = 512, .payload = 512},
        {.type = DISK_WRITE, .offset = SIZE - 256, .span = 512, .payload = 512},
        {.type = DISK_WRITE, .span = 1024, .payload = 512},
        {.type = DISK_ZERO, .offset = 512, .span = SIZE},
        {.type = DISK_ZERO, .span = 512, .payload = 512},
        {.type = DISK_ZERO},
        {.type = DISK_CHECK, .offset = 512, .span = 65536, .payload = 8},
        {.type = DISK_CHECK, .span = 65536, .payload = 16},
        {.type = DISK_CHECK, .span = 17 * 65536, .payload = 17 * 8},
        {.type = DISK_SEALED},
        {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE},
    };
    struct world *w = begin(*state, false);
    uint8_t payload[1024] = {0};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        shake_hands(w);
        say(w, wrong[i], payload);
        must_end(w);
    }
    /* Later ones. */
    synchronise(w);
    write_epoch(w, 2, 0, 1);
    write_epoch(w, 1, 0, 1); /* back in time */
    must_end(w);
    synchronise(w);
    write_epoch(w, 1, 0, 1);
    barrier(w, 1);
    write_epoch(w, 1, 0, 1); /* sealed */
    must_end(w);
    synchronise(w);
    write_epoch(w, 1, 0, 1);
    write_epoch(w, 0, 0, 1); /* protected already */
    must_end(w);
    assert_int_equal(octet_at(w, 0), 0);
    end(w);
}

static void t_backup_missing_frame_is_noticed(void **state)
{
    struct world *w = begin(*state, false);

    synchronise(w);
    write_epoch(w, 1, 0, 1);
    w->seq++;
    write_epoch(w, 1, 512, 1);
    must_end(w);
    end(w);
}

/* A whole conversation with one octet changed anywhere: it is noticed, and nothing of it is applied. */
static void t_backup_changed_octet_is_noticed(void **state)
{
    struct world *w = begin(*state, false);
    uint8_t bytes[3 * (DISK_FRAME_SIZE + 512)], data[512];

    memset(data, 5, sizeof(data));
    for (size_t at = 0; at < sizeof(bytes); at += 13) {
        synchronise(w);
        for (unsigned i = 0; i < 3; i++) {
            struct disk_frame f = {.type = DISK_WRITE,
                                   .epoch = 1,
                                   .seq = w->seq++,
                                   .offset = i * 512,
                                   .span = 512,
                                   .payload = 512};
            uint8_t *p = bytes + i * (DISK_FRAME_SIZE + 512);
            disk_frame_put(p, &f, data);
            memcpy(p + DISK_FRAME_SIZE, data, sizeof(data));
        }
        bytes[at] ^= (uint8_t)(1u << at % 8);
        (void)!send(w->fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
        shutdown(w->fd, SHUT_WR); /* a longer payload never comes */
        must_end(w);
        assert_int_not_equal(disk_commit(&w->d, 1, w->why), 0);
        assert_int_equal(octet_at(w, 0), 0);
    }
    end(w);
}

static void t_backup_random_frames_do_no_harm(void **state)
{
    struct world *w = begin(*state, false);
    uint8_t payload[600] = {0};

    srand(3);
    for (unsigned i = 0; i < 300; i++) {
        synchronise(w);
        for (unsigned k = 0; k < 8; k++) {
            struct disk_frame f = {.type = (uint16_t)(rand() % 16),
                                   .flags = (uint16_t)rand(),
                                   .payload = (uint32_t)rand() % sizeof(payload),
                                   .epoch = (uint64_t)rand() % 3,
                                   .offset = (uint64_t)rand() * 512 % (2 * SIZE),
                                   .span = (uint64_t)rand() % SIZE};
            say(w, f, payload);
        }
        shutdown(w->fd, SHUT_WR);
        must_end(w);
    }
    end(w);
}

/* ---- the primary ---- */

static void meet(struct world *w)
{
    struct disk_frame f;

    connect_link(w);
    assert_true(hear(w, &f));
    assert_int_equal(f.type, DISK_HELLO);
    assert_int_equal(disk_hello_get(&w->mine, w->payload, f.payload), 0);
    w->mine.primary = false;
    memset(w->mine.base, 0, 16);
    say_hello(w);
}

static void t_primary_hostile_backup_ends_the_link(void **state)
{
    static const struct disk_frame wrong[] = {
        {.type = DISK_SEALED, .epoch = 1},
        {.type = DISK_SEALED},
        {.type = DISK_DIFF, .span = 65536, .payload = 1},
        {.type = DISK_BITMAP, .payload = 8}, /* nobody resumed */
        {.type = DISK_WRITE, .span = 512, .payload = 512},
        {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE},
        {.type = DISK_READY},
    };
    struct world *w = begin(*state, true);
    uint8_t payload[512] = {0};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        meet(w);
        say(w, (struct disk_frame){.type = DISK_READY}, NULL);
        say(w, wrong[i], payload);
        must_end(w);
    }
    end(w);
}

static void t_primary_newer_backup_is_refused(void **state)
{
    struct world *w = begin(*state, true);
    struct disk_frame f;

    connect_link(w);
    assert_true(hear(w, &f));
    assert_int_equal(disk_hello_get(&w->mine, w->payload, f.payload), 0);
    w->mine.primary = false;
    w->mine.generation = 9;
    say_hello(w);
    must_end(w);
    assert_non_null(strstr(w->lost, "newer"));
    assert_int_not_equal(disk_protect(&w->d, w->why), 0);
    end(w);
}

static void t_primary_requests_out_of_turn_are_refused(void **state)
{
    struct world *w = begin(*state, true);

    assert_int_not_equal(disk_sync(&w->d, 0, w->why), 0);
    assert_int_not_equal(disk_protect(&w->d, w->why), 0);
    assert_int_not_equal(disk_barrier(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_promote(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_drop(&w->d, w->why), 0);
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    end(w);
}

static void synchronise_primary(struct world *w, uint64_t rate)
{
    static const uint8_t none[DISK_CHECK_EXTENTS];
    struct disk_frame f;

    meet(w);
    say(w, (struct disk_frame){.type = DISK_READY}, NULL);
    while (disk_sync(&w->d, rate, w->why))
        poll(NULL, 0, 1);
    while (hear(w, &f) && f.type == DISK_CHECK)
        say(w,
            (struct disk_frame){
                .type = DISK_DIFF, .offset = f.offset, .span = f.span, .payload = f.payload / 8},
            none);
    assert_int_equal(f.type, DISK_BARRIER);
    say(w, (struct disk_frame){.type = DISK_SEALED}, NULL);
    while (disk_protect(&w->d, w->why))
        poll(NULL, 0, 1);
}

static void *write_until_full(void *arg)
{
    static uint8_t data[1 << 20];
    struct world *w = arg;

    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(disk_write(&w->d, data, sizeof(data), 0, false), 0);
    return NULL;
}

/* The backup takes nothing: the guest waits no longer than the limit, and its writes succeed. */
static void t_primary_slow_backup_is_dropped(void **state)
{
    struct world *w = begin(*state, true);

    synchronise_primary(w, 0);
    w->d.o.limit_ms = 100;
    int64_t began = disk_now_ms();
    write_until_full(w);
    assert_true(disk_now_ms() - began < 5000);
    pthread_mutex_lock(&w->d.lock);
    assert_true(w->lost[0] != 0);
    /* Still counted as protected, and all that it wrote is remembered. */
    assert_true(w->d.state.secured);
    assert_int_equal(disk_bitmap_dirty_bytes(&w->d.bitmap), 1 << 20);
    pthread_mutex_unlock(&w->d.lock);
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    assert_false(w->d.state.secured);
    end(w);
}

static void t_primary_slow_backup_holds_the_guest_if_so_chosen(void **state)
{
    struct disk_frame alive = {.type = DISK_ALIVE};
    struct world *w = begin(*state, true);
    pthread_t guest;
    unsigned slow = 0;

    synchronise_primary(w, 0);
    w->d.o.hold = true;
    w->d.o.limit_ms = 500;
    assert_int_equal(pthread_create(&guest, NULL, write_until_full, w), 0);
    while (slow < 2) {
        say(w, alive, NULL);
        poll(NULL, 0, 20);
        pthread_mutex_lock(&w->d.lock);
        slow = w->slow;
        assert_string_equal(w->lost, "");
        pthread_mutex_unlock(&w->d.lock);
    }
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    pthread_join(guest, NULL);
    end(w);
}

static void t_primary_silent_backup_is_lost(void **state)
{
    struct world *w = begin(*state, true);

    w->d.o.limit_ms = 100;
    meet(w);
    say(w, (struct disk_frame){.type = DISK_READY}, NULL);
    must_end(w);
    assert_non_null(strstr(w->lost, "silent"));
    end(w);
}

static void t_primary_synchronises_at_the_rate(void **state)
{
    struct world *w = begin(*state, true);
    int64_t began = disk_now_ms();

    synchronise_primary(w, 10 << 20); /* 2.5 MiB: 2 MiB must wait for their turn */
    assert_true(disk_now_ms() - began >= 150);
    end(w);
}

static void t_primary_own_disk_failing_ends_the_protection(void **state)
{
    struct world *w = begin(*state, true);
    uint8_t data[512] = {1};

    synchronise_primary(w, 0);
    int fd = open(w->path, O_RDONLY | O_CLOEXEC);
    assert_true(dup2(fd, w->d.store.fd) >= 0); /* each write fails from now on */
    close(fd);
    assert_int_not_equal(disk_write(&w->d, data, 512, 0, false), 0);
    must_end(w);
    assert_non_null(strstr(w->lost, "own disk"));
    end(w);
}

static void t_primary_commits_between_barriers_only(void **state)
{
    struct world *w = begin(*state, true);
    uint8_t data[512] = {1};

    synchronise_primary(w, 0);
    assert_int_not_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_int_equal(disk_write(&w->d, data, 512, 0, false), 0);
    assert_int_equal(disk_barrier(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_barrier(&w->d, 1, w->why), 0);
    assert_int_equal(disk_barrier(&w->d, 2, w->why), 0);
    /* Bits of both are cleared by the second. */
    assert_int_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_true(disk_bitmap_dirty_bytes(&w->d.bitmap) > 0);
    assert_int_equal(disk_commit(&w->d, 2, w->why), 0);
    assert_int_equal(disk_bitmap_dirty_bytes(&w->d.bitmap), 0);
    assert_int_not_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_commit(&w->d, 3, w->why), 0);
    end(w);
}

/* The order on the link is the order on the disk, for writes that overlap. */
static void *write_many(void *arg)
{
    struct world *w = arg;
    uint8_t data[4096];

    for (unsigned i = 0; i < 200; i++) {
        memset(data, (int)(i + (uintptr_t)&data / 4096), sizeof(data));
        assert_int_equal(disk_write(&w->d, data, sizeof(data), (i % 3) * 1024, false), 0);
    }
    return NULL;
}

/* What comes on the link of so many writers makes the same disk. */
static void link_makes_the_disk(struct folder *f, void *(*writer)(void *), unsigned writers,
                                unsigned writes_expected, bool slowly)
{
    struct world *w = begin(f, true);
    uint8_t *copy = calloc(2, SIZE), *disk = copy + SIZE;
    pthread_t threads[4];
    struct disk_frame frame;
    unsigned writes = 0;

    synchronise_primary(w, 0);
    for (unsigned i = 0; i < writers; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, writer, w), 0);
    while (writes < writes_expected && hear(w, &frame)) {
        assert_int_equal(frame.type, DISK_WRITE);
        memcpy(copy + frame.offset, w->payload, frame.payload);
        if (writes++ % 4 == 0 && slowly) poll(NULL, 0, 10);
    }
    for (unsigned i = 0; i < writers; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(writes, writes_expected);
    assert_int_equal(disk_read(&w->d, disk, SIZE, 0), 0);
    assert_memory_equal(copy, disk, SIZE);
    free(copy);
    end(w);
}

static void t_primary_overlapping_writes_keep_their_order(void **state)
{
    link_makes_the_disk(*state, write_many, 4, 800, false);
}

/* The link takes a part of a frame, the queue the rest: the backup gets each octet once. */
static void *write_large(void *arg)
{
    struct world *w = arg;
    uint8_t *data = malloc(DISK_PAYLOAD_MAX);

    for (unsigned i = 0; i < 20; i++) {
        for (unsigned k = 0; k < DISK_PAYLOAD_MAX; k++)
            data[k] = (uint8_t)(k / 251 + i + (uintptr_t)&data / 4096);
        uint32_t size = DISK_PAYLOAD_MAX - i * 37777;
        assert_int_equal(disk_write(&w->d, data, size, (i % 3) * 70000, false), 0);
    }
    free(data);
    return NULL;
}

static void t_primary_goes_on_where_the_link_stopped(void **state)
{
    link_makes_the_disk(*state, write_large, 2, 40, true);
}

/* What was lent to the queue is the guest's again once its write is done, whatever the link has taken of it. */
static void *write_middling(void *arg)
{
    struct world *w = arg;
    uint32_t size = 16384;
    uint8_t *data = malloc(240000);

    for (unsigned i = 0; i < 60; i++, size = 16384 + i * 3771) {
        memset(data, (int)(i + (uintptr_t)&data / 4096), size);
        assert_int_equal(disk_write(&w->d, data, size, (i % 5) * 50000, false), 0);
        memset(data, 0xee, size);
    }
    free(data);
    return NULL;
}

static void t_primary_lent_payload_is_given_back(void **state)
{
    link_makes_the_disk(*state, write_middling, 4, 240, false);
}

static void t_primary_lent_payload_is_given_back_by_a_slow_link(void **state)
{
    link_makes_the_disk(*state, write_middling, 3, 180, true);
}

static void t_primary_link_ends_while_payload_is_lent(void **state)
{
    struct world *w = begin(*state, true);
    pthread_t threads[4];
    struct disk_frame f;

    for (unsigned frames = 1; frames < 60; frames += 7) {
        synchronise_primary(w, 0);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, write_middling, w), 0);
        for (unsigned i = 0; i < frames; i++)
            assert_true(hear(w, &f));
        close(w->fd);
        w->fd = -1;
        for (unsigned i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        pthread_mutex_lock(&w->d.lock);
        assert_true(disk_wait_unlinked(&w->d, 10000));
        assert_true(w->lost[0] != 0);
        assert_false(disk_queue_in_use(&w->d.queue));
        pthread_mutex_unlock(&w->d.lock);
        assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    }
    end(w);
}

static void write_small(struct world *w, uint8_t first, unsigned count)
{
    uint8_t data[4096];

    for (unsigned i = 0; i < count; i++) {
        memset(data, first + i, sizeof(data));
        assert_int_equal(disk_write(&w->d, data, sizeof(data), i * 4096ull, false), 0);
    }
}

static void hear_small(struct world *w, uint64_t epoch, uint8_t first, unsigned count)
{
    struct disk_frame f;

    for (unsigned i = 0; i < count; i++) {
        assert_true(hear(w, &f));
        assert_int_equal(f.type, DISK_WRITE);
        assert_int_equal(f.epoch, epoch);
        assert_int_equal(f.offset, i * 4096ull);
        assert_int_equal(w->payload[0], first + i);
    }
}

static bool gathering(struct world *w)
{
    pthread_mutex_lock(&w->d.lock);
    bool yes = w->d.gathering;
    pthread_mutex_unlock(&w->d.lock);
    return yes;
}

/* They wait for each other, but not for long; a barrier waits for none of them, and none is left behind. */
static void t_primary_small_writes_are_gathered(void **state)
{
    struct world *w = begin(*state, true);
    struct disk_frame f;
    bool ever = false;

    synchronise_primary(w, 0);
    for (unsigned i = 0; i < 20; i++) {
        write_small(w, (uint8_t)i, 3 + i * 5);
        ever = ever || gathering(w);
        hear_small(w, 1, (uint8_t)i, 3 + i * 5);
    }
    assert_true(ever);
    for (unsigned n = 1; n <= 20; n++) {
        write_small(w, (uint8_t)n, n);
        assert_int_equal(disk_barrier(&w->d, n, w->why), 0);
        hear_small(w, n, (uint8_t)n, n);
        assert_true(hear(w, &f));
        assert_int_equal(f.type, DISK_BARRIER);
        assert_int_equal(f.epoch, n);
        say(w, (struct disk_frame){.type = DISK_SEALED, .epoch = n}, NULL);
    }
    for (unsigned i = 0; i < 1000 && gathering(w); i++)
        poll(NULL, 0, 10);
    assert_false(gathering(w));
    end(w);
}

/* ---- starting again ---- */

static bool trusts_its_bitmap(struct folder *f, bool clean, bool same_boot)
{
    struct disk_state s = {.size = SIZE, .generation = 1, .primary = true, .clean = clean};

    memset(s.base, 4, 16);
    if (same_boot) disk_boot_id(s.boot);
    assert_int_equal(disk_state_save(&s, f->dir), 0);
    struct world *w = begin(f, true);
    bool trusted = !disk_id_none(w->d.state.base);
    assert_false(w->d.state.clean);
    end(w);
    assert_int_equal(disk_state_load(&s, f->dir), 0);
    assert_true(s.clean);
    return trusted;
}

/* A killed process left its bits in the page cache; a dead host nobody knows what. */
static void t_start_after_a_dead_host_trusts_no_bitmap(void **state)
{
    struct folder *f = *state;
    bool fresh;
    struct disk_bitmap b;

    disk_bitmap_init(&b);
    assert_int_equal(disk_bitmap_open(&b, folder_file(f, "bitmap"), SIZE, &fresh), 0);
    disk_bitmap_dispose(&b);
    assert_true(trusts_its_bitmap(f, true, true));
    assert_true(trusts_its_bitmap(f, true, false));
    assert_true(trusts_its_bitmap(f, false, true));
    assert_false(trusts_its_bitmap(f, false, false));
    unlink(folder_file(f, "bitmap"));
    assert_false(trusts_its_bitmap(f, true, true));
}

static void t_start_of_a_stale_disk_is_refused(void **state)
{
    struct folder *f = *state;
    struct disk_options o = {.queue_bytes = DISK_QUEUE_MIN,
                             .journal_bytes = DISK_JOURNAL_MIN,
                             .limit_ms = 1000,
                             .primary = true};
    struct disk_state s = {.size = SIZE, .generation = 5, .primary = true, .secured = true}, back;
    struct disk d;
    char why[DISK_TEXT_MAX], path[128];

    end(begin(f, true));
    snprintf(path, sizeof(path), "%s", folder_file(f, "disk"));
    o.path = path;
    o.state_dir = f->dir;
    for (int backup = 0; backup < 2; backup++) {
        s.primary = !backup;
        s.secured = !backup;
        assert_int_equal(disk_state_save(&s, f->dir), 0);
        assert_int_not_equal(disk_open(&d, &o, why), 0);
        disk_close(&d);
        /* Nothing was changed. */
        assert_int_equal(disk_state_load(&back, f->dir), 0);
        assert_memory_equal(&s, &back, sizeof(s));
    }
    o.force_primary = true;
    assert_int_equal(disk_open(&d, &o, why), 0);
    assert_int_equal(d.state.generation, 6);
    disk_close(&d);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(t_backup_applies_only_what_is_committed),
        TEST(t_backup_serves_nobody_before_promotion),
        TEST(t_backup_synchronised_can_be_looked_at),
        TEST(t_backup_dropped_keeps_committed_only),
        TEST(t_backup_refuses_who_does_not_fit),
        TEST(t_backup_out_of_turn_ends_the_link),
        TEST(t_backup_missing_frame_is_noticed),
        TEST(t_backup_changed_octet_is_noticed),
        TEST(t_backup_random_frames_do_no_harm),
        TEST(t_primary_hostile_backup_ends_the_link),
        TEST(t_primary_newer_backup_is_refused),
        TEST(t_primary_requests_out_of_turn_are_refused),
        TEST(t_primary_slow_backup_is_dropped),
        TEST(t_primary_slow_backup_holds_the_guest_if_so_chosen),
        TEST(t_primary_silent_backup_is_lost),
        TEST(t_primary_synchronises_at_the_rate),
        TEST(t_primary_own_disk_failing_ends_the_protection),
        TEST(t_primary_commits_between_barriers_only),
        TEST(t_primary_overlapping_writes_keep_their_order),
        TEST(t_primary_goes_on_where_the_link_stopped),
        TEST(t_primary_lent_payload_is_given_back),
        TEST(t_primary_lent_payload_is_given_back_by_a_slow_link),
        TEST(t_primary_link_ends_while_payload_is_lent),
        TEST(t_primary_small_writes_are_gathered),
        TEST(t_start_after_a_dead_host_trusts_no_bitmap),
        TEST(t_start_of_a_stale_disk_is_refused),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
