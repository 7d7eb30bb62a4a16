/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The load command. Write n stores the key k<run>-<n>. Requests carry the tag n
 * and answers return it, so answers may come late, twice or never, over TCP and
 * UDP alike. A write whose answer is lost is never repeated: the next has a new key.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kvclient.h"

enum { WRITES_MAX = 10000000, OUTSTANDING_MAX = 512, DRAIN_S = 3 };
/* Silence after which further connections are tried, one every second. */
enum { STALL_S = 3, CANDIDATES_MAX = 6, CANDIDATE_EVERY_S = 1 };

struct load {
    struct options *opt;
    int fd, log_fd;
    struct {
        int fd;
        uint64_t started_ns;
    } candidate[CANDIDATES_MAX];
    uint64_t run, sent, acked, sent_base, acked_base;
    uint64_t start_ns, heard_ns, last_ack_ns, gap_ns, tried_ns;
    unsigned char *done; /* one bit per write: already logged */
    struct reader in;
};

static volatile sig_atomic_t stop;

static void on_signal(int sig)
{
    (void)sig;
    stop = 1;
}

static uint64_t value_of(uint64_t run, uint64_t n)
{
    uint64_t x = run * 0x9e3779b97f4a7c15u + n;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    return x ^ (x >> 27);
}

static void close_candidates(struct load *l)
{
    for (int i = 0; i < CANDIDATES_MAX; i++) {
        if (l->candidate[i].fd >= 0) close(l->candidate[i].fd);
        l->candidate[i].fd = -1;
    }
}

static void use_connection(struct load *l, int fd)
{
    if (l->fd >= 0) close(l->fd);
    l->fd = fd;
    l->in.used = 0;
    l->heard_ns = now_ns();
    l->sent_base = l->sent;
    l->acked_base = l->acked;
}

/* While the connection is silent, tries new ones; the first that stands is used. */
static void tend_candidates(struct load *l, uint64_t now)
{
    bool silent = l->fd < 0 || (l->sent - l->sent_base > l->acked - l->acked_base &&
                                now - l->heard_ns > (uint64_t)STALL_S * NS_PER_S);

    if (!silent) {
        close_candidates(l);
        return;
    }
    for (int i = 0; i < CANDIDATES_MAX; i++) {
        if (l->candidate[i].fd < 0) {
            if (now - l->tried_ns < (uint64_t)CANDIDATE_EVERY_S * NS_PER_S) continue;
            l->tried_ns = now;
            l->candidate[i].fd = start_connect();
            l->candidate[i].started_ns = now;
        } else if (now - l->candidate[i].started_ns > (uint64_t)CONNECT_LIFE_S * NS_PER_S) {
            close(l->candidate[i].fd);
            l->candidate[i].fd = -1;
        }
    }
}

static void candidate_ready(struct load *l, int i)
{
    int error = 0, fd = l->candidate[i].fd;
    socklen_t size = sizeof(error);

    l->candidate[i].fd = -1;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
        close(fd);
        return;
    }
    close_candidates(l);
    use_connection(l, fd);
}

static void send_write(struct load *l)
{
    char line[LINE_BYTES];
    uint64_t n = l->sent;
    int size;

    size =
        snprintf(line, sizeof(line), "#%" PRIu64 " SET k%" PRIx64 "-%" PRIu64 " v%016" PRIx64 "\n",
                 n, l->run, n, value_of(l->run, n));
    l->sent++;
    if (l->fd < 0 || send(l->fd, line, (size_t)size, MSG_NOSIGNAL) == size) return;
    if (errno == EAGAIN || l->opt->udp) return;
    close(l->fd);
    l->fd = -1;
}

/* Logs one acknowledged write; the same answer twice counts once. */
static void take_answer(struct load *l, const char *line)
{
    char record[LINE_BYTES];
    uint64_t n, seq, now = now_ns();
    int size;

    if (sscanf(line, "#%" SCNu64 " OK %" SCNu64, &n, &seq) != 2 || n >= l->sent) return;
    if (l->done[n / 8] & 1u << n % 8) return;
    l->done[n / 8] |= (unsigned char)(1u << n % 8);
    size = snprintf(record, sizeof(record),
                    "%" PRIu64 " k%" PRIx64 "-%" PRIu64 " v%016" PRIx64 " %" PRIu64 "\n", now,
                    l->run, n, value_of(l->run, n), seq);
    if (write(l->log_fd, record, (size_t)size) != size)
        quit(1, "cannot write '%s': %s", l->opt->log, strerror(errno));
    if (l->acked && now - l->last_ack_ns > l->gap_ns) l->gap_ns = now - l->last_ack_ns;
    l->last_ack_ns = now;
    l->acked++;
}

