/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * All memory of a suspended guest into the stream, by two processes that take turns.
 *
 *     this process   map 0 | write 0 | unmap, map 2       | write 2 | ...
 *     its child      map 1           | write 1 | unmap, map 3       | write 3 ...
 *                          the turn ->         <- the turn          ->
 *
 * Mapping foreign pages, and unmapping them, costs more than all the rest. It excludes itself within one address
 * space, so a thread would not help; a process has its own. The range that follows is mapped while
 * the other one writes. Whoever has the turn, one message that goes to and fro, may write; so the
 * stream has its records whole and in order, and at most two ranges are mapped.
 *
 * The child says nothing to the toolstack: what fails there comes back with the turn. It ends with its
 * last range, when the turn does not come, and when its parent ends in any way.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xc_sr_record.h"
#include "xc_sr_save.h"

#define RANGE_PAGES 4096U
#define RANGE_RECORDS (RANGE_PAGES / XC_SR_BATCH)

enum failure { FINE = 0, NO_HANDLES, NO_TYPES, NO_MAPPING, NO_PAGE, NO_WRITE };

/* With the turn goes how it went. */
struct turn {
    uint64_t pages, bytes; /* written in it */
    uint64_t pfn;          /* of the failure */
    int32_t failure, error;
};

/* One of the two. */
struct side {
    struct xc_sr_env env; /* the child's has handles of its own */
    uint64_t pfns, range_pages, ranges;
    struct xc_sr_io other; /* fd -1: there is none */
    struct turn mine;
    unsigned int count, mapped;
    uint8_t *base;
    uint64_t pfn[RANGE_PAGES];
    xen_pfn_t types[RANGE_PAGES];
    int errs[RANGE_PAGES];
};

static int fail(struct side *me, enum failure failure, int error, uint64_t pfn)
{
    me->mine.failure = (int32_t)failure;
    me->mine.error = error ? error : EIO;
    me->mine.pfn = pfn;
    return -1;
}

/* me->pfn: where the guest has a page in this range. */
static int find_pages(struct side *me, uint64_t range)
{
    uint64_t first = range * me->range_pages, left = me->pfns - first;
    unsigned int n = (unsigned int)(left < me->range_pages ? left : me->range_pages), i, part;

    me->count = 0;
    for (i = 0; i < n; i++)
        me->types[i] = first + i;
    for (i = 0; i < n; i += part) {
        part = n - i < XC_SR_BATCH ? n - i : XC_SR_BATCH;
        if (xc_get_pfn_type_batch(me->env.xch, me->env.domid, part, me->types + i))
            return fail(me, NO_TYPES, errno, first + i);
    }
    for (i = 0; i < n; i++)
        if (xc_sr_page_type_has_data((me->types[i] >> XEN_DOMCTL_PFINFO_LTAB_SHIFT) & 0xf))
            me->pfn[me->count++] = first + i;
    return 0;
}

static int map_range(struct side *me, uint64_t range)
{
    unsigned int i;

    if (find_pages(me, range)) return -1;
    if (!me->count) return 0;
    me->base =
        xenforeignmemory_map(me->env.fmem, me->env.domid, PROT_READ, me->count, me->pfn, me->errs);
    if (!me->base) return fail(me, NO_MAPPING, errno, me->pfn[0]);
    me->mapped = me->count;
    for (i = 0; i < me->count; i++)
        if (me->errs[i]) return fail(me, NO_PAGE, -me->errs[i], me->pfn[i]);
    return 0;
}

static void unmap_range(struct side *me)
{
    if (me->mapped) xenforeignmemory_unmap(me->env.fmem, me->base, me->mapped);
    me->mapped = 0;
}

/* Several records in one call. */
static int write_range(struct side *me)
{
    struct xc_sr_page_head heads[RANGE_RECORDS];
    struct iovec iov[3 * RANGE_RECORDS], *to = iov;
    uint64_t before = me->env.io->bytes;
    unsigned int at, n, i = 0;
    int r;

    for (at = 0; at < me->count; at += n, to += 3) {
        n = me->count - at < XC_SR_BATCH ? me->count - at : XC_SR_BATCH;
        heads[i] = xc_sr_page_head(n, n);
        to[0] = (struct iovec){&heads[i++], sizeof(heads[0])};
        /* A pfn is the entry of a NORMAL page. */
        to[1] = (struct iovec){me->pfn + at, n * sizeof(me->pfn[0])};
        to[2] = (struct iovec){me->base + (size_t)at * SR_PAGE_SIZE, (size_t)n * SR_PAGE_SIZE};
    }
    r = xc_sr_io_writev(me->env.io, iov, 3 * i);
    me->mine.bytes = me->env.io->bytes - before;
    me->mine.pages = me->count;
    return r ? fail(me, NO_WRITE, errno, me->pfn[0]) : 0;
}

static int pass_turn(struct side *me)
{
    struct iovec iov = {&me->mine, sizeof(me->mine)};

    return xc_sr_io_writev(&me->other, &iov, 1);
}

/* ---- the child ---- */

static void say_nothing(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                        const char *context, const char *format, va_list al)
{
    (void)lg, (void)level, (void)errnoval, (void)context, (void)format, (void)al;
}

static void show_nothing(xentoollog_logger *lg, const char *context, const char *what, int percent,
                         unsigned long done, unsigned long total)
{
    (void)lg, (void)context, (void)what, (void)percent, (void)done, (void)total;
}

static void keep_logger(xentoollog_logger *lg)
{
    (void)lg;
}

