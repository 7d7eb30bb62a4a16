/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Random workloads on two instances that see the same disk file, with something going wrong at a random
 * point, judged by our own log of writes and barriers.
 *
 *     judge_shared FIRST COUNT      workloads FIRST ... FIRST + COUNT - 1; exit 1 if one failed
 *
 * While it is protected the disk must never hold anything but a committed checkpoint and what leads to
 * the next; promoted at n it must be checkpoint n; and who lost it must not write any more.
 */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "judge_guest.h"
#include "judge_side.h"

#define EPOCHS_MAX 64
#define EPOCH_BYTES (4u << 20)

enum trouble {
    T_NONE,
    T_KILL_PRIMARY,
    T_FREEZE, /* the primary stands still and wakes when it is too late */
    T_KILL_BACKUP,
    T_KILL_BOTH,
    T_LINK,
    T_JOURNAL, /* an epoch that is larger than the journal */
    T_FAULT,   /* EIO, no space or a failed flush at the primary */
    TROUBLES
};
static const char *const trouble_names[] = {"none",      "kill primary", "freeze",  "kill backup",
                                            "kill both", "link",         "journal", "fault"};

struct judge {
    uint64_t seed;
    char dir[120], journal[200];
    const char *limit;
    struct side sides[2], *p, *b; /* who is primary */
    struct relay relay;
    struct judge_model model;
    struct guest g;
    unsigned op_count, trouble_at;
    enum trouble trouble;
    bool secured, unsure, frozen; /* unsure: it may have failed before or after it was secured */
    uint64_t n, committed;
    uint64_t before[EPOCHS_MAX], after[EPOCHS_MAX];
    unsigned failures;
};

static void fail(struct judge *j, const char *what)
{
    fprintf(stderr, "judge_shared: workload %" PRIu64 " (%s): %s (%s)\n", j->seed,
            trouble_names[j->trouble], what, side_reply);
    j->failures++;
}

/* Options of both; the last is free. */
static const char *const *options(const struct judge *j, const char *more)
{
    static const char *v[10];
    int n = 0;

    v[n++] = "--shared";
    v[n++] = j->journal;
    v[n++] = "--settle-ms";
    v[n++] = "500";
    v[n++] = "--limit-ms";
    v[n++] = j->trouble == T_NONE ? "20000" : "3000";
    v[n++] = "--journal";
    v[n++] = j->limit;
    v[n++] = more;
    v[n] = NULL;
    return v;
}

static void connect_guest(struct judge *j)
{
    char uri[300];

    side_uri(j->p, uri, sizeof(uri));
    const char *error = guest_connect(&j->g, uri);
    if (!error) return;
    fail(j, error);
    exit(1);
}

/* ---- a session ---- */

static void signal_side(const struct side *s, int sig)
{
    pid_t pid = side_pid(s);

    if (pid > 1) kill(pid, sig);
}

static void make_trouble(struct judge *j)
{
    if (j->trouble == T_KILL_PRIMARY || j->trouble == T_KILL_BOTH) side_kill(j->p);
    if (j->trouble == T_KILL_BACKUP || j->trouble == T_KILL_BOTH) side_kill(j->b);
    if (j->trouble == T_FREEZE) {
        signal_side(j->p, SIGSTOP);
        j->frozen = true;
    }
}

/* While it brings an epoch to the disk. */
static void freeze_now(struct judge *j)
{
    struct timespec ts = {.tv_nsec = 1000 * (long)guest_rnd(&j->g, 3000)};

    nanosleep(&ts, NULL);
    j->trouble_at = 0;
    make_trouble(j);
}

static void turn(struct judge *j)
{
    if (++j->op_count == j->trouble_at) make_trouble(j);
    if (guest_rnd(&j->g, 3)) guest_issue(&j->g);
    guest_pump(&j->g, guest_rnd(&j->g, 8) ? 0 : 1);
    if (side_running(j->p) && !j->frozen) (void)side_events(j->p, 0);
    if (side_running(j->b) && !side_events(j->b, 0)) side_kill(j->b);
}

static bool over(const struct judge *j)
{
    return !side_running(j->p) || !side_running(j->b) || j->p->lost || j->frozen;
}

static bool establish(struct judge *j)
{
    j->n = j->committed = 0;
    j->g.budget = 2 * EPOCH_BYTES;
    if (!j->g.nbd) connect_guest(j);
    if (sides_link(j->p, j->b, &j->relay, options(j, NULL))) return false;
    if (side_request(j->p, "sync")) return false;
    while (!over(j) && !j->p->synced)
        turn(j);
    if (over(j)) return false;
    j->secured = true;
    j->unsure = side_request(j->p, "protect") != 0;
    return !j->unsure;
}

