/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guard as a real process, with the actions on the guest replaced: they only write their name
 * into a file.
 *
 * This program is three: the test, the operation (a child that is killed with SIGKILL), and the
 * guard, which the operation starts from this very file under the name xentwin-guard.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#define GUARD_LOG_DIR "/nonexistent"
#define main xentwin_guard_main
int xentwin_guard_main(int argc, char **argv);
#include "../../tools/guard/xentwin-guard.c"
#undef main

#include <dirent.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define ACT_LIMIT_MS 2000

/* ---- the actions ---- */

static int record(const char *what)
{
    int fd = open(getenv("TEST_FILE"), O_WRONLY | O_APPEND | O_CREAT, 0600);

    if (fd >= 0) {
        dprintf(fd, "%s ", what);
        close(fd);
    }
    return 0;
}

int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb)
{
    return record(ifb && !strcmp(ifb, "remus7") && domid == 7 ? "go_on" : "wrong");
}

int libxl__recover_stay_stopped(libxl__gc *gc, uint32_t domid)
{
    return record("pause");
}

int libxl__recover_check_domain(libxl__gc *gc, uint32_t domid, const char *uuid)
{
    if (!strcmp(uuid, "gone")) return ERROR_DOMAIN_NOTFOUND;
    return strcmp(uuid, "other") ? 0 : ERROR_INVAL;
}

bool libxl__recover_is_stopped(libxl__gc *gc, uint32_t domid)
{
    return false;
}

int libxl__netbuffer_discard(libxl__gc *gc, const char *ifb)
{
    return record("discard");
}

/* ---- the operation ---- */

struct op {
    libxl__loop *loop;
    libxl__guard g;
    int died, died_rc, out;
};

struct fixture {
    struct arbiter_case c;
    const char *uuid;
    char dir[64], file[80];
    pid_t op, guard;
    int guard_pidfd, in; /* in: what the operation says */
};

static void guard_died(libxl__egc *egc, libxl__guard *g, int rc)
{
    struct op *op = g->user;

    op->died++;
    op->died_rc = rc;
}

static pid_t pid_of(int pidfd)
{
    char path[64], line[128];
    int pid = -1;

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    FILE *fp = fopen(path, "r");
    while (fp && fgets(line, sizeof(line), fp))
        if (sscanf(line, "Pid: %d", &pid) == 1) break;
    if (fp) fclose(fp);
    return pid;
}

/* Tells the test the pid of the guard (or a negative error). */
static void op_report(struct op *op, pid_t pid)
{
    (void)!write(op->out, &pid, sizeof(pid));
}

static int op_start(struct op *op, struct fixture *f, int out)
{
    *op = (struct op){.out = out};
    if (libxl__loop_new(&op->loop, NULL, NULL)) return -1;
    libxl__guard_init(&op->g);
    op->g.loop = op->loop;
    op->g.c = f->c;
    op->g.domid = 7;
    op->g.uuid = f->uuid;
    op->g.ifb = "remus7";
    op->g.user = op;
    op->g.died = guard_died;
    return libxl__guard_start(&op->g);
}

static void op_turns_until_died(struct op *op)
{
    op->died = 0;
    while (!op->died)
        libxl__loop_once(op->loop, 1000);
}

/*
 * Starts an operation that runs script and then waits for its end; *script reports the guard once
 * more if it changed.
 */
static void begin(struct fixture *f, void (*script)(struct op *op))
{
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    f->op = fork();
    if (!f->op) {
        struct op op;
        if (op_start(&op, f, fds[1])) {
            op_report(&op, -2);
            _exit(1);
        }
        script(&op);
        op_report(&op, pid_of(op.g.pidfd));
        for (;;)
            libxl__loop_once(op.loop, -1);
    }
    close(fds[1]);
    f->in = fds[0];
    assert_int_equal(read(f->in, &f->guard, sizeof(f->guard)), sizeof(f->guard));
    assert_true(f->guard > 1);
    f->guard_pidfd = pidfd_open(f->guard, 0);
    assert_true(f->guard_pidfd >= 0);
}

static void end_op(struct fixture *f)
{
    int status;

    kill(f->op, SIGKILL);
    assert_int_equal(waitpid(f->op, &status, 0), f->op);
    f->op = 0;
}

