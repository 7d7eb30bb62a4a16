/* SPDX-License-Identifier: LGPL-2.1-only */
#include "xl_test.h"

#include <stdlib.h>

#include "xl_progress.h"

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
    xl_progress_init(&p, out, "guest", "hostB", 0);
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

    xl_progress_init(&p, out, "guest", "hostB", 0);
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

    xl_progress_init(&p, out, "guest", "hostB", 0);
    xl_progress_copying(&p, 0, 1000);
    xl_progress_copying(&p, 500, 1000); /* too soon for another line */
    p.copying_ms = 0;
    xl_progress_copying(&p, 1000, 1000);
    xl_progress_copying(&p, 0, 100);
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
