/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Client of the test guest's key-value server.
 *
 *   load    writes ever new keys and logs every acknowledged write
 *   verify  reads every acknowledged key back
 *   cmd     sends one line and prints the answer
 *   gap     prints the longest time without an acknowledgement
 *
 * Write n stores the key k<run>-<n>. Requests carry the tag n, answers return it,
 * so answers may come late, twice or never, over TCP and UDP alike. A write whose
 * answer is lost is never repeated: the next write has a new key.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT "7000"
#define NS_PER_S 1000000000u
#define NS_PER_MS 1000000u

enum { IN_BYTES = 65536, LINE_BYTES = 512, WRITES_MAX = 10000000 };
/* Silence after which further connections are tried, one every second. */
enum { STALL_S = 3, CANDIDATES_MAX = 6, CANDIDATE_EVERY_S = 1, CANDIDATE_LIFE_S = 5 };
enum { OUTSTANDING_MAX = 512, DRAIN_S = 3, VERIFY_BATCH = 50 };

struct options {
    const char *host, *log, *line;
    unsigned int rate, seconds, timeout_s;
    bool udp;
};

struct reader {
    char data[IN_BYTES];
    size_t used;
};

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

static struct addrinfo *server;
static volatile sig_atomic_t stop;

static void __attribute__((noreturn, format(printf, 2, 3))) quit(int status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("kvclient: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(status);
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

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

static void resolve(const struct options *opt)
{
    struct addrinfo hints = {.ai_socktype = opt->udp ? SOCK_DGRAM : SOCK_STREAM};
    int r = getaddrinfo(opt->host, PORT, &hints, &server);

    if (r)
        quit(1, "'%s' is not a usable address: %s", opt->host, gai_strerror(r));
}

/* A socket on its way to the server, or -1. */
static int start_connect(void)
{
    int on = 1, fd;

    fd = socket(server->ai_family, server->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        quit(1, "socket: %s", strerror(errno));
    if (server->ai_socktype == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, server->ai_addr, server->ai_addrlen) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Takes the next whole line out of the reader, or NULL. Valid until the next call. */
static char *next_line(struct reader *in)
{
    static char line[LINE_BYTES];
    char *end = memchr(in->data, '\n', in->used);
    size_t size;

    if (!end) {
        if (in->used == IN_BYTES)
            quit(1, "the server sent a line of more than %d bytes", IN_BYTES);
        return NULL;
    }
    size = (size_t)(end - in->data);
    memcpy(line, in->data, size < LINE_BYTES ? size : LINE_BYTES - 1);
    line[size < LINE_BYTES ? size : LINE_BYTES - 1] = '\0';
    in->used -= size + 1;
    memmove(in->data, end + 1, in->used);
    return line;
}

/* Reads what is there. 1 on data, 0 on nothing yet, -1 when the connection is gone. */
static int read_more(int fd, struct reader *in)
{
    ssize_t got = recv(fd, in->data + in->used, IN_BYTES - in->used, 0);

    if (got > 0) {
        in->used += (size_t)got;
        return 1;
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* ---- load ---- */

static void close_candidates(struct load *l)
{
    for (int i = 0; i < CANDIDATES_MAX; i++) {
        if (l->candidate[i].fd >= 0)
            close(l->candidate[i].fd);
        l->candidate[i].fd = -1;
    }
}

static void use_connection(struct load *l, int fd)
{
    if (l->fd >= 0)
        close(l->fd);
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
            if (now - l->tried_ns < (uint64_t)CANDIDATE_EVERY_S * NS_PER_S)
                continue;
            l->tried_ns = now;
            l->candidate[i].fd = start_connect();
            l->candidate[i].started_ns = now;
        } else if (now - l->candidate[i].started_ns > (uint64_t)CANDIDATE_LIFE_S * NS_PER_S) {
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

    size = snprintf(line, sizeof(line), "#%" PRIu64 " SET k%" PRIx64 "-%" PRIu64 " v%016" PRIx64 "\n",
                    n, l->run, n, value_of(l->run, n));
    l->sent++;
    if (l->fd < 0 || send(l->fd, line, (size_t)size, MSG_NOSIGNAL) == size)
        return;
    if (errno == EAGAIN || l->opt->udp)
        return;
    close(l->fd);
    l->fd = -1;
}

/* Logs one acknowledged write; the same answer twice counts once. */
static void take_answer(struct load *l, const char *line)
{
    char record[LINE_BYTES];
    uint64_t n, seq, now = now_ns();
    int size;

    if (sscanf(line, "#%" SCNu64 " OK %" SCNu64, &n, &seq) != 2 || n >= l->sent)
        return;
    if (l->done[n / 8] & 1u << n % 8)
        return;
    l->done[n / 8] |= (unsigned char)(1u << n % 8);
    size = snprintf(record, sizeof(record),
                    "%" PRIu64 " k%" PRIx64 "-%" PRIu64 " v%016" PRIx64 " %" PRIu64 "\n", now,
                    l->run, n, value_of(l->run, n), seq);
    if (write(l->log_fd, record, (size_t)size) != size)
        quit(1, "cannot write '%s': %s", l->opt->log, strerror(errno));
    if (l->acked && now - l->last_ack_ns > l->gap_ns)
        l->gap_ns = now - l->last_ack_ns;
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
    if (r > 0)
        l->heard_ns = now_ns();
    while ((line = next_line(&l->in)))
        take_answer(l, line);
}

static void wait_for_events(struct load *l, int timeout_ms)
{
    struct pollfd fds[CANDIDATES_MAX + 1];

    fds[0] = (struct pollfd){.fd = l->fd, .events = POLLIN};
    for (int i = 0; i < CANDIDATES_MAX; i++)
        fds[i + 1] = (struct pollfd){.fd = l->candidate[i].fd, .events = POLLOUT};
    if (poll(fds, CANDIDATES_MAX + 1, timeout_ms) <= 0)
        return;
    if (fds[0].revents)
        take_answers(l);
    for (int i = 0; i < CANDIDATES_MAX; i++)
        if (fds[i + 1].revents && l->candidate[i].fd == fds[i + 1].fd)
            candidate_ready(l, i);
}

static void show_progress(struct load *l, uint64_t now)
{
    static uint64_t last_ns;
    bool terminal = isatty(STDERR_FILENO);

    if (now - last_ns < (terminal ? 1u : 10u) * (uint64_t)NS_PER_S)
        return;
    last_ns = now;
    fprintf(stderr, "%skvclient: %" PRIu64 " s, sent %" PRIu64 ", acknowledged %" PRIu64 "%s",
            terminal ? "\r" : "", (now - l->start_ns) / NS_PER_S, l->sent, l->acked,
            terminal ? "  " : "\n");
}

/* Writes are due by the clock; what falls into a black-out is not made up for. */
static void load_step(struct load *l, uint64_t *due_ns, bool draining)
{
    uint64_t now = now_ns(), period = NS_PER_S / l->opt->rate;
    bool room = l->opt->udp || (l->fd >= 0 && l->sent - l->sent_base <
                                                  l->acked - l->acked_base + OUTSTANDING_MAX);

    if (!l->opt->udp)
        tend_candidates(l, now);
    while (!draining && now >= *due_ns && l->sent < WRITES_MAX) {
        if (room)
            send_write(l);
        *due_ns += period;
        if (now > *due_ns + NS_PER_S)
            *due_ns = now;
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
    if (l->log_fd < 0)
        quit(1, "cannot open '%s': %s", opt->log, strerror(errno));
    l->done = calloc(WRITES_MAX / 8 + 1, 1);
    if (!l->done)
        quit(1, "out of memory");
    l->start_ns = now_ns();
    l->run = l->start_ns / NS_PER_MS;
    if (opt->udp)
        l->fd = start_connect();
}

static int cmd_load(struct options *opt)
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
    if (isatty(STDERR_FILENO))
        fputc('\n', stderr);
    printf("sent %" PRIu64 " acknowledged %" PRIu64 " longest gap %.3f s\n", l.sent, l.acked,
           (double)l.gap_ns / NS_PER_S);
    return 0;
}

/* ---- cmd and verify: one blocking connection ---- */

static int wait_fd(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    uint64_t now = now_ns();

    if (now >= deadline_ns)
        return -1;
    return poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) > 0 ? 0 : -1;
}

/* Tries until the deadline; a SYN that gets no answer is given up after a second. */
static int connect_until(uint64_t deadline_ns)
{
    while (now_ns() < deadline_ns) {
        uint64_t limit = now_ns() + (uint64_t)CANDIDATE_LIFE_S * NS_PER_S;
        int error = 0, fd = start_connect();
        socklen_t size = sizeof(error);

        if (fd >= 0 && !wait_fd(fd, POLLOUT, limit < deadline_ns ? limit : deadline_ns) &&
            !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && !error)
            return fd;
        if (fd >= 0)
            close(fd);
        usleep(100000);
    }
    return -1;
}

static char *read_line(int fd, struct reader *in, uint64_t deadline_ns)
{
    char *line;

    while (!(line = next_line(in))) {
        if (wait_fd(fd, POLLIN, deadline_ns) || read_more(fd, in) < 0)
            return NULL;
    }
    return line;
}

static int cmd_cmd(struct options *opt)
{
    static struct reader in;
    uint64_t deadline = now_ns() + (uint64_t)opt->timeout_s * NS_PER_S;
    char line[LINE_BYTES], *answer;
    int fd = connect_until(deadline);
    int size = snprintf(line, sizeof(line), "%s\n", opt->line);

    if (fd < 0)
        quit(1, "no connection to %s within %u s", opt->host, opt->timeout_s);
    if (size >= LINE_BYTES || send(fd, line, (size_t)size, MSG_NOSIGNAL) != size)
        quit(1, "cannot send the line to %s", opt->host);
    do {
        answer = read_line(fd, &in, deadline);
        if (!answer)
            quit(1, "no answer from %s within %u s", opt->host, opt->timeout_s);
        puts(answer);
    } while (!strcmp(opt->line, "DUMP") && strcmp(answer, "END") != 0);
    return !strncmp(answer, "ERR", 3) || !strncmp(answer, "CHECK BAD", 9);
}

struct record {
    uint64_t ns;
    char key[96], value[96];
};

static bool read_record(FILE *log, struct record *rec)
{
    return fscanf(log, "%" SCNu64 " %95s %95s %*s", &rec->ns, rec->key, rec->value) == 3;
}

static FILE *open_log(const struct options *opt)
{
    FILE *log = fopen(opt->log, "re");

    if (!log)
        quit(1, "cannot open '%s': %s", opt->log, strerror(errno));
    return log;
}

/* Asks for a batch of keys on one connection; -1 when it broke, else how many are lost. */
static int verify_batch(int fd, struct reader *in, const struct record *batch, int count,
                        uint64_t deadline)
{
    char line[LINE_BYTES], wanted[LINE_BYTES], *answer;
    int lost = 0;

    for (int i = 0; i < count; i++) {
        int size = snprintf(line, sizeof(line), "GET %s\n", batch[i].key);

        if (send(fd, line, (size_t)size, MSG_NOSIGNAL) != size)
            return -1;
    }
    for (int i = 0; i < count; i++) {
        answer = read_line(fd, in, deadline);
        if (!answer)
            return -1;
        snprintf(wanted, sizeof(wanted), "VAL %s", batch[i].value);
        if (strcmp(answer, wanted) != 0) {
            fprintf(stderr, "kvclient: lost: %s: wanted '%s', got '%s'\n", batch[i].key, wanted, answer);
            lost++;
        }
    }
    return lost;
}

static int cmd_verify(struct options *opt)
{
    static struct reader in;
    struct record batch[VERIFY_BATCH];
    FILE *log = open_log(opt);
    uint64_t total = 0, lost_total = 0;
    int fd = -1, count, lost;

    do {
        uint64_t deadline = now_ns() + (uint64_t)opt->timeout_s * NS_PER_S;

        for (count = 0; count < VERIFY_BATCH && read_record(log, &batch[count]); count++)
            ;
        do {
            if (fd < 0) {
                fd = connect_until(deadline);
                in.used = 0;
            }
            if (fd < 0)
                quit(1, "%s does not answer; checked %" PRIu64 " writes, %" PRIu64 " lost",
                     opt->host, total, lost_total);
            lost = verify_batch(fd, &in, batch, count, now_ns() + 10 * (uint64_t)NS_PER_S);
            if (lost < 0) {
                close(fd);
                fd = -1;
            }
        } while (lost < 0);
        total += (uint64_t)count;
        lost_total += (uint64_t)lost;
    } while (count == VERIFY_BATCH);
    fclose(log);
    printf("acknowledged %" PRIu64 " lost %" PRIu64 "\n", total, lost_total);
    return lost_total != 0;
}

static int cmd_gap(struct options *opt)
{
    FILE *log = open_log(opt);
    struct record rec;
    uint64_t last = 0, longest = 0, at = 0, count = 0;

    for (; read_record(log, &rec); last = rec.ns, count++) {
        if (!count || rec.ns - last <= longest)
            continue;
        longest = rec.ns - last;
        at = last;
    }
    fclose(log);
    printf("longest gap %.3f s after %" PRIu64 " acknowledged %" PRIu64 "\n",
           (double)longest / NS_PER_S, at, count);
    return 0;
}

/* ---- command line ---- */

static const char usage_text[] =
    "usage: kvclient load HOST --log FILE [--rate N] [--seconds S] [--udp]\n"
    "       kvclient verify HOST --log FILE [--timeout S]\n"
    "       kvclient cmd HOST LINE [--timeout S]\n"
    "       kvclient gap --log FILE\n"
    "load stops after --seconds or at SIGTERM; --rate is in writes per second (20).\n";

static unsigned int number(const char *option, const char *text, unsigned int max)
{
    char *end = NULL;
    unsigned long n = text ? strtoul(text, &end, 10) : 0;

    if (!text || *text < '0' || *text > '9' || *end || n < 1 || n > max)
        quit(2, "%s '%s' is not usable: give a number from 1 to %u", option, text ? text : "", max);
    return (unsigned int)n;
}

static void parse_options(struct options *opt, char **arg)
{
    for (; *arg; arg++) {
        if (!strcmp(*arg, "--udp"))
            opt->udp = true;
        else if (!strcmp(*arg, "--log") && arg[1])
            opt->log = *++arg;
        else if (!strcmp(*arg, "--rate"))
            opt->rate = number("--rate", *++arg, 10000);
        else if (!strcmp(*arg, "--seconds"))
            opt->seconds = number("--seconds", *++arg, 1000000);
        else if (!strcmp(*arg, "--timeout"))
            opt->timeout_s = number("--timeout", *++arg, 3600);
        else
            quit(2, "'%s' is not an option or lacks its value: see 'kvclient --help'", *arg);
        if (!*arg)
            return;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(struct options *);
        bool host, line, log;
    } commands[] = {
        {"load", cmd_load, true, false, true},
        {"verify", cmd_verify, true, false, true},
        {"cmd", cmd_cmd, true, true, false},
        {"gap", cmd_gap, false, false, true},
    };
    struct options opt = {.rate = 20, .timeout_s = 60};

    if (argc > 1 && !strcmp(argv[1], "--help")) {
        fputs(usage_text, stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        char **arg = argv + 2;

        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        if (commands[i].host && !(opt.host = *arg ? *arg++ : NULL))
            quit(2, "%s: no host given: see 'kvclient --help'", argv[1]);
        if (commands[i].line && !(opt.line = *arg ? *arg++ : NULL))
            quit(2, "%s: no line given: see 'kvclient --help'", argv[1]);
        parse_options(&opt, arg);
        if (commands[i].log && !opt.log)
            quit(2, "%s: no --log FILE given: see 'kvclient --help'", argv[1]);
        if (opt.host)
            resolve(&opt);
        return commands[i].run(&opt);
    }
    quit(2, "'%s' is not a command: say load, verify, cmd or gap", argc > 1 ? argv[1] : "");
}
