/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What of a guest is on this host: the guest itself, or a half-built `<name>--incoming` that nobody
 * builds any more.
 *
 * Asks the stock xl (vm-list), and removes half-built copies of our guest (same name and same uuid)
 * with its destroy. Its mem-set gives the copy that is about to run the memory that the guest had.
 */
#ifndef LIBXL_TWIN_DOMAINS_H
#define LIBXL_TWIN_DOMAINS_H

#include "libxl_ev.h"

typedef struct libxl__twin_domains libxl__twin_domains;
struct libxl__twin_domains {
    /* caller fills, all borrowed */
    libxl__loop *loop;
    const char *stock_xl, *name, *uuid;
    /* The lock of who builds a domain on this host (libxl_twin_lock.h): while it is held, a copy may be one that a migration brings,
     * and is not touched. NULL: a copy can only be ours. */
    const char *builders;
    void *user;
    /* Once per _start. rc 0: no half-built copy is left; here: a domain of that name exists. why:
     * one line when rc != 0. */
    void (*done)(libxl__egc *egc, libxl__twin_domains *td, int rc, bool here, const char *why);
    /* Once per _set_memory. */
    void (*memory_set)(libxl__egc *egc, libxl__twin_domains *td, int rc);

    /* own */
    libxl__ev_child child;
    libxl__ev_fd out_ev;
    libxl__ev_time limit;
    int out_fd;
    char *out;
    size_t out_len;
    unsigned destroyed; /* how many copies were told to go */
    bool destroying, setting_memory, busy;
};

void libxl__twin_domains_init(libxl__twin_domains *td);
/* Not while one is under way (asserted). */
int libxl__twin_domains_start(libxl__twin_domains *td);
/* The same rule: the target of the copy's memory, in KiB. */
int libxl__twin_domains_set_memory(libxl__twin_domains *td, uint64_t target_kb);
static inline bool libxl__twin_domains_busy(const libxl__twin_domains *td)
{
    return td->busy;
}
/* Not while busy (asserted). */
void libxl__twin_domains_dispose(libxl__twin_domains *td);

#endif
