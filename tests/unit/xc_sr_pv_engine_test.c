/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A PV guest through the save and the restore engine, end to end, on a fake Xen that knows frames,
 * owners and page table types; and what guests, streams and failing calls can do to them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "pv_guest.h"
#include "xc_sr_record.h"
#include "xc_sr_restore.h"
#include "xc_sr_save.h"
#include "xc_sr_x86_pv.h"

#define STREAM_MAX (32U << 20)

static char last_log[400];
static unsigned int suspends;
static struct {
    uint8_t *bytes;
    size_t size;
} stream;

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *format, va_list al)
{
    if (level >= XTL_ERROR) vsnprintf(last_log, sizeof(last_log), format, al);
}

static void progress(xentoollog_logger *lg, const char *ctx, const char *what, int percent,
                     unsigned long done, unsigned long total)
{
}

static xentoollog_logger logger = {vmessage, progress, NULL};

static int on_suspend(void *data)
{
    suspends++;
    fake_dom[FAKE_PRIMARY].suspended = true;
    return 1;
}

static int on_static_data_done(unsigned int missing, void *data)
{
    return missing ? -1 : 0;
}

static int on_checkpoint(void *data)
{
    return XGR_CHECKPOINT_SUCCESS;
}

static struct save_callbacks save_cb = {.suspend = on_suspend};
static struct restore_callbacks restore_cb = {.static_data_done = on_static_data_done,
                                              .checkpoint = on_checkpoint};

static void start(bool linear)
{
    fake_reset();
    guest_make(linear);
    last_log[0] = 0;
    suspends = 0;
}

/* The stream it wrote, whole or not, goes to `stream`. */
static int run_save(bool live)
{
    int fd = memfd_create("stream", MFD_CLOEXEC), rc;
    struct xc_sr_io io;
    struct xc_sr_save s = {
        .env = {.lg = &logger, .domid = FAKE_PRIMARY, .io = &io}, .live = live, .cb = &save_cb};

    xc_sr_io_init(&io, fd, -1, -1);
    rc = xc_sr_save(&s);
    xc_sr_io_dispose(&io);
    assert_int_equal(fake_mappings, 0);
    if (!stream.bytes) stream.bytes = malloc(STREAM_MAX);
    stream.size = (size_t)lseek(fd, 0, SEEK_END);
    assert_true(stream.size <= STREAM_MAX);
    assert_int_equal(pread(fd, stream.bytes, stream.size, 0), stream.size);
    close(fd);
    return rc;
}

static int run_restore(bool checkpointed)
{
    int fd = memfd_create("stream", MFD_CLOEXEC), rc;
    struct xc_sr_io io;
    struct xc_sr_restore r = {.env = {.lg = &logger, .domid = FAKE_BACKUP, .io = &io},
                              .checkpointed = checkpointed,
                              .store_evtchn = 21,
                              .console_evtchn = 22,
                              .cb = &restore_cb};

    assert_int_equal(write(fd, stream.bytes, stream.size), stream.size);
    lseek(fd, 0, SEEK_SET);
    xc_sr_io_init(&io, fd, -1, -1);
    rc = xc_sr_restore(&r);
    xc_sr_io_dispose(&io);
    close(fd);
    assert_int_equal(fake_mappings, 0);
    if (!rc) {
        assert_int_equal(r.store_gfn, guest_frame(FAKE_BACKUP, PFN_STORE));
        assert_int_equal(r.console_gfn, guest_frame(FAKE_BACKUP, PFN_CONSOLE));
        assert_int_equal(fake_dom[FAKE_BACKUP].seeded_store, r.store_gfn);
        assert_int_equal(fake_dom[FAKE_BACKUP].seeded_console, r.console_gfn);
    }
    return rc;
}

static void assert_arrived(void)
{
    const char *wrong = guest_compare();

    if (wrong) fail_msg("%s", wrong);
    assert_int_equal(fake_trespasses, 0);
}

/* --- the way there --- */

static void t_pv_linear_p2m_arrives_exactly(void **state)
{
    start(true);
    assert_int_equal(run_save(false), 0);
    assert_int_equal(run_restore(false), 0);
    assert_arrived();
    assert_int_equal(fake_dom[FAKE_BACKUP].policy_calls, 1);
    assert_int_equal(fake_dom[FAKE_BACKUP].seed_calls, 1);
}