static void commit(struct judge *j)
{
    if (side_request(j->b, "commit %" PRIu64, j->n)) {
        if (side_running(j->b) && !j->b->lost) fail(j, "commit at the backup");
        return;
    }
    j->committed = j->n;
    if (!over(j) && side_request(j->p, "commit %" PRIu64, j->n) && !j->p->lost)
        fail(j, "commit at the primary");
    if (j->trouble == T_FREEZE && j->trouble_at && j->n > 1 && guest_rnd(&j->g, 2)) freeze_now(j);
}

static void checkpoint(struct judge *j)
{
    if (guest_rnd(&j->g, 2)) (void)guest_settle(&j->g, 500);
    if (over(j)) return;
    j->n++;
    j->before[j->n] = ++j->model.time;
    int r = side_request(j->p, "barrier %" PRIu64, j->n);
    j->after[j->n] = ++j->model.time;
    if (r) {
        j->n--;
        return;
    }
    while (!over(j) && (j->p->barrier < j->n || j->b->barrier < j->n))
        turn(j);
    if (side_running(j->b)) (void)side_events(j->b, 0);
    if (j->b->barrier == j->n && (!over(j) || guest_rnd(&j->g, 2))) commit(j);
}

static void epochs(struct judge *j, unsigned count)
{
    for (unsigned e = 0; e < count && !over(j); e++) {
        unsigned turns = 2 + guest_rnd(&j->g, 30);
        j->g.budget = EPOCH_BYTES;
        for (unsigned i = 0; i < turns && !over(j); i++)
            turn(j);
        if (j->trouble == T_JOURNAL && !strcmp(j->limit, "16M") && e == count / 2) {
            j->g.budget = 12 * EPOCH_BYTES;
            for (int i = 0; i < 20000 && !over(j); i++)
                turn(j);
        }
        if (!over(j)) checkpoint(j);
    }
}

/* ---- judging ---- */

static void judge_checkpoint(struct judge *j, uint64_t n, const char *what)
{
    if (model_check(&j->model, j->p->fd, j->before[n], j->after[n], what)) fail(j, what);
}

static void must_not_serve(struct judge *j, struct side *s)
{
    if (side_start(s, options(j, NULL))) return;
    fail(j, "a disk is served that may be another host's");
    side_stop(s);
}

static uint64_t applied_epoch(struct judge *j)
{
    struct timespec ts = {.tv_nsec = 1000000};

    /* It is applied in the background. */
    for (int i = 0; i < 5000 && side_number(j->p, "applied") != j->committed; i++)
        nanosleep(&ts, NULL);
    return side_number(j->p, "applied");
}

/* Before anything is committed the disk is what it was at `protect`; then, once applied, the checkpoint. */
static void judge_held(struct judge *j)
{
    if (!j->committed || j->p->lost) return;
    if (applied_epoch(j) == j->committed)
        judge_checkpoint(j, j->committed, "the disk while the next epoch is open");
    else if (!j->p->lost)
        fail(j, "a committed epoch is not applied");
}

/* ---- what comes after the trouble ---- */

/* The frozen primary wakes: neither disk nor journal may change by it, and it serves nobody. */
static void wake(struct judge *j, struct side *old, struct guest *g)
{
    static uint8_t disk[2][DISK_BYTES], journal[2][1 << 20];
    int fd = open(j->journal, O_RDONLY | O_CLOEXEC);

    for (int i = 0; i < 2; i++) {
        if (pread(j->b->fd, disk[i], DISK_BYTES, 0) < 0 ||
            pread(fd, journal[i], sizeof(journal[i]), 0) < 0)
            fail(j, "cannot look");
        if (i == 1) break;
        signal_side(old, SIGCONT);
        for (int ms = 0; ms < 1500; ms += 20) {
            guest_pump(g, 20);
            poll(NULL, 0, 20);
        }
    }
    if (memcmp(disk[0], disk[1], DISK_BYTES)) fail(j, "a primary that woke wrote to the disk");
    if (memcmp(journal[0], journal[1], sizeof(journal[0])))
        fail(j, "a primary that woke wrote to the journal");
    if (!side_request(old, "unprotect")) fail(j, "a primary that woke may go on");
    j->frozen = false;
    close(fd);
}

