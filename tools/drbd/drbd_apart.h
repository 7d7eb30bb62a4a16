/* SPDX-License-Identifier: LGPL-2.1-only */
/* What must not stop halfway. */
#ifndef DRBD_APART_H
#define DRBD_APART_H

/*
 * Has work(arg) done by a child and waits for it: if the caller is killed meanwhile, even by SIGKILL, it is done to its end all the same,
 * and the caller's locks are held until then. What the child changes in memory is lost. 0 or -errno as work() has it, also when there can
 * be no child; -ECHILD: the child was killed, work() may have stopped halfway and its end is the caller's to see to.
 */
int drbd_apart(int (*work)(const void *arg), const void *arg);

#endif
