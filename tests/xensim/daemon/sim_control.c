/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xen/sched.h>
#include <xxhash.h>

#include "sim_build.h"
#include "sim_control.h"
#include "sim_evtchn.h"
#include "sim_fault.h"
#include "sim_guest.h"
#include "sim_hypercall.h"

#define WORDS 16

struct request {
    char *words[WORDS];
    int count;
    const char *rest; /* the line after its first word */
    char *answer;
    size_t size;
    struct sim_domain *d; /* for commands about one: with a reference and its lock */
    uint64_t n[WORDS];    /* what the words after the domid say as numbers */
};

static int fail(const struct request *r, int error, const char *why)
{
    snprintf(r->answer, r->size, "%s", why);
    return error;
}

static bool number(const char *text, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 0);
    return !errno && end != text && !*end && *text != '-';
}

static bool set_build(struct sim_build *b, const char *key, const char *value, const char **guest)
{
    uint64_t n;

    if (!strcmp(key, "mem")) return number(value, &b->mem_mib);
    if (!strcmp(key, "present")) return number(value, &b->present_mib);
    if (!strcmp(key, "guest")) {
        *guest = value;
        return true;
    }
    if (!strcmp(key, "type")) {
        b->hvm = !strcmp(value, "hvm");
        return b->hvm || !strcmp(value, "pvh");
    }
    if (strcmp(key, "empty") || !number(value, &n) || n > 1) return false;
    b->empty = n;
    return true;
}

static int parse_create(struct request *r, struct sim_build *b)
{
    const char *guest = "";
    int i;

    memset(b, 0, sizeof(*b));
    for (i = 1; i < r->count; i++) {
        char *value = strchr(r->words[i], '=');

        if (value) *value++ = 0;
        if (!value || !set_build(b, r->words[i], value, &guest))
            return fail(r, EINVAL,
                        "create: say mem=MIB [type=pvh|hvm] [present=MIB] [guest=SPEC] [empty=1]");
    }
    if (b->mem_mib < 8 || b->mem_mib > 100 * 1024 || b->present_mib > b->mem_mib)
        return fail(r, EINVAL, "create: mem is 8 to 102400 MiB, present no more than that");
    if (sim_guest_parse(guest, &b->guest, r->answer, r->size)) return EINVAL;
    if (b->present_mib) b->guest.state.stride = b->mem_mib / b->present_mib;
    return 0;
}

static int do_create(struct request *r)
{
    struct sim_domain *d;
    struct sim_build b;
    int rc = parse_create(r, &b);

    if (rc) return rc;
    rc = sim_build_domain(&b, &d);
    if (rc)
        return fail(r, rc,
                    "create: the domain cannot be made; is the dirtier's set larger than its RAM?");
    snprintf(r->answer, r->size, "%u\n", d->domid);
    sim_domain_put(d);
    return 0;
}

static int do_list(struct request *r)
{
    struct sim_domain *d;
    uint32_t next = 0;
    size_t at = 0;

    for (; (d = sim_domain_next(next)) && at < r->size; sim_domain_put(d)) {
        next = d->domid + 1;
        pthread_mutex_lock(&d->lock);
        at += (size_t)snprintf(r->answer + at, r->size - at, "%u %lu pages %s%s%s%s\n", d->domid,
                               (unsigned long)d->mem.tot_pages, d->dying ? "dying " : "",
                               d->paused ? "paused " : "", d->shutdown ? "shutdown " : "",
                               sim_domain_runnable(d) ? "running" : "");
        pthread_mutex_unlock(&d->lock);
    }
    return 0;
}

static int do_info(struct request *r)
{
    const struct sim_domain *d = r->d;
    const struct sim_guest_state *s = sim_guest_state(d);

    snprintf(r->answer, r->size,
             "pages=%lu gfns=%lu mapped=%lu log=%d dirty=%lu paused=%u shutdown=%d code=%u "
             "dying=%d ticks=%lu writes=%lu kv=%lu suspends=%lu suspend_hash=%016lx\n",
             (unsigned long)d->mem.tot_pages, (unsigned long)d->mem.gfn_end,
             (unsigned long)d->mem.mapped, d->mem.log, (unsigned long)d->mem.dirty_count, d->paused,
             d->shutdown, d->shutdown_code, d->dying, (unsigned long)(s ? s->ticks : 0),
             (unsigned long)(s ? s->writes : 0), (unsigned long)(s ? s->kv_writes : 0),
             (unsigned long)d->suspends, (unsigned long)d->suspend_hash);
    return 0;
}

