/* SPDX-License-Identifier: LGPL-2.1-only */
#include "dirtier.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

enum { PAGE_BYTES = 4096, PAGE_WORDS = PAGE_BYTES / 8 };
enum { WORD_MAGIC, WORD_INDEX, WORD_GENERATION, WORD_FILL };

#define PAGE_MAGIC 0x7874677565737431u
#define NS_PER_S 1000000000u
/* After a long stop the dirtier does not catch up by more than this. */
#define CATCH_UP_NS 200000000u

static uint64_t *set;
static uint64_t expected[DIRTIER_PAGES_MAX]; /* generation of each page */
static unsigned int set_pages, rate_per_s;
static size_t cursor;
static uint64_t generation, last_ns, owed; /* owed: pages times NS_PER_S */

static uint64_t fill_word(uint64_t index, uint64_t gen, uint64_t word)
{
    uint64_t x = index * 0x9e3779b97f4a7c15u + gen * 0xbf58476d1ce4e5b9u + word;

    x = (x ^ (x >> 31)) * 0x94d049bb133111ebu;
    return x ^ (x >> 29);
}

static uint64_t page_sum(const uint64_t *page)
{
    uint64_t sum = 0;

    for (int i = 0; i < PAGE_WORDS - 1; i++)
        sum = (sum << 1 | sum >> 63) ^ page[i];
    return sum;
}

static void write_page(size_t index)
{
    uint64_t *page = set + index * PAGE_WORDS;
    uint64_t gen = ++generation;

    page[WORD_MAGIC] = PAGE_MAGIC;
    page[WORD_INDEX] = index;
    page[WORD_GENERATION] = gen;
    for (int i = WORD_FILL; i < PAGE_WORDS - 1; i++)
        page[i] = fill_word(index, gen, (uint64_t)i);
    page[PAGE_WORDS - 1] = page_sum(page);
    expected[index] = gen;
}

static int page_is_good(size_t index)
{
    const uint64_t *page = set + index * PAGE_WORDS;
    uint64_t gen = expected[index];

    if (page[WORD_MAGIC] != PAGE_MAGIC || page[WORD_INDEX] != index || page[WORD_GENERATION] != gen)
        return 0;
    for (int i = WORD_FILL; i < PAGE_WORDS - 1; i++)
        if (page[i] != fill_word(index, gen, (uint64_t)i)) return 0;
    return page[PAGE_WORDS - 1] == page_sum(page);
}

/* A set that does not fit would have the kernel kill us instead of failing. */
static int set_fits(unsigned int pages)
{
    struct sysinfo si;
    uint64_t spare;

    if (sysinfo(&si)) return 0;
    spare = (uint64_t)si.freeram * si.mem_unit + (uint64_t)set_pages * PAGE_BYTES;
    return (uint64_t)pages * PAGE_BYTES < spare / 4 * 3;
}

static int set_resize(unsigned int pages)
{
    void *memory = NULL;

    if (!set_fits(pages)) {
        errno = ENOMEM;
        return -1;
    }
    if (set) munmap(set, (size_t)set_pages * PAGE_BYTES);
    set = NULL;
    set_pages = 0;
    cursor = 0;
    if (!pages) return 0;
    memory = mmap(NULL, (size_t)pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return -1;
    set = memory;
    set_pages = pages;
    for (size_t i = 0; i < set_pages; i++)
        write_page(i);
    return 0;
}

int dirtier_set(unsigned int rate, unsigned int pages)
{
    if (rate > DIRTIER_RATE_MAX || pages > DIRTIER_PAGES_MAX) {
        errno = ERANGE;
        return -1;
    }
    if (pages != set_pages && set_resize(pages)) return -1;
    rate_per_s = rate;
    owed = 0;
    return 0;
}

void dirtier_run(uint64_t now_ns)
{
    uint64_t elapsed = now_ns - last_ns;

    last_ns = now_ns;
    if (!set_pages || !rate_per_s) return;
    if (elapsed > CATCH_UP_NS) elapsed = CATCH_UP_NS;
    owed += elapsed * rate_per_s;
    for (; owed >= NS_PER_S; owed -= NS_PER_S) {
        write_page(cursor);
        cursor = (cursor + 1) % set_pages;
    }
}

size_t dirtier_check(size_t *first_bad)
{
    size_t bad = 0;

    for (size_t i = 0; i < set_pages; i++) {
        if (page_is_good(i)) continue;
        if (!bad++) *first_bad = i;
    }
    return bad;
}

size_t dirtier_pages(void)
{
    return set_pages;
}

uint64_t dirtier_generation(void)
{
    return generation;
}
