/* SPDX-License-Identifier: LGPL-2.1-only */
/* A toolstack loaded guest.S and let the vcpu run: make the synthetic guest that its command line describes. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <xen/arch-x86/hvm/start_info.h>

#include "sim_guest.h"

#define KERNEL_TEXT "XENSIM SYNTHETIC GUEST\n"

/* len bytes of guest memory within one page, or NULL. */
static const void *guest_bytes(const struct sim_domain *d, uint64_t address, size_t len)
{
    const uint8_t *page = sim_memory_page(&d->mem, address >> SIM_PAGE_SHIFT);
    uint64_t at = address % SIM_PAGE_SIZE;

    return page && len <= SIM_PAGE_SIZE - at ? page + at : NULL;
}

/* The command line, as far as its page goes. */
static void read_command_line(const struct sim_domain *d, char *to, size_t size)
{
    const struct hvm_start_info *info = guest_bytes(d, d->cpu.rbx, sizeof(*info));
    const char *text;
    size_t n = 0;

    *to = 0;
    if (!info || info->magic != XEN_HVM_START_MAGIC_VALUE || !info->cmdline_paddr) return;
    for (; n + 1 < size; n++) {
        text = guest_bytes(d, info->cmdline_paddr + n, 1);
        if (!text || !*text) break;
        to[n] = *text;
    }
    to[n] = 0;
}

bool sim_guest_boot(struct sim_domain *d)
{
    const char *text = guest_bytes(d, d->cpu.rip, sizeof(KERNEL_TEXT) - 1);
    struct sim_guest_spec spec;
    char line[256], why[256];

    if (!text || memcmp(text, KERNEL_TEXT, sizeof(KERNEL_TEXT) - 1)) return false;
    read_command_line(d, line, sizeof(line));
    if (sim_guest_parse(line, &spec, why, sizeof(why)) || sim_guest_load(d, &spec)) {
        fprintf(stderr, "xensimd: domain %u cannot start with '%s'\n", d->domid, line);
        d->cpu.rip = 0;
        return false;
    }
    d->params[HVM_PARAM_CALLBACK_IRQ] = 1;
    return true;
}
