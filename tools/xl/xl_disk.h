/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guest's disks as xl remus sees them: which are replicated, and whether the others may stay as they are.
 */
#ifndef XL_DISK_H
#define XL_DISK_H

#include <stdbool.h>
#include <sys/types.h>

#include <libxl.h>

#include "libxl_disk_set.h"

/* remus:HOST:PORT| and its end */
#define DISK_PEER_MAX 272

struct xl_disks {
    unsigned n; /* replicated ones */
    char vdev[DISK_MAX][DISK_VDEV_MAX + 1];
    const char *names[DISK_MAX];          /* the same, for the library */
    char target[DISK_MAX][DISK_PEER_MAX]; /* as configured, as far as its path */
    const char *shared; /* the first of them that is storage which both hosts see; NULL: none */
};

/* Is the target written as for blktap2? */
bool xl_disk_target_is_old(const char *target);
/* The port of host's sshd that the target names; 0: none, or it names another host. */
unsigned xl_disk_target_port(const char *target, const char *host);

/* Is it storage that both hosts see: remus:HOST,shared=JOURNAL|PATH? */
bool xl_disk_target_is_shared(const char *target);

/* Does the block script block-remus look after it? */
bool xl_disk_is_replicated(const libxl_device_disk *disk);
/*
 * Takes the replicated disks of the configuration. XL_DONE, or XL_FAILED after one line when a writable disk is not replicated
 * (unless allow_others) or cannot be; read-only disks and CD-ROMs are only counted in *read_only.
 */
int xl_disks_take(struct xl_disks *d, const char *command, const char *name,
                  const libxl_domain_config *config, bool allow_others, unsigned *read_only);
/* XL_FAILED after one line when a disk is shared and no arbiter is named: only one host may write to it. */
int xl_disks_want_arbiter(const struct xl_disks *d, const char *command, const char *name,
                          const char *arbiter);
/* XL_FAILED after one line when the guest has a replicated disk, which a migration would leave behind. */
int xl_disks_refuse_migration(libxl_ctx *ctx, uint32_t domid, const char *name);

/* The value of a key in an instance's status, "key=value key=value"; false: none that fits. */
bool xl_disk_status_value(const char *status, const char *key, char *out, size_t size);
/* One line for each instance of this host, or of one domain. How many there are. */
unsigned xl_disk_print_status(libxl__gc *gc, const char *domain);

/* ---- the links to the backup's instances: one command (ssh) per disk ---- */

struct xl_disk_links {
    /* caller fills, borrowed */
    const char *ssh, *host, *domain;
    const struct xl_disks *disks;
    /* own */
    pid_t pid[DISK_MAX];
    int err_fd[DISK_MAX]; /* what the command wrote to its standard error */
};

void xl_disk_links_init(struct xl_disk_links *l);
/* Starts the command of disk i; returns the stream that leads through it, or -1 after one line. */
int xl_disk_link_start(struct xl_disk_links *l, unsigned i);
/* Ends the commands; say: and shows the last words of each. Safe twice. */
void xl_disk_links_end(struct xl_disk_links *l, bool say);

#endif
