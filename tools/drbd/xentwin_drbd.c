/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xentwin-drbd RESOURCE RUN-DIR STATE-DIR primary|backup LIMIT-MS [force]: the instance of a disk that is a DRBD resource. xentwin-disk
 * starts it. It goes to the background once its control socket is there; before that, standard error has the reason.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include "disk_util.h"
#include "drbd_control.h"

#define LINK_AT (DISK_CLIENTS_MAX + 1)
#define SIGNAL_AT (DISK_CLIENTS_MAX + 2)
#define POLL_COUNT (DISK_CLIENTS_MAX + 3)

static struct drbd_control control;
static struct drbd_instance instance;

static void complain(const char *why)
{
    fprintf(stderr, "error: %s\n", why);
}

static void log_line(const char *line)
{
    syslog(LOG_WARNING, "%s", line);
}

static void tell_event(struct drbd_instance *in, const char *text)
{
    (void)in;
    if (!strncmp(text, "lost ", 5)) disk_log("drbd:%s: %s", instance.resource, text);
    drbd_control_event(&control, text);
}

static void barrier_done(struct drbd_instance *in, const char *reply)
{
    (void)in;
    drbd_control_barrier(&control, reply);
}

/* One instance at a time has the name, and one the state. */
static int take_lock(const char *dir)
{
    char name[PATH_MAX], why[PATH_MAX + 64];
    int fd;

    snprintf(name, sizeof(name), "%s/lock", dir);
    fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB)) return 0;
    snprintf(why, sizeof(why), fd < 0 ? "cannot open %s" : "an instance with %s runs already",
             name);
    complain(why);
    return -1;
}

static int take_words(int argc, char **argv)
{
    char *end;
    long limit;

    if (argc < 6 || argc > 7 || !drbd_name_fine(argv[1])) return -1;
    errno = 0;
    limit = strtol(argv[5], &end, 10);
    if (errno || *end || limit < 1000 || limit > 3600000) {
        complain("limit-ms must be 1000 to 3600000");
        return 1;
    }
    instance.resource = argv[1];
    instance.run_dir = argv[2];
    instance.state_dir = argv[3];
    instance.primary = !strcmp(argv[4], "primary");
    instance.limit_ms = (int)limit;
    instance.force_primary = argc == 7;
    instance.event = tell_event;
    instance.barrier_done = barrier_done;
    return 0;
}

static int write_pid(void)
{
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof(path), "%s/pid", instance.run_dir);
    f = fopen(path, "we");
    if (!f) return -1;
    fprintf(f, "%ld\n", (long)getpid());
    return fclose(f);
}

static int signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &set, SFD_CLOEXEC);
}

static void run(int signal_fd)
{
    struct pollfd p[POLL_COUNT];

    while (!control.stop) {
        drbd_control_before(&control, p);
        p[LINK_AT] =
            (struct pollfd){.fd = instance.link ? instance.link->in : -1, .events = POLLIN};
        p[SIGNAL_AT] = (struct pollfd){.fd = signal_fd, .events = POLLIN};
        int limit_ms = disk_clients_limit_ms(&control.clients, instance.link ? DRBD_TICK_MS : -1);
        if (poll(p, POLL_COUNT, limit_ms) < 0 && errno != EINTR) break;
        if (p[SIGNAL_AT].revents) break;
        if (p[LINK_AT].revents && instance.link && instance.link->in == p[LINK_AT].fd)
            drbd_link_readable(&instance);
        drbd_control_after(&control, p);
        drbd_instance_tick(&instance);
    }
}

int main(int argc, char **argv)
{
    char path[PATH_MAX], why[DRBD_WHY_MAX];
    int signal_fd, r;

    r = take_words(argc, argv);
    if (r < 0) complain("xentwin-drbd is started by xentwin-disk");
    if (r || take_lock(instance.run_dir) || take_lock(instance.state_dir)) return 1;
    if (drbd_instance_open(&instance, why)) {
        complain(why);
        return 1;
    }
    snprintf(path, sizeof(path), "%s/control.sock", instance.run_dir);
    signal_fd = signals();
    if (signal_fd < 0 || drbd_control_open(&control, &instance, path)) {
        complain("cannot make the control socket");
        return 1;
    }
    if (daemon(0, 0) || write_pid()) return 1;
    openlog("xentwin-drbd", LOG_PID, LOG_DAEMON);
    disk_log_line = log_line;
    run(signal_fd);
    drbd_instance_close(&instance);
    drbd_control_close(&control);
    return 0;
}
