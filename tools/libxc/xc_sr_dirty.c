/* SPDX-License-Identifier: LGPL-2.1-only */
/* Sets of pfns. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "xc_sr_dirty.h"

#define WORD_BITS (8 * sizeof(unsigned long))

static unsigned long bit_of(uint64_t pfn)
{
    return 1UL << (pfn % WORD_BITS);
}

uint64_t xc_sr_dirty_words(uint64_t pfns)
{
    return pfns / WORD_BITS + (pfns % WORD_BITS != 0);
}

int xc_sr_dirty_alloc(struct xc_sr_dirty *d, uint64_t pfns)
{
    d->pfns = pfns;
    d->some = false;
    d->words = calloc(xc_sr_dirty_words(pfns) + 1, sizeof(unsigned long));
    return d->words ? 0 : -1;
}

void xc_sr_dirty_free(struct xc_sr_dirty *d)
{
    free(d->words);
    memset(d, 0, sizeof(*d));
}

void xc_sr_dirty_clear_all(struct xc_sr_dirty *d)
{
    if (!d->some) return;
    d->some = false;
    memset(d->words, 0, xc_sr_dirty_words(d->pfns) * sizeof(unsigned long));
}

void xc_sr_dirty_set_all(struct xc_sr_dirty *d)
{
    d->some = true;
    memset(d->words, 0xff, d->pfns / WORD_BITS * sizeof(unsigned long));
    if (d->pfns % WORD_BITS) d->words[d->pfns / WORD_BITS] = bit_of(d->pfns) - 1;
}

void xc_sr_dirty_set(struct xc_sr_dirty *d, uint64_t pfn)
{
    assert(pfn < d->pfns);
    d->words[pfn / WORD_BITS] |= bit_of(pfn);
    d->some = true;
}

void xc_sr_dirty_clear(struct xc_sr_dirty *d, uint64_t pfn)
{
    assert(pfn < d->pfns);
    d->words[pfn / WORD_BITS] &= ~bit_of(pfn);
}

bool xc_sr_dirty_test(const struct xc_sr_dirty *d, uint64_t pfn)
{
    return pfn < d->pfns && (d->words[pfn / WORD_BITS] & bit_of(pfn));
}

void xc_sr_dirty_merge(struct xc_sr_dirty *into, const struct xc_sr_dirty *from)
{
    uint64_t words = xc_sr_dirty_words(into->pfns), i;

    assert(into->pfns == from->pfns);
    if (!from->some) return;
    into->some = true;
    for (i = 0; i < words; i++)
        into->words[i] |= from->words[i];
}

uint64_t xc_sr_dirty_count(const struct xc_sr_dirty *d)
{
    uint64_t words = xc_sr_dirty_words(d->pfns), count = 0, i;

    for (i = 0; i < words; i++)
        count += (uint64_t)__builtin_popcountl(d->words[i]);
    return count;
}

uint64_t xc_sr_dirty_next(const struct xc_sr_dirty *d, uint64_t from)
{
    uint64_t words = xc_sr_dirty_words(d->pfns), i = from / WORD_BITS, pfn;
    unsigned long word;

    if (!d->some || from >= d->pfns) return XC_SR_PFN_NONE;
    word = d->words[i] & ~(bit_of(from) - 1);
    while (!word && ++i < words)
        word = d->words[i];
    if (!word) return XC_SR_PFN_NONE;
    pfn = i * WORD_BITS + (uint64_t)__builtin_ctzl(word);
    /* The hypervisor may set bits in the rest of the last byte. */
    return pfn < d->pfns ? pfn : XC_SR_PFN_NONE;
}

#define LEAF_SHIFT 15
#define LEAF_WORDS ((1UL << LEAF_SHIFT) / WORD_BITS)

void xc_sr_sparse_dispose(struct xc_sr_sparse *s)
{
    uint64_t i;

    for (i = 0; i < s->leaves_used; i++)
        free(s->leaves[i]);
    free(s->leaves);
    memset(s, 0, sizeof(*s));
}

static unsigned long *find_word(const struct xc_sr_sparse *s, uint64_t pfn)
{
    unsigned long *leaf;

    if (pfn >> LEAF_SHIFT >= s->leaves_used) return NULL;
    leaf = s->leaves[pfn >> LEAF_SHIFT];
    return leaf ? &leaf[(pfn / WORD_BITS) % LEAF_WORDS] : NULL;
}

/* At the highest pfn the table of leaves takes 16 MiB. */
static int grow_leaves(struct xc_sr_sparse *s, uint64_t count)
{
    unsigned long **leaves = realloc(s->leaves, count * sizeof(*leaves));

    if (!leaves) return -1;
    memset(leaves + s->leaves_used, 0, (count - s->leaves_used) * sizeof(*leaves));
    s->leaves = leaves;
    s->leaves_used = count;
    return 0;
}

int xc_sr_sparse_set(struct xc_sr_sparse *s, uint64_t pfn)
{
    uint64_t i = pfn >> LEAF_SHIFT;

    if (pfn >= XC_SR_SPARSE_PFNS) {
        errno = ERANGE;
        return -1;
    }
    if (i >= s->leaves_used && grow_leaves(s, i + 1)) return -1;
    if (!s->leaves[i]) s->leaves[i] = calloc(LEAF_WORDS, sizeof(unsigned long));
    if (!s->leaves[i]) return -1;
    *find_word(s, pfn) |= bit_of(pfn);
    return 0;
}

void xc_sr_sparse_clear(struct xc_sr_sparse *s, uint64_t pfn)
{
    unsigned long *word = find_word(s, pfn);

    if (word) *word &= ~bit_of(pfn);
}

bool xc_sr_sparse_test(const struct xc_sr_sparse *s, uint64_t pfn)
{
    const unsigned long *word = find_word(s, pfn);

    return word && (*word & bit_of(pfn));
}

uint64_t xc_sr_sparse_next(const struct xc_sr_sparse *s, uint64_t from)
{
    while (from >> LEAF_SHIFT < s->leaves_used) {
        const unsigned long *word = find_word(s, from);
        unsigned long left = word ? *word & ~(bit_of(from) - 1) : 0;

        if (left) return from - from % WORD_BITS + (uint64_t)__builtin_ctzl(left);
        if (word)
            from += WORD_BITS - from % WORD_BITS;
        else
            from = ((from >> LEAF_SHIFT) + 1) << LEAF_SHIFT;
    }
    return XC_SR_PFN_NONE;
}
