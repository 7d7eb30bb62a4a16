/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_snap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk_util.h"

#define TEXT_MAX 256
#define FIRST_MIN 0x800000u
#define TRIES 16

/* ---- the file ---- */

static void make_text(char text[TEXT_MAX], const char *pool, uint32_t entry, uint32_t first)
{
    snprintf(text, TEXT_MAX, "xentwin-thin 1\npool=%s\nvolume=%u\nfirst=%u\n", pool, entry, first);
}

/* Sets `first` if the file is of this volume in this pool. */
static int load(struct drbd_snap *s, char why[DRBD_WHY_MAX])
{
    char path[PATH_MAX], text[TEXT_MAX] = "", again[TEXT_MAX], pool[DRBD_DM_NAME_MAX];
    uint32_t entry, first;

    s->first = 0;
    snprintf(path, sizeof(path), "%s/thin", s->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) return 0;
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) close(fd);
    if (n >= 0 && sscanf(text, "xentwin-thin 1\npool=%127s\nvolume=%u\nfirst=%u\n", pool, &entry,
                         &first) == 3) {
        make_text(again, pool, entry, first);
        if (!strcmp(text, again) && first >= FIRST_MIN && first < DRBD_DM_ID_MAX) {
            if (!strcmp(pool, s->dm.pool_name) && entry == s->entry) s->first = first;
            return 0;
        }
    }
    snprintf(why, DRBD_WHY_MAX,
             "%.250s cannot be read or is damaged: look for thin volumes that LVM does not know "
             "in pool %s, and remove it",
             path, s->dm.pool_name);
    return -1;
}

static int save(const struct drbd_snap *s, uint32_t first, char why[DRBD_WHY_MAX])
{
    char path[PATH_MAX], fresh[PATH_MAX], text[TEXT_MAX];
    int fd, r;

    snprintf(path, sizeof(path), "%s/thin", s->dir);
    snprintf(fresh, sizeof(fresh), "%s/thin.new", s->dir);
    make_text(text, s->dm.pool_name, s->entry, first);
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    r = fd < 0 ? -errno : disk_pwrite_full(fd, text, strlen(text), 0);
    if (!r && fsync(fd)) r = -errno;
    if (fd >= 0) close(fd);
    if (!r && rename(fresh, path)) r = -errno;
    if (r) snprintf(why, DRBD_WHY_MAX, "cannot write %.300s: %s", path, strerror(-r));
    return r ? -1 : 0;
}

/* ---- the two numbers ---- */

/* A pair that is free, tried by taking it. It is in the file before it can be left behind for long: a host that dies in between leaves
 * two snapshots that nobody knows of, which cost room and harm nobody. */
static int choose(struct drbd_snap *s, char why[DRBD_WHY_MAX])
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t first;
        bool taken[2] = {false, false};
        char lost[DRBD_WHY_MAX] = "";
        int r = disk_random(&first, sizeof(first));

        if (r) break;
        first = FIRST_MIN | (first & 0x7ffffeu);
        r = drbd_dm_snapshot(&s->dm, first, s->entry, &taken[0], why);
        if (r && taken[0]) continue;
        if (r) return -1;
        r = drbd_dm_snapshot(&s->dm, first + 1, s->entry, &taken[1], why);
        bool both = !r;
        if (!r) r = save(s, first, why);
        if (!r) s->first = first;
        /* Also when the file could not be written: then nobody would ever find them. */
        if (both && drbd_dm_delete(&s->dm, first + 1, r ? lost : why) && !r) return -1;
        if (drbd_dm_delete(&s->dm, first, r ? lost : why) && !r) return -1;
        if (!r || !taken[1]) return r;
    }
    snprintf(why, DRBD_WHY_MAX, "no free numbers for snapshots in pool %s", s->dm.pool_name);
    return -1;
}

int drbd_snap_clear(struct drbd_snap *s, char why[DRBD_WHY_MAX])
{
    int r = 0;

    s->sealed = s->committed = 0;
    if (!s->first) return 0;
    for (unsigned i = 0; i < 2; i++)
        if (drbd_dm_delete(&s->dm, s->first + i, why)) r = -1;
    return r;
}

int drbd_snap_clean(const char *dir, const char *path, char why[DRBD_WHY_MAX])
{
    struct drbd_snap s = {.dir = dir};

    if (drbd_dm_open(&s.dm, path, why)) return -1;
    s.entry = s.dm.id;
    return load(&s, why) || drbd_snap_clear(&s, why) ? -1 : 0;
}

int drbd_snap_open(struct drbd_snap *s, const char *dir, const char *path, char why[DRBD_WHY_MAX])
{
    memset(s, 0, sizeof(*s));
    s->dir = dir;
    if (drbd_dm_open(&s->dm, path, why) || drbd_dm_pool_fine(&s->dm, why)) return -1;
    s->entry = s->dm.id;
    if (load(s, why)) return -1;
    if (s->entry >= FIRST_MIN) {
        snprintf(why, DRBD_WHY_MAX,
                 "%s shows a snapshot, for a promotion was interrupted: deactivate and activate it",
                 path);
        return -1;
    }
    return s->first ? drbd_snap_clear(s, why) : choose(s, why);
}

/* ---- checkpoints ---- */

int drbd_snap_seal(struct drbd_snap *s, uint64_t n, char why[DRBD_WHY_MAX])
{
    unsigned at = s->committed ? !s->committed_at : 0;
    bool taken;

    if (s->sealed || n <= s->committed) {
        snprintf(why, DRBD_WHY_MAX, "checkpoint %llu comes out of turn", (unsigned long long)n);
        return -1;
    }
    if (drbd_dm_snapshot(&s->dm, s->first + at, s->entry, &taken, why)) return -1;
    s->sealed = n;
    s->sealed_at = at;
    return 0;
}

int drbd_snap_commit(struct drbd_snap *s, uint64_t n, char why[DRBD_WHY_MAX])
{
    unsigned old = s->committed_at;
    bool had = s->committed;

    if (n && n == s->committed) return 0;
    if (!n || n != s->sealed) {
        snprintf(why, DRBD_WHY_MAX, "checkpoint %llu has no snapshot", (unsigned long long)n);
        return -1;
    }
    s->committed = n;
    s->committed_at = s->sealed_at;
    s->sealed = 0;
    return had ? drbd_dm_delete(&s->dm, s->first + old, why) : 0;
}

int drbd_snap_restore(struct drbd_snap *s, uint64_t n,
                      int (*prepare)(void *arg, char why[DRBD_WHY_MAX]), void *arg,
                      char why[DRBD_WHY_MAX])
{
    unsigned at = n == s->sealed ? s->sealed_at : s->committed_at;
    uint32_t id = s->first + at;
    char lost[DRBD_WHY_MAX];
    bool taken;

    if (!n || (n != s->sealed && n != s->committed)) {
        snprintf(why, DRBD_WHY_MAX, "checkpoint %llu has no snapshot", (unsigned long long)n);
        return -1;
    }
    if (drbd_dm_point(&s->dm, id, why)) return -1;
    if (prepare(arg, why)) {
        (void)drbd_dm_point(&s->dm, s->entry, lost);
        return -1;
    }
    if (drbd_dm_delete(&s->dm, s->entry, why) ||
        drbd_dm_snapshot(&s->dm, s->entry, id, &taken, why) || drbd_dm_point(&s->dm, s->entry, why))
        return -1;
    return 0;
}
