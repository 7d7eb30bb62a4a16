/* SPDX-License-Identifier: LGPL-2.1-only */
/* The way down: stop, refusal, failures of child and host; and the whole process. */
#include <sched.h>
#include <sys/mount.h>

#include "libxl_twin_lock.h"
#include "twin_fixture.h"

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
    stop_and_finish(f);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    assert_true(noted(f, "destroy guest--incoming"));
}

static void t_twin_stop_leaves_other_domains_alone(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    write_file(f, "domains",
               OTHER_UUID "  7    guest--incoming      \n" UUID "  8    guest2--incoming \n" UUID
                          "  9    guest--incoming2\n" UUID "  10    other\ngarbage\n\n");
    stop_and_finish(f);
    assert_int_equal(f->outcome, TWIN_STOPPED);
    assert_false(noted(f, "destroy"));
}

static void t_twin_domain_that_stays_is_told(void **state)
{
    struct fixture *f = *state;

    protect(f, 1);
    setenv("FAKE_XL_MODE", "immortal", 1);
    write_file(f, "domains", UUID "  7    guest--incoming      \n");
    stop_and_finish(f);
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

static void t_twin_link_lost_before_there_is_a_child_drops(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "slow-list", 1);
    start(f);
    send_checkpoint(f);
    RUN_UNTIL(f, f->twin.stream.committed == 1);
    cut_link(f);
    turns(f, 20);
    write_file(f, "go", "");
    RUN_UNTIL(f, f->finished);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_int_equal(f->acked, 0);
    assert_false(noted(f, "running"));
}

static void t_twin_arbiter_refuses_drops(void **state)
{
    struct fixture *f = *state;

    f->twin.c.command = "false";
    protect(f, 1);
    lose_link(f);
    assert_int_equal(f->outcome, TWIN_REFUSED);
    assert_true(noted(f, "dropped"));
    assert_false(noted(f, "running"));
}

static void t_twin_arbiter_grants_promotes(void **state)
{
    struct fixture *f = *state;

    f->twin.c.command = "sh -c 'test \"$0 $1 $2 $3 $4\" = \"guest hostB hostA 2 backup\"'";
    protect(f, 2);
    lose_link(f);
    assert_int_equal(f->outcome, TWIN_PROMOTED);
    assert_child_got(f, 2);
}

static void t_twin_rule_primary_without_control_refuses(void **state)
{
    struct fixture *f = *state;

    f->twin.c.rule = LINK_LOSS_PRIMARY;
    protect(f, 1);
    lose_link(f);
    assert_int_equal(f->outcome, TWIN_REFUSED);
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
    assert_true(noted(f, "destroy guest--incoming"));
    stop_and_finish(f);
}

