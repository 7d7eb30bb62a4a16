/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl remus: its command line, parsed and checked before anything is touched, and the one-shot
 * commands.
 */
#ifndef XL_REMUS_H
#define XL_REMUS_H

#include <stdbool.h>
#include <stdint.h>

#include "libxl_replication.h"
#include "xl_disk.h"

enum remus_action {
    REMUS_PROTECT,
    REMUS_STOP,
    REMUS_STATUS,
    REMUS_PROMOTE,
    REMUS_DISCARD,
    REMUS_RECOVER,
    REMUS_ATTEND
};

struct remus_opts {
    enum remus_action action;
    const char *domain; /* NULL: --status of all */
    const char *host;   /* NULL: -b without a host */
    const char *ssh;    /* "": host is the whole command */
    const char *arbiter, *stats, *netbuf_script;
    const char *compress; /* NULL: auto */
    const char *twin;     /* "auto", "warm", "cold"; NULL: auto */
    char self_name[65], peer_name[65];
    int interval_ms, limit_ms;
    bool unsafe, blackhole, no_netbuf, no_disk, no_monitor, help;
    libxl_link_loss on_link_loss;
    uint64_t netbuf_bytes, max_checkpoints;
    uint64_t compress_cache_bytes; /* 0: not given */
};

/* XL_DONE, or XL_USAGE after one line. Strings are borrowed from argv. */
int xl_remus_parse(struct remus_opts *o, int argc, char **argv);

/*
 * The remote command line that starts the receiver: with the channel when session is given, as the
 * stock xl understands it when session is NULL. False when it does not fit.
 */
bool xl_remus_receiver_words(const struct remus_opts *o, const char *domain, const char *session,
                             const struct xl_disks *disks, char *out, size_t size);

/* --stop, --status, --promote, --discard, --recover, --attend. */
int xl_remus_control(const struct remus_opts *o);

#endif
