/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xentwin-apply [--device-model] UUID NAME
 *
 * Keeps the complete, paused domain NAME--incoming at the newest committed checkpoint. Started by the twin, which
 * talks to it through standard input and output (libxl_twin_warm.h). The end of its input means that the twin died. Then
 * it destroys the domain: the stock receiver, which cannot report to anybody any more, leaves without doing so.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <uuid/uuid.h>
#include <xenctrl.h>
#include <xenstore.h>

#include <libxl.h>

#include "libxl_twin_qemu.h"
#include "libxl_twin_warm.h"
#include "xc_sr_apply.h"
#include "xc_sr_record.h"

#define DOMAINS_AT_ONCE 64
#define LIMIT_DOMAIN_MS 60000

struct applier {
    const char *name;
    uuid_t uuid;
    bool device_model;
    bool gone; /* the guest may run: the domain is not ours any more */
    xentoollog_logger_stdiostream *lg;
    struct xs_handle *xs;
    struct xc_sr_io io;
    struct xc_sr_apply a;
    struct twin_qemu qemu;
};

static int usage(void)
{
    fprintf(stderr, "xentwin-apply: usage: xentwin-apply [--device-model] UUID NAME "
                    "(started by xl migrate-receive)\n");
    return APPLY_EXIT_USAGE;
}

/* ---- which domain ---- */

static bool is_ours(struct applier *ap, const xc_domaininfo_t *info)
{
    char path[64], want[96], *name;
    unsigned int len;
    bool ours;

    if (memcmp(info->handle, ap->uuid, sizeof(ap->uuid)) || (info->flags & XEN_DOMINF_dying))
        return false;
    snprintf(path, sizeof(path), "/local/domain/%u/name", info->domain);
    snprintf(want, sizeof(want), "%s--incoming", ap->name);
    name = xs_read(ap->xs, XBT_NULL, path, &len);
    ours = name && !strcmp(name, want);
    free(name);
    return ours;
}

/* 1 found, 0 not there, -1 failed. */
static int look_for_domain(struct applier *ap)
{
    xc_domaininfo_t info[DOMAINS_AT_ONCE];
    uint32_t first = 1;
    int n, i;

    for (;;) {
        n = xc_domain_getinfolist(ap->a.env.xch, first, DOMAINS_AT_ONCE, info);
        if (n < 0) {
            SR_ERRNO(&ap->a.env, "cannot list the domains");
            return -1;
        }
        for (i = 0; i < n; i++) {
            if (!is_ours(ap, &info[i])) continue;
            ap->a.env.domid = info[i].domain;
            return 1;
        }
        if (n < DOMAINS_AT_ONCE) return 0;
        first = info[n - 1].domain + 1u;
    }
}

/* The stock receiver makes it while we start. */
static int find_domain(struct applier *ap)
{
    struct timespec pause = {.tv_nsec = 50000000};
    int64_t until = twin_qemu_now_ms() + LIMIT_DOMAIN_MS;
    int r;

    while (!(r = look_for_domain(ap)) && twin_qemu_now_ms() < until)
        nanosleep(&pause, NULL);
    if (!r) SR_FAIL(&ap->a.env, ESRCH, "there is no domain %s--incoming of ours", ap->name);
    return r > 0 ? 0 : -1;
}

/* ---- messages ---- */

static int answer(struct applier *ap, enum apply_kind kind, uint64_t n)
{
    struct apply_answer a = {.kind = kind, .n = n};

    if (write(STDOUT_FILENO, &a, sizeof(a)) == sizeof(a)) return 0;
    SR_ERRNO(&ap->a.env, "cannot answer the twin");
    return -1;
}

/* One record of `left` bytes at most; its body is the caller's to free. */
static int read_record(struct applier *ap, struct xc_sr_record *rec, uint64_t *left)
{
    struct sr_rhdr head;
    const char *wrong = NULL;
    uint32_t padded;

    if (*left < sizeof(head)) goto torn;
    if (xc_sr_io_read(&ap->io, &head, sizeof(head))) return -1;
    *left -= sizeof(head);
    *rec = (struct xc_sr_record){.type = head.type, .length = head.length};
    wrong = xc_sr_record_check(rec->type, rec->length, NULL);
    if (wrong) goto torn;
    padded = xc_sr_record_padded(rec->length);
    if (padded > *left) goto torn;
    *left -= padded;
    if (!padded) return 0;
    rec->body = malloc(padded);
    if (!rec->body) {
        SR_ERRNO(&ap->a.env, "no memory for a record of %u bytes", padded);
        return -1;
    }
    if (xc_sr_io_read(&ap->io, rec->body, padded)) return -1;
    wrong = xc_sr_record_check(rec->type, rec->length, rec->body);
    if (!wrong) return 0;
torn:
    SR_FAIL(&ap->a.env, EINVAL, "%s", wrong ? wrong : "a record is cut off");
    return -1;
}

