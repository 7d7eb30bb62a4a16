/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The twin between a real channel end, which plays the primary, and a fake stock xl, which is this program
 * itself: see fake_xl_main.
 */
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

static const char *fake_file(const char *name)
{
    static char path[300];

    snprintf(path, sizeof(path), "%s/%s", getenv("FAKE_XL_DIR"), name);
    return path;
}

static void fake_note(const char *text)
{
    int fd = open(fake_file("log"), O_WRONLY | O_CREAT | O_APPEND, 0600);

    dprintf(fd, "%s\n", text);
    close(fd);
}

static bool fake_mode(const char *mode)
{
    return !strcmp(getenv("FAKE_XL_MODE"), mode);
}

/* Takes n bytes from standard input into the file; false: end of file. */
static bool fake_take(void *to, size_t n, int out)
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

static void fake_wait_for(const char *name)
{
    while (access(fake_file(name), F_OK))
        poll(NULL, 0, 2);
}

/* One record of either layer: its type, or -1 at the end of file. */
static int64_t fake_record(int out)
{
    static unsigned char body[8 << 20];
    uint32_t head[2];

    if (!fake_take(head, 8, out) || head[1] > sizeof(body)) return -1;
    return fake_take(body, (head[1] + 7) & ~7u, out) ? (int64_t)head[0] : -1;
}

static bool fake_stream(int out)
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

