/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "xl.h"
#include "xl_opts.h"
#include "xl_remote.h"

#define BANNER "xl migration receiver ready, send binary domain data.\n"
/* How our own receiver begins its lines; the stock one's begin otherwise. */
#define OUR_RECEIVER "xl migrate-receive: "
/* What a stock xl says of --replication: a long option has no letter, so it prints a NUL. */
#define STOCK_REFUSAL "option `?' not supported."
#define CONFIG_WRITE_MS 60000
#define END_WAIT_MS 5000
#define SLICE_MS 100

/* The header that begins a saved domain: FILE format of xl, 48 bytes and the optional data. */
struct save_header {
    char magic[32];
    uint32_t byteorder;
    uint32_t mandatory_flags;
    uint32_t optional_flags;
    uint32_t optional_data_len;
};
#define SAVE_MAGIC "Xen saved domain, xl format\n \0 \r"
#define SAVE_BYTEORDER 0x01020304u
#define SAVE_FLAG_JSON 1u
#define SAVE_FLAG_STREAM_V2 2u

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void xl_remote_init(struct xl_remote *r)
{
    memset(r, 0, sizeof(*r));
    r->pid = -1;
    r->send_fd = r->recv_fd = r->err_fd = -1;
}

/* The command's standard error: kept back until we know whether it says anything that we do not say
 * better. */
static void take_messages(struct xl_remote *r, const char *bytes, size_t len)
{
    size_t room = sizeof(r->err_text) - 1 - r->err_len, i;
    char *end;

    /* What floods us is cut, never stored; of what is kept back the end says why. */
    if (len > room && !r->err_pass) {
        r->err_len -= len - room;
        memmove(r->err_text, r->err_text + len - room, r->err_len);
    } else if (len > room) {
        len = room;
    }
    for (i = 0; i < len; i++)
        r->err_text[r->err_len + i] = bytes[i] ? bytes[i] : '?';
    r->err_len += len;
    r->err_text[r->err_len] = '\0';
    if (!r->err_pass) return;
    while ((end = strchr(r->err_text, '\n')) || r->err_len == sizeof(r->err_text) - 1) {
        size_t line = end ? (size_t)(end - r->err_text) : r->err_len;

        xl_progress_line(r->progress, "%s: %.*s", r->host, (int)line, r->err_text);
        line += end ? 1 : 0;
        r->err_len -= line;
        memmove(r->err_text, r->err_text + line, r->err_len + 1);
    }
}

/*
 * Ends at the end of file, or when told to and nothing more is there: a process that the command
 * left behind (ssh ControlPersist) may keep the pipe open for ever.
 */
static void *read_messages(void *arg)
{
    struct xl_remote *r = arg;
    struct pollfd pfd = {.fd = r->err_fd, .events = POLLIN};
    char buf[1024];
    ssize_t n;

    for (;;) {
        if (poll(&pfd, 1, SLICE_MS) <= 0) {
            if (__atomic_load_n(&r->err_stop, __ATOMIC_ACQUIRE)) return NULL;
            continue;
        }
        n = read(r->err_fd, buf, sizeof(buf));
        if (n == 0 || (n < 0 && errno != EINTR)) return NULL;
        pthread_mutex_lock(&r->err_lock);
        take_messages(r, buf, n > 0 ? (size_t)n : 0);
        pthread_mutex_unlock(&r->err_lock);
    }
}

static void stop_messages(struct xl_remote *r)
{
    __atomic_store_n(&r->err_stop, true, __ATOMIC_RELEASE);
    if (r->err_running) pthread_join(r->err_thread, NULL);
    r->err_running = false;
}

static void pass_messages(struct xl_remote *r)
{
    pthread_mutex_lock(&r->err_lock);
    r->err_pass = true;
    take_messages(r, "", 0);
    pthread_mutex_unlock(&r->err_lock);
}

/* The last line that the command said, for our own message. */
static void last_message(struct xl_remote *r)
{
    char *text = r->err_text, *line;

    pthread_mutex_lock(&r->err_lock);
    while (r->err_len && strchr("\r\n", text[r->err_len - 1]))
        text[--r->err_len] = '\0';
    line = strrchr(text, '\n');
    snprintf(r->answer, sizeof(r->answer), "%.*s", (int)sizeof(r->answer) - 1,
             line ? line + 1 : text);
    r->err_len = 0;
    text[0] = '\0';
    pthread_mutex_unlock(&r->err_lock);
}

