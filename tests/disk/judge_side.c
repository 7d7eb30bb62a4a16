/* SPDX-License-Identifier: LGPL-2.1-only */
#include "judge_side.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPLY_MS 60000

char side_reply[REPLY_SIZE];

static void die(const char *what)
{
    fprintf(stderr, "judge: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- processes ---- */

static pid_t spawn(const struct side *s, const char *const *argv, int in, int out)
{
    char text[300];
    pid_t pid = fork();

    if (pid < 0) die("fork");
    if (pid) return pid;
    if (in >= 0) dup2(in, 0);
    if (out >= 0) dup2(out, 1);
    int quiet = open("/dev/null", O_WRONLY);
    if (out < 0) dup2(quiet, 1);
    if (!getenv("JUDGE_VERBOSE")) dup2(quiet, 2);
    for (int fd = 3; fd < 256; fd++)
        close(fd);
    snprintf(text, sizeof(text), "%s/run", s->dir);
    setenv("XENTWIN_RUNDIR", text, 1);
    snprintf(text, sizeof(text), "%s/state", s->dir);
    setenv("XENTWIN_STATEDIR", text, 1);
    setenv("XENTWIN_DISK_PLUGIN", s->plugin, 1);
    if (s->fault[0])
        setenv("DISK_FAULT", s->fault, 1);
    else
        unsetenv("DISK_FAULT");
    execv(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static int wait_for(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* Instances that ended become our children. */
static void reap(const struct side *keep)
{
    siginfo_t info = {0};

    while (!waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) && info.si_pid) {
        if (keep && info.si_pid == keep->attach) break;
        waitpid(info.si_pid, NULL, 0);
        info.si_pid = 0;
    }
}

/* ---- control ---- */

static void connect_control(struct side *s)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (s->control >= 0) close(s->control);
    snprintf(a.sun_path, sizeof(a.sun_path), "%.80s/run/disk-g-d/control.sock", s->dir);
    s->control = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (s->control < 0 || connect(s->control, (struct sockaddr *)&a, sizeof(a))) die(a.sun_path);
    s->barrier = 0;
    s->synced = s->lost = false;
    s->reason[0] = 0;
}

static bool read_packet(struct side *s, char *packet, int ms)
{
    struct pollfd p = {.fd = s->control, .events = POLLIN};

    packet[0] = 0;
    if (poll(&p, 1, ms) <= 0) return true;
    ssize_t n = recv(s->control, packet, REPLY_SIZE - 1, 0);
    if (n <= 0) return false;
    packet[n] = 0;
    return true;
}

static void take_event(struct side *s, const char *text)
{
    if (!strncmp(text, "barrier ", 8)) s->barrier = strtoull(text + 8, NULL, 10);
    if (!strncmp(text, "synced", 6)) s->synced = true;
    if (!strncmp(text, "lost ", 5)) {
        s->lost = true;
        snprintf(s->reason, sizeof(s->reason), "%.190s", text + 5);
    }
    if (getenv("JUDGE_VERBOSE")) fprintf(stderr, "  %s: event %s\n", s->name, text);
}

bool side_events(struct side *s, int ms)
{
    char packet[REPLY_SIZE];

    for (;;) {
        if (s->control < 0 || !read_packet(s, packet, ms)) return false;
        if (!packet[0]) return true;
        if (!strncmp(packet, "event ", 6)) take_event(s, packet + 6);
        ms = 0;
    }
}

static int request_with(struct side *s, const char *text, int fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } c = {0};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text)};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        m.msg_control = c.space;
        m.msg_controllen = sizeof(c.space);
        *CMSG_FIRSTHDR(&m) = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof(fd));
    }
    snprintf(side_reply, sizeof(side_reply), "gone");
    if (s->control < 0 || sendmsg(s->control, &m, MSG_NOSIGNAL) < 0) return -1;
    for (;;) {
        if (!read_packet(s, side_reply, REPLY_MS)) {
            snprintf(side_reply, sizeof(side_reply), "gone");
            return -1;
        }
        if (strncmp(side_reply, "event ", 6)) break;
        take_event(s, side_reply + 6);
    }
    if (getenv("JUDGE_VERBOSE")) fprintf(stderr, "  %s: %s -> %s\n", s->name, text, side_reply);
    return strncmp(side_reply, "ok", 2) ? -1 : 0;
}

