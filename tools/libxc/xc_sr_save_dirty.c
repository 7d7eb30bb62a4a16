/* SPDX-License-Identifier: LGPL-2.1-only */
/* The hypervisor's dirty log of one guest, and the device model's part in it. */
#include <string.h>

#include "xc_sr_lock.h"
#include "xc_sr_save.h"

#define LOCK_WAIT_US 3000000
#define LOCK_STEP_US 50000

int xc_sr_log_alloc(struct xc_sr_save *s)
{
    uint64_t words = xc_sr_dirty_words(s->pfns);
    DECLARE_HYPERCALL_BUFFER(unsigned long, bits);

    bits = xc_hypercall_buffer_alloc_pages(
        s->env.xch, bits, (words * sizeof(*bits) + XC_PAGE_SIZE - 1) / XC_PAGE_SIZE);
    if (!bits) {
        SR_ERRNO(&s->env, "no memory for a dirty log of %lu pages", (unsigned long)s->pfns);
        return -1;
    }
    s->dirty_hbuf = XC__HYPERCALL_BUFFER_NAME(bits);
    s->dirty.words = bits;
    s->dirty.pfns = s->pfns;
    s->dirty.some = true;
    xc_sr_dirty_clear_all(&s->dirty);
    return 0;
}

void xc_sr_log_free(struct xc_sr_save *s)
{
    uint64_t words = xc_sr_dirty_words(s->pfns);
    DECLARE_HYPERCALL_BUFFER_SHADOW(unsigned long, bits, &s->dirty_hbuf);

    if (!s->dirty.words) return;
    (void)bits;
    xc_hypercall_buffer_free_pages(
        s->env.xch, bits, (words * sizeof(unsigned long) + XC_PAGE_SIZE - 1) / XC_PAGE_SIZE);
    memset(&s->dirty, 0, sizeof(s->dirty));
}

static int shadow_op(struct xc_sr_save *s, unsigned int op)
{
    return xc_shadow_control(s->env.xch, s->env.domid, op, NULL, 0);
}

/* Who was killed, or is ending just now, lets go of it within moments. */
static int take_lock(struct xc_sr_save *s)
{
    uint64_t until = xc_sr_now_us() + LOCK_WAIT_US;

    if (!s->lock_dir) return 0;
    while ((s->lock_fd = xc_sr_lock(s->lock_dir, s->env.domid)) < 0) {
        if (errno != EWOULDBLOCK) {
            SR_ERRNO(&s->env, "cannot lock the dirty log of domain %u in %s", s->env.domid,
                     s->lock_dir);
            return -1;
        }
        if (xc_sr_now_us() >= until) {
            SR_FAIL(&s->env, EBUSY, "domain %u is being protected or migrated live already",
                    s->env.domid);
            return -1;
        }
        if (xc_sr_io_sleep(s->env.io, LOCK_STEP_US)) return xc_sr_save_check_stop(s);
    }
    s->locked = true;
    return 0;
}

int xc_sr_log_enable(struct xc_sr_save *s)
{
    /* First: both logs, the hypervisor's and the device model's, may be somebody's. */
    if (take_lock(s)) return -1;
    if (s->cb->switch_qemu_logdirty) {
        if (s->cb->switch_qemu_logdirty(s->env.domid, 1, s->cb->data)) {
            SR_FAIL(&s->env, EIO, "the device model cannot log dirty pages");
            return -1;
        }
        s->qemu_log_on = true;
    }
    /* One may be on that nobody of ours uses (of a killed helper, of the video memory): take it over. */
    if (shadow_op(s, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY) &&
        (shadow_op(s, XEN_DOMCTL_SHADOW_OP_OFF) ||
         shadow_op(s, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY))) {
        SR_ERRNO(&s->env, "the hypervisor cannot log dirty pages of domain %u", s->env.domid);
        return -1;
    }
    s->log_on = true;
    return 0;
}

void xc_sr_log_disable(struct xc_sr_save *s, bool parent_lives)
{
    int saved = errno;

    if (s->log_on && shadow_op(s, XEN_DOMCTL_SHADOW_OP_OFF) && errno != ESRCH)
        SR_ERRNO(&s->env, "cannot end log-dirty mode of domain %u", s->env.domid);
    s->log_on = false;
    if (s->qemu_log_on && parent_lives && s->cb->switch_qemu_logdirty(s->env.domid, 0, s->cb->data))
        SR_LOG(&s->env, WARN, "the device model goes on logging dirty pages");
    s->qemu_log_on = false;
    if (s->locked) xc_sr_unlock(s->lock_dir, s->env.domid, s->lock_fd);
    s->locked = false;
    errno = saved;
}

/*
 * Xen reads the log of a domain that does not log, too: nothing is dirty there, whatever the guest writes. Whoever ended it
 * (a stock live migration, a guard) did not ask us. But Xen refuses to begin what is on already, at once and with
 * EINVAL. Asked after the log was read: what is on now was on then.
 */
static int check_still_on(struct xc_sr_save *s)
{
    if (!shadow_op(s, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY)) {
        SR_FAIL(&s->env, EIO,
                "somebody else ended log-dirty mode of domain %u: "
                "what it wrote since then is unknown",
                s->env.domid);
        return -1;
    }
    if (errno == EINVAL) return 0;
    SR_ERRNO(&s->env, "cannot learn whether domain %u is in log-dirty mode", s->env.domid);
    return -1;
}

int xc_sr_log_clean(struct xc_sr_save *s, bool final, uint64_t *count)
{
    xc_shadow_op_stats_t stats = {0, 0};
    DECLARE_HYPERCALL_BUFFER_SHADOW(unsigned long, bits, &s->dirty_hbuf);
    long long r;

    (void)bits;
    r = xc_logdirty_control(s->env.xch, s->env.domid, XEN_DOMCTL_SHADOW_OP_CLEAN,
                            HYPERCALL_BUFFER(bits), s->pfns,
                            final ? XEN_DOMCTL_SHADOW_LOGDIRTY_FINAL : 0, &stats);
    if (r < 0 || (uint64_t)r != s->pfns) {
        SR_ERRNO(&s->env, "cannot read the dirty log of domain %u (%lld of %lu pages)",
                 s->env.domid, r, (unsigned long)s->pfns);
        if (r >= 0) errno = EIO;
        return -1;
    }
    if (check_still_on(s)) return -1;
    s->dirty.some = true;
    if (count) *count = stats.dirty_count;
    return 0;
}

int xc_sr_log_peek(struct xc_sr_save *s, uint64_t *count)
{
    xc_shadow_op_stats_t stats = {0, 0};
    DECLARE_HYPERCALL_BUFFER_SHADOW(unsigned long, bits, &s->dirty_hbuf);

    (void)bits;
    /* No pages of the log: only its statistics. */
    if (xc_logdirty_control(s->env.xch, s->env.domid, XEN_DOMCTL_SHADOW_OP_PEEK,
                            HYPERCALL_BUFFER(bits), 0, 0, &stats) < 0) {
        SR_ERRNO(&s->env, "cannot look at the dirty log of domain %u", s->env.domid);
        return -1;
    }
    *count = stats.dirty_count;
    return 0;
}
