/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the stand-in libraries say to xensimd: one datagram per request, one per reply, over a SOCK_SEQPACKET socket.
 *
 *   library                                xensimd (one thread per connection)
 *      | struct sim_request ------------------>|  reads and writes the arguments in the caller's memory
 *      |                                       |  (process_vm_readv), as a hypervisor would
 *      |<------------------ struct sim_reply   |  with at most one file descriptor
 *
 * Pointers in args are addresses in the process that connected. Nothing else crosses.
 */
#ifndef XENSIM_WIRE_H
#define XENSIM_WIRE_H

#include <stdint.h>

#define SIM_ENV_SOCKET "XENSIM_SOCKET" /* path of xensimd's socket */
#define SIM_PAGE_SHIFT 12
#define SIM_PAGE_SIZE (1UL << SIM_PAGE_SHIFT)
#define SIM_NO_FRAME UINT32_MAX

enum sim_kind {
    SIM_HYPERCALL = 1, /* op, up to 5 arguments */
    SIM_MEMORY,        /* domid -> memfd of its frames; value = instance */
    SIM_MAP,           /* domid, prot, count, gfns, errs, frames -> value = id of the mapping */
    SIM_UNMAP,         /* id */
    SIM_RESOURCE, /* domid, type, id, first frame, count, frames -> value = id of the mapping */
    SIM_RESOURCE_SIZE, /* domid, type, id -> value = frames */
    SIM_GRANT,         /* domid, count, refs (u32), prot, frames -> value = id */
    SIM_EVTCHN_OPEN,   /* -> read end of a pipe of ports */
    SIM_EVTCHN_NOTIFY, /* port */
    SIM_EVTCHN_BIND,   /* domid, remote port (or -1 for an unbound port) -> value = port */
    SIM_EVTCHN_VIRQ,   /* virq -> value = port */
    SIM_EVTCHN_UNBIND, /* port */
    SIM_EVTCHN_UNMASK, /* port */
    SIM_DEVICE_MODEL,  /* domid, XEN_DMOP_*, 3 arguments */
    SIM_CONTROL,       /* text, length, reply buffer, its size -> value = length of the reply */
    SIM_KINDS
};

struct sim_request {
    uint32_t kind; /* enum sim_kind */
    uint32_t op;
    uint64_t args[6];
};

/* value counts when error is 0. instance: of the domain that SIM_MEMORY, _MAP, _RESOURCE, _GRANT were about. */
struct sim_reply {
    int64_t value;
    int32_t error;
    uint32_t instance;
};

#endif