/* Makes pgrp the terminal's foreground group, so that it can ask for a password and Ctrl-C ends it.
 */
static void lend_terminal(struct xl_remote *r)
{
    if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp()) return;
    signal(SIGTTOU, SIG_IGN);
    r->tty_lent = !tcsetpgrp(STDIN_FILENO, r->pid);
}

static void take_terminal_back(struct xl_remote *r)
{
    if (r->tty_lent) tcsetpgrp(STDIN_FILENO, getpgrp());
    r->tty_lent = false;
}

static void run_command(const int *in, const int *out, const int *err, const char *ssh,
                        const char *host, const char *words)
{
    char local[8192];
    const char *argv[] = {"sh", "-c", local, "sh", host, words, NULL};
    struct sigaction sa = {.sa_handler = SIG_DFL};
    int n;

    setpgid(0, 0);
    sigaction(SIGPIPE, &sa, NULL);
    sigaction(SIGTTOU, &sa, NULL);
    sigaction(SIGTSTP, &sa, NULL);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(err[1], STDERR_FILENO);
    if (*ssh)
        n = snprintf(local, sizeof(local), "exec %s \"$@\"", ssh);
    else
        n = snprintf(local, sizeof(local), "%s %s", host, words);
    if (n > 0 && (size_t)n < sizeof(local)) execv("/bin/sh", (char **)argv);
    _exit(127);
}

static bool make_pipe(int *fds)
{
    return !pipe2(fds, O_CLOEXEC);
}

static void close_pair(const int *fds)
{
    if (fds[0] >= 0) close(fds[0]);
    if (fds[1] >= 0) close(fds[1]);
}

int xl_remote_start(struct xl_remote *r, const char *ssh, const char *words)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};

    pthread_mutex_init(&r->err_lock, NULL);
    if (!make_pipe(in) || !make_pipe(out) || !make_pipe(err)) {
        xl_fail("remus", "cannot make a pipe: %s", strerror(errno));
        goto fail;
    }
    r->pid = fork();
    if (r->pid == 0) run_command(in, out, err, ssh, r->host, words);
    if (r->pid < 0) {
        xl_fail("remus", "cannot start '%s': %s", *ssh ? ssh : r->host, strerror(errno));
        goto fail;
    }
    /* Both sides set it: whoever comes first. */
    setpgid(r->pid, r->pid);
    lend_terminal(r);
    r->send_fd = in[1];
    r->recv_fd = out[0];
    r->err_fd = err[0];
    close(in[0]);
    close(out[1]);
    close(err[1]);
    r->err_running = !pthread_create(&r->err_thread, NULL, read_messages, r);
    return XL_DONE;
fail:
    close_pair(in);
    close_pair(out);
    close_pair(err);
    return XL_FAILED;
}

/* 1: ready; 0: the time is over; -1: interrupted. */
static int await_fd(struct xl_remote *r, int fd, short events, int64_t until_ms)
{
    struct pollfd pfd = {.fd = fd, .events = events};

    while (!*r->interrupted) {
        if (poll(&pfd, 1, SLICE_MS) > 0) return 1;
        if (now_ms() >= until_ms) return 0;
    }
    return -1;
}

/* The command closed its output without a banner: its exit status says why. */
static enum xl_remote_answer explain_end(struct xl_remote *r)
{
    int64_t until = now_ms() + END_WAIT_MS;
    int status = 0;
    bool stock;
    pid_t pid;

    while ((pid = waitpid(r->pid, &status, WNOHANG)) == 0 && now_ms() < until && !*r->interrupted)
        poll(NULL, 0, SLICE_MS);
    if (pid == 0) return XL_REMOTE_SILENT;
    r->pid = -1;
    stop_messages(r);
    stock = strstr(r->err_text, STOCK_REFUSAL);
    last_message(r);
    if (*r->interrupted || (WIFSIGNALED(status) && WTERMSIG(status) == SIGINT))
        return XL_REMOTE_INTERRUPTED;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return XL_REMOTE_NO_XL;
    if (WIFSIGNALED(status) || WEXITSTATUS(status) == 255) return XL_REMOTE_UNREACHABLE;
    if (!strncmp(r->answer, OUR_RECEIVER, strlen(OUR_RECEIVER))) return XL_REMOTE_REFUSED;
    if (stock) return XL_REMOTE_STOCK;
    if (!*r->answer)
        snprintf(r->answer, sizeof(r->answer), "the command ended with status %d, without a word",
                 WEXITSTATUS(status));
    return XL_REMOTE_FAILED;
}

