/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The stock xl: found, checked not to be ourselves, run in our place or as a child.
 */
#ifndef XL_STOCK_H
#define XL_STOCK_H

#include <stdbool.h>

/* Path of the stock xl: XENTWIN_STOCK_XL or what the build configured. NULL after one line when
 * there is none to run. */
const char *xl_stock_path(void);
/* Path of our libxl-save-helper. NULL after one line when it is not installed. */
const char *xl_helper_path(void);

/* Becomes the stock xl with argv as main() got it. Returns only on failure: XL_FAILED after one
 * line. */
int xl_stock_exec(char **argv);
/*
 * Becomes the stock xl with our helper: the global options we were given, then words
 * (NULL-terminated). LIBXL_SAVE_HELPER is set to ours unless the user has set it. Returns only on
 * failure: XL_FAILED after one line.
 */
int xl_stock_become(char **words);

/* How a child ended. */
struct xl_stock_end {
    int code; /* its exit status; -1: it was killed, see signal */
    int signal;
    int asked; /* the signal that we got and passed on, or 0 */
};

/*
 * The same as a child. Passes SIGINT, SIGTERM, SIGHUP, SIGQUIT on and waits for the end. If the
 * child was killed it waits, at most some seconds, for the helper processes that it left behind. 0,
 * or XL_FAILED after one line when it could not be started.
 */
int xl_stock_run(char **words, struct xl_stock_end *end);

#endif
