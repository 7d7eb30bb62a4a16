/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A protection from start to end in simulated time: the real plan of the primary, the real twin, a link between them that we
 * own, and everything around them made up.
 *
 *   primary host                          link                      backup host
 *   guest -> net buffer -> "outside"                                 guest's copy -> "outside"
 *   helper -> libxl_remus*.c -> libxl_channel.c -> bytes -> libxl_channel.c -> libxl_twin*.c -> stock receiver
 *   guard's model, libxl_arbiter.c        witness                    libxl_arbiter.c              xentwin-apply
 *   guest's disks: instance   <- control --     writes     -- control ->    instance of each disk
 *
 * What is real: epoch driver, plans, channel, twin, its stream and its children's management, arbiter, event loop. What is made
 * up: hypervisor, guest, QEMU, net buffer, helper, guard, stock receiver, xentwin-apply, instances of the disks,
 * links, witness, time. The judge (soak_judge.c) sees only
 * those and the bytes on the link.
 *
 * One thread; two or three loops ("processes") take turns. All that is random comes from one seed.
 */
#ifndef SOAK_H
#define SOAK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <libxl.h>

#include "libxl_ev.h"

#define PAGES 24
#define PAGE_BYTES 4096u
#define CHECKPOINTS_MAX 4096
#define DISKS 2
#define NEVER INT64_MAX

enum fault_kind {
    FAULT_NONE,
    PRIMARY_HOST_DIES,
    BACKUP_HOST_DIES,
    LINK_CUT,
    LINK_CUT_TO_BACKUP,
    LINK_CUT_TO_PRIMARY,
    LINK_STALLS,
    LINK_CLOSES,
    LINK_CLOSES_AT_BACKUP,
    LINK_CORRUPTS_DATA,
    LINK_CORRUPTS_ANY,
    XL_KILLED,
    HELPER_KILLED,
    GUARD_KILLED,
    GUARD_AND_XL_KILLED,
    TWIN_KILLED,
    RECEIVER_KILLED,
    XL_STOPPED,
    TWIN_STOPPED_FOR_A_WHILE,
    PRIMARY_FREEZES,
    BACKUP_FREEZES,
    GUEST_ENDS,
    GUEST_IS_DEAF,
    QEMU_HANGS,
    USER_STOPS,
    PLUG_FAILS,
    RECEIVER_CANNOT_START,
    PLAIN_FAULTS, /* the others need a warm twin or disks */
    APPLIER_KILLED = PLAIN_FAULTS,
    APPLIER_CRASHES,
    APPLIER_HANGS,
    COPY_DESTROYED,
    DISK_OF_PRIMARY_DIES,
    DISK_OF_BACKUP_DIES,
    DISK_LINK_CLOSES,
    DISK_STANDS_STILL,
    DISK_BARRIER_LOST,
    DISK_REFUSES,
    DISK_PROMOTION_FAILS,
    GUEST_SUSPENDS_LATE, /* comes before another one */
    FAULT_KINDS
};

struct fault {
    enum fault_kind kind;
    int64_t at_ms; /* or, if at_turn is not 0, at that turn of the simulation */
    uint64_t at_turn;
    int64_t for_ms; /* of what passes */
};

struct setup {
    uint64_t seed;
    bool hvm, rule_backup, arbiter, admin_promotes, late_suspend;
    bool witness_for_primary, witness_for_backup; /* it can be reached */
    int limit_ms, interval_ms, tick_ms;
    int delay_ms, jitter_ms, bytes_per_ms; /* of the link */
    int drift_ppm[2];                      /* of each host's clock */
    int slow_percent;                      /* how often a turn of a process takes long */
    int receiver_bytes;                    /* that the stock receiver takes in a ms */
    uint64_t checkpoints;                  /* ends by itself after that many */
    bool warm;                             /* the twin */
    int applier_bytes;                     /* that xentwin-apply takes in a ms; 0: any */
    int disks;                             /* replicated ones */
    int disk_delay_ms;                     /* that their links are slower */
    int late_ms,
        late_before; /* the guest carries out a request so late; it got it so long before the fault, in turns or ms */
    int drop_ms; /* that the stock receiver takes to destroy the copy; 0: some */
    int log_ms;  /* QEMU's longest answer about its dirty log; 0: as any other */
    struct fault faults[2];
    int nr_faults;
    int fail_who; /* the n-th call of this process to the system fails, n = fail_call; 0: none */
    uint64_t fail_call;
};
extern struct setup setup;
extern bool verbose;

/* ---- chance ---- */
void dice_seed(uint64_t seed);
uint64_t dice(void);
int between(int least, int most);
bool chance(int percent);
void setup_from_seed(uint64_t seed);
const char *fault_name(enum fault_kind kind);

/* ---- time, processes, events (soak_sim.c) ---- */
enum who { XL, TWIN, GUARD, PROCS, NOBODY = PROCS };
struct proc {
    const char *name;
    libxl__loop *loop;
    bool alive;
    int64_t busy_until, due;
    bool idle;
    int host; /* whose clock: 0 primary, 1 backup */
};
extern struct proc procs[PROCS];
extern int64_t now_ms;
extern uint64_t turn_count;
extern enum who current;

void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
xentoollog_logger *sim_logger(void);
int64_t host_clock_ms(int host);
libxl__clock proc_clock(enum who who);
/* The loop was made by the caller; it runs from now on. */
void proc_start(enum who who, libxl__loop *loop);
/* Its owner is done with it: nothing may be registered on the loop, and no file may be left open. */
void proc_exit(enum who who);
void proc_kill(
    enum who who); /* as SIGKILL: its files are closed, its memory is nobody's any more */
