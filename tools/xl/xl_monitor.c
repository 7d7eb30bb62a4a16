/* SPDX-License-Identifier: LGPL-2.1-only */
#include "xl_monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>
#include <libxl_utils.h>
#include <xenstore.h>

#include "xl.h"
#include "xl_opts.h"

#define SHUTDOWN_POWEROFF 0
#define SHUTDOWN_REBOOT 1
#define SHUTDOWN_SUSPEND 2
#define SHUTDOWN_WATCHDOG 4

/* Set from the suspend that made the stock xl leave until our monitor has taken its place. */
static void mark_path(char path[64], uint32_t domid)
{
    snprintf(path, 64, "/libxl/%u/xentwin/unattended", domid);
}

static libxl_action_on_shutdown action_for(const libxl_domain_config *c, int reason)
{
    switch (reason) {
    case SHUTDOWN_POWEROFF:
        return c->on_poweroff;
    case SHUTDOWN_REBOOT:
        return c->on_reboot;
    case SHUTDOWN_SUSPEND:
        return LIBXL_ACTION_ON_SHUTDOWN_PRESERVE;
    case SHUTDOWN_WATCHDOG:
        return c->on_watchdog;
    default:
        return c->on_crash;
    }
}

/* What was changed since we began, a disk attached, memory, the name, holds for the next start, too. */
static void refresh(libxl_ctx *ctx, libxl_domain_config *config, uint32_t domid)
{
    libxl_domain_config now;

    libxl_domain_config_init(&now);
    if (libxl_retrieve_domain_configuration(ctx, domid, &now, NULL)) {
        libxl_domain_config_dispose(&now);
        return;
    }
    libxl_domain_config_dispose(config);
    *config = now;
}

/* True when there is a new domain to look after. */
static bool act(libxl_ctx *ctx, libxl_domain_config *config, uint32_t *domid, int reason)
{
    libxl_action_on_shutdown action = action_for(config, reason);
    bool again = action == LIBXL_ACTION_ON_SHUTDOWN_RESTART ||
                 action == LIBXL_ACTION_ON_SHUTDOWN_RESTART_RENAME ||
                 action == LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_RESTART;

    fprintf(stderr, "domain %u ended with reason %d: %s\n", *domid, reason,
            libxl_action_on_shutdown_to_string(action));
    if (action == LIBXL_ACTION_ON_SHUTDOWN_PRESERVE ||
        action == LIBXL_ACTION_ON_SHUTDOWN_SOFT_RESET)
        return false;
    if (again) refresh(ctx, config, *domid);
    if (libxl_domain_destroy(ctx, *domid, NULL)) return false;
    if (!again) return false;
    /* A fresh uuid is not wanted: it is the same guest. */
    if (libxl_domain_create_new(ctx, config, domid, NULL, NULL)) {
        fprintf(stderr, "the guest cannot be started again\n");
        return false;
    }
    fprintf(stderr, "started again as domain %u\n", *domid);
    return libxl_domain_unpause(ctx, *domid, NULL) == 0;
}

/* Waits for the end of one domain. The reason of its shutdown, or -1: it is gone. */
static int await_end(libxl_ctx *ctx, uint32_t domid)
{
    libxl_evgen_domain_death *death = NULL;
    libxl_event *event;
    int reason = -1;
    bool ended = false;

    if (libxl_evenable_domain_death(ctx, domid, 0, &death)) return -1;
    while (!ended && !libxl_event_wait(ctx, &event, LIBXL_EVENTMASK_ALL, NULL, NULL)) {
        if (event->domid == domid && event->type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN) {
            reason = event->u.domain_shutdown.shutdown_reason;
            ended = true;
        } else if (event->domid == domid && event->type == LIBXL_EVENT_TYPE_DOMAIN_DEATH) {
            ended = true;
        }
        libxl_event_free(ctx, event);
    }
    libxl_evdisable_domain_death(ctx, death);
    return reason;
}

static void look_after(uint32_t domid)
{
    xentoollog_logger_stdiostream *lg = xtl_createlogger_stdiostream(stderr, XTL_WARN, 0);
    libxl_domain_config config;
    libxl_ctx *ctx = NULL;
    int reason;

    if (!lg || libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, (xentoollog_logger *)lg)) return;
    libxl_domain_config_init(&config);
    if (libxl_retrieve_domain_configuration(ctx, domid, &config, NULL)) return;
    do
        reason = await_end(ctx, domid);
    while (reason >= 0 && act(ctx, &config, &domid, reason));
}

static void become_daemon(const char *name)
{
    char path[200];
    int in = open("/dev/null", O_RDONLY), out;

    snprintf(path, sizeof(path), "/var/log/xen/xentwin-monitor-%s.log", name);
    out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0640);
    if (out < 0) out = open("/dev/null", O_WRONLY);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(1);
    close_range(3, ~0u, 0);
    setsid();
    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
}

static bool start(uint32_t domid, const char *name)
{
    pid_t pid = fork();
    int status = 1;

    if (pid == 0) {
        /* Twice, so that nobody has to wait for it. */
        pid = fork();
        if (pid == 0) {
            become_daemon(name);
            look_after(domid);
        }
        _exit(pid < 0);
    }
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (status)
        xl_say("remus", "nobody looks after the end of '%s': it will stay when it shuts down",
               name);
    return !status;
}

void xl_monitor_unattended(uint32_t domid)
{
    struct xs_handle *xs = xs_open(0);
    char path[64];

    mark_path(path, domid);
    /* Without the mark only a crash of ours is worse off: nobody is started then. */
    if (xs) xs_write(xs, XBT_NULL, path, "1", 1);
    xs_close(xs);
}

bool xl_monitor_attend(uint32_t domid, const char *name)
{
    struct xs_handle *xs = xs_open(0);
    char path[64], *mark = NULL;
    bool ok = true;

    if (!xs) {
        xl_say("remus", "xenstore does not answer: nobody may look after the end of '%s'", name);
        return false;
    }
    mark_path(path, domid);
    mark = xs_read(xs, XBT_NULL, path, NULL);
    if (mark) {
        /* Removed first: whoever comes at the same time must not start a second one. */
        xs_rm(xs, XBT_NULL, path);
        ok = start(domid, name);
    }
    free(mark);
    xs_close(xs);
    return ok;
}
