/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Who may go on when the link is lost: the rule, and the arbiter command that overrides it.
 *
 *   rule       arbiter   primary                 backup
 *   primary    none      goes on                 stays down (an administrator may promote it)
 *   backup     none      stays stopped           goes on
 *   any        CMD       asks, goes on if 0      asks, goes on if 0
 *
 * With an arbiter the preferred side (the rule) asks at once, the other one limit_ms later.
 */
#ifndef LIBXL_ARBITER_H
#define LIBXL_ARBITER_H

#include "libxl_ev.h"

enum link_loss_rule { LINK_LOSS_PRIMARY, LINK_LOSS_BACKUP };

/*
 * All strings borrowed for the life of the request. Plain data: the guard process carries it too.
 */
struct arbiter_case {
    enum link_loss_rule rule;
    const char *command; /* for /bin/sh -c, see _ask; NULL: none */
    const char *domain;  /* guest name */
    const char *self;    /* this host's name */
    const char *peer;    /* the other host's name */
    const char *session; /* unique per protection (uuid): both sides have the same */
    uint64_t epoch;      /* last acknowledged checkpoint that this side knows */
    bool primary;        /* which side asks */
    int limit_ms;        /* how long the command may take, and the second asker's delay */
};

typedef struct libxl__arbiter libxl__arbiter;
struct libxl__arbiter {
    /* caller fills */
    libxl__loop *loop;
    struct arbiter_case c;
    void *user;
    /*
     * Once: granted says whether this side may let the guest run; why is one line for the log,
     * which is the caller's.
     */
    void (*verdict)(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why);
    /* own */
    libxl__ev_time timer;
    struct arbiter_command *running;
    libxl__ev_fd output; /* what the command says, on stdout and stderr */
    char said[120];      /* the start of its last line, for the log */
    size_t said_len;
    bool line_over, asking, killed;
};

/* The PATH of the command: ours, and the folder of the arbiters that ship with us, which the shell of an ssh
 * session may lack. */
char *libxl__arbiter_path(libxl__gc *gc);
void libxl__arbiter_init(libxl__arbiter *a);
/*
 * Decides. Without a command the verdict comes at the next turn of the loop by the rule alone; with
 * one the command is run as `CMD DOMAIN SELF PEER EPOCH primary|backup SESSION` (also in the
 * environment as XENTWIN_DOMAIN, _SELF, _PEER, _EPOCH, _ROLE, _SESSION); exit 0 grants; anything
 * else, a signal, or no answer in max(limit_ms, 10 s) refuses (the command is killed, its process
 * group too).
 */
int libxl__arbiter_ask(libxl__arbiter *a);
/* Kills a running command; no verdict any more. Safe twice. */
void libxl__arbiter_dispose(libxl__arbiter *a);

#endif
