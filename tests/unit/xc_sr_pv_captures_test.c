/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Real PV streams of stock Xen into our restore engine, on the fake Xen, which checks every page
 * table; then the guest is suspended again where it stands and saved by our save engine: the same
 * records must come out. The captures are not part of the repository: XENTWIN_CAPTURES or
 * ../shared/captures has them, else this is skipped.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_xen_pv.h"
#include "xc_sr_record.h"
#include "xc_sr_restore.h"
#include "xc_sr_save.h"

#define PFNS 24576U /* of the 96 MiB guest of the captures */

static char dir[512];
static struct xc_sr_io io;

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *format, va_list al)
{
    if (level < XTL_ERROR) return;
    vfprintf(stderr, format, al);
    fputc('\n', stderr);
}

static void progress(xentoollog_logger *lg, const char *ctx, const char *what, int percent,
                     unsigned long done, unsigned long total)
{
}

static xentoollog_logger logger = {vmessage, progress, NULL};

static int get(void *buf, size_t size)
{
    return xc_sr_io_read(&io, buf, size);
}

static int skip(size_t size)
{
    char buf[4096];

    for (; size; size -= size < sizeof(buf) ? size : sizeof(buf))
        if (get(buf, size < sizeof(buf) ? size : sizeof(buf))) return -1;
    return 0;
}

/* xl header, configuration, libxl header, LIBXC_CONTEXT. */
static int skip_to_libxc(void)
{
    uint32_t xl[12];

    return get(xl, sizeof(xl)) || skip(xl[11]) || skip(24) ? -1 : 0;
}

/* libxl's part of a checkpoint. */
static int on_checkpoint(void *data)
{
    unsigned int *count = data;
    uint32_t rec[2];

    do {
        if (get(rec, sizeof(rec)) || skip((rec[1] + 7) & ~7u)) return XGR_CHECKPOINT_ERROR;
    } while (rec[0] != 4);
    ++*count;
    return XGR_CHECKPOINT_SUCCESS;
}

static int on_static_data_done(unsigned int missing, void *data)
{
    return 0;
}

static int on_suspend(void *data)
{
    fake_dom[FAKE_PRIMARY].suspended = true;
    return 1;
}

static int restore(const char *name, bool checkpointed, struct xc_sr_restore *r,
                   unsigned int *checkpoints)
{
    struct restore_callbacks cb = {
        .checkpoint = on_checkpoint, .static_data_done = on_static_data_done, .data = checkpoints};
    char cmd[700];
    FILE *f;
    int rc;

    *checkpoints = 0;
    snprintf(cmd, sizeof(cmd), "xz -dc '%s/%s.xz'", dir, name);
    f = popen(cmd, "r");
    if (!f) return -1;
    xc_sr_io_init(&io, fileno(f), -1, -1);
    *r = (struct xc_sr_restore){.env = {.lg = &logger, .domid = FAKE_PRIMARY, .io = &io},
                                .checkpointed = checkpointed,
                                .cb = &cb};
    rc = skip_to_libxc() ? -1 : xc_sr_restore(r);
    xc_sr_io_dispose(&io);
    pclose(f);
    return rc;
}

/* What a guest does before its next suspension; its p2m is where it was. */
static void suspend_again(const struct xc_sr_restore *r, uint64_t p2m_vaddr)
{
    struct fake_dom *dom = &fake_dom[FAKE_PRIMARY];
    struct start_info *info = (void *)fake_frame(dom->vcpus[0].context.user_regs.rdx);
    shared_info_t *shared = (void *)fake_frame(dom->shared);

    info->store_mfn = fake_pfn(r->store_gfn);
    info->console.domU.mfn = fake_pfn(r->console_gfn);
    shared->arch.p2m_cr3 = dom->vcpus[0].context.ctrlreg[3];
    shared->arch.p2m_vaddr = p2m_vaddr;
}

/* --- two streams, record by record --- */

struct reader {
    uint8_t *bytes, *next, *end;
};

static struct sr_rhdr *next_record(struct reader *r)
{
    struct sr_rhdr *rhdr = (void *)r->next;

    if (r->end - r->next < (ptrdiff_t)sizeof(*rhdr)) return NULL;
    r->next += sizeof(*rhdr) + xc_sr_record_padded(rhdr->length);
    return rhdr;
}

static uint64_t special[PFNS]; /* written by the engine: start info, p2m */

static int compare_pages(const uint8_t *a, const uint8_t *b)
{
    const struct sr_page_data *head = (const void *)a;
    const uint64_t *entries = (const void *)(head + 1);
    size_t at = sizeof(*head) + 8 * (size_t)head->count;
    uint32_t i;

    if (memcmp(a, b, at)) return -1;
    for (i = 0; i < head->count; i++) {
        uint64_t pfn = xc_sr_entry_pfn(entries[i]);

        if (!xc_sr_page_type_has_data(xc_sr_entry_type(entries[i]))) continue;
        if (memcmp(a + at, b + at, SR_PAGE_SIZE) && !special[pfn % PFNS]) {
            fprintf(stderr, "pfn %#lx differs\n", (unsigned long)pfn);
            return -1;
        }
        at += SR_PAGE_SIZE;
    }
    return 0;
}

