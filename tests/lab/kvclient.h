/* SPDX-License-Identifier: LGPL-2.1-only */
/* What the parts of the key-value client share. */
#ifndef KVCLIENT_H
#define KVCLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000u
#define NS_PER_MS 1000000u

enum { IN_BYTES = 65536, LINE_BYTES = 512 };
/* A connection attempt that stands no longer than this is given up. */
enum { CONNECT_LIFE_S = 5 };

struct options {
    const char *host, *log, *line;
    unsigned int rate, seconds, timeout_s;
    bool udp;
};

/* Bytes received and not yet taken as lines. */
struct reader {
    char data[IN_BYTES];
    size_t used;
};

/* Prints one line and ends the program. */
void quit(int status, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
uint64_t now_ns(void);
/* A non-blocking socket on its way to the server, or -1. */
int start_connect(void);
/* Takes the next whole line out of the reader, or NULL. Valid until the next call. */
char *next_line(struct reader *in);
/* Reads what is there. 1 on data, 0 on nothing yet, -1 when the connection is gone. */
int read_more(int fd, struct reader *in);

/* Writes new keys until the time is over or a signal comes, logs acknowledged ones. */
int cmd_load(struct options *opt);

#endif
