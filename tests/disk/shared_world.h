/* SPDX-License-Identifier: LGPL-2.1-only */
/* Two instances in this process that see the same disk and journal. */
#ifndef SHARED_WORLD_H
#define SHARED_WORLD_H

#include "disk_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "disk.h"
#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

#define SIZE (40u << 16)
#define LIMIT_MS 5000
#define SETTLE_MS 100
#define BLOCK 4096

struct host {
    struct disk d;
    struct disk_options o;
    char state[80], lost[256], why[DISK_TEXT_MAX];
    bool open;
};

struct world {
    char dir[64], disk[80], journal[80];
    struct host a, b;
    char why[DISK_TEXT_MAX];
};

static inline void quiet(const char *line)
{
}

static inline void event(struct disk *d, const char *text)
{
    struct host *h = d->event_arg;

    if (!strncmp(text, "lost ", 5)) snprintf(h->lost, sizeof(h->lost), "%s", text + 5);
}

static inline void make_file(const char *path, size_t size, int fill)
{
    static uint8_t buf[SIZE];
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    memset(buf, fill, sizeof(buf));
    assert_int_equal(write(fd, buf, size), size);
    close(fd);
}

static inline int host_open(struct host *h, bool primary, bool force)
{
    h->o.primary = primary;
    h->o.force_primary = force;
    h->lost[0] = 0;
    int r = disk_open(&h->d, &h->o, h->why);
    h->d.event_arg = h;
    h->d.event = event;
    if (!r) r = disk_start(&h->d);
    h->open = !r;
    if (r) disk_close(&h->d);
    return r;
}

static inline void host_close(struct host *h)
{
    if (h->open) disk_close(&h->d);
    h->open = false;
}

static inline void host_init(struct world *w, struct host *h, const char *name)
{
    snprintf(h->state, sizeof(h->state), "%s/%s", w->dir, name);
    assert_int_equal(mkdir(h->state, 0700), 0);
    h->o = (struct disk_options){.path = w->disk,
                                 .shared = w->journal,
                                 .state_dir = h->state,
                                 .queue_bytes = DISK_QUEUE_MIN,
                                 .journal_bytes = DISK_JOURNAL_MIN,
                                 .limit_ms = LIMIT_MS,
                                 .settle_ms = SETTLE_MS};
}

static inline int begin(void **state)
{
    struct world *w = calloc(1, sizeof(*w));

    if (!w) return -1;
    *state = w;
    disk_log_line = quiet;
    /* Where the disk has O_DIRECT, if the machine has that. */
    strcpy(w->dir,
           access("/var/tmp", W_OK) ? "/tmp/shared-test-XXXXXX" : "/var/tmp/shared-test-XXXXXX");
    if (!mkdtemp(w->dir)) return -1;
    snprintf(w->disk, sizeof(w->disk), "%s/disk", w->dir);
    snprintf(w->journal, sizeof(w->journal), "%s/journal", w->dir);
    make_file(w->disk, SIZE, 1);
    host_init(w, &w->a, "a");
    host_init(w, &w->b, "b");
    return 0;
}

static inline int end(void **state)
{
    struct world *w = *state;
    char command[128];

    host_close(&w->a);
    host_close(&w->b);
    snprintf(command, sizeof(command), "rm -rf %s", w->dir);
    free(w);
    return system(command);
}

static inline bool wait_for(struct host *h, enum disk_phase phase)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&h->d.lock);
        bool there = h->d.phase == phase;
        pthread_mutex_unlock(&h->d.lock);
        if (there) return true;
        usleep(5000);
    }
    return false;
}

static inline bool wait_sealed(struct host *h, uint64_t n)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&h->d.lock);
        bool there = h->d.journal.sealed >= n;
        pthread_mutex_unlock(&h->d.lock);
        if (there) return true;
        usleep(5000);
    }
    return false;
}

static inline bool wait_applied(struct host *h, uint64_t n)
{
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&h->d.lock);
        bool there = h->d.journal.applied >= n && !h->d.applying;
        pthread_mutex_unlock(&h->d.lock);
        if (there) return true;
        usleep(5000);
    }
    return false;
}

static inline void link_hosts(struct world *w)
{
    int sv[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    assert_int_equal(disk_link_start(&w->b.d, sv[1], sv[1], w->why), 0);
    assert_int_equal(disk_link_start(&w->a.d, sv[0], sv[0], w->why), 0);
}

static inline void protect(struct world *w)
{
    assert_int_equal(host_open(&w->a, true, false), 0);
    assert_int_equal(host_open(&w->b, false, false), 0);
    link_hosts(w);
    assert_true(wait_for(&w->a, DISK_LINKED));
    assert_int_equal(disk_sync(&w->a.d, 0, w->why), 0);
    assert_true(wait_for(&w->a, DISK_SYNCED));
    assert_true(wait_for(&w->b, DISK_SYNCED));
    assert_int_equal(disk_protect(&w->a.d, w->why), 0);
}

static inline void put(struct host *h, uint64_t offset, uint8_t value)
{
    uint8_t buf[BLOCK];

    memset(buf, value, sizeof(buf));
    assert_int_equal(disk_write(&h->d, buf, sizeof(buf), offset, false), 0);
}

static inline int seen(struct host *h, uint64_t offset)
{
    uint8_t buf[BLOCK];

    if (disk_read(&h->d, buf, sizeof(buf), offset)) return -1;
    for (size_t i = 1; i < sizeof(buf); i++)
        if (buf[i] != buf[0]) return -2;
    return buf[0];
}

static inline int on_disk(struct world *w, uint64_t offset)
{
    uint8_t buf[BLOCK];
    int fd = open(w->disk, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, buf, sizeof(buf), (off_t)offset), sizeof(buf));
    close(fd);
    return buf[0];
}

static inline void barrier(struct world *w, uint64_t n)
{
    assert_int_equal(disk_barrier(&w->a.d, n, w->why), 0);
    assert_true(wait_sealed(&w->b, n));
}

static inline void commit(struct world *w, uint64_t n)
{
    assert_int_equal(disk_commit(&w->b.d, n, w->why), 0);
    assert_int_equal(disk_commit(&w->a.d, n, w->why), 0);
}

#endif
