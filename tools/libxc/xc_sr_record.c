/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What one record may look like. A table names each record and its checker; a checker is a ladder
 * that returns the first field that is wrong.
 */
#include <endian.h>
#include <string.h>

#include "xc_sr_decode.h"
#include "xc_sr_record.h"

typedef const char *check_fn(uint32_t length, const uint8_t *body);

struct record_kind {
    const char *name;
    uint32_t min, max; /* of length */
    check_fn *check;   /* called with a body only; may be NULL */
};

/* Bodies come from byte streams and need no alignment: read them by copy. */
static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

bool xc_sr_page_type_known(uint32_t type)
{
    return type <= SR_PAGE_L4 || (type >= SR_PAGE_PINNED_L1 && type <= SR_PAGE_XTAB);
}

struct xc_sr_page_head xc_sr_page_head(unsigned int entries, unsigned int pages)
{
    struct xc_sr_page_head head = {
        .rhdr = {SR_REC_PAGE_DATA, (uint32_t)(sizeof(struct sr_page_data) + 8 * (size_t)entries +
                                              SR_PAGE_SIZE * (size_t)pages)},
        .data = {entries, 0},
    };

    return head;
}

bool xc_sr_page_type_has_data(uint32_t type)
{
    return type <= SR_PAGE_L4 || (type >= SR_PAGE_PINNED_L1 && type <= SR_PAGE_PINNED_L4);
}

bool xc_sr_page_type_populated(uint32_t type)
{
    return xc_sr_page_type_has_data(type) || type == SR_PAGE_XALLOC;
}

static const char *check_page_data(uint32_t length, const uint8_t *body)
{
    uint64_t count = get32(body), pages = 0, i;

    if (count == 0) return "PAGE_DATA: count is 0";
    if (get32(body + 4)) return "PAGE_DATA: reserved field is not 0";
    if (count > (length - sizeof(struct sr_page_data)) / 8)
        return "PAGE_DATA: count exceeds the record";
    for (i = 0; i < count; i++) {
        uint64_t entry = get64(body + sizeof(struct sr_page_data) + 8 * i);

        if (entry & SR_PFN_RESERVED) return "PAGE_DATA: pfn is not below 2^52";
        if (!xc_sr_page_type_known(xc_sr_entry_type(entry))) return "PAGE_DATA: unused page type";
        pages += xc_sr_page_type_has_data(xc_sr_entry_type(entry));
    }
    if (length != sizeof(struct sr_page_data) + 8 * count + SR_PAGE_SIZE * pages)
        return "PAGE_DATA: length does not match the pages announced";
    return NULL;
}

static const char *check_encoded_pages(uint32_t length, const uint8_t *body)
{
    uint8_t scratch[SR_ENCODED_CONTENT_MAX];
    struct xc_sr_encoded pages;

    return xc_sr_encoded_open(&pages, body, length, scratch);
}

static const char *check_pv_info(uint32_t length, const uint8_t *body)
{
    struct sr_x86_pv_info info;
    unsigned int i;

    (void)length;
    memcpy(&info, body, sizeof(info));
    if (!(info.guest_width == 4 && info.pt_levels == 3) &&
        !(info.guest_width == 8 && info.pt_levels == 4))
        return "X86_PV_INFO: guest width and page table levels do not go together";
    for (i = 0; i < sizeof(info.reserved); i++)
        if (info.reserved[i]) return "X86_PV_INFO: reserved field is not 0";
    return NULL;
}

/* The width of the guest is not known here: the count must fit one of the two. */
static const char *check_p2m_frames(uint32_t length, const uint8_t *body)
{
    uint64_t start = get32(body), end = get32(body + 4), i;
    uint64_t frames = (length - sizeof(struct sr_x86_pv_p2m_frames)) / 8;

    if (length % 8) return "X86_PV_P2M_FRAMES: length is not a multiple of 8";
    if (end < start) return "X86_PV_P2M_FRAMES: end_pfn is below start_pfn";
    if (frames != end / 512 - start / 512 + 1 && frames != end / 1024 - start / 1024 + 1)
        return "X86_PV_P2M_FRAMES: length does not match the pfn range";
    for (i = 0; i < frames; i++)
        if (get64(body + sizeof(struct sr_x86_pv_p2m_frames) + 8 * i) & ~SR_PFN_MASK)
            return "X86_PV_P2M_FRAMES: pfn is not below 2^52";
    return NULL;
}

static const char *check_vcpu_head(uint32_t length, const uint8_t *body)
{
    (void)length;
    return get32(body + 4) ? "vcpu record: reserved field is not 0" : NULL;
}

