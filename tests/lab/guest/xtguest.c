/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The test guest's only program: a key-value server on TCP and UDP port 7000
 * with all its data in memory, a tick counter, a memory dirtier and a sender of
 * unasked packets. One thread, one epoll loop; nothing here waits elsewhere.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "chatter.h"
#include "commands.h"
#include "dirtier.h"
#include "kv.h"
#include "screen.h"

enum { PORT = 7000, CLIENTS_MAX = 256, EVENTS_MAX = 32 };
enum { IN_BYTES = 4096, OUT_BYTES = 8192, STEP_MS = 10, STEPS_PER_TICK = 10 };

struct client {
    int fd;
    size_t in_used, out_used;
    size_t dump_next; /* the next entry of a running DUMP */
    bool dumping, closing;
    char in[IN_BYTES], out[OUT_BYTES];
};

static int epoll_fd = -1, tcp_fd = -1, udp_fd = -1, timer_fd = -1;
static struct client *clients[CLIENTS_MAX];
static enum action last_action;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void watch_fd(int fd, void *tag, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = tag};

    if (epoll_ctl(epoll_fd, operation, fd, &event)) fail("epoll_ctl");
}

static int open_server(int type)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    int on = 1, off = 0, fd;

    fd = socket(AF_INET6, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, (struct sockaddr *)&any, sizeof(any))) fail("bind");
    if (type == SOCK_STREAM && listen(fd, CLIENTS_MAX)) fail("listen");
    return fd;
}

static void client_close(struct client *c)
{
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (clients[i] == c) clients[i] = NULL;
    close(c->fd);
    free(c);
}

