/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xentwin-guard: outlives the operation that protects a guest, and acts when that dies.
 *
 *   wait --goodbye--> exit 0
 *     '--end of file, or the operation's process is gone:
 *            phase U ----------------------------------------------> go on
 *            phase S --------------------------------> stay stopped
 *            phase P, rule primary, no arbiter --------------------> go on
 *            phase P, otherwise: pause at once, then ask --granted-> go on
 *                                                   '----refused---> stay stopped
 *
 * An end of file from a process that has other files open means that the operation dropped this guard and could not say goodbye:
 * it looks after its guest itself, and nothing is touched.
 *
 * Who stays stopped keeps the output closed (libxl_guard.h). The guard writes nothing, to no log
 * either, unless it has to act. Its only open file at the start is the socket, as 0.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_control.h"
#include "libxl_guard.h"
#include "libxl_netbuffer.h"

#ifndef GUARD_LOG_DIR /* a test has its own */
#define GUARD_LOG_DIR "/var/log/xen"
#endif
#define LOG_FILE_MAX_BYTES (256 * 1024)
#define LOG_LINES_MAX 500

struct guard_log {
    xentoollog_logger vtable;
    const char *domain;
    int fd, lines;
    bool opened;
};

struct guard {
    libxl__loop *loop;
    libxl__ev_fd sock, parent;
    libxl__arbiter arbiter; /* its case holds our parameters */
    uint32_t domid;
    const char *uuid, *ifb;
    pid_t parent_pid;
    char phase;
    bool acting, done;
    int rc;
};

/* ---- log: syslog, and a file of its own per guest ---- */

/* One old file is kept. The name's odd characters are replaced, a slash above all. */
static void open_log(struct guard_log *l)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-";
    char path[256], old[260], name[128];
    struct stat st;
    size_t n = 0;

    l->opened = true;
    openlog("xentwin-guard", LOG_PID, LOG_DAEMON);
    for (const char *s = l->domain; *s && n < sizeof(name) - 1; s++)
        name[n++] = strchr(fine, *s) ? *s : '_';
    name[n] = 0;
    snprintf(path, sizeof(path), GUARD_LOG_DIR "/xentwin-guard-%s.log", name);
    snprintf(old, sizeof(old), "%s.1", path);
    if (!lstat(path, &st) && st.st_size > LOG_FILE_MAX_BYTES) rename(path, old);
    l->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
}

static void log_line(xentoollog_logger *logger, xentoollog_level level, int errnoval,
                     const char *context, const char *format, va_list al)
{
    struct guard_log *l = CONTAINER_OF(logger, struct guard_log, vtable);
    char text[1024], when[32];
    time_t now = time(NULL);
    struct tm tm;

    if (level < XTL_INFO || l->lines++ >= LOG_LINES_MAX) return;
    if (!l->opened) open_log(l);
    vsnprintf(text, sizeof(text), format, al);
    const char *sep = errnoval >= 0 ? ": " : "", *err = errnoval >= 0 ? strerror(errnoval) : "";
    syslog(level >= XTL_ERROR  ? LOG_ERR
           : level == XTL_WARN ? LOG_WARNING
                               : LOG_INFO,
           "%s: %s%s%s", l->domain, text, sep, err);
    if (l->fd < 0 || !localtime_r(&now, &tm)) return;
    strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
    dprintf(l->fd, "%s %s: %s%s%s\n", when, xtl_level_to_string(level), text, sep, err);
}

static void log_progress(xentoollog_logger *logger, const char *context, const char *doing,
                         int percent, unsigned long done, unsigned long total)
{
}

static void log_destroy(xentoollog_logger *logger)
{
}

/* ---- acting ---- */

static void nobody_asks(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
}

/* The dead operation left its control socket: we take it over as a successor would, and close it. */
static void remove_control(struct guard *g)
{
    libxl__control ctl;

    libxl__control_init(&ctl);
    ctl.loop = g->loop;
    ctl.side = "primary";
    ctl.domain = g->arbiter.c.domain;
    ctl.request = nobody_asks;
    /* Refused when somebody began a new protection meanwhile: then it is not ours to remove. */
    (void)libxl__control_start(&ctl);
    libxl__control_dispose(&ctl);
}

static void finish(struct guard *g, int rc)
{
    remove_control(g);
    if (!g->rc) g->rc = rc;
    g->done = true;
}

/* Nobody may look after the guest's end any more (xl remus --attend finds out). */
static int attend(struct guard *g)
{
    const char *xl = getenv("XENTWIN_XL");
    char *argv[] = {"xl", "remus", "--attend", (char *)g->arbiter.c.domain, NULL};
    int status = 1;
    pid_t pid;

    if (!xl || !*xl) xl = XENTWIN_SBINDIR "/xl";
    if (posix_spawn(&pid, xl, NULL, NULL, argv, environ)) return ERROR_FAIL;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    return status ? ERROR_FAIL : 0;
}

