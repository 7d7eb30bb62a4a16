/* SPDX-License-Identifier: LGPL-2.1-only */
/* One connection of a stand-in library: who it is, its memory, the pages and ports that end with it. */
#ifndef SIM_CALLER_H
#define SIM_CALLER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "sim_domain.h"

#define SIM_BUCKETS 1024

struct sim_mapped {
    struct sim_mapped *next;
    struct sim_domain *domain; /* a reference */
    int64_t id;
    uint64_t count;
    uint32_t frames[]; /* SIM_NO_FRAME = a hole */
};

struct sim_caller {
    int fd;
    pid_t pid;
    char comm[16];                          /* the process's name, as the kernel has it */
    struct sim_mapped *mapped[SIM_BUCKETS]; /* by id: an engine keeps tens of thousands */
    int64_t last_id;
    int port_pipe[2]; /* event channels; -1 until asked for */
    uint64_t corrupt; /* when not 0: the next output of this call gets a bit flipped */
};

void sim_caller_init(struct sim_caller *c, int fd);
void sim_caller_dispose(struct sim_caller *c);

/* The process's memory. 0 or EFAULT. */
int sim_copy_in(const struct sim_caller *c, void *to, uint64_t from, size_t len);
int sim_copy_out(struct sim_caller *c, uint64_t to, const void *from, size_t len);

/* Requests about mappings: value, or minus an errno. *instance: whose memory. */
int64_t sim_caller_map(struct sim_caller *c, const uint64_t *args, uint32_t *instance);
int64_t sim_caller_resource(struct sim_caller *c, const uint64_t *args, uint32_t *instance);
int64_t sim_caller_resource_size(struct sim_caller *c, const uint64_t *args);
int64_t sim_caller_grant(struct sim_caller *c, const uint64_t *args, uint32_t *instance);
int64_t sim_caller_unmap(struct sim_caller *c, int64_t id);
/* *fd: of the memory, owned by the domain. */
int64_t sim_caller_memory(struct sim_caller *c, const uint64_t *args, int *fd);

#endif