/* A dead client must not hold its place for ever. */
static void set_client_options(int fd)
{
    int on = 1, idle_s = 30, every_s = 10, probes = 6;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof(every_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static void accept_client(void)
{
    int fd = accept4(tcp_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    struct client *c;

    if (fd < 0) return;
    for (int i = 0; i < CLIENTS_MAX; i++) {
        if (clients[i]) continue;
        c = calloc(1, sizeof(*c));
        if (!c) break;
        c->fd = fd;
        clients[i] = c;
        set_client_options(fd);
        watch_fd(fd, c, EPOLLIN, EPOLL_CTL_ADD);
        return;
    }
    close(fd);
}

/* Appends entries of a DUMP while they fit; the rest follows when there is room. */
static void dump_more(struct client *c)
{
    const struct kv_entry *entry;

    while (c->dumping && OUT_BYTES - c->out_used > LINE_BYTES_MAX) {
        if (c->dump_next == kv_count()) {
            c->dumping = false;
            c->out_used += (size_t)sprintf(c->out + c->out_used, "END\n");
            return;
        }
        entry = kv_at(c->dump_next++);
        c->out_used += (size_t)snprintf(c->out + c->out_used, LINE_BYTES_MAX, "%s %s\n",
                                        entry->text, kv_entry_value(entry));
    }
}

static void client_line(struct client *c, char *line)
{
    enum action action = command_run(line, c->out + c->out_used);

    c->out_used += strlen(c->out + c->out_used);
    if (action == ACTION_QUIT) c->closing = true;
    if (action == ACTION_DUMP) {
        c->dumping = true;
        c->dump_next = 0;
        dump_more(c);
    }
    if (action == ACTION_POWEROFF || action == ACTION_REBOOT) last_action = action;
}

/* Carries out the complete lines in the buffer as long as answers fit. */
static void client_lines(struct client *c)
{
    char *line = c->in, *end;

    while (!c->closing && !c->dumping && OUT_BYTES - c->out_used > LINE_BYTES_MAX) {
        end = memchr(line, '\n', c->in_used - (size_t)(line - c->in));
        if (!end) break;
        *end = '\0';
        client_line(c, line);
        line = end + 1;
    }
    c->in_used -= (size_t)(line - c->in);
    memmove(c->in, line, c->in_used);
    if (c->in_used == IN_BYTES && !memchr(c->in, '\n', c->in_used))
        c->closing = true; /* no line is that long */
}

/* Sends what is waiting; false when the connection is finished. */
static bool client_flush(struct client *c)
{
    ssize_t sent = 0;

    if (c->out_used) sent = send(c->fd, c->out, c->out_used, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    c->out_used -= (size_t)sent;
    memmove(c->out, c->out + sent, c->out_used);
    return c->out_used || !c->closing;
}

static void client_event(struct client *c)
{
    ssize_t got = 0;
    uint32_t wanted = 0;

    if (c->in_used < IN_BYTES) {
        got = recv(c->fd, c->in + c->in_used, IN_BYTES - c->in_used, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
            client_close(c);
            return;
        }
        if (got > 0) c->in_used += (size_t)got;
    }
    do {
        dump_more(c);
        client_lines(c);
        if (!client_flush(c)) {
            client_close(c);
            return;
        }
        /* What did not fit before the flush has no event of its own. */
    } while (!c->out_used && (c->dumping || memchr(c->in, '\n', c->in_used)));
    if (c->out_used || c->dumping) wanted |= EPOLLOUT;
    if (c->in_used < IN_BYTES) wanted |= EPOLLIN;
    watch_fd(c->fd, c, wanted, EPOLL_CTL_MOD);
}

static void udp_event(void)
{
    char line[LINE_BYTES_MAX + 1], answer[LINE_BYTES_MAX];
    struct sockaddr_in6 from;
    socklen_t from_size = sizeof(from);
    enum action action;
    ssize_t got;

    got = recvfrom(udp_fd, line, sizeof(line) - 1, 0, (struct sockaddr *)&from, &from_size);
    if (got <= 0) return;
    line[got] = '\0';
    line[strcspn(line, "\n")] = '\0';
    action = command_run(line, answer);
    if (action == ACTION_DUMP) strcpy(answer, "ERR DUMP needs TCP\n");
    if (action == ACTION_POWEROFF || action == ACTION_REBOOT) last_action = action;
    if (*answer)
        (void)sendto(udp_fd, answer, strlen(answer), 0, (struct sockaddr *)&from, from_size);
}

/* One tick per tenth step, not per elapsed time: the counter is guest state. */
static void timer_event(void)
{
    static unsigned int step;
    uint64_t expired, now = now_ns();

    if (read(timer_fd, &expired, sizeof(expired)) != sizeof(expired)) return;
    if (++step % STEPS_PER_TICK == 0) guest_tick++;
    dirtier_run(now);
    screen_run(now);
    chatter_run(now, guest_tick);
}

static void choose_id(void)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    struct timespec ts;

    if (fd < 0 || read(fd, &guest_id, sizeof(guest_id)) != sizeof(guest_id)) fail("/dev/urandom");
    close(fd);
    clock_gettime(CLOCK_REALTIME, &ts);
    guest_id ^= (uint64_t)ts.tv_nsec << 20 ^ (uint64_t)ts.tv_sec;
}

static void set_up(void)
{
    struct itimerspec every = {.it_interval.tv_nsec = STEP_MS * 1000000,
                               .it_value.tv_nsec = STEP_MS * 1000000};

    signal(SIGPIPE, SIG_IGN);
    choose_id();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (epoll_fd < 0 || timer_fd < 0 || timerfd_settime(timer_fd, 0, &every, NULL)) fail("timer");
    tcp_fd = open_server(SOCK_STREAM);
    udp_fd = open_server(SOCK_DGRAM);
    watch_fd(tcp_fd, &tcp_fd, EPOLLIN, EPOLL_CTL_ADD);
    watch_fd(udp_fd, &udp_fd, EPOLLIN, EPOLL_CTL_ADD);
    watch_fd(timer_fd, &timer_fd, EPOLLIN, EPOLL_CTL_ADD);
    dirtier_run(now_ns());
}

int main(void)
{
    struct epoll_event events[EVENTS_MAX];
    int n;

    set_up();
    printf("xtguest: ready\n");
    fflush(stdout);
    while (last_action == ACTION_NONE) {
        n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (n < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < n; i++) {
            void *tag = events[i].data.ptr;

            if (tag == &tcp_fd)
                accept_client();
            else if (tag == &udp_fd)
                udp_event();
            else if (tag == &timer_fd)
                timer_event();
            else
                client_event(tag);
        }
    }
    /* The answer is on its way; the kernel needs a moment to send it. */
    usleep(300000);
    reboot(last_action == ACTION_POWEROFF ? RB_POWER_OFF : RB_AUTOBOOT);
    return 1;
}
