/* SPDX-License-Identifier: LGPL-2.1-only */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libxl_utils.h>

#include "libxl_control.h"
#include "libxl_guard.h"
#include "xl.h"
#include "xl_guest.h"
#include "xl_opts.h"

#define CONTROL_LIMIT_MS 2000
#define HANDED_OVER_SUFFIX "--migratedaway"

static bool under_xen(void)
{
    return !access("/dev/xen/privcmd", F_OK) || !access("/proc/xen/privcmd", F_OK);
}

void xl_guest_init(struct xl_guest *g)
{
    memset(g, 0, sizeof(*g));
}

int xl_guest_open(struct xl_guest *g, const char *command, const char *domain,
                  xentoollog_logger *lg)
{
    libxl_dominfo info;
    int rc;

    if (geteuid() != 0) return xl_fail(command, "only root may do this: run it with sudo");
    if (!under_xen())
        return xl_fail(command, "this machine does not run under Xen (no /dev/xen/privcmd)");
    if (libxl_ctx_alloc(&g->ctx, LIBXL_VERSION, 0, lg)) {
        g->ctx = NULL;
        return xl_fail(command, "cannot reach Xen: is xenstored running? (service xen start)");
    }
    if (libxl_domain_qualifier_to_domid(g->ctx, domain, &g->domid))
        return xl_fail(command, "no domain '%s' on this host; 'xl list' shows what there is",
                       domain);
    if (g->domid == 0)
        return xl_fail(command, "'%s' is the host's own domain 0, not a guest", domain);

    libxl_dominfo_init(&info);
    rc = libxl_domain_info(g->ctx, &info, g->domid);
    if (!rc) {
        libxl_uuid_copy(g->ctx, &g->uuid, &info.uuid);
        g->was_paused = info.paused;
    }
    libxl_dominfo_dispose(&info);
    if (!rc) g->name = libxl_domid_to_name(g->ctx, g->domid);
    if (rc || !g->name)
        return xl_fail(command, "no domain '%s' on this host; 'xl list' shows what there is",
                       domain);
    return XL_DONE;
}

static void tell_each(libxl_ctx *ctx, void (*each)(void *user, const char *name, uint32_t domid),
                      void *user)
{
    int n = 0, i;
    libxl_dominfo *all = libxl_list_domain(ctx, &n);

    for (i = 0; all && i < n; i++) {
        char *name = all[i].domid ? libxl_domid_to_name(ctx, all[i].domid) : NULL;

        if (name) each(user, name, all[i].domid);
        free(name);
    }
    if (all) libxl_dominfo_list_free(all, n);
}

void xl_guest_each(void (*each)(void *user, const char *name, uint32_t domid), void *user)
{
    xentoollog_logger_stdiostream *quiet;
    libxl_ctx *ctx;

    if (!under_xen()) return;
    quiet = xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    if (!quiet) return;
    if (!libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, (xentoollog_logger *)quiet)) {
        tell_each(ctx, each, user);
        libxl_ctx_free(ctx);
    }
    xtl_logger_destroy((xentoollog_logger *)quiet);
}

void xl_guest_dispose(struct xl_guest *g)
{
    free(g->name);
    g->name = NULL;
    if (g->ctx) libxl_ctx_free(g->ctx);
    g->ctx = NULL;
}

int xl_guest_refuse_protected(const struct xl_guest *g, const char *command)
{
    libxl__gc gc;
    char *answer = NULL;
    int rc;

    /* Other names cannot have been protected. */
    if (!xl_name_valid(g->name)) return XL_DONE;
    libxl__gc_init(&gc, NULL);
    rc = libxl__control_call(&gc, "primary", g->name, "status", CONTROL_LIMIT_MS, &answer);
    libxl__gc_dispose(&gc);
    if (rc == ERROR_NOTFOUND) return XL_DONE;
    return xl_fail(command, "'%s' is being protected: end that first with 'xl remus --stop %s'",
                   g->name, g->name);
}

static bool is_stopped(const struct xl_guest *g, xentoollog_logger *lg)
{
    libxl__gc gc;
    bool stopped;

    libxl__gc_init(&gc, lg);
    stopped = libxl__recover_is_stopped(&gc, g->domid);
    libxl__gc_dispose(&gc);
    return stopped;
}

int xl_guest_undecided(const struct xl_guest *g, const char *command, xentoollog_logger *lg,
                       bool *undecided)
{
    libxl__gc gc;
    int rc;

    libxl__gc_init(&gc, lg);
    rc = libxl__recover_undecided(&gc, g->domid, undecided);
    libxl__gc_dispose(&gc);
    if (!rc) return XL_DONE;
    return xl_fail(command, "cannot tell whether an earlier protection holds '%s'", g->name);
}

int xl_guest_refuse_stopped(const struct xl_guest *g, const char *command)
{
    bool undecided;
    /* Also one that runs again, by xl unpause: elsewhere nobody would hold its output. */
    int rc = xl_guest_undecided(g, command, NULL, &undecided);

    if (rc || !undecided) return rc;
    return xl_fail(
        command,
        "'%s' is stopped or held here, for a link was lost and its twin may run: if it runs there: "
        "'xl remus --discard %s'; if it certainly does not: 'xl remus --recover %s'",
        g->name, g->name, g->name);
}

/* What a twin would lack. */
struct obstacle {
    int count;
    const char *what, *advice;
};

