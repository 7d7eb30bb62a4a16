/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Pages into ENCODED_PAGES records (docs/misc/encoding.md).
 *
 * Pages go in one after the other; whole records come out, collected in one piece of memory of
 * fixed size. Nothing here writes, waits or knows a hypervisor.
 *
 *     add add add ... XC_SR_ENCODE_FULL -> take, write | add add ... | finish -> take, write
 */
#ifndef XC_SR_ENCODE_H
#define XC_SR_ENCODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum xc_sr_encode_mode {
    XC_SR_ENCODE_NONE = 0, /* plain PAGE_DATA: there is no encoder */
    XC_SR_ENCODE_DELTA,    /* unchanged, zero, delta */
    XC_SR_ENCODE_LZ4,      /* these, and the contents compressed */
    XC_SR_ENCODE_AUTO,     /* these, compressed while the link is slower than compressing */
};

/* The word for it, as in --compress. false: there is no such word. */
static inline bool xc_sr_encode_parse(const char *word, enum xc_sr_encode_mode *mode)
{
    static const char *const words[] = {"none", "delta", "lz4", "auto"};
    unsigned int i;

    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i])) continue;
        *mode = (enum xc_sr_encode_mode)i;
        return true;
    }
    return false;
}

struct xc_sr_encode_counts {
    uint64_t unchanged, zero, delta, raw; /* pages */
    uint64_t plain_bytes;                 /* what they would have taken as PAGE_DATA */
    uint64_t bytes;                       /* records taken out so far */
};

struct xc_sr_encoder;

/*
 * NULL with errno when there is no memory. ref_limit_bytes: for the reference image; with 0 pages
 * are never compared. mode is not NONE.
 */
struct xc_sr_encoder *xc_sr_encoder_new(enum xc_sr_encode_mode mode, uint64_t pfns,
                                        uint64_t ref_limit_bytes);
void xc_sr_encoder_free(struct xc_sr_encoder *e); /* NULL is fine */

/*
 * One page, aligned to 64 octets, that nobody changes meanwhile; or one without contents (page
 * NULL, type tells why). Returns true when records are to be taken out before the next is added.
 */
bool xc_sr_encoder_add(struct xc_sr_encoder *e, uint64_t pfn, uint32_t type, const void *page);
/* For a page that the guest may be writing: a snapshot of it. Good until the next call. */
const void *xc_sr_encoder_snapshot(struct xc_sr_encoder *e, const void *page);

/* Closes the record under way. */
void xc_sr_encoder_finish(struct xc_sr_encoder *e);
/* The records so far, and empties; valid until the next add. 0 = there are none. */
size_t xc_sr_encoder_take(struct xc_sr_encoder *e, const void **records);

/* AUTO: so many octets were written in so many us, waits included. */
void xc_sr_encoder_link(struct xc_sr_encoder *e, uint64_t bytes, uint64_t us);
/* A checkpoint was sent: judges the link. */
void xc_sr_encoder_checkpoint(struct xc_sr_encoder *e);

const struct xc_sr_encode_counts *xc_sr_encoder_counts(const struct xc_sr_encoder *e);

#endif
