/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Mappings of a domain's frames: real shared memory at consecutive addresses, one mmap per run of consecutive frames.
 * xensimd counts each mapping until it is undone or the process ends.
 */
#ifndef SIM_FRAMES_H
#define SIM_FRAMES_H

#include <stddef.h>
#include <stdint.h>

#include "sim_link.h"

struct sim_mapping;
#define SIM_MAPPING_BUCKETS 1024

struct sim_frames {
    struct sim_link link;
    pthread_mutex_t lock;                              /* of what follows */
    struct sim_mapping *mappings[SIM_MAPPING_BUCKETS]; /* by address */
    uint32_t domid, instance; /* whose memory fd is; instance 0 = nobody's */
    int fd;
};

int sim_frames_open(struct sim_frames *f);
void sim_frames_close(struct sim_frames *f);

/*
 * Sends req, which makes xensimd fill frames[count]; then maps them at addr, or anywhere. A frame that is SIM_NO_FRAME
 * stays a hole that faults. NULL with errno.
 */
void *sim_frames_map(struct sim_frames *f, const struct sim_request *req, uint32_t domid,
                     void *addr, int prot, size_t count, const uint32_t *frames);
int sim_frames_unmap(struct sim_frames *f, void *addr, size_t count);

#endif
