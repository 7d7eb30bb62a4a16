/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One thread serves all clients, one request at a time. Events are sent by whoever finds them, under
 * the disk's lock, and never wait: a client whose socket is full is cut off.
 */
#include "disk_control.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk_request.h"
#include "disk_roles.h"
#include "disk_shared.h"
#include "disk_util.h"

struct request {
    struct disk_request q;
    struct disk_control *c;
    struct disk_client *client;
};

static void tell_event(struct disk *d, const char *text)
{
    struct disk_control *c = d->event_arg;

    pthread_mutex_lock(&c->lock);
    disk_clients_event(&c->clients, text);
    pthread_mutex_unlock(&c->lock);
}

/* ---- requests ---- */

static struct request *request_of(struct disk_request *q)
{
    return (struct request *)((char *)q - offsetof(struct request, q));
}

static struct disk *disk_of(struct disk_request *q)
{
    return request_of(q)->c->disk;
}

static void subscribe(struct request *r)
{
    pthread_mutex_lock(&r->c->lock);
    r->client->subscribed = true;
    pthread_mutex_unlock(&r->c->lock);
}

static void do_status(struct disk_request *q)
{
    char text[DISK_TEXT_MAX];

    disk_status(disk_of(q), text);
    snprintf(q->reply, sizeof(q->reply), "ok %s", text);
}

static void do_subscribe(struct disk_request *q)
{
    subscribe(request_of(q));
    disk_request_result(q, 0, "");
}

static void do_link(struct disk_request *q)
{
    char why[DISK_TEXT_MAX] = "";
    int in, out;

    if (!disk_request_take_link(q, &in, &out)) return;
    /* Before it starts, so that no event is missed. */
    subscribe(request_of(q));
    disk_request_result(q, disk_link_start(disk_of(q), in, out, why), why);
}

static void do_sync(struct disk_request *q)
{
    char why[DISK_TEXT_MAX] = "";
    uint64_t rate = 0;

    if (q->arg && !disk_request_number(q->arg, &rate))
        disk_request_result(q, -1, "sync: the rate must be a number of octets per second");
    else
        disk_request_result(q, disk_sync(disk_of(q), rate, why), why);
}

static void plain(struct disk_request *q, int (*call)(struct disk *d, char why[DISK_TEXT_MAX]))
{
    char why[DISK_TEXT_MAX] = "";

    disk_request_result(q, call(disk_of(q), why), why);
}

static void do_protect(struct disk_request *q)
{
    plain(q, disk_protect);
}

static void do_unprotect(struct disk_request *q)
{
    plain(q, disk_unprotect);
}

static void do_drop(struct disk_request *q)
{
    plain(q, disk_drop);
}

static int at_checkpoint(struct disk_request *q,
                         int (*call)(struct disk *d, uint64_t n, char why[DISK_TEXT_MAX]))
{
    char why[DISK_TEXT_MAX] = "";
    uint64_t n;

    if (!disk_request_checkpoint(q, &n)) return -1;
    int r = call(disk_of(q), n, why);
    disk_request_result(q, r, why);
    return r;
}

static void do_barrier(struct disk_request *q)
{
    at_checkpoint(q, disk_barrier);
}

static void do_commit(struct disk_request *q)
{
    at_checkpoint(q, disk_commit);
}

static void do_promote(struct disk_request *q)
{
    struct disk *d = disk_of(q);

    if (at_checkpoint(q, disk_promote)) return;
    pthread_mutex_lock(&d->lock);
    snprintf(q->reply, sizeof(q->reply), "ok generation=%" PRIu64, d->state.generation);
    pthread_mutex_unlock(&d->lock);
}

static void do_stop(struct disk_request *q)
{
    struct disk *d = disk_of(q);

    disk_request_result(q, 0, "");
    if (d->shared) {
        disk_shared_stop(d);
    } else {
        /* nbdkit waits for its requests, and one may wait for room as long as the link lives. */
        pthread_mutex_lock(&d->lock);
        if (d->link) disk_link_lost(d, d->link, "the instance ends");
        pthread_mutex_unlock(&d->lock);
    }
    request_of(q)->c->asked_to_stop();
}