static void go_on(struct guard *g)
{
    libxl__gc *gc = libxl__loop_gc(g->loop);
    int rc;

    rc = libxl__recover_go_on(gc, g->domid, g->ifb);
    if (rc)
        LOG(gc, ERROR,
            "the guest goes on here, unprotected, but not all could be cleaned up: run xl "
            "remus --recover %s",
            g->arbiter.c.domain);
    else
        LOG(gc, INFO, "the guest goes on here, unprotected");
    finish(g, rc);
    if (attend(g))
        LOG(gc, WARN, "nobody looks after the guest's end: run xl remus --attend %s",
            g->arbiter.c.domain);
}

static int hold(struct guard *g)
{
    libxl__gc *gc = libxl__loop_gc(g->loop);
    int rc;

    rc = libxl__recover_stay_stopped(gc, g->domid);
    if (rc) LOG(gc, CRITICAL, "the guest could not be stopped for sure, its output stays closed");
    return rc;
}

static void stay_stopped(struct guard *g, int rc, const char *why)
{
    LOG(libxl__loop_gc(g->loop), WARN,
        "the guest stays stopped and its output closed (%s); if it does not run on %s: xl remus "
        "--recover %s",
        why, g->arbiter.c.peer, g->arbiter.c.domain);
    finish(g, rc);
}

static void verdict(libxl__egc *egc, libxl__arbiter *a, bool granted, const char *why)
{
    struct guard *g = CONTAINER_OF(a, struct guard, arbiter);

    if (!granted) {
        stay_stopped(g, 0, why);
        return;
    }
    LOG(libxl__loop_gc(g->loop), INFO, "this side may go on: %s", why);
    go_on(g);
}

static void decide(struct guard *g)
{
    const struct arbiter_case *c = &g->arbiter.c;
    int rc;

    if (g->phase == 'S') {
        rc = hold(g);
        stay_stopped(g, rc, "this side had lost the right to run");
        return;
    }
    if (g->phase == 'U') {
        go_on(g);
        return;
    }
    if (c->command || c->rule == LINK_LOSS_BACKUP) {
        rc = hold(g);
        if (!g->rc) g->rc = rc;
    }
    rc = libxl__arbiter_ask(&g->arbiter);
    if (rc) stay_stopped(g, rc, "nobody could be asked");
}

/* The operation is dead. */
static void act(struct guard *g)
{
    libxl__gc *gc = libxl__loop_gc(g->loop);
    int rc;

    if (g->acting || g->done) return;
    g->acting = true;
    libxl__ev_fd_deregister(g->loop, &g->sock);
    libxl__ev_fd_deregister(g->loop, &g->parent);
    LOG(gc, WARN, "the protection of domain %u died (phase %c, checkpoint %" PRIu64 ")", g->domid,
        g->phase, g->arbiter.c.epoch);
    rc = libxl__recover_check_domain(gc, g->domid, g->uuid);
    if (rc == ERROR_DOMAIN_NOTFOUND) {
        /* Its twin may run: what it sent last was never acknowledged and is dropped. */
        LOG(gc, INFO, "domain %u is gone", g->domid);
        rc = g->ifb ? libxl__netbuffer_discard(gc, g->ifb) : 0;
        finish(g, rc);
        return;
    }
    if (rc == ERROR_INVAL) {
        LOG(gc, ERROR, "domain %u is not the one with uuid %s, nothing is touched", g->domid,
            g->uuid);
        finish(g, rc);
        return;
    }
    if (rc) LOG(gc, ERROR, "domain %u cannot be looked at, going by its number alone", g->domid);
    decide(g);
}

/* ---- listening ---- */

/* A process that dies gives up all its files at once, a little before its pidfd tells. */
static bool operation_has_files(const struct guard *g)
{
    char path[32];
    bool found = false;
    struct dirent *e;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)g->parent_pid);
    DIR *d = opendir(path);
    if (!d) return false;
    while (!found && (e = readdir(d)))
        found = e->d_name[0] != '.';
    closedir(d);
    return found;
}

static void socket_ended(struct guard *g)
{
    libxl__ev_fd_deregister(g->loop, &g->sock);
    if (!libxl__ev_fd_isregistered(&g->parent))
        act(g);
    else if (operation_has_files(g))
        g->done = true;
    /* Else it is about to end: parent_gone(). */
}

/* Reads all that is queued: what was said before the end counts. */
static void listen_socket(struct guard *g)
{
    struct guard_message m;

    for (;;) {
        ssize_t n = recv(0, &m, sizeof(m), MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n != (ssize_t)sizeof(m)) {
            socket_ended(g);
            return;
        }
        if (m.type == 'G') {
            g->done = true; /* it cleans up itself */
            return;
        }
        if (m.type != 'U' && m.type != 'P' && m.type != 'S') continue;
        g->phase = m.type;
        g->arbiter.c.epoch = m.epoch;
    }
}

static void sock_ready(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    listen_socket(CONTAINER_OF(ev, struct guard, sock));
}

/* The process is gone; a child of it may still hold a copy of the socket, so that no end of file
 * comes. */