static void t_pv_p2m_tree_arrives_exactly(void **state)
{
    start(false);
    assert_int_equal(run_save(false), 0);
    assert_int_equal(run_restore(false), 0);
    assert_arrived();
}

static void t_pv_live_is_refused_guest_untouched(void **state)
{
    start(true);
    assert_int_equal(run_save(true), -1);
    assert_non_null(strstr(last_log, "without shadow paging"));
    assert_int_equal(stream.size, 0);
    fake_dom[FAKE_PRIMARY].can_log = true;
    assert_int_equal(run_save(true), -1);
    assert_non_null(strstr(last_log, "only saved suspended"));
    assert_int_equal(suspends, 0);
}

static void t_pv_32_bit_guest_is_refused_untouched(void **state)
{
    start(true);
    fake_dom[FAKE_PRIMARY].width = 4;
    assert_int_equal(run_save(false), -1);
    assert_non_null(strstr(last_log, "32 bit"));
    assert_int_equal(stream.size, 0);
    assert_int_equal(suspends, 0);
}

/* --- calls that fail --- */

static void t_pv_save_any_call_fails_nothing_stays_mapped(void **state)
{
    unsigned int n;

    for (n = 1;; n++) {
        start(true);
        fake_fail_at = n;
        if (!run_save(false)) break;
        assert_string_not_equal(last_log, "");
    }
    assert_true(n > 30);
    assert_true(fake_calls < n);
}

static void t_pv_restore_any_call_fails_nothing_stays_mapped(void **state)
{
    unsigned int n;

    for (n = 1;; n++) {
        start(true);
        assert_int_equal(run_save(false), 0);
        fake_calls = 0;
        fake_fail_at = n;
        last_log[0] = 0;
        if (!run_restore(false)) break;
        assert_string_not_equal(last_log, "");
    }
    assert_true(n > 20);
    assert_true(fake_calls < n);
}

/* --- hostile guests --- */

struct guest_case {
    const char *log; /* part of what is said; NULL: it is saved */
    void (*spoil)(void);
};

static void spoil_no_p2m(void)
{
    guest_shared(FAKE_PRIMARY)->arch.p2m_cr3 = 0;
    guest_shared(FAKE_PRIMARY)->arch.pfn_to_mfn_frame_list_list = 0;
}
static void spoil_no_pfns(void)
{
    guest_shared(FAKE_PRIMARY)->arch.max_pfn = 0;
}
static void spoil_too_many_pfns(void)
{
    guest_shared(FAKE_PRIMARY)->arch.max_pfn = UINT64_MAX;
}
static void spoil_p2m_at_xen(void)
{
    guest_shared(FAKE_PRIMARY)->arch.p2m_vaddr = 0xffff87fffffff000;
}
static void spoil_p2m_not_canonical(void)
{
    guest_shared(FAKE_PRIMARY)->arch.p2m_vaddr = 0x1000000000000;
}
static void spoil_p2m_wraps(void)
{
    guest_shared(FAKE_PRIMARY)->arch.p2m_vaddr = 0xfffffffffffff000;
}
static void spoil_p2m_cr3_beyond(void)
{
    guest_shared(FAKE_PRIMARY)->arch.p2m_cr3 = 0xfffffffffffff000;
}
static void spoil_p2m_cr3_of_other(void)
{
    guest_shared(FAKE_PRIMARY)->arch.p2m_cr3 = fake_dom[FAKE_OTHER].shared << 12;
}
static void spoil_p2m_superpage(void)
{
    guest_table(PFN_P2M_L2)[0] |= 0x80;
}
static void spoil_p2m_hole(void)
{
    guest_table(PFN_P2M_L1)[1] = 0;
}
static void spoil_p2m_page_of_other(void)
{
    guest_table(PFN_P2M_L1)[1] = fake_populate(FAKE_OTHER, 7) << 12 | 1;
}
static void spoil_p2m_twice(void) /* one page in two places of the p2m */
{
    guest_table(PFN_P2M_L1)[1] = guest_table(PFN_P2M_L1)[0];
}
static void spoil_table_names_other(void)
{
    guest_table(PFN_L1)[9] = fake_populate(FAKE_OTHER, 9) << 12 | 1;
}
static void spoil_table_names_beyond(void)
{
    guest_table(PFN_L1)[9] = 0x000ffffffffff001;
}
static void spoil_table_superpage(void)
{
    guest_table(PFN_L2)[0] |= 0x80;
}
static void spoil_gdt(void)
{
    fake_dom[FAKE_PRIMARY].vcpus[2].context.gdt_ents = 7169;
}
static void spoil_gdt_frame(void)
{
    fake_dom[FAKE_PRIMARY].vcpus[2].context.gdt_frames[1] = fake_dom[FAKE_OTHER].shared;
}
static void spoil_start_info(void)
{
    fake_dom[FAKE_PRIMARY].vcpus[0].context.user_regs.rdx = UINT64_MAX;
}
static void spoil_cr3(void)
{
    fake_dom[FAKE_PRIMARY].vcpus[2].context.ctrlreg[3] = 0;
}
/* Entries of the p2m that the machine does not confirm: nothing is there. */
static void spoil_p2m_entries(void)
{
    guest_table(PFN_P2M)[200] = fake_dom[FAKE_OTHER].shared;
    guest_table(PFN_P2M)[201] = UINT64_MAX / 2;
    guest_table(PFN_P2M)[202] = 0;
    memset(guest_table(PFN_L1) + 200, 0, 24);
}

