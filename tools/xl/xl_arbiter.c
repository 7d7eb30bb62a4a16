/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Whether --arbiter names something that can work, before anything is touched. It is not asked: the
 * first one who asks for a session has it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libxl_arbiter.h"
#include "xl.h"
#include "xl_opts.h"

#define BLANKS " \t"
/* A word of these is itself to the shell: no quote, assignment, pattern or piece of syntax. */
#define PLAIN "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./+-,:@%"
/* With these it is one command still. */
#define ONE_COMMAND PLAIN BLANKS "='\""
#define WITNESS "arbiter-witness"
#define WORD_MAX 1024

static void __attribute__((noreturn))
run_shell(const char *script, const char *word, const char *path, int out)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    signal(SIGPIPE, SIG_DFL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) _exit(0);
    setenv("PATH", path, 1);
    execl("/bin/sh", "sh", "-c", script, "sh", word, (char *)NULL);
    _exit(0);
}

/* The exit status of a shell with the arbiter's PATH, 0 if that cannot be told; the last line it said. */
static int shell_status(const char *script, const char *word, char *said, size_t size)
{
    int out = memfd_create("arbiter", MFD_CLOEXEC), status = 0;
    pid_t pid = -1, r = -1;
    ssize_t n = 0;
    libxl__gc gc;
    char *line;

    libxl__gc_init(&gc, NULL);
    const char *path = libxl__arbiter_path(&gc);
    if (out >= 0) pid = fork();
    if (pid == 0) run_shell(script, word, path, out);
    while (pid > 0 && (r = waitpid(pid, &status, 0)) < 0 && errno == EINTR)
        continue;
    libxl__gc_dispose(&gc);
    if (out >= 0) n = pread(out, said, size - 1, 0);
    if (out >= 0) close(out);
    while (n > 0 && said[n - 1] == '\n')
        n--;
    said[n > 0 ? n : 0] = '\0';
    line = strrchr(said, '\n');
    if (line) memmove(said, line + 1, strlen(line));
    return pid > 0 && r == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

static bool is_command(const char *word)
{
    char said[256];
    struct stat st;

    /* Some shells call a path a command that cannot be run. */
    if (strchr(word, '/')) return !stat(word, &st) && S_ISREG(st.st_mode) && !access(word, X_OK);
    return !shell_status("command -v -- \"$1\"", word, said, sizeof(said));
}

/* Ours can look at its options; one of an older xentwin does not know how. */
static bool witness_takes(const char *arbiter, char *said, size_t size)
{
    char script[2 * WORD_MAX];
    int n = snprintf(script, sizeof(script), "%s \"$1\"", arbiter);

    if (n < 0 || (size_t)n >= sizeof(script)) return true;
    return shell_status(script, "--check", said, size) != XL_USAGE || strstr(said, "\"--check\"");
}

bool xl_arbiter_usable(const char *command, const char *arbiter)
{
    const char *first = arbiter + strspn(arbiter, BLANKS);
    size_t n = strcspn(first, BLANKS);
    char word[WORD_MAX], said[256];

    if (strspn(first, PLAIN) < n || n >= sizeof(word)) return true;
    snprintf(word, sizeof(word), "%.*s", (int)n, first);
    if (!n || !is_command(word))
        return !xl_usage(command, "--arbiter: there is no command '%.40s' on this host", word);
    const char *name = strrchr(word, '/');
    if (strcmp(name ? name + 1 : word, WITNESS) || arbiter[strspn(arbiter, ONE_COMMAND)])
        return true;
    return witness_takes(arbiter, said, sizeof(said)) || !xl_usage(command, "--arbiter: %s", said);
}
