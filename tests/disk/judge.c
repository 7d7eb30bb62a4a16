/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Random workloads on two instances, with something going wrong at a random point, judged by our own
 * log of writes and barriers. The judge is the library: it makes the checkpoints, decides who goes on,
 * brings the other side back, and at last both disks must hold what was written.
 *
 *     judge FIRST COUNT      workloads FIRST ... FIRST + COUNT - 1; exit 1 if one failed
 * DISK_TOOL, DISK_PLUGIN and DISK_PLUGIN_FAULTS name what is tested.
 */
#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "judge_model.h"
#include "judge_side.h"

#define IN_FLIGHT 8
#define WRITE_MAX (3u << 20)
#define EPOCHS_MAX 64
#define EPOCH_BYTES (6u << 20)

enum trouble {
    T_NONE,
    T_KILL_PRIMARY,
    T_KILL_BACKUP,
    T_KILL_BOTH,
    T_LINK,        /* cut, flipped, lost, swapped, stalled */
    T_JOURNAL,     /* an epoch that is larger than the journal */
    T_BACKUP_DISK, /* EIO, no space, failed flush, short transfers */
    T_PRIMARY_DISK,
    TROUBLES
};
static const char *const trouble_names[] = {"none",          "kill primary",  "kill backup",
                                            "kill both",     "link",          "journal",
                                            "backup's disk", "primary's disk"};

struct op {
    bool busy, logged;
    unsigned index;
    int64_t cookie;
    uint8_t *buf;
};

struct judge {
    uint64_t seed, random;
    char dir[120];
    struct side sides[2], *p, *b; /* who is primary */
    struct relay relay;
    struct judge_model model;
    struct nbd_handle *nbd;
    struct op ops[IN_FLIGHT];
    unsigned op_count, trouble_at;
    enum trouble trouble;
    bool secured, troubled, quiet; /* quiet: the guest stands still */
    uint64_t n, sealed, committed; /* checkpoints of this session */
    uint64_t before[EPOCHS_MAX], after[EPOCHS_MAX];
    uint64_t budget; /* octets that the guest may write until the next checkpoint */
    unsigned failures;
    const char *journal;
};

static void fail(struct judge *j, const char *what)
{
    fprintf(stderr, "judge: workload %" PRIu64 " (%s): %s (%s)\n", j->seed,
            trouble_names[j->trouble], what, side_reply);
    j->failures++;
}

static uint32_t rnd(struct judge *j, uint32_t below)
{
    j->random = j->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((j->random >> 33) % below);
}

/* ---- the guest's writes ---- */

static void guest_connect(struct judge *j)
{
    char uri[300];

    side_uri(j->p, uri, sizeof(uri));
    j->nbd = nbd_create();
    if (!j->nbd || nbd_connect_uri(j->nbd, uri)) {
        fail(j, nbd_get_error());
        exit(1);
    }
}

static void op_ended(struct judge *j, struct op *o, bool ok)
{
    o->busy = false;
    if (o->logged) model_end(&j->model, o->index, ok);
}

/* Looks for completions; waits at most ms for something to happen. */
static void guest_pump(struct judge *j, int ms)
{
    if (!j->nbd) return;
    if (nbd_aio_is_ready(j->nbd) || nbd_aio_is_processing(j->nbd)) (void)nbd_poll(j->nbd, ms);
    bool dead = nbd_aio_is_dead(j->nbd) || nbd_aio_is_closed(j->nbd);
    for (int i = 0; i < IN_FLIGHT; i++) {
        struct op *o = &j->ops[i];
        if (!o->busy) continue;
        int r = nbd_aio_command_completed(j->nbd, (uint64_t)o->cookie);
        if (r == 1)
            op_ended(j, o, true);
        else if (r < 0 || dead)
            op_ended(j, o, false);
    }
}

static unsigned guest_busy(const struct judge *j)
{
    unsigned n = 0;

    for (int i = 0; i < IN_FLIGHT; i++)
        n += j->ops[i].busy;
    return n;
}

static void guest_settle(struct judge *j)
{
    while (j->nbd && guest_busy(j))
        guest_pump(j, 100);
}

static void guest_abandon(struct judge *j)
{
    for (int i = 0; i < IN_FLIGHT; i++)
        if (j->ops[i].busy) op_ended(j, &j->ops[i], false);
    nbd_close(j->nbd);
    j->nbd = NULL;
}