static const struct guest_case guest_cases[] = {
    {"does not tell where its p2m is", spoil_no_p2m},
    {"says that it has 0 pfns", spoil_no_pfns},
    {"pfns", spoil_too_many_pfns},
    {"p2m cannot be at", spoil_p2m_at_xen},
    {"p2m cannot be at", spoil_p2m_not_canonical},
    {"p2m cannot be at", spoil_p2m_wraps},
    {"does not tell where its p2m is", spoil_p2m_cr3_beyond},
    {"cannot map 1 pages: the way to the p2m", spoil_p2m_cr3_of_other},
    {"level 2 of its p2m", spoil_p2m_superpage},
    {"level 1 of its p2m", spoil_p2m_hole},
    {"cannot map", spoil_p2m_page_of_other},
    {"not the guest's own", spoil_table_names_other},
    {"not the guest's own", spoil_table_names_beyond},
    {"is a superpage", spoil_table_superpage},
    {"a GDT of 7169 entries", spoil_gdt},
    {"a page of the GDT is frame", spoil_gdt_frame},
    {"the start info is frame", spoil_start_info},
    {"cr3 is frame 0", spoil_cr3},
    {NULL, spoil_p2m_entries},
};

static void t_pv_hostile_guest_is_refused_with_the_reason(void **state)
{
    size_t i;
    int rc;

    for (i = 0; i < sizeof(guest_cases) / sizeof(guest_cases[0]); i++) {
        start(true);
        guest_cases[i].spoil();
        rc = run_save(false);
        if (!guest_cases[i].log) {
            assert_int_equal(rc, 0);
            continue;
        }
        assert_int_equal(rc, -1);
        if (!strstr(last_log, guest_cases[i].log)) fail_msg("case %zu: %s", i, last_log);
    }
}

/* What is there twice in the p2m of the sender: the copy's pages are checked by the reader. */
static void t_pv_p2m_page_twice_is_refused_by_the_reader(void **state)
{
    start(true);
    spoil_p2m_twice();
    if (!run_save(false)) assert_int_equal(run_restore(false), -1);
    assert_int_equal(fake_trespasses, 0);
}

/* --- hostile streams --- */

/* The n-th record of a type: its head. */
static struct sr_rhdr *find_record(uint32_t type, unsigned int n)
{
    size_t at = sizeof(struct sr_ihdr) + sizeof(struct sr_dhdr);

    while (at < stream.size) {
        struct sr_rhdr *rhdr = (struct sr_rhdr *)(void *)(stream.bytes + at);

        if (rhdr->type == type && n-- == 0) return rhdr;
        at += sizeof(*rhdr) + xc_sr_record_padded(rhdr->length);
    }
    fail_msg("no record of type %u", type);
    return NULL;
}

