/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_test.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "disk_journal.h"
#include "disk_util.h"

#define DISK_SIZE (1u << 20)
#define LIMIT DISK_JOURNAL_MIN

static void open_store(struct disk_store *s, const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, DISK_SIZE), 0);
    close(fd);
    disk_store_init(s);
    assert_int_equal(disk_store_open(s, path), 0);
}

static bool open_journal(struct disk_journal *j, struct folder *f)
{
    bool complete = false;

    disk_journal_init(j);
    assert_int_equal(disk_journal_open(j, folder_file(f, "journal"), LIMIT, &complete), 0);
    return complete;
}

static void put(struct disk_journal *j, uint64_t epoch, uint64_t offset, uint8_t value, size_t size)
{
    static uint8_t data[DISK_PAYLOAD_MAX];
    struct disk_frame f = {.type = DISK_WRITE,
                           .epoch = epoch,
                           .offset = offset,
                           .span = size,
                           .payload = (uint32_t)size};
    uint64_t head;

    memset(data, value, size);
    assert_true(disk_journal_has_room(j, size));
    assert_int_equal(disk_journal_append(j, &f, data, &head), 0);
    disk_journal_publish(j, head);
}

static void seal(struct disk_journal *j, uint64_t epoch)
{
    uint64_t head;

    assert_true(disk_journal_can_seal(j));
    assert_int_equal(disk_journal_append_seal(j, epoch, &head), 0);
    disk_journal_publish_seal(j, epoch, head);
}

/* What an instance does when it starts. */
static uint64_t recover(struct disk_journal *j, struct disk_store *s)
{
    if (!j->seal_count) return j->applied;
    struct disk_seal last = j->seals[j->seal_count - 1];
    assert_int_equal(disk_journal_apply(j, &last, s), 0);
    assert_int_equal(disk_journal_publish_applied(j, &last), 0);
    return j->applied;
}

/* Each epoch writes its number to the whole of two distant blocks. */
static void put_epoch(struct disk_journal *j, uint64_t epoch)
{
    put(j, epoch, 0, (uint8_t)epoch, 4096);
    put(j, epoch, 65536, (uint8_t)epoch, 512);
    seal(j, epoch);
}

/* The epoch that the disk is at; fails if it is a mixture. */
static unsigned epoch_of(struct disk_store *s)
{
    uint8_t a[4096], b[512];

    assert_int_equal(disk_store_read(s, a, sizeof(a), 0), 0);
    assert_int_equal(disk_store_read(s, b, sizeof(b), 65536), 0);
    for (size_t i = 0; i < sizeof(a); i++)
        assert_int_equal(a[i], a[0]);
    for (size_t i = 0; i < sizeof(b); i++)
        assert_int_equal(b[i], a[0]);
    return a[0];
}

