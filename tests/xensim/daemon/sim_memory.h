/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A domain's memory: a sparse memfd of frames, a physmap from guest frame numbers to frames, and the dirty log.
 *
 *   frame   0 ............ SIM_GFNS ................ + SIM_SPARE .......... + SIM_GRANT_FRAMES
 *           a gfn's first page: the same number | pages that came back | grant table
 *
 * As with Xen, a page that is given back while somebody maps it stays, and counts as the domain's, until it is
 * unmapped; a new page at that gfn then is another frame. And as with Xen 4.17, a page that comes while the log is on is not
 * logged before the next CLEAN.
 *
 * All calls need the domain's lock.
 */
#ifndef SIM_MEMORY_H
#define SIM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../xensim_wire.h"

#define SIM_GFNS (1UL << 25) /* 128 GiB of guest addresses */
#define SIM_SPARE (1UL << 22)
#define SIM_GRANT_FRAMES 64UL
#define SIM_GRANT_FIRST (SIM_GFNS + SIM_SPARE)
#define SIM_FRAMES (SIM_GRANT_FIRST + SIM_GRANT_FRAMES)

struct sim_memory {
    int fd;
    uint8_t *base;    /* all frames; untouched ones use no memory */
    uint32_t *p2m;    /* frame + 1, 0 = no page */
    uint32_t *maps;   /* by frame: mappings by callers; the top bit: given back meanwhile */
    uint64_t gfn_end; /* above the highest gfn that ever had a page */
    uint64_t tot_pages, max_pages;
    uint64_t mapped; /* pages mapped by callers, each as often as it is mapped */
    uint32_t *spare; /* free frames that were used before */
    uint32_t spares, spare_next;
    bool log;
    uint64_t *dirty, *fresh;
    uint64_t dirty_count;
};

/* 0 or an errno. */
int sim_memory_init(struct sim_memory *m, const char *name);
void sim_memory_dispose(struct sim_memory *m); /* safe twice */

/* 0, EEXIST, EINVAL (no such gfn) or ENOMEM (over max_pages). The page is all zeroes. */
int sim_memory_populate(struct sim_memory *m, uint64_t gfn);
/* false: there was none. */
bool sim_memory_remove(struct sim_memory *m, uint64_t gfn);
void sim_memory_remove_all(struct sim_memory *m);
/* SIM_NO_FRAME when there is none. */
uint32_t sim_memory_frame(const struct sim_memory *m, uint64_t gfn);
/* NULL when there is none. */
void *sim_memory_page(const struct sim_memory *m, uint64_t gfn);

void sim_memory_map(struct sim_memory *m, uint32_t frame);
void sim_memory_unmap(struct sim_memory *m, uint32_t frame);

/* The guest has written here. */
void sim_memory_mark(struct sim_memory *m, uint64_t gfn);
/* 0 or EINVAL (it is on already). */
int sim_memory_log_on(struct sim_memory *m);
void sim_memory_log_off(struct sim_memory *m);
/* The log was read: empty it; everything is logged from here on. */
void sim_memory_log_clean(struct sim_memory *m);

#endif
