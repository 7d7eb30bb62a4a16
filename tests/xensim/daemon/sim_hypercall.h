/* SPDX-License-Identifier: LGPL-2.1-only */
/* The hypercalls. Each handler returns the value, or minus an errno: ENOSYS for what does not exist here. */
#ifndef SIM_HYPERCALL_H
#define SIM_HYPERCALL_H

#include "sim_caller.h"

#define SIM_NAME_MAX 64

/* Any request but SIM_CONTROL: faults first, then the call, then a log line if it is ENOSYS. *fd as in sim_reply. */
int64_t sim_request_run(struct sim_caller *c, const struct sim_request *req, int *fd,
                        uint32_t *instance);

/* What the request is called in the log, in fault rules and in counts, e.g. "domctl.shadow_op.clean". */
void sim_request_name(const struct sim_caller *c, const struct sim_request *req,
                      char name[SIM_NAME_MAX]);

int64_t sim_domctl(struct sim_caller *c, uint64_t arg);
int64_t sim_sysctl(struct sim_caller *c, uint64_t arg);
int64_t sim_memory_op(struct sim_caller *c, uint64_t op, uint64_t arg);
int64_t sim_hvm_op(struct sim_caller *c, uint64_t op, uint64_t arg);
int64_t sim_version_op(struct sim_caller *c, uint64_t op, uint64_t arg);
int64_t sim_sched_op(struct sim_caller *c, uint64_t op, uint64_t arg);
int64_t sim_device_model(struct sim_caller *c, const uint64_t *args);

/* The domain shuts down, and domain 0 hears of it. Takes the locks. */
int64_t sim_remote_shutdown(uint32_t domid, uint64_t reason);

#endif
