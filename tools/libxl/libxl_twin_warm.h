/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The warm twin: xentwin-apply, the process that brings the complete, paused domain up to date, and
 * the conversation with it.
 *
 *   we: apply_head OPEN                           the stock receiver has completed the domain
 *   it: apply_answer READY                        it found the domain and can write its memory
 *   we: apply_head DATA n, libxc records          one or more committed checkpoints, the newest is n
 *   it: apply_answer APPLIED n
 *   we: apply_head GO n, QEMU's state             (nothing for PVH)
 *   it: apply_answer GONE n, and it leaves        clocks and device model are as of checkpoint n
 *
 * Invariants
 *  1. The bytes of a DATA stay in the twin's stream until APPLIED. If the process dies it is started
 *     again and gets them again, marked so, perhaps with more behind them: applying twice does no harm.
 *  2. One message at a time is under way, with a limit.
 *  3. GO is sent only when nothing is left to apply.
 *  4. While the process lives, it maps the domain, which then cannot be destroyed altogether.
 */
#ifndef LIBXL_TWIN_WARM_H
#define LIBXL_TWIN_WARM_H

#include "libxl_ev.h"
#include "libxl_twin_stream.h"

enum apply_kind {
    APPLY_OPEN = 1,
    APPLY_DATA,
    APPLY_GO,
    APPLY_READY,
    APPLY_APPLIED,
    APPLY_GONE,
};

/* Between two processes of one host and one build: host order. */
struct apply_head {
    uint32_t kind;
    uint32_t again; /* DATA: another process was sent it, or its beginning, and gave no answer */
    uint64_t n, len;
};

struct apply_answer {
    uint32_t kind, zero;
    uint64_t n;
};

/* Exit statuses of xentwin-apply, besides 0 and 1. */
#define APPLY_EXIT_USAGE 2
#define APPLY_EXIT_NO_DOMAIN 3

enum twin_warm_event {
    TWIN_WARM_READY,
    TWIN_WARM_APPLIED, /* w->applied bytes of the stream */
    TWIN_WARM_GONE,    /* the guest may run */
    TWIN_WARM_FAILED,  /* for good; why tells. EXITED comes or came */
    TWIN_WARM_EXITED,  /* after _close or FAILED: last event */
};

typedef struct libxl__twin_warm libxl__twin_warm;
struct libxl__twin_warm {
    /* caller fills, all borrowed */
    libxl__loop *loop;
    libxl__twin_stream *stream;
    const char *file;        /* xentwin-apply */
    const char *uuid, *name; /* of the guest; the domain is <name>--incoming */
    bool device_model;       /* the guest has a QEMU */
    void *user;
    void (*event)(libxl__egc *egc, libxl__twin_warm *w, enum twin_warm_event ev);

    char why[256];
    size_t applied;

    /* own */
    libxl__ev_child child;
    libxl__ev_fd in_ev, out_ev, err_ev;
    libxl__ev_time limit;
    int in_fd, out_fd, err_fd;
    bool domain_complete, ready, go_wanted, failed, closing;
    bool data_begun; /* sent, perhaps not all of it, and no answer came */
    unsigned starts_in_vain;
    struct apply_head head; /* the message under way; kind 0: none */
    size_t sent;            /* of head and body */
    unsigned char answer[sizeof(struct apply_answer)];
    size_t answer_len;
    char err_line[256];
    size_t err_len;
};

void libxl__twin_warm_init(libxl__twin_warm *w);
/* Checkpoint 1 was handed on, or is being handed on. */
int libxl__twin_warm_start(libxl__twin_warm *w);
/* The stock receiver says that the domain is complete. */
void libxl__twin_warm_open(libxl__egc *egc, libxl__twin_warm *w);
/* More was committed. */
void libxl__twin_warm_more(libxl__twin_warm *w);
/* Promotion: GONE or FAILED comes. The stream was stopped. */
void libxl__twin_warm_go(libxl__twin_warm *w);
/* Kills it. EXITED comes if it lives. */
void libxl__twin_warm_close(libxl__twin_warm *w);
static inline bool libxl__twin_warm_alive(const libxl__twin_warm *w)
{
    return libxl__ev_child_inuse(&w->child);
}
/* Only when it is not alive (asserted). Safe twice. */
void libxl__twin_warm_dispose(libxl__twin_warm *w);

#endif
