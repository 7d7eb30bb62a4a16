/* SPDX-License-Identifier: LGPL-2.1-only */
/* The fake world under the Remus plan: guest, plug, backup, helper. Counts calls and fails the one it is told to. */
#ifndef FAULT_WORLD_H
#define FAULT_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "libxl_ev.h"

struct world_setup {
    bool hvm, rule_backup, netbuf, disks;
    unsigned checkpoints; /* ends gracefully after that many */
    bool undecided;       /* an earlier protection left the guest behind a closed plug */
    /* Turns: QEMU's answer about its dirty log; the helper's, until it looks at a stream that has ended, and leaves; what it gets after
     * SIGTERM. */
    int log_turns, look_turns, leave_turns, grace_turns;
    int drop_ms;               /* from STOP to STOPPED */
    bool destroyed;            /* the guest's end is xl destroy: its domain is gone */
    int late_suspend, late_ms; /* the n-th request is taken at once and carried out so much later */
};

enum world_guest { GUEST_IS_RUNNING, GUEST_IS_SUSPENDED, GUEST_IS_PAUSED, GUEST_IS_ENDED };
enum world_plug { PLUG_NONE, PLUG_OPEN, PLUG_CLOSED };

struct world {
    int calls, fail_call, turns;
    int completions, result;
    enum world_guest guest;
    enum world_plug plug;
    bool netbuf_wanted, vm_stopped, teardown_failed, undecided;
    int guards; /* that were started */
    bool early_output, denied, granted;
    bool backup_has_checkpoint, twin_dropped;
    uint64_t plugged, acked, released;
    bool disks_protected, disks_unprotected, early_barrier;
    bool qemu_log, qemu_aborted, qmp_failed; /* told to end a dirty log that it did not keep */
    bool unasked_answer;                     /* the helper got one */
    bool suspends_unseen; /* it will, when the operation is over and should have waited for it */
    int open_things, resumes, log_ends;
};
extern struct world world;

void world_start(const struct world_setup *setup);
void world_turn(void); /* one turn of the loop, the fake clock moving as needed */
void world_end(void);
void world_lose_peer(void);
/* It says ERROR and closes: its twin is dropped. */
void world_backup_gives_up(void);
void world_kill_helper(void);
void world_end_guest(void);
void world_abort(void);
void world_ask_status(void);
/* What the operation's own memory holds: it is freed at the end only. */
size_t world_allocations(void);
void world_lose_disks(void);

/* Is this the call that fails? */
bool world_faulty(void);
/* fault_disks.c */
void world_disks_turn(libxl__egc *egc);

#endif