static int fake_receive(void)
{
    unsigned char word[64];
    int out = open(fake_file("out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int null = open("/dev/null", O_WRONLY);

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

static int fake_xl_main(int argc, char **argv)
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
    if (fake_mode("no-list")) return 1;
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

static int64_t fake_now(void *user)
{
    return ((struct fixture *)user)->now_ms;
}

/* Time moves only when the test says so; children get their real time. */
static void fake_advance(void *user, int64_t until_ms)
{
    poll(NULL, 0, 1);
}

static void primary_frame(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
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

static void primary_lost(libxl__egc *egc, libxl__channel *ch, const char *why)
{
    ((struct fixture *)ch->user)->lost = true;
}

static void twin_tells(void *user, const char *line)
{
    struct fixture *f = user;
    size_t n = strlen(f->told);

    snprintf(f->told + n, sizeof(f->told) - n, "%s\n", line);
}

static void twin_finished(libxl__egc *egc, libxl__twin *t, enum twin_outcome outcome)
{
    struct fixture *f = t->user;

    assert_false(f->finished);
    f->finished = true;
    f->outcome = outcome;
}

static void make_prefix(struct bytes *b)
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

static void make_stream(struct bytes *b, int checkpoints, uint32_t first, uint32_t later)
{
    b->n = 0;
    put_stream_head(b);
    for (int n = 1; n <= checkpoints; n++)
        put_checkpoint(b, n, n == 1 ? first : later, true);
}

static int setup(void **state)
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
    f->twin.stock_xl = f->self;
    f->twin.argv = f->argv;
    f->twin.helper = "/our/helper";
    f->twin.user = f;
    f->twin.message = twin_tells;
    f->twin.finished = twin_finished;
    *state = f;
    return 0;
}

static int teardown(void **state)
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

static int64_t real_ms(void)
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

static void turns(struct fixture *f, int n)
{
    while (n--)
        assert_int_equal(libxl__loop_once(f->loop, 1), 0);
}

/* Both ends stay alive while ms pass. */
static void pass(struct fixture *f, int64_t ms)
{
    for (; ms > 0; ms -= 20) {
        f->now_ms += ms < 20 ? ms : 20;
        turns(f, 4);
    }
}

static void start(struct fixture *f)
{
    assert_int_equal(libxl__channel_start(&f->p), 0);
    assert_int_equal(libxl__twin_start(&f->twin), 0);
    RUN_UNTIL(f, f->hello);
}

/* Sends the bytes of the next checkpoint, the first `part` of them at most; whole: and its COMMIT. */
static void send_part(struct fixture *f, size_t part, bool whole)
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

static void send_checkpoint(struct fixture *f)
{
    send_part(f, SIZE_MAX, true);
}

static void protect(struct fixture *f, unsigned checkpoints)
{
    start(f);
    while (f->sent < checkpoints) {
        send_checkpoint(f);
        RUN_UNTIL(f, f->acked == f->sent);
    }
}

static void cut_link(struct fixture *f)
{
    libxl__channel_dispose(&f->p);
    close(f->fds[0]);
    f->fds[0] = -1;
}

static void read_file(struct fixture *f, const char *name, struct bytes *b)
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

static void write_file(struct fixture *f, const char *name, const char *text)
{
    char path[200];
    FILE *out;

    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static bool noted(struct fixture *f, const char *text)
{
    struct bytes b = {0};
    bool yes;

    read_file(f, "log", &b);
    yes = strstr((char *)b.p, text) != NULL;
    free(b.p);
    return yes;
}

static void assert_child_got(struct fixture *f, unsigned checkpoints)
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

/* ---- the way up ---- */

static void t_twin_link_lost_rule_backup_promotes_last_checkpoint(void **state)
{
    struct fixture *f = *state;

    protect(f, 3);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 3);
    assert_true(noted(f, "/our/helper"));
    assert_true(noted(f, "running"));
}

static void t_twin_link_lost_waits_for_the_limit(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS - 1;
    turns(f, 20);
    assert_int_equal(f->twin.state, TWIN_SILENT);
    assert_false(noted(f, "running"));
    f->now_ms += 1;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 1);
}

static void t_twin_silent_primary_is_lost_too(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    libxl__channel_dispose(&f->p); /* the socket stays open: no FIN ever comes */
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_living_primary_is_not_lost(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    pass(f, 5 * LIMIT_MS);
    assert_false(f->lost);
    assert_int_equal(f->twin.state, TWIN_PROTECTING);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 2);
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_cut_in_a_checkpoint_promotes_the_one_before(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    send_part(f, 5000, false);
    RUN_UNTIL(f, libxl__twin_stream_held(&f->twin.stream) > 4000);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_whole_but_uncommitted_checkpoint_does_not_count(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    send_part(f, SIZE_MAX, false);
    RUN_UNTIL(f, libxl__twin_stream_held(&f->twin.stream) > 8192);
    turns(f, 5);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_child_got(f, 1);
}

/* ---- acknowledgement ---- */

static void t_twin_first_ack_waits_for_the_child(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "hold", 1);
    make_stream(&f->stream, 2, 2000, 2); /* 8 MB: more than a pipe holds */
    start(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.ack_due);
    turns(f, 50);
    assert_int_equal(f->acked, 0);
    assert_int_equal(f->twin.state, TWIN_COPYING);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->acked == 1);
    assert_int_equal(f->twin.state, TWIN_PROTECTING);
    libxl__channel_send(&f->p, CHANNEL_STOP, 1, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_first_copy_is_bounded_by_the_window(void **state)
{
    struct fixture *f = *state;
    uint64_t held;

    setenv("FAKE_XL_MODE", "hold", 1);
    f->stream.n = 0;
    put_stream_head(&f->stream);
    put_statics(&f->stream);
    for (int n = 0; n < 10; n++)
        put_pages(&f->stream, (uint64_t)n * 1000, 1000, n);
    put_contexts(&f->stream, 1, true);
    start(f);
    send_checkpoint(f);
    turns(f, 300);
    held = libxl__twin_stream_held(&f->twin.stream);
    assert_true(held > (8u << 20) && held < (20u << 20));
    write_file(f, "go", "");
    RUN_UNTIL(f, f->acked == 1);
    libxl__channel_send(&f->p, CHANNEL_STOP, 1, "end", 3);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_ack_waits_until_the_one_before_is_handed_on(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "pause", 1); /* it stops reading after checkpoint 1 */
    make_stream(&f->stream, 4, 1, 1000);
    protect(f, 2);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.stream.committed == 3);
    turns(f, 50);
    assert_int_equal(f->acked, 2);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->acked == 3);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_child_got(f, 3);
}

static void t_twin_commit_before_ack_is_refused(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "hold", 1);
    make_stream(&f->stream, 2, 2000, 2);
    start(f);
    send_checkpoint(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->errored);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(noted(f, "running"));
}

static void t_twin_wrong_checksum_gives_up(void **state)
{
    struct fixture *f = *state;
    size_t from, to;

    protect(f, 1);
    from = checkpoint_end(f->stream.p, f->stream.n, 1);
    to = checkpoint_end(f->stream.p, f->stream.n, 2);
    libxl__channel_send(&f->p, CHANNEL_DATA, 2, f->stream.p + from, to - from);
    libxl__channel_commit(&f->p, 2, to - from, 42);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_int_equal(f->acked, 1);
    assert_non_null(strstr(f->error, "checksum"));
    assert_true(noted(f, "dropped"));
}

/* ---- the way down ---- */

static void t_twin_stop_drops_and_confirms(void **state)
{
    struct fixture *f = *state;

    protect(f, 2);
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "Ctrl-C", 6);
    RUN_UNTIL(f, f->finished);
    RUN_UNTIL(f, f->stopped);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    assert_true(noted(f, "dropped"));
    assert_false(noted(f, "running"));
    assert_non_null(strstr(f->told, "Ctrl-C"));
}

