/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Runs in dom0: one unacknowledged protection of a real guest through the 4.17 call libxl_domain_remus_start, asynchronously.
 *
 *   ao_live event|callback DOMID SECONDS
 *
 * The stream goes into a pipe that a thread empties. After SECONDS the operation is aborted by libxl_ao_abort. Prints one
 * line "completed WAY rc N bytes N times N"; exit 0 when it completed exactly once, with the rc of an end on purpose.
 */
#include <libxl.h>
#include <libxl_event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xentoollog.h>

#define FOR_EVENT 0x7877ull

static libxl_ctx *ctx;
static libxl_asyncop_how how;
static atomic_ulong bytes;
static atomic_int times, result;

static void *drain(void *arg)
{
    static char buf[1 << 16];
    int fd = *(int *)arg;
    ssize_t n;

    while ((n = read(fd, buf, sizeof(buf))) > 0)
        atomic_fetch_add(&bytes, (unsigned long)n);
    return NULL;
}

static void *abort_later(void *arg)
{
    int rc;

    sleep(*(unsigned *)arg);
    rc = libxl_ao_abort(ctx, &how);
    printf("abort: %d\n", rc);
    fflush(stdout);
    return NULL;
}

static void completed(libxl_ctx *c, int rc, void *for_callback)
{
    (void)c;
    if (for_callback != &how) exit(1);
    atomic_store(&result, rc);
    atomic_fetch_add(&times, 1);
}

static int wait_for_event(void)
{
    libxl_event *ev;
    int rc;

    while (!atomic_load(&times)) {
        rc = libxl_event_wait(ctx, &ev, LIBXL_EVENTMASK_ALL, NULL, NULL);
        if (rc) return rc;
        if (ev->type == LIBXL_EVENT_TYPE_OPERATION_COMPLETE && ev->for_user == FOR_EVENT)
            completed(ctx, ev->u.operation_complete.rc, &how);
        libxl_event_free(ctx, ev);
    }
    return 0;
}

/* libxl_event_wait does not return for a callback: it comes on a thread of the library. */
static int wait_for_callback(void)
{
    while (!atomic_load(&times))
        usleep(10000);
    return 0;
}

static int start(uint32_t domid, int fd)
{
    libxl_domain_remus_info info;
    int rc;

    libxl_domain_remus_info_init(&info);
    info.interval = 200;
    libxl_defbool_set(&info.allow_unsafe, true);
    libxl_defbool_set(&info.netbuf, false);
    libxl_defbool_set(&info.diskbuf, false);
    libxl_defbool_set(&info.compression, false);
    rc = libxl_domain_remus_start(ctx, &info, domid, fd, -1, &how);
    libxl_domain_remus_info_dispose(&info);
    return rc;
}

int main(int argc, char **argv)
{
    xentoollog_logger_stdiostream *lg = xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    bool event = argc == 4 && !strcmp(argv[1], "event");
    pthread_t drainer, aborter;
    unsigned seconds;
    int fds[2], rc;

    if (argc != 4 || (!event && strcmp(argv[1], "callback"))) {
        fputs("usage: ao_live event|callback DOMID SECONDS\n", stderr);
        return 2;
    }
    seconds = (unsigned)atoi(argv[3]);
    signal(SIGPIPE, SIG_IGN);
    if (!lg || libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, (xentoollog_logger *)lg) || pipe(fds))
        return 1;
    if (event) {
        how.u.for_event = FOR_EVENT;
    } else {
        how.callback = completed;
        how.u.for_callback = &how;
    }
    if (pthread_create(&drainer, NULL, drain, &fds[0])) return 1;
    rc = start((uint32_t)atoi(argv[2]), fds[1]);
    if (!rc && !pthread_create(&aborter, NULL, abort_later, &seconds)) {
        rc = event ? wait_for_event() : wait_for_callback();
        pthread_join(aborter, NULL);
    }
    close(fds[1]);
    pthread_join(drainer, NULL);
    printf("completed %s rc %d bytes %lu times %d\n", argv[1], rc ? rc : atomic_load(&result),
           atomic_load(&bytes), atomic_load(&times));
    libxl_ctx_free(ctx);
    xtl_logger_destroy((xentoollog_logger *)lg);
    return rc || atomic_load(&result) || atomic_load(&times) != 1 || !atomic_load(&bytes);
}
