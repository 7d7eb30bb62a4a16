/* SPDX-License-Identifier: LGPL-2.1-only */
/* libxendevicemodel.so.1 on xensimd. What a toolstack uses; what only a QEMU needs is asked for and refused by name. */
#include <stdlib.h>

#include <xendevicemodel.h>

#include "sim_link.h"

struct xendevicemodel_handle {
    struct sim_link link;
};

xendevicemodel_handle *xendevicemodel_open(struct xentoollog_logger *logger, unsigned int flags)
{
    xendevicemodel_handle *h = calloc(1, sizeof(*h));

    (void)logger;
    (void)flags;
    if (!h) return NULL;
    if (!sim_link_open(&h->link)) return h;
    free(h);
    return NULL;
}

int xendevicemodel_close(xendevicemodel_handle *h)
{
    if (!h) return 0;
    sim_link_close(&h->link);
    free(h);
    return 0;
}

static int64_t request(xendevicemodel_handle *h, domid_t domid, unsigned int op, uint64_t a,
                       uint64_t b)
{
    const struct sim_request req = {SIM_DEVICE_MODEL, 0, {domid, op, a, b, 0, 0}};

    return sim_link_request(&h->link, &req, NULL, NULL);
}

int xendevicemodel_modified_memory_bulk(xendevicemodel_handle *h, domid_t domid,
                                        struct xen_dm_op_modified_memory_extent extents[],
                                        uint32_t nr)
{
    return (int)request(h, domid, XEN_DMOP_modified_memory, (uintptr_t)extents, nr);
}

int xendevicemodel_modified_memory(xendevicemodel_handle *h, domid_t domid, uint64_t first_pfn,
                                   uint32_t nr)
{
    struct xen_dm_op_modified_memory_extent extent = {.nr = nr, .first_pfn = first_pfn};

    return xendevicemodel_modified_memory_bulk(h, domid, &extent, 1);
}

int xendevicemodel_shutdown(xendevicemodel_handle *h, domid_t domid, unsigned int reason)
{
    return (int)request(h, domid, XEN_DMOP_remote_shutdown, reason, 0);
}

int xendevicemodel_nr_vcpus(xendevicemodel_handle *h, domid_t domid, unsigned int *vcpus)
{
    int64_t n = request(h, domid, XEN_DMOP_nr_vcpus, 0, 0);

    if (n < 0) return -1;
    *vcpus = (unsigned int)n;
    return 0;
}

/* The rest answers whatever xensimd says to the bare number: ENOSYS, and a line in its log. */
#define ONLY_ASKED(name, op, ...)                                                                  \
    int xendevicemodel_##name(xendevicemodel_handle *h, domid_t domid, __VA_ARGS__)                \
    {                                                                                              \
        return (int)request(h, domid, XEN_DMOP_##op, 0, 0);                                        \
    }

ONLY_ASKED(create_ioreq_server, create_ioreq_server, int bufioreq, ioservid_t *id)
ONLY_ASKED(get_ioreq_server_info, get_ioreq_server_info, ioservid_t id, xen_pfn_t *gfn,
           xen_pfn_t *buf_gfn, evtchn_port_t *port)
ONLY_ASKED(map_io_range_to_ioreq_server, map_io_range_to_ioreq_server, ioservid_t id, int is_mmio,
           uint64_t start, uint64_t end)
ONLY_ASKED(unmap_io_range_from_ioreq_server, unmap_io_range_from_ioreq_server, ioservid_t id,
           int is_mmio, uint64_t start, uint64_t end)
ONLY_ASKED(map_mem_type_to_ioreq_server, map_mem_type_to_ioreq_server, ioservid_t id, uint16_t type,
           uint32_t flags)
ONLY_ASKED(map_pcidev_to_ioreq_server, map_io_range_to_ioreq_server, ioservid_t id, uint16_t seg,
           uint8_t bus, uint8_t device, uint8_t function)
ONLY_ASKED(unmap_pcidev_from_ioreq_server, unmap_io_range_from_ioreq_server, ioservid_t id,
           uint16_t seg, uint8_t bus, uint8_t device, uint8_t function)
ONLY_ASKED(destroy_ioreq_server, destroy_ioreq_server, ioservid_t id)
ONLY_ASKED(set_ioreq_server_state, set_ioreq_server_state, ioservid_t id, int enabled)
ONLY_ASKED(set_pci_intx_level, set_pci_intx_level, uint16_t seg, uint8_t bus, uint8_t device,
           uint8_t intx, unsigned int level)
ONLY_ASKED(set_isa_irq_level, set_isa_irq_level, uint8_t irq, unsigned int level)
ONLY_ASKED(set_irq_level, set_irq_level, unsigned int irq, unsigned int level)
ONLY_ASKED(set_pci_link_route, set_pci_link_route, uint8_t link, uint8_t irq)
ONLY_ASKED(inject_msi, inject_msi, uint64_t addr, uint32_t data)
ONLY_ASKED(track_dirty_vram, track_dirty_vram, uint64_t first, uint32_t nr, unsigned long *bitmap)
ONLY_ASKED(set_mem_type, set_mem_type, hvmmem_type_t type, uint64_t first, uint32_t nr)
ONLY_ASKED(inject_event, inject_event, int vcpu, uint8_t vector, uint8_t type, uint32_t error,
           uint8_t insn_len, uint64_t extra)
ONLY_ASKED(relocate_memory, relocate_memory, uint32_t size, uint64_t src, uint64_t dst)
ONLY_ASKED(pin_memory_cacheattr, pin_memory_cacheattr, uint64_t start, uint64_t end, uint32_t type)

int xendevicemodel_restrict(xendevicemodel_handle *h, domid_t domid)
{
    return (int)request(h, domid, 0, 0, 0);
}
