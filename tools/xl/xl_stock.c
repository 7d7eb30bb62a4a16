/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "xl.h"
#include "xl_opts.h"
#include "xl_stock.h"

#define HELPER_NAME "libxl-save-helper"
/* How long an orphaned helper may take to put the guest right, before SIGTERM and before SIGKILL.
 */
#define HELPER_WAIT_MS 10000
#define HELPER_POLL_MS 50

static bool same_file(const char *a, const char *b)
{
    struct stat sa, sb;

    return !stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

const char *xl_stock_path(void)
{
    const char *path = getenv("XENTWIN_STOCK_XL");

    if (!path || !*path) path = XENTWIN_STOCK_XL;
    if (access(path, X_OK)) {
        xl_fail(NULL, "no stock xl at %s (%s): install xen-utils, or name it with XENTWIN_STOCK_XL",
                path, strerror(errno));
        return NULL;
    }
    if (same_file(path, "/proc/self/exe")) {
        xl_fail(NULL,
                "%s is this program, not the stock xl: name the stock one with XENTWIN_STOCK_XL",
                path);
        return NULL;
    }
    return path;
}

const char *xl_helper_path(void)
{
    const char *user = getenv("LIBXL_SAVE_HELPER");
    const char *path = user && *user ? user : XENTWIN_LIBEXECDIR "/" HELPER_NAME;

    if (!access(path, X_OK)) return path;
    if (path == user)
        xl_fail(NULL, "LIBXL_SAVE_HELPER names %s, which cannot be run: %s", path, strerror(errno));
    else
        xl_fail(NULL, "%s is missing (%s): xentwin is not fully installed", path, strerror(errno));
    return NULL;
}

static bool set_helper(void)
{
    const char *helper = xl_helper_path();

    if (!helper) return false;
    if (!setenv("LIBXL_SAVE_HELPER", helper, 1)) return true;
    xl_fail(NULL, "cannot set LIBXL_SAVE_HELPER: %s", strerror(errno));
    return false;
}

int xl_stock_exec(char **argv)
{
    const char *path = xl_stock_path();

    if (!path) return XL_FAILED;
    argv[0] = (char *)path;
    execv(path, argv);
    return xl_fail(NULL, "cannot run %s: %s", path, strerror(errno));
}

static char **stock_argv(const char *path, char **words)
{
    size_t n = 0, i;
    char **argv;

    while (words[n])
        n++;
    argv = calloc(n + 6 + (size_t)xl_globals.verbosity, sizeof(*argv));
    if (!argv) return NULL;
    n = 0;
    argv[n++] = (char *)path;
    for (i = 0; i < (size_t)xl_globals.verbosity; i++)
        argv[n++] = (char *)"-v";
    if (xl_globals.force) argv[n++] = (char *)"-f";
    if (xl_globals.dryrun) argv[n++] = (char *)"-N";
    if (xl_globals.progress_cr) argv[n++] = (char *)"-t";
    if (xl_globals.timestamps) argv[n++] = (char *)"-T";
    for (i = 0; words[i]; i++)
        argv[n++] = words[i];
    return argv;
}

int xl_stock_become(char **words)
{
    const char *path = xl_stock_path();
    char **argv;

    if (!path || !set_helper()) return XL_FAILED;
    argv = stock_argv(path, words);
    if (!argv) return xl_fail(NULL, "out of memory");
    execv(path, argv);
    free(argv);
    return xl_fail(NULL, "cannot run %s: %s", path, strerror(errno));
}

/* The pid that the handlers pass signals on to; -1: none. */
static volatile sig_atomic_t forward_to = -1;
static volatile sig_atomic_t forwarded;

static void forward_signal(int sig, siginfo_t *info, void *unused)
{
    forwarded = sig;
    /* What the terminal sends has reached the child already. */
    if (forward_to > 0 && info->si_code != SI_KERNEL) kill((pid_t)forward_to, sig);
}

static const int forwarded_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
#define NR_SIGNALS (sizeof(forwarded_signals) / sizeof(forwarded_signals[0]))

static void forward_start(struct sigaction *old)
{
    struct sigaction sa = {.sa_sigaction = forward_signal, .sa_flags = SA_SIGINFO};
    size_t i;

    sigemptyset(&sa.sa_mask);
    forwarded = 0;
    for (i = 0; i < NR_SIGNALS; i++) {
        sigaction(forwarded_signals[i], NULL, &old[i]);
        /* nohup and the like: what is ignored stays ignored. */
        if (old[i].sa_handler != SIG_IGN) sigaction(forwarded_signals[i], &sa, NULL);
    }
}

static void forward_end(const struct sigaction *old)
{
    size_t i;

    for (i = 0; i < NR_SIGNALS; i++)
        sigaction(forwarded_signals[i], &old[i], NULL);
}

static void sleep_ms(int ms)
{
    struct timespec ts = {ms / 1000, (ms % 1000) * 1000000L};

    nanosleep(&ts, NULL);
}

static bool is_helper(pid_t pid)
{
    char path[64], name[32] = "";
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    f = fopen(path, "re");
    if (!f) return false;
    if (!fgets(name, sizeof(name), f)) name[0] = '\0';
    fclose(f);
    name[strcspn(name, "\n")] = '\0';
    /* comm holds 15 characters. */
    return *name && !strncmp(name, HELPER_NAME, strlen(name)) && strlen(name) >= 10;
}

/* A living helper among our own children (we are its subreaper); 0 when there is none. */
static pid_t find_helper(void)
{
    char path[64];
    FILE *f;
    int pid, found = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    f = fopen(path, "re");
    if (!f) return 0;
    while (!found && fscanf(f, "%d", &pid) == 1) {
        if (is_helper(pid) && waitpid(pid, NULL, WNOHANG) == 0) found = pid;
    }
    fclose(f);
    return found;
}

/* A killed xl leaves its helper to us; it must have let go of the guest before anybody else touches
 * it. */
static void await_helper(void)
{
    static const int escalation[] = {0, SIGTERM, SIGKILL};
    size_t step;
    int waited;
    pid_t pid;

    for (step = 0; step < sizeof(escalation) / sizeof(escalation[0]); step++) {
        for (waited = 0; waited < HELPER_WAIT_MS; waited += HELPER_POLL_MS) {
            pid = find_helper();
            if (!pid) return;
            if (!waited && escalation[step]) kill(pid, escalation[step]);
            sleep_ms(HELPER_POLL_MS);
        }
    }
    xl_say(NULL, "process %d (%s) does not end", (int)find_helper(), HELPER_NAME);
}

int xl_stock_run(char **words, struct xl_stock_end *end)
{
    struct sigaction old[NR_SIGNALS];
    const char *path = xl_stock_path();
    char **argv = NULL;
    int status = 0, rc;
    sigset_t block, before;
    pid_t pid;

    if (!path || !set_helper()) return XL_FAILED;
    argv = stock_argv(path, words);
    if (!argv) return xl_fail(NULL, "out of memory");

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    /* A signal between fork and the handlers would be lost to the child. */
    sigfillset(&block);
    sigprocmask(SIG_BLOCK, &block, &before);
    forward_start(old);
    pid = fork();
    if (pid == 0) {
        forward_end(old);
        sigprocmask(SIG_SETMASK, &before, NULL);
        execv(path, argv);
        xl_fail(NULL, "cannot run %s: %s", path, strerror(errno));
        _exit(127);
    }
    forward_to = pid;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (pid < 0) {
        rc = xl_fail(NULL, "cannot start %s: %s", path, strerror(errno));
        goto out;
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    forward_to = -1;
    end->code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    end->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    end->asked = forwarded;
    if (end->code < 0) await_helper();
    rc = 0;
out:
    forward_end(old);
    free(argv);
    return rc;
}