static void t_twin_stop_while_copying_is_fine(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "hold", 1);
    make_stream(&f->stream, 1, 2000, 2);
    start(f);
    send_part(f, SIZE_MAX, false);
    turns(f, 20);
    libxl__channel_send(&f->p, CHANNEL_STOP, 0, "", 0);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->finished);
    RUN_UNTIL(f, f->stopped);
    assert_int_equal(f->outcome, TWIN_STOPPED);
}

static void t_twin_stop_removes_half_built_domain(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    write_file(f, "domains", UUID "  7    guest--incoming      \n");
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "", 0);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    assert_true(noted(f, "destroy 7"));
}

static void t_twin_stop_leaves_other_domains_alone(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    write_file(f, "domains",
               OTHER_UUID "  7    guest--incoming      \n" UUID "  8    guest2--incoming \n" UUID
                          "  9    guest--incoming2\n" UUID "  10    other\ngarbage\n\n");
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "", 0);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    assert_false(noted(f, "destroy"));
}

static void t_twin_domain_that_stays_is_told(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    setenv("FAKE_XL_MODE", "immortal", 1);
    write_file(f, "domains", UUID "  7    guest--incoming      \n");
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "", 0);
    RUN_UNTIL(f, f->finished);
    RUN_UNTIL(f, f->errored);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(f->stopped);
    assert_non_null(strstr(f->error, "xl destroy 7"));
}

static void t_twin_link_lost_before_first_checkpoint_drops(void **state)
{
    struct fixture *f = *state;

    start(f);
    send_part(f, 6000, false);
    turns(f, 20);
    cut_link(f);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(noted(f, "running"));
}

static void t_twin_arbiter_refuses_drops(void **state)
{
    struct fixture *f = *state;

    f->twin.c.command = "false";
    protect(f, 1);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_REFUSED);
    assert_true(noted(f, "dropped"));
    assert_false(noted(f, "running"));
}

static void t_twin_arbiter_grants_promotes(void **state)
{
    struct fixture *f = *state;

    f->twin.c.command = "sh -c 'test \"$0 $1 $2 $3 $4\" = \"guest hostB hostA 2 backup\"'";
    protect(f, 2);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_rule_primary_without_control_refuses(void **state)
{
    struct fixture *f = *state;

    f->twin.c.rule = LINK_LOSS_PRIMARY;
    protect(f, 1);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_REFUSED);
}

static void ask_admin(struct fixture *f, const char *line)
{
    libxl__egc egc = {f->loop};

    f->twin.control.request(&egc, &f->twin.control, 4711, line);
}

static void t_twin_rule_primary_waits_for_promote(void **state)
{
    struct fixture *f = *state;

    f->twin.c.rule = LINK_LOSS_PRIMARY;
    f->twin.with_control = true;
    protect(f, 2);
    ask_admin(f, "promote guest");
    assert_int_equal(f->twin.state, TWIN_PROTECTING);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    ask_admin(f, "promote guest");
    assert_int_equal(f->twin.state, TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->twin.state == TWIN_WAITING);
    f->now_ms += 100 * 3600 * 1000;
    turns(f, 10);
    ask_admin(f, "status");
    ask_admin(f, "promoted");
    assert_int_equal(f->twin.state, TWIN_WAITING);
    ask_admin(f, "promote guest");
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_rule_primary_discard_drops(void **state)
{
    struct fixture *f = *state;

    f->twin.c.rule = LINK_LOSS_PRIMARY;
    f->twin.with_control = true;
    protect(f, 1);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->twin.state == TWIN_WAITING);
    ask_admin(f, "discard");
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_REFUSED);
    assert_false(noted(f, "running"));
}

static void t_twin_second_receiver_of_a_guest_is_refused(void **state)
{
    struct fixture *f = *state;
    libxl__control other;

    libxl__control_init(&other);
    other.loop = f->loop;
    other.side = "backup";
    other.domain = "guest";
    assert_int_equal(libxl__control_start(&other), 0);
    f->twin.with_control = true;
    assert_int_equal(libxl__channel_start(&f->p), 0);
    assert_int_equal(libxl__twin_start(&f->twin), ERROR_LOCK_FAIL);
    RUN_UNTIL(f, f->errored);
    assert_non_null(strstr(f->error, "already"));
    libxl__control_dispose(&other);
}