static struct op *free_op(struct judge *j)
{
    for (int i = 0; i < IN_FLIGHT; i++)
        if (!j->ops[i].busy) return &j->ops[i];
    return NULL;
}

static void choose_range(struct judge *j, uint32_t *first, uint32_t *count)
{
    uint32_t shape = rnd(j, 20);

    *count = shape == 0 ? 1 + rnd(j, WRITE_MAX / SECTOR) : shape < 10 ? 8 : 1 + rnd(j, 300);
    /* Half of them close together, so that many overlap. */
    *first = rnd(j, 2) ? rnd(j, 256) : rnd(j, SECTORS - 1);
    if (*count > SECTORS - *first) *count = SECTORS - *first;
}

static void guest_issue(struct judge *j)
{
    struct op *o = free_op(j);
    uint32_t first, count, kind = rnd(j, 24), flags = rnd(j, 16) ? 0 : LIBNBD_CMD_FLAG_FUA;

    if (!o || !j->nbd || j->quiet || j->model.count > LOG_MAX - 16) return;
    choose_range(j, &first, &count);
    if ((uint64_t)count * SECTOR > j->budget) return;
    j->budget -= (uint64_t)count * SECTOR;
    o->busy = true;
    o->logged = kind != 0;
    if (o->logged) o->index = model_begin(&j->model, first, count, kind < 5);
    if (kind == 0)
        o->cookie = nbd_aio_flush(j->nbd, NBD_NULL_COMPLETION, 0);
    else if (kind < 3)
        o->cookie = nbd_aio_trim(j->nbd, (uint64_t)count * SECTOR, (uint64_t)first * SECTOR,
                                 NBD_NULL_COMPLETION, flags);
    else if (kind < 5)
        o->cookie = nbd_aio_zero(j->nbd, (uint64_t)count * SECTOR, (uint64_t)first * SECTOR,
                                 NBD_NULL_COMPLETION, flags);
    else {
        model_fill(o->buf, j->model.log[o->index].id, first, count);
        o->cookie = nbd_aio_pwrite(j->nbd, o->buf, (size_t)count * SECTOR, (uint64_t)first * SECTOR,
                                   NBD_NULL_COMPLETION, flags);
    }
    if (o->cookie < 0) op_ended(j, o, false);
}

/* ---- trouble ---- */

static void make_trouble(struct judge *j)
{
    j->troubled = true;
    if (j->trouble == T_KILL_PRIMARY || j->trouble == T_KILL_BOTH) side_kill(j->p);
    if (j->trouble == T_KILL_BACKUP || j->trouble == T_KILL_BOTH) side_kill(j->b);
}

/* One write more or less, and what may happen with it. */
static void turn(struct judge *j)
{
    if (++j->op_count == j->trouble_at) make_trouble(j);
    if (rnd(j, 3)) guest_issue(j);
    guest_pump(j, rnd(j, 8) ? 0 : 1);
    if (side_running(j->p)) (void)side_events(j->p, 0);
    if (side_running(j->b) && !side_events(j->b, 0)) side_kill(j->b);
}

static bool over(const struct judge *j)
{
    return !side_running(j->p) || !side_running(j->b) || j->p->lost;
}

/* ---- a session: link, synchronise, protect, checkpoints ---- */

/* The longer, the less a busy machine counts as a lost peer. */
static char limit_ms[8];
static const char *const limits[] = {"--limit-ms", limit_ms, NULL};

static bool establish(struct judge *j)
{
    const char *options[] = {"--limit-ms", limit_ms, "--journal", j->journal, NULL};

    j->n = j->sealed = j->committed = 0;
    j->budget = 2 * EPOCH_BYTES;
    if (!j->nbd) guest_connect(j);
    if (sides_link(j->p, j->b, &j->relay, options)) return false;
    if (side_request(j->p, "sync")) return false;
    while (!over(j) && !j->p->synced)
        turn(j);
    if (over(j)) return false;
    if (j->trouble_at && !rnd(j, 8)) {
        /* Between the two, when nothing may be left to synchronise again. */
        if (rnd(j, 2)) guest_settle(j);
        make_trouble(j);
        return false;
    }
    if (side_request(j->p, "protect")) return false;
    j->secured = true;
    return true;
}

