/* SPDX-License-Identifier: LGPL-2.1-only */
/* The one-shot commands of xl remus against a control socket of a child. */
#include "xl_test.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "libxl_control.h"
#include "xl.h"
#include "xl_opts.h"
#include "xl_remus.h"

static char dir[] = "/tmp/xl_status_XXXXXX";

struct server {
    struct libxl__control ctl;
    const char *stop_answer;
};

static void request(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
    struct server *s = ctl->user;

    if (!strcmp(line, "status"))
        libxl__control_reply(ctl, id, "ok\nside: primary\nstate: protected\nepoch: 7");
    else
        libxl__control_reply(ctl, id, s->stop_answer);
}

/* A process that answers for guest "web". Killed by stop(). */
static pid_t start(const char *side, const char *stop_answer)
{
    struct server s = {.stop_answer = stop_answer};
    libxl__loop *loop;
    int ready[2];
    bool never = false;
    char c;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        libxl__control_init(&s.ctl);
        s.ctl.side = side;
        s.ctl.domain = "web";
        s.ctl.user = &s;
        s.ctl.request = request;
        if (libxl__loop_new(&loop, NULL, NULL)) _exit(1);
        s.ctl.loop = loop;
        if (libxl__control_start(&s.ctl) || write(ready[1], "r", 1) != 1) _exit(1);
        libxl__loop_run(loop, &never);
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* Runs the action with both outputs caught together. */
static int run(struct xl_caught *c, enum remus_action action, const char *domain)
{
    struct remus_opts o = {.action = action, .domain = domain};
    int rc, out;

    xl_catch(c);
    fflush(stdout);
    out = dup(STDOUT_FILENO);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    rc = xl_remus_control(&o);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    close(out);
    xl_caught(c);
    return rc;
}

static void t_status_lists_what_lives(void **state)
{
    struct xl_caught c;
    pid_t pid = start("primary", "");

    assert_int_equal(run(&c, REMUS_STATUS, NULL), XL_DONE);
    assert_string_equal(c.text, "web:\n  side: primary\n  state: protected\n  epoch: 7\n");
    assert_int_equal(run(&c, REMUS_STATUS, "web"), XL_DONE);
    assert_non_null(strstr(c.text, "  epoch: 7\n"));
    stop(pid);
}

/* Without a domain of that number it is a name like any other. */
static void t_status_of_a_name_that_is_a_number(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, REMUS_STOP, "7"), XL_FAILED);
    assert_non_null(strstr(c.text, "'7' is not being protected on this host"));
    assert_int_equal(run(&c, REMUS_STATUS, "99999999999999999999999"), XL_FAILED);
    assert_int_equal(xl_lines(c.text), 1);
    assert_int_equal(run(&c, REMUS_STOP, ""), XL_FAILED);
    assert_non_null(strstr(c.text, "is not the name of a protected domain"));
}

static void t_status_ignores_dead_sockets(void **state)
{
    struct xl_caught c;

    stop(start("backup", ""));
    assert_int_equal(run(&c, REMUS_STATUS, NULL), XL_DONE);
    assert_string_equal(c.text, "no domain is protected or received on this host\n");
    assert_int_equal(run(&c, REMUS_STATUS, "web"), XL_FAILED);
    assert_int_equal(xl_lines(c.text), 1);
}

/* Locks and what else is there take nobody's place. */
static void t_status_finds_the_one_among_many_files(void **state)
{
    struct xl_caught c;
    char command[200];
    pid_t pid;

    snprintf(command, sizeof(command), "cd %s && touch $(seq -f a%%g.lock 600)", dir);
    assert_int_equal(system(command), 0);
    pid = start("primary", "");
    assert_int_equal(run(&c, REMUS_STATUS, NULL), XL_DONE);
    assert_non_null(strstr(c.text, "web:\n  side: primary\n"));
    stop(pid);
    snprintf(command, sizeof(command), "rm %s/a*.lock", dir);
    assert_int_equal(system(command), 0);
}

static void t_stop_says_how_it_ended(void **state)
{
    struct xl_caught c;
    pid_t pid = start("primary", "ok ended");

    assert_int_equal(run(&c, REMUS_STOP, "web"), XL_DONE);
    assert_string_equal(c.text, "web: protection ended, runs on here\n");
    assert_int_equal(run(&c, REMUS_PROMOTE, "web"), XL_FAILED);
    assert_non_null(strstr(c.text, "'web' is not being received on this host"));
    stop(pid);
}

static void t_promote_refused_gives_the_reason(void **state)
{
    struct xl_caught c;
    pid_t pid = start("backup", "error the primary is alive");

    assert_int_equal(run(&c, REMUS_PROMOTE, "web"), XL_FAILED);
    assert_string_equal(c.text, "xl remus: promote of 'web' refused: the primary is alive\n");
    stop(pid);
}

static void t_control_bad_name_never_leaves_the_folder(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, REMUS_STOP, "../web"), XL_FAILED);
    assert_int_equal(xl_lines(c.text), 1);
    assert_non_null(strstr(c.text, "is not the name of a protected domain"));
}

static int set_up(void **state)
{
    if (geteuid() != 0) {
        printf("skip: xl remus commands are root's\n");
        exit(77);
    }
    assert_non_null(mkdtemp(dir));
    return setenv("XENTWIN_RUN_DIR", dir, 1);
}

static int tear_down(void **state)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_status_lists_what_lives),
        cmocka_unit_test(t_status_of_a_name_that_is_a_number),
        cmocka_unit_test(t_status_ignores_dead_sockets),
        cmocka_unit_test(t_status_finds_the_one_among_many_files),
        cmocka_unit_test(t_stop_says_how_it_ended),
        cmocka_unit_test(t_promote_refused_gives_the_reason),
        cmocka_unit_test(t_control_bad_name_never_leaves_the_folder),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
