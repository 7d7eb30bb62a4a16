/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include <xxhash.h>

#include "disk_util.h"

#define TEXT_MAX 512

bool disk_id_none(const uint8_t id[16])
{
    static const uint8_t none[16];

    return !memcmp(id, none, 16);
}

void disk_id_text(char out[33], const uint8_t id[16])
{
    for (int i = 0; i < 16; i++)
        snprintf(out + i * 2, 3, "%02x", id[i]);
}

static int body_text(char text[TEXT_MAX], const struct disk_state *s)
{
    char uuid[33], base[33], boot[33];

    disk_id_text(uuid, s->uuid);
    disk_id_text(base, s->base);
    disk_id_text(boot, s->boot);
    return snprintf(text, TEXT_MAX,
                    "xentwin-disk 1\nuuid=%s\nbase=%s\nboot=%s\nsize=%" PRIu64
                    "\ngeneration=%" PRIu64 "\nrole=%s\nclean=%d\nsecured=%d\ninconsistent=%d\n",
                    uuid, base, boot, s->size, s->generation, s->primary ? "primary" : "backup",
                    s->clean, s->secured, s->inconsistent);
}

static bool parse_id(uint8_t id[16], const char text[33])
{
    for (int i = 0; i < 32; i++) {
        char c = text[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0) return false;
        id[i / 2] = (uint8_t)(i % 2 ? id[i / 2] | v : v << 4);
    }
    return true;
}

static int parse(struct disk_state *s, const char *text)
{
    char uuid[33] = "", base[33] = "", boot[33] = "", role[8] = "", again[TEXT_MAX];
    int clean = 0, secured = 0, inconsistent = 0;
    uint64_t hash = 0;

    /* Only what we would have written ourselves is taken: the text is made again and compared. */
    if (sscanf(text,
               "xentwin-disk 1\nuuid=%32s\nbase=%32s\nboot=%32s\nsize=%" SCNu64
               "\ngeneration=%" SCNu64
               "\nrole=%7s\nclean=%1d\nsecured=%1d\ninconsistent=%1d\nhash=%" SCNx64 "\n",
               uuid, base, boot, &s->size, &s->generation, role, &clean, &secured, &inconsistent,
               &hash) != 10)
        return -EBADMSG;
    if (!parse_id(s->uuid, uuid) || !parse_id(s->base, base) || !parse_id(s->boot, boot))
        return -EBADMSG;
    s->primary = !strcmp(role, "primary");
    s->clean = clean;
    s->secured = secured;
    s->inconsistent = inconsistent;
    int n = body_text(again, s);
    if (strncmp(text, again, (size_t)n) || hash != XXH3_64bits(again, (size_t)n)) return -EBADMSG;
    return 0;
}

int disk_state_load(struct disk_state *s, const char *dir)
{
    char path[PATH_MAX], text[TEXT_MAX + 1];

    memset(s, 0, sizeof(*s));
    snprintf(path, sizeof(path), "%s/state", dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return -errno;
    ssize_t n = read(fd, text, TEXT_MAX);
    int r = n < 0 ? -errno : 0;
    close(fd);
    if (r) return r;
    text[n] = 0;
    return parse(s, text);
}

static int write_file(const char *path, const char *text, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) return -errno;
    int r = disk_pwrite_full(fd, text, size, 0);
    if (!r && fsync(fd)) r = -errno;
    close(fd);
    return r;
}

int disk_state_save(const struct disk_state *s, const char *dir)
{
    char path[PATH_MAX], fresh[PATH_MAX], text[TEXT_MAX + 32];
    int fd, n, r;

    snprintf(path, sizeof(path), "%s/state", dir);
    snprintf(fresh, sizeof(fresh), "%s/state.new", dir);
    n = body_text(text, s);
    n += snprintf(text + n, sizeof(text) - (size_t)n, "hash=%016" PRIx64 "\n",
                  XXH3_64bits(text, (size_t)n));
    r = write_file(fresh, text, (size_t)n);
    if (r) return r;
    if (rename(fresh, path)) return -errno;
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    r = fsync(fd) ? -errno : 0;
    close(fd);
    return r;
}