static void commit(struct judge *j)
{
    if (side_request(j->b, "commit %" PRIu64, j->n)) {
        if (side_running(j->b) && !j->troubled) fail(j, "commit at the backup");
        return;
    }
    j->committed = j->n;
    if (side_running(j->p) && !j->p->lost && side_request(j->p, "commit %" PRIu64, j->n) &&
        !j->p->lost && !j->troubled)
        fail(j, "commit at the primary");
}

static void checkpoint(struct judge *j)
{
    if (rnd(j, 2)) guest_settle(j);
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
    if (j->b->barrier == j->n) {
        j->sealed = j->n;
        /* Sometimes the twin lacks the memory for it: never committed. */
        if (!over(j) || rnd(j, 2)) commit(j);
    }
}

static void epochs(struct judge *j, unsigned count)
{
    for (unsigned e = 0; e < count && !over(j); e++) {
        unsigned turns = 2 + rnd(j, 30);
        j->budget = EPOCH_BYTES;
        for (unsigned i = 0; i < turns && !over(j); i++)
            turn(j);
        if (j->trouble == T_JOURNAL && !j->troubled && e == count / 2) {
            j->troubled = true;
            j->budget = 3 * EPOCH_BYTES;
            for (unsigned i = 0; i < 400 && !over(j); i++)
                turn(j);
        }
        if (!over(j)) checkpoint(j);
    }
}

/* ---- judging ---- */

static void judge_checkpoint(struct judge *j, struct side *s, uint64_t n, const char *what)
{
    if (model_check(&j->model, s->fd, j->before[n], j->after[n], what)) fail(j, what);
}

/* What NBD serves is what the file holds. */
static void judge_served(struct judge *j)
{
    static uint8_t file[DISK_BYTES], nbd[DISK_BYTES];

    if (pread(j->p->fd, file, DISK_BYTES, 0) != (ssize_t)DISK_BYTES ||
        nbd_pread(j->nbd, nbd, DISK_BYTES, 0, 0) || memcmp(file, nbd, DISK_BYTES))
        fail(j, "NBD serves something else than the disk holds");
}

static void judge_equal(struct judge *j)
{
    static uint8_t a[DISK_BYTES], b[DISK_BYTES];

    if (pread(j->p->fd, a, DISK_BYTES, 0) != (ssize_t)DISK_BYTES ||
        pread(j->b->fd, b, DISK_BYTES, 0) != (ssize_t)DISK_BYTES || memcmp(a, b, DISK_BYTES))
        fail(j, "the two disks differ");
}

static void must_not_serve(struct judge *j, struct side *s)
{
    if (side_start(s, limits)) return;
    fail(j, "a stale disk is served");
    side_stop(s);
}

/* ---- what comes after the trouble ---- */

/* The backup becomes the primary at its last checkpoint; the old primary comes back as its backup. */
static bool fail_over(struct judge *j)
{
    struct side *old = j->p;
    uint64_t n = j->committed;

    guest_abandon(j);
    side_kill(old);
    relay_end(&j->relay);
    /* What was on the way has come by now. */
    for (int i = 0; i < 100 && !j->b->lost; i++)
        (void)side_events(j->b, 100);
    j->sealed = j->b->barrier;
    if (j->sealed > n && rnd(j, 2)) n = j->sealed;
    if (!n) {
        if (!j->sealed && !side_request(j->b, "promote 1"))
            fail(j, "promoted without a checkpoint");
        side_stop(j->b);
        must_not_serve(j, j->b);
        return false;
    }
    if (side_request(j->b, "promote %" PRIu64, n)) {
        /* Its disk may have failed just now: then nobody is left but the old one. */
        if (!j->b->fault[0]) fail(j, "promotion refused");
        return false;
    }
    judge_checkpoint(j, j->b, n, "promoted");
    model_adopt(&j->model, j->b->fd);
    j->p = j->b;
    j->b = old;
    guest_connect(j);
    judge_served(j);
    must_not_serve(j, old);
    for (int i = 0; i < 20; i++)
        turn(j);
    return true;
}

