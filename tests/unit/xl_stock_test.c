/* SPDX-License-Identifier: LGPL-2.1-only */
/* The stock xl is a script here. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "xl.h"
#include "xl_script.h"
#include "xl_stock.h"

static char out[64];

static int set_up(void **state)
{
    script_set_up("#!/bin/sh\nsleep \"$1\"\necho helper ended >>\"$0.log\"\n");
    snprintf(out, sizeof(out), "%s/out", dir);
    setenv("OUT", out, 1);
    return 0;
}

static void expect_out(const char *text)
{
    char got[512];
    size_t n;
    FILE *f = fopen(out, "r");

    assert_non_null(f);
    n = fread(got, 1, sizeof(got) - 1, f);
    got[n] = '\0';
    fclose(f);
    assert_string_equal(got, text);
}

static void t_stock_gets_globals_words_and_helper(void **state)
{
    const char *words[] = {"save", "a b", "", "c'd", NULL};
    struct xl_stock_end end;
    char want[256];

    stock_is("{ for w in \"$@\"; do echo \"[$w]\"; done; echo $LIBXL_SAVE_HELPER; } >$OUT; exit 3");
    xl_globals = (struct xl_globals){.verbosity = 2, .force = true, .timestamps = true};
    assert_int_equal(xl_stock_run((char **)words, &end), 0);
    xl_globals = (struct xl_globals){0};
    assert_int_equal(end.code, 3);
    assert_int_equal(end.signal, 0);
    snprintf(want, sizeof(want), "[-v]\n[-v]\n[-f]\n[-T]\n[save]\n[a b]\n[]\n[c'd]\n%s\n", helper);
    expect_out(want);
}

static void t_stock_missing_is_one_line(void **state)
{
    const char *words[] = {"save", NULL};
    struct xl_stock_end end;
    struct xl_caught c;
    int rc;

    setenv("XENTWIN_STOCK_XL", "/nonexistent/xl", 1);
    xl_catch(&c);
    rc = xl_stock_run((char **)words, &end);
    xl_caught(&c);
    setenv("XENTWIN_STOCK_XL", script, 1);
    assert_int_equal(rc, XL_FAILED);
    assert_int_equal(xl_lines(c.text), 1);
    assert_non_null(strstr(c.text, "no stock xl at /nonexistent/xl"));
}

static void t_stock_that_is_ourselves_is_refused(void **state)
{
    char link[64];
    struct xl_caught c;

    snprintf(link, sizeof(link), "%s/self", dir);
    assert_int_equal(symlink("/proc/self/exe", link), 0);
    setenv("XENTWIN_STOCK_XL", link, 1);
    xl_catch(&c);
    assert_null(xl_stock_path());
    xl_caught(&c);
    setenv("XENTWIN_STOCK_XL", script, 1);
    assert_non_null(strstr(c.text, "is this program, not the stock xl"));
}

static void t_stock_helper_missing_is_one_line(void **state)
{
    struct xl_caught c;

    setenv("LIBXL_SAVE_HELPER", "/nonexistent/helper", 1);
    xl_catch(&c);
    assert_null(xl_helper_path());
    xl_caught(&c);
    setenv("LIBXL_SAVE_HELPER", helper, 1);
    assert_int_equal(xl_lines(c.text), 1);
}

static void t_stock_killed_waits_for_its_helper(void **state)
{
    const char *words[] = {"save", NULL};
    struct xl_stock_end end;
    char log[80];

    stock_is("$LIBXL_SAVE_HELPER 0.5 & sleep 0.1; kill -9 $$");
    assert_int_equal(xl_stock_run((char **)words, &end), 0);
    assert_int_equal(end.code, -1);
    assert_int_equal(end.signal, SIGKILL);
    snprintf(log, sizeof(log), "%s.log", helper);
    assert_int_equal(access(log, F_OK), 0);
}

static void t_stock_gets_our_signals(void **state)
{
    const char *words[] = {"migrate", NULL};
    struct xl_stock_end end;
    int status;
    pid_t pid;

    stock_is("trap 'kill $!; echo term >$OUT; exit 7' TERM; sleep 5 & echo up >$OUT.up; wait $!");
    pid = fork();
    if (pid == 0)
        _exit(xl_stock_run((char **)words, &end) ? 99 : end.code == 7 && end.asked == SIGTERM);
    for (;;) {
        char up[80];
        struct timespec ts = {0, 20000000};

        snprintf(up, sizeof(up), "%s.up", out);
        if (!access(up, F_OK)) break;
        nanosleep(&ts, NULL);
    }
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    expect_out("term\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_stock_gets_globals_words_and_helper),
        cmocka_unit_test(t_stock_missing_is_one_line),
        cmocka_unit_test(t_stock_that_is_ourselves_is_refused),
        cmocka_unit_test(t_stock_helper_missing_is_one_line),
        cmocka_unit_test(t_stock_killed_waits_for_its_helper),
        cmocka_unit_test(t_stock_gets_our_signals),
    };

    return cmocka_run_group_tests(tests, set_up, script_tear_down);
}
