/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What xl save and xl migrate leave behind when the stock xl, a script here, fails or is killed.
 *
 * The guest is a file with one word that the script may change; libxl is replaced by the functions below.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>

#include <libxl.h>
#include <libxl_utils.h>

#include "libxl_control.h"
#include "libxl_guard.h"
#include "xl.h"
#include "xl_script.h"

#define DOMID 7

static char guest[64], file[64];
static int recovered;
static bool is_protected, has_disk;
static const char *name = "web 1", *before = "runs";

/* runs, suspended, destroying, dying, gone, away, paused, stopped (by a lost link), cut (suspended, too), halted (suspended and paused),
 * held (runs since somebody unpaused it, its output held) */
static const char *guest_is(void)
{
    static char word[32];
    FILE *f = fopen(guest, "r");

    assert_non_null(f);
    assert_int_equal(fscanf(f, "%31s", word), 1);
    fclose(f);
    return word;
}

/* ---- libxl, as far as the commands use it ---- */

int access(const char *path, int mode)
{
    if (!strcmp(path, "/dev/xen/privcmd")) return 0;
    return (int)syscall(SYS_faccessat, AT_FDCWD, path, mode);
}

uid_t geteuid(void)
{
    return 0;
}

void libxl_domain_config_init(libxl_domain_config *config)
{
    memset(config, 0, sizeof(*config));
}

void libxl_domain_config_dispose(libxl_domain_config *config)
{
}

int libxl_retrieve_domain_configuration(libxl_ctx *ctx, uint32_t domid, libxl_domain_config *config,
                                        const libxl_asyncop_how *how)
{
    static libxl_device_disk disk = {.vdev = (char *)"xvda", .script = (char *)"block-remus"};

    config->num_disks = has_disk;
    config->disks = &disk;
    return 0;
}

int libxl_ctx_alloc(libxl_ctx **ctx, int version, unsigned flags, xentoollog_logger *lg)
{
    static char any;

    *ctx = (libxl_ctx *)&any;
    return 0;
}

int libxl_ctx_free(libxl_ctx *ctx)
{
    return 0;
}

int libxl_domain_qualifier_to_domid(libxl_ctx *ctx, const char *wanted, uint32_t *domid)
{
    *domid = DOMID;
    return strcmp(wanted, name) ? ERROR_INVAL : 0;
}

char *libxl_domid_to_name(libxl_ctx *ctx, uint32_t domid)
{
    assert_int_equal(domid, DOMID);
    return strdup(strcmp(guest_is(), "away") ? name : "web 1--migratedaway");
}

int libxl_domain_info(libxl_ctx *ctx, libxl_dominfo *info, uint32_t domid)
{
    const char *word = guest_is();

    assert_int_equal(domid, DOMID);
    if (!strcmp(word, "gone")) return ERROR_DOMAIN_NOTFOUND;
    info->dying = !strcmp(word, "dying");
    info->shutdown = !strcmp(word, "suspended") || !strcmp(word, "destroying") ||
                     !strcmp(word, "away") || !strcmp(word, "halted") || !strcmp(word, "cut") ||
                     info->dying;
    info->shutdown_reason = LIBXL_SHUTDOWN_REASON_SUSPEND;
    info->paused = !strcmp(word, "destroying") || !strcmp(word, "paused") ||
                   !strcmp(word, "stopped") || !strcmp(word, "cut") || !strcmp(word, "halted");
    return 0;
}

bool libxl__recover_is_stopped(libxl__gc *gc, uint32_t domid)
{
    assert_int_equal(domid, DOMID);
    return !strcmp(guest_is(), "stopped") || !strcmp(guest_is(), "cut");
}

int libxl__recover_undecided(libxl__gc *gc, uint32_t domid, bool *undecided)
{
    *undecided = libxl__recover_is_stopped(gc, domid) || !strcmp(guest_is(), "held");
    return 0;
}

int libxl__recover_go_on(libxl__gc *gc, uint32_t domid, const char *ifb)
{
    assert_int_equal(domid, DOMID);
    assert_null(ifb);
    recovered++;
    if (!strcmp(guest_is(), "suspended")) write_file(guest, "runs", 0644);
    if (!strcmp(guest_is(), "halted")) write_file(guest, "paused", 0644);
    return 0;
}

int libxl__control_call(libxl__gc *gc, const char *side, const char *domain, const char *line,
                        int limit_ms, char **answer)
{
    return is_protected ? 0 : ERROR_NOTFOUND;
}

/* The command table would bring in everything else. */
struct xl_globals xl_globals;

const struct xl_command *xl_command_find(const char *word)
{
    return NULL;
}

void xl_command_help(const struct xl_command *command)
{
}

/* ---- the stories ---- */