/* Waits for the guard's end; what it did, in order. */
static const char *deeds(struct fixture *f)
{
    static char buf[256];
    struct pollfd p = {.fd = f->guard_pidfd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, ACT_LIMIT_MS), 1);
    int fd = open(f->file, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, buf, sizeof(buf) - 1);
    if (fd >= 0) close(fd);
    buf[n] = 0;
    return buf;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char exe[256];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    assert_true(n > 0);
    exe[n] = 0;
    setenv("XENTWIN_GUARD", exe, 1);
    f->c = (struct arbiter_case){.rule = LINK_LOSS_PRIMARY,
                                 .domain = "a guest",
                                 .self = "hostA",
                                 .peer = "hostB",
                                 .session = "s-1",
                                 .primary = true,
                                 .limit_ms = 50};
    f->uuid = "right";
    strcpy(f->dir, "/tmp/guard_test.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->file, sizeof(f->file), "%s/deeds", f->dir);
    setenv("TEST_FILE", f->file, 1);
    f->guard_pidfd = f->in = -1;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    if (f->op) {
        kill(f->op, SIGKILL);
        waitpid(f->op, NULL, 0);
    }
    if (f->guard_pidfd >= 0) {
        pidfd_send_signal(f->guard_pidfd, SIGKILL, NULL, 0);
        close(f->guard_pidfd);
    }
    if (f->in >= 0) close(f->in);
    unlink(f->file);
    rmdir(f->dir);
    free(f);
    return 0;
}

/* ---- phases ---- */

static void unprotected(struct op *op)
{
}

static void protected_at_9(struct op *op)
{
    libxl__guard_update(&op->g, 'P', 0);
    libxl__guard_update(&op->g, 'P', 9);
}

static void must_stop(struct op *op)
{
    protected_at_9(op);
    libxl__guard_update(&op->g, 'S', 9);
}

static void t_killed_before_first_checkpoint_goes_on(void **state)
{
    struct fixture *f = *state;

    f->c.rule = LINK_LOSS_BACKUP;
    begin(f, unprotected);
    end_op(f);
    assert_string_equal(deeds(f), "go_on ");
}

static void t_killed_protected_rule_primary_goes_on(void **state)
{
    struct fixture *f = *state;

    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "go_on ");
}

static void t_killed_protected_rule_backup_pauses(void **state)
{
    struct fixture *f = *state;

    f->c.rule = LINK_LOSS_BACKUP;
    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "pause ");
}

static void t_killed_after_losing_the_right_pauses(void **state)
{
    struct fixture *f = *state;

    begin(f, must_stop);
    end_op(f);
    assert_string_equal(deeds(f), "pause ");
}

static void t_killed_arbiter_grants_pauses_then_goes_on(void **state)
{
    struct fixture *f = *state;

    f->c.command = "f() { test \"$*\" = 'a guest hostA hostB 9 primary s-1' && "
                   "printf 'asked ' >>$TEST_FILE; }; f";
    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "pause asked go_on ");
}

static void t_killed_arbiter_refuses_stays_paused(void **state)
{
    struct fixture *f = *state;

    f->c.command = "exit 1;";
    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "pause ");
}

static void t_killed_arbiter_as_second_asker_waits_then_asks(void **state)
{
    struct fixture *f = *state;

    f->c.rule = LINK_LOSS_BACKUP;
    f->c.command = "true";
    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "pause go_on ");
}

static void t_killed_other_domain_touched_never(void **state)
{
    struct fixture *f = *state;

    f->uuid = "other";
    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "");
}

static void t_killed_domain_gone_drops_held_output(void **state)
{
    struct fixture *f = *state;

    f->uuid = "gone";
    begin(f, protected_at_9);
    end_op(f);
    assert_string_equal(deeds(f), "discard ");
}

/* ---- goodbye ---- */

static void says_goodbye(struct op *op)
{
    pid_t pid;

    protected_at_9(op);
    pid = pid_of(op->g.pidfd);
    op_report(op, pid);
    libxl__guard_stop(&op->g);
    libxl__guard_stop(&op->g);
}

