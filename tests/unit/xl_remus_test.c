/* SPDX-License-Identifier: LGPL-2.1-only */
/* The command line of xl remus, and that the receiver's parser understands what it makes of it. */
#include "xl_test.h"

#include <stdlib.h>

#include "xl.h"
#include "xl_guest.h"
#include "xl_migrate_receive.h"
#include "xl_opts.h"
#include "xl_remus.h"

#define SESSION "6d5a3a0e-7b1f-4b7e-9b0c-2f6f0a3c9d11"

static int count(char **argv)
{
    int n = 0;

    while (argv[n])
        n++;
    return n;
}

static void refused(const char *const *words, const char *says)
{
    struct remus_opts o;
    struct xl_caught c;
    int rc;

    xl_catch(&c);
    rc = xl_remus_parse(&o, count((char **)words), (char **)words);
    xl_caught(&c);
    if (rc != XL_USAGE || xl_lines(c.text) != 1 || !strstr(c.text, says))
        fail_msg("rc %d for '%s %s': %s", rc, words[1] ? words[1] : "", says, c.text);
}

#define REFUSED(says, ...) refused((const char *const[]){"remus", __VA_ARGS__, NULL}, says)

static void t_remus_bad_options_are_named(void **state)
{
    refused((const char *const[]){"remus", NULL}, "no DOMAIN and HOST");
    REFUSED("no HOST", "dom");
    REFUSED("'c' is one argument too many", "a", "b", "c");
    REFUSED("-i 'x'", "-i", "x", "a", "b");
    REFUSED("-i '600001'", "-i", "600001", "a", "b");
    REFUSED("--limit-ms '199'", "--limit-ms", "199", "a", "b");
    REFUSED("--on-link-loss 'both'", "--on-link-loss", "both", "a", "b");
    REFUSED("--netbuf-limit '127K'", "--netbuf-limit=127K", "a", "b");
    REFUSED("--compress 'zip'", "--compress", "zip", "a", "b");
    REFUSED("--compress-cache '1K'", "--compress-cache=1K", "a", "b");
    REFUSED("--max-checkpoints '0'", "--max-checkpoints", "0", "a", "b");
    REFUSED("--self-name 'a b'", "--self-name", "a b", "a", "b");
    REFUSED("--peer-name ''", "--peer-name", "", "a", "b");
    REFUSED("--arbiter", "--arbiter", "", "a", "b");
    REFUSED("--twin 'hot'", "--twin", "hot", "a", "b");
    REFUSED("--stats", "--stats", "", "a", "b");
    REFUSED("COLO", "-c", "a", "b");
    REFUSED("COLO", "-p", "a", "b");
    REFUSED("-b gives up safety: add -F", "-b", "a", "b");
    REFUSED("-n gives up safety: add -F", "-n", "a", "b");
    REFUSED("-d gives up safety: add -F", "-d", "a", "b");
    REFUSED("unknown option '-q'", "-q", "a", "b");
    REFUSED("unknown option '-o'", "a", "-oProxyCommand=x");
    REFUSED("'-oX' is no host name", "--", "a", "-oX");
    REFUSED("DOMAIN is empty", "", "b");
}

static void t_remus_actions_want_one_domain(void **state)
{
    REFUSED("--stop needs a DOMAIN", "--stop");
    REFUSED("--stop takes one DOMAIN", "--stop", "a", "b");
    REFUSED("only one of", "--stop", "--status", "a");
    REFUSED("--recover needs a DOMAIN", "--recover");
}

static void parsed(struct remus_opts *o, const char *const *words)
{
    struct xl_caught c;
    int rc;

    xl_catch(&c);
    rc = xl_remus_parse(o, count((char **)words), (char **)words);
    xl_caught(&c);
    if (rc) fail_msg("%s", c.text);
}

#define PARSED(o, ...) parsed(o, (const char *const[]){"remus", __VA_ARGS__, NULL})

static void t_remus_defaults_are_those_of_4_17(void **state)
{
    struct remus_opts o;

    PARSED(&o, "guest", "root@hostB");
    assert_int_equal(o.action, REMUS_PROTECT);
    assert_int_equal(o.interval_ms, 200);
    assert_int_equal(o.limit_ms, 3000);
    assert_int_equal(o.on_link_loss, LIBXL_LINK_LOSS_PRIMARY);
    assert_string_equal(o.ssh, "ssh");
    assert_string_equal(o.peer_name, "hostB");
    assert_string_equal(o.host, "root@hostB");
    PARSED(&o, "-i", "0", "-u", "-e", "guest", "hostB");
    assert_int_equal(o.interval_ms, 200);
    assert_true(o.no_monitor);
    PARSED(&o, "-F", "-b", "guest");
    assert_null(o.host);
    PARSED(&o, "--status");
    assert_int_equal(o.action, REMUS_STATUS);
    assert_null(o.domain);
    PARSED(&o, "guest", "--stop");
    assert_int_equal(o.action, REMUS_STOP);
    assert_string_equal(o.domain, "guest");
}

