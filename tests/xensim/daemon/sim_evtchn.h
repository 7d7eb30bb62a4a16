/* SPDX-License-Identifier: LGPL-2.1-only */
/* Event channels between the programs of domain 0, and the ends that guests have. All calls take sim_lock themselves. */
#ifndef SIM_EVTCHN_H
#define SIM_EVTCHN_H

#include <stdint.h>

struct sim_caller;

/* First of all: port SIM_XENSTORE_PORT is domain 0's end of its own xenstore channel. */
#define SIM_XENSTORE_PORT 1
void sim_evtchn_init(void);

/* Requests: value, or minus an errno. *fd: the reading end of the ports' pipe; the caller struct owns it. */
int64_t sim_evtchn_open(struct sim_caller *c, int *fd);
int64_t sim_evtchn_notify(struct sim_caller *c, uint64_t port);
int64_t sim_evtchn_bind(struct sim_caller *c, uint32_t domid, uint64_t remote_port);
int64_t sim_evtchn_bind_virq(struct sim_caller *c, uint64_t virq);
int64_t sim_evtchn_unbind(struct sim_caller *c, uint64_t port);
int64_t sim_evtchn_unmask(struct sim_caller *c, uint64_t port);
/* The hypercall: op and its argument's address. */
int64_t sim_evtchn_op(struct sim_caller *c, uint64_t op, uint64_t arg);

void sim_evtchn_virq(uint32_t virq); /* to all who bound it */
void sim_evtchn_caller_gone(struct sim_caller *c);
void sim_evtchn_domain_gone(uint32_t domid);

#endif
