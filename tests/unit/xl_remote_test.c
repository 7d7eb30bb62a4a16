/* SPDX-License-Identifier: LGPL-2.1-only */
/* The other host is a shell: its command line stands where ssh would be. */
#include "xl_test.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include "xl.h"
#include "xl_remote.h"

#define READY "printf 'xl migration receiver ready, send binary domain data.\\n'; "

struct world {
    struct xl_progress progress;
    struct xl_remote r;
    volatile int interrupted;
    FILE *out;
    char text[4096];
};

/* Runs the script as the other host's xl and waits for its banner. */
static enum xl_remote_answer meet(struct world *w, const char *script, int limit_ms)
{
    w->interrupted = 0;
    w->out = tmpfile();
    assert_non_null(w->out);
    assert_true(xl_progress_init(&w->progress, fileno(w->out), "guest", "hostB", 0));
    xl_remote_init(&w->r);
    w->r.progress = &w->progress;
    w->r.host = "hostB";
    w->r.interrupted = &w->interrupted;
    assert_int_equal(setenv("SCRIPT", script, 1), 0);
    assert_int_equal(xl_remote_start(&w->r, "sh -c 'eval \"$SCRIPT\"'", "some words"), XL_DONE);
    return xl_remote_banner(&w->r, limit_ms);
}

static const char *part(struct world *w)
{
    size_t n;

    xl_remote_end(&w->r);
    xl_remote_end(&w->r);
    assert_int_equal(w->r.pid, -1);
    xl_progress_end(&w->progress);
    rewind(w->out);
    n = fread(w->text, 1, sizeof(w->text) - 1, w->out);
    w->text[n] = '\0';
    fclose(w->out);
    return w->text;
}

static void t_remote_ready_passes_messages_on(void **state)
{
    struct world w;

    assert_int_equal(
        meet(&w, "echo early >&2; " READY "sleep 0.1; echo late >&2; cat >/dev/null", 5000),
        XL_REMOTE_READY);
    assert_string_equal(part(&w), "hostB: early\nhostB: late\n");
}

static void t_remote_arguments_reach_the_command(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "echo \"$0 $1\" >&2; " READY, 5000), XL_REMOTE_READY);
    assert_string_equal(part(&w), "hostB: hostB some words\n");
}

/* What Debian's xl 4.17 says. */
#define NOT_SUPPORTED "printf 'option `\\000'\"'\"' not supported.\\n' >&2; "

static void t_remote_unknown_option_means_stock(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "echo motd >&2; " NOT_SUPPORTED "echo bye >&2; exit 2", 5000),
                     XL_REMOTE_STOCK);
    assert_string_equal(part(&w), "");
    assert_int_equal(
        meet(&w, "head -c 300000 /dev/zero | tr '\\0' x >&2; " NOT_SUPPORTED "exit 2", 5000),
        XL_REMOTE_STOCK);
    part(&w);
}

/* Nothing of this means that there is no xentwin. */
static void t_remote_other_failures_are_told(void **state)
{
    static const struct {
        const char *script, *answer;
    } cases[] = {
        {"echo 'xl: no stock xl at /nope' >&2; exit 1", "xl: no stock xl at /nope"},
        {"echo lecture >&2; echo 'sudo: a password is required' >&2; exit 1",
         "sudo: a password is required"},
        {"echo \"env: unrecognized option '--foo'\" >&2; exit 125",
         "env: unrecognized option '--foo'"},
        {"exit 1", "the command ended with status 1, without a word"},
        {"exit 0", "the command ended with status 0, without a word"},
    };
    struct world w;
    size_t i;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(meet(&w, cases[i].script, 5000), XL_REMOTE_FAILED);
        assert_string_equal(w.r.answer, cases[i].answer);
        part(&w);
    }
}

static void t_remote_refusal_is_told(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "echo 'xl migrate-receive: not today' >&2; exit 2", 5000),
                     XL_REMOTE_REFUSED);
    assert_string_equal(w.r.answer, "xl migrate-receive: not today");
    part(&w);
}

static void t_remote_unreachable_is_told(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "echo 'connect to host: refused' >&2; exit 255", 5000),
                     XL_REMOTE_UNREACHABLE);
    assert_string_equal(w.r.answer, "connect to host: refused");
    part(&w);
}