static int do_hash(struct request *r)
{
    uint64_t pages, hash = sim_domain_hash(r->d, &pages);

    snprintf(r->answer, r->size, "%016lx %lu\n", (unsigned long)hash, (unsigned long)pages);
    return 0;
}

/* One line per page: gfn and hash, for diff(1). */
static int do_pages(struct request *r)
{
    const struct sim_domain *d = r->d;
    uint64_t gfn;
    FILE *f = r->count > 2 ? fopen(r->words[2], "we") : NULL;

    if (!f) return fail(r, EINVAL, "pages: say DOMID FILE; the file cannot be written");
    for (gfn = 0; gfn < d->mem.gfn_end; gfn++) {
        const void *page = sim_memory_page(&d->mem, gfn);

        if (page && !sim_domain_is_shared_page(d, gfn))
            fprintf(f, "%lx %016lx\n", (unsigned long)gfn,
                    (unsigned long)XXH3_64bits(page, SIM_PAGE_SIZE));
    }
    return fclose(f) ? fail(r, EIO, "pages: the file cannot be written") : 0;
}

static int do_pause(struct request *r)
{
    r->d->paused++;
    return 0;
}

static int do_unpause(struct request *r)
{
    if (!r->d->paused) return fail(r, EINVAL, "unpause: it is not paused");
    r->d->paused--;
    return 0;
}

static int do_shutdown(struct request *r)
{
    sim_domain_shutdown(r->d, (uint8_t)r->n[0]);
    return 0;
}

static int do_resume(struct request *r)
{
    r->d->shutdown = false;
    r->d->shutdown_code = 0;
    return 0;
}

static int do_ask(struct request *r)
{
    sim_guest_ask(r->d, (uint8_t)r->n[0]);
    return 0;
}

static int do_manual(struct request *r)
{
    sim_guest_manual(r->d, r->n[0]);
    return 0;
}

static int do_step(struct request *r)
{
    sim_guest_step(r->d, r->n[0]);
    return 0;
}

static int do_write(struct request *r)
{
    return sim_guest_write(r->d, r->n[0])
               ? fail(r, EINVAL, "write: the guest cannot run, or has no set")
               : 0;
}

static int do_rate(struct request *r)
{
    return sim_guest_set_rate(r->d, r->n[0])
               ? fail(r, EINVAL, "rate: there is no guest, or it has no set")
               : 0;
}

static int do_verify(struct request *r)
{
    return sim_guest_verify(r->d) ? 0
                                  : fail(r, EIO, "verify: the memory is not what the guest wrote");
}

static int do_log_off(struct request *r)
{
    sim_memory_log_off(&r->d->mem);
    return 0;
}

/* What a client of the guest's table would ask, without a socket. */
static int do_kv(struct request *r)
{
    char line[SIM_KV_LINE];
    const char *request = r->rest + strcspn(r->rest, " ");

    if (!sim_domain_runnable(r->d) || !sim_guest_state(r->d))
        return fail(r, EINVAL, "kv: the guest cannot run");
    snprintf(line, sizeof(line), "%s", request + strspn(request, " "));
    sim_kv_execute(r->d, line, r->answer);
    return 0;
}

static int do_hash_suspends(struct request *r)
{
    r->d->hash_suspends = r->n[0];
    return 0;
}

/* As `xl mem-set` does before the guest's balloon moves. */
static int do_max(struct request *r)
{
    r->d->mem.max_pages = r->n[0] << (20 - SIM_PAGE_SHIFT);
    return 0;
}

/* The guest's balloon: pages go, or come back. */
static int do_balloon(struct request *r, bool in)
{
    uint64_t i;

    if (!sim_domain_runnable(r->d)) return fail(r, EINVAL, "balloon: the guest cannot run");
    for (i = 0; i < r->n[1]; i++)
        if (in ? sim_memory_populate(&r->d->mem, r->n[0] + i) != 0
               : !sim_memory_remove(&r->d->mem, r->n[0] + i))
            return fail(r, EINVAL, "balloon: not every page could be moved");
    return 0;
}

static int do_balloon_out(struct request *r)
{
    return do_balloon(r, false);
}

static int do_balloon_in(struct request *r)
{
    return do_balloon(r, true);
}

/* Fills a page with one word, as the guest would. */
static int do_poke(struct request *r)
{
    uint64_t *page = sim_memory_page(&r->d->mem, r->n[0]);
    unsigned int i;

    if (!page || !sim_domain_runnable(r->d))
        return fail(r, EINVAL, "poke: no such page, or the guest cannot run");
    for (i = 0; i < SIM_PAGE_SIZE / sizeof(*page); i++)
        page[i] = r->n[1];
    sim_memory_mark(&r->d->mem, r->n[0]);
    return 0;
}