/* What came instead of the banner, as far as it is there, made printable. */
static enum xl_remote_answer garbled(struct xl_remote *r, const char *bytes, size_t len)
{
    size_t i;

    for (i = 0; i < len && i < sizeof(r->answer) - 1 && bytes[i] != '\n'; i++)
        r->answer[i] = bytes[i] >= ' ' && bytes[i] < 127 ? bytes[i] : '?';
    r->answer[i] = '\0';
    return XL_REMOTE_GARBLED;
}

static enum xl_remote_answer read_banner(struct xl_remote *r, int limit_ms)
{
    int64_t until = now_ms() + limit_ms;
    const size_t want = strlen(BANNER);
    char buf[sizeof(BANNER)];
    size_t have = 0;

    while (have < want) {
        int ready = await_fd(r, r->recv_fd, POLLIN, until);
        ssize_t n;

        if (ready <= 0) return ready ? XL_REMOTE_INTERRUPTED : XL_REMOTE_SILENT;
        n = read(r->recv_fd, buf + have, want - have);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n <= 0) return have ? garbled(r, buf, have) : explain_end(r);
        have += (size_t)n;
        if (memcmp(buf, BANNER, have)) return garbled(r, buf, have);
    }
    return XL_REMOTE_READY;
}

enum xl_remote_answer xl_remote_banner(struct xl_remote *r, int limit_ms)
{
    enum xl_remote_answer answer = read_banner(r, limit_ms);

    take_terminal_back(r);
    if (answer == XL_REMOTE_READY) pass_messages(r);
    return answer;
}

static bool write_all(struct xl_remote *r, const void *bytes, size_t len, int64_t until_ms)
{
    const char *at = bytes;

    while (len) {
        ssize_t n;

        if (await_fd(r, r->send_fd, POLLOUT, until_ms) <= 0) return false;
        n = write(r->send_fd, at, len);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

int xl_remote_send_config(struct xl_remote *r, const char *json)
{
    uint32_t json_len = (uint32_t)strlen(json) + 1;
    struct save_header header = {
        .magic = SAVE_MAGIC,
        .byteorder = SAVE_BYTEORDER,
        .mandatory_flags = SAVE_FLAG_JSON | SAVE_FLAG_STREAM_V2,
        .optional_data_len = (uint32_t)sizeof(json_len) + json_len,
    };
    size_t len = sizeof(header) + header.optional_data_len;
    int64_t until = now_ms() + CONFIG_WRITE_MS;
    char *all = malloc(len);
    bool ok;

    if (!all) return xl_fail("remus", "no memory for the guest's configuration");
    memcpy(all, &header, sizeof(header));
    memcpy(all + sizeof(header), &json_len, sizeof(json_len));
    memcpy(all + sizeof(header) + sizeof(json_len), json, json_len);
    r->prologue = XXH3_64bits(all, len);
    /* A pipe takes less than a page without waiting only when it is non-blocking. */
    fcntl(r->send_fd, F_SETFL, O_NONBLOCK);
    ok = write_all(r, all, len, until);
    fcntl(r->send_fd, F_SETFL, 0);
    free(all);
    if (ok) return XL_DONE;
    return xl_fail("remus", "%s does not take the guest's configuration", r->host);
}

void xl_remote_end(struct xl_remote *r)
{
    int64_t until = now_ms() + END_WAIT_MS;
    int sig = SIGTERM;

    take_terminal_back(r);
    if (r->send_fd >= 0) close(r->send_fd);
    if (r->recv_fd >= 0) close(r->recv_fd);
    r->send_fd = r->recv_fd = -1;
    while (r->pid > 0 && waitpid(r->pid, NULL, WNOHANG) == 0) {
        if (now_ms() >= until) {
            kill(-r->pid, sig);
            sig = SIGKILL;
            until = now_ms() + END_WAIT_MS;
        }
        poll(NULL, 0, SLICE_MS / 5);
    }
    r->pid = -1;
    stop_messages(r);
    if (r->err_fd >= 0) close(r->err_fd);
    r->err_fd = -1;
}