static void t_remote_no_xl_is_told(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "exec /nonexistent/xl", 5000), XL_REMOTE_NO_XL);
    assert_non_null(strstr(w.r.answer, "/nonexistent/xl"));
    part(&w);
}

static void t_remote_garbage_is_shown_printable(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "printf 'Wel\\033come\\nto hostB\\n'; cat >/dev/null", 5000),
                     XL_REMOTE_GARBLED);
    assert_string_equal(w.r.answer, "Wel?come");
    part(&w);
}

static void t_remote_half_a_banner_is_garbled(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "printf 'xl migration rec'", 5000), XL_REMOTE_GARBLED);
    part(&w);
}

static void t_remote_silence_ends_at_the_limit(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "read line", 200), XL_REMOTE_SILENT);
    part(&w);
}

static void t_remote_flood_of_messages_is_bounded(void **state)
{
    struct world w;

    assert_int_equal(meet(&w, "head -c 300000 /dev/zero | tr '\\0' x >&2; " READY, 5000),
                     XL_REMOTE_READY);
    part(&w);
}

static void t_remote_header_and_config_arrive(void **state)
{
    static const unsigned char head[] = {4, 3, 2,  1, 3, 0, 0, 0, 0, 0,
                                         0, 0, 11, 0, 0, 0, 7, 0, 0, 0};
    unsigned char bytes[128];
    struct world w;
    char path[] = "/tmp/xl_remote_XXXXXX", script[256];
    size_t n;
    FILE *f;

    close(mkstemp(path));
    snprintf(script, sizeof(script), READY "cat >%s", path);
    assert_int_equal(meet(&w, script, 5000), XL_REMOTE_READY);
    assert_int_equal(xl_remote_send_config(&w.r, "{\"a\":1"), XL_DONE);
    part(&w);
    f = fopen(path, "r");
    assert_non_null(f);
    n = fread(bytes, 1, sizeof(bytes), f);
    fclose(f);
    unlink(path);
    assert_int_equal(n, 48 + 4 + 7);
    assert_memory_equal(bytes, "Xen saved domain, xl format\n \0 \r", 32);
    assert_memory_equal(bytes + 32, head, sizeof(head));
    assert_memory_equal(bytes + 52, "{\"a\":1", 7);
}

static void t_remote_config_refused_is_told(void **state)
{
    struct xl_caught c;
    struct world w;
    char *big = calloc(1, 1 << 20);
    int rc;

    signal(SIGPIPE, SIG_IGN);
    memset(big, 'x', (1 << 20) - 1);
    assert_int_equal(meet(&w, READY "exec <&-; sleep 0.2", 5000), XL_REMOTE_READY);
    xl_catch(&c);
    rc = xl_remote_send_config(&w.r, big);
    xl_caught(&c);
    assert_int_equal(rc, XL_FAILED);
    assert_non_null(strstr(c.text, "does not take the guest's configuration"));
    part(&w);
    free(big);
}

static void t_remote_interrupt_ends_the_wait(void **state)
{
    struct world w;

    meet(&w, "read line", 100);
    w.interrupted = 1;
    assert_int_equal(xl_remote_banner(&w.r, 60000), XL_REMOTE_INTERRUPTED);
    part(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_remote_ready_passes_messages_on),
        cmocka_unit_test(t_remote_arguments_reach_the_command),
        cmocka_unit_test(t_remote_unknown_option_means_stock),
        cmocka_unit_test(t_remote_other_failures_are_told),
        cmocka_unit_test(t_remote_refusal_is_told),
        cmocka_unit_test(t_remote_unreachable_is_told),
        cmocka_unit_test(t_remote_no_xl_is_told),
        cmocka_unit_test(t_remote_garbage_is_shown_printable),
        cmocka_unit_test(t_remote_half_a_banner_is_garbled),
        cmocka_unit_test(t_remote_silence_ends_at_the_limit),
        cmocka_unit_test(t_remote_flood_of_messages_is_bounded),
        cmocka_unit_test(t_remote_header_and_config_arrive),
        cmocka_unit_test(t_remote_config_refused_is_told),
        cmocka_unit_test(t_remote_interrupt_ends_the_wait),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
