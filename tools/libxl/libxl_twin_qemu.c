/* SPDX-License-Identifier: LGPL-2.1-only */
/* See libxl_twin_qemu.h. */
#include "libxl_twin_qemu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>
#include <libxl_utils.h>

#include "libxl_qmp_client.h"

#define QMP_PATH "/var/run/xen/qmp-libxenstat-%u"
#define LIMIT_START_MS 60000
#define LIMIT_QMP_MS 10000
#define LIMIT_LOAD_MS 60000
#define LIMIT_REFUSED_MS 5000
#define COPY_BYTES 65536u

#define Q_LOG(q, level, ...) xtl_log((q)->lg, XTL_##level, -1, "qemu", __VA_ARGS__)

int64_t twin_qemu_now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_BOOTTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void pause_ms(long ms)
{
    struct timespec ts = {.tv_nsec = ms * 1000000};

    nanosleep(&ts, NULL);
}

/* ---- nodes below the device model's directory ---- */

static void node_path(const struct twin_qemu *q, const char *node, char path[80])
{
    snprintf(path, 80, "/local/domain/0/device-model/%u/%s", q->domid, node);
}

static int write_node(struct twin_qemu *q, const char *node, const char *value)
{
    char path[80];

    node_path(q, node, path);
    if (xs_write(q->xs, XBT_NULL, path, value, (unsigned)strlen(value))) return 0;
    xtl_log(q->lg, XTL_ERROR, errno, "qemu", "cannot write %s", path);
    return -1;
}

static bool node_is(struct twin_qemu *q, const char *node, const char *value)
{
    char path[80], *have;
    unsigned len;
    bool same;

    node_path(q, node, path);
    have = xs_read(q->xs, XBT_NULL, path, &len);
    same = have && !strcmp(have, value);
    free(have);
    return same;
}

/* ---- the start ---- */

int twin_qemu_await(struct twin_qemu *q)
{
    int64_t until = twin_qemu_now_ms() + LIMIT_START_MS;
    libxl__gc gc;
    char path[80];
    int rc = ERROR_NOT_READY;

    snprintf(path, sizeof(path), QMP_PATH, q->domid);
    libxl__gc_init(&gc, NULL); /* until it is there, there is nothing to report */
    while (rc && twin_qemu_now_ms() < until) {
        if (!access(path, F_OK))
            rc = libxl__qmp_blocking_at(&gc, path, "{\"execute\":\"query-status\"}", LIMIT_QMP_MS);
        if (rc) pause_ms(50);
    }
    libxl__gc_dispose(&gc);
    if (rc) {
        Q_LOG(q, ERROR, "the device model of domain %u did not start", q->domid);
        return -1;
    }
    /* Of one that was asked to load, only QEMU itself knows whether it runs. */
    return node_is(q, "xentwin", "asked") ? 0 : write_node(q, "state", "running");
}

/* ---- the configuration ---- */

/* libxl tells much of its own when a context ends. */
struct quiet {
    xentoollog_logger lg; /* first: the logger is cast to us */
    xentoollog_logger *to;
};

static void quiet_vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                           const char *context, const char *format, va_list al)
{
    struct quiet *q = (struct quiet *)(void *)lg;

    if (level >= XTL_WARN) xtl_logv(q->to, level, errnoval, context, format, al);
}

static void quiet_progress(xentoollog_logger *lg, const char *context, const char *doing,
                           int percent, unsigned long done, unsigned long total)
{
}

static struct quiet quiet_logger(xentoollog_logger *to)
{
    return (struct quiet){.lg = {quiet_vmessage, quiet_progress, NULL}, .to = to};
}

static const char *const defer[] = {"-incoming", "defer"};

static int add_words(libxl_string_list *list)
{
    int n = libxl_string_list_length(list), i;
    libxl_string_list grown = calloc((size_t)n + 3, sizeof(*grown));

    if (!grown) return -1;
    for (i = 0; i < n; i++)
        grown[i] = (*list)[i];
    for (i = 0; i < 2; i++)
        grown[n + i] = strdup(defer[i]);
    free(*list);
    *list = grown;
    return grown[n] && grown[n + 1] ? 0 : -1;
}

static void remove_words(libxl_string_list list)
{
    int n = libxl_string_list_length(&list);

    if (n < 2 || strcmp(list[n - 2], defer[0]) || strcmp(list[n - 1], defer[1])) return;
    free(list[n - 1]);
    free(list[n - 2]);
    list[n - 2] = NULL;
}

static char *edit_config(libxl_ctx *ctx, const char *json, int with)
{
    libxl_domain_config config;
    char *edited = NULL;

    libxl_domain_config_init(&config);
    if (libxl_domain_config_from_json(ctx, &config, json)) goto out;
    if (with && add_words(&config.b_info.extra_hvm)) goto out;
    if (!with && config.b_info.extra_hvm) remove_words(config.b_info.extra_hvm);
    edited = libxl_domain_config_to_json(ctx, &config);
out:
    libxl_domain_config_dispose(&config);
    return edited;
}

