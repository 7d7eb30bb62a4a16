/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl migrate: checked here, done by the stock xl with our helper, put right here when that xl dies.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xl.h"
#include "xl_disk.h"
#include "xl_guest.h"
#include "xl_opts.h"
#include "xl_stock.h"

enum {
    OPT_DEBUG = XL_OPT_LONG,
    OPT_LIVE,
    OPT_MAX_ROUNDS,
    OPT_MAX_DOWNTIME_MS,
    OPT_RATE,
};

static const struct option long_options[] = {
    {"debug", no_argument, NULL, OPT_DEBUG},
    {"live", no_argument, NULL, OPT_LIVE},
    {"max-rounds", required_argument, NULL, OPT_MAX_ROUNDS},
    {"max-downtime-ms", required_argument, NULL, OPT_MAX_DOWNTIME_MS},
    {"rate", required_argument, NULL, OPT_RATE},
    {"help", no_argument, NULL, 'h'},
    {0},
};

static bool config_readable(const char *path)
{
    if (!access(path, R_OK)) return true;
    return !xl_usage("migrate", "-C '%s' cannot be read", path);
}

/* The words for the stock xl: what it does not know is left out. */
struct words {
    char **list; /* as many as argv has, and NULL */
    int count;
    bool help;
};

static void add_option(struct words *w, const char *option, char *value)
{
    w->list[w->count++] = (char *)(uintptr_t)option;
    if (value) w->list[w->count++] = value;
}

/* A limit travels to our helper in its environment, which the stock xl hands on. */
static bool take_limit(const char *option, const char *value, uint64_t min, uint64_t max,
                       const char *variable)
{
    uint64_t n;

    if (!xl_parse_number("migrate", option, value, min, max, &n)) return false;
    if (!setenv(variable, value, 1)) return true;
    xl_fail("migrate", "out of memory");
    return false;
}

static bool take_option(struct words *w, int opt, char *value)
{
    static char short_option[128][3];

    switch (opt) {
    case OPT_MAX_ROUNDS:
        return take_limit("--max-rounds", value, 0, 1000, "XENTWIN_MAX_ROUNDS");
    case OPT_MAX_DOWNTIME_MS:
        return take_limit("--max-downtime-ms", value, 1, 600000, "XENTWIN_MAX_DOWNTIME_MS");
    case OPT_RATE:
        return take_limit("--rate", value, 1, 1000000, "XENTWIN_RATE_MB");
    case OPT_DEBUG:
    case OPT_LIVE:
        add_option(w, opt == OPT_DEBUG ? "--debug" : "--live", NULL);
        return true;
    case 'h':
        w->help = true;
        return true;
    case 'C':
        if (!config_readable(value)) return false;
        break;
    case XL_OPT_BAD:
        return false;
    default:
        break;
    }
    snprintf(short_option[opt & 127], sizeof(short_option[0]), "-%c", opt);
    add_option(w, short_option[opt & 127], value);
    return true;
}

static int check_names(int argc, char **argv)
{
    int given = argc - optind;

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

/* XL_DONE, or XL_USAGE after one line. After XL_DONE DOMAIN and HOST stand at argv[optind]. */
static int parse(int argc, char **argv, struct words *w)
{
    int opt, rc;

    add_option(w, argv[0], NULL);
    xl_getopt_start();
    while ((opt = xl_getopt("migrate", argc, argv, ":FC:s:epDh", long_options)) != XL_OPT_END)
        if (!take_option(w, opt, optarg)) return XL_USAGE;
    if (w->help) return XL_DONE;
    rc = check_names(argc, argv);
    if (rc) return rc;
    add_option(w, "--", NULL);
    add_option(w, argv[optind], argv[optind + 1]);
    return XL_DONE;
}

static int say_failure(struct xl_guest *g, const struct xl_stock_end *end, xentoollog_logger *lg)
{
    const char *does = xl_guest_put_right(g, "migrate", end->code < 0, lg);

    if (end->code < 0)
        return xl_fail("migrate", "the stock xl was killed by signal %d", end->signal);
    if (!does) return xl_fail("migrate", "'%s' did not move", g->name);
    return xl_fail("migrate", "'%s' did not move; it %s here", g->name, does);
}

static int migrate(struct words *w, const char *domain, xentoollog_logger *lg)
{
    struct xl_stock_end end;
    struct xl_guest g;
    int rc;

    xl_guest_init(&g);
    rc = xl_guest_open(&g, "migrate", domain, lg);
    if (!rc) rc = xl_guest_refuse_protected(&g, "migrate");
    if (!rc) rc = xl_guest_refuse_stopped(&g, "migrate");
    if (!rc) rc = xl_disks_refuse_migration(g.ctx, g.domid, g.name);
    if (!rc) rc = xl_stock_run(w->list, &end);
    if (!rc && end.code) rc = say_failure(&g, &end, lg);
    xl_guest_dispose(&g);
    return rc;
}

static int run(struct words *w, const char *domain)
{
    xentoollog_logger_stdiostream *lg =
        xtl_createlogger_stdiostream(stderr, xl_globals.verbosity ? XTL_DEBUG : XTL_ERROR, 0);
    int rc;

    if (!lg) return xl_fail("migrate", "out of memory");
    rc = migrate(w, domain, (xentoollog_logger *)lg);
    xtl_logger_destroy((xentoollog_logger *)lg);
    return rc;
}

int xl_main_migrate(int argc, char **argv)
{
    struct words w = {.list = calloc(2 * (size_t)argc + 4, sizeof(char *))};
    int rc;

    if (!w.list) return xl_fail("migrate", "out of memory");
    rc = parse(argc, argv, &w);
    if (!rc && w.help)
        xl_command_help(xl_command_find("migrate"));
    else if (!rc)
        rc = run(&w, argv[optind]);
    free(w.list);
    return rc;
}
