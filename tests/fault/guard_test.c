/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The n-th call to the system of the operation's side of the guard fails, n = 1, 2, ..., while it starts its guard, protects, loses its
 * guard and gets another one, and ends, or is killed. While the operation lives no guard touches the guest; when it is
 * killed the guest is let go once; no guard, child or descriptor is left.
 *
 * This program is three: the test, the operation, and, under the name xentwin-guard, the guard.
 */
#include <dirent.h>
#include <poll.h>

#define GUARD_LOG_DIR "/nonexistent"
#define main xentwin_guard_main
int xentwin_guard_main(int argc, char **argv);
#include "../../tools/guard/xentwin-guard.c"
#undef main

#define CALLS_MAX 200
#define GONE_MS 10000

/* ---- the call that fails ---- */

static uint64_t fail_at, *calls; /* shared: the child that makes the guard counts, too */

static bool fails(int error)
{
    if (!fail_at || ++*calls != fail_at) return false;
    errno = error;
    return true;
}

#define WRAP(type, name, error, formal, actual)                                                    \
    type __real_##name formal;                                                                     \
    type __wrap_##name formal;                                                                     \
    type __wrap_##name formal                                                                      \
    {                                                                                              \
        return fails(error) ? -1 : __real_##name actual;                                           \
    }
WRAP(pid_t, fork, EAGAIN, (void), ())
WRAP(int, pidfd_open, EMFILE, (pid_t pid, unsigned flags), (pid, flags))
WRAP(int, poll, ENOMEM, (struct pollfd * p, nfds_t n, int ms), (p, n, ms))
WRAP(ssize_t, recv, ENOMEM, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags))
WRAP(ssize_t, send, ENOBUFS, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
WRAP(int, socketpair, EMFILE, (int domain, int type, int protocol, int sv[2]),
     (domain, type, protocol, sv))

/* ---- what is done to the guest, and who was there: words in two files ---- */

static void note(const char *variable, const char *word)
{
    int fd = open(getenv(variable), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0) abort();
    dprintf(fd, "%s ", word);
    close(fd);
}

int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb)
{
    note("TEST_DEEDS", "go_on");
    return 0;
}

int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid)
{
    note("TEST_DEEDS", "pause");
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
    note("TEST_DEEDS", "discard");
    return 0;
}

static int be_guard(int argc, char **argv)
{
    char pid[20];

    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    note("TEST_PIDS", pid);
    return xentwin_guard_main(argc, argv);
}

/* ---- the operation ---- */

enum end { ENDS, IS_KILLED };

struct report {
    bool fired, started, guarded, left;
};

static int deaths;

static void guard_died(libxl__egc *egc, libxl__guard *g, int rc)
{
    deaths++;
}

static int open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    while (d && readdir(d))
        n++;
    if (d) closedir(d);
    return n;
}

/* Its guard is killed; the loop finds out and starts another one. */
static void lose_guard(libxl__loop *loop, libxl__guard *g)
{
    if (g->pidfd < 0) return;
    pidfd_send_signal(g->pidfd, SIGKILL, NULL, 0);
    while (!deaths && !libxl__loop_once(loop, 1000))
        ;
}

static void __attribute__((noreturn)) operate(int out, uint64_t n, enum end end)
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
    r.started = !libxl__guard_start(&g);
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

static const char *words(const char *variable)
{
    static char text[1000];
    FILE *f = fopen(getenv(variable), "re");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    if (f) fclose(f);
    text[n] = 0;
    return text;
}

static bool guards_gone(void)
{
    char list[1000], *at;

    snprintf(list, sizeof(list), "%s", words("TEST_PIDS"));
    /* Whoever inherited it may be slow to take its status. */
    for (char *word = strtok_r(list, " ", &at); word; word = strtok_r(NULL, " ", &at)) {
        struct pollfd p = {.fd = pidfd_open(atoi(word), 0), .events = POLLIN};
        bool gone = p.fd < 0 || poll(&p, 1, GONE_MS) == 1;

        if (p.fd >= 0) close(p.fd);
        if (!gone) return false;
    }
    return true;
}

static bool wrong(const char *what, uint64_t n, enum end end)
{
    printf("call %lu fails, the operation %s: %s; deeds '%s'\n", (unsigned long)n,
           end == ENDS ? "ends" : "is killed", what, words("TEST_DEEDS"));
    return false;
}

/* False: something is wrong. */
static bool run(uint64_t n, enum end end, bool *fired)
{
    struct report r;
    int fds[2];
    pid_t op;

    unlink(getenv("TEST_DEEDS"));
    unlink(getenv("TEST_PIDS"));
    *calls = 0;
    if (pipe2(fds, O_CLOEXEC)) abort();
    op = fork();
    if (!op) operate(fds[1], n, end);
    close(fds[1]);
    if (read(fds[0], &r, sizeof(r)) != sizeof(r)) return wrong("it crashed", n, end);
    close(fds[0]);
    *fired = r.fired;
    /* Nobody but the operation knows of a guest that is well: those who were dropped leave. */
    if (end == ENDS && !guards_gone()) return wrong("a guard is left", n, end);
    if (*words("TEST_DEEDS")) return wrong("a guard acts, the operation lives", n, end);
    kill(op, SIGKILL);
    if (waitpid(op, NULL, 0) != op) abort();
    if (!guards_gone()) return wrong("a guard is left", n, end);
    if (r.left) return wrong("a child or a file is left", n, end);
    if (end == ENDS && *words("TEST_DEEDS")) return wrong("a guard acts after the end", n, end);
    if (end == IS_KILLED && r.guarded && strcmp(words("TEST_DEEDS"), "go_on "))
        return wrong("the guest is not let go once", n, end);
    return true;
}

int main(int argc, char **argv)
{
    char exe[256], dir[] = "/tmp/guard_fault.XXXXXX", path[300];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    unsigned long failed = 0, runs = 0;
    bool fired;

    if (!strcmp(argv[0], "xentwin-guard")) return be_guard(argc, argv);
    if (len < 0 || !mkdtemp(dir)) abort();
    exe[len] = 0;
    calls = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (calls == MAP_FAILED) abort();
    setenv("XENTWIN_GUARD", exe, 1);
    setenv("XENTWIN_XL", "/bin/true", 1);
    snprintf(path, sizeof(path), "%s/deeds", dir);
    setenv("TEST_DEEDS", path, 1);
    snprintf(path, sizeof(path), "%s/pids", dir);
    setenv("TEST_PIDS", path, 1);
    for (int end = ENDS; end <= IS_KILLED; end++) {
        fired = true;
        for (uint64_t n = 1; fired && n < CALLS_MAX; n++, runs++)
            failed += !run(n, (enum end)end, &fired);
    }
    unlink(getenv("TEST_DEEDS"));
    unlink(getenv("TEST_PIDS"));
    rmdir(dir);
    printf("%lu runs, %lu failed\n", runs, failed);
    return failed || fired ? 1 : 0;
}