int side_request(struct side *s, const char *format, ...)
{
    char text[128];
    va_list al;

    va_start(al, format);
    vsnprintf(text, sizeof(text), format, al);
    va_end(al);
    return request_with(s, text, -1);
}

uint64_t side_number(struct side *s, const char *key)
{
    char word[64];

    if (side_request(s, "status")) return UINT64_MAX;
    snprintf(word, sizeof(word), " %s=", key);
    const char *at = strstr(side_reply, word);
    return at ? strtoull(at + strlen(word), NULL, 10) : UINT64_MAX;
}

/* ---- sides ---- */

void side_init(struct side *s, const char *base, const char *name)
{
    memset(s, 0, sizeof(*s));
    snprintf(s->name, sizeof(s->name), "%.3s", name);
    snprintf(s->dir, sizeof(s->dir), "%.180s/%s", base, name);
    snprintf(s->disk, sizeof(s->disk), "%s/disk", s->dir);
    mkdir(s->dir, 0700);
    s->control = -1;
    s->plugin = getenv("DISK_PLUGIN");
    s->fd = open(s->disk, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->fd < 0 || !s->plugin) die("a disk or DISK_PLUGIN");
}

void side_uri(const struct side *s, char *out, size_t size)
{
    snprintf(out, size, "nbd+unix:///?socket=%s/run/disk-g-d/nbd.sock", s->dir);
}

static int add_options(const char **argv, int n, const char *const *options)
{
    while (options && *options && n < 30)
        argv[n++] = *options++;
    argv[n] = NULL;
    return n;
}

int side_start(struct side *s, const char *const *options)
{
    const char *argv[32] = {getenv("DISK_TOOL"), "start", "g", "d", s->disk};
    int r;

    add_options(argv, 5, options);
    r = wait_for(spawn(s, argv, -1, -1));
    if (!r) connect_control(s);
    return r;
}

void side_stop(struct side *s)
{
    const char *argv[] = {getenv("DISK_TOOL"), "stop", "g", "d", NULL};

    if (s->control >= 0) close(s->control);
    s->control = -1;
    if (wait_for(spawn(s, argv, -1, -1))) fprintf(stderr, "judge: stop failed\n");
    side_unattach(s);
    reap(s);
}

