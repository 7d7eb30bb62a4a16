/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Who is connected to an instance's control socket (docs/misc/disk.md, section 2), for every kind of instance.
 * No function here blocks. A lock is the caller's business: where threads share the clients, it holds one.
 */
#ifndef DISK_CLIENTS_H
#define DISK_CLIENTS_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#define DISK_CLIENTS_MAX 16

struct disk_client {
    int fd; /* -1: free */
    bool subscribed, failed;
    bool waits; /* its answer comes later: it is not read meanwhile */
};

struct disk_clients {
    int listen_fd;
    int64_t rests_until; /* without descriptors or memory for one more: poll would not block */
    struct disk_client all[DISK_CLIENTS_MAX];
};

/* A socket of packets at `path`, mode 0600; what is there is replaced. 0 or -errno; close it in either case. */
int disk_clients_open(struct disk_clients *c, const char *path);
void disk_clients_close(struct disk_clients *c);

/* Where new ones come in: what poll() is to look at, and for how long when the caller would wait for limit_ms (-1: for ever). */
struct pollfd disk_clients_poll(const struct disk_clients *c);
int disk_clients_limit_ms(const struct disk_clients *c, int limit_ms);
/* Takes the one who came; without room for it, or the system's means, it is cut off or waits. */
void disk_clients_welcome(struct disk_clients *c);
void disk_client_release(struct disk_client *client);

/* Somebody who does not read is cut off; poll() tells then of its end. */
void disk_client_send(struct disk_client *client, const char *text);
/* To all that subscribed. */
void disk_clients_event(struct disk_clients *c, const char *text);
/* Is there one besides `client`? */
bool disk_clients_others(const struct disk_clients *c, const struct disk_client *client);

#endif
