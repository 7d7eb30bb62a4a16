/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Many protections, each with its own seed and fault.
 *
 *   soak [--runs N] [--from SEED]     N runs, each in a process of its own; the seeds that failed are told
 *   soak --seed N [-v]                one run again, with what happened in it
 *   soak --calls N                    N protections again and again, each time with another call to the system that fails
 *   soak --seed N --fail WHO:CALL [-v]    one of those again
 *   soak --epochs N                   one long protection: memory must not grow in N epochs
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "soak.h"

#define LONGEST_MS 3600000
#define RUN_SECONDS 60 /* of real time */
/* The twin's buffer doubles when checkpoints happen to wait there together, and that is rare. */
#define WARM_EPOCHS 30000

struct setup setup;
static bool applied[2];
static int64_t linger_until;

static const char *const names[FAULT_KINDS] = {
    [FAULT_NONE] = "no fault",
    [PRIMARY_HOST_DIES] = "primary host dies",
    [BACKUP_HOST_DIES] = "backup host dies",
    [LINK_CUT] = "link cut",
    [LINK_CUT_TO_BACKUP] = "link cut to the backup only",
    [LINK_CUT_TO_PRIMARY] = "link cut to the primary only",
    [LINK_STALLS] = "link stalls",
    [LINK_CLOSES] = "link closes",
    [LINK_CLOSES_AT_BACKUP] = "link closes at the backup only",
    [LINK_CORRUPTS_DATA] = "link corrupts data",
    [LINK_CORRUPTS_ANY] = "link corrupts anything",
    [XL_KILLED] = "xl killed",
    [HELPER_KILLED] = "helper killed",
    [GUARD_KILLED] = "guard killed",
    [GUARD_AND_XL_KILLED] = "guard and xl killed",
    [TWIN_KILLED] = "twin killed",
    [RECEIVER_KILLED] = "stock receiver killed",
    [XL_STOPPED] = "xl stopped for a while",
    [TWIN_STOPPED_FOR_A_WHILE] = "twin stopped for a while",
    [PRIMARY_FREEZES] = "primary host stands still for a while",
    [BACKUP_FREEZES] = "backup host stands still for a while",
    [GUEST_ENDS] = "guest powers off",
    [GUEST_IS_DEAF] = "guest does not answer",
    [QEMU_HANGS] = "QEMU hangs",
    [USER_STOPS] = "user stops it",
    [PLUG_FAILS] = "net buffer call fails",
    [RECEIVER_CANNOT_START] = "copy cannot start",
    [APPLIER_KILLED] = "xentwin-apply is killed",
    [APPLIER_CRASHES] = "xentwin-apply crashes again and again",
    [APPLIER_HANGS] = "xentwin-apply hangs",
    [COPY_DESTROYED] = "waiting copy is destroyed",
    [DISK_OF_PRIMARY_DIES] = "disk's instance dies on the primary",
    [DISK_OF_BACKUP_DIES] = "disk's instance dies on the backup",
    [DISK_LINK_CLOSES] = "disk's link closes",
    [DISK_STANDS_STILL] = "disk's instance stands still",
    [DISK_BARRIER_LOST] = "disk's barrier is not told",
    [DISK_REFUSES] = "disk refuses something",
    [DISK_PROMOTION_FAILS] = "disk cannot be promoted",
    [GUEST_SUSPENDS_LATE] = "guest suspends late",
};

const char *fault_name(enum fault_kind kind)
{
    return names[kind];
}

/* ---- the faults ---- */

bool happened(enum fault_kind kind)
{
    for (int i = 0; i < setup.nr_faults; i++)
        if (applied[i] && setup.faults[i].kind == kind) return true;
    return false;
}

static void guest_ends(void)
{
    say("the guest powers off");
    guest.ended = true;
    guest.suspended = false;
}

static void twin_is_killed(void)
{
    judge.killed_promoting = twin_promotes();
    proc_kill(TWIN);
}

static void freeze_link(void *arg)
{
    link_stall((intptr_t)arg);
}

/*
 * Its processes stand still; the last packets still reach its sockets, what comes later is sent again after a while. So it may
 * wake with an acknowledgement to read and without a sign that the peer is gone.
 */
