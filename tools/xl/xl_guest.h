/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One guest of this host, as the commands see it: found by name or number, described, put right.
 */
#ifndef XL_GUEST_H
#define XL_GUEST_H

#include <libxl.h>

#include "xl_disk.h"

struct xl_guest {
    libxl_ctx *ctx;
    uint32_t domid;
    libxl_uuid uuid;
    char *name;
    bool was_paused; /* by an administrator, before we did anything */
};

/* Empty: dispose is fine. */
void xl_guest_init(struct xl_guest *g);
/*
 * Opens libxl with the logger and finds DOMAIN. XL_DONE, or XL_FAILED after one line that names
 * what is missing: root, Xen, the domain. lg is borrowed until _dispose.
 */
int xl_guest_open(struct xl_guest *g, const char *command, const char *domain,
                  xentoollog_logger *lg);
void xl_guest_dispose(struct xl_guest *g);

/* each() for every guest of this host that has a name. None without Xen, and silently. */
void xl_guest_each(void (*each)(void *user, const char *name, uint32_t domid), void *user);

/* XL_FAILED after one line when the guest is protected by a running xl remus on this host. */
int xl_guest_refuse_protected(const struct xl_guest *g, const char *command);
/* Whether a person has to say what becomes of the guest (libxl_guard.h). XL_FAILED after one line when that cannot be told. */
int xl_guest_undecided(const struct xl_guest *g, const char *command, xentoollog_logger *lg,
                       bool *undecided);
/* XL_FAILED after one line when it is so, paused or not, or cannot be told. */
int xl_guest_refuse_stopped(const struct xl_guest *g, const char *command);

struct xl_guest_allow {
    bool disks; /* -d: unreplicated disks are accepted */
};
/* Can this guest be protected? XL_DONE and its replicated disks, or XL_FAILED after one line that
 * names what stands in the way and what to do. */
int xl_guest_check_protectable(const char *command, const char *name,
                               const libxl_domain_config *config,
                               const struct xl_guest_allow *allow, struct xl_disks *disks);

/*
 * After an xl that was killed or failed: a guest that is suspended and was not handed over goes on
 * here, but for one that a lost link stopped; a pause that it had is left. Prints one line with what was found.
 * killed: also end log-dirty mode. What the guest does here now ("runs on", "stays paused", ...), or NULL when it is not here
 * or could not be put right.
 */
const char *xl_guest_put_right(struct xl_guest *g, const char *command, bool killed,
                               xentoollog_logger *lg);

#endif