/* Somebody who builds a domain, as the stock xl: it holds the lock until it is killed. */
static pid_t hold_lock(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int ready[2], fd;
    pid_t pid;
    char c;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        fd = open(path, O_RDWR | O_CREAT, 0600);
        if (fd < 0 || fcntl(fd, F_SETLK, &lock) || write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void t_twin_copy_of_a_migration_is_left_alone(void **state)
{
    struct fixture *f = *state;
    char lock[256], own[256];
    pid_t builder;

    snprintf(lock, sizeof(lock), "%s/lock", f->dir);
    snprintf(own, sizeof(own), "%s/own", f->dir);
    builder = hold_lock(lock);
    f->twin.lock = lock;
    f->twin.own_lock = own;
    write_file(f, "domains", UUID "  7    guest--incoming      \n");
    start_that_fails(f, "good", "perhaps being migrated");
    assert_false(noted(f, "destroy"));
    kill(builder, SIGKILL);
    waitpid(builder, NULL, 0);
    f->twin.lock = NULL;
}

static void t_twin_guest_that_cannot_start_is_told(void **state)
{
    struct fixture *f = *state;

    setenv("FAKE_XL_MODE", "result", 1);
    protect(f, 1);
    lose_link(f);
    assert_int_equal(f->outcome, TWIN_FAILED);
    assert_non_null(strstr(f->told, "error -3"));
}

/* ---- the stock receiver's lock ---- */

/* Mount namespaces need root, and not every container has them. */
static bool may_unshare(void)
{
    int status;
    pid_t pid = fork();

    if (!pid) _exit(unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
    return waitpid(pid, &status, 0) == pid && !status;
}

static void t_twin_child_has_a_lock_of_its_own(void **state)
{
    struct fixture *f = *state;
    char lock[100], own[100], line[40];
    struct stat common, theirs;

    if (!may_unshare()) {
        print_message("skipped: no mount namespaces here\n");
        skip();
    }
    write_file(f, "lock", "");
    write_file(f, "own", "");
    snprintf(lock, sizeof(lock), "%s/lock", f->dir);
    snprintf(own, sizeof(own), "%s/own", f->dir);
    assert_int_equal(stat(lock, &common) | stat(own, &theirs), 0);
    setenv("FAKE_XL_LOCK", lock, 1);
    f->twin.lock = lock;
    f->twin.own_lock = own;
    protect(f, 1);
    unsetenv("FAKE_XL_LOCK");
    snprintf(line, sizeof(line), "lock %lu\n", (unsigned long)theirs.st_ino);
    assert_true(noted(f, line));
    assert_int_equal(stat(lock, &theirs), 0);
    assert_int_equal(theirs.st_ino, common.st_ino);
    libxl__channel_send(&f->p, CHANNEL_STOP, 1, "", 0);
    RUN_UNTIL(f, f->finished);
    f->twin.lock = NULL;
}

static void t_twin_lock_is_found_in_xl_conf(void **state)
{
    struct fixture *f = *state;
    char conf[100], path[256];

    snprintf(conf, sizeof(conf), "%s/xl.conf", f->dir);
    libxl__twin_lock_find(conf, path, sizeof(path));
    assert_string_equal(path, "/var/lock/xl");
    write_file(f, "xl.conf", "# lockfile=\"/no\"\nautoballoon=0\n");
    libxl__twin_lock_find(conf, path, sizeof(path));
    assert_string_equal(path, "/var/lock/xl");
    write_file(f, "xl.conf", "autoballoon=0\nlockfile=\"/run/a b\"\n");
    libxl__twin_lock_find(conf, path, sizeof(path));
    assert_string_equal(path, "/run/a b");
    write_file(f, "xl.conf", "  lockfile = '/run/c' # here\n");
    libxl__twin_lock_find(conf, path, sizeof(path));
    assert_string_equal(path, "/run/c");
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
    setenv("LIBXL_SAVE_HELPER", "/our/helper", 1);
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
    f->p.prologue = XXH3_64bits(f->prefix.p, f->prefix.n);
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

static void t_receiver_damaged_configuration_is_not_used(void **state)
{
    struct fixture *f = *state;
    char word[54], *name;
    pid_t pid = run_receiver(f, "guest", LINK_LOSS_BACKUP);

    read_exactly(f->fds[0], word, sizeof(word));
    f->p.prologue = XXH3_64bits(f->prefix.p, f->prefix.n);
    name = memmem(f->prefix.p, f->prefix.n, "uuid", 4);
    assert_non_null(name);
    name[8] ^= 1; /* another digit of it */
    assert_int_equal(write(f->fds[0], f->prefix.p, f->prefix.n), f->prefix.n);
    assert_int_equal(libxl__channel_start(&f->p), 0);
    assert_int_equal(exit_of(pid), 1);
    assert_false(f->hello);
}

static void t_receiver_sigterm_drops(void **state)
{
    struct fixture *f = *state;
    char word[54];
    pid_t pid = run_receiver(f, "guest", LINK_LOSS_BACKUP);

    read_exactly(f->fds[0], word, sizeof(word));
    f->p.prologue = XXH3_64bits(f->prefix.p, f->prefix.n);
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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(t_twin_stop_drops_and_confirms),
        T(t_twin_stop_while_copying_is_fine),
        T(t_twin_stop_removes_half_built_domain),
        T(t_twin_stop_leaves_other_domains_alone),
        T(t_twin_domain_that_stays_is_told),
        T(t_twin_link_lost_before_first_checkpoint_drops),
        T(t_twin_link_lost_before_there_is_a_child_drops),
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
        T(t_twin_child_has_a_lock_of_its_own),
        T(t_twin_copy_of_a_migration_is_left_alone),
        T(t_twin_lock_is_found_in_xl_conf),
        T(t_receiver_whole_run_promotes),
        T(t_receiver_damaged_configuration_is_not_used),
        T(t_receiver_sigterm_drops),
        T(t_receiver_bad_beginnings_end_at_once),
    };

    if (argc > 1 && getenv("FAKE_XL_DIR")) return fake_xl_main(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
