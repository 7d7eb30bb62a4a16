/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Who may use a domain's dirty log: the hypervisor has one per domain and lets anybody read, empty or end it.
 *
 *   DIR/log-DOMID.lock   flocked from before the log begins until after it ended; the kernel lets go of it for who is killed
 *
 * Only ours take it. A stock helper does not know of it and takes the log away: its victim notices when the log is
 * ended (xc_sr_save_dirty.c), and not before.
 */
#ifndef XC_SR_LOCK_H
#define XC_SR_LOCK_H

#include <stdint.h>

/* The fd that holds it, or -1: EWOULDBLOCK somebody else has it, or what else failed. Makes DIR. */
int xc_sr_lock(const char *dir, uint32_t domid);
/* Removes the file. What a killed process left is no more than an empty file, and the next one's. */
void xc_sr_unlock(const char *dir, uint32_t domid, int fd);

#endif