/* The entry of a pfn in PAGE_DATA, and its page. */
static uint64_t *find_entry(uint64_t pfn, uint8_t **page)
{
    struct sr_rhdr *rhdr = find_record(SR_REC_PAGE_DATA, (unsigned int)(pfn / XC_SR_BATCH));
    struct sr_page_data *head = (void *)(rhdr + 1);
    uint64_t *entries = (void *)(head + 1), i;

    *page = (uint8_t *)(entries + head->count);
    for (i = 0; xc_sr_entry_pfn(entries[i]) != pfn; i++)
        if (xc_sr_page_type_has_data(xc_sr_entry_type(entries[i]))) *page += 4096;
    return &entries[i];
}

static struct vcpu_guest_context *find_context(unsigned int n)
{
    return (void *)((uint8_t *)(find_record(SR_REC_X86_PV_VCPU_BASIC, n) + 1) + 8);
}

static uint64_t *find_pte(uint64_t pfn, unsigned int i)
{
    uint8_t *page;

    find_entry(pfn, &page);
    return (uint64_t *)(void *)page + i;
}

static void remove_record(uint32_t type)
{
    struct sr_rhdr *rhdr = find_record(type, 0);
    size_t size = sizeof(*rhdr) + xc_sr_record_padded(rhdr->length);
    uint8_t *end = (uint8_t *)rhdr + size;

    memmove(rhdr, end, (size_t)(stream.bytes + stream.size - end));
    stream.size -= size;
}

static void set_type(uint64_t pfn, uint64_t type)
{
    uint8_t *page;
    uint64_t *entry = find_entry(pfn, &page);

    *entry = type << SR_PFN_TYPE_SHIFT | pfn;
}

static void break_width(void)
{
    struct sr_x86_pv_info *info = (void *)(find_record(SR_REC_X86_PV_INFO, 0) + 1);

    info->guest_width = 4;
    info->pt_levels = 3;
}
static void break_no_info(void)
{
    remove_record(SR_REC_X86_PV_INFO);
}
static void break_no_frames(void)
{
    remove_record(SR_REC_X86_PV_P2M_FRAMES);
}
static void break_no_shared(void)
{
    remove_record(SR_REC_SHARED_INFO);
}
static void break_no_vcpu0(void)
{
    remove_record(SR_REC_X86_PV_VCPU_BASIC);
}
static void break_frames_too_far(void)
{
    struct sr_rhdr *rhdr = find_record(SR_REC_X86_PV_P2M_FRAMES, 0);
    struct sr_x86_pv_p2m_frames *head = (void *)(rhdr + 1);

    head->end_pfn = 1024 * 3 - 1; /* as of a 32 bit guest */
}
static void break_frame_pfn(void)
{
    uint64_t *pfns = (uint64_t *)(void *)(find_record(SR_REC_X86_PV_P2M_FRAMES, 0) + 2);

    pfns[1] = 100000;
}
static void break_frame_twice(void)
{
    uint64_t *pfns = (uint64_t *)(void *)(find_record(SR_REC_X86_PV_P2M_FRAMES, 0) + 2);

    pfns[1] = pfns[0];
}
static void break_frame_is_table(void)
{
    uint64_t *pfns = (uint64_t *)(void *)(find_record(SR_REC_X86_PV_P2M_FRAMES, 0) + 2);

    pfns[1] = PFN_L4;
}
static void break_pfn(void)
{
    uint8_t *page;

    *find_entry(500, &page) = GUEST_PFNS;
}
static void break_pte(void)
{
    *find_pte(PFN_L1, 3) = GUEST_PFNS << 12 | 1;
}
static void break_pte_superpage(void)
{
    *find_pte(PFN_L2, 0) |= 0x80;
}
static void break_table_loop(void) /* a table of level 1 as one of level 3 */
{
    *find_pte(PFN_L4, 0) = (uint64_t)PFN_L1 << 12 | 1;
}
static void break_table_missing(void)
{
    set_type(PFN_L2, SR_PAGE_NORMAL);
    *find_pte(PFN_L4, 5) = (uint64_t)PFN_P2M << 12 | 1;
}
static void break_start_info(void)
{
    find_context(0)->user_regs.rdx = GUEST_PFNS;
}
static void break_start_info_table(void)
{
    find_context(0)->user_regs.rdx = PFN_L4;
}
static void break_store(void)
{
    uint8_t *page;

    find_entry(PFN_START_INFO, &page);
    ((struct start_info *)(void *)page)->store_mfn = UINT64_MAX;
}
static void break_console(void)
{
    uint8_t *page;

    find_entry(PFN_START_INFO, &page);
    ((struct start_info *)(void *)page)->console.domU.mfn = 194; /* a hole */
}
static void break_gdt(void)
{
    find_context(1)->gdt_ents = UINT64_MAX;
}
static void break_gdt_frame(void)
{
    find_context(1)->gdt_frames[1] = PFN_L1;
}
static void break_cr3(void)
{
    find_context(1)->ctrlreg[3] = (uint64_t)PFN_L3 << 12;
}
static void break_cr3_far(void)
{
    find_context(1)->ctrlreg[3] = UINT64_MAX;
}
static void break_cr1(void)
{
    find_context(0)->ctrlreg[1] = (uint64_t)PFN_USER_L4 << 12;
}
static void break_vcpu_id(void)
{
    *(uint32_t *)(void *)(find_record(SR_REC_X86_PV_VCPU_MSRS, 0) + 1) = FAKE_VCPUS;
}