static void host_freezes(bool primary, int64_t ms)
{
    int last = between(0, 30);

    say("the %s host stands still for %lld ms", primary ? "primary" : "backup", (long long)ms);
    after(last, freeze_link, (void *)(intptr_t)(ms - last + between(0, 1000)));
    proc_stop(primary ? XL : TWIN, ms);
    disks_of_host_freeze(!primary, ms);
    if (!primary) return;
    proc_stop(GUARD, ms);
    guest.frozen_until = now_ms + ms;
}

static void apply_link(const struct fault *f)
{
    switch (f->kind) {
    case LINK_CUT:
        link_cut(true, true);
        return;
    case LINK_CUT_TO_BACKUP:
        link_cut(true, false);
        return;
    case LINK_CUT_TO_PRIMARY:
        link_cut(false, true);
        return;
    case LINK_STALLS:
        link_stall(f->for_ms);
        return;
    case LINK_CLOSES:
    case LINK_CLOSES_AT_BACKUP:
        link_close(f->kind == LINK_CLOSES_AT_BACKUP);
        return;
    default:
        link_corrupt(f->kind == LINK_CORRUPTS_ANY);
        return;
    }
}

static void apply_to_processes(const struct fault *f)
{
    switch (f->kind) {
    case XL_KILLED:
        xl_is_killed();
        return;
    case GUARD_AND_XL_KILLED:
        guard_kill();
        xl_is_killed();
        return;
    case HELPER_KILLED:
        helper_kill();
        return;
    case GUARD_KILLED:
        guard_kill();
        return;
    case TWIN_KILLED:
        twin_is_killed();
        return;
    case RECEIVER_KILLED:
        receiver_kill();
        return;
    case XL_STOPPED:
        proc_stop(XL, f->for_ms);
        return;
    default:
        proc_stop(TWIN, f->for_ms);
        return;
    }
}

static void apply_to_parts(const struct fault *f)
{
    if (f->kind == COPY_DESTROYED)
        copy_is_destroyed();
    else if (f->kind < DISK_OF_PRIMARY_DIES)
        applier_fault(f->kind);
    else
        disks_fault(f);
}

static void apply(const struct fault *f)
{
    say("FAULT: %s", fault_name(f->kind));
    if (judge.fault_ms < 0) judge.fault_ms = now_ms;
    switch (f->kind) {
    case PRIMARY_HOST_DIES:
        primary_host_dies();
        return;
    case BACKUP_HOST_DIES:
        backup_host_dies();
        return;
    case GUEST_ENDS:
        guest_ends();
        return;
    case GUEST_IS_DEAF:
        guest.deaf = true;
        return;
    case GUEST_SUSPENDS_LATE:
        guest.late_ms = f->for_ms;
        return;
    case QEMU_HANGS:
        guest.qemu_hangs = true;
        return;
    case USER_STOPS:
        user_stops();
        return;
    case PRIMARY_FREEZES:
    case BACKUP_FREEZES:
        host_freezes(f->kind == PRIMARY_FREEZES, f->for_ms);
        return;
    case PLUG_FAILS:
        guest.plug_fails = true;
        return;
    case FAULT_NONE:
    case RECEIVER_CANNOT_START:
        return;
    default:
        if (f->kind >= PLAIN_FAULTS)
            apply_to_parts(f);
        else if (f->kind >= LINK_CUT && f->kind <= LINK_CORRUPTS_ANY)
            apply_link(f);
        else
            apply_to_processes(f);
    }
}

static void apply_due(void)
{
    for (int i = 0; i < setup.nr_faults; i++) {
        const struct fault *f = &setup.faults[i];

        if (applied[i] || (f->at_turn ? turn_count < f->at_turn : now_ms < f->at_ms)) continue;
        applied[i] = true;
        apply(f);
    }
}

/* ---- one run ---- */

static void admin_looks(void)
{
    if (!twin_waits()) return;
    admin_says(!guest.here && setup.admin_promotes ? "promote guest" : "discard guest");
}

