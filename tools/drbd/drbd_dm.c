/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_dm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <linux/dm-ioctl.h>

#include "drbd_apart.h"

#define ROOM 4096

/* One call to the device mapper: the head, and what goes with it or comes back. */
union dm_call {
    struct dm_ioctl head;
    char octets[ROOM];
};

static void prepare(union dm_call *c, dev_t device, uint32_t flags)
{
    memset(c, 0, sizeof(*c));
    c->head.version[0] = DM_VERSION_MAJOR;
    c->head.data_size = sizeof(*c);
    c->head.data_start = sizeof(c->head);
    c->head.dev = device;
    c->head.flags = flags;
}

/* 0 or -errno. */
static int call(union dm_call *c, unsigned long request)
{
    int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), r;

    if (fd < 0) return -errno;
    r = ioctl(fd, request, c) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* Type and parameters of a device with exactly one target; pointers into c. */
static int status(union dm_call *c, dev_t device, uint32_t flags, const char **type,
                  const char **params)
{
    struct dm_target_spec *spec;
    int r;

    prepare(c, device, flags);
    r = call(c, DM_TABLE_STATUS);
    if (r) return r;
    if (c->head.target_count != 1 || c->head.flags & DM_BUFFER_FULL_FLAG ||
        c->head.data_start > ROOM - sizeof(*spec) - 1)
        return -EINVAL;
    c->octets[ROOM - 1] = 0;
    spec = (struct dm_target_spec *)(void *)(c->octets + c->head.data_start);
    spec->target_type[DM_MAX_TYPE_NAME - 1] = 0;
    *type = spec->target_type;
    *params = (const char *)(spec + 1);
    return 0;
}

static int no_thin(const char *path, char why[DRBD_WHY_MAX])
{
    snprintf(why, DRBD_WHY_MAX,
             "%s below DRBD is no LVM thin volume: it has no snapshots that could be taken at each "
             "checkpoint; move it to a thin volume (lvcreate -T)",
             path);
    return -1;
}

static int suspend(const struct drbd_dm *dm)
{
    union dm_call c;

    prepare(&c, dm->device, DM_SUSPEND_FLAG | DM_SKIP_LOCKFS_FLAG);
    return call(&c, DM_DEV_SUSPEND);
}

static int resume(const struct drbd_dm *dm)
{
    union dm_call c;

    prepare(&c, dm->device, 0);
    return call(&c, DM_DEV_SUSPEND);
}

int drbd_dm_open(struct drbd_dm *dm, const char *path, char why[DRBD_WHY_MAX])
{
    const char *type, *params;
    union dm_call c;
    struct stat st;

    memset(dm, 0, sizeof(*dm));
    snprintf(dm->path, sizeof(dm->path), "%s", path);
    if (stat(path, &st) || !S_ISBLK(st.st_mode)) return no_thin(path, why);
    dm->device = st.st_rdev;
    if (status(&c, dm->device, DM_STATUS_TABLE_FLAG, &type, &params) || strcmp(type, "thin") ||
        !drbd_dm_parse_thin(params, &dm->pool, &dm->id))
        return no_thin(path, why);
    /* Somebody was killed together with the child that would have resumed it. */
    if (c.head.flags & DM_SUSPEND_FLAG) (void)resume(dm);
    dm->sectors = ((struct dm_target_spec *)(void *)(c.octets + c.head.data_start))->length;
    if (status(&c, dm->pool, DM_STATUS_TABLE_FLAG, &type, &params) || strcmp(type, "thin-pool"))
        return no_thin(path, why);
    snprintf(dm->pool_name, sizeof(dm->pool_name), "%s", c.head.name);
    return 0;
}

int drbd_dm_pool_fine(const struct drbd_dm *dm, char why[DRBD_WHY_MAX])
{
    const char *type, *params;
    union dm_call c;
    int r = status(&c, dm->pool, 0, &type, &params);

    if (!r && !strcmp(type, "thin-pool")) return drbd_dm_parse_pool(params, why) ? 0 : -1;
    snprintf(why, DRBD_WHY_MAX, "the thin pool %s does not answer: %s", dm->pool_name,
             strerror(r ? -r : EINVAL));
    return -1;
}

static int message(const struct drbd_dm *dm, const char *text)
{
    struct dm_target_msg *m;
    union dm_call c;

    prepare(&c, dm->pool, 0);
    m = (struct dm_target_msg *)(void *)(c.octets + c.head.data_start);
    m->sector = 0;
    snprintf(m->message, ROOM - sizeof(c.head) - sizeof(*m), "%s", text);
    return call(&c, DM_TARGET_MSG);
}

/* Something to be done while a volume is suspended. */
struct still {
    const struct drbd_dm *dm;
    int (*work)(const struct still *s);
    uint32_t id, of;
};

static int do_still(const void *arg)
{
    const struct still *s = arg;
    int r = suspend(s->dm), r2;

    if (r) return r;
    r = s->work(s);
    r2 = resume(s->dm);
    return r ? r : r2;
}

/* A volume that stays suspended would hold up the guest's writes on the other host. */
static int stand_still(const struct still *s)
{
    int r = drbd_apart(do_still, s);

    if (r == -ECHILD) (void)resume(s->dm);
    return r;
}

static int create_snap(const struct still *s)
{
    char text[64];

    snprintf(text, sizeof(text), "create_snap %u %u", s->id, s->of);
    return message(s->dm, text);
}

int drbd_dm_snapshot(const struct drbd_dm *dm, uint32_t id, uint32_t of, bool *taken,
                     char why[DRBD_WHY_MAX])
{
    /* The pool wants the origin to stand still, and what was on its way to be in it. */
    int r = stand_still(&(struct still){.dm = dm, .work = create_snap, .id = id, .of = of});

    *taken = false;
    if (!r) return 0;
    *taken = r == -EEXIST;
    snprintf(why, DRBD_WHY_MAX, "no snapshot of %s: %s", dm->path, strerror(-r));
    return -1;
}

int drbd_dm_delete(const struct drbd_dm *dm, uint32_t id, char why[DRBD_WHY_MAX])
{
    char text[64];
    int r;

    snprintf(text, sizeof(text), "delete %u", id);
    r = message(dm, text);
    if (!r || r == -ENODATA) return 0;
    snprintf(why, DRBD_WHY_MAX, "thin volume %u of the pool %s cannot be deleted: %s", id,
             dm->pool_name, strerror(-r));
    return -1;
}

static int load_table(const struct still *s)
{
    const struct drbd_dm *dm = s->dm;
    struct dm_target_spec *spec;
    union dm_call c;

    prepare(&c, dm->device, 0);
    c.head.target_count = 1;
    spec = (struct dm_target_spec *)(void *)(c.octets + c.head.data_start);
    spec->length = dm->sectors;
    snprintf(spec->target_type, sizeof(spec->target_type), "thin");
    snprintf((char *)(spec + 1), ROOM - sizeof(c.head) - sizeof(*spec), "%u:%u %u", major(dm->pool),
             minor(dm->pool), s->id);
    return call(&c, DM_TABLE_LOAD);
}

int drbd_dm_point(struct drbd_dm *dm, uint32_t id, char why[DRBD_WHY_MAX])
{
    int r = stand_still(&(struct still){.dm = dm, .work = load_table, .id = id});

    if (!r) {
        dm->id = id;
        return 0;
    }
    snprintf(why, DRBD_WHY_MAX, "%s cannot be made thin volume %u of its pool: %s", dm->path, id,
             strerror(-r));
    return -1;
}
