/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libxl-save-helper: the process that moves a guest's memory, for our libxl and the stock one.
 *
 *   libxl (or our library)                         this process
 *      |  argv: mode, fds, domid, flags                 |
 *      |------------------------------------------------>
 *      |  <- stdout: u16 length | u16 message | arguments, native endian, packed
 *      |  -> stdin:  one int for each message that asks
 *      |  <- complete(retval, errno), then exit 0
 *
 * Stdin is also how we learn that the parent died: it hangs up. Whatever ends us, log-dirty mode
 * ends with us. If the parent died we let the guest run on, unless LIBXL_SAVE_HELPER_GUARDED=1
 * says that xentwin-guard decides that, or a lost link had stopped it.
 *
 * libxl_save_msgs.c has the messages; the engines are in tools/libxc.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "libxl_control_path.h"
#include "libxl_gc.h"
#include "libxl_guard.h"
#include "libxl_save_msgs.h"
#include "xc_sr_restore.h"
#include "xc_sr_save.h"

#define PARENT_FD STDIN_FILENO

static int stop_fd = -1;

static void on_sigterm(int sig)
{
    uint64_t one = 1;
    int saved = errno;

    (void)sig;
    if (write(stop_fd, &one, sizeof(one)) < 0) errno = saved;
}

static int setup_signals(void)
{
    struct sigaction sa = {.sa_handler = SIG_IGN};

    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_fd < 0) return -1;
    sigemptyset(&sa.sa_mask);
    if (sigaction(SIGPIPE, &sa, NULL)) return -1;
    sa.sa_handler = on_sigterm;
    if (sigaction(SIGTERM, &sa, NULL)) return -1;
    /* A terminal's Ctrl-C, Ctrl-\ or end reaches the whole group: the parent decides and tells us. */
    sa.sa_handler = SIG_IGN;
    if (sigaction(SIGINT, &sa, NULL) || sigaction(SIGQUIT, &sa, NULL)) return -1;
    return sigaction(SIGHUP, &sa, NULL);
}

/* One number of the command line; says on stderr what is wrong with it. */
static bool parse_number(const char *name, const char *text, long min, long max, long *value)
{
    char *end;

    errno = 0;
    *value = strtol(text, &end, 10);
    if (!errno && end != text && !*end && *value >= min && *value <= max) return true;
    fprintf(stderr, "libxl-save-helper: %s is '%s', expected a number from %ld to %ld\n", name,
            text, min, max);
    return false;
}

struct argument {
    const char *name;
    long min, max;
};

static const struct argument save_arguments[] = {
    {"stream_fd", 0, INT_MAX}, {"recv_fd", -1, INT_MAX}, {"domid", 0, 0x7fef},
    {"xcflags", 0, INT_MAX},   {"cbflags", 0, UINT_MAX}, {"stream_type", 0, 2},
};
#define SAVE_ARGUMENTS 6

static const struct argument restore_arguments[] = {
    {"stream_fd", 0, INT_MAX},     {"send_back_fd", -1, INT_MAX}, {"domid", 0, 0x7fef},
    {"store_evtchn", 0, UINT_MAX}, {"store_domid", 0, 0x7fef},    {"console_evtchn", 0, UINT_MAX},
    {"console_domid", 0, 0x7fef},  {"cbflags", 0, UINT_MAX},      {"stream_type", 0, 2},
};
#define RESTORE_ARGUMENTS 9

static bool parse_arguments(const struct argument *list, int count, int argc, char **argv,
                            long *values)
{
    int i;

    if (argc != count) {
        fprintf(stderr,
                "libxl-save-helper: %d arguments instead of %d; libxl starts this program\n", argc,
                count);
        return false;
    }
    for (i = 0; i < count; i++)
        if (!parse_number(list[i].name, argv[i], list[i].min, list[i].max, &values[i]))
            return false;
    if (values[count - 1] == XC_STREAM_COLO) {
        fprintf(stderr, "libxl-save-helper: COLO streams are not supported, use Remus\n");
        return false;
    }
    return true;
}

#define CB(msg) (1UL << SAVE_MSG_##msg)

