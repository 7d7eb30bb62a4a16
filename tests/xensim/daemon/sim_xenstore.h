/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The guests' part in xenstore. When a xenstored runs with XENSTORED_RUNDIR = the host's folder, a thread watches
 * control/shutdown of all domains, acknowledges what is written there, and asks the guest to do it.
 */
#ifndef SIM_XENSTORE_H
#define SIM_XENSTORE_H

/* Starts the thread, which lives as long as the process. 0 or an errno. */
int sim_xenstore_start(void);

#endif