/* A backup that comes back on its own is at its last committed checkpoint. */
static void judge_returned(struct judge *j)
{
    const char *backup[] = {"--role", "backup", NULL};

    side_kill(j->b);
    j->b->fault[0] = 0;
    j->b->plugin = getenv("DISK_PLUGIN");
    must_not_serve(j, j->b);
    if (side_start(j->b, backup)) {
        fail(j, "the backup does not come back");
        return;
    }
    side_stop(j->b);
    if (j->committed) judge_checkpoint(j, j->b, j->committed, "returned backup");
}

/* A primary whose disk was mended: stopped in order and started again. */
static void mend_primary(struct judge *j)
{
    guest_settle(j);
    nbd_close(j->nbd);
    j->nbd = NULL;
    side_stop(j->p);
    j->p->fault[0] = 0;
    j->p->plugin = getenv("DISK_PLUGIN");
    if (side_start(j->p, limits)) {
        fail(j, "the primary does not start again");
        exit(1);
    }
    guest_connect(j);
}

/* The primary goes on alone. */
static void go_on(struct judge *j)
{
    relay_end(&j->relay);
    /* Its disk may fail some times. */
    for (int i = 0; side_request(j->p, "unprotect"); i++)
        if (i == 5) {
            fail(j, "unprotect");
            break;
        }
    judge_returned(j);
    for (int i = 0; i < 30; i++)
        turn(j);
    guest_settle(j);
    if (j->trouble == T_PRIMARY_DISK || !rnd(j, 4)) mend_primary(j);
}

/* Both died: a person decides for the primary's disk. */
static void start_again(struct judge *j)
{
    const char *force[] = {"--force-primary", NULL};

    guest_abandon(j);
    relay_end(&j->relay);
    judge_returned(j);
    if (j->secured) must_not_serve(j, j->p);
    if (side_start(j->p, j->secured ? force : NULL)) {
        fail(j, "the primary does not come back");
        exit(1);
    }
    if (model_check(&j->model, j->p->fd, j->model.time, UINT64_MAX, "restarted primary"))
        fail(j, "restarted primary");
    model_adopt(&j->model, j->p->fd);
    guest_connect(j);
}

static void aftermath(struct judge *j)
{
    bool p = side_running(j->p), b = side_running(j->b);

    if (p && b && !j->p->lost) return;
    if (p && (!b || rnd(j, 2) || j->trouble == T_PRIMARY_DISK)) {
        go_on(j);
    } else if (b) {
        bool secured = j->secured;
        struct side *old = j->p;
        if (fail_over(j)) {
            /* A fault of its disk that has not come yet would come to the second protection. */
            if (j->p->fault[0]) mend_primary(j);
            goto again;
        }
        if (secured) must_not_serve(j, old);
        start_again(j);
    } else {
        start_again(j);
    }
again:
    j->trouble_at = 0;
    j->journal = "64M";
    j->relay.harm = HARM_NONE;
    j->p->fault[0] = j->b->fault[0] = 0;
    if (!establish(j)) {
        fail(j, "the second protection");
        return;
    }
    epochs(j, 2);
}

/* The last checkpoint, of a guest that stands still: both disks are the log's. */
static void finish(struct judge *j)
{
    /* A fault that has not come yet comes no more. */
    if (j->trouble == T_PRIMARY_DISK && j->p->fault[0] && !j->p->lost) j->p->lost = true;
    if (j->trouble == T_BACKUP_DISK && j->b->fault[0] && !j->p->lost) j->p->lost = true;
    j->trouble_at = 0;
    if (over(j)) aftermath(j);
    if (over(j)) {
        fail(j, j->p->reason);
        return;
    }
    j->quiet = true;
    guest_settle(j);
    checkpoint(j);
    if (j->committed != j->n || !j->n) {
        fail(j, j->p->lost ? j->p->reason : "the last checkpoint");
        return;
    }
    if (model_check(&j->model, j->p->fd, j->model.time, UINT64_MAX, "primary at the end"))
        fail(j, "primary at the end");
    if (side_request(j->b, "promote %" PRIu64, j->n)) fail(j, "promotion at the end");
    judge_checkpoint(j, j->b, j->n, "backup at the end");
    judge_equal(j);
}

