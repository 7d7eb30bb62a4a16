/* SPDX-License-Identifier: LGPL-2.1-only */
#include <string.h>
#include <unistd.h>

#include "xl.h"
#include "xl_opts.h"
#include "xl_stock.h"

/* Takes the options before the subcommand. False: something only the stock xl can know. */
static bool take_globals(int argc, char **argv)
{
    int opt;

    xl_getopt_start();
    while ((opt = getopt(argc, argv, "+vftTN")) != -1) {
        switch (opt) {
        case 'v':
            xl_globals.verbosity++;
            break;
        case 'f':
            xl_globals.force = true;
            break;
        case 't':
            xl_globals.progress_cr = true;
            break;
        case 'T':
            xl_globals.timestamps = true;
            break;
        case 'N':
            xl_globals.dryrun = true;
            break;
        default:
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    const struct xl_command *command;
    const char *word;

    if (!take_globals(argc, argv)) return xl_stock_exec(argv);
    word = argv[optind];
    if (!word) return xl_help(argv, NULL);
    if (!strcmp(word, "help")) return xl_help(argv, argv[optind + 1]);
    command = xl_command_find(word);
    if (!command) return xl_stock_exec(argv);
    /* As the stock xl says of the same commands. */
    if (xl_globals.dryrun) return xl_fail(word, "there is no dry run (-N) of this command");
    return command->run(argc - optind, argv + optind);
}