/* Handles do not survive a fork. */
static void open_handles(struct side *me)
{
    static xentoollog_logger silent = {say_nothing, show_nothing, keep_logger};

    me->env.lg = &silent;
    me->env.fmem = NULL;
    me->env.xch = xc_interface_open(&silent, &silent, 0);
    if (me->env.xch) me->env.fmem = xenforeignmemory_open(&silent, 0);
    if (!me->env.fmem) fail(me, NO_HANDLES, errno, 0);
}

static void run_child(struct side *me, pid_t parent)
{
    struct turn ignored;
    uint64_t range;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) return;
    open_handles(me);
    for (range = 1; range < me->ranges; range += 2) {
        bool failed = me->mine.failure || map_range(me, range);

        if (xc_sr_io_read(&me->other, &ignored, sizeof(ignored))) return;
        if (!failed) failed = write_range(me);
        if (pass_turn(me) || failed) return;
        unmap_range(me);
    }
}

/* 0: there is no child, or it runs. Without one all is done by this process. */
static pid_t start_child(struct side *me)
{
    pid_t parent = getpid(), pid;
    int fds[2];

    if (me->ranges < 2 || sysconf(_SC_NPROCESSORS_ONLN) < 2) return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) return 0;
    pid = fork();
    if (!pid) {
        close(fds[0]);
        xc_sr_io_init(&me->other, fds[1], me->env.io->stop_fd, me->env.io->parent_fd);
        run_child(me, parent);
        _exit(0);
    }
    close(fds[1]);
    if (pid > 0) {
        xc_sr_io_init(&me->other, fds[0], me->env.io->stop_fd, me->env.io->parent_fd);
        return pid;
    }
    close(fds[0]);
    return 0;
}

static void end_child(struct side *me, pid_t pid, bool kill_it)
{
    if (!pid) return;
    if (kill_it) kill(pid, SIGKILL);
    close(me->other.fd);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* ---- the parent ---- */

static int tell(struct xc_sr_save *s, const struct turn *t)
{
    unsigned long pfn = (unsigned long)t->pfn;

    /* A reason to stop shows as a write that fails. */
    if (t->failure == NO_WRITE && xc_sr_save_check_stop(s)) return -1;
    errno = t->error;
    if (t->failure == NO_HANDLES)
        SR_ERRNO(&s->env, "cannot open the hypervisor interface a second time");
    else if (t->failure == NO_TYPES)
        SR_ERRNO(&s->env, "cannot read page types of domain %u from pfn %#lx on", s->env.domid,
                 pfn);
    else if (t->failure == NO_MAPPING)
        SR_ERRNO(&s->env, "cannot map pages of domain %u from pfn %#lx on", s->env.domid, pfn);
    else if (t->failure == NO_PAGE)
        SR_ERRNO(&s->env, "cannot read pfn %#lx of domain %u", pfn, s->env.domid);
    else
        SR_ERRNO(&s->env, "cannot write guest pages to the stream");
    return -1;
}

static int await_turn(struct xc_sr_save *s, struct side *me)
{
    struct turn t;

    if (xc_sr_io_read(&me->other, &t, sizeof(t))) {
        if (!xc_sr_save_check_stop(s)) SR_ERRNO(&s->env, "the second process of the save ended");
        return -1;
    }
    s->env.io->bytes += t.bytes;
    return t.failure ? tell(s, &t) : 0;
}

static int do_range(struct xc_sr_save *s, struct side *me, uint64_t range, bool pair)
{
    int r = map_range(me, range);

    if (pair && range && await_turn(s, me)) return -1;
    if (r || xc_sr_save_check_stop(s)) return r ? tell(s, &me->mine) : -1;
    if (write_range(me)) return tell(s, &me->mine);
    if (pair && range + 1 < me->ranges && pass_turn(me)) {
        if (!xc_sr_save_check_stop(s)) SR_ERRNO(&s->env, "the second process of the save ended");
        return -1;
    }
    unmap_range(me);
    return 0;
}

static int do_ranges(struct xc_sr_save *s, struct side *me, bool pair, const char *what)
{
    uint64_t range, told = 0, percent;

    for (range = 0; range < me->ranges; range += pair ? 2 : 1) {
        if (do_range(s, me, range, pair)) return -1;
        percent = range * 100 / me->ranges;
        if (percent == told) continue;
        told = percent;
        xtl_progress(s->env.lg, "xc", what, range * me->range_pages, me->pfns);
    }
    /* An even number of ranges: the last one is the child's. */
    return pair && me->ranges % 2 == 0 ? await_turn(s, me) : 0;
}

int xc_sr_write_whole(struct xc_sr_save *s, const char *what)
{
    struct side *me = calloc(1, sizeof(*me));
    pid_t pid;
    int rc, saved;

    if (!me) {
        SR_ERRNO(&s->env, "no memory for the pages of domain %u", s->env.domid);
        return -1;
    }
    me->env = s->env;
    me->pfns = s->pfns;
    me->range_pages = s->range_pages && s->range_pages < RANGE_PAGES ? s->range_pages : RANGE_PAGES;
    me->ranges = (me->pfns + me->range_pages - 1) / me->range_pages;
    xtl_progress(s->env.lg, "xc", what, 0, me->pfns);
    pid = start_child(me);
    rc = do_ranges(s, me, pid != 0, what);
    saved = errno;
    unmap_range(me);
    end_child(me, pid, rc != 0);
    free(me);
    if (!rc) xtl_progress(s->env.lg, "xc", what, s->pfns, s->pfns);
    errno = saved;
    return rc;
}
