/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The public calls: check what was asked, make the operation, hand it to the plans.
 */
#include <fcntl.h>
#include <libxl.h>
#include <libxl_utils.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "libxl_remus.h"
#include "xc_sr_encode.h"

#define INTERVAL_DEFAULT_MS 200
#define LIMIT_MS_MIN 200
#define QMP_LIMIT_MS 30000
#define LIMIT_MS_MAX 600000
#define NETBUF_BYTES_MAX (1u << 30)

LIBXL_REPLICATION_EXPORT void libxl_replication_info_init(libxl_replication_info *info)
{
    *info = (libxl_replication_info){.limit_ms = LIBXL_REPLICATION_LIMIT_MS_DEFAULT,
                                     .netbuf_bytes = LIBXL_REPLICATION_NETBUF_BYTES_DEFAULT};
    libxl_domain_remus_info_init(&info->remus);
    info->remus.interval = INTERVAL_DEFAULT_MS;
}

LIBXL_REPLICATION_EXPORT void libxl_replication_info_dispose(libxl_replication_info *info)
{
    libxl_domain_remus_info_dispose(&info->remus);
}

static int check_info(libxl__gc *gc, libxl_replication_info *in)
{
    const char *const names[] = {in->domain_name, in->self_name, in->peer_name, in->session};
    enum xc_sr_encode_mode mode;
    bool unsafe;

    libxl_defbool_setdefault(&in->remus.allow_unsafe, false);
    libxl_defbool_setdefault(&in->remus.blackhole, false);
    libxl_defbool_setdefault(&in->remus.compression, false);
    libxl_defbool_setdefault(&in->remus.netbuf, true);
    libxl_defbool_setdefault(&in->remus.diskbuf, true);
    libxl_defbool_setdefault(&in->remus.colo, false);
    unsafe = libxl_defbool_val(in->remus.allow_unsafe);
    if (!in->limit_ms) in->limit_ms = LIBXL_REPLICATION_LIMIT_MS_DEFAULT;
    if (!in->netbuf_bytes) in->netbuf_bytes = LIBXL_REPLICATION_NETBUF_BYTES_DEFAULT;
    if (!in->compress) in->compress = "auto";
    if (in->remus.interval <= 0) in->remus.interval = INTERVAL_DEFAULT_MS;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!names[i]) {
            LOG(gc, ERROR, "replication: domain, host and session names must be given");
            return ERROR_INVAL;
        }
    if (libxl_defbool_val(in->remus.colo)) {
        LOG(gc, ERROR, "replication: COLO is not available");
        return ERROR_FEATURE_REMOVED;
    }
    if (in->num_disks && (!in->acknowledged || !in->disks || !in->disk_link)) {
        LOG(gc, ERROR, "replication: disks need acknowledgement, their names and disk_link");
        return ERROR_INVAL;
    }
    if (in->limit_ms < LIMIT_MS_MIN || in->limit_ms > LIMIT_MS_MAX) {
        LOG(gc, ERROR, "replication: limit_ms %d is not within %d..%d", in->limit_ms, LIMIT_MS_MIN,
            LIMIT_MS_MAX);
        return ERROR_INVAL;
    }
    if (in->netbuf_bytes < NETBUFFER_MIN_LIMIT || in->netbuf_bytes > NETBUF_BYTES_MAX) {
        LOG(gc, ERROR, "replication: netbuf_bytes %lu is not within %u..%u",
            (unsigned long)in->netbuf_bytes, NETBUFFER_MIN_LIMIT, NETBUF_BYTES_MAX);
        return ERROR_INVAL;
    }
    if (!xc_sr_encode_parse(in->compress, &mode)) {
        LOG(gc, ERROR, "replication: compress '%.20s' is not auto, none, delta or lz4",
            in->compress);
        return ERROR_INVAL;
    }
    if (!unsafe && (!in->acknowledged || !libxl_defbool_val(in->remus.netbuf) ||
                    libxl_defbool_val(in->remus.blackhole))) {
        LOG(gc, ERROR,
            "replication: without acknowledgement or net buffer output is not safe; "
            "set allow_unsafe to do it all the same");
        return ERROR_INVAL;
    }
    return 0;
}

/* libxl_domain_info calls PVH guests HVM; libxl's own record knows better. */
static enum guest_kind guest_kind(libxl__remus *rm)
{
    char path[64], *type;
    enum guest_kind kind;

    snprintf(path, sizeof(path), "/libxl/%u/type", rm->domid);
    type = xs_read(libxl__loop_xs(rm->loop), XBT_NULL, path, NULL);
    kind = type && !strcmp(type, "pvh") ? GUEST_PVH : GUEST_HVM;
    free(type);
    return kind;
}

