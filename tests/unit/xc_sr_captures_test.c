/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Every record of real streams, written by stock Xen, must pass our checks. The captures are not
 * part of the repository: XENTWIN_CAPTURES or ../shared/captures has them, else this is skipped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xc_sr_record.h"

struct capture {
    const char *name;
    unsigned int checkpoints;
    unsigned long pages; /* 0 = not known */
    int cut;             /* ends inside a record */
};

static const struct capture captures[] = {
    {"pvh-save-96M.xl", 0, 24592, 0}, {"hvm-save-96M.xl", 0, 24635, 0},
    {"pv-save-96M.xl", 0, 24576, 0},  {"cap-pvh-remus.tx", 16, 0, 1},
    {"cap-hvm-remus.tx", 15, 0, 0},   {"cap-pv-remus.tx", 12, 0, 0},
};

static char dir[512];

static int fail(const struct capture *c, const char *what)
{
    fprintf(stderr, "%s: %s\n", c->name, what);
    return -1;
}

static int get(FILE *f, void *buf, size_t size)
{
    return fread(buf, 1, size, f) == size ? 0 : -1;
}

static int skip(FILE *f, size_t size)
{
    char buf[4096];

    for (; size; size -= size < sizeof(buf) ? size : sizeof(buf))
        if (get(f, buf, size < sizeof(buf) ? size : sizeof(buf))) return -1;
    return 0;
}

/* xl header, configuration, libxl header, LIBXC_CONTEXT. */
static int skip_to_libxc(FILE *f)
{
    uint32_t xl[12], rec[2];

    if (get(f, xl, sizeof(xl)) || skip(f, xl[11]) || skip(f, 16) || get(f, rec, sizeof(rec)))
        return -1;
    return rec[0] == 1 && rec[1] == 0 ? 0 : -1;
}

/* The libxl records of one checkpoint, or of the end; *last: END came. */
static int walk_libxl(FILE *f, int *last)
{
    uint32_t rec[2];

    do {
        if (get(f, rec, sizeof(rec)) || skip(f, (rec[1] + 7) & ~7u)) return -1;
        *last = rec[0] == 0;
    } while (rec[0] != 0 && rec[0] != 4);
    return 0;
}

struct sums {
    unsigned int checkpoints;
    unsigned long pages;
};

static void count_pages(struct sums *sums, const uint8_t *body)
{
    const struct sr_page_data *head = (const void *)body;
    const uint64_t *entries = (const void *)(head + 1);
    uint32_t i;

    for (i = 0; i < head->count; i++)
        sums->pages += xc_sr_page_type_has_data(xc_sr_entry_type(entries[i]));
}

/* 0 = the stream ended properly, 1 = it is cut, -1 = a record is refused. */
static int walk_libxc(const struct capture *c, FILE *f, struct sums *sums)
{
    static uint8_t body[8 << 20];
    const char *wrong;
    struct sr_rhdr r;
    int last = 0;

    while (!get(f, &r, sizeof(r))) {
        wrong = xc_sr_record_check(r.type, r.length, NULL);
        if (!wrong && r.length > sizeof(body) - 8) wrong = "unexpectedly long";
        if (wrong) return fail(c, wrong);
        if (get(f, body, xc_sr_record_padded(r.length))) return 1;
        wrong = xc_sr_record_check(r.type, r.length, body);
        if (wrong) return fail(c, wrong);
        if (r.type == SR_REC_PAGE_DATA) count_pages(sums, body);
        if (r.type != SR_REC_CHECKPOINT && r.type != SR_REC_END) continue;
        if (walk_libxl(f, &last)) return 1;
        if (last) return 0;
        sums->checkpoints++;
    }
    return feof(f) && !c->cut ? 0 : 1;
}

static int check_capture(const struct capture *c)
{
    struct sums sums = {0, 0};
    struct sr_ihdr ihdr;
    struct sr_dhdr dhdr;
    char cmd[1024];
    int rc = -1;
    FILE *f;

    snprintf(cmd, sizeof(cmd), "xz -dc '%s/%s.xz'", dir, c->name);
    f = popen(cmd, "r");
    if (!f || skip_to_libxc(f) || get(f, &ihdr, sizeof(ihdr)) || get(f, &dhdr, sizeof(dhdr))) {
        fail(c, "cannot be read");
        goto out;
    }
    if (xc_sr_ihdr_check(&ihdr) || xc_sr_dhdr_check(&dhdr, 0)) {
        fail(c, "a header is refused");
        goto out;
    }
    rc = walk_libxc(c, f, &sums);
    if (rc == c->cut) rc = 0;
    printf("%s: %u checkpoints, %lu pages\n", c->name, sums.checkpoints, sums.pages);
    if (sums.checkpoints != c->checkpoints || (c->pages && sums.pages != c->pages))
        rc = fail(c, "other numbers than its notes say");
out:
    if (f) pclose(f);
    return rc;
}

int main(void)
{
    const char *given = getenv("XENTWIN_CAPTURES"), *src = getenv("XENTWIN_SRCDIR");
    char path[600];
    size_t i;
    int rc = 0;

    if (given)
        snprintf(dir, sizeof(dir), "%s", given);
    else
        snprintf(dir, sizeof(dir), "%s/../shared/captures", src ? src : ".");
    snprintf(path, sizeof(path), "%s/%s.xz", dir, captures[0].name);
    if (access(path, R_OK)) {
        printf("skip: no captures in %s\n", dir);
        return 77;
    }
    for (i = 0; i < sizeof(captures) / sizeof(captures[0]); i++)
        if (check_capture(&captures[i])) rc = 1;
    return rc;
}