/* Old senders wrote records without a blob; readers ignore those. */
static const char *check_vcpu_basic(uint32_t length, const uint8_t *body)
{
    uint32_t blob = length - sizeof(struct sr_x86_pv_vcpu);

    if (blob && blob != SR_PV_VCPU_BASIC_SIZE_64 && blob != SR_PV_VCPU_BASIC_SIZE_32)
        return "X86_PV_VCPU_BASIC: context has neither the 64 nor the 32 bit size";
    return check_vcpu_head(length, body);
}

static const char *check_vcpu_xsave(uint32_t length, const uint8_t *body)
{
    uint32_t blob = length - sizeof(struct sr_x86_pv_vcpu);

    if (blob && blob < SR_PV_VCPU_XSAVE_MIN) return "X86_PV_VCPU_XSAVE: state is too short";
    return check_vcpu_head(length, body);
}

static const char *check_vcpu_msrs(uint32_t length, const uint8_t *body)
{
    uint32_t off;

    if ((length - sizeof(struct sr_x86_pv_vcpu)) % SR_MSR_ENTRY_SIZE)
        return "X86_PV_VCPU_MSRS: length is not a whole number of entries";
    for (off = sizeof(struct sr_x86_pv_vcpu); off < length; off += SR_MSR_ENTRY_SIZE)
        if (get32(body + off + 4)) return "X86_PV_VCPU_MSRS: reserved field is not 0";
    return check_vcpu_head(length, body);
}

static const char *check_tsc_info(uint32_t length, const uint8_t *body)
{
    (void)length;
    return get32(body + 20) ? "X86_TSC_INFO: reserved field is not 0" : NULL;
}

static const char *check_hvm_params(uint32_t length, const uint8_t *body)
{
    uint64_t count = get32(body);

    if (get32(body + 4)) return "HVM_PARAMS: reserved field is not 0";
    if (length != sizeof(struct sr_hvm_params) + count * sizeof(struct sr_hvm_param))
        return "HVM_PARAMS: length does not match count";
    return NULL;
}

static const char *check_dirty_pfn_list(uint32_t length, const uint8_t *body)
{
    uint32_t off;

    for (off = 0; off + 8 <= length; off += 8)
        if (get64(body + off) & ~SR_PFN_MASK)
            return "CHECKPOINT_DIRTY_PFN_LIST: pfn is not below 2^52";
    return NULL;
}

#define ANY (SR_REC_LENGTH_MAX)

static const struct record_kind kinds[] = {
    [SR_REC_END] = {"END", 0, 0, NULL},
    [SR_REC_PAGE_DATA] = {"PAGE_DATA", 16, ANY, check_page_data},
    [SR_REC_X86_PV_INFO] = {"X86_PV_INFO", 8, 8, check_pv_info},
    [SR_REC_X86_PV_P2M_FRAMES] = {"X86_PV_P2M_FRAMES", 16, ANY, check_p2m_frames},
    [SR_REC_X86_PV_VCPU_BASIC] = {"X86_PV_VCPU_BASIC", 8, 8 + SR_PV_VCPU_BASIC_SIZE_64,
                                  check_vcpu_basic},
    [SR_REC_X86_PV_VCPU_EXTENDED] = {"X86_PV_VCPU_EXTENDED", 8, 8 + SR_PV_VCPU_EXTENDED_MAX,
                                     check_vcpu_head},
    [SR_REC_X86_PV_VCPU_XSAVE] = {"X86_PV_VCPU_XSAVE", 8, ANY, check_vcpu_xsave},
    [SR_REC_SHARED_INFO] = {"SHARED_INFO", SR_PAGE_SIZE, SR_PAGE_SIZE, NULL},
    [SR_REC_X86_TSC_INFO] = {"X86_TSC_INFO", 24, 24, check_tsc_info},
    [SR_REC_HVM_CONTEXT] = {"HVM_CONTEXT", 1, ANY, NULL},
    [SR_REC_HVM_PARAMS] = {"HVM_PARAMS", 8, ANY, check_hvm_params},
    [SR_REC_TOOLSTACK] = {"TOOLSTACK", 0, ANY, NULL},
    [SR_REC_X86_PV_VCPU_MSRS] = {"X86_PV_VCPU_MSRS", 8, ANY, check_vcpu_msrs},
    [SR_REC_VERIFY] = {"VERIFY", 0, 0, NULL},
    [SR_REC_CHECKPOINT] = {"CHECKPOINT", 0, 0, NULL},
    [SR_REC_CHECKPOINT_DIRTY_PFN_LIST] = {"CHECKPOINT_DIRTY_PFN_LIST", 0, ANY,
                                          check_dirty_pfn_list},
    [SR_REC_STATIC_DATA_END] = {"STATIC_DATA_END", 0, 0, NULL},
    [SR_REC_X86_CPUID_POLICY] = {"X86_CPUID_POLICY", SR_CPUID_ENTRY_SIZE, ANY, NULL},
    [SR_REC_X86_MSR_POLICY] = {"X86_MSR_POLICY", SR_MSR_ENTRY_SIZE, ANY, NULL},
};

