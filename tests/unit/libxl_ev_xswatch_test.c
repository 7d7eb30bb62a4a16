/* SPDX-License-Identifier: LGPL-2.1-only */
/* Watches, against a xenstored of our own that knows only XS_WATCH and XS_UNWATCH. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <libxl.h>
#include <xen/io/xs_wire.h>

#include "libxl_ev.h"

static char dir[] = "/tmp/xentwin-xswatch.XXXXXX";
static char socket_path[64];

/* The server runs in a thread; the lock covers its answers and the events that a test sends itself. */
static struct {
    int listener, conn;
    bool refuse;
    pthread_t thread;
    pthread_mutex_t lock;
    char last_token[64];
} server = {.listener = -1, .conn = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

static bool read_all(int fd, void *buf, size_t n)
{
    for (char *p = buf; n;) {
        ssize_t r = read(fd, p, n);

        if (r <= 0) return false;
        p += r;
        n -= r;
    }
    return true;
}

static void send_message(uint32_t type, uint32_t req_id, const void *body, uint32_t len)
{
    struct xsd_sockmsg head = {.type = type, .req_id = req_id, .len = len};
    char message[512];

    memcpy(message, &head, sizeof(head));
    memcpy(message + sizeof(head), body, len);
    if (write(server.conn, message, sizeof(head) + len) < 0) return;
}

/* body is path, NUL, token, NUL, as in the request. */
static void send_event(const char *path, const char *token)
{
    char body[256];
    int n = snprintf(body, sizeof(body), "%s%c%s", path, 0, token) + 1;

    pthread_mutex_lock(&server.lock);
    send_message(XS_WATCH_EVENT, 0, body, n);
    pthread_mutex_unlock(&server.lock);
}

/* The token of the watch that was registered last. */
static const char *last_token(void)
{
    static char token[sizeof(server.last_token)];

    pthread_mutex_lock(&server.lock);
    memcpy(token, server.last_token, sizeof(token));
    pthread_mutex_unlock(&server.lock);
    return token;
}

static void answer(const struct xsd_sockmsg *head, char *body)
{
    const char *token = body + strlen(body) + 1;

    if (server.refuse) {
        send_message(XS_ERROR, head->req_id, "ENOENT", 7);
        return;
    }
    send_message(head->type, head->req_id, "OK", 3);
    if (head->type == XS_WATCH) {
        snprintf(server.last_token, sizeof(server.last_token), "%s", token);
        send_message(XS_WATCH_EVENT, 0, body, head->len);
    }
}

static void *serve(void *arg)
{
    struct xsd_sockmsg head;
    char body[256];
    int conn = accept(server.listener, NULL, NULL);

    pthread_mutex_lock(&server.lock);
    server.conn = conn;
    pthread_mutex_unlock(&server.lock);
    while (read_all(conn, &head, sizeof(head)) && head.len < sizeof(body)) {
        if (!read_all(conn, body, head.len)) break;
        body[head.len] = 0;
        pthread_mutex_lock(&server.lock);
        answer(&head, body);
        pthread_mutex_unlock(&server.lock);
    }
    return NULL;
}

static int setup(void **state)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    libxl__loop *loop;

    server.refuse = false;
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", socket_path);
    unlink(socket_path);
    server.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server.listener, (struct sockaddr *)&sun, sizeof(sun)) || listen(server.listener, 1) ||
        pthread_create(&server.thread, NULL, serve, NULL) || libxl__loop_new(&loop, NULL, NULL))
        return -1;
    *state = loop;
    return 0;
}

static int teardown(void **state)
{
    libxl__loop_free(*state);
    pthread_join(server.thread, NULL);
    close(server.conn);
    close(server.listener);
    return 0;
}

struct watch {
    libxl__ev_xswatch ev;
    int events;
    char watchpath[64], eventpath[64];
    bool stop; /* deregister in the callback */
    bool fired;
};

static void changed(libxl__egc *egc, libxl__ev_xswatch *ev, const char *watchpath,
                    const char *eventpath)
{
    struct watch *w = CONTAINER_OF(ev, struct watch, ev);

    w->events++;
    w->fired = true;
    if (w->stop) libxl__ev_xswatch_deregister(egc->loop, ev);
    snprintf(w->watchpath, sizeof(w->watchpath), "%s", watchpath);
    snprintf(w->eventpath, sizeof(w->eventpath), "%s", eventpath);
}

static void start(libxl__loop *loop, struct watch *w, const char *path)
{
    *w = (struct watch){0};
    libxl__ev_xswatch_init(&w->ev);
    assert_int_equal(libxl__ev_xswatch_register(loop, &w->ev, changed, path), 0);
    assert_int_equal(w->events, 0);
}

static void run_until(libxl__loop *loop, struct watch *w)
{
    w->fired = false;
    assert_int_equal(libxl__loop_run(loop, &w->fired), 0);
}

static void t_watch_first_event_comes_by_itself(void **state)
{
    struct watch w;

    start(*state, &w, "/local/domain/1");
    run_until(*state, &w);
    assert_int_equal(w.events, 1);
    assert_string_equal(w.watchpath, "/local/domain/1");
    assert_string_equal(w.eventpath, "/local/domain/1");
    send_event("/local/domain/1/control/shutdown", last_token());
    run_until(*state, &w);
    assert_string_equal(w.watchpath, "/local/domain/1");
    assert_string_equal(w.eventpath, "/local/domain/1/control/shutdown");
    libxl__ev_xswatch_deregister(*state, &w.ev);
    libxl__ev_xswatch_deregister(*state, &w.ev);
}