static void t_remus_arbiter_needs_plain_names(void **state)
{
    struct remus_opts o;

    REFUSED("--peer-name", "--arbiter", "x", "a", "fd00::1");
    REFUSED("--peer-name", "--arbiter", "x", "-s", "", "a", "ssh b xl migrate-receive");
    REFUSED("both hosts", "--arbiter", "x", "--self-name", "b", "a", "b");
    PARSED(&o, "--self-name", "A", "--peer-name", "B", "--arbiter", "true x", "a", "fd00::1");
    assert_string_equal(o.peer_name, "B");
    REFUSED("there is no command 'nothing-like-it'", "--arbiter", "nothing-like-it x", "a", "b");
    /* Without an arbiter names are only for messages. */
    PARSED(&o, "a", "fd00::1");
    assert_string_equal(o.peer_name, "backup");
}

/* Splits words as the remote shell does. */
static int shell_split(const char *words, char **argv, int max, char *buf, size_t size)
{
    char command[8300];
    size_t n, at;
    int argc = 0;
    FILE *p;

    snprintf(command, sizeof(command), "printf '%%s\\0' %s", words);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(buf, 1, size, p);
    pclose(p);
    for (at = 0; at < n && argc < max - 1; at += strlen(buf + at) + 1)
        argv[argc++] = buf + at;
    argv[argc] = NULL;
    return argc;
}

static const struct xl_disks disks = {.n = 1, .names = {"xvda"}};

static void t_remus_words_reach_the_receiver(void **state)
{
    static const char arbiter[] = "env arbiter --opt='a b' \"$HOME\" `id`; true";
    struct remus_opts o;
    struct receive_opts r;
    char words[8192], buf[8192], *argv[64];
    int argc;

    PARSED(&o, "--limit-ms", "1500", "--on-link-loss", "backup", "--arbiter", arbiter, "-e",
           "--self-name", "hostA", "--twin=warm", "guest", "hostB");
    assert_true(xl_remus_receiver_words(&o, "guest", SESSION, &disks, words, sizeof(words)));
    argc = shell_split(words, argv, 64, buf, sizeof(buf));
    assert_string_equal(argv[0], "xl");
    assert_string_equal(argv[1], "migrate-receive");
    assert_true(xl_receive_wanted(argc - 1, argv + 1));
    assert_int_equal(xl_receive_parse(&r, argc - 1, argv + 1), XL_DONE);
    assert_int_equal(r.limit_ms, 1500);
    assert_int_equal(r.on_link_loss, LIBXL_LINK_LOSS_BACKUP);
    assert_string_equal(r.arbiter, arbiter);
    assert_string_equal(r.session, SESSION);
    assert_string_equal(r.domain, "guest");
    assert_string_equal(r.twin, "warm");
    assert_string_equal(r.self_name, "hostB");
    assert_string_equal(r.peer_name, "hostA");
    assert_true(r.no_monitor);
    assert_int_equal(r.num_disks, 1);
    assert_string_equal(r.disks[0], "xvda");
}

static void t_remus_words_stock_are_stock(void **state)
{
    struct remus_opts o;
    char words[256];

    PARSED(&o, "-F", "-e", "guest", "hostB");
    assert_true(xl_remus_receiver_words(&o, "guest", NULL, &disks, words, sizeof(words)));
    assert_string_equal(words, "xl migrate-receive -r -e");
    PARSED(&o, "-F", "-s", "", "guest", "ssh b xl migrate-receive -r");
    assert_true(xl_remus_receiver_words(&o, "guest", NULL, &disks, words, sizeof(words)));
    assert_string_equal(words, "");
}

static void t_remus_words_too_long_are_refused(void **state)
{
    struct remus_opts o;
    char words[64];

    PARSED(&o, "guest", "hostB");
    assert_false(xl_remus_receiver_words(&o, "guest", SESSION, &disks, words, sizeof(words)));
}

static void receive_refused(const char *const *words, const char *says)
{
    struct receive_opts r;
    struct xl_caught c;
    int rc;

    xl_catch(&c);
    rc = xl_receive_parse(&r, count((char **)words), (char **)words);
    xl_caught(&c);
    if (rc != XL_USAGE || xl_lines(c.text) != 1 || !strstr(c.text, says))
        fail_msg("rc %d, expected '%s': %s", rc, says, c.text);
}

