/* SPDX-License-Identifier: LGPL-2.1-only */
#include "xl_test.h"

#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>

#include "xl_progress.h"

#define MANY 2000

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Until all is written. */
static void settle(struct xl_progress *p)
{
    while (!xl_writer_idle(p->out))
        usleep(1000);
}

static const libxl_checkpoint_stats sample = {
    .epoch = 123,
    .pause_us = 12345,
    .suspend_us = 1000,
    .hold_us = 210400,
    .ack_us = 90000,
    .bytes = 2300000,
    .pages = 570,
    .unacked = 0,
    .held_packets = 3,
    .held_bytes = 4000,
};

static void t_progress_wide_shows_all(void **state)
{
    char line[512];

    xl_progress_format(line, sizeof(line), 0, "guest", "hostB", &sample, 4.1);
    assert_string_equal(line, "guest -> hostB  epoch 123  pause 12.3 ms  570 pages  4.1 MB/s  "
                              "unacked 0  hold 210 ms");
}

static void t_progress_drops_show_up(void **state)
{
    libxl_checkpoint_stats stats = sample;
    char line[512];

    stats.dropped_packets = 7;
    xl_progress_format(line, sizeof(line), 200, "guest", "hostB", &stats, 4.1);
    assert_non_null(strstr(line, "  dropped 7"));
}

static void t_progress_narrow_never_wraps(void **state)
{
    char line[512], name[200];
    int width;

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (width = 20; width < 200; width++) {
        xl_progress_format(line, sizeof(line), width, "guest", "hostB", &sample, 4.1);
        assert_true(strlen(line) < (size_t)width);
        xl_progress_format(line, sizeof(line), width, name, name, &sample, 4.1);
        assert_true(strlen(line) < (size_t)width);
    }
    xl_progress_format(line, sizeof(line), 0, name, name, &sample, 1e12);
    assert_true(strlen(line) < sizeof(line));
}

static void t_stats_is_one_json_object(void **state)
{
    char json[640];
    libxl_checkpoint_stats most;

    xl_stats_format(json, sizeof(json), &sample);
    assert_string_equal(
        json, "{\"epoch\":123,\"pause_us\":12345,\"suspend_us\":1000,\"hold_us\":210400,"
              "\"ack_us\":90000,\"bytes\":2300000,\"pages\":570,\"device_bytes\":0,\"unacked\":0,"
              "\"held_packets\":3,\"held_bytes\":4000,\"dropped_packets\":0,"
              "\"released_us\":0}");
    memset(&most, 0xff, sizeof(most));
    xl_stats_format(json, sizeof(json), &most);
    assert_int_equal(json[strlen(json) - 1], '}');
}

static void t_progress_file_gets_stats_and_lines(void **state)
{
    char path[] = "/tmp/xl_progress_XXXXXX", text[2048];
    libxl_checkpoint_stats stats = sample;
    struct xl_progress p;
    FILE *out = tmpfile(), *f;
    int i, fd = mkstemp(path);
    size_t n;

    assert_true(fd >= 0 && out);
    close(fd);
    assert_true(xl_progress_init(&p, fileno(out), "guest", "hostB", 0));
    assert_false(p.terminal);
    assert_true(xl_progress_open_stats(&p, path));
    for (i = 1; i <= 50; i++) {
        stats.epoch = (uint64_t)i;
        xl_progress_checkpoint(&p, &stats);
    }
    xl_progress_line(&p, "link %s", "lost");
    xtl_log(&p.logger, XTL_ERROR, 2, "ctx", "broke %d", 3);
    xtl_log(&p.logger, XTL_DEBUG, -1, "ctx", "hidden");
    xl_progress_end(&p);
    xl_progress_end(&p);

    rewind(out);
    n = fread(text, 1, sizeof(text) - 1, out);
    text[n] = '\0';
    fclose(out);
    /* The first checkpoint, then nothing for 10 s, then the two lines. */
    assert_int_equal(xl_lines(text), 3);
    assert_non_null(strstr(text, "epoch 1  "));
    assert_non_null(strstr(text, "\nlink lost\nctx: error: broke 3: No such file or directory\n"));

    f = fopen(path, "r");
    assert_non_null(f);
    for (i = 0; fgets(text, sizeof(text), f); i++)
        assert_int_equal(atoi(strchr(text, ':') + 1), i + 1);
    assert_int_equal(i, 50);
    fclose(f);
    unlink(path);
}

static void t_progress_stats_disk_full_goes_on(void **state)
{
    struct xl_progress p;
    FILE *out = tmpfile();
    char text[512];
    size_t n;

    assert_true(xl_progress_init(&p, fileno(out), "guest", "hostB", 0));
    assert_true(xl_progress_open_stats(&p, "/dev/full"));
    xl_progress_checkpoint(&p, &sample);
    xl_progress_checkpoint(&p, &sample);
    xl_progress_end(&p);
    rewind(out);
    n = fread(text, 1, sizeof(text) - 1, out);
    text[n] = '\0';
    assert_non_null(strstr(text, "cannot write the statistics any more: No space left"));
    assert_int_equal(xl_lines(text), 2);
    fclose(out);
}

