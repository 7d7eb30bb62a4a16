/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What a disk may hold, told by a log of the writes that were made: nothing of the product is used.
 *
 * Each write has a number; each of its sectors holds the number and a pattern made of it and of the
 * sector. A write that ended before another began is older; two that overlapped in time may have
 * happened in either order, sector by sector.
 */
#ifndef JUDGE_MODEL_H
#define JUDGE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512
#define SECTORS 16384u
#define DISK_BYTES ((uint64_t)SECTORS * SECTOR)
#define LOG_MAX 4096

struct logged {
    uint32_t first, count, id; /* id 0: zeros */
    uint64_t begun, ended;     /* ended 0: not known to have ended */
    bool failed;               /* may have happened or not, for ever */
};

struct judge_model {
    uint32_t now[SECTORS]; /* before the log */
    struct logged log[LOG_MAX];
    unsigned count;
    uint64_t time;
    uint32_t last_id;
};

void model_fill(uint8_t *buf, uint32_t id, uint32_t first, uint32_t count);
/* Begins a write; the index is for model_end. */
unsigned model_begin(struct judge_model *m, uint32_t first, uint32_t count, bool zero);
void model_end(struct judge_model *m, unsigned index, bool ok);
/* Looks at a disk that must hold the state of the instant between `before` and `after` (times of the
 * model; UINT64_MAX: now, everything ended). Returns the number of wrong sectors and says the first. */
unsigned model_check(const struct judge_model *m, int fd, uint64_t before, uint64_t after,
                     const char *what);
/* The log is closed: what the disk holds is what was written. */
void model_adopt(struct judge_model *m, int fd);

#endif