static int check_nics(const char *command, const char *name, const libxl_domain_config *config)
{
    int i;

    for (i = 0; i < config->num_nics; i++) {
        const libxl_device_nic *nic = &config->nics[i];

        if (!nic->backend_domid && (!nic->backend_domname || !*nic->backend_domname ||
                                    !strcmp(nic->backend_domname, "Domain-0")))
            continue;
        return xl_fail(
            command,
            "network interface %d of '%s' has its backend in domain %s: only backends in "
            "domain 0 can be held",
            i, name, nic->backend_domname ? nic->backend_domname : "other than 0");
    }
    return XL_DONE;
}

int xl_guest_check_protectable(const char *command, const char *name,
                               const libxl_domain_config *config,
                               const struct xl_guest_allow *allow, struct xl_disks *disks)
{
    const struct obstacle obstacles[] = {
        {config->num_pcidevs, "PCI device passed through", "detach it"},
        {config->num_dtdevs, "device-tree device passed through", "detach it"},
        {config->num_rdms, "reserved device memory region", "remove it from the configuration"},
        {config->num_usbdevs, "USB device passed through", "detach it"},
        {config->num_vtpms, "virtual TPM", "remove it from the configuration"},
        {config->num_p9s, "9pfs share", "remove it from the configuration"},
        {config->num_pvcallsifs, "PV calls interface", "remove it from the configuration"},
        {config->b_info.num_vnuma_nodes, "virtual NUMA node", "remove vnuma= and start it again"},
        {libxl_defbool_is_default(config->b_info.nested_hvm)
             ? 0
             : libxl_defbool_val(config->b_info.nested_hvm),
         "nested virtualisation", "remove nestedhvm= and start it again"},
    };
    unsigned read_only = 0;
    size_t i;
    int rc;

    if (config->c_info.type == LIBXL_DOMAIN_TYPE_PV)
        return xl_fail(
            command,
            "'%s' is a PV guest: Debian's hypervisor cannot log the pages that a PV guest "
            "writes; start it as PVH (type=\"pvh\") or HVM",
            name);
    for (i = 0; i < sizeof(obstacles) / sizeof(obstacles[0]); i++) {
        if (obstacles[i].count > 0)
            return xl_fail(command, "'%s' has a %s, which a twin cannot have: %s", name,
                           obstacles[i].what, obstacles[i].advice);
    }
    rc = check_nics(command, name, config);
    if (!rc) rc = xl_disks_take(disks, command, name, config, allow->disks, &read_only);
    if (!rc && read_only)
        xl_say(command, "read-only disks and CD-ROMs of '%s' (%u) must be the same at HOST", name,
               read_only);
    return rc;
}

static bool handed_over(const struct xl_guest *g, const char *command)
{
    char *now = libxl_domid_to_name(g->ctx, g->domid);
    size_t len = now ? strlen(now) : 0, suffix = strlen(HANDED_OVER_SUFFIX);
    bool away = len > suffix && !strcmp(now + len - suffix, HANDED_OVER_SUFFIX);

    if (away)
        xl_say(command,
               "the guest may already run at the other host, so it is left as '%s' here. If it "
               "runs there: "
               "'xl destroy %s'; if it does not: 'xl remus --recover %s', then 'xl rename %s %s'",
               now, now, now, now, g->name);
    free(now);
    return away;
}

/* What the guest does here, as far as libxl can tell; NULL when it is not here any more. */
static const char *now_does(const struct xl_guest *g, libxl_dominfo *info)
{
    int rc = libxl_domain_info(g->ctx, info, g->domid);

    if (rc || info->dying || libxl_uuid_compare(&info->uuid, &g->uuid)) return NULL;
    if (info->shutdown)
        return info->shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND ? "is suspended"
                                                                      : "has ended";
    if (info->paused) return g->was_paused ? "stays paused" : "is paused";
    return "runs on";
}

static const char *go_on(const struct xl_guest *g, const char *command, xentoollog_logger *lg)
{
    const char *does = NULL;
    libxl_dominfo info;
    libxl__gc gc;
    int rc;

    libxl__gc_init(&gc, lg);
    rc = libxl__recover_go_on(&gc, g->domid, NULL);
    libxl__gc_dispose(&gc);
    libxl_dominfo_init(&info);
    if (!rc) does = now_does(g, &info);
    libxl_dominfo_dispose(&info);
    if (does)
        xl_say(command, "'%s' %s here", g->name, does);
    else
        xl_say(command, "'%s' could not be put right completely: 'xl remus --recover %s'", g->name,
               g->name);
    return does;
}

const char *xl_guest_put_right(struct xl_guest *g, const char *command, bool killed,
                               xentoollog_logger *lg)
{
    libxl_dominfo info;
    const char *does;
    bool suspended, being_destroyed;

    libxl_dominfo_init(&info);
    does = now_does(g, &info);
    suspended = does && info.shutdown && info.shutdown_reason == LIBXL_SHUTDOWN_REASON_SUSPEND;
    /* Destroying begins with a pause, and by then the guest's state is elsewhere, complete. */
    being_destroyed = suspended && info.paused && !g->was_paused;
    libxl_dominfo_dispose(&info);

    if (!does) {
        xl_say(command, "'%s' is not on this host any more", g->name);
        return NULL;
    }
    if (handed_over(g, command)) return NULL;
    /* A link that was lost meanwhile: who wakes it here makes two of it. */
    if (is_stopped(g, lg)) {
        xl_guest_refuse_stopped(g, command);
        return suspended ? NULL : "stays stopped";
    }
    if (being_destroyed) {
        xl_say(command, "'%s' was handed over and only partly removed: 'xl destroy %s'", g->name,
               g->name);
        return NULL;
    }
    return suspended || killed ? go_on(g, command, lg) : does;
}
