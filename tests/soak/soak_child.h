/* SPDX-License-Identifier: LGPL-2.1-only */
/* Children that are not processes (soak_child.c), and who plays them (soak_backup.c). */
#ifndef SOAK_CHILD_H
#define SOAK_CHILD_H

#include "soak.h"

enum child_kind { ARBITER, RECEIVER, LISTER, APPLIER };

struct child {
    enum child_kind kind;
    enum who parent;
    bool alive, parent_alive;
    int in, out, err, pidfd;
    int status;
};

void child_ends(struct child *c, int status);
void child_says(struct child *c, const void *bytes, size_t n);
struct child *child_alive(enum child_kind kind); /* the one that lives, or NULL */
void children_of_host_die(int host);
void arbiter_begins(struct child *c);

/* soak_backup.c */
enum child_kind backup_child_kind(const libxl__ev_child *ev);
void backup_child_begins(struct child *c);
bool receiver_pump(struct child *c);
void receiver_dies(struct child *c, int sig);
/* For xentwin-apply: the domain, and what is put into it. */
bool receiver_has_domain(void);
void receiver_domain_gone(void);
void receiver_takes_record(uint32_t type, const unsigned char *body, uint32_t len);
void receiver_takes_state(const unsigned char *state);

/* soak_warm.c */
void applier_begins(struct child *c);
bool applier_pump(struct child *c);
bool applier_maps_domain(void);

#endif