static int compare_bodies(uint32_t type, uint32_t length, const uint8_t *a, const uint8_t *b)
{
    switch (type) {
    case SR_REC_PAGE_DATA:
        return compare_pages(a, b);
    case SR_REC_X86_CPUID_POLICY: /* the fake has its own */
    case SR_REC_X86_MSR_POLICY:
    case SR_REC_SHARED_INFO: /* events and p2m are reset */
        return 0;
    case SR_REC_X86_TSC_INFO: /* the fake keeps the frequency only */
        return memcmp(a + 4, b + 4, 4);
    default:
        return memcmp(a, b, length);
    }
}

static int compare(struct reader *have, struct reader *want)
{
    unsigned int records = 0;

    for (;; records++) {
        struct sr_rhdr *a = next_record(have), *b = next_record(want);

        if (!a || !b || a->type != b->type) {
            fprintf(stderr, "record %u: %#x instead of %#x\n", records, a ? a->type : 0,
                    b ? b->type : 0);
            return -1;
        }
        if (a->type == SR_REC_END) break;
        if ((a->length != b->length && a->type != SR_REC_X86_CPUID_POLICY) ||
            compare_bodies(a->type, a->length, (uint8_t *)(a + 1), (uint8_t *)(b + 1))) {
            fprintf(stderr, "record %u, %s, is not the same\n", records,
                    xc_sr_record_name(a->type));
            return -1;
        }
    }
    printf("%u records are the same\n", records);
    return 0;
}

/* The capture's records, in memory. */
static int load(const char *name, struct reader *r)
{
    size_t room = 128U << 20, skipped, n;
    char cmd[700];
    FILE *f;

    snprintf(cmd, sizeof(cmd), "xz -dc '%s/%s.xz'", dir, name);
    f = popen(cmd, "r");
    r->bytes = malloc(room);
    if (!f || !r->bytes) return -1;
    n = fread(r->bytes, 1, room, f);
    pclose(f);
    /* Behind xl's and libxl's headers, where alignment begins. */
    n -= skipped = 48 + *(uint32_t *)(void *)(r->bytes + 44) + 24;
    memmove(r->bytes, r->bytes + skipped, n);
    r->next = r->bytes + sizeof(struct sr_ihdr) + sizeof(struct sr_dhdr);
    r->end = r->bytes + n;
    return 0;
}

static int save(struct reader *r)
{
    struct save_callbacks cb = {.suspend = on_suspend};
    struct xc_sr_save s = {.env = {.lg = &logger, .domid = FAKE_PRIMARY, .io = &io}, .cb = &cb};
    int fd = memfd_create("stream", MFD_CLOEXEC), rc;

    xc_sr_io_init(&io, fd, -1, -1);
    rc = xc_sr_save(&s);
    r->end = r->bytes = mmap(NULL, io.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    r->end += io.bytes;
    r->next = r->bytes + sizeof(struct sr_ihdr) + sizeof(struct sr_dhdr);
    xc_sr_io_dispose(&io);
    close(fd);
    return rc;
}

static void find_special(const struct reader *want)
{
    struct reader r = *want;
    struct sr_rhdr *rhdr;

    special[fake_pfn(fake_dom[FAKE_PRIMARY].vcpus[0].context.user_regs.rdx) % PFNS] = 1;
    while ((rhdr = next_record(&r)) && rhdr->type != SR_REC_END) {
        const uint64_t *pfns = (const uint64_t *)(const void *)(rhdr + 1) + 1;
        uint32_t i;

        for (i = 0; rhdr->type == SR_REC_X86_PV_P2M_FRAMES && 8 * (i + 1) < rhdr->length; i++)
            special[pfns[i] % PFNS] = 1;
    }
}

static int check_save(void)
{
    struct reader have = {NULL}, want = {NULL};
    unsigned int checkpoints;
    struct xc_sr_restore r;
    int rc = -1;

    fake_reset();
    if (restore("pv-save-96M.xl", false, &r, &checkpoints)) goto out;
    printf("pv-save-96M.xl: %lu pages\n", (unsigned long)fake_dom[FAKE_PRIMARY].owned - 1);
    if (load("pv-save-96M.xl", &want)) goto out;
    find_special(&want);
    suspend_again(&r, 0xffffc90000000000);
    if (save(&have)) goto out;
    rc = compare(&have, &want);
out:
    if (have.bytes) munmap(have.bytes, (size_t)(have.end - have.bytes));
    free(want.bytes);
    return rc || fake_trespasses || fake_mappings;
}

static int check_remus(void)
{
    unsigned int checkpoints;
    struct xc_sr_restore r;

    fake_reset();
    if (restore("cap-pv-remus.tx", true, &r, &checkpoints)) return -1;
    printf("cap-pv-remus.tx: %u checkpoints, %lu pages\n", checkpoints,
           (unsigned long)fake_dom[FAKE_PRIMARY].owned - 1);
    return checkpoints != 12 || fake_trespasses || fake_mappings;
}

int main(void)
{
    const char *given = getenv("XENTWIN_CAPTURES"), *src = getenv("XENTWIN_SRCDIR");
    char path[600];

    if (given)
        snprintf(dir, sizeof(dir), "%s", given);
    else
        snprintf(dir, sizeof(dir), "%s/../shared/captures", src ? src : ".");
    snprintf(path, sizeof(path), "%s/pv-save-96M.xl.xz", dir);
    if (access(path, R_OK)) {
        printf("skip: no captures in %s\n", dir);
        return 77;
    }
    return check_save() || check_remus() ? 1 : 0;
}
