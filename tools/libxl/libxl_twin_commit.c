/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Frames at the backup: data is held, a commit makes it count when memory and disks are whole, and the acknowledgement
 * goes when everything before it was handed on (libxl_twin.h, invariant 1).
 */
#include <string.h>

#include <libxl.h>

#include "libxl_channel_frame.h"
#include "libxl_twin_internal.h"

/* While the child has that much of checkpoint 1 still to take, the primary waits. */
#define COPY_BACKLOG (8u << 20)
/* Most that is held for a warm twin while its domain is being completed. */
#define COMPLETING_BACKLOG (64u << 20)

/* What was committed and not yet handed on. */
static size_t backlog(const libxl__twin *t)
{
    const unsigned char *p;
    size_t plain = libxl__twin_stream_peek(&t->stream, &p);

    return plain ? plain : libxl__twin_stream_peek_later(&t->stream, &p);
}

static void report_consumed(libxl__twin *t)
{
    if (!libxl__twin_receiving(t) || (t->stream.checkpoint == 1 && backlog(t) > COPY_BACKLOG))
        return;
    libxl__channel_consumed(&t->channel, t->unconsumed);
    t->unconsumed = 0;
}

static void data_came(libxl__twin *t, uint64_t n, const void *body, size_t len)
{
    if (libxl__twin_stream_data(&t->stream, n, body, len)) {
        libxl__twin_give_up(t, "%s", t->stream.why);
        return;
    }
    /* The primary has linked the disks before it sends memory. */
    if (libxl__twin_disk_attach(&t->disk)) {
        libxl__twin_give_up(t, "%s", t->disk.set.why);
        return;
    }
    t->unconsumed += len;
    report_consumed(t);
    libxl__twin_child_more(&t->child);
}

static void acknowledge(libxl__twin *t)
{
    t->ack_due = false;
    t->acked = t->stream.committed;
    if (libxl__channel_send(&t->channel, CHANNEL_ACK, t->acked, NULL, 0)) {
        libxl__twin_give_up(t, "cannot acknowledge");
        return;
    }
    if (t->state == TWIN_COPYING) {
        libxl__twin_set_state(t, TWIN_PROTECTING);
        libxl__twin_tell(t, "the first checkpoint is here: the guest is protected");
    }
}

/* Checkpoint 1 is whole: the child may complete the domain. */
static int make_warm(libxl__twin *t)
{
    libxl__twin_warm *w = &t->warm;

    if (libxl__twin_stream_split(&t->stream)) {
        libxl__twin_give_up(t, "%s", t->stream.why);
        return ERROR_FAIL;
    }
    if (libxl__twin_warm_start(w)) {
        libxl__twin_give_up(t, "cannot start %s", w->file);
        return ERROR_FAIL;
    }
    return 0;
}

/* What must be handed on before checkpoint n may be acknowledged. */
static size_t debt_of(const libxl__twin *t, uint64_t n)
{
    size_t debt = backlog(t);

    return n > 1 && t->apply && !t->complete && debt < COMPLETING_BACKLOG ? 0 : debt;
}

static void acknowledge_if_due(libxl__twin *t)
{
    if (t->ack_due && !t->ack_debt && !t->disks_due && t->state != TWIN_LOOKING) acknowledge(t);
}

/* Memory is whole, and the disks have all of the epoch: from here on the checkpoint counts. */
static void commit_checkpoint(libxl__twin *t)
{
    uint64_t n = t->commit_n;
    size_t debt = debt_of(t, n);
    int rc;

    t->commit_n = 0;
    if (libxl__twin_stream_commit(&t->stream, n, channel_get64(t->commit_body),
                                  channel_get64(t->commit_body + 8))) {
        libxl__twin_give_up(t, "%s", t->stream.why);
        return;
    }
    if (t->apply && n == 1 && make_warm(t)) return;
    t->ack_due = libxl__twin_receiving(t);
    t->ack_debt = debt;
    rc = libxl__twin_disk_commit(&t->disk, n);
    t->disks_due = !rc;
    if (rc && rc != 1) {
        libxl__twin_give_up(t, "%s", t->disk.set.why);
        return;
    }
    libxl__twin_child_more(&t->child);
    libxl__twin_warm_more(&t->warm);
    report_consumed(t);
    acknowledge_if_due(t);
}

static void commit_came(libxl__twin *t, uint64_t n, const unsigned char *body)
{
    if (t->ack_due || t->commit_n) {
        libxl__twin_give_up(t, "commit of checkpoint %llu before the one before was acknowledged",
                            (unsigned long long)n);
        return;
    }
    t->commit_n = n;
    memcpy(t->commit_body, body, sizeof(t->commit_body));
    if (libxl__twin_disk_have(&t->disk, n)) commit_checkpoint(t);
}

/* ---- the disks ---- */

void libxl__twin_disks_ready(libxl__egc *egc, libxl__twin_disk *td)
{
    libxl__twin *t = td->user;

    /* With the link lost the first one is better than none; a later one does without. */
    bool wanted = libxl__twin_receiving(t) || (t->state == TWIN_SILENT && !t->stream.committed);

    if (wanted && t->commit_n) commit_checkpoint(t);
}

void libxl__twin_disks_committed(libxl__egc *egc, libxl__twin_disk *td, int rc)
{
    libxl__twin *t = td->user;

    if (!libxl__twin_receiving(t)) return;
    if (rc) {
        libxl__twin_give_up(t, "%s", td->set.why);
        return;
    }
    t->disks_due = false;
    acknowledge_if_due(t);
}

void libxl__twin_disks_gone(libxl__egc *egc, libxl__twin_disk *td)
{
    libxl__twin *t = td->user;

    if (libxl__twin_receiving(t)) libxl__twin_give_up(t, "%s", td->set.why);
}

void libxl__twin_frame_came(libxl__egc *egc, libxl__channel *ch, unsigned type, uint64_t arg,
                            const void *body, size_t len)
{
    libxl__twin *t = ch->user;
    char text[CHANNEL_TEXT_MAX + 1];

    if (!libxl__twin_receiving(t)) return;
    switch (type) {
    case CHANNEL_DATA:
        data_came(t, arg, body, len);
        return;
    case CHANNEL_COMMIT:
        commit_came(t, arg, body);
        return;
    case CHANNEL_MEMORY:
        t->target_kb = arg; /* mem-set checks it against the maximum */
        return;
    case CHANNEL_STOP:
        libxl__channel_text(body, len, text, sizeof(text));
        libxl__twin_tell(t, "the primary ends the protection: %s", text);
        libxl__twin_drop(t, TWIN_STOPPED);
        return;
    case CHANNEL_ERROR:
        libxl__channel_text(body, len, text, sizeof(text));
        libxl__twin_tell(t, "the primary gives up: %s", text);
        libxl__twin_drop(t, TWIN_FAILED);
        return;
    default:
        return;
    }
}

/* ---- what was handed on ---- */

void libxl__twin_handed_on(libxl__twin *t, size_t n)
{
    if (!libxl__twin_receiving(t)) return;
    report_consumed(t);
    if (!t->ack_due) return;
    t->ack_debt -= n < t->ack_debt ? n : t->ack_debt;
    acknowledge_if_due(t);
}
