/* SPDX-License-Identifier: LGPL-2.1-only */
#include "fake_xenlight.h"

#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include <libxl_event.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct fake_ctx *fake_of(libxl_ctx *ctx)
{
    return (struct fake_ctx *)ctx;
}

void fake_ctx_init(struct fake_ctx *fake)
{
    int r;

    *fake = (struct fake_ctx){0};
    r = pipe2(fake->source, O_CLOEXEC | O_NONBLOCK);
    assert(!r);
}

void fake_ctx_dispose(struct fake_ctx *fake)
{
    close(fake->source[0]);
    close(fake->source[1]);
}

int libxl_event_check(libxl_ctx *ctx, libxl_event **event_r, uint64_t typemask,
                      libxl_event_predicate *predicate, void *user)
{
    libxl_event event = {.type = LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN, .domid = 99};
    int rc = ERROR_NOT_READY;

    pthread_mutex_lock(&lock);
    if (fake_of(ctx)->ready && typemask >> event.type & 1 &&
        (!predicate || predicate(&event, user))) {
        fake_of(ctx)->ready--;
        *event_r = malloc(sizeof(**event_r));
        **event_r = event;
        rc = 0;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int libxl_osevent_beforepoll(libxl_ctx *ctx, int *nfds_io, struct pollfd *fds, int *timeout_upd,
                             struct timeval now)
{
    int room = *nfds_io;

    *nfds_io = 1;
    if (room < 1) return ERROR_BUFFERFULL;
    fds[0] = (struct pollfd){.fd = fake_of(ctx)->source[0], .events = POLLIN};
    return 0;
}

void libxl_osevent_afterpoll(libxl_ctx *ctx, int nfds, const struct pollfd *fds, struct timeval now)
{
    char c;

    assert(nfds == 1 && fds[0].fd == fake_of(ctx)->source[0]);
    pthread_mutex_lock(&lock);
    fake_of(ctx)->polled++;
    if (fds[0].revents & POLLIN && read(fds[0].fd, &c, 1) == 1) fake_of(ctx)->ready++;
    pthread_mutex_unlock(&lock);
}

void libxl_event_register_callbacks(libxl_ctx *ctx, const libxl_event_hooks *hooks, void *user)
{
    fake_of(ctx)->hooks = hooks;
    fake_of(ctx)->hooks_user = user;
}

int libxl_ao_abort(libxl_ctx *ctx, const libxl_asyncop_how *how)
{
    fake_of(ctx)->aborted++;
    return ERROR_NOTFOUND;
}

int libxl_ctx_free(libxl_ctx *ctx)
{
    fake_of(ctx)->freed++;
    return 0;
}

/* The rest is what ours takes from libxenlight for its events. */

void libxl_event_init(libxl_event *event)
{
    *event = (libxl_event){0};
}

void libxl_event_init_type(libxl_event *event, libxl_event_type type)
{
    event->type = type;
}

void libxl_event_free(libxl_ctx *ctx, libxl_event *event)
{
    free(event);
}