static const struct stream_case {
    const char *log;
    void (*spoil)(void);
} stream_cases[] = {
    {"32 bit PV guest", break_width},
    {"X86_PV_P2M_FRAMES: must come once", break_no_info},
    {"PAGE_DATA comes before X86_PV_P2M_FRAMES", break_no_frames},
    {"no SHARED_INFO", break_no_shared},
    {"no X86_PV_VCPU_BASIC of vcpu 0", break_no_vcpu0},
    {"X86_PV_P2M_FRAMES: 3 pages for 3072 pfns", break_frames_too_far},
    {"a page of the p2m is pfn 0x186a0", break_frame_pfn},
    {"X86_PV_P2M_FRAMES: pfn 0xa comes twice", break_frame_twice},
    {"a page of the p2m is pfn 0x14, a page of type 12", break_frame_is_table},
    {"PAGE_DATA: pfn 0x600, but the guest has 1536", break_pfn},
    {"entry 3 of page table 0x17, level 1, names a pfn", break_pte},
    {"entry 0 of page table 0x16, level 2, is a superpage", break_pte_superpage},
    {"the hypervisor refuses", break_table_loop},
    {"the hypervisor refuses", break_table_missing},
    {"the start info is pfn 0x600", break_start_info},
    {"the start info is pfn 0x14", break_start_info_table},
    {"the page of xenstore is pfn", break_store},
    {"the page of the console is pfn 0xc2", break_console},
    {"a GDT of", break_gdt},
    {"a page of a GDT is pfn 0x17", break_gdt_frame},
    {"cr3 is pfn 0x15, a page of type 3", break_cr3},
    {"cr3 is pfn", break_cr3_far},
    {"cr1 is 0x1a000", break_cr1},
    {"X86_PV_VCPU_MSRS of vcpu 3, but the guest has 3", break_vcpu_id},
};

static void t_pv_hostile_stream_is_refused_with_the_reason(void **state)
{
    size_t i;

    for (i = 0; i < sizeof(stream_cases) / sizeof(stream_cases[0]); i++) {
        start(true);
        assert_int_equal(run_save(false), 0);
        stream_cases[i].spoil();
        last_log[0] = 0;
        if (!run_restore(false)) fail_msg("case %zu is taken", i);
        if (!strstr(last_log, stream_cases[i].log)) fail_msg("case %zu: %s", i, last_log);
        assert_int_equal(fake_trespasses, 0);
    }
}

