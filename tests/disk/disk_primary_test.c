/* SPDX-License-Identifier: LGPL-2.1-only */
/* A primary and what it sends; the test is the backup. */
#include "disk_world.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk_util.h"

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
    struct world *w = world_begin(*state, true);
    uint8_t payload[512] = {0};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        world_meet(w);
        world_say(w, (struct disk_frame){.type = DISK_READY}, NULL);
        world_say(w, wrong[i], payload);
        world_must_end(w);
    }
    world_end(w);
}

static void t_primary_newer_backup_is_refused(void **state)
{
    struct world *w = world_begin(*state, true);
    struct disk_frame f;

    world_connect(w);
    assert_true(world_hear(w, &f));
    assert_int_equal(disk_hello_get(&w->mine, w->payload, f.payload), 0);
    w->mine.primary = false;
    w->mine.generation = 9;
    world_say_hello(w);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "newer"));
    assert_int_not_equal(disk_protect(&w->d, w->why), 0);
    world_end(w);
}

static void t_primary_requests_out_of_turn_are_refused(void **state)
{
    struct world *w = world_begin(*state, true);

    assert_int_not_equal(disk_sync(&w->d, 0, w->why), 0);
    assert_int_not_equal(disk_protect(&w->d, w->why), 0);
    assert_int_not_equal(disk_barrier(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_promote(&w->d, 1, w->why), 0);
    assert_int_not_equal(disk_drop(&w->d, w->why), 0);
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    world_end(w);
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
    struct world *w = world_begin(*state, true);

    world_synchronise_primary(w, 0);
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
    world_end(w);
}

static void t_primary_slow_backup_holds_the_guest_if_so_chosen(void **state)
{
    struct disk_frame alive = {.type = DISK_ALIVE};
    struct world *w = world_begin(*state, true);
    pthread_t guest;
    unsigned slow = 0;

    world_synchronise_primary(w, 0);
    w->d.o.hold = true;
    w->d.o.limit_ms = 500;
    assert_int_equal(pthread_create(&guest, NULL, write_until_full, w), 0);
    while (slow < 2) {
        world_say(w, alive, NULL);
        poll(NULL, 0, 20);
        pthread_mutex_lock(&w->d.lock);
        slow = w->slow;
        assert_string_equal(w->lost, "");
        pthread_mutex_unlock(&w->d.lock);
    }
    assert_int_equal(disk_unprotect(&w->d, w->why), 0);
    pthread_join(guest, NULL);
    world_end(w);
}

static void t_primary_silent_backup_is_lost(void **state)
{
    struct world *w = world_begin(*state, true);

    w->d.o.limit_ms = 100;
    world_meet(w);
    world_say(w, (struct disk_frame){.type = DISK_READY}, NULL);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "silent"));
    world_end(w);
}

static void t_primary_synchronises_at_the_rate(void **state)
{
    struct world *w = world_begin(*state, true);
    int64_t began = disk_now_ms();

    world_synchronise_primary(w, 10 << 20); /* 2.5 MiB: 2 MiB must wait for their turn */
    assert_true(disk_now_ms() - began >= 150);
    world_end(w);
}

static void t_primary_own_disk_failing_ends_the_protection(void **state)
{
    struct world *w = world_begin(*state, true);
    uint8_t data[512] = {1};

    world_synchronise_primary(w, 0);
    int fd = open(w->path, O_RDONLY | O_CLOEXEC);
    assert_true(dup2(fd, w->d.store.fd) >= 0); /* each write fails from now on */
    close(fd);
    assert_int_not_equal(disk_write(&w->d, data, 512, 0, false), 0);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "own disk"));
    world_end(w);
}

static void *flush_in_vain(void *arg)
{
    struct world *w = arg;
    int p[2];

    /* What cannot be flushed at all. */
    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    int keep = fcntl(w->d.store.fd, F_DUPFD_CLOEXEC, 0);
    assert_true(dup2(p[0], w->d.store.fd) >= 0);
    assert_int_not_equal(disk_flush(&w->d), 0);
    assert_true(dup2(keep, w->d.store.fd) >= 0);
    close(keep);
    close(p[0]);
    close(p[1]);
    return NULL;
}

