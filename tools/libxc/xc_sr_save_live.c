/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The rounds in which the guest is copied while it runs, and what limits them: how many, how fast, and
 * how long the guest may stand still for what is left then.
 */
#include <stdio.h>

#include "xc_sr_save.h"

/* Until so few pages are dirty, and no more than so many rounds after the first copy. */
#define ROUND_DIRTY_PAGES 50
#define ROUND_LIMIT 5U
#define ROUND_LIMIT_DOWNTIME 30U /* when the user wants a short standstill */
/* A round of fewer pages says little about the speed of the link. */
#define SPEED_SAMPLE_PAGES 256
/* What a link that stood still may be given at once afterwards, at the rate that the user set. */
#define CATCH_UP_US 100000u

static unsigned int round_limit(const struct xc_sr_save *s)
{
    if (s->limits.rounds_given) return s->limits.rounds;
    return s->limits.downtime_ms ? ROUND_LIMIT_DOWNTIME : ROUND_LIMIT;
}

int xc_sr_throttle(struct xc_sr_save *s)
{
    uint64_t now, due;

    if (!s->limits.rate_mb || s->suspended) return 0;
    now = xc_sr_now_us();
    due = s->live_started_us + (s->env.io->bytes - s->live_started_bytes) / s->limits.rate_mb;
    if (due <= now) {
        if (due + CATCH_UP_US < now) s->live_started_us += now - CATCH_UP_US - due;
        return 0;
    }
    s->slept_us += due - now;
    if (!xc_sr_io_sleep(s->env.io, due - now)) return 0;
    return xc_sr_save_check_stop(s);
}

/* One round; keeps how many us a page took, without our own pauses. */
static int copy_round(struct xc_sr_save *s, unsigned int round, uint64_t pages)
{
    uint64_t started = xc_sr_now_us(), slept = s->slept_us, us;
    char what[64];

    snprintf(what, sizeof(what), "Frames iteration %u of %u", round, round_limit(s));
    if (xc_sr_write_set(s, &s->dirty, what, pages)) return -1;
    us = xc_sr_now_us() - started - (s->slept_us - slept);
    if (pages >= SPEED_SAMPLE_PAGES || !s->us_per_1024_pages)
        s->us_per_1024_pages = us * 1024 / (pages ? pages : 1);
    return 0;
}

/* With a limit of downtime: does what is left fit? *over: it does, and the guest can be suspended. */
static int judge(struct xc_sr_save *s, unsigned int round, uint64_t dirty, bool *over)
{
    uint64_t ms = dirty * s->us_per_1024_pages / 1024 / 1000;

    *over = ms <= s->limits.downtime_ms;
    if (*over || round < round_limit(s)) return 0;
    SR_FAIL(&s->env, ETIME,
            "%lu pages are left after round %u, which takes about %lu ms: more than the limit "
            "of %u ms",
            (unsigned long)dirty, round, (unsigned long)ms, s->limits.downtime_ms);
    return -1;
}

/*
 * s->dirty: what the guest wrote since it was read last. New pages are looked for first: the log tells of
 * what is written to those that came before it was emptied, and of no others.
 */
static int read_dirty(struct xc_sr_save *s, uint64_t *dirty)
{
    if (xc_sr_population_sample(s) || xc_sr_log_clean(s, false, NULL)) return -1;
    xc_sr_dirty_merge(&s->dirty, &s->suspect);
    *dirty = xc_sr_dirty_count(&s->dirty);
    return 0;
}

/* s->dirty: the pages that the guest has. */
static int start_rounds(struct xc_sr_save *s, uint64_t *pages)
{
    struct xc_sr_dirty found = {0};
    int rc = -1;

    if (xc_sr_dirty_alloc(&found, s->pfns)) {
        SR_ERRNO(&s->env, "no memory to track %lu pages", (unsigned long)s->pfns);
        return -1;
    }
    if (xc_sr_log_enable(s) || xc_sr_population_start(s, &found)) goto out;
    /* From here on writes to pages that came before are logged, too. */
    if (xc_sr_log_clean(s, false, NULL)) goto out;
    xc_sr_dirty_merge(&s->dirty, &found);
    *pages = xc_sr_dirty_count(&found);
    s->live_started_us = xc_sr_now_us();
    s->live_started_bytes = s->env.io->bytes;
    rc = 0;
out:
    xc_sr_dirty_free(&found);
    return rc;
}

static int copy_rounds(struct xc_sr_save *s)
{
    bool over = false, limited = s->limits.downtime_ms;
    uint64_t dirty;
    unsigned int round;

    if (start_rounds(s, &dirty)) return -1;
    for (round = 0;; round++) {
        if (copy_round(s, round, dirty)) return -1;
        if (round == 0)
            SR_LOG(&s->env, DETAIL, "domain %u: %lu pages, %lu bytes sent", s->env.domid,
                   (unsigned long)dirty, (unsigned long)s->env.io->bytes);
        if (!limited && (round >= round_limit(s) || (round && dirty < ROUND_DIRTY_PAGES))) return 0;
        if (read_dirty(s, &dirty)) return -1;
        if (limited && judge(s, round, dirty, &over)) return -1;
        if (!over) continue;
        /* The log is empty now: they join what the guest writes until it is suspended. */
        xc_sr_dirty_merge(&s->suspect, &s->dirty);
        return 0;
    }
}

int xc_sr_copy_live(struct xc_sr_save *s)
{
    if (copy_rounds(s)) return -1;
    /* Between checkpoints they are searched bit by bit. */
    return s->checkpointed ? 0 : xc_sr_population_search(s);
}
