/* SPDX-License-Identifier: LGPL-2.1-only */
/* One libxl-save-helper, ours or Debian's, started and answered as libxl would. Failures of the caller's own calls end the program. */
#ifndef BENCH_HELPER_H
#define BENCH_HELPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum bench_message {
    MSG_LOG = 1,
    MSG_PROGRESS,
    MSG_SUSPEND,
    MSG_POSTCOPY,
    MSG_CHECKPOINT,
    MSG_LOGDIRTY = 7,
    MSG_STATIC,
    MSG_RESULTS,
    MSG_COMPLETE
};

/* What to answer to a message that asks. Not called for MSG_COMPLETE. */
typedef int bench_answer(uint16_t type);

struct bench_helper {
    const char *socket, *program; /* of the simulated host */
    unsigned int domid;
    bool restores, checkpointed;
    bool live;
    bench_answer *answer;
    /* own */
    pid_t pid;
    int in, out;
    int retval;
    uint64_t own_kib; /* the most that was seen at a sample */
};

/* Takes the stream. */
void bench_helper_start(struct bench_helper *h, int stream);
/* Until it closes its end. */
void bench_helper_serve(struct bench_helper *h);
/* Waits for it. Did it end as it should? */
bool bench_helper_end(struct bench_helper *h);
/* Looks at how much memory of its own (not the guest's, which it maps) it has right now. */
void bench_helper_sample(struct bench_helper *h);
/* CPU time that its first thread has used. */
uint64_t bench_helper_cpu_us(const struct bench_helper *h);

uint64_t bench_now_us(void);
void bench_fail(const char *what);

#endif