static int set_up(void **state)
{
    script_set_up("#!/bin/sh\n");
    snprintf(guest, sizeof(guest), "%s/guest", dir);
    snprintf(file, sizeof(file), "%s/saved file", dir);
    setenv("GUEST", guest, 1);
    setenv("FILE", file, 1);
    return 0;
}

static int run(struct xl_caught *c, const char *body, const char *command)
{
    const char *save[] = {"save", name, file, NULL};
    const char *migrate[] = {"migrate", name, "hostB", NULL};
    int rc;

    stock_is(body);
    write_file(guest, before, 0644);
    recovered = 0;
    xl_catch(c);
    rc = strcmp(command, "save") ? xl_main_migrate(3, (char **)migrate)
                                 : xl_main_save(3, (char **)save);
    xl_caught(c);
    return rc;
}

static bool saved(void)
{
    return !access(file, F_OK);
}

static void t_save_done_keeps_the_file(void **state)
{
    struct xl_caught c;

    unlink(file);
    assert_int_equal(run(&c, "echo all >\"$FILE\"; echo gone >$GUEST", "save"), XL_DONE);
    assert_string_equal(c.text, "");
    assert_true(saved());
    assert_int_equal(recovered, 0);
}

static void t_save_failed_removes_the_partial_file(void **state)
{
    struct xl_caught c;

    unlink(file);
    assert_int_equal(run(&c, "echo part >\"$FILE\"; exit 3", "save"), XL_FAILED);
    assert_string_equal(
        c.text, "xl save: 'web 1' was not saved and runs on; the partial file is removed\n");
    assert_false(saved());
    assert_int_equal(recovered, 0);
}

static void t_save_failed_early_keeps_an_old_file(void **state)
{
    struct xl_caught c;

    write_file(file, "old", 0644);
    assert_int_equal(run(&c, "exit 1", "save"), XL_FAILED);
    assert_true(saved());
    unlink(file);
}

static void t_save_killed_suspended_goes_on(void **state)
{
    struct xl_caught c;

    unlink(file);
    assert_int_equal(run(&c, "echo part >\"$FILE\"; echo suspended >$GUEST; kill -9 $$", "save"),
                     XL_FAILED);
    assert_int_equal(recovered, 1);
    assert_false(saved());
    assert_non_null(strstr(c.text, "'web 1' runs on here"));
}

static void t_save_killed_running_ends_logdirty(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, "kill -9 $$", "save"), XL_FAILED);
    assert_int_equal(recovered, 1);
}

static void t_save_killed_after_the_save_keeps_the_file(void **state)
{
    static const char *const words[] = {"destroying", "dying", "gone"};
    struct xl_caught c;
    char body[128];
    size_t i;

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        unlink(file);
        snprintf(body, sizeof(body), "echo all >\"$FILE\"; echo %s >$GUEST; kill -9 $$", words[i]);
        assert_int_equal(run(&c, body, "save"), XL_FAILED);
        assert_int_equal(recovered, 0);
        assert_true(saved());
        assert_non_null(strstr(c.text, "is kept"));
    }
    unlink(file);
}

static void t_migrate_failed_guest_runs_is_told(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, "exit 1", "migrate"), XL_FAILED);
    assert_string_equal(c.text, "xl migrate: 'web 1' did not move; it runs on here\n");
    assert_int_equal(recovered, 0);
}

/* The stock xl gets what it knows, our helper the rest. */
static void t_migrate_limits_go_to_the_helper(void **state)
{
    const char *words[] = {"migrate", "-eC",           "/dev/null",  "--max-rounds",
                           "3",       "--max-down=20", "--rate=100", "--debug",
                           name,      "hostB",         NULL};
    struct xl_caught c;

    stock_is("[ \"$*\" = \"migrate -e -C /dev/null --debug -- web 1 hostB\" ] || exit 2\n"
             "[ $XENTWIN_MAX_ROUNDS/$XENTWIN_MAX_DOWNTIME_MS/$XENTWIN_RATE_MB = 3/20/100 ]");
    write_file(guest, "runs", 0644);
    xl_catch(&c);
    assert_int_equal(xl_main_migrate(10, (char **)words), XL_DONE);
    xl_caught(&c);
    assert_string_equal(c.text, "");
}

static void t_migrate_failed_suspended_goes_on(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, "echo suspended >$GUEST; exit 1", "migrate"), XL_FAILED);
    assert_int_equal(recovered, 1);
}

static void t_migrate_killed_handed_over_is_left_alone(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, "echo away >$GUEST; kill -9 $$", "migrate"), XL_FAILED);
    assert_int_equal(recovered, 0);
    assert_non_null(strstr(c.text, "left as 'web 1--migratedaway'"));
    assert_non_null(strstr(c.text, "killed by signal 9"));
}

static void t_migrate_done_says_nothing(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, "echo gone >$GUEST", "migrate"), XL_DONE);
    assert_string_equal(c.text, "");
}

