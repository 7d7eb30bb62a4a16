/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The process behind `xl migrate-receive --remus --replication 2`: banner, header and configuration, then the twin.
 *
 * It may outlive the ssh connection that started it by far: it leaves the session, ignores SIGHUP and SIGPIPE, and never
 * waits for its standard error.
 */
#include "libxl_twin.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include <libxl.h>

#include "libxl_channel_frame.h"
#include "libxl_control_path.h"
#include "libxl_twin_config.h"
#include "libxl_twin_lock.h"
#include "libxl_twin_log.h"
#include "libxl_twin_qemu.h"

#define LIMIT_HEADER_MS 60000
#define HOLD_EXTRA (64ull << 20)
#define XL_CONF "/etc/xen/xl.conf"
#define LOG_DIR "/var/log/xen"

struct receiver {
    const struct twin_options *opts;
    struct twin_log log;
    libxl__gc gc;
    libxl__loop *loop;
    libxl__twin twin;
    unsigned char *prefix; /* xl header and what follows it; in gc */
    size_t prefix_len;
    uint64_t prologue; /* its XXH3-64, as it came */
    struct twin_config config;
    const char *apply; /* NULL: cold */
    bool device_model;
    const char *argv[4];
    char lock[256], own_lock[256];
    int signal_fd;
    libxl__ev_fd signal_ev;
    bool done;
    enum twin_outcome outcome;
};

/* ---- before the frames: blocking, with one limit ---- */

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool wait_ready(int fd, short events, int64_t until_ms)
{
    struct pollfd p = {.fd = fd, .events = events};
    int64_t left = until_ms - now_ms();

    if (left <= 0) return false;
    return poll(&p, 1, (int)left) == 1;
}