char *twin_qemu_config(xentoollog_logger *lg, const char *json, int with)
{
    struct quiet quiet = quiet_logger(lg);
    libxl_ctx *ctx = NULL;
    char *edited = NULL;

    if (libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &quiet.lg)) return NULL;
    edited = edit_config(ctx, json, with);
    libxl_ctx_free(ctx);
    return edited;
}

static int clean_config(struct twin_qemu *q, libxl_ctx *ctx)
{
    uint8_t *data = NULL;
    char *json = NULL, *edited = NULL;
    int len, rc;

    rc = libxl_userdata_retrieve(ctx, q->domid, "libxl-json", &data, &len);
    if (rc || !data) return ERROR_FAIL;
    json = strndup((const char *)data, (size_t)len);
    if (json) edited = edit_config(ctx, json, 0);
    rc = !edited ? ERROR_FAIL
                 : libxl_userdata_store(ctx, q->domid, "libxl-json", (const uint8_t *)edited,
                                        (int)strlen(edited) + 1);
    free(data);
    free(json);
    free(edited);
    return rc;
}

void twin_qemu_clean_config(struct twin_qemu *q)
{
    struct quiet quiet = quiet_logger(q->lg);
    libxl_ctx *ctx = NULL;
    int rc;

    rc = libxl_ctx_alloc(&ctx, LIBXL_VERSION, 0, &quiet.lg);
    if (!rc) rc = clean_config(q, ctx);
    if (ctx) libxl_ctx_free(ctx);
    /* The guest can run all the same. */
    if (rc)
        Q_LOG(q, WARN,
              "domain %u keeps '-incoming defer' in its configuration: it cannot be "
              "rebooted or migrated",
              q->domid);
}

/* ---- the state ---- */

int twin_qemu_take_state(struct twin_qemu *q, struct xc_sr_io *io, uint64_t len)
{
    char buf[COPY_BYTES];
    size_t n;

    if (q->state_fd < 0) q->state_fd = memfd_create("xentwin-qemu-state", MFD_CLOEXEC);
    if (q->state_fd < 0 || ftruncate(q->state_fd, 0) || lseek(q->state_fd, 0, SEEK_SET)) goto fail;
    for (; len; len -= n) {
        n = len < sizeof(buf) ? (size_t)len : sizeof(buf);
        if (xc_sr_io_read(io, buf, n)) goto fail;
        if (write(q->state_fd, buf, n) != (ssize_t)n) goto fail;
    }
    if (!lseek(q->state_fd, 0, SEEK_SET)) return 0;
fail:
    xtl_log(q->lg, XTL_ERROR, errno, "qemu", "cannot keep the state of the device model");
    return -1;
}

struct command {
    libxl__qmp_cmd cmd;
    bool done;
    int rc;
};

static void command_done(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    struct command *c = CONTAINER_OF(cmd, struct command, cmd);

    c->rc = rc;
    c->done = true;
}

static int command(libxl__loop *loop, libxl__qmp *qmp, const char *json, int fd)
{
    struct command c = {.done = false};
    int rc;

    libxl__qmp_cmd_init(&c.cmd);
    c.cmd.callback = command_done;
    c.cmd.limit_ms = LIMIT_QMP_MS;
    rc = libxl__qmp_send(qmp, &c.cmd, json, fd);
    if (!rc) rc = libxl__loop_run(loop, &c.done);
    return rc ? rc : c.rc;
}

/* getfd and its use must come over one connection. */
static int tell_qemu(struct twin_qemu *q)
{
    libxl__loop *loop = NULL;
    libxl__qmp *qmp = NULL;
    int rc;

    rc = libxl__loop_new(&loop, q->lg, NULL);
    if (rc) return rc;
    rc = libxl__qmp_open(loop, q->domid, &qmp);
    if (!rc)
        rc = command(loop, qmp, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"xentwin\"}}",
                     q->state_fd);
    if (!rc)
        rc = command(loop, qmp,
                     "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"fd:xentwin\"}}",
                     -1);
    libxl__qmp_close(qmp);
    libxl__loop_free(loop);
    return rc;
}

int twin_qemu_load(struct twin_qemu *q)
{
    int64_t until;
    int rc;

    if (node_is(q, "xentwin", "loaded")) return 0; /* by one who died right after */
    /* QEMU writes "running" once, when it runs: perhaps already, asked by one who died. */
    if (!node_is(q, "xentwin", "asked") &&
        (write_node(q, "state", "incoming") || write_node(q, "xentwin", "asked")))
        return -1;
    rc = node_is(q, "state", "running") ? 0 : tell_qemu(q);
    /* Refused perhaps because somebody who died had asked already. */
    until = twin_qemu_now_ms() + (rc ? LIMIT_REFUSED_MS : LIMIT_LOAD_MS);
    while (!node_is(q, "state", "running")) {
        if (twin_qemu_now_ms() >= until) {
            Q_LOG(q, ERROR, "the device model of domain %u did not take its state", q->domid);
            return -1;
        }
        pause_ms(5);
    }
    return write_node(q, "xentwin", "loaded");
}

void twin_qemu_dispose(struct twin_qemu *q)
{
    if (q->state_fd > 0) close(q->state_fd);
    q->state_fd = -1;
}
