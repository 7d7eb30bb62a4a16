/* SPDX-License-Identifier: LGPL-2.1-only */
/* Xenstore watches. All watches of a loop share its one xenstore handle; an event finds its owner by the token. */
#include "libxl_ev_loop.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <libxl.h>

/* A guest that writes without pause must not keep the loop from its timers. */
#define EVENTS_PER_TURN 64
#define TOKEN_BYTES 16

static void xs_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents);

void libxl__loop_xs_init(libxl__loop *loop)
{
    libxl__ev_fd_init(&loop->xs_ev);
    libxl__ev_time_init(&loop->xs_more);
}

void libxl__loop_xs_dispose(libxl__loop *loop)
{
    assert(!loop->watches);
    libxl__ev_fd_deregister(loop, &loop->xs_ev);
    libxl__ev_time_deregister(loop, &loop->xs_more);
    if (loop->xs) xs_close(loop->xs);
    loop->xs = NULL;
}

struct xs_handle *libxl__loop_xs(libxl__loop *loop)
{
    if (!loop->xs) {
        loop->xs = xs_open(0);
        if (!loop->xs) LOGE(&loop->gc, ERROR, "cannot connect to xenstore");
    }
    return loop->xs;
}

void libxl__ev_xswatch_init(libxl__ev_xswatch *ev)
{
    *ev = (libxl__ev_xswatch){0};
}

static void make_token(char token[TOKEN_BYTES], uint32_t id)
{
    snprintf(token, TOKEN_BYTES, "xt/%" PRIx32, id);
}

static libxl__ev_xswatch *find_watch(libxl__loop *loop, const char *token)
{
    char wanted[TOKEN_BYTES];

    for (libxl__ev_xswatch *ev = loop->watches; ev; ev = ev->next) {
        make_token(wanted, ev->id);
        if (!strcmp(wanted, token)) return ev;
    }
    return NULL;
}

/* The callback may deregister the watch, which frees its path: it gets a copy. */
static void run_watch(libxl__egc *egc, char **event)
{
    libxl__ev_xswatch *ev = find_watch(egc->loop, event[XS_WATCH_TOKEN]);
    libxl__gc copy;

    /* The last events of a removed watch may still come. */
    if (!ev) return;
    libxl__gc_init(&copy, egc->loop->gc.lg);
    ev->callback(egc, ev, libxl__strdup(&copy, ev->path), event[XS_WATCH_PATH]);
    libxl__gc_dispose(&copy);
}

static void more_events(libxl__egc *egc, libxl__ev_time *ev);

static void run_events(libxl__egc *egc)
{
    libxl__loop *loop = egc->loop;

    for (int n = 0; n < EVENTS_PER_TURN; n++) {
        char **event = xs_check_watch(loop->xs);

        if (!event && errno == EAGAIN) return;
        if (!event) {
            LOGE(&loop->gc, ERROR, "xenstore is gone: no more news from there");
            libxl__ev_fd_deregister(loop, &loop->xs_ev);
            return;
        }
        run_watch(egc, event);
        free(event);
    }
    /* The handle does not become readable again for what it has read already. */
    if (!loop->xs_more.registered)
        libxl__ev_time_register_rel(loop, &loop->xs_more, more_events, 0);
}

static void more_events(libxl__egc *egc, libxl__ev_time *ev)
{
    if (libxl__ev_fd_isregistered(&egc->loop->xs_ev)) run_events(egc);
}

static void xs_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    run_events(egc);
}

int libxl__ev_xswatch_register(libxl__loop *loop, libxl__ev_xswatch *ev,
                               libxl__ev_xswatch_callback *cb, const char *path)
{
    struct xs_handle *xs = libxl__loop_xs(loop);
    size_t path_bytes = strlen(path) + 1;
    char token[TOKEN_BYTES];
    int rc;

    assert(!ev->path && cb);
    if (!xs) return ERROR_FAIL;
    if (!libxl__ev_fd_isregistered(&loop->xs_ev)) {
        rc = libxl__ev_fd_register(loop, &loop->xs_ev, xs_readable, xs_fileno(xs), POLLIN);
        if (rc) return rc;
    }
    ev->id = loop->next_watch_id++;
    make_token(token, ev->id);
    if (!xs_watch(xs, path, token)) {
        LOGE(&loop->gc, ERROR, "cannot watch %s in xenstore", path);
        if (!loop->watches) libxl__ev_fd_deregister(loop, &loop->xs_ev);
        return ERROR_FAIL;
    }
    ev->path = memcpy(libxl__realloc_array(NULL, path_bytes, 1), path, path_bytes);
    ev->callback = cb;
    ev->next = loop->watches;
    loop->watches = ev;
    return 0;
}

void libxl__ev_xswatch_deregister(libxl__loop *loop, libxl__ev_xswatch *ev)
{
    libxl__ev_xswatch **link = &loop->watches;
    char token[TOKEN_BYTES];

    if (!ev->path) return;
    while (*link && *link != ev)
        link = &(*link)->next;
    assert(*link);
    *link = ev->next;
    make_token(token, ev->id);
    if (!xs_unwatch(loop->xs, ev->path, token))
        LOGE(&loop->gc, DEBUG, "cannot remove the watch of %s", ev->path);
    if (!loop->watches) libxl__ev_fd_deregister(loop, &loop->xs_ev);
    free(ev->path);
    libxl__ev_xswatch_init(ev);
}
