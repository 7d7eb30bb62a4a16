/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Client of the test guest's key-value server.
 *
 *   load    writes ever new keys and logs every acknowledged write
 *   verify  reads every acknowledged key back
 *   cmd     sends one line and prints the answer
 *   gap     prints the longest time without an acknowledgement
 *   clock   prints the clock of the log and the time of day
 */
#include "kvclient.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PORT "7000"

enum { VERIFY_BATCH = 50, BATCH_TIMEOUT_S = 10 };

static struct addrinfo *server;

void quit(int status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("kvclient: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(status);
}

uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void resolve(const struct options *opt)
{
    struct addrinfo hints = {.ai_socktype = opt->udp ? SOCK_DGRAM : SOCK_STREAM};
    int r = getaddrinfo(opt->host, PORT, &hints, &server);

    if (r) quit(1, "'%s' is not a usable address: %s", opt->host, gai_strerror(r));
}

int start_connect(void)
{
    int on = 1, fd;

    fd = socket(server->ai_family, server->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) quit(1, "socket: %s", strerror(errno));
    if (server->ai_socktype == SOCK_STREAM)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(fd, server->ai_addr, server->ai_addrlen) && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

char *next_line(struct reader *in)
{
    static char line[LINE_BYTES];
    char *end = memchr(in->data, '\n', in->used);
    size_t size;

    if (!end) {
        if (in->used == IN_BYTES) quit(1, "the server sent a line of more than %d bytes", IN_BYTES);
        return NULL;
    }
    size = (size_t)(end - in->data);
    memcpy(line, in->data, size < LINE_BYTES ? size : LINE_BYTES - 1);
    line[size < LINE_BYTES ? size : LINE_BYTES - 1] = '\0';
    in->used -= size + 1;
    memmove(in->data, end + 1, in->used);
    return line;
}

int read_more(int fd, struct reader *in)
{
    ssize_t got = recv(fd, in->data + in->used, IN_BYTES - in->used, 0);

    if (got > 0) {
        in->used += (size_t)got;
        return 1;
    }
    return got < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

/* ---- cmd and verify: one blocking connection ---- */

static int wait_fd(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    uint64_t now = now_ns();

    if (now >= deadline_ns) return -1;
    return poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) > 0 ? 0 : -1;
}

/* Tries until the deadline; each attempt has CONNECT_LIFE_S seconds. */
static int connect_until(uint64_t deadline_ns)
{
    while (now_ns() < deadline_ns) {
        uint64_t limit = now_ns() + (uint64_t)CONNECT_LIFE_S * NS_PER_S;
        int error = 0, fd = start_connect();
        socklen_t size = sizeof(error);

        if (fd >= 0 && !wait_fd(fd, POLLOUT, limit < deadline_ns ? limit : deadline_ns) &&
            !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && !error)
            return fd;
        if (fd >= 0) close(fd);
        usleep(100000);
    }
    return -1;
}

static char *read_line(int fd, struct reader *in, uint64_t deadline_ns)
{
    char *line;

    while (!(line = next_line(in))) {
        if (wait_fd(fd, POLLIN, deadline_ns) || read_more(fd, in) < 0) return NULL;
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

    if (fd < 0) quit(1, "no connection to %s within %u s", opt->host, opt->timeout_s);
    if (size >= LINE_BYTES || send(fd, line, (size_t)size, MSG_NOSIGNAL) != size)
        quit(1, "cannot send the line to %s", opt->host);
    do {
        answer = read_line(fd, &in, deadline);
        if (!answer) quit(1, "no answer from %s within %u s", opt->host, opt->timeout_s);
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

    if (!log) quit(1, "cannot open '%s': %s", opt->log, strerror(errno));
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

        if (send(fd, line, (size_t)size, MSG_NOSIGNAL) != size) return -1;
    }
    for (int i = 0; i < count; i++) {
        answer = read_line(fd, in, deadline);
        if (!answer) return -1;
        snprintf(wanted, sizeof(wanted), "VAL %s", batch[i].value);
        if (strcmp(answer, wanted) != 0) {
            fprintf(stderr, "kvclient: lost: %s: wanted '%s', got '%s'\n", batch[i].key, wanted,
                    answer);
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
            lost = verify_batch(fd, &in, batch, count,
                                now_ns() + (uint64_t)BATCH_TIMEOUT_S * NS_PER_S);
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
        if (!count || rec.ns - last <= longest) continue;
        longest = rec.ns - last;
        at = last;
    }
    fclose(log);
    printf("longest gap %.3f s after %" PRIu64 " acknowledged %" PRIu64 "\n",
           (double)longest / NS_PER_S, at, count);
    return 0;
}

static int cmd_clock(struct options *opt)
{
    struct timespec real;
    uint64_t mono = now_ns();

    (void)opt;
    clock_gettime(CLOCK_REALTIME, &real);
    printf("%" PRIu64 " %" PRIu64 "\n", mono,
           (uint64_t)real.tv_sec * NS_PER_S + (uint64_t)real.tv_nsec);
    return 0;
}

/* ---- command line ---- */

static const char usage_text[] =
    "usage: kvclient load HOST --log FILE [--rate N] [--seconds S] [--udp]\n"
    "       kvclient verify HOST --log FILE [--timeout S]\n"
    "       kvclient cmd HOST LINE [--timeout S]\n"
    "       kvclient gap --log FILE\n"
    "       kvclient clock\n"
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
        if (!*arg) return;
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(struct options *);
        bool host, line, log;
    } commands[] = {
        {"load", cmd_load, true, false, true},     {"verify", cmd_verify, true, false, true},
        {"cmd", cmd_cmd, true, true, false},       {"gap", cmd_gap, false, false, true},
        {"clock", cmd_clock, false, false, false},
    };
    struct options opt = {.rate = 20, .timeout_s = 60};

    if (argc > 1 && !strcmp(argv[1], "--help")) {
        fputs(usage_text, stdout);
        return 0;
    }
    for (size_t i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        char **arg = argv + 2;

        if (strcmp(argv[1], commands[i].name) != 0) continue;
        if (commands[i].host && !(opt.host = *arg ? *arg++ : NULL))
            quit(2, "%s: no host given: see 'kvclient --help'", argv[1]);
        if (commands[i].line && !(opt.line = *arg ? *arg++ : NULL))
            quit(2, "%s: no line given: see 'kvclient --help'", argv[1]);
        parse_options(&opt, arg);
        if (commands[i].log && !opt.log)
            quit(2, "%s: no --log FILE given: see 'kvclient --help'", argv[1]);
        if (opt.host) resolve(&opt);
        return commands[i].run(&opt);
    }
    quit(2, "'%s' is not a command: say load, verify, cmd, gap or clock", argc > 1 ? argv[1] : "");
}