struct command {
    const char *name;
    int numbers; /* after the domid; -1: not about a domain */
    int (*run)(struct request *r);
    bool tell; /* domain 0 hears VIRQ_DOM_EXC afterwards */
};

static int do_destroy(struct request *r);
static int do_fault(struct request *r);
static int do_faults(struct request *r);
static int do_clear(struct request *r);
static int do_counts(struct request *r);
static int do_ping(struct request *r);

static const struct command commands[] = {
    {"create", -1, do_create, false},
    {"list", -1, do_list, false},
    {"destroy", -1, do_destroy, false},
    {"fault", -1, do_fault, false},
    {"faults", -1, do_faults, false},
    {"clear", -1, do_clear, false},
    {"counts", -1, do_counts, false},
    {"ping", -1, do_ping, false},
    {"info", 0, do_info, false},
    {"hash", 0, do_hash, false},
    {"pages", 0, do_pages, false},
    {"pause", 0, do_pause, false},
    {"unpause", 0, do_unpause, false},
    {"shutdown", 1, do_shutdown, true},
    {"ask", 1, do_ask, false},
    {"resume", 0, do_resume, false},
    {"manual", 1, do_manual, false},
    {"step", 1, do_step, false},
    {"write", 1, do_write, false},
    {"rate", 1, do_rate, false},
    {"verify", 0, do_verify, false},
    {"log-off", 0, do_log_off, false},
    {"kv", 0, do_kv, false},
    {"hash-suspends", 1, do_hash_suspends, false},
    {"max", 1, do_max, false},
    {"balloon-out", 2, do_balloon_out, false},
    {"balloon-in", 2, do_balloon_in, false},
    {"poke", 2, do_poke, false},
};

static int do_destroy(struct request *r)
{
    struct sim_domain *d;
    uint64_t domid;

    if (r->count != 2 || !number(r->words[1], &domid)) return fail(r, EINVAL, "destroy: say DOMID");
    d = sim_domain_get((uint32_t)domid);
    if (!d) return fail(r, ESRCH, "destroy: there is no such domain");
    sim_domain_destroy(d);
    sim_domain_put(d);
    return 0;
}

static int do_fault(struct request *r)
{
    int i = sim_fault_add(r->rest, r->answer, r->size);

    if (i < 0) return EINVAL;
    snprintf(r->answer, r->size, "%d\n", i);
    return 0;
}

static int do_faults(struct request *r)
{
    sim_fault_list(r->answer, r->size);
    return 0;
}

static int do_clear(struct request *r)
{
    sim_fault_clear();
    sim_count_clear();
    return 0;
}

static int do_counts(struct request *r)
{
    sim_count_list(r->answer, r->size);
    return 0;
}

static int do_ping(struct request *r)
{
    snprintf(r->answer, r->size, "%s\n", sim_host.name);
    return 0;
}

static int run_on_domain(const struct command *cmd, struct request *r)
{
    uint64_t domid;
    int i, rc;

    if (r->count < 2 + cmd->numbers || !number(r->words[1], &domid))
        return fail(r, EINVAL, "say a DOMID, and the numbers that the command needs");
    for (i = 0; i < cmd->numbers; i++)
        if (!number(r->words[2 + i], &r->n[i])) return fail(r, EINVAL, "a word is not a number");
    r->d = sim_domain_get((uint32_t)domid);
    if (!r->d) return fail(r, ESRCH, "there is no such domain");
    pthread_mutex_lock(&r->d->lock);
    rc = r->d->dying && cmd->run != do_info ? fail(r, ESRCH, "the domain is dying") : cmd->run(r);
    pthread_mutex_unlock(&r->d->lock);
    sim_domain_put(r->d);
    if (cmd->tell) sim_evtchn_virq(VIRQ_DOM_EXC);
    return rc;
}

int sim_control(char *line, char *answer, size_t size)
{
    struct request r = {.answer = answer, .size = size};
    char *save = NULL, *word;
    size_t i;

    *answer = 0;
    r.rest = line + strcspn(line, " ");
    r.rest = strdup(r.rest + strspn(r.rest, " "));
    for (word = strtok_r(line, " ", &save); word && r.count < WORDS;
         word = strtok_r(NULL, " ", &save))
        r.words[r.count++] = word;
    for (i = 0; r.count && i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(commands[i].name, r.words[0])) {
            int rc =
                commands[i].numbers < 0 ? commands[i].run(&r) : run_on_domain(&commands[i], &r);

            free((void *)(uintptr_t)r.rest);
            return rc;
        }
    free((void *)(uintptr_t)r.rest);
    return fail(&r, EINVAL, "there is no such command; xensimctl --help lists them");
}