static void t_twin_terminated_tells_and_drops(void **state)
{
    struct fixture *f = *state;
    libxl__egc egc = {f->loop};

    protect(f, 1);
    libxl__twin_terminate(&egc, &f->twin);
    libxl__twin_terminate(&egc, &f->twin);
    RUN_UNTIL(f, f->finished);
    RUN_UNTIL(f, f->errored);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(noted(f, "running"));
}

static void t_twin_error_of_primary_drops(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    libxl__channel_send(&f->p, CHANNEL_ERROR, 0, "no more", 7);
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_false(f->stopped);
}

/* ---- the child and the host ---- */

static void start_that_fails(struct fixture *f, const char *mode, const char *says)
{
    setenv("FAKE_XL_MODE", mode, 1);
    start(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->finished);
    RUN_UNTIL(f, f->errored);
    assert_int_equal(f->outcome, TWIN_FAILED);
    if (!strstr(f->error, says)) fail_msg("'%s' does not say '%s'", f->error, says);
    assert_false(noted(f, "running"));
}

static void t_twin_child_that_dies_early_tells_why(void **state)
{
    start_that_fails(*state, "die-early", "status 3; it said last: libxl: error: no? memory");
}

static void t_twin_child_that_dies_late_tells_why(void **state)
{
    start_that_fails(*state, "die-late", "status 5");
}

static void t_twin_child_with_other_words_is_refused(void **state)
{
    start_that_fails(*state, "bad-banner", "expected");
}

static void t_twin_child_that_ends_by_itself_is_refused(void **state)
{
    start_that_fails(*state, "too-early", "by itself");
}

static void t_twin_host_that_cannot_list_is_refused(void **state)
{
    start_that_fails(*state, "no-list", "cannot list");
}

static void t_twin_missing_stock_xl_is_told(void **state)
{
    struct fixture *f = *state;

    f->twin.stock_xl = f->argv[0] = "/nonexistent/xl";
    start_that_fails(f, "good", "cannot list");
}

static void t_twin_guest_that_is_here_already_is_refused(void **state)
{
    struct fixture *f = *state;

    write_file(f, "domains", OTHER_UUID "  7    guest      \n");
    start_that_fails(f, "good", "a domain named guest is already on hostB");
    assert_false(noted(f, "dropped"));
}

static void t_twin_left_over_of_another_time_is_removed_first(void **state)
{
    struct fixture *f = *state;

    write_file(f, "domains", UUID "  7    guest--incoming      \n");
    protect(f, 1);
    assert_true(noted(f, "destroy 7"));
    libxl__channel_send(&f->p, CHANNEL_STOP, 2, "", 0);
    RUN_UNTIL(f, f->finished);
}

static void t_twin_guest_that_cannot_start_is_told(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "result", 1);
    protect(f, 1);
    cut_link(f);
    RUN_UNTIL(f, f->twin.state == TWIN_SILENT);
    f->now_ms += LIMIT_MS;
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_non_null(strstr(f->told, "error -3"));
}

/* ---- the whole process ---- */

static void read_exactly(int fd, void *to, size_t n)
{
    for (size_t done = 0; done < n;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t r;

        assert_int_equal(poll(&p, 1, 20000), 1);
        r = read(fd, (char *)to + done, n - done);
        assert_true(r > 0);
        done += (size_t)r;
    }
}

static pid_t run_receiver(struct fixture *f, const char *domain, enum link_loss_rule rule)
{
    struct twin_options o = {.limit_ms = LIMIT_MS,
                             .rule = rule,
                             .domain = domain,
                             .self = "hostB",
                             .peer = "hostA",
                             .session = UUID,
                             .stock_xl = f->self,
                             .in_fd = f->fds[1],
                             .out_fd = f->fds[1]};
    char log[100];
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid) {
        close(f->fds[1]);
        f->fds[1] = -1;
        return pid;
    }
    close(f->fds[0]);
    snprintf(log, sizeof(log), "%s/receiver", f->dir);
    o.log_path = log;
    _exit(libxl__twin_receive(&o));
}

