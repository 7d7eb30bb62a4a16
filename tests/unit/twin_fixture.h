/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The twin between a real channel end, which plays the primary, and a fake stock xl, which is the test program
 * itself: see fake_xl_main. Time moves only when a test says so; children get their real time.
 */
#ifndef TWIN_FIXTURE_H
#define TWIN_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include <libxl.h>

#include "libxl_channel_frame.h"
#include "libxl_twin.h"
#include "twin_stream_make.h"

#define LIMIT_MS 600
#define UUID "12345678-1234-1234-1234-123456789abc"
#define OTHER_UUID "87654321-1234-1234-1234-123456789abc"
#define HOLD (16u << 20)

/* ---- the fake stock xl ---- */

static const char banner[] = "xl migration receiver ready, send binary domain data.\n";
static const char received[] = "domain received, ready to unpause";
static const char permission[] = "domain is yours, you are cleared to unpause";
static const char report[] = "my copy unpause results are as follows";

static inline const char *fake_file(const char *name)
{
    static char path[300];

    snprintf(path, sizeof(path), "%s/%s", getenv("FAKE_XL_DIR"), name);
    return path;
}

static inline void fake_note(const char *text)
{
    int fd = open(fake_file("log"), O_WRONLY | O_CREAT | O_APPEND, 0600);

    dprintf(fd, "%s\n", text);
    close(fd);
}

static inline void fake_note_lock(void)
{
    struct stat sb;
    char line[40];

    if (stat(getenv("FAKE_XL_LOCK"), &sb)) return;
    snprintf(line, sizeof(line), "lock %lu", (unsigned long)sb.st_ino);
    fake_note(line);
}

static inline bool fake_mode(const char *mode)
{
    return !strcmp(getenv("FAKE_XL_MODE"), mode);
}

/* Takes n bytes from standard input into the file; false: end of file. */
static inline bool fake_take(void *to, size_t n, int out)
{
    size_t done = 0;

    while (done < n) {
        ssize_t r = read(0, (char *)to + done, n - done);

        if (r <= 0) return false;
        if (write(out, (char *)to + done, (size_t)r) != r) return false;
        done += (size_t)r;
    }
    return true;
}

static inline void fake_wait_for(const char *name)
{
    while (access(fake_file(name), F_OK))
        poll(NULL, 0, 2);
}

/* One record of either layer: its type, or -1 at the end of file. */
static inline int64_t fake_record(int out)
{
    static unsigned char body[8 << 20];
    uint32_t head[2];

    if (!fake_take(head, 8, out) || head[1] > sizeof(body)) return -1;
    return fake_take(body, (head[1] + 7) & ~7u, out) ? (int64_t)head[0] : -1;
}

static inline bool fake_stream(int out)
{
    static unsigned char config[1 << 20];
    unsigned char head[64];
    uint32_t len;
    int64_t type;
    int records = 0;

    if (!fake_take(head, 48, out)) return false;
    memcpy(&len, head + 44, 4);
    if (len > sizeof(config) || !fake_take(config, len, out)) return false;
    if (fake_mode("die-late")) exit(5);
    if (!fake_take(head, 64, out)) return false;
    while ((type = fake_record(out)) != 0) {
        if (type < 0) return false;
        if (fake_mode("pause") && ++records == 7) fake_wait_for("go");
    }
    while ((type = fake_record(out)) != 0)
        if (type < 0) return false;
    return true;
}