#define RECEIVE_REFUSED(says, ...)                                                                 \
    receive_refused((const char *const[]){"migrate-receive", __VA_ARGS__, NULL}, says)

static void t_receive_bad_words_are_named(void **state)
{
    RECEIVE_REFUSED("replication 3 is asked for", "--remus", "--replication", "3");
    RECEIVE_REFUSED("--replication 'x'", "--replication", "x");
    RECEIVE_REFUSED("also needs --session", "--replication", "2");
    RECEIVE_REFUSED("--session 'x' is no uuid", "--replication", "2", "--session", "x");
    RECEIVE_REFUSED("--domain '../x'", "--replication", "2", "--domain", "../x");
    RECEIVE_REFUSED("too many", "--replication", "2", "x");
    RECEIVE_REFUSED("--limit-ms '1'", "--replication", "2", "--limit-ms", "1");
}

static void t_receive_stock_words_are_not_ours(void **state)
{
    const char *words[] = {"migrate-receive", "-r", "-e", NULL};

    assert_false(xl_receive_wanted(3, (char **)words));
}

static struct xl_disks taken;

static void check(libxl_domain_config *config, bool others, const char *says)
{
    const struct xl_guest_allow allow = {.disks = others};
    struct xl_caught c;
    int rc;

    xl_catch(&c);
    rc = xl_guest_check_protectable("remus", "guest", config, &allow, &taken);
    xl_caught(&c);
    if (!says) {
        assert_int_equal(rc, XL_DONE);
        assert_string_equal(c.text, "");
        return;
    }
    if (rc != XL_FAILED || xl_lines(c.text) != 1 || !strstr(c.text, says))
        fail_msg("rc %d, expected '%s': %s", rc, says, c.text);
}

static void t_guest_obstacles_are_named(void **state)
{
    libxl_device_disk disk = {
        .vdev = (char *)"xvda", .pdev_path = (char *)"/dev/vg/x", .readwrite = 1};
    libxl_device_nic nic = {.backend_domname = (char *)"netdom"};
    libxl_domain_config config = {0};

    config.c_info.type = LIBXL_DOMAIN_TYPE_PVH;
    check(&config, false, NULL);
    config.num_pcidevs = 1;
    check(&config, false, "PCI device");
    config.num_pcidevs = 0;
    config.b_info.num_vnuma_nodes = 2;
    check(&config, false, "virtual NUMA");
    config.b_info.num_vnuma_nodes = 0;
    config.num_nics = 1;
    config.nics = &nic;
    check(&config, false, "backend in domain netdom");
    nic.backend_domname = NULL;
    check(&config, false, NULL);
    config.num_disks = 1;
    config.disks = &disk;
    check(&config, false, "disk xvda (/dev/vg/x)");
    check(&config, true, NULL);
    config.c_info.type = LIBXL_DOMAIN_TYPE_PV;
    check(&config, false, "PV guest");
}

static void t_guest_disks_are_taken_or_refused_with_the_fix(void **state)
{
    libxl_device_disk disk[2] = {
        {.vdev = (char *)"xvda", .pdev_path = (char *)"remus:hostB|/dev/vg/x", .readwrite = 1},
        {.vdev = (char *)"xvdb", .pdev_path = (char *)"/dev/vg/y"}};
    libxl_domain_config config = {.num_disks = 1, .disks = disk};

    config.c_info.type = LIBXL_DOMAIN_TYPE_PVH;
    check(&config, false, "script=block-remus,vdev=xvda,target=remus:HOST|/dev/vg/x");
    disk[0].pdev_path = (char *)"tap:remus:hostB:9000|aio:/dev/vg/x";
    check(&config, false, "target=remus:HOST|/dev/vg/x");
    disk[0].script = (char *)"block-drbd";
    disk[0].pdev_path = (char *)"r0";
    check(&config, false, "script=block-remus,vdev=xvda,target=drbd:r0");
    disk[0].script = (char *)"/etc/xen/scripts/block-remus";
    check(&config, false, NULL);
    assert_int_equal(taken.n, 1);
    assert_string_equal(taken.names[0], "xvda");
    disk[0].vdev = (char *)"../x";
    check(&config, false, "no usable name");
    disk[0].vdev = (char *)"xvda";
    config.num_disks = 2;
    disk[1].readwrite = 1;
    check(&config, false, "disk xvdb");
    check(&config, true, NULL);
    assert_int_equal(taken.n, 1);
}

