/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl save and xl restore: checked here, done by the stock xl with our helper.
 *
 * A save that fails leaves the guest as it was and no partial file.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "xl.h"
#include "xl_guest.h"
#include "xl_opts.h"
#include "xl_stock.h"

#define FILE_MAGIC "Xen saved domain, xl format\n \0 \r"
#define FILE_MAGIC_LEN 32

static const struct option save_options[] = {
    {"help", no_argument, NULL, 'h'},
    {0},
};

static const struct option restore_options[] = {
    {"vncviewer", no_argument, NULL, 'V'},
    {"vncviewer-autopass", no_argument, NULL, 'A'},
    {"help", no_argument, NULL, 'h'},
    {0},
};

enum { GIVEN_BAD = -1, GIVEN_HELP = -2 };

/* Number of positional arguments, from optind on; GIVEN_BAD after one line, GIVEN_HELP after the
 * help. */
static int positional(const char *command, int argc, char **argv, const char *shorts,
                      const struct option *longs)
{
    bool help = false;
    int opt;

    xl_getopt_start();
    while ((opt = xl_getopt(command, argc, argv, shorts, longs)) != XL_OPT_END) {
        if (opt == XL_OPT_BAD) return GIVEN_BAD;
        if (opt == 'h') help = true;
    }
    if (help) {
        xl_command_help(xl_command_find(command));
        return GIVEN_HELP;
    }
    return argc - optind;
}

/* How the target file was before the save. */
struct target {
    const char *path;
    bool existed;
    struct stat before;
};

static int check_target(struct target *t)
{
    char copy[4096];

    t->existed = !stat(t->path, &t->before);
    if (t->existed && S_ISDIR(t->before.st_mode))
        return xl_usage("save", "'%s' is a directory: name a file in it", t->path);
    if (t->existed && access(t->path, W_OK))
        return xl_fail("save", "'%s' cannot be written: %s", t->path, strerror(errno));
    if (t->existed) return XL_DONE;
    if (snprintf(copy, sizeof(copy), "%s", t->path) >= (int)sizeof(copy))
        return xl_usage("save", "the name of FILE is too long");
    if (access(dirname(copy), W_OK))
        return xl_fail("save", "'%s' cannot be made: %s", t->path, strerror(errno));
    return XL_DONE;
}

/* Removes what a failed save wrote; a file that it has not touched stays. */
static bool remove_partial(const struct target *t)
{
    struct stat now;

    if (lstat(t->path, &now) || !S_ISREG(now.st_mode)) return false;
    if (t->existed && now.st_ino == t->before.st_ino && now.st_size == t->before.st_size &&
        now.st_mtim.tv_sec == t->before.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == t->before.st_mtim.tv_nsec)
        return false;
    return !unlink(t->path);
}

static int say_failure(struct xl_guest *g, const struct target *t, const struct xl_stock_end *end,
                       xentoollog_logger *lg)
{
    const char *does = xl_guest_put_right(g, "save", end->code < 0, lg);
    bool removed = does && remove_partial(t);

    /* A guest that is gone lives on in the file only. */
    if (!does)
        return xl_fail("save", "the save of '%s' ended badly; '%s' is kept", g->name, t->path);
    return xl_fail("save", "'%s' was not saved and %s%s", g->name, does,
                   removed ? "; the partial file is removed" : "");
}

static int save(char **argv, xentoollog_logger *lg)
{
    struct target t = {.path = argv[optind + 1]};
    struct xl_stock_end end;
    struct xl_guest g;
    int rc = check_target(&t);

    if (rc) return rc;
    xl_guest_init(&g);
    rc = xl_guest_open(&g, "save", argv[optind], lg);
    if (!rc) rc = xl_guest_refuse_protected(&g, "save");
    if (!rc) rc = xl_guest_refuse_stopped(&g, "save");
    if (!rc) rc = xl_stock_run(argv, &end);
    if (!rc && end.code) rc = say_failure(&g, &t, &end, lg);
    xl_guest_dispose(&g);
    return rc;
}

int xl_main_save(int argc, char **argv)
{
    int given = positional("save", argc, argv, ":cpDh", save_options);
    xentoollog_logger_stdiostream *lg;
    int rc;

    if (given < 0) return given == GIVEN_HELP ? XL_DONE : XL_USAGE;
    if (given < 2)
        return xl_usage("save", "%s: xl save DOMAIN FILE",
                        given ? "no FILE given" : "no DOMAIN and FILE given");
    if (given > 3)
        return xl_usage("save", "'%s' is one argument too many: xl save DOMAIN FILE [CONFIG]",
                        argv[optind + 3]);
    if (given == 3 && access(argv[optind + 2], R_OK))
        return xl_usage("save", "CONFIG '%s' cannot be read: %s", argv[optind + 2],
                        strerror(errno));
    lg = xtl_createlogger_stdiostream(stderr, xl_globals.verbosity ? XTL_DEBUG : XTL_ERROR, 0);
    if (!lg) return xl_fail("save", "out of memory");
    rc = save(argv, (xentoollog_logger *)lg);
    xtl_logger_destroy((xentoollog_logger *)lg);
    return rc;
}

static int check_saved_file(const char *path)
{
    char magic[FILE_MAGIC_LEN];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) return xl_fail("restore", "'%s' cannot be read: %s", path, strerror(errno));
    n = read(fd, magic, sizeof(magic));
    close(fd);
    /* A pipe gives its bytes only once: the stock xl will look for itself. */
    if (n == FILE_MAGIC_LEN && memcmp(magic, FILE_MAGIC, FILE_MAGIC_LEN))
        return xl_fail("restore", "'%s' is no saved domain (made by 'xl save')", path);
    if (n >= 0 && n < FILE_MAGIC_LEN)
        return xl_fail("restore", "'%s' is too short for a saved domain", path);
    return XL_DONE;
}

int xl_main_restore(int argc, char **argv)
{
    int given = positional("restore", argc, argv, ":FcpdeVAh", restore_options);
    const char *file;
    struct stat st;

    if (given < 0) return given == GIVEN_HELP ? XL_DONE : XL_USAGE;
    if (given < 1) return xl_usage("restore", "no FILE given: xl restore [CONFIG] FILE");
    if (given > 2)
        return xl_usage("restore", "'%s' is one argument too many: xl restore [CONFIG] FILE",
                        argv[optind + 2]);
    if (given == 2 && access(argv[optind], R_OK))
        return xl_usage("restore", "CONFIG '%s' cannot be read: %s", argv[optind], strerror(errno));
    file = argv[optind + given - 1];
    if (stat(file, &st))
        return xl_fail("restore", "'%s' cannot be read: %s", file, strerror(errno));
    if (S_ISREG(st.st_mode) && check_saved_file(file)) return XL_FAILED;
    return xl_stock_become(argv);
}
