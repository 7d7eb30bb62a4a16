/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A request at an instance's control socket (docs/misc/disk.md, section 2), for every kind of instance: the packet, its files, its words.
 * No function here blocks.
 */
#ifndef DISK_REQUEST_H
#define DISK_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk_names.h"

#define DISK_REQUEST_FDS_MAX 2

#define DISK_LEAVE_REFUSED "leave: it is a primary, has a link, or somebody else follows it"

struct disk_request {
    char text[DISK_REQUEST_MAX + 1];
    char *word, *arg; /* arg NULL: none */
    int fds[DISK_REQUEST_FDS_MAX];
    unsigned fd_count;
    char reply[DISK_REPLY_MAX]; /* empty: none is due */
};

struct disk_word {
    const char *word;
    bool argument;
    void (*call)(struct disk_request *q);
};

/*
 * Takes one packet from the client `fd`, and has the one of `words` called that it begins with; the reply is then in q. Files that the
 * call has not taken (fd_count = 0) are closed. False: the client is gone.
 */
bool disk_request_serve(struct disk_request *q, int fd, const struct disk_word *words,
                        size_t count);

/* r is 0: "ok", else "error " and why. */
void disk_request_result(struct disk_request *q, int r, const char *why);
/* The files of a link, the caller's from here on; the same twice when one came. False, with the reply: none came. */
bool disk_request_take_link(struct disk_request *q, int *in, int *out);
/* The argument as the number of a checkpoint, from 1. False, with the reply: it is none. */
bool disk_request_checkpoint(struct disk_request *q, uint64_t *n);
/* Decimal digits and nothing else, below 2^64. */
bool disk_request_number(const char *text, uint64_t *value);

#endif