/* The backup takes over at a checkpoint; the old primary comes back as its backup. */
static bool fail_over(struct judge *j)
{
    struct side *old = j->p;
    uint64_t n = j->committed;

    if (!j->frozen) side_kill(old);
    if (!j->frozen) relay_end(&j->relay);
    for (int i = 0; !j->frozen && i < 100 && !j->b->lost; i++)
        (void)side_events(j->b, 100);
    (void)side_events(j->b, 0);
    if (j->b->barrier > n && guest_rnd(&j->g, 2)) n = j->b->barrier;
    if (!n) {
        if (!j->b->barrier && !side_request(j->b, "promote 1"))
            fail(j, "promoted without a checkpoint");
        return false;
    }
    if (side_request(j->b, "promote %" PRIu64, n)) {
        fail(j, "promotion refused");
        return false;
    }
    judge_checkpoint(j, n, "promoted");
    if (j->frozen) wake(j, old, &j->g);
    judge_checkpoint(j, n, "promoted, a while later");
    guest_abandon(&j->g);
    side_kill(old);
    relay_end(&j->relay);
    model_adopt(&j->model, j->b->fd);
    j->p = j->b;
    j->b = old;
    connect_guest(j);
    if (!guest_sees(&j->g, j->p->fd)) fail(j, "NBD serves something else than the disk holds");
    must_not_serve(j, old);
    for (int i = 0; i < 20; i++)
        turn(j);
    return true;
}

/* The primary goes on: all that the guest wrote is on the disk then. */
static void go_on(struct judge *j)
{
    relay_end(&j->relay);
    side_kill(j->b);
    for (int i = 0; side_request(j->p, "unprotect"); i++)
        if (i == 5) {
            fail(j, "unprotect");
            break;
        }
    if (!guest_settle(&j->g, 20000)) fail(j, "a write hangs");
    if (model_check(&j->model, j->p->fd, j->model.time, UINT64_MAX, "unprotected"))
        fail(j, "unprotected");
    if (!guest_sees(&j->g, j->p->fd)) fail(j, "NBD serves something else than the disk holds");
    for (int i = 0; i < 30; i++)
        turn(j);
}

/* Both died: a person decides for one host, no matter which. */
static void start_again(struct judge *j)
{
    guest_abandon(&j->g);
    relay_end(&j->relay);
    side_kill(j->p);
    side_kill(j->b);
    j->p->fault[0] = 0;
    if (j->secured && !j->unsure) {
        must_not_serve(j, j->p);
        must_not_serve(j, j->b);
    }
    if (guest_rnd(&j->g, 2) && j->secured) {
        struct side *other = j->p;
        j->p = j->b;
        j->b = other;
    }
    if (side_start(j->p, options(j, j->secured ? "--force-primary" : NULL))) {
        fail(j, "no primary comes back");
        exit(1);
    }
    if (model_check(&j->model, j->p->fd, j->model.time, UINT64_MAX, "forced")) fail(j, "forced");
    model_adopt(&j->model, j->p->fd);
    connect_guest(j);
}

/* A primary whose storage was mended: stopped in order and started again. */
static void mend(struct judge *j)
{
    if (!guest_settle(&j->g, 20000)) fail(j, "a write hangs");
    guest_abandon(&j->g);
    side_stop(j->p);
    j->p->fault[0] = 0;
    j->p->plugin = getenv("DISK_PLUGIN");
    if (side_start(j->p, options(j, NULL))) {
        fail(j, "the primary does not start again");
        exit(1);
    }
    connect_guest(j);
}

static void aftermath(struct judge *j)
{
    bool p = side_running(j->p) && !j->frozen, b = side_running(j->b);

    if (p && b && !j->p->lost) return;
    if (p && (!b || guest_rnd(&j->g, 2))) {
        go_on(j);
    } else if (!b || !fail_over(j)) {
        start_again(j);
    }
    if (j->p->fault[0]) mend(j);
    j->trouble_at = 0;
    j->relay.harm = HARM_NONE;
    j->frozen = false;
    j->limit = "64M";
    j->b->fault[0] = 0;
    if (!establish(j)) {
        fail(j, "the second protection");
        return;
    }
    epochs(j, 2);
}

/* The guest stands still, and a checkpoint is made of that. False: the link was lost meanwhile. */
static bool last_checkpoint(struct judge *j)
{
    j->g.quiet = true;
    for (int i = 0; i < 1000 && !over(j) && !guest_settle(&j->g, 20); i++)
        turn(j);
    if (!over(j) && !guest_settle(&j->g, 0)) fail(j, "a write hangs");
    if (!over(j)) checkpoint(j);
    bool ok = !over(j) && j->n && j->committed == j->n;
    j->g.quiet = ok;
    return ok;
}

