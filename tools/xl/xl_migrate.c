/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl migrate: checked here, done by the stock xl with our helper, put right here when that xl dies.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "xl.h"
#include "xl_disk.h"
#include "xl_guest.h"
#include "xl_opts.h"
#include "xl_stock.h"

enum { OPT_DEBUG = XL_OPT_LONG, OPT_LIVE };

static const struct option long_options[] = {
    {"debug", no_argument, NULL, OPT_DEBUG},
    {"live", no_argument, NULL, OPT_LIVE},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static bool config_readable(const char *path)
{
    if (!access(path, R_OK)) return true;
    return !xl_usage("migrate", "-C '%s' cannot be read", path);
}

/* XL_DONE, or XL_USAGE after one line. After XL_DONE getopt has moved DOMAIN and HOST to the end of
 * argv. */
static int parse(int argc, char **argv, bool *help)
{
    int opt, given;

    xl_getopt_start();
    while ((opt = xl_getopt("migrate", argc, argv, ":FC:s:epDh", long_options)) != XL_OPT_END) {
        if (opt == XL_OPT_BAD || (opt == 'C' && !config_readable(optarg))) return XL_USAGE;
        if (opt == 'h') *help = true;
    }
    given = argc - optind;
    if (*help) return XL_DONE;
    if (given < 2)
        return xl_usage("migrate", "%s: xl migrate DOMAIN HOST",
                        given ? "no HOST given" : "no DOMAIN and HOST given");
    if (given > 2)
        return xl_usage("migrate", "'%s' is one argument too many: xl migrate DOMAIN HOST",
                        argv[optind + 2]);
    if (!*argv[optind] || !*argv[optind + 1])
        return xl_usage("migrate", "%s is empty", *argv[optind] ? "HOST" : "DOMAIN");
    return XL_DONE;
}

static int say_failure(struct xl_guest *g, const struct xl_stock_end *end, xentoollog_logger *lg)
{
    bool here = xl_guest_put_right(g, "migrate", end->code < 0, lg);

    if (end->code < 0)
        return xl_fail("migrate", "the stock xl was killed by signal %d", end->signal);
    return xl_fail("migrate", "'%s' did not move%s", g->name, here ? "; it runs on here" : "");
}

static int migrate(char **argv, xentoollog_logger *lg)
{
    struct xl_stock_end end;
    struct xl_guest g;
    int rc;

    xl_guest_init(&g);
    rc = xl_guest_open(&g, "migrate", argv[optind], lg);
    if (!rc) rc = xl_guest_refuse_protected(&g, "migrate");
    if (!rc) rc = xl_disks_refuse_migration(g.ctx, g.domid, g.name);
    if (!rc) rc = xl_stock_run(argv, &end);
    if (!rc && end.code) rc = say_failure(&g, &end, lg);
    xl_guest_dispose(&g);
    return rc;
}

int xl_main_migrate(int argc, char **argv)
{
    xentoollog_logger_stdiostream *lg;
    bool help = false;
    int rc = parse(argc, argv, &help);

    if (rc) return rc;
    if (help) {
        xl_command_help(xl_command_find("migrate"));
        return XL_DONE;
    }
    lg = xtl_createlogger_stdiostream(stderr, xl_globals.verbosity ? XTL_DEBUG : XTL_ERROR, 0);
    if (!lg) return xl_fail("migrate", "out of memory");
    rc = migrate(argv, (xentoollog_logger *)lg);
    xtl_logger_destroy((xentoollog_logger *)lg);
    return rc;
}
