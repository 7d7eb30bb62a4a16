/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Who looks after a guest's end. The stock xl that created it leaves when the guest is first
 * suspended, so after a protection nobody would destroy it on poweroff or start it again on reboot.
 */
#ifndef XL_MONITOR_H
#define XL_MONITOR_H

#include <stdint.h>

/*
 * Starts a process that waits for the end of domid and does what the guest's configuration says
 * (on_poweroff, on_reboot, on_crash, on_watchdog), as the stock xl does. It logs to
 * /var/log/xen/xentwin-monitor-NAME.log and leaves when the guest is gone, kept or suspended again.
 * Says on stderr when it cannot be started.
 */
void xl_monitor_start(uint32_t domid, const char *name);

#endif
