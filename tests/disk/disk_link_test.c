/* SPDX-License-Identifier: LGPL-2.1-only */
/* A backup and what comes to it; how both start again. */
#include "disk_world.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "disk_util.h"

static void shake_hands(struct world *w)
{
    struct disk_frame f;

    world_connect(w);
    world_say_hello(w);
    assert_true(world_hear(w, &f));
    assert_int_equal(f.type, DISK_HELLO);
    do
        assert_true(world_hear(w, &f));
    while (f.type == DISK_BITMAP);
    assert_int_equal(f.type, DISK_READY);
}

static void synchronise(struct world *w)
{
    struct disk_frame f;
    uint8_t base[16];

    memset(base, 9, 16);
    shake_hands(w);
    world_say(w, (struct disk_frame){.type = DISK_BARRIER, .payload = 16}, base);
    assert_true(world_hear(w, &f));
    assert_int_equal(f.type, DISK_SEALED);
}

static void write_epoch(struct world *w, uint64_t epoch, uint64_t offset, uint8_t value)
{
    uint8_t data[512];

    memset(data, value, sizeof(data));
    world_say(
        w,
        (struct disk_frame){
            .type = DISK_WRITE, .epoch = epoch, .offset = offset, .span = 512, .payload = 512},
        data);
}

static void barrier(struct world *w, uint64_t epoch)
{
    struct disk_frame f;

    world_say(w, (struct disk_frame){.type = DISK_BARRIER, .epoch = epoch}, NULL);
    assert_true(world_hear(w, &f));
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
    struct world *w = world_begin(*state, false);

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
    world_end(w);
}

static void t_backup_serves_nobody_before_promotion(void **state)
{
    struct world *w = world_begin(*state, false);
    uint8_t data[512] = {1};

    assert_int_equal(disk_read(&w->d, data, 512, 0), -EIO);
    assert_int_equal(disk_write(&w->d, data, 512, 0, false), -EIO);
    assert_int_equal(disk_zero(&w->d, 512, 0, true, false), -EIO);
    assert_int_equal(disk_trim(&w->d, 512, 0, false), -EIO);
    assert_int_equal(disk_flush(&w->d), -EIO);
    assert_int_not_equal(disk_promote(&w->d, 1, w->why), 0);
    world_end(w);
}

static void t_backup_synchronised_can_be_looked_at(void **state)
{
    struct world *w = world_begin(*state, false);
    uint8_t data[512] = {1};

    synchronise(w);
    write_epoch(w, 1, 0, 11);
    barrier(w, 1);
    assert_int_equal(disk_read(&w->d, data, 512, 0), 0);
    assert_int_equal(data[0], 0);
    assert_int_equal(disk_write(&w->d, data, 512, 0, false), -EIO);
    assert_int_equal(disk_flush(&w->d), -EIO);
    world_end(w);
}

static void t_backup_dropped_keeps_committed_only(void **state)
{
    struct world *w = world_begin(*state, false);

    synchronise(w);
    write_epoch(w, 1, 0, 11);
    barrier(w, 1);
    assert_int_equal(disk_commit(&w->d, 1, w->why), 0);
    write_epoch(w, 2, 0, 22);
    barrier(w, 2);
    assert_int_equal(disk_drop(&w->d, w->why), 0);
    assert_int_equal(octet_at(w, 0), 11);
    assert_int_not_equal(disk_promote(&w->d, 1, w->why), 0);
    world_end(w);
}

static void t_backup_refuses_who_does_not_fit(void **state)
{
    struct world *w = world_begin(*state, false);

    synchronise(w); /* it has our uuid and generation now */
    w->mine.size++;
    world_connect(w);
    world_say_hello(w);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "size"));
    w->mine.size--;
    w->mine.generation = 0;
    world_connect(w);
    world_say_hello(w);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "newer"));
    w->mine.generation = 1;
    w->mine.uuid[3]++;
    world_connect(w);
    world_say_hello(w);
    world_must_end(w);
    assert_non_null(strstr(w->lost, "another disk"));
    w->mine.uuid[3]--;
    w->mine.primary = false;
    world_connect(w);
    world_say_hello(w);
    world_must_end(w);
    w->mine.primary = true;
    w->mine.version++;
    world_connect(w);
    world_say_hello(w);
    world_must_end(w);
    world_end(w);
}

static void t_backup_out_of_turn_ends_the_link(void **state)
{
    static const struct disk_frame wrong[] = {
        {.type = DISK_WRITE, .epoch = 1, .span = 512, .payload = 512}, /* not synchronised */
        {.type = DISK_BARRIER, .epoch = 1},
        {.type = DISK_BARRIER, .payload = 8},
        {.type = DISK_WRITE, .offset = WORLD_SIZE, .span = 512, .payload = 512},
        {.type = DISK_WRITE, .offset = WORLD_SIZE - 256, .span = 512, .payload = 512},
        {.type = DISK_WRITE, .span = 1024, .payload = 512},
        {.type = DISK_ZERO, .offset = 512, .span = WORLD_SIZE},
        {.type = DISK_ZERO, .span = 512, .payload = 512},
        {.type = DISK_ZERO},
        {.type = DISK_CHECK, .offset = 512, .span = 65536, .payload = 8},
        {.type = DISK_CHECK, .span = 65536, .payload = 16},
        {.type = DISK_CHECK, .span = 17 * 65536, .payload = 17 * 8},
        {.type = DISK_SEALED},
        {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE},
    };
    struct world *w = world_begin(*state, false);
    uint8_t payload[1024] = {0};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        shake_hands(w);
        world_say(w, wrong[i], payload);
        world_must_end(w);
    }
    /* Later ones. */
    synchronise(w);
    write_epoch(w, 2, 0, 1);
    write_epoch(w, 1, 0, 1); /* back in time */
    world_must_end(w);
    synchronise(w);
    write_epoch(w, 1, 0, 1);
    barrier(w, 1);
    write_epoch(w, 1, 0, 1); /* sealed */
    world_must_end(w);
    synchronise(w);
    write_epoch(w, 1, 0, 1);
    write_epoch(w, 0, 0, 1); /* protected already */
    world_must_end(w);
    assert_int_equal(octet_at(w, 0), 0);
    world_end(w);
}

