/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The backup's side of a protection: the twin.
 *
 *   channel --frames--> libxl__twin --DATA--> libxl__twin_stream --plain stream--> stock xl
 * migrate-receive |   ^                                                     (libxl__twin_child) ACK
 * n | v   COMMIT n
 *
 * States (twin_state), and what moves them:
 *
 *   LOOKING     is the guest here already?            no -> COPYING        yes -> DROPPING
 *   COPYING     checkpoint 1 comes and is handed on   ACK 1 -> PROTECTING
 *   PROTECTING  checkpoint n held, committed, acknowledged, handed on
 *   SILENT      link lost: until limit_ms of silence  -> ASKING or WAITING
 *   ASKING      the arbiter or the rule               granted -> PROMOTING  refused -> DROPPING
 *   WAITING     an administrator decides              promote -> PROMOTING  discard -> DROPPING
 *   PROMOTING   the last checkpoint is applied (warm),
 *               the child ends the guest's move       it runs -> LEAVING    failed -> DROPPING
 *   DROPPING    the child gives up, half-built domains are removed -> LEAVING
 *   LEAVING     last words are written, the child is waited for -> finished()
 *
 * A cold twin's child gets one plain stream that ends at promotion; then it makes devices and QEMU. A
 * warm twin's child gets checkpoint 1 alone: it completes the domain, which waits paused, asks for
 * the permission and gets it at promotion. xentwin-apply (libxl_twin_warm.h) applies what comes
 * later.
 *
 * Invariants
 *  1. Checkpoint n is acknowledged only when all of it is held, everything before it was handed
 * on, and every replicated disk has its barrier n and has noted that n counts. While a warm
 * twin's domain is being completed, what is held may be more.
 *  2. After the decision to drop nothing can promote; after the decision to promote nothing is
 * acknowledged or echoed any more.
 *  3. Cold: the stream ends (END is handed on) only in PROMOTING, at the last committed checkpoint.
 *     Warm: the child is permitted only in PROMOTING, after the last committed checkpoint was
 *     applied.
 *  4. finished() is called once, last; no child is left then.
 */
#ifndef LIBXL_TWIN_H
#define LIBXL_TWIN_H

#include "libxl_arbiter.h"
#include "libxl_channel.h"
#include "libxl_control.h"
#include "libxl_twin_child.h"
#include "libxl_twin_disk.h"
#include "libxl_twin_domains.h"
#include "libxl_twin_stream.h"
#include "libxl_twin_warm.h"

enum twin_state {
    TWIN_LOOKING,
    TWIN_COPYING,
    TWIN_PROTECTING,
    TWIN_SILENT,
    TWIN_ASKING,
    TWIN_WAITING,
    TWIN_PROMOTING,
    TWIN_DROPPING,
    TWIN_LEAVING,
};

enum twin_outcome {
    TWIN_PROMOTED, /* the guest runs here */
    TWIN_STOPPED,  /* ended on purpose: no twin */
    TWIN_REFUSED,  /* link lost and this side may not run: no twin */
    TWIN_FAILED,   /* no twin; why tells */
};

typedef struct libxl__twin libxl__twin;
struct libxl__twin {
    /* caller fills, strings borrowed */
    libxl__loop *loop;
    int recv_fd, send_fd;
    const void *prefix; /* xl header and configuration, for the child */
    size_t prefix_len;
    uint64_t prologue; /* XXH3-64 of them as they came */
    const char *uuid;  /* of the guest */
    struct arbiter_case
        c;               /* epoch and primary are set by the twin; limit_ms is the channel's too */
    uint64_t hold_limit; /* bytes of one checkpoint */
    uint64_t config_target_kb;   /* the memory that the configuration gives the guest */
    const char *stock_xl;        /* for list and destroy */
    const char *const *argv;     /* of the child */
    const char *helper;          /* the child's LIBXL_SAVE_HELPER, or NULL */
    const char *lock, *own_lock; /* libxl_twin_lock.h; NULL: the common lock */
    const char *apply;           /* xentwin-apply: the twin is warm; NULL: it is cold */
    bool device_model;           /* warm: the guest has a QEMU, with "-incoming defer" */
    bool with_control;           /* offer the control socket */
    const char *const *disks;    /* replicated ones: virtual devices' names */
    unsigned num_disks;
    void *user;
    /* One line for a person. */
    void (*message)(void *user, const char *line);
    void (*finished)(libxl__egc *egc, libxl__twin *t, enum twin_outcome outcome);

    /* own */
    enum twin_state state;
    enum twin_outcome outcome;
    libxl__channel channel;
    libxl__twin_stream stream;
    libxl__twin_child child;
    libxl__twin_disk disk;
    libxl__twin_warm warm;
    libxl__twin_domains domains;
    libxl__arbiter arbiter;
    libxl__control control;
    libxl__ev_time timer;
    bool child_began, child_live; /* started; and EXITED not yet seen */
    bool complete;                /* warm: the domain is */
    bool link_lost, error_sent, disks_promoted;
    uint64_t acked;
    uint64_t target_kb; /* the memory that the guest was given since; 0: not told */
    bool ack_due;
    uint64_t commit_n; /* its COMMIT came and its disks are not here yet; 0: none */
    unsigned char commit_body[16];
    bool disks_due;         /* the disks have not noted yet that the due checkpoint counts */
    uint64_t ack_debt;      /* bytes to hand on before the due ACK may go */
    size_t unconsumed;      /* DATA bytes taken and not yet reported to the channel */
    unsigned admin_request; /* control request that waits for the end; 0: none */
    char child_line[256];   /* the newest of the child's standard error */
};

void libxl__twin_init(libxl__twin *t);
/* finished() comes unless this fails (then nothing is left). */
int libxl__twin_start(libxl__twin *t);
/* We were told to end: drops the twin, tells the primary. Too late while PROMOTING: ignored. */
void libxl__twin_terminate(libxl__egc *egc, libxl__twin *t);
const char *libxl__twin_state_name(enum twin_state state);
/* After finished(). Safe twice. */
void libxl__twin_dispose(libxl__twin *t);

/* ---- the process: xl migrate-receive --remus --replication 2 ---- */

/* twin_choice: auto is warm for guests that can be */
enum twin_choice { TWIN_AUTO, TWIN_WARM, TWIN_COLD };

struct twin_options {
    int limit_ms;
    enum twin_choice choice;
    enum link_loss_rule rule;
    const char *arbiter;      /* command or NULL */
    const char *domain;       /* the guest's name; must be the configuration's */
    const char *self, *peer;  /* host names */
    const char *session;      /* uuid */
    uint64_t hold_limit;      /* 0: from the configuration */
    bool no_monitor;          /* -e for the stock receiver */
    const char *const *disks; /* replicated ones */
    unsigned num_disks;
    const char *stock_xl; /* NULL: XENTWIN_STOCK_XL of the environment or the build */
    int in_fd, out_fd;    /* 0 and 1 */
    const char
        *log_path; /* NULL: /var/log/xen/xentwin-backup-<domain>.log if the directory is there */
};

/* Everything from the banner to the end. Returns the exit status: 0 promoted, stopped or refused by
 * the rule; 1 failed. */
int libxl__twin_receive(const struct twin_options *opts);

#endif
