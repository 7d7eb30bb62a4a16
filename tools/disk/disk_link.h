/* SPDX-License-Identifier: LGPL-2.1-only */
/* The byte stream between two instances, in frames. */
#ifndef DISK_LINK_H
#define DISK_LINK_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "disk_frame.h"

#define DISK_HANDSHAKE_MS 30000
#define DISK_CHECKS_MAX 8

struct disk;

/* A CHECK that was sent, and its answer. */
struct disk_check {
    uint64_t offset, span;
    bool answered;
    uint8_t differs[DISK_CHECK_EXTENTS];
};

struct disk_link {
    struct disk *disk;
    int in, out; /* may be the same */
    int wake;    /* eventfd: readable once the link is dead */
    bool dead;   /* under the disk's lock */
    pthread_t thread;

    /* the link thread's */
    uint64_t rx_seq;
    uint8_t head[DISK_FRAME_SIZE];
    uint8_t *payload;
    uint8_t *ahead; /* what was read beyond what was asked for; NULL: nothing ever is */
    size_t ahead_at, ahead_have;
    struct disk_hello peer;
    bool helpers;

    /* primary: under the disk's lock */
    pthread_t sender, syncer;
    bool syncing, sync_asked;
    uint64_t sync_rate; /* octets per second; 0: no limit */
    bool by_bitmap, handshaken, barrier0_sent;
    struct disk_check checks[DISK_CHECKS_MAX];
    unsigned first_check, check_count;
    uint8_t base[16];

    /* backup */
    pthread_mutex_t tx; /* one writer at a time */
    uint64_t tx_seq;
    pthread_t ticker;
    uint64_t last_epoch; /* of the newest record; the link thread's */
};

/* Takes the fds. NULL: no memory; they are then still the caller's. */
struct disk_link *disk_link_new(struct disk *d, int in, int out);
void disk_link_free(struct disk_link *l);

/* From now on reads several small frames at once: who waits in poll for the next frame would miss them. */
void disk_link_read_ahead(struct disk_link *l);
/* Reads the next frame, waits at most limit_ms (-1: for ever) for each piece of it. The payload is in
 * l->payload. -ETIMEDOUT, -ECANCELED (dead), -EPIPE (closed), -EPROTO, -EBADMSG (damaged) or the
 * error of the read. */
int disk_link_read(struct disk_link *l, struct disk_frame *f, int limit_ms);
/* What the link takes without waiting: octets or -errno, -EAGAIN if nothing. */
ssize_t disk_link_try(struct disk_link *l, const struct iovec *iov, int count);
/* 0 once it takes something, -ETIMEDOUT, -ECANCELED (dead) or -errno. */
int disk_link_wait(struct disk_link *l, int limit_ms);
/* A whole frame at once, for those who have no queue. Sets f->seq. */
int disk_link_send(struct disk_link *l, struct disk_frame *f, const void *payload, int limit_ms);
/* 0 after ms, -ECANCELED once the link is dead. */
int disk_link_sleep(struct disk_link *l, int ms);
const char *disk_link_error(int r);

#endif