/* What changed meanwhile is a round of its own: its percentage begins again. */
static void t_progress_copying_tells_the_round(void **state)
{
    FILE *out = tmpfile();
    struct xl_progress p;
    char text[512];
    size_t n;

    assert_true(xl_progress_init(&p, fileno(out), "guest", "hostB", 0));
    xl_progress_copying(&p, 0, 1000);
    xl_progress_copying(&p, 500, 1000); /* too soon for another line */
    settle(&p);
    p.copying_ms = 0;
    xl_progress_copying(&p, 1000, 1000);
    xl_progress_copying(&p, 0, 100);
    settle(&p);
    p.copying_ms = 0;
    xl_progress_copying(&p, 92, 100);
    xl_progress_end(&p);
    rewind(out);
    n = fread(text, 1, sizeof(text) - 1, out);
    text[n] = '\0';
    assert_string_equal(text, "guest -> hostB  copying memory 0%\n"
                              "guest -> hostB  copying memory 100%\n"
                              "guest -> hostB  copying memory, round 2: 92%\n");
    fclose(out);
}

/* What comes from fd within two seconds of silence, up to `end`. */
static size_t read_until(int fd, char *text, size_t size, const char *end)
{
    size_t n = 0;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (int quiet = 0; quiet < 200 && n < size - 1; quiet++) {
        ssize_t r = read(fd, text + n, size - 1 - n);

        if (r > 0) {
            n += (size_t)r;
            quiet = 0;
        }
        text[n] = '\0';
        if (strstr(text, end)) break;
        if (r <= 0) usleep(10000);
    }
    return n;
}

/* All that a protection says, many times; nobody reads meanwhile. */
static void talk(struct xl_progress *p)
{
    double began = seconds();

    for (int i = 0; i < MANY; i++) {
        p->last_ms = p->copying_ms = 0;
        xl_progress_copying(p, 1, 2);
        xl_progress_checkpoint(p, &sample);
        xl_progress_line(p, "line %d", i);
        xtl_log(&p->logger, XTL_WARN, -1, "ctx", "warning %d", i);
    }
    assert_true(seconds() - began < 2);
}

/* Ctrl-S: nothing waits for it; what was said comes with Ctrl-Q, and so does a word about what did not fit. */
static void t_progress_terminal_stands_still(void **state)
{
    static char text[1 << 18];
    struct xl_progress p;
    struct termios raw;
    int master, slave;
    double began;

    alarm(30);
    assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
    assert_int_equal(tcgetattr(slave, &raw), 0);
    cfmakeraw(&raw);
    assert_int_equal(tcsetattr(slave, TCSANOW, &raw), 0);
    assert_int_equal(tcflow(slave, TCOOFF), 0);
    assert_true(xl_progress_init(&p, slave, "guest", "hostB", 0));
    assert_true(p.terminal);
    talk(&p);
    assert_int_equal(tcflow(slave, TCOON), 0);
    read_until(master, text, sizeof(text), "warning 300\n");
    assert_non_null(strstr(text, "\033[Kline 0\n"));
    assert_non_null(strstr(text, "\033[Kctx: warning: warning 100\n"));
    settle(&p);
    xl_progress_line(&p, "the end");
    read_until(master, text, sizeof(text), "the end\n");
    assert_non_null(strstr(text, " lines are missing here)\nthe end\n"));

    /* The end does not wait either. */
    assert_int_equal(tcflow(slave, TCOOFF), 0);
    talk(&p);
    began = seconds();
    xl_progress_end(&p);
    assert_true(seconds() - began < 3);
    assert_int_equal(tcflow(slave, TCOON), 0);
    read_until(master, text, sizeof(text), "line 1\n");
    assert_non_null(strstr(text, "line 1\n"));
    alarm(0);
}

/* A pipe and a file of statistics that nobody reads. */
static void t_progress_pipe_is_full(void **state)
{
    char path[] = "/tmp/xl_progress_XXXXXX", junk[4096] = "", text[4096];
    struct xl_progress p;
    int out[2], stats;
    double began;

    alarm(30);
    assert_non_null(mkdtemp(path));
    assert_int_equal(pipe(out), 0);
    fcntl(out[1], F_SETFL, O_NONBLOCK);
    while (write(out[1], junk, sizeof(junk)) > 0)
        continue;
    fcntl(out[1], F_SETFL, 0);
    assert_true(xl_progress_init(&p, out[1], "guest", "hostB", 0));
    assert_false(p.terminal);
    snprintf(text, sizeof(text), "%s/fifo", path);
    assert_int_equal(mkfifo(text, 0600), 0);
    stats = open(text, O_RDWR);
    assert_true(xl_progress_open_stats(&p, text));
    for (int i = 0; i < 4; i++)
        talk(&p);
    assert_true(p.stats_missed > 0);
    began = seconds();
    xl_progress_end(&p);
    assert_true(seconds() - began < 4);
    assert_true(read(stats, text, sizeof(text) - 1) > 0);
    assert_memory_equal(text, "{\"epoch\":123,", 13);
    snprintf(text, sizeof(text), "%s/fifo", path);
    unlink(text);
    rmdir(path);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_progress_wide_shows_all),
        cmocka_unit_test(t_progress_drops_show_up),
        cmocka_unit_test(t_progress_narrow_never_wraps),
        cmocka_unit_test(t_stats_is_one_json_object),
        cmocka_unit_test(t_progress_file_gets_stats_and_lines),
        cmocka_unit_test(t_progress_stats_disk_full_goes_on),
        cmocka_unit_test(t_progress_copying_tells_the_round),
        cmocka_unit_test(t_progress_terminal_stands_still),
        cmocka_unit_test(t_progress_pipe_is_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
