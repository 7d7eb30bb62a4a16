/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl remus DOMAIN HOST, from the command line to the line that says where the guest runs.
 *
 *   parse and check options          nothing is touched before this is through
 *   find the guest, check it         libxl
 *   reach HOST, banner               xl_remote.c: ssh HOST xl migrate-receive ...
 *   header and configuration
 *   libxl_replication_start          runs until the end; its callbacks feed the progress line
 *   say what became of the guest
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "libxl_control_path.h"
#include "libxl_guard.h"
#include "xl.h"
#include "xl_guest.h"
#include "xl_monitor.h"
#include "xl_opts.h"
#include "xl_progress.h"
#include "xl_remote.h"
#include "xl_remus.h"
#include "xc_sr_lock.h"

#define LOG_LOCK_MS 2000
#define LOG_LOCK_STEP_MS 100

struct protection {
    struct remus_opts o;
    struct xl_guest guest;
    struct xl_progress progress;
    struct xl_remote remote;
    struct xl_disks disks;
    struct xl_disk_links links;
    char *config;  /* JSON, malloced */
    char *devices; /* of the guest, before its configuration was read; malloced */
    char session[37];
    bool acknowledged;
    bool unwatched; /* nobody looks after the guest's end any more */
    int null_fd;
};

/* Signal handlers know only these. */
static volatile int interrupted;
static volatile sig_atomic_t protected_domid = -1;

static void on_signal(int sig)
{
    static const char again[] = "\nxl remus: it is ending already, please wait\n";
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    int saved = errno;

    (void)sig;
    /* Nobody may read; the heartbeats must go on. */
    if (interrupted++ && poll(&p, 1, 0) == 1 && p.revents == POLLOUT)
        (void)!write(STDERR_FILENO, again, sizeof(again) - 1);
    if (protected_domid >= 0) libxl_replication_abort((uint32_t)protected_domid);
    errno = saved;
}