static void t_protected_guest_is_refused(void **state)
{
    struct xl_caught c;

    is_protected = true;
    name = "web";
    assert_int_equal(run(&c, "echo gone >$GUEST", "migrate"), XL_FAILED);
    assert_string_equal(guest_is(), "runs");
    assert_non_null(strstr(c.text, "end that first with 'xl remus --stop web'"));
    is_protected = false;
    name = "web 1";
}

/* Its twin may run: neither is anything begun nor is it woken. */
static void t_stopped_guest_is_refused(void **state)
{
    static const char *const commands[] = {"save", "migrate", "save", "migrate"};
    struct xl_caught c;
    size_t i;

    name = "web";
    for (i = 0; i < 4; i++) {
        before = i < 2 ? "stopped" : "held";
        assert_int_equal(run(&c, "echo gone >$GUEST", commands[i]), XL_FAILED);
        assert_string_equal(guest_is(), before);
        assert_int_equal(recovered, 0);
        assert_int_equal(xl_lines(c.text), 1);
        assert_non_null(strstr(c.text, "'xl remus --discard web'"));
        assert_non_null(strstr(c.text, "'xl remus --recover web'"));
    }
    before = "runs";
    name = "web 1";
}

static void t_stopped_meanwhile_is_not_woken(void **state)
{
    struct xl_caught c;

    assert_int_equal(run(&c, "echo stopped >$GUEST; kill -9 $$", "save"), XL_FAILED);
    assert_int_equal(recovered, 0);
    assert_non_null(strstr(c.text, "'xl remus --recover web 1'"));
    assert_non_null(strstr(c.text, "was not saved and stays stopped"));
    assert_int_equal(run(&c, "echo stopped >$GUEST; exit 1", "migrate"), XL_FAILED);
    assert_int_equal(recovered, 0);
    assert_non_null(strstr(c.text, "did not move; it stays stopped here\n"));
    /* Suspended, too: whether the file has all of it nobody knows. */
    assert_int_equal(run(&c, "echo all >\"$FILE\"; echo cut >$GUEST; kill -9 $$", "save"),
                     XL_FAILED);
    assert_int_equal(recovered, 0);
    assert_true(saved());
    unlink(file);
}

static void t_paused_guest_stays_paused(void **state)
{
    struct xl_caught c;

    before = "paused";
    assert_int_equal(run(&c, "exit 1", "save"), XL_FAILED);
    assert_string_equal(c.text, "xl save: 'web 1' was not saved and stays paused\n");
    assert_int_equal(run(&c, "kill -9 $$", "save"), XL_FAILED);
    assert_string_equal(c.text, "xl save: 'web 1' stays paused here\n"
                                "xl save: 'web 1' was not saved and stays paused\n");
    assert_int_equal(run(&c, "exit 1", "migrate"), XL_FAILED);
    assert_string_equal(c.text, "xl migrate: 'web 1' did not move; it stays paused here\n");
    /* Suspended by the hypervisor while it was paused. */
    assert_int_equal(run(&c, "echo halted >$GUEST; exit 1", "migrate"), XL_FAILED);
    assert_int_equal(recovered, 1);
    assert_non_null(strstr(c.text, "did not move; it stays paused here\n"));
    before = "runs";
}

static void t_migrate_replicated_disk_is_refused(void **state)
{
    struct xl_caught c;

    has_disk = true;
    assert_int_equal(run(&c, "echo gone >$GUEST", "migrate"), XL_FAILED);
    assert_string_equal(guest_is(), "runs");
    assert_non_null(strstr(c.text, "disk xvda of 'web 1' belongs to this host"));
    has_disk = false;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_save_done_keeps_the_file),
        cmocka_unit_test(t_save_failed_removes_the_partial_file),
        cmocka_unit_test(t_save_failed_early_keeps_an_old_file),
        cmocka_unit_test(t_save_killed_suspended_goes_on),
        cmocka_unit_test(t_save_killed_running_ends_logdirty),
        cmocka_unit_test(t_save_killed_after_the_save_keeps_the_file),
        cmocka_unit_test(t_migrate_failed_guest_runs_is_told),
        cmocka_unit_test(t_migrate_limits_go_to_the_helper),
        cmocka_unit_test(t_migrate_failed_suspended_goes_on),
        cmocka_unit_test(t_migrate_killed_handed_over_is_left_alone),
        cmocka_unit_test(t_migrate_done_says_nothing),
        cmocka_unit_test(t_protected_guest_is_refused),
        cmocka_unit_test(t_stopped_guest_is_refused),
        cmocka_unit_test(t_stopped_meanwhile_is_not_woken),
        cmocka_unit_test(t_paused_guest_stays_paused),
        cmocka_unit_test(t_migrate_replicated_disk_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, script_tear_down);
}
