/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_res.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 512
#define STATUS_MAX (1u << 20) /* of /proc/drbd: all resources of the host */

/* A small file of the kernel; tests have a root of their own. */
static int read_kernel_file(const char *path, char *text, size_t size)
{
    const char *root = getenv("XENTWIN_DRBD_ROOT");
    char whole[PATH_MAX];
    size_t n = 0;
    ssize_t got;
    int fd;

    snprintf(whole, sizeof(whole), "%s%s", root ? root : "", path);
    fd = open(whole, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -errno;
    while (n < size - 1 && (got = read(fd, text + n, size - 1 - n)) > 0)
        n += (size_t)got;
    close(fd);
    text[n] = 0;
    return 0;
}

bool drbd_name_fine(const char *name)
{
    static const char fine[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t n = strlen(name);

    return n >= 1 && n <= DRBD_NAME_MAX && name[0] != '-' && name[0] != '.' &&
           strspn(name, fine) == n;
}

static void load_size(struct drbd_res *r)
{
    char path[64], text[32], *end;
    uint64_t sectors;

    r->size = 0;
    snprintf(path, sizeof(path), "/sys/block/drbd%u/size", r->config.minor);
    if (read_kernel_file(path, text, sizeof(text))) return;
    errno = 0;
    sectors = strtoull(text, &end, 10);
    if (!errno && end != text && sectors < UINT64_MAX / SECTOR) r->size = sectors * SECTOR;
}

int drbd_res_load(struct drbd_res *r, const char *name, char why[DRBD_WHY_MAX])
{
    const char *const show[] = {"drbdsetup", "show", name, "--show-defaults", NULL};
    char text[DRBD_OUTPUT_MAX];

    memset(r, 0, sizeof(*r));
    snprintf(r->name, sizeof(r->name), "%s", name);
    if (read_kernel_file("/proc/drbd", text, sizeof(text))) {
        snprintf(why, DRBD_WHY_MAX, "DRBD 8.4 does not run on this host: modprobe drbd");
        return -1;
    }
    if (drbd_run(show, text, sizeof(text), why)) return -1;
    if (!drbd_config_parse(&r->config, text)) {
        snprintf(why, DRBD_WHY_MAX, "DRBD resource %s is not up on this host: drbdadm up %s", name,
                 name);
        return -1;
    }
    load_size(r);
    return 0;
}

int drbd_res_suits(const struct drbd_res *r, char why[DRBD_WHY_MAX])
{
    if (r->config.volumes != 1)
        snprintf(why, DRBD_WHY_MAX,
                 "DRBD resource %s has %u volumes: give each disk a resource of its own", r->name,
                 r->config.volumes);
    else if (r->config.protocol && r->config.protocol != 'C')
        snprintf(why, DRBD_WHY_MAX,
                 "DRBD resource %s has protocol %c: a write that the guest saw done may be missing "
                 "at the backup; set 'protocol C'",
                 r->name, r->config.protocol);
    else if (r->config.two_primaries)
        snprintf(why, DRBD_WHY_MAX,
                 "DRBD resource %s allows two primaries: both hosts could write; set "
                 "'allow-two-primaries no'",
                 r->name);
    else
        return 0;
    return -1;
}

int drbd_res_status(const struct drbd_res *r, struct drbd_status *s, char why[DRBD_WHY_MAX])
{
    static char text[STATUS_MAX]; /* there is one thread */

    if (!read_kernel_file("/proc/drbd", text, sizeof(text)) &&
        drbd_status_parse(s, text, r->config.minor))
        return 0;
    snprintf(why, DRBD_WHY_MAX, "DRBD resource %s is not up any more", r->name);
    return -1;
}

static int ask_generations(const struct drbd_res *r, char text[DRBD_OUTPUT_MAX],
                           char why[DRBD_WHY_MAX])
{
    char minor[16];
    const char *const argv[] = {"drbdsetup", "get-gi", minor, NULL};

    snprintf(minor, sizeof(minor), "%u", r->config.minor);
    snprintf(why, DRBD_WHY_MAX, "DRBD resource %s does not tell its generation", r->name);
    return drbd_run(argv, text, DRBD_OUTPUT_MAX, why);
}

int drbd_res_generation(const struct drbd_res *r, uint64_t *generation, char why[DRBD_WHY_MAX])
{
    char text[DRBD_OUTPUT_MAX];

    if (ask_generations(r, text, why)) return -1;
    return drbd_generation_parse(generation, text) ? 0 : -1;
}

int drbd_res_history(const struct drbd_res *r, char history[DRBD_HISTORY_SIZE],
                     char why[DRBD_WHY_MAX])
{
    char text[DRBD_OUTPUT_MAX];

    if (ask_generations(r, text, why)) return -1;
    return drbd_history_parse(history, text) ? 0 : -1;
}

int drbd_res_do(const struct drbd_res *r, const char *command, const char *option,
                char why[DRBD_WHY_MAX])
{
    const char *argv[] = {"drbdadm", command, r->name, NULL, NULL};
    char text[DRBD_OUTPUT_MAX];

    if (option) {
        argv[2] = option;
        argv[3] = r->name;
    }
    return drbd_run(argv, text, sizeof(text), why);
}

/* A word that drbdadm prints about the resource. */
static int ask_word(const struct drbd_res *r, const char *question, char *word, size_t size,
                    char why[DRBD_WHY_MAX])
{
    const char *const argv[] = {"drbdadm", question, r->name, NULL};
    char text[DRBD_OUTPUT_MAX];

    if (drbd_run(argv, text, sizeof(text), why)) return -1;
    text[strcspn(text, "\n")] = 0;
    if (*text && strlen(text) < size) {
        snprintf(word, size, "%s", text);
        return 0;
    }
    snprintf(why, DRBD_WHY_MAX, "'drbdadm %s %s' prints '%.40s'", question, r->name, text);
    return -1;
}

int drbd_res_invalidate(const struct drbd_res *r, const char *history, char why[DRBD_WHY_MAX])
{
    char minor[16], device[DRBD_PATH_MAX], where[DRBD_WORD_MAX], text[DRBD_OUTPUT_MAX];
    const char *const set[] = {"drbdmeta", "--force", minor,   "v08", device,
                               where,      "set-gi",  history, NULL};
    const char *const invalidate[] = {"drbdmeta", "--force", minor,        "v08",
                                      device,     where,     "invalidate", NULL};

    snprintf(minor, sizeof(minor), "%u", r->config.minor);
    if (ask_word(r, "sh-md-dev", device, sizeof(device), why) ||
        ask_word(r, "sh-md-idx", where, sizeof(where), why))
        return -1;
    /* drbdadm has another word for it than drbdmeta. */
    if (!strcmp(where, "flexible")) snprintf(where, sizeof(where), "flex-external");
    if (drbd_run(set, text, sizeof(text), why)) return -1;
    return drbd_run(invalidate, text, sizeof(text), why);
}

void drbd_status_tell(const struct drbd_res *r, const struct drbd_status *s, char why[DRBD_WHY_MAX])
{
    snprintf(why, DRBD_WHY_MAX,
             "DRBD resource %s is not the same on both hosts: %s, %s/%s, %s/%s, protocol %c, "
             "%" PRIu64 " KiB differ",
             r->name, s->connection, s->role[0] ? s->role : "-",
             s->peer_role[0] ? s->peer_role : "-", s->disk[0] ? s->disk : "-",
             s->peer_disk[0] ? s->peer_disk : "-", s->protocol ? s->protocol : '-', s->out_of_sync);
}
