/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The libxc migration stream: numbers and layouts, no code.
 *
 *   image header | domain header | record ... record
 *
 * The image header is big endian, everything behind it little endian (the only byte order that
 * x86 streams have). A record is
 *
 *   u32 type | u32 length | length bytes of body | zero bytes up to a multiple of 8
 *
 * `length` does not count the padding. Types with bit 31 set are optional: a reader that does not
 * know one skips it; any other unknown type ends the restore.
 */
#ifndef XC_SR_STREAM_FORMAT_H
#define XC_SR_STREAM_FORMAT_H

#include <stdint.h>

#define SR_IHDR_MARKER 0xffffffffffffffffULL
#define SR_IHDR_ID 0x58454e46U
#define SR_IHDR_VERSION 3
#define SR_IHDR_OLDEST_VERSION 2
#define SR_IHDR_OPT_BIG_ENDIAN 1

struct sr_ihdr {
    uint64_t marker;
    uint32_t id;
    uint32_t version;
    uint16_t options;
    uint16_t reserved1;
    uint32_t reserved2;
} __attribute__((packed));

#define SR_DHDR_TYPE_X86_PV 1
#define SR_DHDR_TYPE_X86_HVM 2

struct sr_dhdr {
    uint32_t type;
    uint16_t page_shift;
    uint16_t reserved;
    uint32_t xen_major;
    uint32_t xen_minor;
} __attribute__((packed));

struct sr_rhdr {
    uint32_t type;
    uint32_t length;
} __attribute__((packed));

#define SR_REC_ALIGN 8
#define SR_REC_LENGTH_MAX (128U << 20) /* of the body with its padding */
#define SR_REC_OPTIONAL 0x80000000U

enum sr_record_type {
    SR_REC_END = 0x00,
    SR_REC_PAGE_DATA = 0x01,
    SR_REC_X86_PV_INFO = 0x02,
    SR_REC_X86_PV_P2M_FRAMES = 0x03,
    SR_REC_X86_PV_VCPU_BASIC = 0x04,
    SR_REC_X86_PV_VCPU_EXTENDED = 0x05,
    SR_REC_X86_PV_VCPU_XSAVE = 0x06,
    SR_REC_SHARED_INFO = 0x07,
    SR_REC_X86_TSC_INFO = 0x08,
    SR_REC_HVM_CONTEXT = 0x09,
    SR_REC_HVM_PARAMS = 0x0a,
    SR_REC_TOOLSTACK = 0x0b,
    SR_REC_X86_PV_VCPU_MSRS = 0x0c,
    SR_REC_VERIFY = 0x0d,
    SR_REC_CHECKPOINT = 0x0e,
    SR_REC_CHECKPOINT_DIRTY_PFN_LIST = 0x0f,
    SR_REC_STATIC_DATA_END = 0x10,
    SR_REC_X86_CPUID_POLICY = 0x11,
    SR_REC_X86_MSR_POLICY = 0x12,
    /* Ours, far from the numbers that Xen gives out; only after --replication 2 was agreed on. */
    SR_REC_ENCODED_PAGES = 0x58540001,
};

#define SR_PAGE_SHIFT 12
#define SR_PAGE_SIZE 4096U

/* PAGE_DATA: this head, u64 entry[count], then one page for each entry whose type carries data. */
struct sr_page_data {
    uint32_t count;
    uint32_t reserved;
} __attribute__((packed));

#define SR_PFN_TYPE_SHIFT 60
#define SR_PFN_MASK ((1ULL << 52) - 1)
#define SR_PFN_RESERVED 0x0ff0000000000000ULL

enum sr_page_type {
    SR_PAGE_NORMAL = 0x0,
    SR_PAGE_L1 = 0x1,
    SR_PAGE_L4 = 0x4,
    SR_PAGE_PINNED_L1 = 0x9,
    SR_PAGE_PINNED_L4 = 0xc,
    SR_PAGE_BROKEN = 0xd,
    SR_PAGE_XALLOC = 0xe, /* populate, without contents */
    SR_PAGE_XTAB = 0xf,   /* nothing is there */
};

/*
 * ENCODED_PAGES (docs/misc/encoding.md): this head, u64 entry[count], then the content of the
 * entries in their order, as it is or as one LZ4 block.
 */
struct sr_encoded_pages {
    uint32_t count;
    uint32_t method;
    uint32_t content_length; /* of the content as it is */
    uint32_t reserved;
} __attribute__((packed));

#define SR_ENCODED_COUNT_MAX 1024U
#define SR_ENCODED_CONTENT_MAX 65536U
#define SR_ENCODED_SHIFT 52 /* the encoding in an entry: 4 bits */
#define SR_ENCODED_RESERVED 0x0f00000000000000ULL

enum sr_encoded_method { SR_METHOD_STORED = 0, SR_METHOD_LZ4 = 1 };

enum sr_page_encoding {
    SR_ENCODING_RAW = 0,   /* 4096 octets */
    SR_ENCODING_ZERO = 1,  /* nothing */
    SR_ENCODING_DELTA = 2, /* the words that changed since the copy before */
};

/* A delta counts words of 8 octets in lines of 8 words. */
#define SR_LINE_SIZE 64U
#define SR_PAGE_LINES 64U

struct sr_x86_pv_info {
    uint8_t guest_width;
    uint8_t pt_levels;
    uint8_t reserved[6];
} __attribute__((packed));

/* Followed by u64 pfn[]: the pages which hold the guest's p2m for start_pfn..end_pfn. */
struct sr_x86_pv_p2m_frames {
    uint32_t start_pfn;
    uint32_t end_pfn;
} __attribute__((packed));

/* Head of the four per-vcpu records. */
struct sr_x86_pv_vcpu {
    uint32_t vcpu_id;
    uint32_t reserved;
} __attribute__((packed));

#define SR_PV_VCPU_BASIC_SIZE_64 0x1430U
#define SR_PV_VCPU_BASIC_SIZE_32 0x0af0U
#define SR_PV_VCPU_EXTENDED_MAX 128U
#define SR_PV_VCPU_XSAVE_MIN 16U
#define SR_MSR_ENTRY_SIZE 16U
#define SR_CPUID_ENTRY_SIZE 24U

struct sr_x86_tsc_info {
    uint32_t mode;
    uint32_t khz;
    uint64_t nsec;
    uint32_t incarnation;
    uint32_t reserved;
} __attribute__((packed));

/* Followed by struct sr_hvm_param[count]. */
struct sr_hvm_params {
    uint32_t count;
    uint32_t reserved;
} __attribute__((packed));

struct sr_hvm_param {
    uint64_t index;
    uint64_t value;
} __attribute__((packed));

#endif
