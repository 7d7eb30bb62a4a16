/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The n-th call to the system of the operation's side of the guard fails, n = 1, 2, ..., while it starts its guard, protects, loses its
 * guard and gets another one, and ends, or is killed. While the operation lives no guard touches the guest; when it is
 * killed the guest is let go once; no guard, child or descriptor is left.
 *
 * This program is three: the test, the operation, and, under the name xentwin-guard, the guard.
 */
#include <poll.h>
#include <sys/prctl.h>

#define GUARD_LOG_DIR "/nonexistent"
#define main xentwin_guard_main
int xentwin_guard_main(int argc, char **argv);
#include "../../tools/guard/xentwin-guard.c"
#undef main

#include "fault_calls.h"

#define CALLS_MAX 200
#define GONE_MS 10000

/* ---- the calls that fail; the child that makes the guard counts, too ---- */

WRAP(pid_t, fork, EAGAIN, (void), ())
WRAP(int, pidfd_open, EMFILE, (pid_t pid, unsigned flags), (pid, flags))
WRAP(int, poll, ENOMEM, (struct pollfd * p, nfds_t n, int ms), (p, n, ms))
WRAP(ssize_t, recv, ENOMEM, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
WRAP(ssize_t, send, ENOBUFS, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
WRAP(int, socketpair, EMFILE, (int domain, int type, int protocol, int sv[2]),
     (domain, type, protocol, sv))

/* ---- what is done to the guest: words in a file ---- */

static void note(const char *word)
{
    int fd = open(getenv("TEST_DEEDS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) abort();
    dprintf(fd, "%s ", word);
    close(fd);
}

int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb)
{
    note("go_on");
    return 0;
}

int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid)
{
    note("pause");
    return 0;
}

int libxl__recover_check_domain(libxl__gc *gc, uint32_t domid, const char *uuid)
{
    return 0;
}

bool libxl__recover_is_stopped(libxl__gc *gc, uint32_t domid)
{
    return false;
}

int libxl__netbuffer_discard(libxl__gc *gc, const char *ifb)
{
    note("discard");
    return 0;
}

/* ---- the operation ---- */

enum end { ENDS, IS_KILLED };

struct report {
    bool fired, guarded, left;
};

static int deaths;

static void guard_died(libxl__egc *egc, libxl__guard *g, int rc)
{
    deaths++;
}

/* Its guard is killed; the loop finds out and starts another one. */
static void lose_guard(libxl__loop *loop, libxl__guard *g)
{
    if (g->pidfd < 0) return;
    pidfd_send_signal(g->pidfd, SIGKILL, NULL, 0);
    while (!deaths && !libxl__loop_once(loop, 1000))
        ;
}

static void __attribute__((noreturn)) operate(int out, int n, enum end end)
{
    struct report r = {0};
    libxl__loop *loop;
    libxl__guard g;
    int files;

    if (libxl__loop_new(&loop, NULL, NULL)) abort();
    libxl__guard_init(&g);
    g.loop = loop;
    g.c = (struct arbiter_case){.rule = LINK_LOSS_PRIMARY,
                                .domain = "guest",
                                .self = "hostA",
                                .peer = "hostB",
                                .session = "s",
                                .primary = true,
                                .limit_ms = 50};
    g.domid = 7;
    g.uuid = "right";
    g.died = guard_died;
    files = open_files();
    fail_at = n;
    (void)libxl__guard_start(&g);
    libxl__guard_update(&g, 'P', 0);
    libxl__guard_update(&g, 'P', 1);
    lose_guard(loop, &g);
    libxl__guard_update(&g, 'P', 2);
    r.guarded = g.pidfd >= 0 && deaths; /* else the loop failed: the operation is over */
    if (end == ENDS) libxl__guard_stop(&g);
    r.fired = *calls >= n;
    fail_at = 0;
    if (end == ENDS) r.left = open_files() != files || waitpid(-1, NULL, WNOHANG) >= 0;
    if (write(out, &r, sizeof(r)) != sizeof(r)) abort();
    pause();
    _exit(0);
}

/* ---- the test ---- */

static const char *deeds(void)
{
    static char text[1000];
    FILE *f = fopen(getenv("TEST_DEEDS"), "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    if (f) fclose(f);
    text[n] = 0;
    return text;
}

static int children(void)
{
    char path[64];
    int n = 0, pid;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "re");
    if (!f) abort();
    while (fscanf(f, "%d", &pid) == 1)
        n++;
    fclose(f);
    return n;
}

/* We are the reaper of every guard from its first moment on: `others` are the children that are none. */
static bool guards_gone(int others)
{
    for (int ms = 0; ms < GONE_MS; ms += 5) {
        while (waitpid(-1, NULL, WNOHANG) > 0)
            continue;
        if (children() == others) return true;
        usleep(5000);
    }
    return false;
}

/* What is wrong, or NULL. */
static const char *judge(pid_t op, const struct report *r, enum end end)
{
    /* Nobody but the operation knows of a guest that is well: those who were dropped leave. */
    if (end == ENDS && !guards_gone(1)) return "a guard is left";
    if (*deeds()) return "a guard acts, the operation lives";
    kill(op, SIGKILL);
    if (!guards_gone(0)) return "a guard is left";
    if (r->left) return "a child or a file is left";
    if (end == ENDS && *deeds()) return "a guard acts after the end";
    if (end == IS_KILLED && r->guarded && strcmp(deeds(), "go_on "))
        return "the guest is not let go once";
    return NULL;
}

/* False: something is wrong. */
static bool run(int n, enum end end, bool *fired)
{
    const char *problem = "it crashed";
    struct report r;
    int fds[2];
    pid_t op;

    unlink(getenv("TEST_DEEDS"));
    *calls = 0;
    if (pipe2(fds, O_CLOEXEC)) abort();
    op = fork();
    if (!op) operate(fds[1], n, end);
    close(fds[1]);
    if (read(fds[0], &r, sizeof(r)) == sizeof(r)) {
        *fired = r.fired;
        problem = judge(op, &r, end);
    }
    close(fds[0]);
    if (!problem) return true;
    printf("call %d fails, the operation %s: %s; deeds '%s'\n", n,
           end == ENDS ? "ends" : "is killed", problem, deeds());
    kill(op, SIGKILL);
    guards_gone(0);
    return false;
}

int main(int argc, char **argv)
{
    char exe[256], dir[] = "/tmp/guard_fault.XXXXXX", path[300];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    unsigned long failed = 0, runs = 0;
    bool fired;

    if (!strcmp(argv[0], "xentwin-guard")) return xentwin_guard_main(argc, argv);
    if (len < 0 || !mkdtemp(dir)) abort();
    exe[len] = 0;
    calls = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (calls == MAP_FAILED) abort();
    if (prctl(PR_SET_CHILD_SUBREAPER, 1)) abort();
    setenv("XENTWIN_GUARD", exe, 1);
    setenv("XENTWIN_XL", "/bin/true", 1);
    snprintf(path, sizeof(path), "%s/deeds", dir);
    setenv("TEST_DEEDS", path, 1);
    for (int end = ENDS; end <= IS_KILLED; end++) {
        fired = true;
        for (int n = 1; fired && n < CALLS_MAX; n++, runs++)
            failed += !run(n, (enum end)end, &fired);
    }
    unlink(getenv("TEST_DEEDS"));
    rmdir(dir);
    printf("%lu runs, %lu failed\n", runs, failed);
    return failed || fired ? 1 : 0;
}
