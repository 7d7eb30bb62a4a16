/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * An instance starts with whatever stands in its files. First octet: 0 journal, 1 state, 2 bitmap, 3 journal after one that is whole. It
 * must start or say one line, and may only write what a journal of its own could have made it write: then the sum of a record agrees.
 */
#include "disk_fuzz.h"
#include "fuzz.h"

static void write_file(const char *name, const uint8_t *data, size_t size, bool over)
{
    char path[128];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", disk_dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (over ? 0 : O_TRUNC), 0600);
    if (fd < 0 || pwrite(fd, data, size, over ? 4096 : 0) != (ssize_t)size) abort();
    close(fd);
}

static void open_and_close(void)
{
    static struct disk d;
    struct disk_options o = disk_backup_options();
    char why[DISK_TEXT_MAX] = "";

    memset(&d, 0, sizeof(d));
    if (disk_open(&d, &o, why)) {
        if (!why[0] || !memchr(why, 0, sizeof(why)) || strchr(why, '\n')) abort();
    } else {
        d.event = disk_quiet;
        if (disk_start(&d)) abort();
    }
    disk_close(&d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {"journal", "state", "bitmap", "journal"};
    unsigned which;

    if (!size) return 0;
    which = data[0] & 3;
    disk_fresh();
    if (which == 3) open_and_close(); /* makes them */
    write_file(names[which], data + 1, size - 1, which == 3);
    open_and_close();
    open_and_close(); /* and what it made of them */
    return 0;
}