/* The engine calls these without asking whether they are there. */
static bool check_callbacks(long cbflags, unsigned long needed)
{
    if (((unsigned long)cbflags & needed) == needed) return true;
    fprintf(stderr, "libxl-save-helper: cbflags %#lx lacks callbacks %#lx of this operation\n",
            (unsigned long)cbflags, needed & ~(unsigned long)cbflags);
    return false;
}

static int open_env(struct xc_sr_env *env, struct xc_sr_io *io, uint32_t domid)
{
    env->lg = libxl__save_msgs_logger();
    env->domid = domid;
    env->io = io;
    env->xch = xc_interface_open(env->lg, env->lg, 0);
    if (!env->xch) {
        SR_ERRNO(env, "cannot open the hypervisor interface");
        return -1;
    }
    env->fmem = xenforeignmemory_open(env->lg, 0);
    if (!env->fmem) {
        SR_ERRNO(env, "cannot open the foreign memory interface");
        return -1;
    }
    return 0;
}

static void close_env(struct xc_sr_env *env)
{
    int saved = errno;

    if (env->fmem) xenforeignmemory_close(env->fmem);
    if (env->xch) xc_interface_close(env->xch);
    errno = saved;
}

/*
 * The parent died: the guest may be suspended, or about to be, and its QEMU stopped. Without a
 * guard nobody else will let them run again.
 */
static void recover_orphan(uint32_t domid, int stream_fd)
{
    const char *guarded = getenv("LIBXL_SAVE_HELPER_GUARDED");
    libxl__gc gc;

    close(stream_fd); /* the other side need not wait for what follows */
    if (guarded && !strcmp(guarded, "1")) return;
    libxl__gc_init(&gc, NULL);
    /* Its twin may run: only a person may wake this one. */
    if (libxl__recover_is_stopped(&gc, domid)) {
        LOG(&gc, ERROR,
            "domain %u: the toolstack died; a lost link stopped the guest, so it stays stopped",
            domid);
    } else {
        LOG(&gc, ERROR, "domain %u: the toolstack died, letting the guest go on as it was", domid);
        libxl__recover_go_on(&gc, domid, NULL);
    }
    libxl__gc_dispose(&gc);
}

/*
 * Our library's word about how pages are encoded; a toolstack that says nothing may have a stock
 * reader at the other end. false: after one line on stderr.
 */
static bool read_encode(struct xc_sr_save *s)
{
    const char *word = getenv("XENTWIN_ENCODE"), *cache = getenv("XENTWIN_ENCODE_CACHE");
    long mib;

    if (!word) return true;
    if (!xc_sr_encode_parse(word, &s->encode)) {
        fprintf(stderr,
                "libxl-save-helper: XENTWIN_ENCODE is '%s', expected auto, none, delta or lz4\n",
                word);
        return false;
    }
    if (!cache) return true;
    if (!parse_number("XENTWIN_ENCODE_CACHE", cache, 1, 1 << 24, &mib)) return false;
    s->ref_limit_given = true;
    s->ref_limit_bytes = (uint64_t)mib << 20;
    return true;
}

/* The same for the limits of `xl migrate`. */
static bool read_limits(struct xc_sr_save *s)
{
    const char *rounds = getenv("XENTWIN_MAX_ROUNDS"), *rate = getenv("XENTWIN_RATE_MB");
    const char *downtime = getenv("XENTWIN_MAX_DOWNTIME_MS");
    long n;

    if (rounds) {
        if (!parse_number("XENTWIN_MAX_ROUNDS", rounds, 0, 1000, &n)) return false;
        s->limits.rounds_given = true;
        s->limits.rounds = (uint32_t)n;
    }
    if (downtime) {
        if (!parse_number("XENTWIN_MAX_DOWNTIME_MS", downtime, 1, 600000, &n)) return false;
        s->limits.downtime_ms = (uint32_t)n;
    }
    if (rate) {
        if (!parse_number("XENTWIN_RATE_MB", rate, 1, 1000000, &n)) return false;
        s->limits.rate_mb = (uint32_t)n;
    }
    return true;
}

