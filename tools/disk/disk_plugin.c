/* SPDX-License-Identifier: LGPL-2.1-only */
/* The instance as an nbdkit plugin. nbdkit is started by xentwin-disk, which sets every parameter. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "disk.h"
#include "disk_control.h"
#include "disk_util.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define LOCK_TRIES 5
#define LOCK_STEP_MS 20

static char *path, *state_dir, *run_dir, *shared;
static struct disk_options options = {.queue_bytes = 64u << 20,
                                      .journal_bytes = 512u << 20,
                                      .limit_ms = 3000,
                                      .settle_ms = 1000,
                                      .primary = true};
static struct disk disk;
static struct disk_control control;
static bool opened, bound;
static int lock_fd = -1, state_lock_fd = -1;

static void log_line(const char *line)
{
    nbdkit_error("%s", line);
}

static int config_octets(const char *key, const char *value, uint64_t min, uint64_t *out)
{
    int64_t n = nbdkit_parse_size(value);

    if (n < 0) return -1;
    if ((uint64_t)n < min || (uint64_t)n > DISK_SIZE_MAX) {
        nbdkit_error("%s=%s must be at least %" PRIu64, key, value, min);
        return -1;
    }
    *out = (uint64_t)n;
    return 0;
}

static int config_ms(const char *key, const char *value, int min, int max, int *out)
{
    if (nbdkit_parse_int(key, value, out)) return -1;
    if (*out >= min && *out <= max) return 0;
    nbdkit_error("%s=%s must be %d to %d", key, value, min, max);
    return -1;
}

static int config_path(const char *value, char **out)
{
    free(*out);
    *out = nbdkit_realpath(value);
    return *out ? 0 : -1;
}

static int xt_config(const char *key, const char *value)
{
    int r;

    if (!strcmp(key, "path")) return config_path(value, &path);
    if (!strcmp(key, "state")) return config_path(value, &state_dir);
    if (!strcmp(key, "run")) return config_path(value, &run_dir);
    if (!strcmp(key, "shared")) {
        /* A primary makes it. */
        free(shared);
        shared = nbdkit_absolute_path(value);
        return shared ? 0 : -1;
    }
    if (!strcmp(key, "queue"))
        return config_octets(key, value, DISK_QUEUE_MIN, &options.queue_bytes);
    if (!strcmp(key, "journal"))
        return config_octets(key, value, DISK_JOURNAL_MIN, &options.journal_bytes);
    if (!strcmp(key, "limit-ms")) return config_ms(key, value, 1000, 3600000, &options.limit_ms);
    if (!strcmp(key, "settle-ms")) return config_ms(key, value, 100, 60000, &options.settle_ms);
    if (!strcmp(key, "role")) {
        options.primary = !strcmp(value, "primary");
        return 0;
    }
    if (!strcmp(key, "hold") || !strcmp(key, "force-primary")) {
        r = nbdkit_parse_bool(value);
        if (r < 0) return -1;
        *(key[0] == 'h' ? &options.hold : &options.force_primary) = r;
        return 0;
    }
    nbdkit_error("%s is no parameter of this plugin; it is started by xentwin-disk", key);
    return -1;
}

static int xt_config_complete(void)
{
    if (path && state_dir && run_dir) return 0;
    nbdkit_error("path, state and run are needed; the plugin is started by xentwin-disk");
    return -1;
}

/* One instance at a time has the name, and one the state. */
static int take_lock(const char *dir, int *fd)
{
    char name[PATH_MAX];

    snprintf(name, sizeof(name), "%s/lock", dir);
    *fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0) {
        nbdkit_error("cannot open %s: %s", name, strerror(errno));
        return -1;
    }
    /* Who only looks whether it is free has it for a moment. */
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (!flock(*fd, LOCK_EX | LOCK_NB)) return 0;
        poll(NULL, 0, LOCK_STEP_MS);
    }
    nbdkit_error("an instance with %s runs already", dir);
    return -1;
}

static int xt_get_ready(void)
{
    char why[DISK_TEXT_MAX] = "", name[PATH_MAX];
    int r;

    disk_log_line = log_line;
    if (take_lock(run_dir, &lock_fd) || take_lock(state_dir, &state_lock_fd)) return -1;
    options.path = path;
    options.state_dir = state_dir;
    options.shared = shared;
    opened = true;
    r = disk_open(&disk, &options, why);
    if (r) {
        nbdkit_error("%s", why);
        return -1;
    }
    snprintf(name, sizeof(name), "%s/control.sock", run_dir);
    bound = true;
    r = disk_control_open(&control, &disk, name);
    control.asked_to_stop = nbdkit_shutdown;
    if (r) nbdkit_error("cannot bind %s: %s", name, strerror(-r));
    return r ? -1 : 0;
}

static int xt_after_fork(void)
{
    int r;

    r = disk_start(&disk);
    if (!r) r = disk_control_start(&control);
    if (r) nbdkit_error("cannot start a thread: %s", strerror(-r));
    return r ? -1 : 0;
}

static void xt_unload(void)
{
    if (bound) disk_control_close(&control);
    if (opened) disk_close(&disk);
    /* Whoever waits for our end waits for the name: that is the last to go. */
    if (state_lock_fd >= 0) close(state_lock_fd);
    if (lock_fd >= 0) close(lock_fd);
    free(path);
    free(state_dir);
    free(run_dir);
    free(shared);
}

/* ---- requests ---- */

static int done(int r)
{
    if (r) {
        nbdkit_error("request failed: %s", strerror(-r));
        nbdkit_set_error(-r);
    }
    return r ? -1 : 0;
}

static void *xt_open(int readonly)
{
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t xt_get_size(void *handle)
{
    return (int64_t)disk.store.size;
}

static int yes(void *handle)
{
    return 1;
}

static int xt_can_fua(void *handle)
{
    return NBDKIT_FUA_NATIVE;
}

static int xt_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
    *minimum = 1;
    *preferred = 4096;
    *maximum = 32u << 20;
    return 0;
}

static int xt_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    return done(disk_read(&disk, buf, count, offset));
}

static int xt_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    return done(disk_write(&disk, buf, count, offset, flags & NBDKIT_FLAG_FUA));
}

static int xt_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return done(
        disk_zero(&disk, count, offset, flags & NBDKIT_FLAG_MAY_TRIM, flags & NBDKIT_FLAG_FUA));
}

static int xt_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    return done(disk_trim(&disk, count, offset, flags & NBDKIT_FLAG_FUA));
}

static int xt_flush(void *handle, uint32_t flags)
{
    return done(disk_flush(&disk));
}

static struct nbdkit_plugin plugin = {
    .name = "xentwin",
    .version = XENTWIN_VERSION,
    .longname = "xentwin's disk of a protected guest",
    .config = xt_config,
    .config_complete = xt_config_complete,
    .get_ready = xt_get_ready,
    .after_fork = xt_after_fork,
    .unload = xt_unload,
    .open = xt_open,
    .get_size = xt_get_size,
    .block_size = xt_block_size,
    .can_write = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_multi_conn = yes,
    .can_fua = xt_can_fua,
    .pread = xt_pread,
    .pwrite = xt_pwrite,
    .zero = xt_zero,
    .trim = xt_trim,
    .flush = xt_flush,
};

struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
