/* SPDX-License-Identifier: LGPL-2.1-only */
/* How much memory the hypervisor lets a twin have. See xc_sr_env.h. */
#include "xc_sr_env.h"

#include <stdlib.h>

/* What libxl adds to the memory of a guest: pages that are no RAM to it. */
#define EXTRA_KB 4096u
#define MAX_KB (16ull << 30)

int xc_sr_read_max_kb(struct xc_sr_env *env)
{
    const char *text = getenv("XENTWIN_MAX_MEMKB");
    char *end = NULL;
    unsigned long long kb;

    if (!text) return 0;
    kb = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || kb > MAX_KB) {
        SR_FAIL(env, EINVAL, "XENTWIN_MAX_MEMKB is '%.40s', not a number of KiB", text);
        return -1;
    }
    env->max_kb = kb;
    return 0;
}

int xc_sr_raise_limit(const struct xc_sr_env *env)
{
    uint64_t limit = env->max_kb + EXTRA_KB;
    int saved_errno = errno;
    xc_dominfo_t info;

    if (!env->max_kb || xc_domain_getinfo(env->xch, env->domid, 1, &info) != 1 ||
        info.domid != env->domid || info.max_memkb >= limit) {
        errno = saved_errno;
        return -1;
    }
    SR_LOG(env, DETAIL, "domain %u may have up to %lu KiB from now on, not %lu", env->domid,
           (unsigned long)limit, (unsigned long)info.max_memkb);
    if (!xc_domain_setmaxmem(env->xch, env->domid, limit)) return 0;
    SR_ERRNO(env, "cannot let domain %u have more memory", env->domid);
    return -1;
}