/* Whatever bytes change: it ends, and nobody else's frame was named to the hypervisor. */
static void t_pv_random_damage_never_reaches_other_frames(void **state)
{
    unsigned int seed, i;
    static uint8_t *whole;
    size_t size;

    start(true);
    assert_int_equal(run_save(false), 0);
    size = stream.size;
    whole = malloc(size);
    memcpy(whole, stream.bytes, size);
    for (seed = 1; seed <= 60; seed++) {
        start(true);
        memcpy(stream.bytes, whole, size);
        srand(seed);
        for (i = 0; i < 1 + seed % 20; i++) {
            /* Rather in the heads, the page tables and the tail than in plain pages. */
            size_t at = (size_t)rand() % 3 ? (size_t)rand() % (160 << 10)
                                           : size - 1 - (size_t)rand() % (20 << 10);

            stream.bytes[at] = (uint8_t)rand();
        }
        stream.size = seed % 5 ? size : (size_t)rand() % size;
        run_restore(false);
        assert_int_equal(fake_trespasses, 0);
    }
    free(whole);
}

/* --- what a sender may do --- */

/* A page that comes, and that in the end is not there. */
static void t_pv_page_gone_in_the_end_is_taken_back(void **state)
{
    struct {
        struct sr_rhdr rhdr;
        struct sr_page_data head;
        uint64_t entry;
    } gone = {{SR_REC_PAGE_DATA, 16}, {1, 0}, (uint64_t)SR_PAGE_XTAB << SR_PFN_TYPE_SHIFT | 300};
    uint8_t *tail;

    start(true);
    guest_table(PFN_L1)[300] = 0;
    assert_int_equal(run_save(false), 0);
    tail = (uint8_t *)find_record(SR_REC_X86_TSC_INFO, 0);
    memmove(tail + sizeof(gone), tail, (size_t)(stream.bytes + stream.size - tail));
    memcpy(tail, &gone, sizeof(gone));
    stream.size += sizeof(gone);
    assert_int_equal(run_restore(false), 0);
    assert_int_equal(guest_frame(FAKE_BACKUP, 300), 0);
    assert_int_equal(((uint64_t *)(void *)guest_page(FAKE_BACKUP, PFN_P2M))[300], UINT64_MAX);
}

/* The same checkpoint twice, then the link breaks in the middle of the third. */
static void t_pv_checkpointed_stream_ends_with_the_last_whole_one(void **state)
{
    static const struct sr_rhdr mark = {SR_REC_CHECKPOINT, 0};
    size_t from, length;

    start(true);
    assert_int_equal(run_save(false), 0);
    from = (size_t)((uint8_t *)find_record(SR_REC_PAGE_DATA, 0) - stream.bytes);
    stream.size -= sizeof(struct sr_rhdr); /* END */
    memcpy(stream.bytes + stream.size, &mark, sizeof(mark));
    stream.size += sizeof(mark);
    length = stream.size - from;
    assert_true(stream.size + 2 * length < STREAM_MAX);
    memcpy(stream.bytes + stream.size, stream.bytes + from, length);
    stream.size += length;
    memcpy(stream.bytes + stream.size, stream.bytes + from, length / 2);
    stream.size += length / 2;
    assert_int_equal(run_restore(true), 0);
    assert_arrived();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_pv_linear_p2m_arrives_exactly),
        cmocka_unit_test(t_pv_p2m_tree_arrives_exactly),
        cmocka_unit_test(t_pv_live_is_refused_guest_untouched),
        cmocka_unit_test(t_pv_32_bit_guest_is_refused_untouched),
        cmocka_unit_test(t_pv_save_any_call_fails_nothing_stays_mapped),
        cmocka_unit_test(t_pv_restore_any_call_fails_nothing_stays_mapped),
        cmocka_unit_test(t_pv_hostile_guest_is_refused_with_the_reason),
        cmocka_unit_test(t_pv_p2m_page_twice_is_refused_by_the_reader),
        cmocka_unit_test(t_pv_hostile_stream_is_refused_with_the_reason),
        cmocka_unit_test(t_pv_random_damage_never_reaches_other_frames),
        cmocka_unit_test(t_pv_page_gone_in_the_end_is_taken_back),
        cmocka_unit_test(t_pv_checkpointed_stream_ends_with_the_last_whole_one),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    free(stream.bytes);
    return rc;
}
