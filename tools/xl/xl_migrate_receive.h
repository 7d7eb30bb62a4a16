/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl migrate-receive: the words after it that ask for the replication channel.
 */
#ifndef XL_MIGRATE_RECEIVE_H
#define XL_MIGRATE_RECEIVE_H

#include <stdbool.h>

#include "libxl_disk_set.h"
#include "libxl_replication.h"

struct receive_opts {
    libxl_link_loss on_link_loss;
    int limit_ms;
    bool no_monitor;
    const char *twin; /* "auto", "warm", "cold" */
    /* Borrowed from argv. */
    const char *arbiter, *session, *domain, *self_name, *peer_name;
    const char *disks[DISK_MAX]; /* replicated ones */
    unsigned num_disks;
};

/* Do the words ask for the channel? Otherwise they are for the stock receiver. */
bool xl_receive_wanted(int argc, char **argv);
/* XL_DONE, or XL_USAGE after one line. */
int xl_receive_parse(struct receive_opts *o, int argc, char **argv);

#endif