static void catch_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction sa = {.sa_handler = on_signal}, old;
    size_t i;

    sigemptyset(&sa.sa_mask);
    for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        sigaction(signals[i], NULL, &old);
        if (old.sa_handler != SIG_IGN) sigaction(signals[i], &sa, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    /* Ctrl-Z would stop the heartbeats, and the backup would take over. */
    signal(SIGTSTP, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
}

static void on_unwatched(void *user)
{
    struct protection *p = user;

    p->unwatched = true;
    xl_monitor_unattended(p->guest.domid);
}

static void on_message(void *user, const char *line)
{
    struct protection *p = user;

    xl_progress_line(&p->progress, "%s", line);
}

static void on_checkpoint(void *user, const libxl_checkpoint_stats *stats)
{
    struct protection *p = user;

    xl_progress_checkpoint(&p->progress, stats);
}

static void on_copying(void *user, uint64_t done, uint64_t total)
{
    struct protection *p = user;

    xl_progress_copying(&p->progress, done, total);
}

static int take_config(struct protection *p)
{
    const struct xl_guest_allow allow = {.disks = p->o.no_disk};
    libxl_domain_config config;
    int rc;

    libxl_domain_config_init(&config);
    p->devices = libxl_replication_devices(p->guest.ctx, p->guest.domid);
    if (!p->devices) {
        rc = xl_fail("remus", "cannot read the devices of '%s' from xenstore", p->guest.name);
        goto out;
    }
    if (libxl_retrieve_domain_configuration(p->guest.ctx, p->guest.domid, &config, NULL)) {
        rc = xl_fail("remus", "cannot read the configuration of '%s'", p->guest.name);
        goto out;
    }
    rc = xl_guest_check_protectable("remus", p->guest.name, &config, &allow, &p->disks);
    if (!rc && !p->o.blackhole)
        rc = xl_disks_want_arbiter(&p->disks, "remus", p->guest.name, p->o.arbiter);
    if (rc) goto out;
    p->config = libxl_domain_config_to_json(p->guest.ctx, &config);
    if (!p->config)
        rc = xl_fail("remus", "cannot write down the configuration of '%s'", p->guest.name);
out:
    libxl_domain_config_dispose(&config);
    return rc;
}

/* Before anything is touched, and before 'xl unpause' is recommended to anybody. */
static int refuse_undecided(struct protection *p)
{
    const char *name = p->guest.name;
    bool undecided;
    int rc = xl_guest_undecided(&p->guest, "remus", &p->progress.logger, &undecided);

    if (rc || !undecided) return rc;
    return xl_fail(
        "remus",
        "an earlier protection of '%s' was lost and its output is held, since its twin may "
        "run: if it runs there: 'xl remus --discard %s'; if it certainly does not: "
        "'xl remus --recover %s'",
        name, name, name);
}

/* Our receiver at HOST would take the copy that a migration builds there for one that was left behind. The helper of a protection that
 * has just ended lets go in a moment. */
static int refuse_migrating(struct protection *p)
{
    int fd = xc_sr_lock(control_dir(), p->guest.domid);

    for (int ms = 0; fd < 0 && errno == EWOULDBLOCK && ms < LOG_LOCK_MS; ms += LOG_LOCK_STEP_MS) {
        poll(NULL, 0, LOG_LOCK_STEP_MS);
        fd = xc_sr_lock(control_dir(), p->guest.domid);
    }
    if (fd < 0 && errno == EWOULDBLOCK)
        return xl_fail("remus", "'%s' is being migrated or saved: wait for its end", p->guest.name);
    if (fd >= 0) xc_sr_unlock(control_dir(), p->guest.domid, fd);
    return XL_DONE;
}

static int look_at_guest(struct protection *p)
{
    libxl_dominfo info;
    int rc = xl_guest_open(&p->guest, "remus", p->o.domain, &p->progress.logger);

    if (rc) return rc;
    if (!xl_name_valid(p->guest.name))
        return xl_fail(
            "remus",
            "the name '%s' cannot be protected: letters, digits, '_', '.', '+', '-' only; "
            "'xl rename' changes it",
            p->guest.name);
    rc = xl_guest_refuse_protected(&p->guest, "remus");
    if (!rc) rc = refuse_undecided(p);
    if (!rc) rc = refuse_migrating(p);
    if (rc) return rc;
    libxl_dominfo_init(&info);
    if (libxl_domain_info(p->guest.ctx, &info, p->guest.domid) || info.dying)
        rc = xl_fail("remus", "'%s' is being destroyed", p->guest.name);
    else if (info.shutdown)
        rc = xl_fail("remus", "'%s' does not run (suspended or crashed): 'xl remus --recover %s'",
                     p->guest.name, p->guest.name);
    else if (info.paused)
        rc =
            xl_fail("remus", "'%s' is paused: 'xl unpause %s' first", p->guest.name, p->guest.name);
    libxl_dominfo_dispose(&info);
    return rc ? rc : take_config(p);
}

static int on_disk_link(void *user, unsigned disk)
{
    struct protection *p = user;

    return xl_disk_link_start(&p->links, disk);
}

/* One line for every way in which the other side was not ready. */
static int say_answer(const struct protection *p, enum xl_remote_answer answer)
{
    const char *host = p->o.host, *text = p->remote.answer;

    switch (answer) {
    case XL_REMOTE_STOCK:
        return xl_fail("remus",
                       "%s has no xentwin (its xl does not know --replication): install xentwin "
                       "there, or use -F to go on without acknowledgement",
                       host);
    case XL_REMOTE_REFUSED:
        return xl_fail("remus", "%s refuses: %s", host, text);
    case XL_REMOTE_NO_XL:
        return xl_fail("remus", "no xl could be run at %s: %s", host, text);
    case XL_REMOTE_FAILED:
        return xl_fail("remus", "no receiver could be started at %s: %s", host, text);
    case XL_REMOTE_UNREACHABLE:
        return xl_fail("remus", "cannot reach %s: %s", host, *text ? text : "the command failed");
    case XL_REMOTE_SILENT:
        return xl_fail("remus", "%s did not answer within %d s", host, XL_REMOTE_BANNER_MS / 1000);
    case XL_REMOTE_GARBLED:
        return xl_fail(
            "remus",
            "%s answered '%s' instead of xl's banner: nothing else may write to standard "
            "output there (look at its shell's start-up files)",
            host, text);
    case XL_REMOTE_INTERRUPTED:
        return xl_fail("remus", "interrupted; '%s' runs on here, unprotected", p->guest.name);
    case XL_REMOTE_READY:
        break;
    }
    return XL_DONE;
}

/* Starts the receiver; with the channel, or as a stock xl understands it. */
static int try_receiver(struct protection *p, bool with_channel, enum xl_remote_answer *answer)
{
    char words[8192];

    if (!xl_remus_receiver_words(&p->o, p->guest.name, with_channel ? p->session : NULL, &p->disks,
                                 words, sizeof(words)))
        return xl_usage("remus", "the options for %s are too long", p->o.host);
    xl_remote_init(&p->remote);
    p->remote.progress = &p->progress;
    p->remote.host = p->o.host;
    p->remote.interrupted = &interrupted;
    if (xl_remote_start(&p->remote, p->o.ssh, words)) return XL_FAILED;
    *answer = xl_remote_banner(&p->remote, XL_REMOTE_BANNER_MS);
    p->acknowledged = with_channel;
    return XL_DONE;
}

static int reach_host(struct protection *p)
{
    /* A command given with -s '' and -F is complete, as in Xen 4.17: only a stock conversation
     * fits. */
    bool with_channel = !p->o.unsafe || *p->o.ssh;
    enum xl_remote_answer answer = XL_REMOTE_READY;
    int rc;

    if (p->o.blackhole) return XL_DONE;
    if (p->disks.n && !*p->o.ssh)
        return xl_usage("remus",
                        "-s '' gives no way to the disk %s at the other host: name the ssh "
                        "command",
                        p->disks.names[0]);
    rc = try_receiver(p, with_channel, &answer);
    if (!rc && answer == XL_REMOTE_STOCK && with_channel && p->o.unsafe && !p->disks.n) {
        xl_remote_end(&p->remote);
        xl_progress_line(&p->progress,
                         "%s has no xentwin: going on without acknowledgement (-F); output "
                         "is not safe, and after the end a copy starts there",
                         p->o.host);
        rc = try_receiver(p, false, &answer);
    }
    if (!rc) rc = say_answer(p, answer);
    if (!rc) rc = xl_remote_send_config(&p->remote, p->config);
    return rc;
}

static void fill_info(struct protection *p, libxl_replication_info *info)
{
    const struct remus_opts *o = &p->o;

    libxl_replication_info_init(info);
    info->remus.interval = o->interval_ms;
    libxl_defbool_set(&info->remus.allow_unsafe, o->unsafe);
    libxl_defbool_set(&info->remus.blackhole, o->blackhole);
    libxl_defbool_set(&info->remus.compression, false);
    libxl_defbool_set(&info->remus.netbuf, !o->no_netbuf);
    libxl_defbool_set(&info->remus.diskbuf, !o->no_disk);
    libxl_defbool_set(&info->remus.colo, false);
    info->acknowledged = p->acknowledged;
    info->prologue = p->remote.prologue;
    info->limit_ms = o->limit_ms;
    info->on_link_loss = o->on_link_loss;
    info->arbiter = o->arbiter;
    info->domain_name = p->guest.name;
    info->self_name = o->self_name;
    info->peer_name = o->peer_name;
    info->session = p->session;
    info->netbuf_bytes = o->netbuf_bytes;
    info->compress = o->compress;
    info->compress_cache_mib = o->compress_cache_bytes >> 20;
    info->max_checkpoints = o->max_checkpoints;
    info->devices = p->devices;
    if (!o->blackhole) {
        info->disks = p->disks.names;
        info->num_disks = p->disks.n;
        info->disk_link = on_disk_link;
    }
    info->checkpoint_done = on_checkpoint;
    info->message = on_message;
    info->copying = on_copying;
    info->unwatched = on_unwatched;
    info->user = p;
    info->lg = &p->progress.logger;
}

static int replicate(struct protection *p)
{
    libxl_replication_info info;
    int send_fd = p->remote.send_fd, recv_fd = p->remote.recv_fd, rc;

    if (p->o.blackhole) {
        p->null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (p->null_fd < 0) return ERROR_FAIL;
        send_fd = recv_fd = p->null_fd;
    }
    p->links.ssh = p->o.ssh;
    p->links.host = p->o.host;
    p->links.domain = p->guest.name;
    p->links.disks = &p->disks;
    fill_info(p, &info);
    protected_domid = (sig_atomic_t)p->guest.domid;
    /* A signal that came before the operation exists would find nothing to abort. */
    rc = interrupted
             ? 0
             : libxl_replication_start(p->guest.ctx, &info, p->guest.domid, send_fd, recv_fd, NULL);
    protected_domid = -1;
    xl_disk_links_end(&p->links, rc != 0);
    libxl_replication_info_dispose(&info);
    return rc;
}

/* The last line: where the guest runs now. */
static int say_end(struct protection *p, int rc)
{
    const char *name = p->guest.name, *host = p->o.host ? p->o.host : "/dev/null";

    xl_progress_leave(&p->progress);
    /* A copy that has to stay stopped is for the administrator to end. */
    if (p->unwatched && rc != ERROR_LOCK_FAIL) xl_monitor_attend(p->guest.domid, name);
    switch (rc) {
    case 0:
        if (p->acknowledged || p->o.blackhole)
            xl_progress_line(&p->progress, "%s runs on here, unprotected; no twin at %s", name,
                             host);
        else
            xl_progress_line(&p->progress,
                             "%s runs on here, unprotected; %s has no xentwin and starts its copy "
                             "too: destroy it there",
                             name, host);
        return XL_DONE;
    case ERROR_DOMAIN_DESTROYED:
        xl_progress_line(&p->progress, "%s ended by itself; no twin at %s", name, host);
        return XL_DONE;
    case ERROR_NOT_READY:
        return xl_fail("remus", "%s is lost; '%s' runs on here, unprotected", host, name);
    case ERROR_LOCK_FAIL:
        if (libxl_domain_info(p->guest.ctx, NULL, p->guest.domid) == ERROR_DOMAIN_NOTFOUND)
            return xl_fail("remus", "%s is lost and may run '%s', which is gone here", host, name);
        return xl_fail(
            "remus",
            "%s is lost and may run '%s': it is paused here and its output held; if it runs "
            "there: 'xl remus --discard %s'; if it certainly does not: 'xl remus --recover %s'",
            host, name, name, name);
    default:
        return xl_fail("remus", "protection failed (error %d); '%s' runs on here, unprotected", rc,
                       name);
    }
}

static int protect(struct protection *p)
{
    const struct remus_opts *o = &p->o;
    int rc;

    rc = look_at_guest(p);
    if (rc) return rc;
    if (o->stats && !xl_progress_open_stats(&p->progress, o->stats))
        return xl_fail("remus", "--stats %s: %s", o->stats, strerror(errno));
    if (o->netbuf_script)
        xl_say("remus", "-N %s is not used: xentwin sets the network buffer up by itself",
               o->netbuf_script);
    catch_signals();
    rc = reach_host(p);
    if (rc) return rc;
    return say_end(p, replicate(p));
}

int xl_main_remus(int argc, char **argv)
{
    struct protection p = {.null_fd = -1};
    uuid_t uuid;
    int rc;

    rc = xl_remus_parse(&p.o, argc, argv);
    if (rc) return rc;
    if (p.o.help) {
        xl_command_help(xl_command_find("remus"));
        return XL_DONE;
    }
    if (p.o.action != REMUS_PROTECT) return xl_remus_control(&p.o);

    uuid_generate(uuid);
    uuid_unparse_lower(uuid, p.session);
    xl_guest_init(&p.guest);
    xl_remote_init(&p.remote);
    xl_disk_links_init(&p.links);
    if (!xl_progress_init(&p.progress, STDERR_FILENO, p.o.domain, p.o.host ? p.o.host : "/dev/null",
                          xl_globals.verbosity))
        return xl_fail("remus", "cannot start a thread: %s", strerror(errno));
    p.progress.timestamps = xl_globals.timestamps;
    xl_say_to(on_message, &p);
    rc = protect(&p);
    xl_remote_end(&p.remote);
    if (p.null_fd >= 0) close(p.null_fd);
    free(p.config);
    free(p.devices);
    xl_guest_dispose(&p.guest);
    xl_say_to(NULL, NULL);
    xl_progress_end(&p.progress);
    return rc;
}
