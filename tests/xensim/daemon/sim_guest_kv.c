/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's key-value table, in its memory, and the server in front of it: <rundir>/dom<N>.kv, a stream socket.
 *
 *   SET key value -> OK      GET key -> VALUE value, or NONE      TICK -> TICK n
 *
 * One request per line. A guest that stands still answers nobody; what was sent to it waits.
 */
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <xxhash.h>

#include "sim_guest.h"

#define CLIENTS 16
#define KEY_MAX 63
#define VALUE_MAX 183
#define SLOTS_PER_PAGE 16UL
#define PROBES 64U

struct slot {
    char key[KEY_MAX + 1];
    uint64_t used;
    char value[VALUE_MAX + 1];
};
_Static_assert(sizeof(struct slot) * SLOTS_PER_PAGE == SIM_PAGE_SIZE, "slots fill pages");

struct client {
    int fd; /* -1 = free */
    size_t in_len, out_len;
    char in[SIM_KV_LINE], out[SIM_KV_LINE];
};

struct sim_kv {
    int listen_fd;
    char path[108];
    struct client clients[CLIENTS];
};

struct sim_kv *sim_kv_open(uint32_t domid)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct sim_kv *kv = calloc(1, sizeof(*kv));
    unsigned int i;

    if (!kv) return NULL;
    for (i = 0; i < CLIENTS; i++)
        kv->clients[i].fd = -1;
    snprintf(kv->path, sizeof(kv->path), "%s/dom%u.kv", sim_host.rundir, domid);
    memcpy(addr.sun_path, kv->path, sizeof(addr.sun_path));
    unlink(kv->path);
    kv->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (kv->listen_fd >= 0 && !bind(kv->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) &&
        !listen(kv->listen_fd, CLIENTS))
        return kv;
    if (kv->listen_fd >= 0) close(kv->listen_fd);
    free(kv);
    return NULL;
}

static void drop_client(struct client *c)
{
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->in_len = c->out_len = 0;
}

void sim_kv_close(struct sim_kv *kv)
{
    unsigned int i;

    if (!kv) return;
    for (i = 0; i < CLIENTS; i++)
        drop_client(&kv->clients[i]);
    close(kv->listen_fd);
    unlink(kv->path);
    free(kv);
}