static int exit_of(pid_t pid)
{
    int status;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void t_receiver_whole_run_promotes(void **state)
{
    struct fixture *f = *state;
    char word[54];
    pid_t pid = run_receiver(f, "guest", LINK_LOSS_BACKUP);

    read_exactly(f->fds[0], word, sizeof(word));
    assert_memory_equal(word, banner, sizeof(word));
    assert_int_equal(write(f->fds[0], f->prefix.p, f->prefix.n), f->prefix.n);
    assert_int_equal(libxl__channel_start(&f->p), 0);
    RUN_UNTIL(f, f->hello);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 1);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 2);
    cut_link(f);
    assert_int_equal(exit_of(pid), 0);
    assert_child_got(f, 2);
    assert_true(noted(f, "running"));
}

static void t_receiver_sigterm_drops(void **state)
{
    struct fixture *f = *state;
    char word[54];
    pid_t pid = run_receiver(f, "guest", LINK_LOSS_BACKUP);

    read_exactly(f->fds[0], word, sizeof(word));
    assert_int_equal(write(f->fds[0], f->prefix.p, f->prefix.n), f->prefix.n);
    assert_int_equal(libxl__channel_start(&f->p), 0);
    RUN_UNTIL(f, f->hello);
    send_checkpoint(f);
    RUN_UNTIL(f, f->acked == 1);
    assert_int_equal(kill(pid, SIGTERM), 0);
    assert_int_equal(exit_of(pid), 1);
    RUN_UNTIL(f, f->errored);
    assert_true(noted(f, "dropped"));
}

static void t_receiver_bad_beginnings_end_at_once(void **state)
{
    struct fixture *f = *state;
    char word[54];
    pid_t pid;

    for (int kind = 0; kind < 4; kind++) {
        size_t n = f->prefix.n;

        if (f->fds[0] >= 0) close(f->fds[0]);
        if (f->fds[1] >= 0) close(f->fds[1]);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, f->fds), 0);
        f->prefix.p[3] = kind == 0 ? '?' : ' ';
        f->prefix.p[47] = kind == 1 ? 1 : 0;
        if (kind == 2) n -= 10;
        pid = run_receiver(f, kind == 3 ? "other" : "guest", LINK_LOSS_BACKUP);
        read_exactly(f->fds[0], word, sizeof(word));
        assert_int_equal(write(f->fds[0], f->prefix.p, n), n);
        if (kind == 2) shutdown(f->fds[0], SHUT_WR);
        assert_int_equal(exit_of(pid), 1);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(t_twin_link_lost_rule_backup_promotes_last_checkpoint),
        T(t_twin_link_lost_waits_for_the_limit),
        T(t_twin_silent_primary_is_lost_too),
        T(t_twin_living_primary_is_not_lost),
        T(t_twin_cut_in_a_checkpoint_promotes_the_one_before),
        T(t_twin_whole_but_uncommitted_checkpoint_does_not_count),
        T(t_twin_first_ack_waits_for_the_child),
        T(t_twin_first_copy_is_bounded_by_the_window),
        T(t_twin_ack_waits_until_the_one_before_is_handed_on),
        T(t_twin_commit_before_ack_is_refused),
        T(t_twin_wrong_checksum_gives_up),
        T(t_twin_stop_drops_and_confirms),
        T(t_twin_stop_while_copying_is_fine),
        T(t_twin_stop_removes_half_built_domain),
        T(t_twin_stop_leaves_other_domains_alone),
        T(t_twin_domain_that_stays_is_told),
        T(t_twin_link_lost_before_first_checkpoint_drops),
        T(t_twin_arbiter_refuses_drops),
        T(t_twin_arbiter_grants_promotes),
        T(t_twin_rule_primary_without_control_refuses),
        T(t_twin_rule_primary_waits_for_promote),
        T(t_twin_rule_primary_discard_drops),
        T(t_twin_second_receiver_of_a_guest_is_refused),
        T(t_twin_terminated_tells_and_drops),
        T(t_twin_error_of_primary_drops),
        T(t_twin_child_that_dies_early_tells_why),
        T(t_twin_child_that_dies_late_tells_why),
        T(t_twin_child_with_other_words_is_refused),
        T(t_twin_child_that_ends_by_itself_is_refused),
        T(t_twin_host_that_cannot_list_is_refused),
        T(t_twin_missing_stock_xl_is_told),
        T(t_twin_guest_that_is_here_already_is_refused),
        T(t_twin_left_over_of_another_time_is_removed_first),
        T(t_twin_guest_that_cannot_start_is_told),
        T(t_receiver_whole_run_promotes),
        T(t_receiver_sigterm_drops),
        T(t_receiver_bad_beginnings_end_at_once),
    };

    if (argc > 1 && getenv("FAKE_XL_DIR")) return fake_xl_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
