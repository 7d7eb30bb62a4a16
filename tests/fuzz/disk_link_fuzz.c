/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A backup's disk hears a primary that is not to be trusted. First octet, bit 0: the rest goes over the link as it is. Else a HELLO is
 * said and the rest is a list of frames, to which we give number and hash: u8 type, u8 flags, u8 epoch, u16 payload, u32 offset, u32
 * span, payload. Nothing of an epoch from 1 on may reach the disk, since no commit ever comes.
 */
#include <sys/socket.h>

#include "disk_fuzz.h"
#include "fuzz.h"

#define FRAME_HEAD 13

static int link_fd;
static bool touches_disk;

static void say(const void *bytes, size_t size)
{
    /* It may have hung up; then the rest goes nowhere. */
    for (size_t done = 0; done < size;) {
        ssize_t r = send(link_fd, (const char *)bytes + done, size - done, MSG_NOSIGNAL);

        if (r <= 0) return;
        done += (size_t)r;
    }
}

static void say_frame(struct disk_frame *f, const void *payload)
{
    static uint64_t seq;
    uint8_t head[DISK_FRAME_SIZE];

    if (f->type == DISK_HELLO) seq = 0;
    f->seq = seq++;
    disk_frame_put(head, f, payload);
    say(head, sizeof(head));
    if (f->payload) say(payload, f->payload);
}

static void say_hello(void)
{
    struct disk_hello h = {.version = DISK_LINK_VERSION, .primary = true, .size = DISK_BYTES};
    struct disk_frame f = {.type = DISK_HELLO, .payload = DISK_HELLO_SIZE};
    uint8_t body[DISK_HELLO_SIZE];

    memset(h.uuid, 7, sizeof(h.uuid));
    disk_hello_put(body, &h);
    say_frame(&f, body);
}

static void say_frames(const uint8_t *p, size_t size)
{
    while (size >= FRAME_HEAD) {
        struct disk_frame f = {.type = p[0],
                               .flags = p[1],
                               .epoch = p[2],
                               .payload = disk_get16(p + 3),
                               .offset = disk_get32(p + 5),
                               .span = disk_get32(p + 9)};

        p += FRAME_HEAD;
        size -= FRAME_HEAD;
        if (f.payload > size) f.payload = (uint32_t)size;
        if (!f.epoch && (f.type == DISK_WRITE || f.type == DISK_ZERO)) touches_disk = true;
        say_frame(&f, p);
        p += f.payload;
        size -= f.payload;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct disk d;
    struct disk_options o;
    char why[DISK_TEXT_MAX];
    int sv[2];

    if (!size) return 0;
    disk_fresh();
    o = disk_backup_options();
    memset(&d, 0, sizeof(d));
    if (disk_open(&d, &o, why) || disk_start(&d)) abort();
    d.event = disk_quiet;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv)) abort();
    if (disk_link_start(&d, sv[0], sv[0], why)) abort();
    link_fd = sv[1];
    touches_disk = data[0] & 1;
    if (data[0] & 1) {
        say(data + 1, size - 1);
    } else {
        say_hello();
        say_frames(data + 1, size - 1);
    }
    shutdown(sv[1], SHUT_WR);
    pthread_mutex_lock(&d.lock);
    if (!disk_wait_unlinked(&d, 20000)) abort();
    pthread_mutex_unlock(&d.lock);
    close(sv[1]);
    disk_close(&d);
    if (!touches_disk && !disk_is_zero()) abort();
    return 0;
}