static void t_backup_missing_frame_is_noticed(void **state)
{
    struct world *w = world_begin(*state, false);

    synchronise(w);
    write_epoch(w, 1, 0, 1);
    w->seq++;
    write_epoch(w, 1, 512, 1);
    world_must_end(w);
    world_end(w);
}

/* A whole conversation with one octet changed anywhere: it is noticed, and nothing of it is applied. */
static void t_backup_changed_octet_is_noticed(void **state)
{
    struct world *w = world_begin(*state, false);
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
        world_must_end(w);
        assert_int_not_equal(disk_commit(&w->d, 1, w->why), 0);
        assert_int_equal(octet_at(w, 0), 0);
    }
    world_end(w);
}

static void t_backup_random_frames_do_no_harm(void **state)
{
    struct world *w = world_begin(*state, false);
    uint8_t payload[600] = {0};

    srand(3);
    for (unsigned i = 0; i < 300; i++) {
        synchronise(w);
        for (unsigned k = 0; k < 8; k++) {
            struct disk_frame f = {.type = (uint16_t)(rand() % 16),
                                   .flags = (uint16_t)rand(),
                                   .payload = (uint32_t)rand() % sizeof(payload),
                                   .epoch = (uint64_t)rand() % 3,
                                   .offset = (uint64_t)rand() * 512 % (2 * WORLD_SIZE),
                                   .span = (uint64_t)rand() % WORLD_SIZE};
            world_say(w, f, payload);
        }
        shutdown(w->fd, SHUT_WR);
        world_must_end(w);
    }
    world_end(w);
}

/* ---- starting again ---- */

static bool trusts_its_bitmap(struct folder *f, bool clean, bool same_boot)
{
    struct disk_state s = {.size = WORLD_SIZE, .generation = 1, .primary = true, .clean = clean};

    memset(s.base, 4, 16);
    if (same_boot) disk_boot_id(s.boot);
    assert_int_equal(disk_state_save(&s, f->dir), 0);
    struct world *w = world_begin(f, true);
    bool trusted = !disk_id_none(w->d.state.base);
    assert_false(w->d.state.clean);
    world_end(w);
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
    assert_int_equal(disk_bitmap_open(&b, folder_file(f, "bitmap"), WORLD_SIZE, &fresh), 0);
    disk_bitmap_dispose(&b);
    world_end(world_begin(f, true));
    assert_true(trusts_its_bitmap(f, true, true));
    assert_true(trusts_its_bitmap(f, true, false));
    assert_true(trusts_its_bitmap(f, false, true));
    assert_false(trusts_its_bitmap(f, false, false));
    unlink(folder_file(f, "bitmap"));
    assert_false(trusts_its_bitmap(f, true, true));
    assert_true(trusts_its_bitmap(f, true, true));
    unlink(folder_file(f, "journal"));
    assert_false(trusts_its_bitmap(f, true, true));
}

/* Of a primary that was started and ended once. */
static struct disk_options primary_again(struct folder *f, char path[128])
{
    world_end(world_begin(f, true));
    snprintf(path, 128, "%s", folder_file(f, "disk"));
    return (struct disk_options){.path = path,
                                 .state_dir = f->dir,
                                 .queue_bytes = DISK_QUEUE_MIN,
                                 .journal_bytes = DISK_JOURNAL_MIN,
                                 .limit_ms = 1000,
                                 .primary = true};
}

/* The one that failed has not looked at all of it: it does not say that all is well. */
static void t_start_that_failed_leaves_no_clean_mark(void **state)
{
    struct folder *f = *state;
    char why[DISK_TEXT_MAX], path[128];
    struct disk_options o = primary_again(f, path);
    struct disk_state s;
    struct disk d;

    o.queue_bytes = 200ull << 40;
    assert_int_equal(disk_state_load(&s, f->dir), 0);
    memset(s.base, 4, 16);
    memset(s.boot, 9, 16);
    s.clean = false;
    assert_int_equal(disk_state_save(&s, f->dir), 0);
    assert_int_not_equal(disk_open(&d, &o, why), 0);
    disk_close(&d);
    assert_int_equal(disk_state_load(&s, f->dir), 0);
    assert_false(s.clean);
    struct world *w = world_begin(f, true);
    assert_true(disk_id_none(w->d.state.base));
    world_end(w);
}

static void t_start_of_a_stale_disk_is_refused(void **state)
{
    struct folder *f = *state;
    char why[DISK_TEXT_MAX], path[128];
    struct disk_options o = primary_again(f, path);
    struct disk_state s = {.size = WORLD_SIZE, .generation = 5, .primary = true, .secured = true},
                      back;
    struct disk d;

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
        TEST(t_start_after_a_dead_host_trusts_no_bitmap),
        TEST(t_start_that_failed_leaves_no_clean_mark),
        TEST(t_start_of_a_stale_disk_is_refused),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
