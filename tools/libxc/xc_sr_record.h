/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * One record of the libxc stream: its name, and whether its bytes make sense.
 *
 * Nothing here reads, allocates or knows a hypervisor. Every reader of a stream (the restore
 * engine, the backup's twin, the fuzzers) asks here before it uses a byte that a peer sent.
 */
#ifndef XC_SR_RECORD_H
#define XC_SR_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xc_sr_stream_format.h"

/* A static text, never NULL: "PAGE_DATA", "unknown optional record", ... */
const char *xc_sr_record_name(uint32_t type);

/*
 * Checks all that one record alone tells: length, counts, reserved fields, page types, pfns.
 * `body` has `length` bytes and needs no alignment; NULL checks type and length only, which is
 * what a reader wants to know before it makes room for the body.
 * Returns NULL when the record is fine (also for an unknown optional one), else a static text that
 * names the field that is wrong.
 */
const char *xc_sr_record_check(uint32_t type, uint32_t length, const void *body);

/* The two headers. NULL or the field that is wrong. `type`: the domain type we expect, 0 = any. */
const char *xc_sr_ihdr_check(const struct sr_ihdr *ihdr);
const char *xc_sr_dhdr_check(const struct sr_dhdr *dhdr, uint32_t type);

/* The version of a checked image header, in host order. */
uint32_t xc_sr_ihdr_version(const struct sr_ihdr *ihdr);

/* Fills both headers for a stream of ours. */
void xc_sr_headers_fill(struct sr_ihdr *ihdr, struct sr_dhdr *dhdr, uint32_t type,
                        uint32_t xen_major, uint32_t xen_minor);

/* What stands before the entries of a PAGE_DATA record. Its length needs no padding. */
struct xc_sr_page_head {
    struct sr_rhdr rhdr;
    struct sr_page_data data;
} __attribute__((packed));

struct xc_sr_page_head xc_sr_page_head(unsigned int entries, unsigned int pages);

/* Body plus padding. Only for a length that xc_sr_record_check accepted. */
static inline uint32_t xc_sr_record_padded(uint32_t length)
{
    return (length + SR_REC_ALIGN - 1) & ~(uint32_t)(SR_REC_ALIGN - 1);
}

/* One entry of PAGE_DATA. */
static inline uint32_t xc_sr_entry_type(uint64_t entry)
{
    return (uint32_t)(entry >> SR_PFN_TYPE_SHIFT);
}

static inline uint64_t xc_sr_entry_pfn(uint64_t entry)
{
    return entry & SR_PFN_MASK;
}

/* Of ENCODED_PAGES; 0 in PAGE_DATA. */
static inline uint32_t xc_sr_entry_encoding(uint64_t entry)
{
    return (uint32_t)(entry >> SR_ENCODED_SHIFT) & 0xf;
}

bool xc_sr_page_type_known(uint32_t type);
bool xc_sr_page_type_has_data(uint32_t type);
bool xc_sr_page_type_populated(uint32_t type);

#endif
