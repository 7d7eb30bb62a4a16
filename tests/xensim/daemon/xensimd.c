/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xensimd: one simulated Xen host. Serves the stand-in libraries on RUNDIR/xen.sock until SIGTERM, which ends its
 * domains, too. Log lines go to stderr.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sim_control.h"
#include "sim_evtchn.h"
#include "sim_hypercall.h"
#include "sim_xenstore.h"

#define CALLERS 256

static pthread_mutex_t count_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned int callers;

static int64_t control(struct sim_caller *c, const struct sim_request *req)
{
    char line[SIM_CONTROL_MAX + 1];
    char *answer;
    int64_t rc;
    size_t len;
    int error;

    if (req->args[1] > SIM_CONTROL_MAX) return -E2BIG;
    if (sim_copy_in(c, line, req->args[0], req->args[1])) return -EFAULT;
    line[req->args[1]] = 0;
    answer = malloc(SIM_ANSWER_MAX);
    if (!answer) return -ENOMEM;
    error = sim_control(line, answer, SIM_ANSWER_MAX);
    len = strlen(answer) + 1;
    rc = len > req->args[3] ? -E2BIG : -sim_copy_out(c, req->args[2], answer, len);
    free(answer);
    return rc ? rc : -error;
}

static int reply(const struct sim_caller *c, const struct sim_reply *rep, int fd)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } u = {0};
    struct iovec iov = {(void *)(uintptr_t)rep, sizeof(*rep)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = &u;
        msg.msg_controllen = sizeof(u);
        u.head.cmsg_len = CMSG_LEN(sizeof(int));
        u.head.cmsg_level = SOL_SOCKET;
        u.head.cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(&u.head), &fd, sizeof(fd));
    }
    return sendmsg(c->fd, &msg, MSG_NOSIGNAL) == (ssize_t)sizeof(*rep) ? 0 : -1;
}

static void serve_request(struct sim_caller *c, const struct sim_request *req,
                          struct sim_reply *rep, int *fd)
{
    int64_t rc;

    if (req->kind == SIM_CONTROL)
        rc = control(c, req);
    else
        rc = sim_request_run(c, req, fd, &rep->instance);
    rep->value = rc < 0 ? 0 : rc;
    rep->error = rc < 0 ? (int32_t)-rc : 0;
    c->corrupt = 0;
}

static void *serve(void *arg)
{
    struct sim_caller *c = arg;
    struct sim_request req;

    while (recv(c->fd, &req, sizeof(req), 0) == (ssize_t)sizeof(req)) {
        struct sim_reply rep = {0, 0, 0};
        int fd = -1;

        serve_request(c, &req, &rep, &fd);
        if (reply(c, &rep, fd)) break;
    }
    sim_caller_dispose(c);
    free(c);
    pthread_mutex_lock(&count_lock);
    callers--;
    pthread_mutex_unlock(&count_lock);
    return NULL;
}

static void accept_caller(int listen_fd)
{
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    struct sim_caller *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
    pthread_t thread;
    bool room;

    if (!c) {
        if (fd >= 0) close(fd);
        return;
    }
    sim_caller_init(c, fd);
    pthread_mutex_lock(&count_lock);
    room = callers < CALLERS;
    callers += room;
    pthread_mutex_unlock(&count_lock);
    if (room && !pthread_create(&thread, NULL, serve, c)) {
        pthread_detach(thread);
        return;
    }
    fprintf(stderr, "xensimd: cannot serve %s (%d): %u are connected\n", c->comm, (int)c->pid,
            callers);
    if (room) {
        pthread_mutex_lock(&count_lock);
        callers--;
        pthread_mutex_unlock(&count_lock);
    }
    sim_caller_dispose(c);
    free(c);
}

static int listen_at(const char *rundir, char *path, size_t size)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd;

    if (snprintf(path, size, "%s/xen.sock", rundir) >= (int)sizeof(addr.sun_path)) {
        fprintf(stderr, "xensimd: '%s' is too long a path for a socket, choose a shorter folder\n",
                rundir);
        return -1;
    }
    strcpy(addr.sun_path, path);
    unlink(path);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !bind(fd, (struct sockaddr *)&addr, sizeof(addr)) && !chmod(path, 0600) &&
        !listen(fd, 64))
        return fd;
    fprintf(stderr, "xensimd: cannot listen at %s: %s\n", path, strerror(errno));
    if (fd >= 0) close(fd);
    return -1;
}

static void end_domains(void)
{
    struct sim_domain *d;
    uint32_t next = 0;

    while ((d = sim_domain_next(next))) {
        next = d->domid + 1;
        sim_domain_destroy(d);
        sim_domain_put(d);
    }
}

static int put_file(const char *rundir, const char *name, const char *text, off_t size)
{
    char path[256];
    FILE *f;
    int r;

    snprintf(path, sizeof(path), "%s/%s", rundir, name);
    f = fopen(path, "we");
    if (!f) return -1;
    r = fputs(text, f) < 0 || fflush(f) || (size && ftruncate(fileno(f), size));
    return fclose(f) || r ? -1 : 0;
}

/* What a domain 0's kernel and its start-up scripts leave; the preloaded paths.c leads programs here. */
static int make_places(const char *rundir)
{
    static const char *const dirs[] = {"var-lib-xen", "run-xen", "log-xen", "dev-xen",
                                       "run-xentwin"};
    char path[256], port[16];
    size_t i;

    for (i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", rundir, dirs[i]);
        if (mkdir(path, 0700) && errno != EEXIST) return -1;
    }
    snprintf(port, sizeof(port), "%d", SIM_XENSTORE_PORT);
    return put_file(rundir, "capabilities", "control_d\n", 0) ||
                   put_file(rundir, "xsd_port", port, 0) ||
                   put_file(rundir, "dev-xen/privcmd", "", 0) ||
                   put_file(rundir, "xsd_kva", "", (off_t)SIM_PAGE_SIZE)
               ? -1
               : 0;
}

static int run(int listen_fd, int signal_fd)
{
    struct pollfd fds[2] = {{signal_fd, POLLIN, 0}, {listen_fd, POLLIN, 0}};

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) return 1;
        if (fds[0].revents) break;
        if (fds[1].revents) accept_caller(listen_fd);
    }
    end_domains();
    return 0;
}

int main(int argc, char **argv)
{
    char path[256];
    sigset_t ends;
    int fd, rc;

    if (argc != 3 || argv[1][0] == '-') {
        fprintf(stderr, "usage: xensimd NAME RUNDIR\n");
        return 2;
    }
    sim_host.name = argv[1];
    sim_host.rundir = argv[2];
    sim_host.total_pages = 128UL << 18;
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stderr, NULL, _IOLBF, 0);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    sim_evtchn_init();
    if (make_places(sim_host.rundir)) {
        fprintf(stderr, "xensimd: cannot write in %s: %s\n", sim_host.rundir, strerror(errno));
        return 1;
    }
    fd = listen_at(sim_host.rundir, path, sizeof(path));
    if (fd < 0 || sim_xenstore_start()) return 1;
    rc = run(fd, signalfd(-1, &ends, SFD_CLOEXEC));
    unlink(path);
    return rc;
}
