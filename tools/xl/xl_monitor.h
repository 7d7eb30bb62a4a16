/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Who looks after a guest's end. The stock xl that created it leaves when the guest is first
 * suspended, so after a protection nobody would destroy it on poweroff or start it again on reboot.
 */
#ifndef XL_MONITOR_H
#define XL_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

/* The stock xl has just left: remembered in xenstore, so that it is known after a crash of ours too. */
void xl_monitor_unattended(uint32_t domid);

/*
 * If the guest is unattended, starts a process that waits for the end of domid and does what the
 * guest's configuration says (on_poweroff, on_reboot, on_crash, on_watchdog), as the stock xl does.
 * It logs to /var/log/xen/xentwin-monitor-NAME.log and leaves when the guest is gone, kept or
 * suspended again. False, after a line on stderr, when it cannot be started.
 */
bool xl_monitor_attend(uint32_t domid, const char *name);

#endif
