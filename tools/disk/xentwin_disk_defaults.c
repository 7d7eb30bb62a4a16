/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * DISK_OPTIONS of /etc/default/xentwin, for what attach starts. A shell reads the file, as block-remus
 * does, so that it means the same on both hosts.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xentwin_disk.h"

#define USUAL "/etc/default/xentwin"
#define TEXT_MAX 4096
#define WORDS_MAX 64

/* The dot tells that the file has not ended the shell. */
static const char script[] = ". \"$0\" >/dev/null; printf '%s\\n' ${DISK_OPTIONS:-} .";

/* In the child. The link is not for the file to read or write; bash is not to complain of a locale. */
static void __attribute__((noreturn)) run_shell(const char *file, int out, int err)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(127);
    setenv("LC_ALL", "C", 1);
    execl("/bin/bash", "bash", "-c", script, file, (char *)NULL);
    _exit(127);
}

static void take_text(int fd, char text[TEXT_MAX])
{
    ssize_t n = pread(fd, text, TEXT_MAX - 1, 0);

    text[n > 0 ? n : 0] = 0;
}

/* What bash says of the file is one line of `said`; other programs may say there what they like. */
static bool find_error(const char *file, char *said, char why[DISK_REPLY_MAX])
{
    size_t n = strlen(file);

    for (char *line; (line = strsep(&said, "\n"));) {
        if (strncmp(line, file, n) || strncmp(line + n, ": line ", 7)) continue;
        snprintf(why, DISK_REPLY_MAX, "%.1000s", line);
        return true;
    }
    return false;
}

static int read_words(const char *file, char text[TEXT_MAX], char why[DISK_REPLY_MAX])
{
    int out = memfd_create("words", MFD_CLOEXEC), err = memfd_create("said", MFD_CLOEXEC), r = 1;
    pid_t pid = out < 0 || err < 0 ? -1 : fork();
    char said[TEXT_MAX];

    if (pid == 0) run_shell(file, out, err);
    if (pid < 0) {
        snprintf(why, DISK_REPLY_MAX, "cannot start a process: %s", strerror(errno));
    } else {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
        take_text(out, text);
        take_text(err, said);
        size_t n = strlen(text);
        bool whole = n >= 2 && !strcmp(text + n - 2, ".\n");
        if (whole) text[n - 2] = 0;
        r = find_error(file, said, why) || !whole;
        if (r && !*why)
            snprintf(why, DISK_REPLY_MAX, "%.1000s: a shell cannot read it to its end", file);
    }
    if (out >= 0) close(out);
    if (err >= 0) close(err);
    return r;
}

/* Cuts text, a word a line, into argv; more words than it takes are no options of ours. */
static bool parse_words(struct instance *from, char *text, char bad[OPTION_WHY_MAX])
{
    char *argv[WORDS_MAX + 1] = {(char *)"DISK_OPTIONS"}, *word;
    int argc = 1;

    while ((word = strsep(&text, "\n"))) {
        if (!*word) continue;
        if (argc == WORDS_MAX) {
            snprintf(bad, OPTION_WHY_MAX, "more than %d words", WORDS_MAX - 1);
            return false;
        }
        argv[argc++] = word;
    }
    optind = 0; /* this is another line than main's */
    if (!parse_options(from, argc, argv, bad)) return false;
    if (optind < argc) snprintf(bad, OPTION_WHY_MAX, "\"%.100s\" is no option", argv[optind]);
    return optind == argc;
}

static void take(const char **option, const char *value)
{
    if (!*option) *option = value;
}

int defaults_take(struct instance *in, char why[DISK_REPLY_MAX])
{
    static char text[TEXT_MAX];
    const char *named = getenv("XENTWIN_DEFAULTS"), *file = named && *named ? named : USUAL;
    struct instance from = {.domain = NULL};
    char bad[OPTION_WHY_MAX];

    *why = 0;
    if (access(file, R_OK)) return 0;
    if (read_words(file, text, why)) return 1;
    if (!parse_words(&from, text, bad)) {
        snprintf(why, DISK_REPLY_MAX, "DISK_OPTIONS in %.1000s: %s", file, bad);
        return 1;
    }
    take(&in->queue, from.queue);
    take(&in->journal, from.journal);
    take(&in->limit_ms, from.limit_ms);
    take(&in->on_slow, from.on_slow);
    take(&in->threads, from.threads);
    if (!in->state_option && from.state_option)
        snprintf(in->state_dir, sizeof(in->state_dir), "%s", from.state_option);
    return 0;
}