/* What the kernel could not write is marked nowhere: all is looked at again. */
static void t_primary_failed_flush_gives_the_base_up(void **state)
{
    struct folder *f = *state;
    struct world *w = world_begin(f, true);
    struct disk_state s;
    uint8_t data[512] = {1};

    world_synchronise_primary(w, 0);
    assert_int_equal(disk_write(&w->d, data, 512, 0, false), 0);
    assert_int_equal(disk_barrier(&w->d, 1, w->why), 0);
    assert_int_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_int_equal(disk_bitmap_dirty_bytes(&w->d.bitmap), 0);
    assert_false(disk_id_none(w->d.state.base));
    flush_in_vain(w);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "own disk"));
    assert_int_equal(disk_bitmap_dirty_bytes(&w->d.bitmap), WORLD_SIZE);
    assert_int_equal(disk_state_load(&s, f->dir), 0);
    assert_true(disk_id_none(s.base));
    world_end(w);
}

struct slow_reader {
    pthread_t thread;
    struct world *w;
    size_t step; /* octets each time */
    int pause_ms;
    atomic_bool end;
};

static void *read_slowly(void *arg)
{
    static uint8_t buf[1 << 20];
    struct slow_reader *r = arg;

    while (!r->end) {
        (void)!recv(r->w->fd, buf, r->step, MSG_DONTWAIT);
        world_say(r->w, (struct disk_frame){.type = DISK_ALIVE}, NULL);
        poll(NULL, 0, r->pause_ms);
    }
    return NULL;
}