void proc_stop(enum who who, int64_t ms);
/* fn(arg) in ms from now; in the process: at its next turn, lost when it is killed. */
void after(int64_t ms, void (*fn)(void *arg), void *arg);
void post(enum who who, void (*fn)(libxl__egc *egc, void *arg), void *arg);
void sim_run(bool (*over)(void));
void sim_some(void); /* a few steps */
void sim_start(void);
int files_of(enum who who);
/* Is this the call that is to fail? */
bool sim_call_fails(void);
extern uint64_t sim_calls; /* of setup.fail_who, so far */
/* The file that was just opened belongs to the process whose turn it is. */
void sim_own(int fd);

/* ---- children, in soak_child.c: what the real code forks ---- */
void children_start(void);
bool children_pump(void);
bool children_gone(void);
void witness_start(void);

/* ---- link ---- */
void link_start(int fds[2]);
bool link_pump(void);
int64_t link_due(void);
void link_cut(bool to_backup, bool to_primary);
void link_stall(int64_t ms);
void link_close(bool at_backup_only);
void link_source_dies(bool primary);
void link_corrupt(bool any);
bool link_was_corrupted(void);
bool link_is_cut(bool to_backup);
int64_t link_stalled_until(bool to_backup);

/* ---- disks ---- */
extern const char *const disk_names[DISKS];
void disks_start(void);
bool disks_pump(void);
int64_t disks_due(void);
void disks_guest_writes(uint64_t tick);
int disks_link_fd(void *user, unsigned disk);
void disks_fault(const struct fault *f);
void disks_of_host_die(int host);
void disks_of_host_freeze(int host, int64_t ms);
/* The instances of that host hear nothing from now on. */
void disks_hear_nothing(bool backup);
void disks_go_on_here(void); /* what the guard says to them */
uint64_t disks_committed(void);
/* Every disk of the backup had told the twin of a sealed epoch by then (the backup's clock). */
bool disks_told_by(int64_t ms);
void judge_disks_of_copy(uint64_t count);
void judge_disks_of_primary(void);
void judge_disks_dropped(void);

/* ---- warm twin ---- */
void applier_start(void);
void applier_fault(enum fault_kind kind);

/* ---- primary host: guest, QEMU, net buffer; helper; the operation's surroundings and the guard ---- */
void primary_start(int fd);
void primary_look(void);
void primary_host_dies(void);
void user_stops(void);
void xl_is_killed(void);
int completions(void);
int completion_result(void);
void helper_start(void);
bool primary_pump(void);
void helper_kill(void);
void helper_parent_gone(void);
bool helper_gone(void);
void guard_kill(void);
bool guard_gone(void);

struct guest {
    bool here, suspended, paused, ended, deaf, qemu_hangs, qemu_stopped, logdirty;
    bool qemu_log; /* the global dirty log */
    uint64_t counter;
    uint64_t page[PAGES];
    bool dirty[PAGES];
    int64_t frozen_until;
    int64_t late_ms; /* it takes the next request to suspend, and carries it out so late */
    bool plug_fails, plug_left; /* the next call of the net buffer fails; removing it failed */
    bool netbuf;
};
extern struct guest guest;
bool guest_runs(void);
void suspend_withdraw(void);
bool suspend_to_come(void);
void guest_start(void);
void netbuf_open_and_remove(void);
void netbuf_die(void);
/* What the memory is after so many ticks. */
void memory_after(uint64_t ticks, uint64_t page[PAGES]);

/* ---- backup host ---- */
void backup_start(int fd);
void backup_look(void);
void backup_host_dies(void);
void copy_is_destroyed(void);
void receiver_kill(void);
void admin_says(const char *word);
bool twin_waits(void);
bool twin_promotes(void);
bool twin_finished_once(void);
bool twin_promoted(void);
bool half_built(void);
extern bool copy_runs; /* the guest's copy was let run */

/* ---- judge ---- */
struct judge {
    bool failed;
    char why[400];
    uint64_t suspends, counter_at[CHECKPOINTS_MAX]; /* at suspend n, modulo the array */
    uint64_t commit_delivered, ack_sent, ack_delivered;
    uint64_t echo;           /* newest heartbeat whose echo came back: the primary's clock */
    int64_t first_commit_ms; /* when COMMIT 1 reached the backup's socket: its clock */
    int64_t last_byte_ms;    /* when the backup last read one: its clock */
    uint64_t released;       /* newest frame that left the primary */
    uint64_t left_by_release;
    bool opened, promoted; /* the net buffer was removed; the copy ran */
    bool stop_delivered;   /* the twin was told to go */
    bool receiver_started; /* before that nobody can take over, whatever was committed */
    int64_t fault_ms, settled_ms, promoted_ms;
    bool refused_primary, refused_backup; /* by the witness */
    bool admin_promoted;
    bool call_failed; /* the one of the setup */
    bool domain_open,
        open_at_commit; /* the warm twin's domain was being written to; at the last COMMIT */
    uint64_t applied;   /* to it */
    bool disks_promoting;
    bool killed_promoting; /* the twin, when it was starting the guest */
};
extern struct judge judge;
void judge_start(void);
void judge_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void judge_suspended(void);
void judge_opens(void);
/* epoch 0: it was not held, or the buffer was opened. */
void judge_frame_leaves(uint64_t seq, uint64_t epoch);
void judge_backup_reads(void);
/* The twin asks for the right to run, or takes it by its rule. */
void judge_backup_asks(void);
void judge_frame_on_link(bool to_backup, bool delivered, uint32_t type, uint64_t arg);
void judge_copy_runs(const uint64_t page[PAGES], uint64_t vcpu, uint64_t device);
void judge_end(void);
/* A fault of this kind came to pass in this run. */
bool happened(enum fault_kind kind);

#endif