static void accept_client(struct sim_kv *kv)
{
    unsigned int i;

    for (i = 0; i < CLIENTS; i++)
        if (kv->clients[i].fd < 0) {
            kv->clients[i].fd = accept4(kv->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
            return;
        }
}

static void read_client(struct client *c)
{
    ssize_t n;

    if (c->in_len == sizeof(c->in)) {
        drop_client(c); /* a line without end */
        return;
    }
    n = read(c->fd, c->in + c->in_len, sizeof(c->in) - c->in_len);
    if (n > 0)
        c->in_len += (size_t)n;
    else if (!n || (errno != EAGAIN && errno != EINTR))
        drop_client(c);
}

void sim_kv_wait(struct sim_kv *kv, int wake_fd, int timeout_ms, bool serve)
{
    struct pollfd fds[CLIENTS + 2];
    uint64_t woken;
    unsigned int i;

    fds[0] = (struct pollfd){.fd = wake_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = serve ? kv->listen_fd : -1, .events = POLLIN};
    for (i = 0; i < CLIENTS; i++) {
        const struct client *c = &kv->clients[i];

        /* One request at a time: the next is read when the answer is out. */
        fds[i + 2] = (struct pollfd){
            .fd = serve && !c->out_len && !memchr(c->in, '\n', c->in_len) ? c->fd : -1,
            .events = POLLIN};
    }
    if (poll(fds, CLIENTS + 2, timeout_ms) <= 0) return;
    if (fds[0].revents && read(wake_fd, &woken, sizeof(woken)) < 0) return;
    if (fds[1].revents) accept_client(kv);
    for (i = 0; i < CLIENTS; i++)
        if (fds[i + 2].revents) read_client(&kv->clients[i]);
}

static struct slot *slot_at(struct sim_domain *d, const struct sim_guest_state *s, uint64_t i,
                            uint64_t *gfn)
{
    struct slot *page;

    *gfn = sim_guest_gfn(SIM_KV_GFN + i / SLOTS_PER_PAGE, s->stride);
    page = sim_memory_page(&d->mem, *gfn);
    return page ? page + i % SLOTS_PER_PAGE : NULL;
}

/* The key's slot, or the free one for it; NULL when there is none. */
static struct slot *find(struct sim_domain *d, const struct sim_guest_state *s, const char *key,
                         uint64_t *gfn)
{
    uint64_t at = XXH3_64bits(key, strlen(key));
    unsigned int i;

    for (i = 0; s->kv_slots && i < PROBES; i++) {
        struct slot *slot = slot_at(d, s, (at + i) % s->kv_slots, gfn);

        if (!slot) return NULL;
        if (!slot->used || !strncmp(slot->key, key, sizeof(slot->key))) return slot;
    }
    return NULL;
}

static void set(struct sim_domain *d, struct sim_guest_state *s, const char *key, const char *value,
                char *answer)
{
    uint64_t gfn;
    struct slot *slot = find(d, s, key, &gfn);

    if (!slot) {
        strcpy(answer, "FULL\n");
        return;
    }
    snprintf(slot->key, sizeof(slot->key), "%s", key);
    snprintf(slot->value, sizeof(slot->value), "%s", value);
    slot->used = 1;
    s->kv_writes++;
    sim_memory_mark(&d->mem, gfn);
    sim_memory_mark(&d->mem, d->cpu.rbx >> SIM_PAGE_SHIFT);
    strcpy(answer, "OK\n");
}

static void get(struct sim_domain *d, const struct sim_guest_state *s, const char *key,
                char *answer)
{
    uint64_t gfn;
    const struct slot *slot = find(d, s, key, &gfn);

    if (slot && slot->used)
        snprintf(answer, SIM_KV_LINE, "VALUE %.*s\n", VALUE_MAX, slot->value);
    else
        strcpy(answer, "NONE\n");
}

void sim_kv_execute(struct sim_domain *d, char *line, char *answer)
{
    struct sim_guest_state *s = sim_guest_state(d);
    char *save = NULL, *word = strtok_r(line, " ", &save), *key = strtok_r(NULL, " ", &save),
         *value = strtok_r(NULL, "", &save);
    bool key_ok = key && strlen(key) <= KEY_MAX;

    if (word && !strcmp(word, "SET") && key_ok && value && strlen(value) <= VALUE_MAX)
        set(d, s, key, value, answer);
    else if (word && !strcmp(word, "GET") && key_ok && !value)
        get(d, s, key, answer);
    else if (word && !strcmp(word, "TICK") && !key)
        snprintf(answer, SIM_KV_LINE, "TICK %lu\n", (unsigned long)s->ticks);
    else
        strcpy(answer, "WHAT\n");
}

void sim_kv_work(struct sim_kv *kv, struct sim_domain *d)
{
    unsigned int i;

    for (i = 0; i < CLIENTS; i++) {
        struct client *c = &kv->clients[i];
        char *end = c->out_len ? NULL : memchr(c->in, '\n', c->in_len);

        if (c->fd < 0 || !end) continue;
        *end++ = 0;
        sim_kv_execute(d, c->in, c->out);
        c->out_len = strlen(c->out);
        c->in_len -= (size_t)(end - c->in);
        memmove(c->in, end, c->in_len);
    }
}

void sim_kv_answer(struct sim_kv *kv)
{
    unsigned int i;

    for (i = 0; i < CLIENTS; i++) {
        struct client *c = &kv->clients[i];
        ssize_t n = c->fd >= 0 && c->out_len ? send(c->fd, c->out, c->out_len, MSG_NOSIGNAL) : 0;

        if (n > 0) {
            c->out_len -= (size_t)n;
            memmove(c->out, c->out + n, c->out_len);
        } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
            drop_client(c);
        }
    }
}