static inline int fake_receive(void)
{
    unsigned char word[64];
    int out = open(fake_file("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int null = open("/dev/null", O_WRONLY);

    if (getenv("FAKE_XL_LOCK")) fake_note_lock();
    fake_note(getenv("LIBXL_SAVE_HELPER") ? getenv("LIBXL_SAVE_HELPER") : "no helper");
    if (fake_mode("die-early")) {
        fprintf(stderr, "libxl: error: no\033 memory\n");
        return 3;
    }
    if (fake_mode("bad-banner"))
        printf("Welcome to this host\n"), fflush(stdout), poll(NULL, 0, 50);
    if (write(1, banner, sizeof(banner) - 1) < 0) return 1;
    if (fake_mode("hold")) fake_wait_for("go");
    if (fake_mode("too-early") && write(1, received, sizeof(received)) < 0) return 1;
    if (!fake_stream(out)) {
        fake_note("dropped");
        return 1;
    }
    if (fake_mode("late")) fake_wait_for("go");
    if (write(1, received, sizeof(received)) < 0) return 1;
    if (!fake_take(word, sizeof(permission), null) ||
        memcmp(word, permission, sizeof(permission))) {
        fake_note("dropped at the end");
        return 1;
    }
    fake_note("running");
    if (write(1, report, sizeof(report)) < 0) return 1;
    if (write(1, fake_mode("result") ? "\3" : "\0", 1) < 0) return 1;
    return 0;
}

static inline int fake_xl_main(int argc, char **argv)
{
    char line[300];
    FILE *f;

    if (!strcmp(argv[1], "migrate-receive")) return fake_receive();
    if (!strcmp(argv[1], "destroy")) {
        snprintf(line, sizeof(line), "destroy %s", argv[2]);
        fake_note(line);
        if (!fake_mode("immortal")) unlink(fake_file("domains"));
        return 0;
    }
    if (!strcmp(argv[1], "mem-set")) {
        snprintf(line, sizeof(line), "mem-set %s %s", argv[2], argv[3]);
        fake_note(line);
        if (fake_mode("slow-memory")) fake_wait_for("go");
        return fake_mode("no-memory");
    }
    if (fake_mode("no-list")) return 1;
    if (fake_mode("slow-list")) fake_wait_for("go");
    printf("UUID                                  ID    name\n");
    printf("00000000-0000-0000-0000-000000000000  0    Domain-0                      \n");
    f = fopen(fake_file("domains"), "r");
    while (f && fgets(line, sizeof(line), f))
        printf("%s", line);
    return 0;
}

/* ---- fixture ---- */

struct fixture {
    int64_t now_ms;
    libxl__loop *loop;
    libxl__twin twin;
    libxl__channel p; /* the primary's end */
    int fds[2];
    char dir[64], self[300];
    const char *argv[4];
    struct bytes prefix, stream;
    unsigned sent; /* checkpoints */
    uint64_t acked;
    bool hello, stopped, errored, lost, finished;
    char error[1100], told[4096];
    enum twin_outcome outcome;
};

static inline int64_t fake_now(void *user)
{
    return ((struct fixture *)user)->now_ms;
}

static inline void fake_advance(void *user, int64_t until_ms)
{
    poll(NULL, 0, 1);
}

static inline void primary_frame(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                                 const void *body, size_t len)
{
    struct fixture *f = ch->user;

    if (type == CHANNEL_HELLO) f->hello = true;
    if (type == CHANNEL_STOPPED) f->stopped = true;
    if (type == CHANNEL_ACK) {
        assert_int_equal(arg, f->acked + 1);
        f->acked = arg;
    }
    if (type == CHANNEL_ERROR) {
        f->errored = true;
        libxl__channel_text(body, len, f->error, sizeof(f->error));
    }
}

static inline void primary_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    ((struct fixture *)ch->user)->lost = true;
}

static inline void twin_tells(void *user, const char *line)
{
    struct fixture *f = user;
    size_t n = strlen(f->told);

    snprintf(f->told + n, sizeof(f->told) - n, "%s\n", line);
}

static inline void twin_finished(libxl__egc *egc, libxl__twin *t, enum twin_outcome outcome)
{
    struct fixture *f = t->user;

    assert_false(f->finished);
    f->finished = true;
    f->outcome = outcome;
}

static inline void make_prefix(struct bytes *b)
{
    static const char config[] =
        "{\"c_info\":{\"name\":\"guest\",\"uuid\":\"" UUID "\"},\"b_info\":{\"max_memkb\":98304}}";
    unsigned char head[48] = "Xen saved domain, xl format\n \0 \r";
    uint32_t len = sizeof(config);

    channel_put32(head + 32, 0x01020304);
    channel_put32(head + 36, 3);
    channel_put32(head + 44, 4 + len);
    put(b, head, sizeof(head));
    put(b, &len, 4);
    put(b, config, len);
}

static inline void make_stream(struct bytes *b, int checkpoints, uint32_t first, uint32_t later)
{
    b->n = 0;
    put_stream_head(b);
    for (int n = 1; n <= checkpoints; n++)
        put_checkpoint(b, n, n == 1 ? first : later, true);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    libxl__clock clock = {fake_now, fake_advance, f};

    f->now_ms = 1000;
    strcpy(f->dir, "/tmp/twin_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_true(readlink("/proc/self/exe", f->self, sizeof(f->self) - 1) > 0);
    setenv("FAKE_XL_DIR", f->dir, 1);
    setenv("XENTWIN_RUN_DIR", f->dir, 1);
    setenv("FAKE_XL_MODE", "good", 1);
    unsetenv("LIBXL_SAVE_HELPER");
    assert_int_equal(libxl__loop_new(&f->loop, NULL, &clock), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->fds), 0);
    make_prefix(&f->prefix);
    make_stream(&f->stream, 3, 3, 2);
    f->argv[0] = f->self;
    f->argv[1] = "migrate-receive";

    libxl__channel_init(&f->p);
    f->p.loop = f->loop;
    f->p.send_fd = f->p.recv_fd = f->fds[0];
    f->p.primary = true;
    f->p.limit_ms = LIMIT_MS;
    f->p.user = f;
    f->p.frame = primary_frame;
    f->p.lost = primary_lost;

    libxl__twin_init(&f->twin);
    f->twin.loop = f->loop;
    f->twin.recv_fd = f->twin.send_fd = f->fds[1];
    f->twin.prefix = f->prefix.p;
    f->twin.prefix_len = f->prefix.n;
    f->twin.uuid = UUID;
    f->twin.c = (struct arbiter_case){.rule = LINK_LOSS_BACKUP,
                                      .domain = "guest",
                                      .self = "hostB",
                                      .peer = "hostA",
                                      .session = UUID,
                                      .limit_ms = LIMIT_MS};
    f->twin.hold_limit = HOLD;
    f->twin.config_target_kb = 98304;
    f->twin.stock_xl = f->self;
    f->twin.argv = f->argv;
    f->twin.helper = "/our/helper";
    f->twin.user = f;
    f->twin.message = twin_tells;
    f->twin.finished = twin_finished;
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;
    char cmd[100];

    libxl__channel_dispose(&f->p);
    libxl__twin_dispose(&f->twin);
    libxl__twin_dispose(&f->twin);
    libxl__loop_free(f->loop);
    for (int i = 0; i < 2; i++)
        if (f->fds[i] >= 0) close(f->fds[i]);
    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f->prefix.p);
    free(f->stream.p);
    free(f);
    return 0;
}

