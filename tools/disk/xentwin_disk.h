/* SPDX-License-Identifier: LGPL-2.1-only */
/* xentwin-disk: what its commands share. Messages go to stderr; results are exit codes. */
#ifndef XENTWIN_DISK_H
#define XENTWIN_DISK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk_names.h"

#define EXIT_USAGE 2
#define STOP_LIMIT_MS 30000
#define OPTION_WHY_MAX 512

struct instance {
    const char *domain, *vdev, *path;
    const char *queue, *journal, *limit_ms, *settle_ms, *on_slow,
        *threads; /* NULL: the plugin's own */
    const char *state_option;
    const char
        *shared; /* the journal beside a disk that both hosts see; NULL: a copy on each host */
    bool backup, force_primary;
    bool replaces; /* a backup's instance of another disk that nobody follows makes room */
    uint64_t size; /* 0: not said */
    char run_dir[PATH_MAX], state_dir[PATH_MAX];
};

/* One line on stderr; the last one again, for the other end of a link. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *complained(void);

/* ---- xentwin_disk.c ---- */

/* Takes the options, which are moved before the other words; optind is the first of those. False: `why`. */
bool parse_options(struct instance *in, int argc, char **argv, char why[OPTION_WHY_MAX]);

/* ---- xentwin_disk_defaults.c ---- */

/* What this host's DISK_OPTIONS say for the instance of a backup, unless it was said already; of them only
 * what a backup has and the link does not tell. Returns an exit code: then `why` is one line. */
int defaults_take(struct instance *in, char why[DISK_REPLY_MAX]);

/* ---- xentwin_disk_client.c ---- */

/* DOMAIN-VDEV. */
const char *instance_name(const struct instance *in);
/* Connects to the control socket. -1: nobody is there. -2: that cannot be told, after one line. */
int client_connect(const struct instance *in);
/* As client_connect, but waits for one that begins or ends, STOP_LIMIT_MS; -1 only if there is none. */
int client_reach(const struct instance *in);
/* Sends a request with up to two fds and waits for its reply, which stands in `reply`. 0 if it is
 * "ok ...". Events in between are skipped. */
int client_request(int fd, const char *request, const int *fds, int fd_count,
                   char reply[DISK_REPLY_MAX], int limit_ms);
/* The next packet; its size, 0 at the end, -1. */
int client_read(int fd, char packet[DISK_REPLY_MAX], int limit_ms);
/* Asks it to end ("stop", "leave"), waits until it has, and removes what its sockets leave behind. Takes fd. 0, or an exit code with
 * the reason in `reply`. */
int client_end(const struct instance *in, int fd, const char *word, char reply[DISK_REPLY_MAX]);
/* The value of key in a status reply. */
bool status_value(const char *reply, const char *key, char *out, size_t size);

/* ---- xentwin_disk_start.c ---- */

/* Is its disk a DRBD resource, drbd:NAME? Such an instance serves no NBD. */
bool instance_is_drbd(const struct instance *in);
/* Starts the instance, or finds it running: then *running. Returns an exit code. */
int instance_start(struct instance *in, bool *running);

/* ---- xentwin_disk_attach.c ---- */

int instance_attach(struct instance *in);

#endif
