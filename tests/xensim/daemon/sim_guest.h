/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The synthetic guest: a thread that works in turns of 1 ms of guest time, while its domain may run.
 *
 * All it knows is in the domain's memory and registers, so it goes on wherever those are restored:
 *
 *   rip = SIM_GUEST_RIP, rbx = address of struct sim_guest_state, r12 = its ticks
 *
 * If memory and registers are not of the same instant, or the memory is not what it wrote, it crashes itself (shutdown
 * code 3) and the daemon logs why. What the thread keeps outside is only sockets and the pace.
 */
#ifndef SIM_GUEST_H
#define SIM_GUEST_H

#include "sim_domain.h"

#define SIM_GUEST_RIP 0x78656e73696d2121ULL
#define SIM_GUEST_MAGIC 0x7468652067756573ULL
#define SIM_STATE_GFN 16UL
#define SIM_KV_GFN 32UL
#define SIM_SET_FIRST 1024UL /* index of the first page that the dirtier uses */
#define SIM_HOLE_GFN 0xf0000UL
#define SIM_HOLE_GFNS 0x10000UL
#define SIM_CHUNK 512UL

enum sim_choice { SIM_UNIFORM, SIM_ZIPF, SIM_SEQUENTIAL };
enum sim_fill { SIM_FULL, SIM_SPARSE, SIM_ZERO, SIM_SAME };

/* In guest memory. */
struct sim_guest_state {
    uint64_t magic;
    uint64_t ticks; /* ms that it ran */
    uint64_t rng;
    uint64_t stride; /* RAM has one chunk of 2 MiB in so many */
    uint64_t pages;  /* of the dirtier's set */
    uint64_t rate;   /* pages it writes per second */
    uint64_t owed;   /* of them, in 1/1000 */
    uint32_t choice, fill, words, kv_slots;
    uint64_t next;   /* sequential */
    uint64_t writes; /* so far */
    uint64_t sum;    /* of the first words of the set's pages */
    uint64_t kv_writes;
};

/* What a new guest is to be; strings of "key=value,..." */
struct sim_guest_spec {
    struct sim_guest_state state;
    bool ram_random; /* all RAM has contents, not only the set */
};

/* 0, or EINVAL with one line in why. */
int sim_guest_parse(const char *text, struct sim_guest_spec *spec, char *why, size_t why_size);

int sim_guest_create(struct sim_domain *d); /* the struct only; 0 or an errno */
void sim_guest_start(struct sim_domain *d); /* the thread */
void sim_guest_end(struct sim_domain *d);   /* needs no lock; frees; safe twice */

/* The following need d->lock. */
/* Index of a RAM page -> gfn. */
uint64_t sim_guest_gfn(uint64_t index, uint64_t stride);
/* Writes state and contents into the memory, whose RAM is populated, and the registers. */
int sim_guest_load(struct sim_domain *d, const struct sim_guest_spec *spec);
struct sim_guest_state *sim_guest_state(const struct sim_domain *d); /* NULL: there is no guest */
/* Does guest.S stand where the vcpu is? Then the guest begins: sim_guest_boot.c. */
bool sim_guest_boot(struct sim_domain *d);
/* The guest is asked to shut down with this code; it will, at its next turn. */
void sim_guest_ask(struct sim_domain *d, uint8_t code);
/* Manual time: it runs only as told by sim_guest_step. */
void sim_guest_manual(struct sim_domain *d, bool manual);
void sim_guest_step(struct sim_domain *d, uint64_t ticks);
/* Writes so many pages at once. 0 or EINVAL: it cannot run. */
int sim_guest_write(struct sim_domain *d, uint64_t pages);
/* Changes the pace, as if the guest had decided it. */
int sim_guest_set_rate(struct sim_domain *d, uint64_t rate);
/* Is its memory what it wrote? */
bool sim_guest_verify(const struct sim_domain *d);
uint64_t sim_guest_time_ns(const struct sim_domain *d);

/* --- sim_guest_kv.c: the key-value table and its server --- */
struct sim_kv;
struct sim_kv *sim_kv_open(uint32_t domid); /* NULL with errno */
void sim_kv_close(struct sim_kv *kv);
/* Waits for requests, no longer than timeout_ms. Reads them only if `serve`. */
void sim_kv_wait(struct sim_kv *kv, int wake_fd, int timeout_ms, bool serve);
/* Does what was asked; under d->lock. */
void sim_kv_work(struct sim_kv *kv, struct sim_domain *d);
/* One request, which is changed; the answer has SIM_KV_LINE bytes. Under d->lock, of a guest that is there. */
#define SIM_KV_LINE 512
void sim_kv_execute(struct sim_domain *d, char *line, char *answer);
/* Sends the answers. */
void sim_kv_answer(struct sim_kv *kv);

/* --- sim_guest_dirty.c: the dirtier --- */
void sim_dirty_page(struct sim_domain *d, struct sim_guest_state *s);
uint64_t sim_dirty_random(uint64_t *rng);

#endif