pid_t side_pid(const struct side *s)
{
    char path[300], text[32] = "";

    snprintf(path, sizeof(path), "%s/run/disk-g-d/pid", s->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    return n > 0 ? (pid_t)strtol(text, NULL, 10) : 0;
}

bool side_running(const struct side *s)
{
    return s->control >= 0;
}

void side_share(struct side *first, struct side *second)
{
    unlink(second->disk);
    close(second->fd);
    memcpy(second->disk, first->disk, sizeof(second->disk));
    second->fd = open(second->disk, O_RDWR | O_CLOEXEC);
    if (second->fd < 0) die(second->disk);
}

void side_kill(struct side *s)
{
    pid_t pid = side_pid(s);
    char packet[REPLY_SIZE];

    /* Its locks may go after its sockets: a new start must not find them. */
    if (pid > 1 && !kill(pid, SIGKILL)) waitpid(pid, NULL, 0);
    while (s->control >= 0 && read_packet(s, packet, REPLY_MS) && packet[0])
        ;
    if (s->control >= 0) close(s->control);
    s->control = -1;
    side_unattach(s);
    reap(s);
}

void side_unattach(struct side *s)
{
    if (!s->attach) return;
    kill(s->attach, SIGKILL);
    wait_for(s->attach);
    s->attach = 0;
}

/* ---- the link ---- */

static bool pass(int to, const uint8_t *p, ssize_t n)
{
    while (n > 0) {
        ssize_t w = send(to, p, (size_t)n, MSG_NOSIGNAL);
        if (w < 0 && errno == EINTR) continue;
        if (w < 0) return false;
        p += w;
        n -= w;
    }
    return true;
}

/* False: the link ends here. */
static bool do_harm(struct relay *r, uint8_t *p, ssize_t *n)
{
    uint8_t half[4096];
    ssize_t k = *n / 2 < (ssize_t)sizeof(half) ? *n / 2 : (ssize_t)sizeof(half);

    r->harmed = true;
    switch (r->harm) {
    case HARM_CUT:
        return false;
    case HARM_FLIP:
        p[*n / 2] ^= 0x10;
        break;
    case HARM_LOSE:
        memmove(p + *n / 3, p + *n / 3 + k / 2 + 1, (size_t)(*n - *n / 3 - k / 2 - 1));
        *n -= k / 2 + 1;
        break;
    case HARM_SWAP:
        memcpy(half, p, (size_t)k);
        memmove(p, p + k, (size_t)k);
        memcpy(p + k, half, (size_t)k);
        break;
    case HARM_STALL:
        poll(&(struct pollfd){.fd = r->stop[0], .events = POLLIN}, 1, r->stall_ms);
        break;
    case HARM_NONE:
        break;
    }
    return true;
}

/* From one end to the other, until either is closed. */
static void carry(struct relay *r, int from)
{
    uint8_t buf[16384];
    uint64_t passed = 0;

    for (;;) {
        struct pollfd p[2] = {{.fd = r->ends[from], .events = POLLIN},
                              {.fd = r->stop[0], .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR) break;
        if (p[1].revents) break;
        ssize_t n = read(r->ends[from], buf, sizeof(buf));
        if (n <= 0) break;
        if (from == 0 && r->harm && !r->harmed && passed >= r->at && n > 8 && !do_harm(r, buf, &n))
            break;
        passed += (uint64_t)n;
        if (!pass(r->ends[1 - from], buf, n)) break;
    }
    shutdown(r->ends[0], SHUT_RDWR);
    shutdown(r->ends[1], SHUT_RDWR);
}

static void *carry_there(void *arg)
{
    carry(arg, 0);
    return NULL;
}

static void *carry_back(void *arg)
{
    carry(arg, 1);
    return NULL;
}

/* Returns the end for the backup. */
static int relay_begin(struct relay *r, int near)
{
    int b[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b) || pipe2(r->stop, O_CLOEXEC))
        die("socketpair");
    r->ends[0] = near;
    r->ends[1] = b[1];
    r->harmed = false;
    if (pthread_create(&r->threads[0], NULL, carry_there, r) ||
        pthread_create(&r->threads[1], NULL, carry_back, r))
        die("pthread_create");
    r->runs = true;
    return b[0];
}

int side_link(struct side *primary, int fd)
{
    primary->synced = primary->lost = false;
    primary->barrier = 0;
    return request_with(primary, "link", fd);
}

int sides_link(struct side *primary, struct side *backup, struct relay *r,
               const char *const *options)
{
    const char *argv[32] = {getenv("DISK_TOOL"), "attach", "g", "d", "--path", backup->disk};
    int a[2];

    add_options(argv, 6, options);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a)) die("socketpair");
    int far = r ? relay_begin(r, a[1]) : a[1];
    backup->attach = spawn(backup, argv, far, far);
    close(far);
    int rc = side_link(primary, a[0]);
    close(a[0]);
    /* The backup has answered, so attach has started it. */
    for (int i = 0; !rc && i < 3000 && !primary->lost; i++) {
        side_events(primary, 1);
        if (!side_request(primary, "status") && strstr(side_reply, " state=linked ")) {
            connect_control(backup);
            return side_request(backup, "subscribe");
        }
    }
    return -1;
}

void relay_end(struct relay *r)
{
    if (!r->runs) return;
    close(r->stop[1]);
    shutdown(r->ends[0], SHUT_RDWR);
    shutdown(r->ends[1], SHUT_RDWR);
    pthread_join(r->threads[0], NULL);
    pthread_join(r->threads[1], NULL);
    close(r->stop[0]);
    close(r->ends[0]);
    close(r->ends[1]);
    r->runs = false;
}

int judge_main(int argc, char **argv, unsigned (*workload)(uint64_t seed))
{
    const char *name = program_invocation_short_name;
    unsigned failed = 0;

    if (argc != 3 || !getenv("DISK_TOOL") || !getenv("DISK_PLUGIN") ||
        !getenv("DISK_PLUGIN_FAULTS")) {
        fprintf(stderr,
                "%s: say FIRST and COUNT, and set DISK_TOOL, DISK_PLUGIN and DISK_PLUGIN_FAULTS\n",
                name);
        return 2;
    }
    uint64_t first = strtoull(argv[1], NULL, 10), count = strtoull(argv[2], NULL, 10);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    for (uint64_t i = 0; i < count; i++)
        failed += workload(first + i) != 0;
    printf("%s: %" PRIu64 " workloads, %u failed\n", name, count, failed);
    return failed != 0;
}
