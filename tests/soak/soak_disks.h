/* SPDX-License-Identifier: LGPL-2.1-only */
/* The guest's replicated disks, on both hosts, with the links between them (soak_disks.c, soak_disk_link.c). */
#ifndef SOAK_DISKS_H
#define SOAK_DISKS_H

#include "soak.h"

#define SECTORS 16u
#define JOURNAL_MAX 65536

struct disk_write {
    uint64_t epoch, value;
    unsigned sector;
};

struct outgoing {
    int64_t at_ms;
    char text[60];
};
#define OUTBOX 64u

/* An instance of docs/misc/disk.md, as far as its control socket and what survives show it. */
struct instance {
    int host;
    unsigned disk;
    bool alive, primary, linked, synced, secured, inconsistent;
    uint64_t sector[SECTORS];
    uint64_t epoch; /* primary: the open one, 0: unprotected; backup: the newest sealed one */
    uint64_t committed;
    struct disk_write *journal;
    size_t nr_journal;
    int fd; /* its client; -1: none */
    bool asked_ever;
    bool told;       /* backup: its client has heard of a sealed epoch, */
    int64_t told_ms; /* first at this time of its host's clock */
    int64_t busy_until, last_ms;
    struct outgoing out[OUTBOX];
    unsigned first_out, nr_out;
};
extern struct instance instances[2][DISKS];

enum message { MSG_HELLO, MSG_WRITE, MSG_BARRIER, MSG_SEALED, MSG_END };

/* soak_disk_link.c: in order, as late as the link between the hosts is, or lost with it. */
void disk_link_start(void);
void disk_link_send(unsigned disk, bool to_backup, enum message what, uint64_t epoch,
                    unsigned sector, uint64_t value);
bool disk_link_pump(void);
int64_t disk_link_due(void);

/* soak_disks.c */
void instance_hears(struct instance *in, enum message what, uint64_t epoch, unsigned sector,
                    uint64_t value);
void instance_loses_link(struct instance *in, const char *why);

#endif
