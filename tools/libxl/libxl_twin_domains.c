/* SPDX-License-Identifier: LGPL-2.1-only */
/* See libxl_twin_domains.h. One round is: list; for a half-built copy: destroy, and list again. */
#include "libxl_twin_domains.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libxl.h>

#define OUTPUT_MAX (256u << 10)
#define LIMIT_RUN_MS 60000
#define LIMIT_MEMORY_MS 10000 /* the guest waits */
#define DESTROY_MAX 3
#define INCOMING "--incoming"

static int run(libxl__twin_domains *td, const char *word, const char *arg, const char *value);

static void end_run(libxl__twin_domains *td)
{
    libxl__ev_fd_deregister(td->loop, &td->out_ev);
    libxl__ev_time_deregister(td->loop, &td->limit);
    if (td->out_fd >= 0) close(td->out_fd);
    td->out_fd = -1;
}

static void finish(libxl__egc *egc, libxl__twin_domains *td, int rc, bool here, const char *why)
{
    td->busy = false;
    td->done(egc, td, rc, here, why);
}

/* One line of `xl vm-list`: uuid, domid, name. */
static void judge_line(const libxl__twin_domains *td, char *line, bool *here, unsigned *copy)
{
    size_t base = strlen(td->name), len;
    char uuid[37], name[128];
    unsigned domid;

    if (sscanf(line, "%36s %u %127[^\n]", uuid, &domid, name) != 3) return;
    len = strlen(name);
    while (len && name[len - 1] == ' ')
        name[--len] = '\0';
    if (!strcmp(name, td->name)) *here = true;
    if (!strncmp(name, td->name, base) && !strcmp(name + base, INCOMING) &&
        !strcasecmp(uuid, td->uuid) && domid)
        *copy = domid;
}

/* What cannot be told is not held: the file comes with the first domain that is built. */
static bool somebody_builds(const char *lock)
{
    struct flock held = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = lock ? open(lock, O_RDWR | O_CLOEXEC) : -1;
    bool yes = fd >= 0 && !fcntl(fd, F_GETLK, &held) && held.l_type != F_UNLCK;

    if (fd >= 0) close(fd);
    return yes;
}

