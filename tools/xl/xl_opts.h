/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Command lines: one clear line for whatever is wrong.
 */
#ifndef XL_OPTS_H
#define XL_OPTS_H

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { XL_OPT_END = -1, XL_OPT_BAD = -2 };
/* Values of options that have a long name only start here. */
enum { XL_OPT_LONG = 256 };

/* "xl COMMAND: ..." on stderr; they return XL_USAGE and XL_FAILED, for the caller to return. */
int xl_usage(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int xl_fail(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The same line, nothing to return. */
void xl_say(const char *command, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* From now on these lines go there and not to stderr; NULL: as before. Not while other threads may say something. */
void xl_say_to(void (*line)(void *user, const char *line), void *user);

/* Before the first xl_getopt of a command line. */
void xl_getopt_start(void);
/*
 * The next option's value, XL_OPT_END (optind is then at the first positional argument), or
 * XL_OPT_BAD after the line was printed. shorts begins with ':' as getopt wants it. -h and --help
 * are the command's own.
 */
int xl_getopt(const char *command, int argc, char **argv, const char *shorts,
              const struct option *longs);

/* These print the line naming option, value and what is allowed, and return false, on a bad value.
 */
bool xl_parse_number(const char *command, const char *option, const char *text, uint64_t min,
                     uint64_t max, uint64_t *out);
/* A number of bytes with an optional K, M or G (powers of 1024). */
bool xl_parse_bytes(const char *command, const char *option, const char *text, uint64_t min,
                    uint64_t max, uint64_t *out);
/* 1 to 64 of A-Z a-z 0-9 _ . + -, not beginning with . or -: what names a guest or host in files
 * and arbiters. */
bool xl_name_valid(const char *text);
bool xl_parse_name(const char *command, const char *option, const char *text);
bool xl_parse_twin(const char *command, const char *text); /* of --twin */

/* ---- xl_arbiter.c ---- */

/* False after one line: what --arbiter says does not begin with a command of this host, or is our
 * arbiter-witness with options that it does not take. What only a shell understands is left to it. */
bool xl_arbiter_usable(const char *command, const char *arbiter);

/* ---- xl_opts.c ---- */

/* Copies text into out quoted for a POSIX shell; false when it does not fit. */
bool xl_shell_quote(const char *text, char *out, size_t size);

#endif
