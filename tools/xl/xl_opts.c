/* SPDX-License-Identifier: LGPL-2.1-only */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xl.h"
#include "xl_opts.h"

static void say(const char *command, const char *fmt, va_list al)
    __attribute__((format(printf, 2, 0)));

static void (*said)(void *user, const char *line);
static void *said_user;

void xl_say_to(void (*line)(void *user, const char *line), void *user)
{
    said = line;
    said_user = user;
}

static void say(const char *command, const char *fmt, va_list al)
{
    char line[1024], all[1100];

    vsnprintf(line, sizeof(line), fmt, al);
    if (said) {
        snprintf(all, sizeof(all), "xl%s%s: %s", command ? " " : "", command ? command : "", line);
        said(said_user, all);
        return;
    }
    /* One write per line: other processes share this stderr. */
    fprintf(stderr, "xl%s%s: %s\n", command ? " " : "", command ? command : "", line);
    fflush(stderr);
}

int xl_usage(const char *command, const char *fmt, ...)
{
    va_list al;

    va_start(al, fmt);
    say(command, fmt, al);
    va_end(al);
    return XL_USAGE;
}

int xl_fail(const char *command, const char *fmt, ...)
{
    va_list al;

    va_start(al, fmt);
    say(command, fmt, al);
    va_end(al);
    return XL_FAILED;
}

void xl_say(const char *command, const char *fmt, ...)
{
    va_list al;

    va_start(al, fmt);
    say(command, fmt, al);
    va_end(al);
}

void xl_getopt_start(void)
{
    opterr = 0;
    /* 0 makes glibc forget everything about an earlier command line. */
    optind = 0;
}

int xl_getopt(const char *command, int argc, char **argv, const char *shorts,
              const struct option *longs)
{
    int opt = getopt_long(argc, argv, shorts, longs, NULL);
    const char *word = optind > 0 && optind <= argc ? argv[optind - 1] : "";
    bool is_long = word[0] == '-' && word[1] == '-';
    bool is_short = optopt > 0 && optopt < XL_OPT_LONG && !is_long;

    switch (opt) {
    case '?':
        if (is_short)
            xl_usage(command, "unknown option '-%c'; see 'xl help %s'", optopt, command);
        else if (optopt)
            xl_usage(command, "option '%s' takes no value; see 'xl help %s'", word, command);
        else
            xl_usage(command, "unknown or ambiguous option '%s'; see 'xl help %s'", word, command);
        return XL_OPT_BAD;
    case ':':
        if (is_short)
            xl_usage(command, "option '-%c' needs a value; see 'xl help %s'", optopt, command);
        else
            xl_usage(command, "option '%s' needs a value; see 'xl help %s'", word, command);
        return XL_OPT_BAD;
    default:
        return opt;
    }
}

/* Digits only: strtoull would also take blanks, signs and other bases. */
static bool parse_digits(const char *text, const char **end, uint64_t *out)
{
    char *stop;

    if (!isdigit((unsigned char)text[0])) return false;
    errno = 0;
    *out = strtoull(text, &stop, 10);
    *end = stop;
    return !errno;
}

bool xl_parse_number(const char *command, const char *option, const char *text, uint64_t min,
                     uint64_t max, uint64_t *out)
{
    const char *end;

    if (parse_digits(text, &end, out) && !*end && *out >= min && *out <= max) return true;
    xl_usage(command, "%s '%s' is not a whole number from %llu to %llu", option, text,
             (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool xl_parse_bytes(const char *command, const char *option, const char *text, uint64_t min,
                    uint64_t max, uint64_t *out)
{
    const char *end;
    unsigned shift = 0;
    uint64_t n;

    if (!parse_digits(text, &end, &n)) goto bad;
    switch (toupper((unsigned char)*end)) {
    case 'G':
        shift += 10; /* fall through */
    case 'M':
        shift += 10; /* fall through */
    case 'K':
        shift += 10;
        end++;
        break;
    case '\0':
        break;
    }
    if (*end || n > (UINT64_MAX >> shift)) goto bad;
    *out = n << shift;
    if (*out >= min && *out <= max) return true;
bad:
    xl_usage(command, "%s '%s' is not a number of bytes from %llu to %llu (K, M or G may follow)",
             option, text, (unsigned long long)min, (unsigned long long)max);
    return false;
}

bool xl_name_valid(const char *text)
{
    size_t len = strlen(text);

    if (len < 1 || len > 64 || text[0] == '.' || text[0] == '-') return false;
    return strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.+-") ==
           len;
}

bool xl_parse_name(const char *command, const char *option, const char *text)
{
    if (xl_name_valid(text)) return true;
    xl_usage(
        command,
        "%s '%s' is not a name of 1 to 64 letters, digits, '_', '.', '+', '-' that begins with "
        "neither '.' nor '-'",
        option, text);
    return false;
}

bool xl_parse_twin(const char *command, const char *text)
{
    if (!strcmp(text, "auto") || !strcmp(text, "warm") || !strcmp(text, "cold")) return true;
    xl_usage(command, "--twin '%.40s' is neither 'auto' nor 'warm' nor 'cold'", text);
    return false;
}

bool xl_shell_quote(const char *text, char *out, size_t size)
{
    size_t n = 0;

    if (size < 3) return false;
    out[n++] = '\'';
    for (; *text; text++) {
        const char *piece = *text == '\'' ? "'\\''" : (char[]){*text, '\0'};
        size_t len = strlen(piece);

        if (n + len + 2 > size) return false;
        memcpy(out + n, piece, len);
        n += len;
    }
    out[n++] = '\'';
    out[n] = '\0';
    return true;
}