static int save_domain(const long *v, const struct xc_sr_save *asked)
{
    struct save_callbacks cb = {0};
    struct xc_sr_save s = *asked;
    struct xc_sr_io io;
    bool orphaned;
    int rc = -1;

    libxl__save_msgs_fill_save(&cb, (uint32_t)v[4]);
    xc_sr_io_init(&io, (int)v[0], stop_fd, PARENT_FD);
    if (open_env(&s.env, &io, (uint32_t)v[2])) goto out;
    s.live = v[3] & XCFLAGS_LIVE;
    s.verify = v[3] & XCFLAGS_DEBUG;
    s.checkpointed = v[5] == XC_STREAM_REMUS;
    s.cb = &cb;
    s.lock_dir = control_dir();
    rc = xc_sr_save(&s);
out:
    if (!rc) errno = 0;
    rc = libxl__save_msgs_complete(rc, errno);
    close_env(&s.env);
    orphaned = rc && xc_sr_io_stopped(&io) == XC_SR_PARENT_DIED;
    xc_sr_io_dispose(&io);
    if (orphaned) recover_orphan((uint32_t)v[2], (int)v[0]);
    return rc;
}

static int restore_domain(const long *v)
{
    struct restore_callbacks cb = {0};
    struct xc_sr_io io;
    struct xc_sr_restore r = {.env = {0}};
    int rc = -1;

    libxl__save_msgs_fill_restore(&cb, (uint32_t)v[7]);
    xc_sr_io_init(&io, (int)v[0], stop_fd, PARENT_FD);
    if (open_env(&r.env, &io, (uint32_t)v[2]) || xc_sr_read_max_kb(&r.env)) goto out;
    r.checkpointed = v[8] == XC_STREAM_REMUS;
    r.store_evtchn = (uint32_t)v[3];
    r.store_domid = (uint32_t)v[4];
    r.console_evtchn = (uint32_t)v[5];
    r.console_domid = (uint32_t)v[6];
    r.cb = &cb;
    rc = xc_sr_restore(&r);
    if (!rc) cb.restore_results(r.store_gfn, r.console_gfn, cb.data);
out:
    if (!rc) errno = 0;
    rc = libxl__save_msgs_complete(rc, errno);
    close_env(&r.env);
    xc_sr_io_dispose(&io);
    return rc;
}

static int usage(void)
{
    fprintf(stderr, "usage: libxl-save-helper --save-domain|--restore-domain ARGUMENTS "
                    "(libxl starts this program, it is of no use by hand)\n");
    return 2;
}

static int main_save(int argc, char **argv)
{
    struct xc_sr_save s = {.env = {0}};
    unsigned long needed = CB(SUSPEND);
    long v[SAVE_ARGUMENTS];

    if (!parse_arguments(save_arguments, SAVE_ARGUMENTS, argc, argv, v)) return 2;
    if (v[5] == XC_STREAM_REMUS) needed |= CB(POSTCOPY) | CB(CHECKPOINT);
    if (!check_callbacks(v[4], needed)) return 2;
    if (v[5] == XC_STREAM_REMUS ? !read_encode(&s) : !read_limits(&s)) return 2;
    return save_domain(v, &s) ? 1 : 0;
}

static int main_restore(int argc, char **argv)
{
    unsigned long needed = CB(RESTORE_RESULTS);
    long v[RESTORE_ARGUMENTS];

    if (!parse_arguments(restore_arguments, RESTORE_ARGUMENTS, argc, argv, v)) return 2;
    if (v[8] == XC_STREAM_REMUS) needed |= CB(CHECKPOINT);
    if (!check_callbacks(v[7], needed)) return 2;
    return restore_domain(v) ? 1 : 0;
}

int main(int argc, char **argv)
{
    if (argc < 2) return usage();
    if (setup_signals()) {
        fprintf(stderr, "libxl-save-helper: cannot set up signals: %s\n", strerror(errno));
        return 1;
    }
    libxl__save_msgs_init(PARENT_FD, STDOUT_FILENO);
    if (!strcmp(argv[1], "--save-domain")) return main_save(argc - 2, argv + 2);
    if (!strcmp(argv[1], "--restore-domain")) return main_restore(argc - 2, argv + 2);
    return usage();
}
