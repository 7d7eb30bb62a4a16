/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The restore engine fed with whatever bytes, in front of a Xen that says yes to everything. First
 * byte of the input: bit 0 a checkpointed stream, bit 1 supply good headers.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "xc_sr_record.h"
#include "xc_sr_restore.h"

#define MAX_MAPPED 1024

static uint8_t *scratch; /* every page of the guest is one of these */

static int restore_checkpoint(void *data)
{
    return XGR_CHECKPOINT_SUCCESS;
}

/* --- Xen --- */

int xc_domain_getinfo(xc_interface *xch, uint32_t first, unsigned int max, xc_dominfo_t *info)
{
    memset(info, 0, sizeof(*info));
    info->domid = first;
    info->hvm = 1;
    info->max_memkb = 4096;
    return 1;
}

int xc_domain_populate_physmap(xc_interface *xch, uint32_t domid, unsigned long n,
                               unsigned int order, unsigned int flags, xen_pfn_t *gfns)
{
    if (n > MAX_MAPPED) abort();
    return (int)n;
}

int xc_domain_populate_physmap_exact(xc_interface *xch, uint32_t domid, unsigned long n,
                                     unsigned int order, unsigned int flags, xen_pfn_t *gfns)
{
    if (n > MAX_MAPPED) abort();
    return 0;
}

int xc_domain_decrease_reservation_exact(xc_interface *xch, uint32_t domid, unsigned long n,
                                         unsigned int order, xen_pfn_t *gfns)
{
    if (n > MAX_MAPPED) abort();
    return 0;
}

void *xenforeignmemory_map(xenforeignmemory_handle *fmem, uint32_t domid, int prot, size_t n,
                           const xen_pfn_t *gfns, int *errs)
{
    if (n > MAX_MAPPED) abort();
    memset(errs, 0, n * sizeof(*errs));
    return scratch;
}

int xenforeignmemory_unmap(xenforeignmemory_handle *fmem, void *addr, size_t n)
{
    return 0;
}

int xc_hvm_param_set(xc_interface *xch, uint32_t domid, uint32_t param, uint64_t value)
{
    return 0;
}

int xc_clear_domain_pages(xc_interface *xch, uint32_t domid, unsigned long pfn, int num)
{
    return 0;
}

int xc_domain_set_tsc_info(xc_interface *xch, uint32_t domid, uint32_t mode, uint64_t nsec,
                           uint32_t khz, uint32_t incarnation)
{
    return 0;
}

/* What a real Xen reads: that the sizes announced are there. */
static unsigned int touch(const void *bytes, size_t size)
{
    const volatile uint8_t *p = bytes;
    unsigned int sum = 0;

    while (size--)
        sum += *p++;
    return sum;
}

int xc_set_domain_cpu_policy(xc_interface *xch, uint32_t domid, uint32_t nr_leaves,
                             xen_cpuid_leaf_t *leaves, uint32_t nr_msrs, xen_msr_entry_t *msrs,
                             uint32_t *err_leaf, uint32_t *err_subleaf, uint32_t *err_msr)
{
    touch(leaves, nr_leaves * sizeof(*leaves));
    touch(msrs, nr_msrs * sizeof(*msrs));
    return 0;
}

int xc_domain_hvm_setcontext(xc_interface *xch, uint32_t domid, uint8_t *buf, uint32_t size)
{
    touch(buf, size);
    return 0;
}

int xc_dom_gnttab_seed(xc_interface *xch, uint32_t domid, bool is_hvm, xen_pfn_t console_gfn,
                       xen_pfn_t xenstore_gfn, uint32_t console_domid, uint32_t xenstore_domid)
{
    return 0;
}

/* --- the harness --- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct restore_callbacks cb = {.checkpoint = restore_checkpoint};
    struct xc_sr_io io;
    struct xc_sr_restore r = {.env = {.lg = fuzz_logger(), .domid = 1, .io = &io}, .cb = &cb};
    struct sr_ihdr ihdr;
    struct sr_dhdr dhdr;

    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
        scratch = malloc(MAX_MAPPED * SR_PAGE_SIZE);
        if (fd < 0 || !scratch) abort();
    }
    if (!size) return 0;
    if (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET)) abort();
    xc_sr_headers_fill(&ihdr, &dhdr, SR_DHDR_TYPE_X86_HVM, 4, 17);
    if ((data[0] & 2) && (write(fd, &ihdr, sizeof(ihdr)) < 0 || write(fd, &dhdr, sizeof(dhdr)) < 0))
        abort();
    if (write(fd, data + 1, size - 1) < 0) abort();
    lseek(fd, 0, SEEK_SET);
    xc_sr_io_init(&io, fd, -1, -1);
    r.checkpointed = data[0] & 1;
    r.hold_limit_bytes = 1 << 20;
    xc_sr_restore(&r);
    xc_sr_io_dispose(&io);
    return 0;
}