static void judge_list(libxl__egc *egc, libxl__twin_domains *td)
{
    unsigned copy = 0;
    bool here = false;
    char *line, *save = NULL, name[128], why[128];

    for (line = strtok_r(td->out, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        judge_line(td, line, &here, &copy);
    if (!copy) {
        finish(egc, td, 0, here, NULL);
        return;
    }
    if (somebody_builds(td->builders)) {
        snprintf(why, sizeof(why),
                 "domain %u there is perhaps being migrated: wait, or: xl destroy %u", copy, copy);
        finish(egc, td, ERROR_FAIL, here, why);
        return;
    }
    snprintf(why, sizeof(why), "the half-built domain %u cannot be removed: xl destroy %u", copy,
             copy);
    /* By name: one that was just handed over has lost it, and its number is now the guest's. */
    snprintf(name, sizeof(name), "%s" INCOMING, td->name);
    if (td->destroyed++ < DESTROY_MAX && !run(td, "destroy", name, NULL)) {
        LOG(libxl__loop_gc(td->loop), WARN, "removing the half-built domain %u (%s%s)", copy,
            td->name, INCOMING);
        td->destroying = true;
        return;
    }
    finish(egc, td, ERROR_FAIL, here, why);
}

static void take_output(libxl__twin_domains *td)
{
    ssize_t r;

    for (;;) {
        if (td->out_len == OUTPUT_MAX) return;
        r = read(td->out_fd, td->out + td->out_len, OUTPUT_MAX - td->out_len);
        if (r < 0 && errno == EINTR) continue;
        if (r == 0) libxl__ev_fd_deregister(td->loop, &td->out_ev);
        if (r <= 0) return;
        td->out_len += (size_t)r;
    }
}

static void output_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    libxl__twin_domains *td = CONTAINER_OF(ev, libxl__twin_domains, out_ev);

    take_output(td);
    if (td->out_len == OUTPUT_MAX) libxl__ev_fd_deregister(td->loop, ev);
}

static void xl_exited(libxl__egc *egc, libxl__ev_child *ev, pid_t pid, int status)
{
    libxl__twin_domains *td = CONTAINER_OF(ev, libxl__twin_domains, child);
    bool destroying = td->destroying;

    take_output(td);
    td->out[td->out_len] = '\0';
    end_run(td);
    td->destroying = false;
    if (td->setting_memory) {
        td->setting_memory = td->busy = false;
        td->memory_set(egc, td, status ? ERROR_FAIL : 0);
        return;
    }
    if (destroying) {
        /* Its status does not matter: the list tells. */
        if (run(td, "vm-list", NULL, NULL))
            finish(egc, td, ERROR_FAIL, false, "cannot run the stock xl");
        return;
    }
    if (status) {
        finish(egc, td, ERROR_FAIL, false, "the stock xl cannot list the domains of this host");
        return;
    }
    judge_list(egc, td);
}

static void run_late(libxl__egc *egc, libxl__ev_time *ev)
{
    libxl__twin_domains *td = CONTAINER_OF(ev, libxl__twin_domains, limit);

    kill(td->child.pid, SIGKILL); /* xl_exited comes */
}

static int run(libxl__twin_domains *td, const char *word, const char *arg, const char *value)
{
    char *argv[] = {(char *)td->stock_xl, (char *)word, (char *)arg, (char *)value, NULL};
    int p[2], rc, limit_ms = td->setting_memory ? LIMIT_MEMORY_MS : LIMIT_RUN_MS;
    pid_t pid;

    if (pipe2(p, O_CLOEXEC)) {
        LOGE(libxl__loop_gc(td->loop), ERROR, "cannot make a pipe");
        return ERROR_FAIL;
    }
    td->out_fd = p[0];
    td->out_len = 0;
    rc = libxl__fd_nonblock(libxl__loop_gc(td->loop), p[0], true);
    if (!rc) rc = libxl__ev_fd_register(td->loop, &td->out_ev, output_readable, p[0], POLLIN);
    if (!rc) rc = libxl__ev_time_register_rel(td->loop, &td->limit, run_late, limit_ms);
    if (!rc) {
        pid = libxl__ev_child_fork(td->loop, &td->child, xl_exited);
        if (!pid) libxl__exec(-1, p[1], -1, argv[0], argv);
        if (pid < 0) rc = ERROR_FAIL;
    }
    close(p[1]);
    if (rc) end_run(td);
    return rc;
}

void libxl__twin_domains_init(libxl__twin_domains *td)
{
    memset(td, 0, sizeof(*td));
    libxl__ev_child_init(&td->child);
    libxl__ev_fd_init(&td->out_ev);
    libxl__ev_time_init(&td->limit);
    td->out_fd = -1;
}

int libxl__twin_domains_start(libxl__twin_domains *td)
{
    int rc;

    assert(!td->busy);
    if (!td->out) td->out = malloc(OUTPUT_MAX + 1);
    if (!td->out) return ERROR_NOMEM;
    td->destroyed = 0;
    td->destroying = false;
    rc = run(td, "vm-list", NULL, NULL);
    td->busy = !rc;
    return rc;
}

int libxl__twin_domains_set_memory(libxl__twin_domains *td, uint64_t target_kb)
{
    char name[128], value[32];
    int rc;

    assert(!td->busy);
    if (!td->out) td->out = malloc(OUTPUT_MAX + 1);
    if (!td->out) return ERROR_NOMEM;
    snprintf(name, sizeof(name), "%s" INCOMING, td->name);
    snprintf(value, sizeof(value), "%lluk", (unsigned long long)target_kb);
    td->setting_memory = true;
    rc = run(td, "mem-set", name, value);
    td->setting_memory = td->busy = !rc;
    return rc;
}

void libxl__twin_domains_dispose(libxl__twin_domains *td)
{
    assert(!td->busy);
    free(td->out);
    td->out = NULL;
}
