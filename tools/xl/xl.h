/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xl: our subcommands in front of the stock xl.
 *
 * A word that is in the command table runs here; any other word execs the stock xl with the same
 * arguments. Exit codes: 0 done, 1 failed, 2 the command line was wrong and nothing was touched.
 */
#ifndef XL_H
#define XL_H

#include <stdbool.h>
#include <stddef.h>

enum { XL_DONE = 0, XL_FAILED = 1, XL_USAGE = 2 };

/* The options before the subcommand, as the stock xl has them. */
struct xl_globals {
    int verbosity;    /* -v, may repeat */
    bool force;       /* -f */
    bool dryrun;      /* -N */
    bool progress_cr; /* -t */
    bool timestamps;  /* -T */
};

extern struct xl_globals xl_globals;

/* One subcommand of ours; argv[0] is its name. */
struct xl_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary; /* NULL: not listed by `xl help` */
    const char *help;    /* the text of `xl help NAME`, without the name */
};

/* NULL when the word is not ours. */
const struct xl_command *xl_command_find(const char *name);
void xl_command_help(const struct xl_command *command);
/* `xl help`, `xl help WORD`, and `xl` alone: the stock text and our lines. argv as main() got it.
 */
int xl_help(char **argv, const char *word);

int xl_main_remus(int argc, char **argv);
int xl_main_migrate(int argc, char **argv);
int xl_main_migrate_receive(int argc, char **argv);
int xl_main_save(int argc, char **argv);
int xl_main_restore(int argc, char **argv);

#endif
