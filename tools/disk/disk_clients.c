/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_clients.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "disk_names.h"
#include "disk_util.h"

#define REST_MS 1000

int disk_clients_open(struct disk_clients *c, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int r = 0;

    c->listen_fd = -1;
    c->rests_until = 0;
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        c->all[i] = (struct disk_client){.fd = -1};
    if (strlen(path) >= sizeof(address.sun_path)) return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    unlink(path);
    mode_t old = umask(0177);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address))) r = -errno;
    umask(old);
    if (!r && listen(fd, DISK_CLIENTS_MAX)) r = -errno;
    if (r)
        close(fd);
    else
        c->listen_fd = fd;
    return r;
}

void disk_clients_close(struct disk_clients *c)
{
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        if (c->all[i].fd >= 0) disk_client_release(&c->all[i]);
    if (c->listen_fd >= 0) close(c->listen_fd);
    c->listen_fd = -1;
}

/* ---- they come and go ---- */

struct pollfd disk_clients_poll(const struct disk_clients *c)
{
    bool rests = c->rests_until > disk_now_ms();

    return (struct pollfd){.fd = rests ? -1 : c->listen_fd, .events = POLLIN};
}

int disk_clients_limit_ms(const struct disk_clients *c, int limit_ms)
{
    int64_t left = c->rests_until - disk_now_ms();

    return left > 0 && (limit_ms < 0 || left < limit_ms) ? (int)left : limit_ms;
}

void disk_clients_welcome(struct disk_clients *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM))
        c->rests_until = disk_now_ms() + REST_MS;
    for (int i = 0; i < DISK_CLIENTS_MAX && fd >= 0; i++) {
        if (c->all[i].fd >= 0) continue;
        c->all[i] = (struct disk_client){.fd = fd};
        fd = -1;
    }
    if (fd >= 0) close(fd);
}

void disk_client_release(struct disk_client *client)
{
    close(client->fd);
    *client = (struct disk_client){.fd = -1};
}

/* ---- what they are told ---- */

void disk_client_send(struct disk_client *client, const char *text)
{
    size_t size = strlen(text);

    if (client->failed || client->fd < 0) return;
    if (send(client->fd, text, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size) return;
    shutdown(client->fd, SHUT_RDWR);
    client->failed = true;
}

void disk_clients_event(struct disk_clients *c, const char *text)
{
    char packet[DISK_REPLY_MAX];

    snprintf(packet, sizeof(packet), "event %s", text);
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        if (c->all[i].subscribed) disk_client_send(&c->all[i], packet);
}

bool disk_clients_others(const struct disk_clients *c, const struct disk_client *client)
{
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        if (c->all[i].fd >= 0 && &c->all[i] != client) return true;
    return false;
}