static void t_journal_killed_after_commit_replays_it(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    put_epoch(&j, 1);
    put_epoch(&j, 2);
    assert_int_equal(disk_journal_commit(&j, 2), 0);
    put_epoch(&j, 3);
    put(&j, 4, 0, 9, 4096);
    disk_journal_dispose(&j); /* killed */

    assert_true(open_journal(&j, f));
    assert_int_equal(j.committed, 2);
    assert_int_equal(recover(&j, &s), 2);
    assert_int_equal(epoch_of(&s), 2);
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

static void t_journal_never_committed_is_dropped(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    put_epoch(&j, 1);
    disk_journal_dispose(&j);

    assert_true(open_journal(&j, f));
    assert_int_equal(recover(&j, &s), 0);
    assert_int_equal(epoch_of(&s), 0);
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

static void t_journal_old_session_is_not_replayed(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    put_epoch(&j, 1);
    put_epoch(&j, 2);
    assert_int_equal(disk_journal_reset(&j), 0); /* a new link */
    put_epoch(&j, 1);
    assert_int_equal(disk_journal_commit(&j, 1), 0);
    disk_journal_dispose(&j);

    assert_true(open_journal(&j, f));
    assert_int_equal(j.seal_count, 1);
    assert_int_equal(recover(&j, &s), 1);
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

/* A dead host may leave anything behind in what was not flushed. */
static void t_journal_damaged_anywhere_gives_one_whole_epoch(void **state)
{
    struct folder *f = *state;
    char disk2[128];
    unsigned seen[3] = {0};

    snprintf(disk2, sizeof(disk2), "%s", folder_file(f, "disk2"));
    for (off_t at = 4096; at < 21888; at += 61) {
        struct disk_journal j;
        struct disk_store s;
        uint8_t octet;

        unlink(folder_file(f, "journal"));
        unlink(disk2);
        open_store(&s, disk2);
        open_journal(&j, f);
        put_epoch(&j, 1);
        put_epoch(&j, 2);
        assert_int_equal(disk_journal_commit(&j, 2), 0);
        assert_int_equal(pread(j.fd, &octet, 1, at), 1);
        octet ^= 1;
        assert_int_equal(pwrite(j.fd, &octet, 1, at), 1);
        disk_journal_dispose(&j);

        bool complete = open_journal(&j, f);
        uint64_t n = recover(&j, &s);
        assert_int_equal(epoch_of(&s), n);
        assert_true(n <= 2);
        /* With the newest commit record lost nobody can know of the commit. */
        assert_true(!complete || n == 2 || j.committed == 0);
        seen[n]++;
        disk_journal_dispose(&j);
        disk_store_dispose(&s);
    }
    assert_true(seen[0] && seen[1] && seen[2]);
}

static void t_journal_round_the_ring_keeps_all(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    for (unsigned e = 1; e <= 100; e++) {
        put(&j, e, 0, (uint8_t)e, 300000);
        seal(&j, e);
        assert_int_equal(disk_journal_commit(&j, e), 0);
        if (e % 7 == 0) {
            disk_journal_dispose(&j); /* killed */
            assert_true(open_journal(&j, f));
        }
        assert_int_equal(recover(&j, &s), e);
        disk_journal_release(&j);
        uint8_t last;
        assert_int_equal(disk_store_read(&s, &last, 1, 299999), 0);
        assert_int_equal(last, (uint8_t)e);
    }
    struct stat st;
    assert_int_equal(fstat(j.fd, &st), 0);
    assert_true(st.st_size <= (off_t)LIMIT + 3 * 4096);
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

static void t_journal_rewound_stays_small_and_recovers(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;
    struct stat st;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    for (unsigned e = 1; e <= 100; e++) {
        put_epoch(&j, e);
        if (e % 3 == 0) { /* killed before the commit: the epoch is lost, and sent again */
            disk_journal_dispose(&j);
            assert_true(open_journal(&j, f));
            assert_int_equal(recover(&j, &s), e - 1);
            assert_int_equal(epoch_of(&s), e - 1);
            put_epoch(&j, e);
        }
        assert_int_equal(disk_journal_commit(&j, e), 0);
        if (e % 5 == 0) {
            disk_journal_dispose(&j);
            assert_true(open_journal(&j, f));
        }
        disk_journal_rewind(&j); /* not empty: nothing happens */
        assert_int_equal(recover(&j, &s), e);
        assert_int_equal(epoch_of(&s), e);
        disk_journal_release(&j);
        disk_journal_rewind(&j);
        assert_int_equal(j.tail, 0);
    }
    assert_int_equal(fstat(j.fd, &st), 0);
    assert_true(st.st_size < 3 * 4096 + 16384);
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

static void t_journal_full_takes_no_more_until_released(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    while (disk_journal_has_room(&j, 100000))
        put(&j, 1, 0, 1, 100000);
    seal(&j, 1); /* for which there is always room */
    assert_int_equal(disk_journal_commit(&j, 1), 0);
    assert_int_equal(recover(&j, &s), 1);
    assert_false(disk_journal_has_room(&j, 100000));
    disk_journal_release(&j);
    assert_true(disk_journal_has_room(&j, 100000));
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

static void t_journal_record_outside_the_disk_is_refused(void **state)
{
    struct folder *f = *state;
    struct disk_journal j;
    struct disk_store s;

    open_store(&s, folder_file(f, "disk"));
    open_journal(&j, f);
    put(&j, 1, DISK_SIZE - 512, 1, 4096);
    seal(&j, 1);
    assert_int_equal(disk_journal_commit(&j, 1), 0);
    assert_int_not_equal(disk_journal_apply(&j, disk_journal_find(&j, 1), &s), 0);
    assert_int_equal(lseek(s.fd, 0, SEEK_END), DISK_SIZE);
    disk_journal_dispose(&j);
    disk_store_dispose(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(t_journal_killed_after_commit_replays_it),
        TEST(t_journal_never_committed_is_dropped),
        TEST(t_journal_old_session_is_not_replayed),
        TEST(t_journal_damaged_anywhere_gives_one_whole_epoch),
        TEST(t_journal_round_the_ring_keeps_all),
        TEST(t_journal_rewound_stays_small_and_recovers),
        TEST(t_journal_full_takes_no_more_until_released),
        TEST(t_journal_record_outside_the_disk_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