static int look_at_guest(libxl__remus *rm, libxl_ctx *ctx)
{
    libxl_dominfo info;
    uuid_t uu;
    int rc;

    libxl_dominfo_init(&info);
    rc = libxl_domain_info(ctx, &info, rm->domid);
    if (rc) {
        LOG(rm->gc, ERROR, "domain %u does not exist", rm->domid);
        goto out;
    }
    if (info.domain_type == LIBXL_DOMAIN_TYPE_PV) {
        LOG(rm->gc, ERROR,
            "domain %u is a PV guest: Debian's hypervisor cannot log its dirty pages", rm->domid);
        rc = ERROR_INVAL;
        goto out;
    }
    rm->kind = guest_kind(rm);
    memcpy(uu, libxl_uuid_bytearray(&info.uuid), sizeof(uu));
    uuid_unparse_lower(uu, rm->uuid);
out:
    libxl_dominfo_dispose(&info);
    return rc;
}

static void dispose(libxl__remus *rm)
{
    libxl__ao_abortable_deregister(&rm->abortable);
    libxl__ev_time_deregister(rm->loop, &rm->timer);
    remus_stream_close(rm);
    libxl__arbiter_dispose(&rm->arbiter);
    libxl__channel_dispose(&rm->channel);
    libxl__dom_suspend_dispose(&rm->suspend);
    libxl__qmp_close(rm->qmp);
    remus_unwatch_devices(rm);
    remus_unwatch_settings(rm);
    libxl__disk_device_dispose(&rm->disks);
    libxl__save_callout_dispose(&rm->helper);
    libxl__guard_stop(&rm->guard);
    libxl__control_dispose(&rm->control);
    if (rm->state_fd >= 0) close(rm->state_fd);
    if (rm->xch) xc_interface_close(rm->xch);
}

static int outcome(const libxl__remus *rm, int rc)
{
    if (rm->fate == FATE_STAY_STOPPED) return ERROR_LOCK_FAIL;
    if (rm->guest_ended) return ERROR_DOMAIN_DESTROYED;
    if (rm->link_was_cause) return ERROR_NOT_READY;
    return rc == ERROR_ABORTED ? 0 : rc;
}

static void protection_ended(libxl__egc *egc, libxl__epoch *ep, int rc)
{
    libxl__remus *rm = remus_of(ep);
    libxl__ao *ao = rm->ao;

    rc = outcome(rm, rc);
    if (rm->stop_request)
        libxl__control_reply(&rm->control, rm->stop_request,
                             rc ? "error protection ended with a failure, see its log"
                                : "ok ended");
    dispose(rm);
    free(rm);
    libxl__ao_complete(egc, ao, rc);
}

static void abort_asked(libxl__egc *egc, libxl__ao_abortable *abrt, int rc)
{
    libxl__remus *rm = CONTAINER_OF(abrt, libxl__remus, abortable);

    libxl__epoch_interrupt(egc, &rm->epoch, rc);
}

static void init_all(libxl__remus *rm)
{
    libxl__ao_abortable_init(&rm->abortable);
    libxl__epoch_init(&rm->epoch);
    libxl__ev_time_init(&rm->timer);
    libxl__ev_xswatch_init(&rm->device_watch);
    libxl__ev_time_init(&rm->device_timer);
    libxl__gc_init(&rm->devices, rm->gc->lg);
    libxl__ev_xswatch_init(&rm->memory_watch);
    libxl__ev_xswatch_init(&rm->vcpu_watch);
    libxl__disk_device_init(&rm->disks);
    libxl__channel_init(&rm->channel);
    libxl__dom_suspend_init(&rm->suspend);
    libxl__qmp_cmd_init(&rm->qmp_first);
    libxl__qmp_cmd_init(&rm->qmp_second);
    libxl__save_callout_init(&rm->helper);
    libxl__guard_init(&rm->guard);
    libxl__arbiter_init(&rm->arbiter);
    libxl__control_init(&rm->control);
    libxl__ev_fd_init(&rm->relay_ev);
    libxl__ev_fd_init(&rm->bare_ev);
    rm->relay_fd = rm->state_fd = -1;
    rm->qmp_first.user = rm->qmp_second.user = rm;
    rm->qmp_first.limit_ms = rm->qmp_second.limit_ms = QMP_LIMIT_MS;
}

static int start(libxl__remus *rm, libxl_ctx *ctx)
{
    int rc = check_info(rm->gc, &rm->info);

    if (rc) return rc;
    rm->xch = xc_interface_open(rm->gc->lg, rm->gc->lg, 0);
    rm->state_fd = memfd_create("xentwin-device-state", MFD_CLOEXEC);
    if (!rm->xch || rm->state_fd < 0 || !libxl__loop_xs(rm->loop)) {
        LOGE(rm->gc, ERROR, "cannot open the hypervisor or xenstore");
        return ERROR_FAIL;
    }
    rc = look_at_guest(rm, ctx);
    if (rc) return rc;
    if (libxl__fd_cloexec(rm->gc, rm->send_fd, true) ||
        (rm->recv_fd >= 0 && libxl__fd_cloexec(rm->gc, rm->recv_fd, true)))
        return ERROR_FAIL;
    rm->epoch.loop = rm->loop;
    rm->epoch.domid = rm->domid;
    rm->epoch.setup = remus_setup_plan;
    rm->epoch.repeat = remus_plan;
    rm->epoch.undo = remus_undo_plan;
    rm->epoch.finished = protection_ended;
    rc = libxl__ao_abortable_register(rm->ao, &rm->abortable, abort_asked);
    if (!rc) rc = libxl__epoch_start(&rm->epoch);
    return rc;
}

