/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A stand-in library's connection to xensimd. Requests of several threads are sent one after the other. A child of
 * fork() connects anew at its first request: xensimd must know in whose memory the pointers point.
 */
#ifndef SIM_LINK_H
#define SIM_LINK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../xensim_wire.h"

struct sim_link {
    int fd;
    pid_t pid; /* who connected */
    pthread_mutex_t lock;
};

/*
 * What this process runs from here on is on the host of that socket. Hosts have domains of the same numbers, and a helper
 * locks by number: each in the folder of its socket.
 */
void sim_enter_host(const char *socket);

/* 0, or -1 with errno: ENOENT when XENSIM_SOCKET is not set. */
int sim_link_open(struct sim_link *link);
void sim_link_close(struct sim_link *link);

/*
 * Waits for the reply. Its value, or -1 with errno. *fd (may be NULL) is a descriptor that came with it, else -1; the
 * caller closes it. *instance may be NULL.
 */
int64_t sim_link_request(struct sim_link *link, const struct sim_request *req, int *fd,
                         uint32_t *instance);

#endif