static void t_goodbye_touches_nothing(void **state)
{
    struct fixture *f = *state;
    struct op op;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(op_start(&op, f, fds[1]), 0);
    f->guard_pidfd = dup(op.g.pidfd);
    says_goodbye(&op);
    assert_int_equal(op.g.fd, -1);
    libxl__loop_free(op.loop);
    assert_string_equal(deeds(f), "");
    close(fds[0]);
    close(fds[1]);
}

/* ---- the guard's own death ---- */

static void guard_killed(struct op *op)
{
    protected_at_9(op);
    libxl__guard_update(&op->g, 'S', 9);
    pidfd_send_signal(op->g.pidfd, SIGKILL, NULL, 0);
    op_turns_until_died(op);
    if (op->died_rc) _exit(1);
}

static void t_guard_killed_is_restarted_and_told_the_phase(void **state)
{
    struct fixture *f = *state;

    begin(f, guard_killed);
    end_op(f);
    assert_string_equal(deeds(f), "pause ");
}

static void guard_killed_always(struct op *op)
{
    int times = 0;

    do {
        times++;
        pidfd_send_signal(op->g.pidfd, SIGKILL, NULL, 0);
        op_turns_until_died(op);
    } while (!op->died_rc);
    op_report(op, times);
}

/* The pid that the guard said, or is about to say. */
static pid_t peek_pid(struct op *op)
{
    struct pollfd p = {.fd = op->g.fd, .events = POLLIN};
    struct guard_message m;

    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(recv(op->g.fd, &m, sizeof(m), MSG_PEEK), sizeof(m));
    return m.pid;
}

