/* SPDX-License-Identifier: LGPL-2.1-only */
#include "xl_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct xl_writer {
    pthread_t thread;
    pthread_mutex_t lock; /* never held while it writes */
    pthread_cond_t work, ended;
    int fd;
    bool owned;
    bool stop, done;
    bool abandoned; /* the thread frees all */
    int error;
    size_t room, head, used; /* a ring in bytes[] */
    char bytes[];
};

static void dispose(struct xl_writer *w)
{
    if (w->owned) close(w->fd);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->ended);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static ssize_t write_some(int fd, const char *bytes, size_t len)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    ssize_t r;

    while ((r = write(fd, bytes, len)) < 0) {
        /* Somebody we share it with made it non-blocking. */
        if (errno == EAGAIN)
            poll(&p, 1, -1);
        else if (errno != EINTR)
            break;
    }
    return r;
}

/* Called with the lock held; what waits stays where it is while the lock is not. */
static void write_front(struct xl_writer *w)
{
    size_t len = w->used < w->room - w->head ? w->used : w->room - w->head;
    ssize_t r;

    pthread_mutex_unlock(&w->lock);
    r = write_some(w->fd, w->bytes + w->head, len);
    pthread_mutex_lock(&w->lock);
    if (r < 0) {
        w->error = errno;
        w->used = 0;
        return;
    }
    w->head = (w->head + (size_t)r) % w->room;
    w->used -= (size_t)r;
}

static void *run(void *arg)
{
    struct xl_writer *w = arg;
    bool abandoned;

    pthread_mutex_lock(&w->lock);
    while (w->used || !w->stop) {
        if (w->used)
            write_front(w);
        else
            pthread_cond_wait(&w->work, &w->lock);
    }
    w->done = true;
    abandoned = w->abandoned;
    pthread_cond_signal(&w->ended);
    pthread_mutex_unlock(&w->lock);
    if (abandoned) dispose(w);
    return NULL;
}

static int start(struct xl_writer *w)
{
    sigset_t all, before;
    int r;

    /* Signals are for the threads that know what to do with them. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

struct xl_writer *xl_writer_new(int fd, size_t room, bool owned)
{
    struct xl_writer *w = calloc(1, sizeof(*w) + room);
    pthread_condattr_t attr;
    int r;

    if (!w) return NULL;
    w->fd = fd;
    w->room = room;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->work, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->ended, &attr);
    pthread_condattr_destroy(&attr);
    r = start(w);
    if (r) {
        dispose(w);
        errno = r;
        return NULL;
    }
    w->owned = owned;
    return w;
}

bool xl_writer_put(struct xl_writer *w, const void *bytes, size_t len)
{
    bool ok;

    pthread_mutex_lock(&w->lock);
    ok = !w->error && len <= w->room - w->used;
    if (ok) {
        size_t tail = (w->head + w->used) % w->room;
        size_t first = len < w->room - tail ? len : w->room - tail;

        memcpy(w->bytes + tail, bytes, first);
        memcpy(w->bytes, (const char *)bytes + first, len - first);
        w->used += len;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    return ok;
}

bool xl_writer_idle(struct xl_writer *w)
{
    bool idle;

    pthread_mutex_lock(&w->lock);
    idle = !w->used;
    pthread_mutex_unlock(&w->lock);
    return idle;
}

int xl_writer_error(struct xl_writer *w)
{
    int error;

    pthread_mutex_lock(&w->lock);
    error = w->error;
    pthread_mutex_unlock(&w->lock);
    return error;
}

int xl_writer_end(struct xl_writer *w, int limit_ms)
{
    pthread_t thread = w->thread;
    struct timespec until;
    bool done;
    int r = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += limit_ms % 1000 * 1000000L;
    until.tv_sec += limit_ms / 1000 + until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->work);
    while (!w->done && r != ETIMEDOUT)
        r = pthread_cond_timedwait(&w->ended, &w->lock, &until);
    done = w->done;
    w->abandoned = !done;
    r = w->error;
    pthread_mutex_unlock(&w->lock);
    if (!done) {
        pthread_detach(thread);
        return ETIMEDOUT;
    }
    pthread_join(thread, NULL);
    dispose(w);
    return r;
}