static int write_banner(struct receiver *rv, int64_t until_ms)
{
    static const char banner[] = "xl migration receiver ready, send binary domain data.\n";
    size_t done = 0;
    ssize_t r;

    while (done < sizeof(banner) - 1) {
        r = -1;
        errno = ETIMEDOUT;
        if (wait_ready(rv->opts->out_fd, POLLOUT, until_ms))
            r = write(rv->opts->out_fd, banner + done, sizeof(banner) - 1 - done);
        if (r < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (r < 0) {
            LOGE(&rv->gc, ERROR, "cannot write to the primary");
            return ERROR_FAIL;
        }
        done += (size_t)r;
    }
    return 0;
}

static int read_exactly(struct receiver *rv, unsigned char *to, size_t len, int64_t until_ms)
{
    size_t done = 0;
    ssize_t r;

    while (done < len) {
        r = -1;
        errno = ETIMEDOUT;
        if (wait_ready(rv->opts->in_fd, POLLIN, until_ms))
            r = read(rv->opts->in_fd, to + done, len - done);
        if (r < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (r < 0) {
            LOGE(&rv->gc, ERROR, "cannot read the guest's configuration from the primary");
            return ERROR_FAIL;
        }
        if (!r) {
            LOG(&rv->gc, ERROR, "the primary left before it had sent the guest's configuration");
            return ERROR_FAIL;
        }
        done += (size_t)r;
    }
    return 0;
}

static int judge_config(struct receiver *rv)
{
    const char *wrong;

    wrong = libxl__twin_config_parse(rv->prefix + XL_IMAGE_HEADER_LEN,
                                     rv->prefix_len - XL_IMAGE_HEADER_LEN, &rv->config);
    if (wrong) {
        LOG(&rv->gc, ERROR, "%s", wrong);
        return ERROR_FAIL;
    }
    if (strcmp(rv->config.name, rv->opts->domain)) {
        LOG(&rv->gc, ERROR, "the configuration is that of another guest than %s", rv->opts->domain);
        return ERROR_FAIL;
    }
    return 0;
}

static int read_prefix(struct receiver *rv, int64_t until_ms)
{
    unsigned char header[XL_IMAGE_HEADER_LEN];
    const char *wrong;
    uint32_t len;
    int rc;

    rc = read_exactly(rv, header, sizeof(header), until_ms);
    if (rc) return rc;
    wrong = libxl__twin_header_check(header, &len);
    if (wrong) {
        LOG(&rv->gc, ERROR, "%s", wrong);
        return ERROR_FAIL;
    }
    rv->prefix_len = sizeof(header) + len;
    rv->prefix = libxl__zalloc(&rv->gc, rv->prefix_len);
    memcpy(rv->prefix, header, sizeof(header));
    rc = read_exactly(rv, rv->prefix + sizeof(header), len, until_ms);
    rv->prologue = XXH3_64bits(rv->prefix, rv->prefix_len);
    return rc ? rc : judge_config(rv);
}

/* ---- the twin ---- */

static void say(void *user, const char *line)
{
    struct receiver *rv = user;

    libxl__twin_log_say(&rv->log, line);
}

static void twin_finished(libxl__egc *egc, libxl__twin *t, enum twin_outcome outcome)
{
    struct receiver *rv = t->user;

    rv->outcome = outcome;
    rv->done = true;
}

static void signalled(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct receiver *rv = CONTAINER_OF(ev, struct receiver, signal_ev);
    struct signalfd_siginfo si;

    if (read(fd, &si, sizeof(si)) == sizeof(si)) libxl__twin_terminate(egc, &rv->twin);
}

static int catch_signals(struct receiver *rv)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    rv->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (rv->signal_fd < 0) {
        LOGE(&rv->gc, ERROR, "cannot watch for signals");
        return ERROR_FAIL;
    }
    return libxl__ev_fd_register(rv->loop, &rv->signal_ev, signalled, rv->signal_fd, POLLIN);
}

/* The stock helper does not know encoded pages. NULL in *path: the environment names one. */
static int find_helper(struct receiver *rv, const char **path)
{
    static const char ours[] = XENTWIN_LIBEXECDIR "/libxl-save-helper";

    *path = NULL;
    if (getenv("LIBXL_SAVE_HELPER")) return 0;
    *path = ours;
    if (!access(ours, X_OK)) return 0;
    LOGE(&rv->gc, ERROR, "cannot run %s, which reads the guest's pages", ours);
    return ERROR_FAIL;
}

/* ---- warm or cold ---- */

/* QEMU shall wait for its state. What libxl keeps of the configuration is put right by xentwin-apply. */
static int defer_device_model(struct receiver *rv)
{
    const char *json = (const char *)rv->prefix + XL_IMAGE_HEADER_LEN + 4;
    unsigned char *prefix;
    char *edited;
    size_t len;

    edited = twin_qemu_config(&rv->log.lg, json, 1);
    len = edited ? strlen(edited) + 1 : 0;
    if (!edited || len + 4 > XL_IMAGE_DATA_MAX) {
        free(edited);
        return ERROR_FAIL;
    }
    prefix = libxl__zalloc(&rv->gc, XL_IMAGE_HEADER_LEN + 4 + len);
    memcpy(prefix, rv->prefix, XL_IMAGE_HEADER_LEN);
    channel_put32(prefix + XL_IMAGE_HEADER_LEN - 4, (uint32_t)len + 4);
    channel_put32(prefix + XL_IMAGE_HEADER_LEN, (uint32_t)len);
    memcpy(prefix + XL_IMAGE_HEADER_LEN + 4, edited, len);
    free(edited);
    rv->prefix = prefix;
    rv->prefix_len = XL_IMAGE_HEADER_LEN + 4 + len;
    return 0;
}

static int choose_twin(struct receiver *rv)
{
    const char *file = getenv("XENTWIN_APPLY"), *reason;

    rv->apply = file && *file ? file : XENTWIN_LIBEXECDIR "/xentwin-apply";
    rv->device_model = !strcmp(rv->config.type, "hvm");
    reason = rv->opts->choice == TWIN_COLD
                 ? "it was asked for"
                 : libxl__twin_config_cold(&rv->config, rv->opts->num_disks);
    if (!reason && access(rv->apply, X_OK)) reason = "xentwin-apply is not installed";
    if (!reason && rv->device_model && defer_device_model(rv))
        reason = "its configuration cannot be changed";
    if (!reason) return 0;
    rv->apply = NULL;
    if (rv->opts->choice == TWIN_WARM) {
        LOG(&rv->gc, ERROR, "the twin of %s cannot be warm: %s", rv->config.name, reason);
        return ERROR_FAIL;
    }
    LOG(&rv->gc, INFO, "the twin of %s is cold: %s", rv->config.name, reason);
    return 0;
}

/* For whoever writes the twin's memory, in whatever child: xc_sr_raise_limit. */
static int tell_max_memory(struct receiver *rv)
{
    char *kb = libxl__sprintf(&rv->gc, "%llu", (unsigned long long)rv->config.max_memkb);

    return setenv("XENTWIN_MAX_MEMKB", kb, 1) ? ERROR_NOMEM : 0;
}

static int start_twin(struct receiver *rv)
{
    const struct twin_options *o = rv->opts;
    libxl__twin *t = &rv->twin;
    const char *env = getenv("XENTWIN_STOCK_XL");
    int rc;

    t->config_target_kb = rv->config.target_memkb;
    t->loop = rv->loop;
    t->recv_fd = o->in_fd;
    t->send_fd = o->out_fd;
    t->prefix = rv->prefix;
    t->prefix_len = rv->prefix_len;
    t->prologue = rv->prologue;
    t->uuid = rv->config.uuid;
    t->c = (struct arbiter_case){
        .rule = o->rule,
        .command = o->arbiter,
        .domain = o->domain,
        .self = o->self,
        .peer = o->peer,
        .session = o->session,
        .limit_ms = o->limit_ms,
    };
    t->hold_limit = o->hold_limit ? o->hold_limit : rv->config.max_memkb * 1024 + HOLD_EXTRA;
    t->stock_xl = o->stock_xl ? o->stock_xl : env ? env : XENTWIN_STOCK_XL;
    rv->argv[0] = t->stock_xl;
    rv->argv[1] = "migrate-receive";
    rv->argv[2] = o->no_monitor ? "-e" : NULL;
    t->argv = rv->argv;
    rc = find_helper(rv, &t->helper);
    if (!rc) rc = tell_max_memory(rv);
    if (rc) return rc;
    libxl__twin_lock_find(XL_CONF, rv->lock, sizeof(rv->lock));
    snprintf(rv->own_lock, sizeof(rv->own_lock), "%s/xl-%.64s.lock", control_dir(), o->domain);
    t->lock = rv->lock;
    t->own_lock = rv->own_lock;
    t->apply = rv->apply;
    t->device_model = rv->device_model;
    t->with_control = true;
    t->disks = o->disks;
    t->num_disks = o->num_disks;
    t->user = rv;
    t->message = say;
    t->finished = twin_finished;
    return libxl__twin_start(t);
}

static int run_twin(struct receiver *rv)
{
    int rc;

    rc = libxl__loop_new(&rv->loop, &rv->log.lg, NULL);
    if (rc) return rc;
    rc = catch_signals(rv);
    if (!rc) rc = start_twin(rv);
    if (!rc) rc = libxl__loop_run(rv->loop, &rv->done);
    if (!rc && rv->outcome == TWIN_FAILED) rc = ERROR_FAIL;
    return rc;
}

/* The ssh connection must not take us with it when it breaks. */
static void stand_alone(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    (void)
        setsid(); /* fails for a group leader, which sshd's child may be: SIGHUP is ignored anyway */
}

int libxl__twin_receive(const struct twin_options *opts)
{
    struct receiver rv = {.opts = opts, .signal_fd = -1};
    int64_t until_ms = now_ms() + LIMIT_HEADER_MS;
    char path[160];
    int rc;

    stand_alone();
    snprintf(path, sizeof(path), LOG_DIR "/xentwin-backup-%.64s.log", opts->domain);
    libxl__twin_log_open(&rv.log, opts->log_path ? opts->log_path : path);
    libxl__gc_init(&rv.gc, &rv.log.lg);
    libxl__twin_init(&rv.twin);
    libxl__ev_fd_init(&rv.signal_ev);

    rc = write_banner(&rv, until_ms);
    if (!rc) rc = read_prefix(&rv, until_ms);
    if (!rc) rc = choose_twin(&rv);
    if (!rc) rc = run_twin(&rv);

    libxl__twin_dispose(&rv.twin);
    if (rv.loop) libxl__ev_fd_deregister(rv.loop, &rv.signal_ev);
    if (rv.signal_fd >= 0) close(rv.signal_fd);
    libxl__loop_free(rv.loop);
    libxl__gc_dispose(&rv.gc);
    libxl__twin_log_close(&rv.log);
    return rc ? 1 : 0;
}