/* It takes something all the time, although a socket says so only when most of it is free. */
static void t_primary_slow_link_that_takes_octets_is_not_lost(void **state)
{
    static uint8_t data[1 << 20];
    struct world *w = world_begin(*state, true);
    struct slow_reader r = {.w = w, .step = 16384, .pause_ms = 50};

    world_synchronise_primary(w, 0);
    w->d.o.limit_ms = 1000;
    assert_int_equal(pthread_create(&r.thread, NULL, read_slowly, &r), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(disk_write(&w->d, data, sizeof(data), 0, false), 0);
    poll(NULL, 0, 2500);
    pthread_mutex_lock(&w->d.lock);
    assert_string_equal(w->lost, "");
    pthread_mutex_unlock(&w->d.lock);
    r.end = true;
    pthread_join(r.thread, NULL);
    world_end(w);
}

/* However many frames it makes. */
static void t_primary_limit_holds_for_a_whole_write(void **state)
{
    static uint8_t data[WORLD_SIZE];
    struct world *w = world_begin(*state, true);
    struct slow_reader r = {.w = w, .step = 1 << 20, .pause_ms = 700};
    int64_t longest = 0;

    world_synchronise_primary(w, 0);
    w->d.o.limit_ms = 1000;
    assert_int_equal(pthread_create(&r.thread, NULL, read_slowly, &r), 0);
    for (int i = 0; i < 5; i++) {
        int64_t began = disk_now_ms();
        assert_int_equal(disk_write(&w->d, data, sizeof(data), 0, false), 0);
        if (disk_now_ms() - began > longest) longest = disk_now_ms() - began;
    }
    r.end = true;
    pthread_join(r.thread, NULL);
    assert_true(w->lost[0] != 0);
    assert_true(longest < 1600); /* each of its frames waits 700 ms */
    world_end(w);
}

static void *write_far(void *arg)
{
    static uint8_t data[1 << 20];
    struct world *w = arg;

    assert_int_equal(disk_write(&w->d, data, sizeof(data), 1 << 20, false), 0);
    return NULL;
}

static void write_block(struct world *w, unsigned i)
{
    static uint8_t data[65536];

    assert_int_equal(disk_write(&w->d, data, sizeof(data), i % 16 * 65536ull, false), 0);
}

static bool queue_takes(struct world *w, size_t payload)
{
    pthread_mutex_lock(&w->d.lock);
    bool yes = disk_queue_has_room(&w->d.queue, payload + 4096);
    pthread_mutex_unlock(&w->d.lock);
    return yes;
}

/*
 * A write waits for room, a barrier passes it, and the link ends before it was queued: it is in nobody's epoch. The commit that was on
 * its way comes after that.
 */
static void t_primary_write_that_waited_over_a_barrier_stays_marked(void **state)
{
    struct world *w = world_begin(*state, true);
    struct disk_frame f;
    pthread_t guest;
    unsigned i = 0;

    world_synchronise_primary(w, 0);
    while (queue_takes(w, 65536))
        write_block(w, i++);
    assert_int_equal(pthread_create(&guest, NULL, write_far, w), 0);
    poll(NULL, 0, 200);
    assert_int_equal(disk_barrier(&w->d, 1, w->why), 0);
    /* Small ones slip in as soon as something is taken. */
    do {
        assert_true(world_hear(w, &f));
        assert_true(f.payload <= 65536);
        if (queue_takes(w, 65536)) write_block(w, i++);
    } while (f.type != DISK_BARRIER);
    world_say(w, (struct disk_frame){.type = DISK_SEALED, .epoch = 1}, NULL);
    poll(NULL, 0, 100);
    close(w->fd);
    w->fd = -1;
    pthread_join(guest, NULL);
    assert_int_equal(disk_commit(&w->d, 1, w->why), 0);
    assert_int_equal(w->d.bitmap.dirty.words[0] >> 16 & 0xffff, 0xffff);
    world_end(w);
}

static void t_primary_commits_between_barriers_only(void **state)
{
    struct world *w = world_begin(*state, true);
    uint8_t data[512] = {1};

    world_synchronise_primary(w, 0);
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
    world_end(w);
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
    struct world *w = world_begin(f, true);
    uint8_t *copy = calloc(2, WORLD_SIZE), *disk = copy + WORLD_SIZE;
    pthread_t threads[4];
    struct disk_frame frame;
    unsigned writes = 0;

    world_synchronise_primary(w, 0);
    for (unsigned i = 0; i < writers; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, writer, w), 0);
    while (writes < writes_expected && world_hear(w, &frame)) {
        assert_int_equal(frame.type, DISK_WRITE);
        memcpy(copy + frame.offset, w->payload, frame.payload);
        if (writes++ % 4 == 0 && slowly) poll(NULL, 0, 10);
    }
    for (unsigned i = 0; i < writers; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(writes, writes_expected);
    assert_int_equal(disk_read(&w->d, disk, WORLD_SIZE, 0), 0);
    assert_memory_equal(copy, disk, WORLD_SIZE);
    free(copy);
    world_end(w);
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
static void write_and_reuse(struct world *w, uint8_t *data, uint32_t size, uint64_t offset,
                            uint64_t value)
{
    memset(data, (int)value, size);
    assert_int_equal(disk_write(&w->d, data, size, offset, false), 0);
    memset(data, 0xee, size);
}

static void *write_middling(void *arg)
{
    struct world *w = arg;
    uint8_t *data = malloc(240000);

    for (unsigned i = 0; i < 60; i++)
        write_and_reuse(w, data, 16384 + i * 3771, (i % 5) * 50000, i + (uintptr_t)&data / 4096);
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

/* Four that never wait for each other's range, only for the link. */
static void *write_beside(void *arg)
{
    static atomic_uint writers;
    struct world *w = arg;
    uint64_t mine = writers++ % 4 * (WORLD_SIZE / 4);
    uint8_t *data = malloc(WORLD_SIZE / 4);

    for (unsigned i = 0; i < 60; i++)
        write_and_reuse(w, data, 16384 + i * 9001, mine, i + mine / 77);
    free(data);
    return NULL;
}

static void t_primary_writes_beside_each_other(void **state)
{
    link_makes_the_disk(*state, write_beside, 4, 240, false);
}

static void t_primary_writes_beside_each_other_over_a_slow_link(void **state)
{
    link_makes_the_disk(*state, write_beside, 4, 240, true);
}

/* The link ends after so many frames, each time that these writers are at work. */
static void link_ends(struct folder *folder, void *(*writer)(void *))
{
    struct world *w = world_begin(folder, true);
    pthread_t threads[4];
    struct disk_frame f;

    for (unsigned frames = 1; frames < 60; frames += 7) {
        world_synchronise_primary(w, 0);
        for (unsigned i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, writer, w), 0);
        for (unsigned i = 0; i < frames; i++)
            assert_true(world_hear(w, &f));
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
    world_end(w);
}

static void t_primary_link_ends_while_payload_is_lent(void **state)
{
    link_ends(*state, write_middling);
}

static void t_primary_link_ends_while_writes_wait_for_it(void **state)
{
    link_ends(*state, write_beside);
}

#define SLOW_SIZE 32768

/* Every other thread waits: what the sender was woken for before is over. */
static bool others_sleep(void)
{
    DIR *dir = opendir("/proc/self/task");
    bool sleep = dir != NULL;
    struct dirent *e;

    while (sleep && (e = readdir(dir))) {
        char path[300], state = 'S';
        FILE *f;

        if (e->d_name[0] == '.' || atoi(e->d_name) == gettid()) continue;
        snprintf(path, sizeof(path), "/proc/self/task/%s/stat", e->d_name);
        f = fopen(path, "re");
        if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1) sleep = false;
        if (f) fclose(f);
        sleep = sleep && state == 'S';
    }
    if (dir) closedir(dir);
    return sleep;
}

/* A write that came while another one was sent, perhaps with a small one behind it, and is now on its way to our own disk. */
static void lend_slow(struct world *w, struct disk_loan *loan, struct disk_range *range,
                      const uint8_t *data, bool behind)
{
    struct pollfd link = {.fd = w->fd, .events = POLLIN};

    *loan = (struct disk_loan){.done = true};
    while (!others_sleep())
        poll(NULL, 0, 1);
    pthread_mutex_lock(&w->d.lock);
    disk_range_take(&w->d.ranges, range, 0, SLOW_SIZE, &w->d.lock);
    w->d.queue.sending = true;
    disk_replicate(&w->d, data, SLOW_SIZE, 0, false, disk_deadline(1000), loan);
    if (behind) disk_replicate(&w->d, data, 512, 1 << 20, false, disk_deadline(1000), NULL);
    w->d.queue.sending = false;
    assert_false(loan->done);
    pthread_mutex_unlock(&w->d.lock);
    assert_int_equal(poll(&link, 1, 20), 0);
}

static void end_slow(struct world *w, struct disk_loan *loan, struct disk_range *range)
{
    pthread_mutex_lock(&w->d.lock);
    disk_loan_end(&w->d, loan);
    assert_true(loan->done);
    disk_range_release(&w->d.ranges, range);
    pthread_mutex_unlock(&w->d.lock);
}

/* Octets of payload. */
static uint32_t hear_one(struct world *w, unsigned type, uint64_t offset)
{
    struct disk_frame f;

    assert_true(world_hear(w, &f));
    assert_int_equal(f.type, type);
    assert_int_equal(f.offset, offset);
    return f.payload;
}

static void hear_slow(struct world *w, const uint8_t *data)
{
    assert_int_equal(hear_one(w, DISK_WRITE, 0), SLOW_SIZE);
    assert_memory_equal(w->payload, data, SLOW_SIZE);
}

/* It leaves when its own disk is done, or before it with whatever comes behind it: nobody waits for that disk. */
static void t_primary_nobody_waits_for_a_slow_write(void **state)
{
    struct world *w = world_begin(*state, true);
    uint8_t data[SLOW_SIZE], other[SLOW_SIZE] = {0};
    struct disk_range range;
    struct disk_loan loan;

    world_synchronise_primary(w, 0);
    memset(data, 7, sizeof(data));
    for (int behind = 0; behind < 2; behind++) {
        lend_slow(w, &loan, &range, data, behind);
        end_slow(w, &loan, &range);
        hear_slow(w, data);
        if (behind) hear_one(w, DISK_WRITE, 1 << 20);
    }
    for (int large = 0; large < 2; large++) {
        uint32_t size = large ? sizeof(other) : 512;
        lend_slow(w, &loan, &range, data, false);
        assert_int_equal(disk_write(&w->d, other, size, 1 << 20, false), 0);
        hear_slow(w, data);
        hear_one(w, DISK_WRITE, 1 << 20);
        end_slow(w, &loan, &range);
    }
    lend_slow(w, &loan, &range, data, false);
    assert_int_equal(disk_barrier(&w->d, 1, w->why), 0);
    hear_slow(w, data);
    hear_one(w, DISK_BARRIER, 0);
    end_slow(w, &loan, &range);
    world_end(w);
}

struct beside {
    struct world *w;
    atomic_bool go;
};

static void *write_large_beside(void *arg)
{
    static uint8_t data[200 << 10];
    struct beside *b = arg;

    while (!b->go) {
    }
    assert_int_equal(disk_write(&b->w->d, data, sizeof(data), 0, false), 0);
    return NULL;
}

/* Whoever sends a large one sends no more than that, but what was queued meanwhile does not stay behind. */
static void t_primary_small_write_behind_a_large_one_leaves(void **state)
{
    struct beside b = {.w = world_begin(*state, true)};
    static const uint8_t small[512];
    pthread_t large;
    struct disk_frame f;

    world_synchronise_primary(b.w, 0);
    for (unsigned i = 0; i < 300; i++) {
        world_say(b.w, (struct disk_frame){.type = DISK_ALIVE}, NULL);
        b.go = false;
        assert_int_equal(pthread_create(&large, NULL, write_large_beside, &b), 0);
        poll(NULL, 0, 1); /* small ones that come faster are gathered */
        b.go = true;
        for (volatile unsigned k = 0; k < i % 100 * 400; k++) {
        }
        assert_int_equal(disk_write(&b.w->d, small, sizeof(small), 1 << 20, false), 0);
        pthread_join(large, NULL);
        for (unsigned k = 0; k < 2; k++)
            assert_true(world_hear(b.w, &f));
    }
    world_end(b.w);
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
        assert_true(world_hear(w, &f));
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
    struct world *w = world_begin(*state, true);
    struct disk_frame f;
    bool ever = false;

    world_synchronise_primary(w, 0);
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
        assert_true(world_hear(w, &f));
        assert_int_equal(f.type, DISK_BARRIER);
        assert_int_equal(f.epoch, n);
        world_say(w, (struct disk_frame){.type = DISK_SEALED, .epoch = n}, NULL);
    }
    for (unsigned i = 0; i < 1000 && gathering(w); i++)
        poll(NULL, 0, 10);
    assert_false(gathering(w));
    world_end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(t_primary_hostile_backup_ends_the_link),
        TEST(t_primary_newer_backup_is_refused),
        TEST(t_primary_requests_out_of_turn_are_refused),
        TEST(t_primary_slow_backup_is_dropped),
        TEST(t_primary_slow_backup_holds_the_guest_if_so_chosen),
        TEST(t_primary_silent_backup_is_lost),
        TEST(t_primary_synchronises_at_the_rate),
        TEST(t_primary_own_disk_failing_ends_the_protection),
        TEST(t_primary_failed_flush_gives_the_base_up),
        TEST(t_primary_slow_link_that_takes_octets_is_not_lost),
        TEST(t_primary_limit_holds_for_a_whole_write),
        TEST(t_primary_write_that_waited_over_a_barrier_stays_marked),
        TEST(t_primary_commits_between_barriers_only),
        TEST(t_primary_overlapping_writes_keep_their_order),
        TEST(t_primary_goes_on_where_the_link_stopped),
        TEST(t_primary_lent_payload_is_given_back),
        TEST(t_primary_lent_payload_is_given_back_by_a_slow_link),
        TEST(t_primary_writes_beside_each_other),
        TEST(t_primary_writes_beside_each_other_over_a_slow_link),
        TEST(t_primary_link_ends_while_payload_is_lent),
        TEST(t_primary_link_ends_while_writes_wait_for_it),
        TEST(t_primary_nobody_waits_for_a_slow_write),
        TEST(t_primary_small_write_behind_a_large_one_leaves),
        TEST(t_primary_small_writes_are_gathered),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
