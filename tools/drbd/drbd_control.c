/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_control.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "disk_request.h"

struct request {
    struct disk_request q;
    struct drbd_control *c;
    struct disk_client *client;
    bool later; /* the reply comes by itself */
};

void drbd_control_event(struct drbd_control *c, const char *text)
{
    disk_clients_event(&c->clients, text);
}

void drbd_control_barrier(struct drbd_control *c, const char *reply)
{
    for (int i = 0; i < DISK_CLIENTS_MAX; i++) {
        if (!c->clients.all[i].waits) continue;
        c->clients.all[i].waits = false;
        disk_client_send(&c->clients.all[i], reply);
    }
}

/* ---- requests ---- */

static struct request *request_of(struct disk_request *q)
{
    return (struct request *)((char *)q - offsetof(struct request, q));
}

static struct drbd_instance *instance_of(struct disk_request *q)
{
    return request_of(q)->c->instance;
}

static void do_status(struct disk_request *q)
{
    char text[DISK_REPLY_MAX];

    drbd_instance_status(instance_of(q), text);
    snprintf(q->reply, sizeof(q->reply), "ok %.*s", (int)sizeof(q->reply) - 4, text);
}

static void do_subscribe(struct disk_request *q)
{
    request_of(q)->client->subscribed = true;
    disk_request_result(q, 0, "");
}

static void do_link(struct disk_request *q)
{
    char why[DRBD_WHY_MAX] = "";
    int in, out;

    if (!disk_request_take_link(q, &in, &out)) return;
    request_of(q)->client->subscribed = true;
    disk_request_result(q, drbd_link_start(instance_of(q), in, out, why), why);
}

static void plain(struct disk_request *q,
                  int (*call)(struct drbd_instance *in, char why[DRBD_WHY_MAX]))
{
    char why[DRBD_WHY_MAX] = "";

    disk_request_result(q, call(instance_of(q), why), why);
}

/* The rate is DRBD's business (resync-rate). */
static void do_sync(struct disk_request *q)
{
    plain(q, drbd_sync);
}

static void do_protect(struct disk_request *q)
{
    plain(q, drbd_protect);
}

static void do_unprotect(struct disk_request *q)
{
    plain(q, drbd_unprotect);
}

static void do_drop(struct disk_request *q)
{
    plain(q, drbd_drop);
}

static int at_checkpoint(struct disk_request *q,
                         int (*call)(struct drbd_instance *in, uint64_t n, char why[DRBD_WHY_MAX]))
{
    char why[DRBD_WHY_MAX] = "";
    uint64_t n;

    if (!disk_request_checkpoint(q, &n)) return -1;
    int r = call(instance_of(q), n, why);
    disk_request_result(q, r, why);
    return r;
}

static void do_barrier(struct disk_request *q)
{
    struct disk_client *client = request_of(q)->client;

    client->waits = true;
    /* 0: the snapshot is on its way, or the answer was given in the meantime. */
    request_of(q)->later = !at_checkpoint(q, drbd_barrier);
    if (!request_of(q)->later) client->waits = false;
}

static void do_commit(struct disk_request *q)
{
    at_checkpoint(q, drbd_commit);
}

static void do_promote(struct disk_request *q)
{
    if (at_checkpoint(q, drbd_promote)) return;
    snprintf(q->reply, sizeof(q->reply), "ok generation=%" PRIu64,
             instance_of(q)->state.generation);
}

static void do_stop(struct disk_request *q)
{
    disk_request_result(q, 0, "");
    request_of(q)->c->stop = true;
}

static void do_leave(struct disk_request *q)
{
    const struct drbd_instance *in = instance_of(q);
    const struct request *r = request_of(q);

    if (in->primary || in->link || disk_clients_others(&r->c->clients, r->client))
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
static bool serve(struct drbd_control *c, struct disk_client *client)
{
    struct request r = {.c = c, .client = client};

    if (!disk_request_serve(&r.q, client->fd, words, sizeof(words) / sizeof(*words))) return false;
    if (!r.later && r.q.reply[0]) disk_client_send(client, r.q.reply);
    return true;
}

void drbd_control_before(const struct drbd_control *c, struct pollfd *p)
{
    for (int i = 0; i < DISK_CLIENTS_MAX; i++)
        p[i] = (struct pollfd){.fd = c->clients.all[i].fd,
                               .events = c->clients.all[i].waits ? 0 : POLLIN};
    p[DISK_CLIENTS_MAX] = disk_clients_poll(&c->clients);
}

void drbd_control_after(struct drbd_control *c, const struct pollfd *p)
{
    for (int i = 0; i < DISK_CLIENTS_MAX; i++) {
        struct disk_client *client = &c->clients.all[i];

        if (p[i].fd < 0 || !p[i].revents) continue;
        /* One whose barrier waits is read only to see its end. */
        if (client->waits ? !(p[i].revents & (POLLHUP | POLLERR)) : serve(c, client)) continue;
        disk_client_release(client);
    }
    if (p[DISK_CLIENTS_MAX].revents) disk_clients_welcome(&c->clients);
}

int drbd_control_open(struct drbd_control *c, struct drbd_instance *in, const char *path)
{
    memset(c, 0, sizeof(*c));
    c->instance = in;
    return disk_clients_open(&c->clients, path);
}

void drbd_control_close(struct drbd_control *c)
{
    disk_clients_close(&c->clients);
}