static int apply(struct applier *ap, const struct apply_head *head)
{
    struct xc_sr_record rec = {0};
    uint64_t left = head->len;
    int rc = 0;

    xc_sr_apply_begin(&ap->a, head->again);
    while (!rc && left) {
        rc = read_record(ap, &rec, &left);
        if (!rc) rc = xc_sr_apply_record(&ap->a, &rec);
        free(rec.body);
        rec.body = NULL;
    }
    if (!rc) rc = xc_sr_apply_end(&ap->a);
    if (!rc) rc = xc_sr_apply_context(&ap->a);
    return rc ? rc : answer(ap, APPLY_APPLIED, head->n);
}

static int go(struct applier *ap, const struct apply_head *head)
{
    if (head->len && (!ap->device_model || twin_qemu_take_state(&ap->qemu, &ap->io, head->len)))
        return -1;
    if (head->len && twin_qemu_load(&ap->qemu)) return -1;
    if (xc_sr_apply_context(&ap->a)) return -1;
    /* Nobody can destroy a domain altogether while we map it. */
    xc_sr_apply_close(&ap->a);
    if (answer(ap, APPLY_GONE, head->n)) return -1;
    ap->gone = true;
    return 0;
}

static int open_domain(struct applier *ap, const struct apply_head *head)
{
    if (xc_sr_apply_open(&ap->a)) return -1;
    if (ap->device_model) twin_qemu_clean_config(&ap->qemu);
    return answer(ap, APPLY_READY, head->n);
}

/* Until the input ends or the guest may run. */
static int serve(struct applier *ap)
{
    struct apply_head head;
    bool open = false;
    int rc = 0;

    while (!rc) {
        if (xc_sr_io_read(&ap->io, &head, sizeof(head))) return errno == ENODATA ? 0 : -1;
        if (!open && head.kind != APPLY_OPEN) {
            SR_FAIL(&ap->a.env, EINVAL, "message %u comes before OPEN", head.kind);
            return -1;
        }
        open = true;
        if (head.kind == APPLY_OPEN)
            rc = open_domain(ap, &head);
        else if (head.kind == APPLY_DATA)
            rc = apply(ap, &head);
        else
            return go(ap, &head);
    }
    return rc;
}

/* ---- the twin died ---- */

static bool twin_is_dead(void)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

static void destroy_domain(struct applier *ap)
{
    libxl_ctx *ctx = NULL;

    xc_sr_apply_close(&ap->a); /* a domain that is mapped cannot go altogether */
    if (look_for_domain(ap) != 1) return;
    if (libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, ap->a.env.lg)) return;
    libxl_domain_destroy(ctx, ap->a.env.domid, NULL);
    libxl_ctx_free(ctx);
}

static int run(struct applier *ap)
{
    struct xc_sr_env *env = &ap->a.env;
    int rc;

    env->lg = (xentoollog_logger *)ap->lg;
    if (xc_sr_read_max_kb(env)) return APPLY_EXIT_USAGE;
    env->xch = xc_interface_open(env->lg, env->lg, 0);
    env->fmem = xenforeignmemory_open(env->lg, 0);
    ap->xs = xs_open(0);
    if (!env->xch || !env->fmem || !ap->xs) {
        SR_ERRNO(env, "cannot open the hypervisor's interfaces");
        return 1;
    }
    if (find_domain(ap)) return APPLY_EXIT_NO_DOMAIN;
    ap->qemu = (struct twin_qemu){.lg = env->lg, .xs = ap->xs, .domid = env->domid, .state_fd = -1};
    if (ap->device_model && twin_qemu_await(&ap->qemu)) return 1;
    rc = serve(ap) ? 1 : 0;
    if (!ap->gone && twin_is_dead()) destroy_domain(ap);
    return rc;
}

int main(int argc, char **argv)
{
    struct applier ap = {0};
    int i = 1, rc;

    if (i < argc && !strcmp(argv[i], "--device-model")) {
        ap.device_model = true;
        i++;
    }
    if (argc - i != 2 || uuid_parse(argv[i], ap.uuid) || strlen(argv[i + 1]) > 64) return usage();
    ap.name = argv[i + 1];
    signal(SIGPIPE, SIG_IGN);
    xc_sr_io_init(&ap.io, STDIN_FILENO, -1, -1);
    ap.lg = xtl_createlogger_stdiostream(stderr, XTL_INFO, 0);
    if (!ap.lg) return 1;
    rc = run(&ap);
    xc_sr_apply_close(&ap.a);
    twin_qemu_dispose(&ap.qemu);
    if (ap.xs) xs_close(ap.xs);
    if (ap.a.env.fmem) xenforeignmemory_close(ap.a.env.fmem);
    if (ap.a.env.xch) xc_interface_close(ap.a.env.xch);
    xc_sr_io_dispose(&ap.io);
    xtl_logger_destroy((xentoollog_logger *)ap.lg);
    return rc;
}
