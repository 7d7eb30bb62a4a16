/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <xen/arch-x86/xen.h>
#include <xen/grant_table.h>

#include "sim_build.h"

/* Where Debian's libxl puts the pages that others write into. */
#define SPECIAL_FIRST 0xfeff8UL
#define SPECIAL_PAGES 8UL
#define STORE_GFN 0xfeffcUL
#define CONSOLE_GFN 0xfefffUL
#define IOREQ_GFN 0xfeffaUL
#define BUFIOREQ_GFN 0xfeff9UL
#define MIB_PAGES 256UL
#define SLACK_PAGES 1024UL

static int populate_ram(struct sim_domain *d, const struct sim_build *b)
{
    uint64_t pages = (b->present_mib ? b->present_mib : b->mem_mib) * MIB_PAGES, i;
    int rc = 0;

    for (i = 0; i < pages && !rc; i++) {
        uint64_t gfn = sim_guest_gfn(i, b->guest.state.stride);

        /* An HVM guest has video memory and ROMs below 1 MiB, without pages of RAM. */
        if (b->hvm && gfn >= 0xa0 && gfn < 0xc0) continue;
        rc = sim_memory_populate(&d->mem, gfn);
    }
    for (i = 0; i < SPECIAL_PAGES && !rc; i++)
        rc = sim_memory_populate(&d->mem, SPECIAL_FIRST + i);
    return rc;
}

/* Entries 0 and 1, which let domain 0 into the console's and the store's page. */
static void seed_grants(struct sim_domain *d)
{
    grant_entry_v1_t *table = (void *)(d->mem.base + (SIM_GRANT_FIRST << SIM_PAGE_SHIFT));

    table[GNTTAB_RESERVED_CONSOLE] = (grant_entry_v1_t){GTF_permit_access, 0, CONSOLE_GFN};
    table[GNTTAB_RESERVED_XENSTORE] = (grant_entry_v1_t){GTF_permit_access, 0, STORE_GFN};
}

static int fill(struct sim_domain *d, const struct sim_build *b)
{
    int rc;

    d->mem.max_pages = b->mem_mib * MIB_PAGES + SLACK_PAGES;
    if (b->empty) return 0;
    d->params[HVM_PARAM_STORE_PFN] = STORE_GFN;
    d->params[HVM_PARAM_CONSOLE_PFN] = CONSOLE_GFN;
    d->params[HVM_PARAM_CALLBACK_IRQ] = 1;
    if (b->hvm) {
        d->params[HVM_PARAM_IOREQ_PFN] = IOREQ_GFN;
        d->params[HVM_PARAM_BUFIOREQ_PFN] = BUFIOREQ_GFN;
    }
    rc = populate_ram(d, b);
    if (rc) return rc;
    seed_grants(d);
    return sim_guest_load(d, &b->guest);
}

int sim_build_domain(const struct sim_build *b, struct sim_domain **out)
{
    struct xen_domctl_createdomain config = {
        .flags = XEN_DOMCTL_CDF_hvm | XEN_DOMCTL_CDF_hap, .max_vcpus = 1, .max_evtchn_port = 1023};
    struct sim_domain *d;
    int rc;

    config.arch.emulation_flags = b->hvm ? XEN_X86_EMU_ALL & ~XEN_X86_EMU_VPCI : XEN_X86_EMU_LAPIC;
    rc = sim_domain_create(0, &config, &d);
    if (rc) return rc;
    pthread_mutex_lock(&d->lock);
    d->config.handle[0] = (uint8_t)d->domid;
    rc = fill(d, b);
    pthread_mutex_unlock(&d->lock);
    if (rc) {
        sim_domain_destroy(d);
        sim_domain_put(d);
        return rc;
    }
    *out = d;
    return 0;
}