static void take_answers(struct load *l)
{
    char *line;
    int r = read_more(l->fd, &l->in);

    if (r < 0 && !l->opt->udp) {
        close(l->fd);
        l->fd = -1;
        return;
    }
    if (r > 0) l->heard_ns = now_ns();
    while ((line = next_line(&l->in)))
        take_answer(l, line);
}

static void wait_for_events(struct load *l, int timeout_ms)
{
    struct pollfd fds[CANDIDATES_MAX + 1];

    fds[0] = (struct pollfd){.fd = l->fd, .events = POLLIN};
    for (int i = 0; i < CANDIDATES_MAX; i++)
        fds[i + 1] = (struct pollfd){.fd = l->candidate[i].fd, .events = POLLOUT};
    if (poll(fds, CANDIDATES_MAX + 1, timeout_ms) <= 0) return;
    if (fds[0].revents) take_answers(l);
    for (int i = 0; i < CANDIDATES_MAX; i++)
        if (fds[i + 1].revents && l->candidate[i].fd == fds[i + 1].fd) candidate_ready(l, i);
}

static void show_progress(struct load *l, uint64_t now)
{
    static uint64_t last_ns;
    bool terminal = isatty(STDERR_FILENO);

    if (now - last_ns < (terminal ? 1u : 10u) * (uint64_t)NS_PER_S) return;
    last_ns = now;
    fprintf(stderr, "%skvclient: %" PRIu64 " s, sent %" PRIu64 ", acknowledged %" PRIu64 "%s",
            terminal ? "\r" : "", (now - l->start_ns) / NS_PER_S, l->sent, l->acked,
            terminal ? "  " : "\n");
}

/* Writes are due by the clock; what falls into a black-out is not made up for. */
static void load_step(struct load *l, uint64_t *due_ns, bool draining)
{
    uint64_t now = now_ns(), period = NS_PER_S / l->opt->rate;
    bool room = l->opt->udp ||
                (l->fd >= 0 && l->sent - l->sent_base < l->acked - l->acked_base + OUTSTANDING_MAX);

    if (!l->opt->udp) tend_candidates(l, now);
    while (!draining && now >= *due_ns && l->sent < WRITES_MAX) {
        if (room) send_write(l);
        *due_ns += period;
        if (now > *due_ns + NS_PER_S) *due_ns = now;
    }
    show_progress(l, now);
    wait_for_events(l, draining || *due_ns > now + 50 * NS_PER_MS ? 50 : 5);
}

static void load_open(struct load *l, struct options *opt)
{
    l->opt = opt;
    l->fd = -1;
    for (int i = 0; i < CANDIDATES_MAX; i++)
        l->candidate[i].fd = -1;
    l->log_fd = open(opt->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (l->log_fd < 0) quit(1, "cannot open '%s': %s", opt->log, strerror(errno));
    l->done = calloc(WRITES_MAX / 8 + 1, 1);
    if (!l->done) quit(1, "out of memory");
    l->start_ns = now_ns();
    l->run = l->start_ns / NS_PER_MS;
    if (opt->udp) l->fd = start_connect();
}

int cmd_load(struct options *opt)
{
    static struct load l;
    struct sigaction act = {.sa_handler = on_signal};
    uint64_t due_ns, end_ns;

    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    load_open(&l, opt);
    due_ns = l.start_ns;
    end_ns = opt->seconds ? l.start_ns + (uint64_t)opt->seconds * NS_PER_S : UINT64_MAX;
    while (!stop && now_ns() < end_ns)
        load_step(&l, &due_ns, false);
    end_ns = now_ns() + (uint64_t)DRAIN_S * NS_PER_S;
    while (now_ns() < end_ns && l.acked - l.acked_base < l.sent - l.sent_base)
        load_step(&l, &due_ns, true);
    if (isatty(STDERR_FILENO)) fputc('\n', stderr);
    printf("sent %" PRIu64 " acknowledged %" PRIu64 " longest gap %.3f s\n", l.sent, l.acked,
           (double)l.gap_ns / NS_PER_S);
    return 0;
}
