/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What xl remus --status says of the replicated disks of this host, whether they are being replicated or not.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "xl_disk.h"
#include "xl_opts.h"

#define STATUS_LIMIT_MS 2000
#define INSTANCES_MAX 512

bool xl_disk_status_value(const char *status, const char *key, char *out, size_t size)
{
    size_t len = strlen(key);

    for (const char *at = status; (at = strstr(at, key)); at += len) {
        const char *value = at + len + 1;
        size_t n = strcspn(value, " ");

        if ((at != status && at[-1] != ' ') || at[len] != '=') continue;
        if (!n || n >= size) return false;
        memcpy(out, value, n);
        out[n] = '\0';
        return true;
    }
    return false;
}

/* "disk-DOMAIN-VDEV": cuts file in two; the last '-' is the one, since a VDEV has none. */
static bool instance_of(char *file, const char **domain, const char **vdev)
{
    char *dash = strrchr(file, '-');

    if (strncmp(file, "disk-", 5) || dash <= file + 5) return false;
    *dash = '\0';
    *domain = file + 5;
    *vdev = dash + 1;
    return xl_name_valid(*domain) && libxl__disk_vdev_ok(*vdev);
}

static uint64_t number_of(const char *status, const char *key)
{
    char text[32];

    return xl_disk_status_value(status, key, text, sizeof(text)) ? strtoull(text, NULL, 10) : 0;
}

/* False: it left its folder behind and does not run. */
static bool print_instance(libxl__gc *gc, const char *domain, const char *vdev)
{
    char role[16] = "?", state[16] = "?", *status = NULL;
    int rc = libxl__disk_call(gc, domain, vdev, "status", STATUS_LIMIT_MS, &status);

    if (rc == ERROR_NOTFOUND) return false;
    if (rc) {
        printf("disk %s of %s: its instance does not answer\n", vdev, domain);
        return true;
    }
    xl_disk_status_value(status, "role", role, sizeof(role));
    xl_disk_status_value(status, "state", state, sizeof(state));
    printf("disk %s of %s: %s, %s; generation %lu, epoch %lu, committed %lu, dirty %lu KiB, queued "
           "%lu "
           "KiB, journal %lu KiB\n",
           vdev, domain, role, state, (unsigned long)number_of(status, "generation"),
           (unsigned long)number_of(status, "epoch"), (unsigned long)number_of(status, "committed"),
           (unsigned long)(number_of(status, "dirty_bytes") >> 10),
           (unsigned long)(number_of(status, "queued_bytes") >> 10),
           (unsigned long)(number_of(status, "journal_bytes") >> 10));
    return true;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

unsigned xl_disk_print_status(libxl__gc *gc, const char *wanted)
{
    char *files[INSTANCES_MAX];
    unsigned n = 0, shown = 0;
    struct dirent *entry;
    DIR *d;

    d = opendir(libxl__disk_run_dir());
    while (d && n < INSTANCES_MAX && (entry = readdir(d)))
        if (!strncmp(entry->d_name, "disk-", 5)) files[n++] = libxl__strdup(gc, entry->d_name);
    if (d) closedir(d);
    if (n) qsort(files, n, sizeof(files[0]), compare);
    for (unsigned i = 0; i < n; i++) {
        const char *domain, *vdev;

        if (!instance_of(files[i], &domain, &vdev)) continue;
        if (wanted && strcmp(wanted, domain)) continue;
        if (print_instance(gc, domain, vdev)) shown++;
    }
    return shown;
}