static inline int64_t real_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Runs until cond is true; a test that waits for 20 s of real time has failed. */
#define RUN_UNTIL(f, cond)                                                                         \
    do {                                                                                           \
        int64_t until_ = real_ms() + 20000;                                                        \
        while (!(cond)) {                                                                          \
            assert_int_equal(libxl__loop_once((f)->loop, 5), 0);                                   \
            if (real_ms() > until_) fail_msg("waited in vain for %s; told: %s", #cond, (f)->told); \
        }                                                                                          \
    } while (0)

static inline void turns(struct fixture *f, int n)
{
    while (n--)
        assert_int_equal(libxl__loop_once(f->loop, 1), 0);
}

/* Both ends stay alive while ms pass. */
static inline void pass(struct fixture *f, int64_t ms)
{
    for (; ms > 0; ms -= 20) {
        f->now_ms += ms < 20 ? ms : 20;
        turns(f, 4);
    }
}

static inline void start(struct fixture *f)
{
    assert_int_equal(libxl__channel_start(&f->p), 0);
    assert_int_equal(libxl__twin_start(&f->twin), 0);
    RUN_UNTIL(f, f->hello);
}

/* Sends the bytes of the next checkpoint, the first `part` of them at most; whole: and its COMMIT. */
static inline void send_part(struct fixture *f, size_t part, bool whole)
{
    size_t from = f->sent ? checkpoint_end(f->stream.p, f->stream.n, f->sent) : 0;
    size_t to = checkpoint_end(f->stream.p, f->stream.n, f->sent + 1), n;

    if (to - from > part) to = from + part;
    for (size_t pos = from; pos < to; pos += n) {
        n = to - pos < 300000 ? to - pos : 300000;
        assert_int_equal(
            libxl__channel_send(&f->p, CHANNEL_DATA, f->sent + 1, f->stream.p + pos, n), 0);
    }
    if (!whole) return;
    f->sent++;
    assert_int_equal(libxl__channel_commit(&f->p, f->sent, to - from,
                                           XXH3_64bits(f->stream.p + from, to - from)),
                     0);
}

static inline void send_checkpoint(struct fixture *f)
{
    send_part(f, SIZE_MAX, true);
}

static inline void protect(struct fixture *f, unsigned checkpoints)
{
    start(f);
    while (f->sent < checkpoints) {
        send_checkpoint(f);
        RUN_UNTIL(f, f->acked == f->sent);
    }
}

static inline void cut_link(struct fixture *f)
{
    libxl__channel_dispose(&f->p);
    close(f->fds[0]);
    f->fds[0] = -1;
}

/* Cut and silent for the limit; the twin ends as its rule or arbiter says. */
static inline void lose_link(struct fixture *f)
{
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
}

static inline void stop_and_finish(struct fixture *f)
{
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "", 0);
    RUN_UNTIL(f, f->finished);
}

static inline void read_file(struct fixture *f, const char *name, struct bytes *b)
{
    char path[200], buf[65536];
    ssize_t r;
    int fd;

    b->n = 0;
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    fd = open(path, O_RDONLY);
    if (fd >= 0) {
        while ((r = read(fd, buf, sizeof(buf))) > 0)
            put(b, buf, (size_t)r);
        close(fd);
    }
    put(b, "", 1);
    b->n--;
}

static inline void write_file(struct fixture *f, const char *name, const char *text)
{
    char path[200];
    FILE *out;

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static inline bool noted(struct fixture *f, const char *text)
{
    struct bytes b = {0};
    bool yes;

    read_file(f, "log", &b);
    yes = strstr((char *)b.p, text) != NULL;
    free(b.p);
    return yes;
}

static inline void assert_child_got(struct fixture *f, unsigned checkpoints)
{
    struct bytes got = {0}, want = {0};

    read_file(f, "out", &got);
    put(&want, f->prefix.p, f->prefix.n);
    put_folded(&want, f->stream.p, f->stream.n, checkpoints);
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.p, want.p, want.n);
    free(got.p);
    free(want.p);
}

static inline void ask_admin(struct fixture *f, const char *line)
{
    libxl__egc egc = {f->loop};

    f->twin.control.request(&egc, &f->twin.control, 4711, line);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
