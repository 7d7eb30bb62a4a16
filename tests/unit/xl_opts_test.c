/* SPDX-License-Identifier: LGPL-2.1-only */
#include "xl_test.h"

#include <stdlib.h>

#include "xl_opts.h"

static void t_number_bad_names_value(void **state)
{
    static const char *const bad[] = {
        "", " 5", "5 ", "-1", "+1", "0x10", "1e3", "199", "2.5", "600001", "99999999999999999999"};
    struct xl_caught c;
    uint64_t n;
    size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        xl_catch(&c);
        assert_false(xl_parse_number("remus", "--limit-ms", bad[i], 200, 600000, &n));
        xl_caught(&c);
        assert_int_equal(xl_lines(c.text), 1);
        assert_non_null(strstr(c.text, "xl remus: --limit-ms '"));
        assert_non_null(strstr(c.text, bad[i]));
        assert_non_null(strstr(c.text, "from 200 to 600000"));
    }
}

static void t_number_good_is_taken(void **state)
{
    uint64_t n;

    assert_true(xl_parse_number("remus", "-i", "200", 200, 600000, &n));
    assert_int_equal(n, 200);
    assert_true(xl_parse_number("remus", "-i", "600000", 200, 600000, &n));
    assert_int_equal(n, 600000);
}

static void t_bytes_suffix_multiplies(void **state)
{
    uint64_t n;

    assert_true(xl_parse_bytes("remus", "--netbuf-limit", "4096", 1, UINT64_MAX, &n));
    assert_int_equal(n, 4096);
    assert_true(xl_parse_bytes("remus", "--netbuf-limit", "64K", 1, UINT64_MAX, &n));
    assert_int_equal(n, 65536);
    assert_true(xl_parse_bytes("remus", "--netbuf-limit", "3m", 1, UINT64_MAX, &n));
    assert_int_equal(n, 3 << 20);
    assert_true(xl_parse_bytes("remus", "--netbuf-limit", "1G", 1, UINT64_MAX, &n));
    assert_int_equal(n, 1 << 30);
}

static void t_bytes_bad_is_refused(void **state)
{
    static const char *const bad[] = {
        "", "K", "1KB", "1T", "-1K", "1 K", "18446744073709551615G", "20000000000000000G"};
    struct xl_caught c;
    uint64_t n;
    size_t i;

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        xl_catch(&c);
        assert_false(xl_parse_bytes("remus", "--netbuf-limit", bad[i], 1, UINT64_MAX, &n));
        xl_caught(&c);
        assert_int_equal(xl_lines(c.text), 1);
    }
}

static void t_name_rules_hold(void **state)
{
    char longest[66];

    memset(longest, 'a', 64);
    longest[64] = '\0';
    assert_true(xl_name_valid("web-1.example_x+y"));
    assert_true(xl_name_valid(longest));
    longest[64] = 'a';
    longest[65] = '\0';
    assert_false(xl_name_valid(longest));
    assert_false(xl_name_valid(""));
    assert_false(xl_name_valid(".hidden"));
    assert_false(xl_name_valid("-x"));
    assert_false(xl_name_valid("a b"));
    assert_false(xl_name_valid("a/b"));
    assert_false(xl_name_valid("a;b"));
    assert_false(xl_name_valid("f\xc3\xa4hre"));
}

static void t_quote_survives_a_shell(void **state)
{
    static const char text[] = "a 'b' \"c\" $(d) `e` \\f;g\n&h*?~#!";
    char quoted[256], command[300], back[256] = "";
    size_t n;
    FILE *p;

    assert_true(xl_shell_quote(text, quoted, sizeof(quoted)));
    snprintf(command, sizeof(command), "printf %%s %s", quoted);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(back, 1, sizeof(back) - 1, p);
    back[n] = '\0';
    pclose(p);
    assert_string_equal(back, text);
}

static void t_quote_too_long_is_refused(void **state)
{
    char out[6];

    assert_true(xl_shell_quote("abc", out, sizeof(out)));
    assert_string_equal(out, "'abc'");
    assert_false(xl_shell_quote("abcd", out, sizeof(out)));
    assert_false(xl_shell_quote("'", out, sizeof(out)));
}

static int parse(char **argv)
{
    static const struct option longs[] = {
        {"size", required_argument, NULL, XL_OPT_LONG},
        {"stop", no_argument, NULL, XL_OPT_LONG + 1},
        {"status", no_argument, NULL, XL_OPT_LONG + 2},
        {0},
    };
    int argc = 0, opt;

    while (argv[argc])
        argc++;
    xl_getopt_start();
    while ((opt = xl_getopt("test", argc, argv, ":ab:", longs)) != XL_OPT_END) {
        if (opt == XL_OPT_BAD) return XL_OPT_BAD;
    }
    return argc - optind;
}

static void t_getopt_bad_option_is_one_line(void **state)
{
    static const struct {
        const char *words[4], *says;
    } cases[] = {
        {{"test", "-x", NULL}, "unknown option '-x'"},
        {{"test", "-ax", NULL}, "unknown option '-x'"},
        {{"test", "-b", NULL}, "option '-b' needs a value"},
        {{"test", "--size", NULL}, "option '--size' needs a value"},
        {{"test", "--stop=1", NULL}, "option '--stop=1' takes no value"},
        {{"test", "--none", NULL}, "unknown or ambiguous option '--none'"},
        {{"test", "--st", NULL}, "unknown or ambiguous option '--st'"},
    };
    struct xl_caught c;
    size_t i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        xl_catch(&c);
        assert_int_equal(parse((char **)cases[i].words), XL_OPT_BAD);
        xl_caught(&c);
        assert_int_equal(xl_lines(c.text), 1);
        assert_non_null(strstr(c.text, cases[i].says));
    }
}

static void t_getopt_options_after_arguments_are_taken(void **state)
{
    const char *words[] = {"test", "dom", "-a", "host", "-b", "v", "--size", "3", NULL};

    assert_int_equal(parse((char **)words), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_number_bad_names_value),
        cmocka_unit_test(t_number_good_is_taken),
        cmocka_unit_test(t_bytes_suffix_multiplies),
        cmocka_unit_test(t_bytes_bad_is_refused),
        cmocka_unit_test(t_name_rules_hold),
        cmocka_unit_test(t_quote_survives_a_shell),
        cmocka_unit_test(t_quote_too_long_is_refused),
        cmocka_unit_test(t_getopt_bad_option_is_one_line),
        cmocka_unit_test(t_getopt_options_after_arguments_are_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
