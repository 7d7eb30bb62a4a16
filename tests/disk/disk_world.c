/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_world.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "disk_util.h"

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

struct world *world_begin(struct folder *f, bool primary)
{
    struct world *w = calloc(1, sizeof(*w));
    struct disk_options o = {
        .queue_bytes = DISK_QUEUE_MIN, .journal_bytes = DISK_JOURNAL_MIN, .limit_ms = 5000};

    assert_non_null(w);
    snprintf(w->path, sizeof(w->path), "%s", folder_file(f, "disk"));
    snprintf(w->dir, sizeof(w->dir), "%s", f->dir);
    int fd = open(w->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, WORLD_SIZE), 0);
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
        .version = DISK_LINK_VERSION, .primary = !primary, .size = WORLD_SIZE, .generation = 1};
    memset(w->mine.uuid, 7, 16);
    return w;
}

void world_connect(struct world *w)
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

void world_end(struct world *w)
{
    if (w->fd >= 0) close(w->fd);
    disk_close(&w->d);
    free(w);
}

void world_say(struct world *w, struct disk_frame f, const void *payload)
{
    uint8_t head[DISK_FRAME_SIZE];

    f.seq = w->seq++;
    disk_frame_put(head, &f, payload);
    (void)!send(w->fd, head, sizeof(head), MSG_NOSIGNAL);
    if (f.payload) (void)!send(w->fd, payload, f.payload, MSG_NOSIGNAL);
}

bool world_hear(struct world *w, struct disk_frame *f)
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

void world_say_hello(struct world *w)
{
    uint8_t raw[DISK_HELLO_SIZE];

    disk_hello_put(raw, &w->mine);
    world_say(w, (struct disk_frame){.type = DISK_HELLO, .payload = sizeof(raw)}, raw);
}

void world_must_end(struct world *w)
{
    struct disk_frame f;

    while (world_hear(w, &f))
        ;
    pthread_mutex_lock(&w->d.lock);
    assert_true(disk_wait_unlinked(&w->d, 10000));
    assert_true(w->lost[0] != 0);
    pthread_mutex_unlock(&w->d.lock);
}

void world_meet(struct world *w)
{
    struct disk_frame f;

    world_connect(w);
    assert_true(world_hear(w, &f));
    assert_int_equal(f.type, DISK_HELLO);
    assert_int_equal(disk_hello_get(&w->mine, w->payload, f.payload), 0);
    w->mine.primary = false;
    memset(w->mine.base, 0, 16);
    world_say_hello(w);
}

void world_synchronise_primary(struct world *w, uint64_t rate)
{
    static const uint8_t none[DISK_CHECK_EXTENTS];
    struct disk_frame f;

    world_meet(w);
    world_say(w, (struct disk_frame){.type = DISK_READY}, NULL);
    while (disk_sync(&w->d, rate, w->why))
        poll(NULL, 0, 1);
    while (world_hear(w, &f) && f.type == DISK_CHECK)
        world_say(
            w,
            (struct disk_frame){
                .type = DISK_DIFF, .offset = f.offset, .span = f.span, .payload = f.payload / 8},
            none);
    assert_int_equal(f.type, DISK_BARRIER);
    world_say(w, (struct disk_frame){.type = DISK_SEALED}, NULL);
    while (disk_protect(&w->d, w->why))
        poll(NULL, 0, 1);
}