static void t_watches_two_events_find_their_owner(void **state)
{
    struct watch a, b;
    char token_a[64];

    start(*state, &a, "/a");
    run_until(*state, &a);
    strcpy(token_a, last_token());
    start(*state, &b, "/b");
    run_until(*state, &b);
    assert_int_equal(a.events, 1);
    send_event("/a/x", token_a);
    run_until(*state, &a);
    assert_int_equal(b.events, 1);
    assert_string_equal(a.eventpath, "/a/x");
    libxl__ev_xswatch_deregister(*state, &a.ev);
    libxl__ev_xswatch_deregister(*state, &b.ev);
}

static void t_watch_deregistered_in_callback_gets_no_more(void **state)
{
    struct watch a, b;
    char token_a[64];

    start(*state, &a, "/a");
    strcpy(token_a, last_token());
    a.stop = true;
    run_until(*state, &a);
    assert_string_equal(a.watchpath, "/a");
    start(*state, &b, "/b");
    send_event("/a/late", token_a);
    send_event("/a/strange", "not-ours");
    send_event("/b/x", last_token());
    while (b.events < 2)
        run_until(*state, &b);
    assert_int_equal(a.events, 1);
    libxl__ev_xswatch_deregister(*state, &b.ev);
}

struct interrupting {
    libxl__ev_time ev;
    struct watch *w;
    int seen_at;
};

static void interrupt(libxl__egc *egc, libxl__ev_time *ev)
{
    struct interrupting *i = CONTAINER_OF(ev, struct interrupting, ev);

    if (i->w->events > 64 && i->w->events < 300) i->seen_at = i->w->events;
    if (i->w->events < 300) libxl__ev_time_register_rel(egc->loop, ev, interrupt, 0);
}

static void t_watch_storm_lets_timers_run_and_loses_nothing(void **state)
{
    struct interrupting i;
    struct watch w;

    start(*state, &w, "/storm");
    run_until(*state, &w);
    for (int n = 1; n < 300; n++)
        send_event("/storm", last_token());
    i = (struct interrupting){.w = &w};
    libxl__ev_time_init(&i.ev);
    libxl__ev_time_register_rel(*state, &i.ev, interrupt, 0);
    while (i.ev.registered)
        assert_int_equal(libxl__loop_once(*state, -1), 0);
    assert_int_equal(w.events, 300);
    assert_true(i.seen_at > 0);
    libxl__ev_xswatch_deregister(*state, &w.ev);
}

static void t_watch_refused_is_not_registered(void **state)
{
    libxl__ev_xswatch ev;

    libxl__ev_xswatch_init(&ev);
    pthread_mutex_lock(&server.lock);
    server.refuse = true;
    pthread_mutex_unlock(&server.lock);
    assert_int_equal(libxl__ev_xswatch_register(*state, &ev, changed, "/x"), ERROR_FAIL);
    libxl__ev_xswatch_deregister(*state, &ev);
}

static void timer_done(libxl__egc *egc, libxl__ev_time *ev)
{
}

static void t_xenstored_dies_timers_go_on(void **state)
{
    libxl__ev_time timer;
    struct watch w;
    int turns = 0;

    start(*state, &w, "/x");
    run_until(*state, &w);
    shutdown(server.conn, SHUT_RDWR);
    libxl__ev_time_init(&timer);
    libxl__ev_time_register_rel(*state, &timer, timer_done, 50);
    for (; timer.registered; turns++)
        assert_int_equal(libxl__loop_once(*state, -1), 0);
    assert_true(turns < 10);
    assert_int_equal(w.events, 1);
    libxl__ev_xswatch_deregister(*state, &w.ev);
}

static void t_no_xenstored_register_fails(void **state)
{
    libxl__ev_xswatch ev;
    libxl__loop *loop;

    setenv("XENSTORED_PATH", "/nonexistent/xenstored", 1);
    assert_int_equal(libxl__loop_new(&loop, NULL, NULL), 0);
    assert_null(libxl__loop_xs(loop));
    libxl__ev_xswatch_init(&ev);
    assert_int_equal(libxl__ev_xswatch_register(loop, &ev, changed, "/x"), ERROR_FAIL);
    libxl__loop_free(loop);
    setenv("XENSTORED_PATH", socket_path, 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    static const struct CMUnitTest tests[] = {
        T(t_watch_first_event_comes_by_itself),
        T(t_watches_two_events_find_their_owner),
        T(t_watch_deregistered_in_callback_gets_no_more),
        T(t_watch_storm_lets_timers_run_and_loses_nothing),
        T(t_watch_refused_is_not_registered),
        T(t_xenstored_dies_timers_go_on),
        cmocka_unit_test(t_no_xenstored_register_fails),
    };
    int r;

    if (!mkdtemp(dir)) return 1;
    snprintf(socket_path, sizeof(socket_path), "%s/socket", dir);
    setenv("XENSTORED_PATH", socket_path, 1);
    alarm(60);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(socket_path);
    rmdir(dir);
    return r;
}