static void copy_disks(libxl__remus *rm)
{
    unsigned n = rm->info.disks ? rm->info.num_disks : 0;
    const char **names = libxl__zalloc(rm->gc, (n + 1) * sizeof(*names));

    for (unsigned i = 0; i < n; i++)
        names[i] = libxl__strdup(rm->gc, rm->info.disks[i]);
    if (rm->info.disks) rm->info.disks = names;
}

/* The operation keeps what it needs: the caller's strings may go when the call returns. */
static void copy_info(libxl__remus *rm, const libxl_replication_info *info)
{
    const char **const strings[] = {&rm->info.arbiter,   &rm->info.compress,  &rm->info.domain_name,
                                    &rm->info.self_name, &rm->info.peer_name, &rm->info.session,
                                    &rm->info.devices};

    rm->info = *info;
    for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        if (*strings[i]) *strings[i] = libxl__strdup(rm->gc, *strings[i]);
    copy_disks(rm);
}

LIBXL_REPLICATION_EXPORT int libxl_replication_start(libxl_ctx *ctx,
                                                     const libxl_replication_info *info,
                                                     uint32_t domid, int send_fd, int recv_fd,
                                                     const libxl_asyncop_how *ao_how)
{
    xentoollog_logger *lg = info->lg ? info->lg : libxl__stderr_logger();
    libxl__ao *ao = libxl__ao_create(ctx, lg, domid, ao_how);
    libxl__remus *rm;
    int rc;

    if (!ao) return ERROR_NOMEM;
    rm = calloc(1, sizeof(*rm));
    if (!rm) return libxl__ao_create_fail(ao, ERROR_NOMEM);
    /* A peer that goes away must be an error code, not the end of the process. */
    signal(SIGPIPE, SIG_IGN);
    rm->ao = ao;
    rm->loop = libxl__ao_loop(ao);
    rm->gc = libxl__ao_gc(ao);
    copy_info(rm, info);
    rm->domid = domid;
    rm->send_fd = send_fd;
    rm->recv_fd = recv_fd;
    init_all(rm);
    rc = start(rm, ctx);
    if (rc) {
        dispose(rm);
        free(rm);
        return libxl__ao_create_fail(ao, rc);
    }
    return libxl__ao_inprogress(ao);
}

LIBXL_REPLICATION_EXPORT int libxl_domain_remus_start(libxl_ctx *ctx,
                                                      libxl_domain_remus_info *remus,
                                                      uint32_t domid, int send_fd, int recv_fd,
                                                      const libxl_asyncop_how *ao_how)
{
    libxl_replication_info info;
    char session[37], self[256] = "";
    char *name = NULL;
    uuid_t uu;
    int rc;

    libxl_replication_info_init(&info);
    info.remus = *remus;
    libxl_defbool_setdefault(&info.remus.allow_unsafe, false);
    info.acknowledged = !libxl_defbool_val(info.remus.allow_unsafe);
    name = libxl_domid_to_name(ctx, domid);
    if (!name || gethostname(self, sizeof(self) - 1)) {
        rc = ERROR_INVAL;
        goto out;
    }
    uuid_generate(uu);
    uuid_unparse_lower(uu, session);
    info.domain_name = name;
    info.self_name = self;
    info.peer_name = "backup"; /* this call cannot tell who it is */
    info.session = session;
    rc = libxl_replication_start(ctx, &info, domid, send_fd, recv_fd, ao_how);
out:
    free(name);
    return rc;
}

LIBXL_REPLICATION_EXPORT int libxl_replication_stop(libxl_ctx *ctx, const char *domain_name,
                                                    int limit_ms)
{
    libxl__gc gc;
    char *answer = NULL;
    int rc;

    libxl__gc_init(&gc, libxl__stderr_logger());
    rc = libxl__control_call(&gc, "primary", domain_name, "stop", limit_ms, &answer);
    if (!rc && strncmp(answer, "ok", 2)) {
        LOG(&gc, ERROR, "%s: %s", domain_name, answer);
        rc = ERROR_FAIL;
    }
    libxl__gc_dispose(&gc);
    return rc;
}

LIBXL_REPLICATION_EXPORT int libxl_replication_abort(uint32_t domid)
{
    return libxl__ao_abort_domid(domid);
}
