/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The other host, as xl remus reaches it: a command (ssh) with pipes on its standard input and
 * output, the banner of its xl, the xl header and the guest's configuration.
 */
#ifndef XL_REMOTE_H
#define XL_REMOTE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "xl_progress.h"

#define XL_REMOTE_BANNER_MS 60000

/* What the other host's xl answered, or why it did not. */
enum xl_remote_answer {
    XL_REMOTE_READY,
    XL_REMOTE_STOCK,       /* there is an xl, but it does not know our options */
    XL_REMOTE_REFUSED,     /* our xl is there, and says why it does not want to */
    XL_REMOTE_NO_XL,       /* there is no xl */
    XL_REMOTE_FAILED,      /* what should have started our receiver failed otherwise */
    XL_REMOTE_UNREACHABLE, /* the command could not connect */
    XL_REMOTE_SILENT,      /* nothing came in time */
    XL_REMOTE_GARBLED,     /* something else than the banner came */
    XL_REMOTE_INTERRUPTED  /* a signal asked us to end */
};

struct xl_remote {
    /* caller fills */
    struct xl_progress *progress; /* where the command's own messages go */
    const char *host;
    volatile int *interrupted; /* set by a signal handler */
    /* own */
    pid_t pid;
    int send_fd, recv_fd, err_fd;
    uint64_t prologue; /* XXH3-64 of header and configuration, once they were sent */
    pthread_t err_thread;
    bool err_running, err_stop, tty_lent;
    pthread_mutex_t err_lock;
    bool err_pass; /* messages are shown as they come; else kept in err_text */
    char err_text[4096];
    size_t err_len;
    char answer[128]; /* what came instead of the banner, or the last message of the command */
};

void xl_remote_init(struct xl_remote *r);
/*
 * Runs `SSHCMD HOST WORDS` (words: one remote command line), or, when ssh is empty, `HOST WORDS`,
 * by a local shell. The process gets a process group of its own, so that Ctrl-C reaches only us;
 * until the banner it may use the terminal (passwords). XL_DONE, or XL_FAILED after one line.
 */
int xl_remote_start(struct xl_remote *r, const char *ssh, const char *words);
/* Waits for the banner, at most limit_ms. */
enum xl_remote_answer xl_remote_banner(struct xl_remote *r, int limit_ms);
/* The xl header and the configuration (JSON). XL_DONE, or XL_FAILED after one line. */
int xl_remote_send_config(struct xl_remote *r, const char *json);
/* Closes the pipes and waits some seconds for the command, then kills it. Safe twice. */
void xl_remote_end(struct xl_remote *r);

#endif