/* The guest stands still: it sees the last checkpoint, also if the link is lost by now and that is not applied. */
static void judge_view(struct judge *j)
{
    int fd = memfd_create("view", MFD_CLOEXEC);

    if (fd < 0 || !guest_copies(&j->g, fd))
        fail(j, "the guest cannot read its disk");
    else if (model_check(&j->model, fd, j->before[j->n], j->after[j->n], "NBD"))
        fail(j, "NBD serves something else than the checkpoint");
    if (fd >= 0) close(fd);
}

static void finish(struct judge *j)
{
    for (int tries = 0; tries < 3 && !j->failures; tries++) {
        if (over(j)) aftermath(j);
        if (last_checkpoint(j)) break;
    }
    if (over(j) || j->failures) {
        fail(j, j->p->reason);
        return;
    }
    judge_held(j);
    judge_view(j);
    if (side_request(j->b, "promote %" PRIu64, j->n)) fail(j, "promotion at the end");
    judge_checkpoint(j, j->n, "promoted at the end");
}

/* ---- one workload ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void first_content(struct judge *j)
{
    static uint8_t buf[GUEST_WRITE_MAX];

    if (ftruncate(j->p->fd, (off_t)DISK_BYTES)) exit(1);
    for (int i = 0; i < 20; i++) {
        uint32_t first, count;
        guest_range(&j->g, &first, &count);
        unsigned index = model_begin(&j->model, first, count, false);
        model_fill(buf, j->model.log[index].id, first, count);
        if (pwrite(j->p->fd, buf, (size_t)count * SECTOR, (off_t)first * SECTOR) < 0) exit(1);
        model_end(&j->model, index, true);
    }
    model_adopt(&j->model, j->p->fd);
}

static void plan_trouble(struct judge *j)
{
    static const char *const faults[] = {"eio", "nospc", "sync"};
    uint32_t kind = guest_rnd(&j->g, 3);

    j->trouble = (enum trouble)(j->seed % TROUBLES);
    j->limit = j->trouble == T_JOURNAL ? "16M" : "64M";
    if (j->trouble >= T_KILL_PRIMARY && j->trouble <= T_KILL_BOTH)
        j->trouble_at = 1 + guest_rnd(&j->g, 300);
    if (j->trouble == T_LINK) {
        j->relay.harm = (enum harm)(HARM_CUT + guest_rnd(&j->g, HARM_STALL));
        j->relay.at = guest_rnd(&j->g, 6000);
        j->relay.stall_ms = guest_rnd(&j->g, 2) ? 300 : 3500;
    }
    if (j->trouble == T_FAULT) {
        snprintf(j->p->fault, sizeof(j->p->fault), "%s@%u", faults[kind],
                 guest_rnd(&j->g, kind == 2 ? 12 : 300) + 8);
        j->p->plugin = getenv("DISK_PLUGIN_FAULTS");
    }
}

static void run(struct judge *j)
{
    first_content(j);
    plan_trouble(j);
    if (side_start(j->p, options(j, NULL))) {
        fail(j, "start");
        return;
    }
    if (establish(j)) epochs(j, 4 + guest_rnd(&j->g, 8));
    if (!over(j) && guest_rnd(&j->g, 2)) judge_held(j);
    aftermath(j);
    if (!j->failures) finish(j);
}

static unsigned workload(uint64_t seed)
{
    static struct judge judge;
    struct judge *j = &judge;
    const char *tmp = getenv("TMPDIR");

    memset(j, 0, sizeof(*j));
    j->seed = seed;
    snprintf(j->dir, sizeof(j->dir), "%.80s/judge-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
    if (!mkdtemp(j->dir)) exit(1);
    snprintf(j->journal, sizeof(j->journal), "%.119s/journal", j->dir);
    j->p = &j->sides[0];
    j->b = &j->sides[1];
    side_init(j->p, j->dir, "a");
    side_init(j->b, j->dir, "b");
    side_share(j->p, j->b);
    guest_init(&j->g, &j->model, seed * 7919 + 1);
    for (int i = 0; i < 10; i++)
        (void)guest_rnd(&j->g, 2);
    run(j);
    guest_dispose(&j->g);
    for (int i = 0; i < 2; i++) {
        struct side *s = &j->sides[i];
        if (j->frozen) signal_side(s, SIGCONT);
        side_kill(s);
        side_unattach(s);
        close(s->fd);
    }
    relay_end(&j->relay);
    if (!j->failures || !getenv("JUDGE_KEEP")) nftw(j->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return j->failures;
}

int main(int argc, char **argv)
{
    return judge_main(argc, argv, workload);
}