static bool all_over(void)
{
    apply_due();
    primary_look();
    backup_look();
    admin_looks();
    if (now_ms > LONGEST_MS + (int64_t)setup.checkpoints * 1000) {
        judge_fail("it does not end: xl %s, twin %s, helper %s, children %s",
                   procs[XL].alive ? "lives" : "is gone", procs[TWIN].alive ? "lives" : "is gone",
                   helper_gone() ? "is gone" : "lives", children_gone() ? "gone" : "live");
        return true;
    }
    if (procs[XL].alive || procs[TWIN].alive || procs[GUARD].alive || !children_gone() ||
        (guest.here && !helper_gone()) || (guest.here && !guard_gone()) || suspend_to_come()) {
        linger_until = 0;
        return false;
    }
    /* What was set going and forgotten shows in the next seconds. */
    if (!linger_until) linger_until = now_ms + 500;
    return now_ms >= linger_until;
}

static void start_all(void)
{
    int fds[2];

    memset(applied, 0, sizeof(applied));
    linger_until = 0;
    children_start();
    witness_start();
    judge_start();
    sim_start();
    link_start(fds);
    disks_start();
    backup_start(fds[1]);
    primary_start(fds[0]);
}

bool soak_run(void)
{
    start_all();
    sim_run(all_over);
    judge_end();
    return !judge.failed;
}

/* The most memory in use in the time of so many epochs: buffers come and go within one. */
static size_t peak_until(uint64_t epoch)
{
    size_t most = 0;

    while (!judge.failed && judge.ack_delivered < epoch) {
        struct mallinfo2 mi;

        sim_some();
        mi = mallinfo2();
        if (mi.uordblks + mi.hblkhd > most) most = mi.uordblks + mi.hblkhd;
    }
    return most;
}

bool soak_epochs(uint64_t epochs)
{
    uint64_t all = WARM_EPOCHS + epochs;
    size_t early, late;

    setup_from_seed(1);
    setup.nr_faults = setup.slow_percent = setup.jitter_ms = setup.delay_ms = 0;
    setup.hvm = setup.warm = true;
    setup.disks = 1;
    setup.interval_ms = 20;
    setup.tick_ms = 7;
    setup.bytes_per_ms = 1 << 20;
    setup.checkpoints = all;
    start_all();
    early = peak_until(WARM_EPOCHS);
    peak_until(all - epochs / 10);
    late = peak_until(all - 1);
    sim_run(all_over);
    judge_end();
    printf("most memory in use: the first %d epochs %zu KiB, the last %lu of %lu more %zu KiB\n",
           WARM_EPOCHS, early >> 10, (unsigned long)(epochs / 10), (unsigned long)epochs,
           late >> 10);
    /* One octet for each epoch would show in a long run. */
    if (late > early + epochs + 16384) judge_fail("memory grows");
    return !judge.failed;
}

/* ---- many runs ---- */

enum { RUN_FAILED = 1, RUN_PROMOTED = 10, RUN_STAYED, RUN_NEITHER, RUN_NO_CALL };

static const char *title(void)
{
    static char text[100];

    snprintf(text, sizeof(text), "seed %lu", (unsigned long)setup.seed);
    if (setup.fail_call)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), " --fail %s:%lu",
                 setup.fail_who == XL ? "xl" : "twin", (unsigned long)setup.fail_call);
    return text;
}

static const char *first_fault(void)
{
    return fault_name(setup.nr_faults ? setup.faults[0].kind : FAULT_NONE);
}

/* The run of the setup in a process of its own. */
static int run_apart(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) {
        alarm(RUN_SECONDS);
        if (!soak_run()) {
            printf("%s (%s): %s\n", title(), first_fault(), judge.why);
            fflush(stdout);
            _exit(RUN_FAILED);
        }
        if (setup.fail_call && !judge.call_failed) _exit(RUN_NO_CALL);
        _exit(judge.promoted ? RUN_PROMOTED : judge.opened ? RUN_STAYED : RUN_NEITHER);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("soak");
        exit(1);
    }
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    printf("%s (%s): died by signal %d\n", title(), first_fault(), WTERMSIG(status));
    return RUN_FAILED;
}

/* Short, so that there are not too many calls; every second one without another fault. */
static void setup_for_calls(uint64_t seed)
{
    setup_from_seed(seed);
    setup.checkpoints = 2;
    setup.slow_percent = setup.receiver_bytes = 0;
    if (seed % 2) setup.nr_faults = 0;
}

