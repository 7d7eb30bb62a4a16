/* SPDX-License-Identifier: LGPL-2.1-only */
/* The golden streams of tests/wire, each read as tests/wire/expect says, on the fake Xen. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake_xen.h"
#include "xc_sr_restore.h"

#define HOLD_LIMIT (100 << 10) /* less than the largest checkpoint of the set */

static char first_error[1200];

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *format, va_list al)
{
    if (level >= XTL_ERROR && !first_error[0])
        vsnprintf(first_error, sizeof(first_error), format, al);
}

static xentoollog_logger logger = {vmessage, NULL, NULL};
static unsigned int missing_seen;

static int checkpoint(void *data)
{
    return XGR_CHECKPOINT_SUCCESS;
}

static int static_data_done(unsigned int missing, void *data)
{
    missing_seen = missing;
    return 0;
}

static struct restore_callbacks callbacks = {
    .checkpoint = checkpoint,
    .static_data_done = static_data_done,
};

static int restore(const char *path, const char *mode)
{
    struct xc_sr_io io;
    struct xc_sr_restore r = {
        .env = {.lg = &logger, .domid = FAKE_BACKUP, .io = &io},
        .checkpointed = !strcmp(mode, "checkpointed"),
        .cb = &callbacks,
        .hold_limit_bytes = HOLD_LIMIT,
    };
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc;

    if (fd < 0) {
        snprintf(first_error, sizeof(first_error), "%s: %s", path, strerror(errno));
        return -1;
    }
    xc_sr_io_init(&io, fd, -1, -1);
    rc = xc_sr_restore(&r);
    xc_sr_io_dispose(&io);
    close(fd);
    return rc;
}

/* What every accepted stream leaves behind: see tests/wire/README.md. */
static const char *look(const char *mode)
{
    unsigned int missing = strcmp(mode, "plain-v2") ? 0 : 3;
    uint32_t gfn;

    for (gfn = 0; gfn < FAKE_GFNS; gfn++) {
        const uint8_t *page = fake_page(FAKE_BACKUP, gfn);

        if (!page || gfn == 20 || gfn == 21 || page[0] == 0xa5) continue;
        if (page[0] != (uint8_t)(gfn * 7 + 1) || page[4095] != page[0]) return "a page differs";
    }
    if (missing_seen != missing) return "static data was missing";
    if (fake_dom[FAKE_BACKUP].context[599] != (599 & 255)) return "the context differs";
    if (fake_dom[FAKE_BACKUP].seed_calls != 1) return "the grant table was not seeded";
    return NULL;
}

static int check(const char *dir, const char *name, const char *mode, const char *expected)
{
    const char *wrong = NULL;
    char path[1024];
    int rc;

    snprintf(path, sizeof(path), "%s/corpus/%s", dir, name);
    fake_reset();
    first_error[0] = 0;
    missing_seen = 0;
    rc = restore(path, mode);
    if (!strcmp(expected, "ok"))
        wrong = rc ? first_error : look(mode);
    else if (!rc)
        wrong = "accepted";
    else if (!strstr(first_error, expected))
        wrong = first_error;
    if (fake_mappings) wrong = "pages stay mapped";
    if (wrong) fprintf(stderr, "%s: %s (expected: %s)\n", name, wrong, expected);
    return wrong ? -1 : 0;
}

int main(void)
{
    const char *src = getenv("XENTWIN_SRCDIR");
    char dir[900], path[1024], line[300], name[64], mode[32];
    unsigned int streams = 0, failed = 0;
    int at;
    FILE *f;

    snprintf(dir, sizeof(dir), "%s/tests/wire", src ? src : ".");
    snprintf(path, sizeof(path), "%s/expect", dir);
    f = fopen(path, "r");
    if (!f) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    while (fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        if (line[0] == '#' || sscanf(line, "%63s %31s %n", name, mode, &at) != 2) continue;
        streams++;
        if (check(dir, name, mode, line + at)) failed++;
    }
    fclose(f);
    printf("%u streams, %u not as expected\n", streams, failed);
    return failed || !streams;
}