static void parent_gone(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct guard *g = CONTAINER_OF(ev, struct guard, parent);

    if (libxl__ev_fd_isregistered(&g->sock)) listen_socket(g);
    if (!g->done) act(g);
}

/* ---- start ---- */

static int usage(const char *what, const char *value)
{
    fprintf(stderr,
            "xentwin-guard: %s \"%s\" is not usable; it is started by xl remus, not by hand\n",
            what, value);
    return 2;
}

static bool parse_number(const char *text, long min, long max, long *value)
{
    char *end;

    errno = 0;
    *value = strtol(text, &end, 10);
    return !errno && end != text && !*end && *value >= min && *value <= max;
}

static bool take_option(struct guard *g, int o, char *arg)
{
    struct arbiter_case *c = &g->arbiter.c;
    long value = 0;
    bool ok = true;

    switch (o) {
    case 'n':
        c->domain = arg;
        break;
    case 'u':
        g->uuid = arg;
        break;
    case 's':
        c->self = arg;
        break;
    case 'p':
        c->peer = arg;
        break;
    case 'x':
        c->session = arg;
        break;
    case 'i':
        g->ifb = arg;
        break;
    case 'd':
        ok = parse_number(arg, 1, 0x7fef, &value);
        g->domid = (uint32_t)value;
        break;
    case 'l':
        ok = parse_number(arg, 1, 86400000, &value);
        c->limit_ms = (int)value;
        break;
    case 'P':
        ok = parse_number(arg, 1, INT32_MAX, &value);
        g->parent_pid = (pid_t)value;
        break;
    case 'r':
        ok = !strcmp(arg, "primary") || !strcmp(arg, "backup");
        c->rule = strcmp(arg, "backup") ? LINK_LOSS_PRIMARY : LINK_LOSS_BACKUP;
        break;
    }
    return ok;
}

static int parse_args(struct guard *g, int argc, char **argv)
{
    static const struct option opts[] = {{"domain", 1, NULL, 'n'},   {"domid", 1, NULL, 'd'},
                                         {"uuid", 1, NULL, 'u'},     {"self", 1, NULL, 's'},
                                         {"peer", 1, NULL, 'p'},     {"session", 1, NULL, 'x'},
                                         {"limit-ms", 1, NULL, 'l'}, {"on-link-loss", 1, NULL, 'r'},
                                         {"ifb", 1, NULL, 'i'},      {"parent", 1, NULL, 'P'},
                                         {NULL, 0, NULL, 0}};
    const struct arbiter_case *c = &g->arbiter.c;
    int o;

    opterr = 0;
    while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
        if (o == '?') return usage("option", argv[optind - 1]);
        if (!take_option(g, o, optarg)) return usage("value", optarg);
    }
    if (optind != argc) return usage("argument", argv[optind]);
    if (!c->domain || !g->domid || !g->uuid || !c->self || !c->peer || !c->session ||
        !c->limit_ms || !g->parent_pid)
        return usage("command line without an option", "--domain, --domid ...");
    return 0;
}

/* A manager that stops the unit of a dead xl sends SIGTERM: our work is still to be done. Memory
 * must not fail us either. */
static void make_sturdy(void)
{
    static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};

    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        signal(ignored[i], SIG_IGN);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "-1000", 5);
        close(fd);
    }
    mlockall(MCL_CURRENT);
    (void)!chdir("/");
}

static int watch_operation(struct guard *g)
{
    struct guard_message ready = {.type = 'R', .pid = (int32_t)getpid()};
    int rc;

    rc = libxl__ev_fd_register(g->loop, &g->sock, sock_ready, 0, POLLIN);
    if (rc) return rc;
    int fd = pidfd_open(g->parent_pid, 0);
    /* Without it (the operation is dead already) the end of file remains. */
    if (fd >= 0) {
        rc = libxl__ev_fd_register(g->loop, &g->parent, parent_gone, fd, POLLIN);
        if (rc) return rc;
    }
    (void)!send(0, &ready, sizeof(ready), MSG_DONTWAIT | MSG_NOSIGNAL);
    return 0;
}

int main(int argc, char **argv)
{
    struct guard g = {.phase = 'U', .arbiter.c.primary = true};
    struct guard_log log = {.vtable = {log_line, log_progress, log_destroy}, .fd = -1};
    int rc;

    libxl__arbiter_init(&g.arbiter);
    g.arbiter.c.primary = true;
    libxl__ev_fd_init(&g.sock);
    libxl__ev_fd_init(&g.parent);
    rc = parse_args(&g, argc, argv);
    if (rc) return rc;
    g.arbiter.c.command = getenv(GUARD_ARBITER_ENV);
    log.domain = g.arbiter.c.domain;
    make_sturdy();

    rc = libxl__loop_new(&g.loop, &log.vtable, NULL);
    if (rc) return 1;
    g.arbiter.loop = g.loop;
    g.arbiter.verdict = verdict;
    rc = watch_operation(&g);
    if (!rc) rc = libxl__loop_run(g.loop, &g.done);
    /* The process ends here: what it holds goes with it. */
    return rc || g.rc ? 1 : 0;
}