/* Each call of the primary's process, then each of the twin's, fails once. */
static int run_calls(uint64_t seeds)
{
    static const enum who processes[] = {XL, TWIN};
    unsigned long runs = 0, failed = 0;

    for (uint64_t seed = 1; seed <= seeds; seed++)
        for (int i = 0; i < 2; i++)
            for (uint64_t n = 1;; n++) {
                int how;

                setup_for_calls(seed);
                setup.fail_who = (int)processes[i];
                setup.fail_call = n;
                how = run_apart();
                if (how == RUN_NO_CALL) break;
                runs++;
                failed += how < RUN_PROMOTED;
            }
    printf("%lu runs, each with another call that fails: %lu failed\n", runs, failed);
    return failed ? 1 : 0;
}

static int run_many(uint64_t from, uint64_t runs)
{
    unsigned kinds[FAULT_KINDS] = {0}, promoted = 0, stayed = 0, neither = 0, failed = 0;
    int kind, how;

    for (uint64_t seed = from; seed < from + runs; seed++) {
        setup_from_seed(seed);
        how = run_apart();
        kinds[setup.nr_faults ? setup.faults[0].kind : FAULT_NONE]++;
        promoted += how == RUN_PROMOTED;
        stayed += how == RUN_STAYED;
        neither += how == RUN_NEITHER;
        failed += how < RUN_PROMOTED;
    }
    for (kind = 0; kind < FAULT_KINDS; kind++)
        printf("%6u  %s\n", kinds[kind], fault_name((enum fault_kind)kind));
    printf("%lu runs: %u promoted, %u went on at the primary, %u wait for a person or ended, %u "
           "failed\n",
           (unsigned long)runs, promoted, stayed, neither, failed);
    return failed ? 1 : 0;
}

static uint64_t number(const char *option, const char *text)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (errno || end == text || *end || *text == '-') {
        fprintf(stderr, "soak: %s is '%s': give a whole number\n", option, text);
        exit(2);
    }
    return value;
}

/* xl:N or twin:N */
static void take_fail(const char *text)
{
    const char *colon = strchr(text, ':');

    if (!colon || (strncmp(text, "xl:", 3) && strncmp(text, "twin:", 5))) {
        fprintf(stderr, "soak: --fail is '%s': say xl:N or twin:N\n", text);
        exit(2);
    }
    setup.fail_who = *text == 'x' ? XL : TWIN;
    setup.fail_call = number("--fail", colon + 1);
}

static int run_one(uint64_t seed, const char *fail)
{
    if (fail)
        setup_for_calls(seed);
    else
        setup_from_seed(seed);
    if (fail) take_fail(fail);
    soak_run();
    printf("%s: %s\n", title(), judge.failed ? judge.why : "nothing wrong");
    return judge.failed;
}

int main(int argc, char **argv)
{
    static const struct option opts[] = {{"runs", 1, NULL, 'n'},    {"from", 1, NULL, 'f'},
                                         {"seed", 1, NULL, 's'},    {"fail", 1, NULL, 'F'},
                                         {"calls", 1, NULL, 'c'},   {"epochs", 1, NULL, 'e'},
                                         {"verbose", 0, NULL, 'v'}, {NULL, 0, NULL, 0}};
    uint64_t runs = 200, from = 1, seed = 0, epochs = 0, calls = 0;
    const char *fail = NULL;
    int o;

    while ((o = getopt_long(argc, argv, "v", opts, NULL)) != -1) {
        if (o == 'n') runs = number("--runs", optarg);
        if (o == 'f') from = number("--from", optarg);
        if (o == 's') seed = number("--seed", optarg);
        if (o == 'e') epochs = number("--epochs", optarg);
        if (o == 'c') calls = number("--calls", optarg);
        if (o == 'F') fail = optarg;
        if (o == 'v') verbose = true;
        if (o == '?') return 2;
    }
    if (optind != argc) {
        fprintf(stderr, "soak: unexpected argument '%s'\n", argv[optind]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (calls) return run_calls(calls);
    if (seed) return run_one(seed, fail);
    if (!epochs) return run_many(from, runs);
    if (soak_epochs(epochs)) return 0;
    printf("%s\n", judge.why);
    return 1;
}
