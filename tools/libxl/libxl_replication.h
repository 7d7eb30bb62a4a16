/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * libxl_replication.h: what xentwin adds to libxl's API (Xen 4.17).
 *
 * Link with -lxentwin before -lxenlight. The library also defines libxl_domain_remus_start with the 4.17 prototype:
 *   - info->allow_unsafe true: as in 4.17, no acknowledgement is expected, send_fd carries the bare stream;
 *   - otherwise send_fd/recv_fd must lead to `xl migrate-receive --remus --replication 2` (see
 *     libxl_replication_receiver_args), after its banner was read and the xl header and configuration were written.
 */
#ifndef LIBXL_REPLICATION_H
#define LIBXL_REPLICATION_H

#include <libxl.h>
#include <xentoollog.h>

#define LIBXL_HAVE_REPLICATION 1

#define LIBXL_REPLICATION_LIMIT_MS_DEFAULT 3000
#define LIBXL_REPLICATION_NETBUF_BYTES_DEFAULT (32u << 20)

typedef enum libxl_link_loss {
    LIBXL_LINK_LOSS_PRIMARY = 0, /* the primary goes on, the backup stays down */
    LIBXL_LINK_LOSS_BACKUP = 1,  /* the backup goes on, the primary stops */
} libxl_link_loss;

/* One checkpoint, as the stats callback gets it. Times in microseconds. */
typedef struct libxl_checkpoint_stats {
    uint64_t epoch; /* the acknowledged checkpoint's number, from 1 */
    uint64_t
        pause_us; /* from the request to suspend taking effect to resumed, as the host sees it */
    uint64_t suspend_us; /* part of pause before the guest was stopped: asking it */
    uint64_t
        hold_us; /* from suspend to release: the longest wait of a packet of the next epoch's start */
    uint64_t ack_us;       /* from the commit being queued to its acknowledgement */
    uint64_t bytes;        /* stream bytes of this checkpoint */
    uint64_t pages;        /* 4 KiB pages that were dirty, encoded or not */
    uint64_t device_bytes; /* device model state */
    uint64_t unacked;      /* checkpoints sent and not acknowledged, 0 or 1 */
    uint64_t held_packets; /* in the net buffer after the release */
    uint64_t held_bytes;
    uint64_t dropped_packets; /* since start: the net buffer was full */
    uint64_t released_us;     /* when its output was let go: CLOCK_REALTIME, us since 1970 */
} libxl_checkpoint_stats;

typedef struct libxl_replication_info {
    libxl_domain_remus_info remus; /* interval, netbuf, ... as in libxl; compression is ignored */
    bool acknowledged;             /* the peer is ours and speaks the replication channel */
    /* XXH3-64 of what was written to send_fd before: xl header and configuration. 0: not known, nobody compares. */
    uint64_t prologue;
    int limit_ms; /* silence that means the peer is gone; 0: default */
    libxl_link_loss on_link_loss;
    const char *arbiter;     /* command, or NULL */
    const char *domain_name; /* for arbiter, control socket and messages */
    const char *self_name, *peer_name;
    const char *session;   /* a uuid, the same on both sides */
    uint64_t netbuf_bytes; /* limit of held output; 0: default */
    /* How pages are encoded: "auto", "none", "delta", "lz4"; NULL: auto. Only when acknowledged. */
    const char *compress;
    uint64_t compress_cache_mib; /* for copies of what the backup has; 0: 1/4 of the free memory */
    uint64_t max_checkpoints;    /* end gracefully after that many; 0: none */
    /*
     * Replicated disks: the virtual devices' names, in any order, and a function that makes the link of disk i: a connected
     * stream (the library takes it over) that leads to `xentwin-disk attach` at the backup, or -1 when there is none. It is
     * called on the operation's thread, once per disk, and must not wait for the other host. Disks that are not named are not
     * replicated. Disks need `acknowledged`.
     */
    const char *const *disks;
    unsigned num_disks;
    int (*disk_link)(void *user, unsigned i);
    /*
     * What libxl_replication_devices said before the configuration was read that the twin is made of: if it is not so any more, the
     * protection does not start. NULL: the caller sees to it that nothing was attached meanwhile.
     */
    const char *devices;
    /* After every acknowledged checkpoint, on the operation's thread. May be NULL. */
    void (*checkpoint_done)(void *user, const libxl_checkpoint_stats *stats);
    /* Something that a person should read (one line, no newline): protected, link lost, ... May be NULL. */
    void (*message)(void *user, const char *line);
    /* During the first copy: pages done of total, a few times a second. May be NULL. */
    void (*copying)(void *user, uint64_t done, uint64_t total);
    /*
     * Once, when the guest is suspended for the first time: the stock xl that looked after its end
     * (poweroff, reboot) takes that for a migration and leaves. May be NULL.
     */
    void (*unwatched)(void *user);
    void *user;
    xentoollog_logger *lg; /* borrowed; NULL: warnings and errors to stderr */
} libxl_replication_info;

/* Why a protection ended; the rc of the operation is one of these besides the usual ERROR_*. */
/*   0                        ended on purpose (stop, abort, max_checkpoints): guest runs here, no twin   */
/*   ERROR_DOMAIN_DESTROYED   the guest ended by itself (poweroff, reboot, destroy): no twin was started      */
/*   ERROR_NOT_READY          the link was lost or the backup failed: guest runs here, unprotected             */
/*   ERROR_LOCK_FAIL          the link was lost and this side may not run: guest is paused, output held        */
/*   ERROR_FAIL and others    could not start or go on: guest runs here unprotected                            */

void libxl_replication_info_init(libxl_replication_info *info);
void libxl_replication_info_dispose(libxl_replication_info *info);

/*
 * The guest's devices, for libxl_replication_info.devices; malloced, the caller frees it. Some reads of xenstore, no wait; the guest
 * goes on. NULL: xenstore cannot be read.
 */
char *libxl_replication_devices(libxl_ctx *ctx, uint32_t domid);

/*
 * Protects domid through an established connection. info and its strings are copied; send_fd and recv_fd must stay open until
 * completion and are the caller's; SIGPIPE is set to be ignored in the process.
 * Blocks until the end with ao_how NULL. The guest runs on this host when it completes, except after ERROR_LOCK_FAIL.
 */
int libxl_replication_start(libxl_ctx *ctx, const libxl_replication_info *info, uint32_t domid,
                            int send_fd, int recv_fd, const libxl_asyncop_how *ao_how);

/*
 * Asks the protection of a domain, in whatever process of this host it runs, to end: the twin is dropped, the guest goes on
 * here. Waits at most limit_ms for the end. ERROR_NOTFOUND: no protection is running.
 */
int libxl_replication_stop(libxl_ctx *ctx, const char *domain_name, int limit_ms);

/* From a signal handler too: ends the protection of domid in this process gracefully. ERROR_NOTFOUND if none. */
int libxl_replication_abort(uint32_t domid);

#endif