static const struct record_kind encoded_pages = {
    "ENCODED_PAGES", sizeof(struct sr_encoded_pages) + 8,
    sizeof(struct sr_encoded_pages) + 8 * SR_ENCODED_COUNT_MAX + SR_ENCODED_CONTENT_MAX,
    check_encoded_pages};

static const struct record_kind *find_kind(uint32_t type)
{
    if (type == SR_REC_ENCODED_PAGES) return &encoded_pages;
    return type < sizeof(kinds) / sizeof(kinds[0]) ? &kinds[type] : NULL;
}

const char *xc_sr_record_name(uint32_t type)
{
    const struct record_kind *kind = find_kind(type);

    if (kind) return kind->name;
    return (type & SR_REC_OPTIONAL) ? "unknown optional record" : "unknown record";
}

/* Arrays of fixed entries: also decidable from the length alone. */
static const char *check_entries(uint32_t type, uint32_t length)
{
    if (type == SR_REC_X86_CPUID_POLICY && length % SR_CPUID_ENTRY_SIZE)
        return "X86_CPUID_POLICY: length is not a whole number of entries";
    if (type == SR_REC_X86_MSR_POLICY && length % SR_MSR_ENTRY_SIZE)
        return "X86_MSR_POLICY: length is not a whole number of entries";
    if (type == SR_REC_CHECKPOINT_DIRTY_PFN_LIST && length % 8)
        return "CHECKPOINT_DIRTY_PFN_LIST: length is not a multiple of 8";
    return NULL;
}

const char *xc_sr_record_check(uint32_t type, uint32_t length, const void *body)
{
    const struct record_kind *kind = find_kind(type);
    const char *wrong;

    if (length > SR_REC_LENGTH_MAX) return "length exceeds 128 MiB";
    if (!kind) return (type & SR_REC_OPTIONAL) ? NULL : "type is unknown and not optional";
    if (length < kind->min) return "length is too short for this type";
    if (length > kind->max) return "length is too long for this type";
    wrong = check_entries(type, length);
    if (wrong) return wrong;
    return body && kind->check ? kind->check(length, body) : NULL;
}

const char *xc_sr_ihdr_check(const struct sr_ihdr *ihdr)
{
    if (ihdr->marker != SR_IHDR_MARKER) return "image header: marker is wrong";
    if (be32toh(ihdr->id) != SR_IHDR_ID) return "image header: not a Xen domain stream";
    if (be32toh(ihdr->version) < SR_IHDR_OLDEST_VERSION || be32toh(ihdr->version) > SR_IHDR_VERSION)
        return "image header: version is neither 2 nor 3";
    if (be16toh(ihdr->options) & SR_IHDR_OPT_BIG_ENDIAN)
        return "image header: big endian streams are not supported";
    return NULL;
}

const char *xc_sr_dhdr_check(const struct sr_dhdr *dhdr, uint32_t type)
{
    uint32_t have = le32toh(dhdr->type);

    if (have != SR_DHDR_TYPE_X86_PV && have != SR_DHDR_TYPE_X86_HVM)
        return "domain header: type is neither PV nor HVM";
    if (type && have != type) return "domain header: type differs from the domain's";
    if (le16toh(dhdr->page_shift) != SR_PAGE_SHIFT) return "domain header: page_shift is not 12";
    return NULL;
}

uint32_t xc_sr_ihdr_version(const struct sr_ihdr *ihdr)
{
    return be32toh(ihdr->version);
}

void xc_sr_headers_fill(struct sr_ihdr *ihdr, struct sr_dhdr *dhdr, uint32_t type,
                        uint32_t xen_major, uint32_t xen_minor)
{
    memset(ihdr, 0, sizeof(*ihdr));
    ihdr->marker = SR_IHDR_MARKER;
    ihdr->id = htobe32(SR_IHDR_ID);
    ihdr->version = htobe32(SR_IHDR_VERSION);

    memset(dhdr, 0, sizeof(*dhdr));
    dhdr->type = htole32(type);
    dhdr->page_shift = htole16(SR_PAGE_SHIFT);
    dhdr->xen_major = htole32(xen_major);
    dhdr->xen_minor = htole32(xen_minor);
}
