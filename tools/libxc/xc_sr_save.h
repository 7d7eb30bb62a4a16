/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The primary's memory engine: one running guest into one stream.
 *
 * Plain, live:      log-dirty on | rounds of dirty pages, guest runs | suspend | the rest | END
 * Plain, not live:  suspend | all pages | END
 * Checkpointed:     as plain live, then for each checkpoint
 *
 *     guest runs   | suspended                         | runs again
 *     -------------+-----------------------------------+----------------------------------------
 *     (sleep)      | suspend() CLEAN copy vcpus        | postcopy() returned: PAGE_DATA, vcpu
 *                  |    dirty pages -> arena           | records, CHECKPOINT; checkpoint()
 *
 * Invariants
 * 1. Between suspend() and postcopy() of a checkpointed stream nothing is written to the stream.
 * 2. Whatever ends the engine: log-dirty is off, the device model does not log, no page is mapped.
 * 3. A pfn is sent when its bytes may differ from what the other side has, and as XTAB when the
 *    guest has given it back (xc_sr_save_balloon.c: the hypervisor's log does not tell).
 * 4. Nothing is taken from a log that somebody else has ended: the save fails. The log of another of ours is never
 *    touched (xc_sr_lock.h).
 *
 * Who does what: xc_sr_save.c drives, xc_sr_save_live.c does the rounds, xc_sr_save_pages.c writes
 * pages, xc_sr_save_whole.c those of a save that is not live, xc_sr_save_encode.c encodes them,
 * xc_sr_save_dirty.c owns the dirty log, xc_sr_save_balloon.c the guest's population,
 * xc_sr_save_x86_hvm.c the vcpus. A PV guest is another matter: xc_sr_save_x86_pv.h.
 */
#ifndef XC_SR_SAVE_H
#define XC_SR_SAVE_H

#include <stdbool.h>
#include <xenctrl.h> /* which xenguest.h needs but does not include */
#include <xenguest.h>

#include "xc_sr_arena.h"
#include "xc_sr_dirty.h"
#include "xc_sr_encode.h"
#include "xc_sr_env.h"
#include "xc_sr_map.h"

struct xc_sr_save;

/* What differs by kind of guest. Each returns 0, or -1 with errno after it logged why. */
struct xc_sr_save_ops {
    uint32_t dhdr_type;
    /* Before the first byte. Allocates all that capture() will need. */
    int (*setup)(struct xc_sr_save *s);
    /* The records before STATIC_DATA_END. */
    int (*write_static)(struct xc_sr_save *s);
    /*
     * Of a guest that is only saved suspended: all its pages to the stream, in its own way. NULL:
     * the engine does it, and can do so live, too.
     */
    int (*write_memory)(struct xc_sr_save *s);
    /* The guest is suspended: vcpus and platform into memory. Neither the stream nor malloc. */
    int (*capture)(struct xc_sr_save *s);
    /* The records of what was captured. */
    int (*write_captured)(struct xc_sr_save *s);
    /* Safe when setup() failed or was never called. */
    void (*cleanup)(struct xc_sr_save *s);
};

extern const struct xc_sr_save_ops xc_sr_save_x86_hvm, xc_sr_save_x86_pv;

struct xc_sr_batch; /* pages on their way, xc_sr_save_pages.c */

struct xc_sr_save {
    /* caller fills; callbacks and data as in xenguest.h, wait_checkpoint and COLO are not used */
    struct xc_sr_env env;
    bool live;
    bool verify; /* after the last round send everything once more, for the reader to compare */
    bool checkpointed;
    struct save_callbacks *cb;
    uint64_t map_limit_pages; /* stay mapped at most; 0 = the default */
    uint32_t range_pages;     /* mapped at a time when not live, at most 4096; 0 = that */
    const char *lock_dir;     /* of xc_sr_lock.h; NULL: nobody else is there (tests) */
    /* Of the rounds while the guest runs, plain streams only. All zero = the defaults. */
    struct {
        bool rounds_given;
        uint32_t rounds;      /* after the first copy at most */
        uint32_t downtime_ms; /* what is left must be sent within, or the save fails; 0 = any */
        uint32_t rate_mb;     /* MB/s while the guest runs; 0 = what the link takes */
    } limits;
    /* Checkpointed only, and only for a reader of ours: how pages are encoded. */
    enum xc_sr_encode_mode encode;
    bool ref_limit_given;     /* else a quarter of the host's free memory */
    uint64_t ref_limit_bytes; /* for the reference image */

    /* own; the caller may read */
    bool suspended; /* suspend() was called and no postcopy() has answered yet */
    bool ended;     /* checkpoint() asked to leave: a failure by protocol, not in fact */
    uint64_t epoch;

    /* own */
    const struct xc_sr_save_ops *ops;
    void *arch;
    uint64_t pfns; /* the guest's pfns are below this */
    xc_hypercall_buffer_t dirty_hbuf;
    struct xc_sr_dirty dirty;   /* in the hypercall buffer: the log, and what is to be sent */
    struct xc_sr_dirty sent;    /* the other side has a page here */
    struct xc_sr_dirty gone;    /* the guest gave back a page here, at some time */
    struct xc_sr_dirty suspect; /* ask for its type before the next use: may have come or gone */
    bool locked, log_on, qemu_log_on;
    int lock_fd;           /* if locked */
    uint64_t owned_pages;  /* by the domain, when last looked at */
    uint64_t paused_pages; /* the same, when it was last found suspended */
    bool population_moved; /* during the live rounds: compare everything in the next pause */
    bool owned_stale;      /* we dropped mappings since: read it again before the guest runs */
    uint64_t scan_next;    /* where the search for pages given back goes on */
    struct xc_sr_map map;
    struct xc_sr_arena arena;
    struct xc_sr_batch *batch;
    struct xc_sr_encoder *encoder;      /* NULL = PAGE_DATA */
    struct xc_sr_encode_counts counted; /* up to the checkpoint before */
    uint64_t live_started_us, live_started_bytes, slept_us, us_per_1024_pages;
    uint64_t suspend_us, copy_us; /* of the last checkpoint: in suspend(), and until postcopy() */
};

/* Runs the whole thing. 0, or -1 with errno. Logs the cause of a failure once. */
int xc_sr_save(struct xc_sr_save *s);

/* --- between the files of the engine --- */

/* xc_sr_save.c */
int xc_sr_save_check_stop(const struct xc_sr_save *s); /* -1: a reason to stop, logged */
int xc_sr_write_record(struct xc_sr_save *s, uint32_t type, const void *head, size_t head_len,
                       const void *body, size_t body_len);

/* xc_sr_save_live.c */
/* Rounds of dirty pages while the guest runs. -1 also when they do not reach the limits. */
int xc_sr_copy_live(struct xc_sr_save *s);
/* After some pages were written: waits as long as the rate wants it. */
int xc_sr_throttle(struct xc_sr_save *s);

/* xc_sr_save_pages.c */
int xc_sr_batch_alloc(struct xc_sr_save *s);
/*
 * Writes the pages of the set that the guest has, and XTAB for those it had. A page that goes away
 * meanwhile becomes suspect. Progress under `what`: of `total` pages.
 */
int xc_sr_write_set(struct xc_sr_save *s, const struct xc_sr_dirty *set, const char *what,
                    uint64_t total);
/* The guest is suspended: dirty and suspect pages into the arena. */
int xc_sr_copy_dirty(struct xc_sr_save *s);
int xc_sr_write_arena(struct xc_sr_save *s);

/* xc_sr_save_whole.c */
/* The guest is suspended, and nothing was sent yet: every page that it has, by two processes. */
int xc_sr_write_whole(struct xc_sr_save *s, const char *what);

/* xc_sr_save_encode.c */
int xc_sr_encode_start(struct xc_sr_save *s);
void xc_sr_encode_stop(struct xc_sr_save *s);
/* A page that stays as it is during the call; page NULL: one without contents. */
int xc_sr_encode_page(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page);
/* The same for a page that the guest may be writing. */
int xc_sr_encode_guest_page(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page);
int xc_sr_encode_flush(struct xc_sr_save *s);
void xc_sr_encode_checkpoint(struct xc_sr_save *s); /* all of it was written */

/* xc_sr_save_dirty.c */
int xc_sr_log_alloc(struct xc_sr_save *s);
int xc_sr_log_enable(struct xc_sr_save *s);
void xc_sr_log_disable(struct xc_sr_save *s, bool parent_lives);
/*
 * Reads the log into s->dirty and empties it. `final`: the guest is suspended. Count by *count. -1 also when the
 * log is not on any more, so that s->dirty does not tell.
 */
int xc_sr_log_clean(struct xc_sr_save *s, bool final, uint64_t *count);
/* How many pages are dirty by now; the log stays as it is. */
int xc_sr_log_peek(struct xc_sr_save *s, uint64_t *count);
void xc_sr_log_free(struct xc_sr_save *s);

/* xc_sr_save_balloon.c */
/* Maps all pages, so that they are pinned, and adds them to `found`. After log-dirty is on. */
int xc_sr_population_start(struct xc_sr_save *s, struct xc_sr_dirty *found);
/* The guest runs: did pages come or go? Then they become suspect, and the next check is thorough. */
int xc_sr_population_sample(struct xc_sr_save *s);
/* The guest is suspended: did pages come that the log does not tell of? They become suspect. -1: they are not found. */
int xc_sr_population_check(struct xc_sr_save *s);
/* Is there memory behind s->pfns? -1, logged. */
int xc_sr_population_check_end(struct xc_sr_save *s);
/* The guest is suspended, all suspects are in the arena: lets go of those given back. */
int xc_sr_population_settle(struct xc_sr_save *s);
/* All pages given back since they were sent become suspect. */
int xc_sr_population_search(struct xc_sr_save *s);
/* A slice of that. */
int xc_sr_population_scan(struct xc_sr_save *s);

/* CLOCK_MONOTONIC. */
uint64_t xc_sr_now_us(void);

#endif
