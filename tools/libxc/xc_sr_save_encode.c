/* SPDX-License-Identifier: LGPL-2.1-only */
/* The encoder between the pages of a checkpointed guest and the stream. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "xc_sr_save.h"

/* A quarter of the memory that this host could give without swapping. 0 when it does not tell. */
static uint64_t default_ref_bytes(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    uint64_t kib = 0;
    char line[128];

    if (!f) return 0;
    while (!kib && fgets(line, sizeof(line), f))
        if (sscanf(line, "MemAvailable: %" SCNu64 " kB", &kib) != 1) kib = 0;
    fclose(f);
    return kib * 1024 / 4;
}

int xc_sr_encode_start(struct xc_sr_save *s)
{
    uint64_t limit = s->ref_limit_given ? s->ref_limit_bytes : default_ref_bytes();

    if (!s->checkpointed || s->encode == XC_SR_ENCODE_NONE) return 0;
    s->encoder = xc_sr_encoder_new(s->encode, s->pfns, limit);
    if (s->encoder) return 0;
    SR_ERRNO(&s->env, "no memory to encode pages");
    return -1;
}

void xc_sr_encode_stop(struct xc_sr_save *s)
{
    xc_sr_encoder_free(s->encoder);
    s->encoder = NULL;
}

static int write_records(struct xc_sr_save *s)
{
    uint64_t started = xc_sr_now_us();
    struct iovec iov = {NULL, 0};
    const void *records;
    size_t size = xc_sr_encoder_take(s->encoder, &records);

    if (!size) return 0;
    iov.iov_base = (void *)(uintptr_t)records;
    iov.iov_len = size;
    if (xc_sr_io_writev(s->env.io, &iov, 1)) {
        SR_ERRNO(&s->env, "cannot write encoded pages to the stream");
        return -1;
    }
    xc_sr_encoder_link(s->encoder, size, xc_sr_now_us() - started);
    return 0;
}

int xc_sr_encode_page(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page)
{
    return xc_sr_encoder_add(s->encoder, pfn, type, page) ? write_records(s) : 0;
}

int xc_sr_encode_guest_page(struct xc_sr_save *s, uint64_t pfn, uint32_t type, const void *page)
{
    if (page) page = xc_sr_encoder_snapshot(s->encoder, page);
    return xc_sr_encode_page(s, pfn, type, page);
}

int xc_sr_encode_flush(struct xc_sr_save *s)
{
    xc_sr_encoder_finish(s->encoder);
    return write_records(s);
}

void xc_sr_encode_checkpoint(struct xc_sr_save *s)
{
    const struct xc_sr_encode_counts *c, *was = &s->counted;

    if (!s->encoder) return;
    xc_sr_encoder_checkpoint(s->encoder);
    c = xc_sr_encoder_counts(s->encoder);
    SR_LOG(&s->env, DETAIL,
           "checkpoint %lu: %lu pages unchanged, %lu zero, %lu changed in part, %lu sent whole: "
           "%lu bytes for %lu",
           (unsigned long)s->epoch, (unsigned long)(c->unchanged - was->unchanged),
           (unsigned long)(c->zero - was->zero), (unsigned long)(c->delta - was->delta),
           (unsigned long)(c->raw - was->raw), (unsigned long)(c->bytes - was->bytes),
           (unsigned long)(c->plain_bytes - was->plain_bytes));
    s->counted = *c;
    /* Our library shows it: the bytes on the stream do not tell. */
    xtl_progress(s->env.lg, "xc", "Checkpoint pages", s->arena.pages, s->arena.pages);
}
