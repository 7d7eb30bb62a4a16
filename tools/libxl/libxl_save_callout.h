/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The parent's side of libxl-save-helper: starts the process, hears its calls, answers them.
 *
 * The helper is a process so that a crash or SIGKILL in the memory engine cannot take the operation with it. It asks one
 * question at a time (suspend, postcopy, checkpoint, switch_qemu_logdirty); logs and progress may come at any time. The
 * framing is that of Xen 4.17, so the stock helper works here too.
 */
#ifndef LIBXL_SAVE_CALLOUT_H
#define LIBXL_SAVE_CALLOUT_H

#include "libxl_ev.h"

enum helper_call {
    HELPER_LOG = 1,
    HELPER_PROGRESS = 2,
    HELPER_SUSPEND = 3,
    HELPER_POSTCOPY = 4,
    HELPER_CHECKPOINT = 5,
    HELPER_WAIT_CHECKPOINT = 6,
    HELPER_SWITCH_LOGDIRTY = 7,
    HELPER_STATIC_DATA_DONE = 8,
    HELPER_RESTORE_RESULTS = 9,
    HELPER_COMPLETE = 10
};

/* What our helper's progress is about when it tells the size of a checkpoint. */
#define HELPER_CHECKPOINT_PAGES "Checkpoint pages"

typedef struct libxl__save_callout libxl__save_callout;
struct libxl__save_callout {
    /* caller fills */
    libxl__loop *loop;
    uint32_t domid;
    const char *encode; /* a word of --compress; NULL: the reader of the stream is not ours */
    uint64_t encode_cache_mib; /* 0: the helper chooses */
    int stream_fd;             /* handed to the helper; the caller closes its copy after _start */
    void *user;
    /* The helper asks; answer with libxl__save_callout_reply, now or later. arg: `enable` of SWITCH_LOGDIRTY, else 0. */
    void (*call)(libxl__egc *egc, libxl__save_callout *co, enum helper_call what, unsigned arg);
    void (*progress)(libxl__egc *egc, libxl__save_callout *co, uint64_t done, uint64_t total);
    /* Once, when the process is gone. clean: it said complete and exited 0 (its own clean-up was done). */
    void (*exited)(libxl__egc *egc, libxl__save_callout *co, bool clean);
    /* own */
    int msg_fd, reply_fd; /* from its stdout, to its stdin */
    libxl__ev_fd msg_ev;
    libxl__ev_child child;
    libxl__ev_time kill_timer;
    unsigned char *buf;
    size_t used;
    bool completed, asked;
    uint64_t checkpoint_pages; /* of the newest checkpoint, as an encoding helper tells; else 0 */
};

void libxl__save_callout_init(libxl__save_callout *co);
/* Starts `helper --save-domain` for a live, checkpointed (Remus) stream. 0 or ERROR_*. */
int libxl__save_callout_start(libxl__save_callout *co);
void libxl__save_callout_reply(libxl__save_callout *co, int value);
/* SIGTERM now, SIGKILL after grace_ms; exited() comes. Nothing happens if it is gone. */
void libxl__save_callout_terminate(libxl__save_callout *co, int grace_ms);
/* After exited(), or never started: frees. Safe twice. */
void libxl__save_callout_dispose(libxl__save_callout *co);
static inline bool libxl__save_callout_inuse(const libxl__save_callout *co)
{
    return libxl__ev_child_inuse(&co->child);
}

#endif