static void t_disk_target_port_belongs_to_its_host(void **state)
{
    assert_int_equal(xl_disk_target_port("remus:hostB:2222|/dev/vg/x", "hostB"), 2222);
    assert_int_equal(xl_disk_target_port("remus:hostB|/dev/vg/x", "hostB"), 0);
    assert_int_equal(xl_disk_target_port("remus:hostB:2222|/dev/vg/x", "host"), 0);
    assert_int_equal(xl_disk_target_port("remus:hostB:2222|/dev/vg/x", "hostA"), 0);
    assert_int_equal(xl_disk_target_port("remus:hostB:65536|/dev/vg/x", "hostB"), 0);
    assert_int_equal(xl_disk_target_port("remus:hostB:-1|/dev/vg/x", "hostB"), 0);
    assert_int_equal(xl_disk_target_port("remus:hostB:22x|/dev/vg/x", "hostB"), 0);
    assert_int_equal(xl_disk_target_port("remus:hostB:22", "hostB"), 0);
    assert_int_equal(xl_disk_target_port("tap:remus:hostB:9000|aio:/dev/vg/x", "hostB"), 0);
    assert_true(xl_disk_target_is_old("tap:remus:hostB:9000|aio:/dev/vg/x"));
    assert_true(xl_disk_target_is_old("tap2:remus:hostB:9000|aio:/dev/vg/x"));
    assert_false(xl_disk_target_is_old("remus:hostB|/dev/vg/x"));
}

static void t_disk_target_shared_wants_an_arbiter(void **state)
{
    struct xl_disks d = {.n = 1, .names = {"xvda"}};

    assert_true(xl_disk_target_is_shared("remus:hostB,shared=/dev/vg/j|/dev/vg/x"));
    assert_true(xl_disk_target_is_shared("remus:hostB:2222,shared=/j|/dev/vg/x"));
    assert_false(xl_disk_target_is_shared("remus:hostB|/dev/vg/a,shared=/x"));
    assert_false(xl_disk_target_is_shared("remus:hostB,shared=/dev/vg/x"));
    assert_false(xl_disk_target_is_shared("/dev/vg/x,shared=/j|/x"));
    assert_int_equal(xl_disk_target_port("remus:hostB:2222,shared=/j|/dev/vg/x", "hostB"), 2222);
    assert_int_equal(xl_disks_want_arbiter(&d, "remus", "guest", NULL), XL_DONE);
    d.shared = "xvda";
    assert_int_equal(xl_disks_want_arbiter(&d, "remus", "guest", "dir:/a"), XL_DONE);
    assert_int_equal(xl_disks_want_arbiter(&d, "remus", "guest", NULL), XL_FAILED);
}

static void t_receive_disks_are_taken_or_named(void **state)
{
    const char *words[] = {
        "migrate-receive", "--remus", "--replication", "2",    "--session",   SESSION,
        "--domain",        "guest",   "--self-name",   "b",    "--peer-name", "a",
        "--disk",          "xvda",    "--disk",        "sdb1", NULL};
    struct receive_opts r;

    assert_int_equal(xl_receive_parse(&r, count((char **)words), (char **)words), XL_DONE);
    assert_int_equal(r.num_disks, 2);
    assert_string_equal(r.twin, "auto");
    assert_string_equal(r.disks[1], "sdb1");
    RECEIVE_REFUSED("--twin 'tepid'", "--replication", "2", "--twin", "tepid");
    RECEIVE_REFUSED("--disk '../x'", "--replication", "2", "--disk", "../x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_remus_bad_options_are_named),
        cmocka_unit_test(t_remus_actions_want_one_domain),
        cmocka_unit_test(t_remus_defaults_are_those_of_4_17),
        cmocka_unit_test(t_remus_arbiter_needs_plain_names),
        cmocka_unit_test(t_remus_words_reach_the_receiver),
        cmocka_unit_test(t_remus_words_stock_are_stock),
        cmocka_unit_test(t_remus_words_too_long_are_refused),
        cmocka_unit_test(t_receive_bad_words_are_named),
        cmocka_unit_test(t_receive_stock_words_are_not_ours),
        cmocka_unit_test(t_guest_obstacles_are_named),
        cmocka_unit_test(t_guest_disks_are_taken_or_refused_with_the_fix),
        cmocka_unit_test(t_disk_target_port_belongs_to_its_host),
        cmocka_unit_test(t_disk_target_shared_wants_an_arbiter),
        cmocka_unit_test(t_receive_disks_are_taken_or_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