/* We have no descriptor left to watch the new guard with; it must not take that for our end. */
static void t_guard_that_cannot_be_watched_is_sent_away(void **state)
{
    struct fixture *f = *state;
    struct rlimit old, none;
    struct op op;
    int fds[2];

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(op_start(&op, f, fds[1]), 0);
    protected_at_9(&op);
    pidfd_send_signal(op.g.pidfd, SIGKILL, NULL, 0);
    while (op.g.pidfd >= 0)
        libxl__loop_once(op.loop, 1000);
    f->guard_pidfd = pidfd_open(peek_pid(&op), 0);
    assert_true(f->guard_pidfd >= 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = (struct rlimit){3, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    op_turns_until_died(&op);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_not_equal(op.died_rc, 0);
    assert_string_equal(deeds(f), "");
    libxl__loop_free(op.loop);
    close(fds[0]);
    close(fds[1]);
}

static void t_guard_killed_again_and_again_is_given_up(void **state)
{
    struct fixture *f = *state;
    struct op op;
    int fds[2], times;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(op_start(&op, f, fds[1]), 0);
    guard_killed_always(&op);
    assert_int_equal(read(fds[0], &times, sizeof(times)), sizeof(times));
    assert_int_equal(times, 11);
    assert_int_equal(op.g.fd, -1);
    libxl__guard_update(&op.g, 'P', 3);
    libxl__guard_stop(&op.g);
    libxl__loop_free(op.loop);
    close(fds[0]);
    close(fds[1]);
}

/* It stands still and its socket is full of epochs: the change of phase must not get lost. */
static void guard_stopped(struct op *op)
{
    libxl__guard_update(&op->g, 'P', 0);
    pidfd_send_signal(op->g.pidfd, SIGSTOP, NULL, 0);
    for (uint64_t n = 1; n < 5000; n++)
        libxl__guard_update(&op->g, 'P', n);
    libxl__guard_update(&op->g, 'S', 5000);
    op_turns_until_died(op);
    if (op->died_rc) _exit(1);
}

static void t_guard_stopped_phase_change_replaces_it(void **state)
{
    struct fixture *f = *state;

    begin(f, guard_stopped);
    end_op(f);
    assert_string_equal(deeds(f), "pause ");
}

static void t_guard_missing_start_fails(void **state)
{
    struct fixture *f = *state;
    struct op op;

    setenv("XENTWIN_GUARD", "/nonexistent/guard", 1);
    assert_int_not_equal(op_start(&op, f, -1), 0);
    assert_int_equal(op.g.fd, -1);
    libxl__loop_free(op.loop);
}

static void t_guard_ends_at_once_start_fails(void **state)
{
    struct fixture *f = *state;
    struct op op;

    setenv("XENTWIN_GUARD", "/bin/true", 1);
    assert_int_not_equal(op_start(&op, f, -1), 0);
    assert_int_equal(op.g.fd, -1);
    libxl__loop_free(op.loop);
}

/* ---- what it survives and what it holds ---- */

static void leaves_a_copy_of_the_socket(struct op *op)
{
    protected_at_9(op);
    if (!fork()) {
        struct pollfd p = {.fd = op->g.pidfd, .events = POLLIN};
        poll(&p, 1, 3000); /* ends with the guard */
        _exit(0);
    }
}

static void t_killed_child_holds_socket_still_acts(void **state)
{
    struct fixture *f = *state;

    begin(f, leaves_a_copy_of_the_socket);
    end_op(f);
    assert_string_equal(deeds(f), "go_on ");
}

static void t_guard_survives_polite_signals(void **state)
{
    static const int sigs[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
    struct fixture *f = *state;

    begin(f, protected_at_9);
    for (size_t i = 0; i < sizeof(sigs) / sizeof(*sigs); i++)
        pidfd_send_signal(f->guard_pidfd, sigs[i], NULL, 0);
    end_op(f);
    assert_string_equal(deeds(f), "go_on ");
}

static void t_guard_is_alone(void **state)
{
    struct fixture *f = *state;
    char path[64], target[256];
    int extra = dup(0); /* not close-on-exec: the operation inherits it, the guard must not */
    struct dirent *de;
    int sockets = 0, others = 0;

    begin(f, unprotected);
    close(extra);
    assert_int_not_equal(getsid(f->guard), getsid(f->op));
    assert_int_not_equal(getpgid(f->guard), getpgid(f->op));
    snprintf(path, sizeof(path), "/proc/%d/fd", f->guard);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    while ((de = readdir(dir))) {
        char link[400];
        snprintf(link, sizeof(link), "%s/%s", path, de->d_name);
        ssize_t n = readlink(link, target, sizeof(target) - 1);
        if (n < 0) continue;
        target[n] = 0;
        if (!strncmp(target, "socket:", 7))
            sockets++;
        else if (strcmp(target, "/dev/null") && strcmp(target, "anon_inode:[pidfd]"))
            others++;
    }
    closedir(dir);
    assert_int_equal(sockets, 1);
    assert_int_equal(others, 0);
}

static void t_guard_bad_command_line_is_usage_error(void **state)
{
    static char *const bad[][4] = {{"xentwin-guard", NULL},
                                   {"xentwin-guard", "--domid=0", NULL},
                                   {"xentwin-guard", "--domid=99999", NULL},
                                   {"xentwin-guard", "--on-link-loss=both", NULL},
                                   {"xentwin-guard", "--limit-ms=3s", NULL},
                                   {"xentwin-guard", "--nonsense", NULL},
                                   {"xentwin-guard", "word", NULL}};
    const char *exe = getenv("XENTWIN_GUARD");

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        int status;
        pid_t pid = fork();
        if (!pid) {
            close(2);
            execv(exe, bad[i]);
            _exit(99);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(WEXITSTATUS(status), 2);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(t_killed_before_first_checkpoint_goes_on),
        T(t_killed_protected_rule_primary_goes_on),
        T(t_killed_protected_rule_backup_pauses),
        T(t_killed_after_losing_the_right_pauses),
        T(t_killed_arbiter_grants_pauses_then_goes_on),
        T(t_killed_arbiter_refuses_stays_paused),
        T(t_killed_arbiter_as_second_asker_waits_then_asks),
        T(t_killed_other_domain_touched_never),
        T(t_killed_domain_gone_drops_held_output),
        T(t_goodbye_touches_nothing),
        T(t_guard_killed_is_restarted_and_told_the_phase),
        T(t_guard_that_cannot_be_watched_is_sent_away),
        T(t_guard_killed_again_and_again_is_given_up),
        T(t_guard_stopped_phase_change_replaces_it),
        T(t_guard_missing_start_fails),
        T(t_guard_ends_at_once_start_fails),
        T(t_killed_child_holds_socket_still_acts),
        T(t_guard_survives_polite_signals),
        T(t_guard_is_alone),
        T(t_guard_bad_command_line_is_usage_error),
    };

    if (!strcmp(argv[0], "xentwin-guard")) return xentwin_guard_main(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