/* ---- one workload ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void first_content(struct judge *j)
{
    static uint8_t buf[WRITE_MAX];

    for (int i = 0; i < 2; i++)
        if (ftruncate(j->sides[i].fd, (off_t)DISK_BYTES)) exit(1);
    for (int i = 0; i < 20; i++) {
        uint32_t first, count;
        choose_range(j, &first, &count);
        unsigned index = model_begin(&j->model, first, count, false);
        model_fill(buf, j->model.log[index].id, first, count);
        if (pwrite(j->p->fd, buf, (size_t)count * SECTOR, (off_t)first * SECTOR) < 0) exit(1);
        /* The backup's has some of it, and rubbish. */
        if (rnd(j, 2)) memset(buf, (int)rnd(j, 256), 3000);
        if (rnd(j, 2) && pwrite(j->b->fd, buf, (size_t)count * SECTOR, (off_t)first * SECTOR) < 0)
            exit(1);
        model_end(&j->model, index, true);
    }
    model_adopt(&j->model, j->p->fd);
}

static void plan_trouble(struct judge *j)
{
    static const char *const faults[] = {"eio", "nospc", "sync", "short"};
    struct side *s = j->trouble == T_PRIMARY_DISK ? j->p : j->b;

    j->trouble = (enum trouble)(j->seed % TROUBLES);
    j->journal = j->trouble == T_JOURNAL ? "4M" : "64M";
    strcpy(limit_ms, j->trouble == T_NONE ? "20000" : j->trouble == T_JOURNAL ? "4000" : "2000");
    s = j->trouble == T_PRIMARY_DISK ? j->p : j->b;
    if (j->trouble >= T_KILL_PRIMARY && j->trouble <= T_KILL_BOTH) j->trouble_at = 1 + rnd(j, 300);
    if (j->trouble == T_LINK) {
        j->relay.harm = (enum harm)(HARM_CUT + rnd(j, HARM_STALL));
        j->relay.at = rnd(j, rnd(j, 2) ? 200000 : 6000000);
        j->relay.stall_ms = rnd(j, 2) ? 300 : 2500;
        j->troubled = true;
    }
    if (j->trouble == T_BACKUP_DISK || j->trouble == T_PRIMARY_DISK) {
        const char *kind = faults[rnd(j, 4)];
        bool sync = !strcmp(kind, "sync");
        snprintf(s->fault, sizeof(s->fault), "%s@%u", kind, rnd(j, sync ? 10 : 300) + 6);
        s->plugin = getenv("DISK_PLUGIN_FAULTS");
        j->troubled = true;
    }
}

static struct judge judge;

/* A workload that cannot go on leaves no process and no file either. */
static void clean_up(void)
{
    if (!judge.dir[0]) return;
    for (int i = 0; i < 2; i++)
        side_kill(&judge.sides[i]);
    nftw(judge.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static unsigned workload(uint64_t seed)
{
    const char *tmp = getenv("TMPDIR");
    struct judge *j = &judge;

    memset(j, 0, sizeof(*j));
    j->seed = seed;
    j->random = seed * 7919 + 1;
    snprintf(j->dir, sizeof(j->dir), "%.80s/judge-XXXXXX", tmp && *tmp ? tmp : "/dev/shm");
    if (!mkdtemp(j->dir)) exit(1);
    j->p = &j->sides[0];
    j->b = &j->sides[1];
    side_init(j->p, j->dir, "a");
    side_init(j->b, j->dir, "b");
    for (int i = 0; i < IN_FLIGHT; i++)
        j->ops[i].buf = malloc(WRITE_MAX);
    for (int i = 0; i < 10; i++)
        rnd(j, 2);
    first_content(j);
    plan_trouble(j);
    if (side_start(j->p, limits)) {
        fail(j, "start");
    } else {
        if (establish(j)) epochs(j, 4 + rnd(j, 8));
        aftermath(j);
        if (!j->failures) finish(j);
        if (j->nbd) guest_abandon(j);
    }
    relay_end(&j->relay);
    for (int i = 0; i < 2; i++) {
        struct side *s = &j->sides[i];
        if (j->failures)
            side_kill(s);
        else if (side_running(s))
            side_stop(s);
        side_unattach(s);
        close(s->fd);
    }
    for (int i = 0; i < IN_FLIGHT; i++)
        free(j->ops[i].buf);
    if (!j->failures || !getenv("JUDGE_KEEP")) nftw(j->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    j->dir[0] = 0;
    return j->failures;
}

int main(int argc, char **argv)
{
    atexit(clean_up);
    return judge_main(argc, argv, workload);
}
