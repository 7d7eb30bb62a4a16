/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What a person or a program sees of a running protection.
 *
 * On a terminal one progress line is redrawn in place and all other lines are written above it.
 * Elsewhere the same line is written every 10 s. All calls may come from any thread, and none waits for
 * whoever reads: while nobody does, progress is left out and some hundred lines are kept.
 */
#ifndef XL_PROGRESS_H
#define XL_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>

#include "libxl_replication.h"
#include "xl_writer.h"

#define XL_PROGRESS_LOG_MS 10000

struct xl_progress {
    /* xentoollog_logger must stay first: the logger of libxl is this very object. */
    xentoollog_logger logger;
    xentoollog_level level; /* what is below is not shown */
    bool timestamps;
    struct xl_writer *out; /* NULL: at its end */
    int out_fd;
    bool terminal;
    struct xl_writer *stats; /* --stats, or NULL */
    unsigned missed;         /* lines that found no room since the last that did */
    unsigned stats_missed;
    const char *domain, *peer;
    pthread_mutex_t lock;
    char line[512];        /* the progress line as drawn; empty: none */
    int64_t copy_began_ms; /* first word on the first copy */
    int64_t copying_ms;    /* of the newest word on the first copy */
    unsigned copy_round;   /* all of memory, then what changed meanwhile, again and again */
    int64_t last_ms;       /* of the newest line; 0: no checkpoint yet */
    uint64_t bytes;        /* since last_ms */
};

/* All but the numbers is borrowed. verbosity: -v count. False with errno set: there is no thread to write with. */
bool xl_progress_init(struct xl_progress *p, int out, const char *domain, const char *peer,
                      int verbosity);
/* Opens --stats FILE; false with errno set. */
bool xl_progress_open_stats(struct xl_progress *p, const char *path);
/* One acknowledged checkpoint: progress line and stats object. */
void xl_progress_checkpoint(struct xl_progress *p, const libxl_checkpoint_stats *stats);
/* The first copy of memory: pages done of total; each round of it begins with 0. */
void xl_progress_copying(struct xl_progress *p, uint64_t done, uint64_t total);
/* One line for a person. */
void xl_progress_line(struct xl_progress *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Leaves the progress line as it stands: what comes now comes below it. */
void xl_progress_leave(struct xl_progress *p);
/* The same, and the end of all output, which is waited for a second or two at most. Safe twice. */
void xl_progress_end(struct xl_progress *p);

/*
 * The progress line for a terminal of width columns (0: no limit); whole fields are left out at the
 * end when they do not fit. mb_per_s is what flowed lately.
 */
void xl_progress_format(char *out, size_t size, int width, const char *domain, const char *peer,
                        const libxl_checkpoint_stats *stats, double mb_per_s);
/* The JSON object of one checkpoint, without newline. */
void xl_stats_format(char *out, size_t size, const libxl_checkpoint_stats *stats);

#endif