/* Others than the one who asks. */
static bool others(struct request *r)
{
    pthread_mutex_lock(&r->c->lock);
    bool found = disk_clients_others(&r->c->clients, r->client);
    pthread_mutex_unlock(&r->c->lock);
    return found;
}

static void do_leave(struct disk_request *q)
{
    struct disk *d = disk_of(q);

    pthread_mutex_lock(&d->lock);
    bool needed = d->primary || (d->link && !d->link->dead);
    pthread_mutex_unlock(&d->lock);
    if (needed || others(request_of(q)))
        disk_request_result(q, -1, DISK_LEAVE_REFUSED);
    else
        do_stop(q);
}

static const struct disk_word words[] = {
    {"status", false, do_status},   {"subscribe", false, do_subscribe},
    {"link", false, do_link},       {"sync", true, do_sync},
    {"protect", false, do_protect}, {"unprotect", false, do_unprotect},
    {"barrier", true, do_barrier},  {"commit", true, do_commit},
    {"promote", true, do_promote},  {"drop", false, do_drop},
    {"leave", false, do_leave},     {"stop", false, do_stop},
};

/* ---- the socket ---- */

/* False: the client is gone. */
static bool serve(struct disk_control *c, struct disk_client *client)
{
    struct request r = {.c = c, .client = client};

    if (!disk_request_serve(&r.q, client->fd, words, sizeof(words) / sizeof(*words))) return false;
    pthread_mutex_lock(&c->lock);
    if (r.q.reply[0]) disk_client_send(client, r.q.reply);
    pthread_mutex_unlock(&c->lock);
    return true;
}

static void release(struct disk_control *c, struct disk_client *client)
{
    pthread_mutex_lock(&c->lock);
    disk_client_release(client);
    pthread_mutex_unlock(&c->lock);
}

static void welcome(struct disk_control *c)
{
    pthread_mutex_lock(&c->lock);
    disk_clients_welcome(&c->clients);
    pthread_mutex_unlock(&c->lock);
}

static void *control_thread(void *arg)
{
    struct disk_control *c = arg;
    struct pollfd p[2 + DISK_CLIENTS_MAX];

    for (;;) {
        p[0] = (struct pollfd){.fd = c->wake_fd, .events = POLLIN};
        p[1] = disk_clients_poll(&c->clients);
        for (int i = 0; i < DISK_CLIENTS_MAX; i++)
            p[2 + i] = (struct pollfd){.fd = c->clients.all[i].fd, .events = POLLIN};
        int limit_ms = disk_clients_limit_ms(&c->clients, -1);
        if (poll(p, 2 + DISK_CLIENTS_MAX, limit_ms) < 0 && errno != EINTR) break;
        if (p[0].revents) break;
        for (int i = 0; i < DISK_CLIENTS_MAX; i++)
            if (p[2 + i].fd >= 0 && p[2 + i].revents && !serve(c, &c->clients.all[i]))
                release(c, &c->clients.all[i]);
        if (p[1].revents) welcome(c);
    }
    return NULL;
}

int disk_control_open(struct disk_control *c, struct disk *d, const char *path)
{
    memset(c, 0, sizeof(*c));
    c->disk = d;
    pthread_mutex_init(&c->lock, NULL);
    int r = disk_clients_open(&c->clients, path);
    c->wake_fd = eventfd(0, EFD_CLOEXEC);
    return c->wake_fd < 0 ? -errno : r;
}

int disk_control_start(struct disk_control *c)
{
    c->disk->event_arg = c;
    c->disk->event = tell_event;
    int r = pthread_create(&c->thread, NULL, control_thread, c);
    c->runs = r == 0;
    return -r;
}

void disk_control_close(struct disk_control *c)
{
    uint64_t one = 1;

    if (c->runs) {
        (void)!write(c->wake_fd, &one, sizeof(one));
        pthread_join(c->thread, NULL);
    }
    c->runs = false;
    if (c->disk) {
        pthread_mutex_lock(&c->disk->lock);
        c->disk->event = NULL;
        pthread_mutex_unlock(&c->disk->lock);
    }
    disk_clients_close(&c->clients);
    if (c->wake_fd >= 0) close(c->wake_fd);
}
