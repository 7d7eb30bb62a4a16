/* SPDX-License-Identifier: LGPL-2.1-only */
/* The driver of the restore engine: one record after the other, and where the stream ends. */
#include <stdlib.h>
#include <string.h>

#include "xc_sr_record.h"
#include "xc_sr_restore.h"

#define HOLD_SLACK_BYTES (64ULL << 20)

static int read_headers(struct xc_sr_restore *r)
{
    const char *wrong;
    struct sr_ihdr ihdr;
    struct sr_dhdr dhdr;

    if (xc_sr_io_read(r->env.io, &ihdr, sizeof(ihdr)) ||
        xc_sr_io_read(r->env.io, &dhdr, sizeof(dhdr))) {
        SR_ERRNO(&r->env, "cannot read the headers of the stream");
        return -1;
    }
    wrong = xc_sr_ihdr_check(&ihdr);
    if (!wrong) wrong = xc_sr_dhdr_check(&dhdr, r->ops->dhdr_type);
    if (wrong) {
        SR_FAIL(&r->env, EINVAL, "%s", wrong);
        return -1;
    }
    r->version = xc_sr_ihdr_version(&ihdr);
    SR_LOG(&r->env, INFO, "stream version %u of Xen %u.%u", r->version, dhdr.xen_major,
           dhdr.xen_minor);
    return 0;
}

static int refuse(struct xc_sr_restore *r, const struct xc_sr_record *rec, const char *wrong)
{
    SR_FAIL(&r->env, EINVAL, "record %#x (%s), %u bytes: %s", rec->type,
            xc_sr_record_name(rec->type), rec->length, wrong);
    return -1;
}

/*
 * The next record, checked; rec->body is the caller's to free. *broken: the stream ended or the
 * peer is gone, which in a checkpointed stream is no failure. A reason to stop is one always.
 */
static int read_record(struct xc_sr_restore *r, struct xc_sr_record *rec, bool *broken)
{
    struct sr_rhdr rhdr;
    const char *wrong;

    *broken = false;
    memset(rec, 0, sizeof(*rec));
    if (xc_sr_io_read(r->env.io, &rhdr, sizeof(rhdr))) goto io;
    rec->type = rhdr.type;
    rec->length = rhdr.length;
    wrong = xc_sr_record_check(rec->type, rec->length, NULL);
    if (wrong) return refuse(r, rec, wrong);
    if (!rec->length) return 0;
    rec->body = malloc(xc_sr_record_padded(rec->length));
    if (!rec->body) {
        SR_ERRNO(&r->env, "no memory for %s of %u bytes", xc_sr_record_name(rec->type),
                 rec->length);
        return -1;
    }
    if (xc_sr_io_read(r->env.io, rec->body, xc_sr_record_padded(rec->length))) goto io;
    wrong = xc_sr_record_check(rec->type, rec->length, rec->body);
    return wrong ? refuse(r, rec, wrong) : 0;
io:
    *broken = errno != ECANCELED && errno != EOWNERDEAD;
    SR_ERRNO(&r->env, "the stream ends here");
    return -1;
}

static int end_static_data(struct xc_sr_restore *r)
{
    unsigned int missing = 0;

    if (r->static_data_ended) {
        SR_FAIL(&r->env, EINVAL, "STATIC_DATA_END comes twice");
        return -1;
    }
    r->static_data_ended = true;
    if (r->ops->static_data_end(r, &missing)) return -1;
    if (r->cb->static_data_done && r->cb->static_data_done(missing, r->cb->data)) {
        SR_FAIL(&r->env, EINVAL, "the toolstack refuses the static data");
        return -1;
    }
    return 0;
}

/* A record about memory. Version 2 has no mark: the first of them ends the static part. */
static int check_static_data_ended(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    if (!r->static_data_ended && r->version == 2 && end_static_data(r)) return -1;
    if (!r->static_data_ended) return refuse(r, rec, "comes before STATIC_DATA_END");
    return 0;
}

static int apply_page_data(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    if (check_static_data_ended(r, rec)) return -1;
    if (rec->type == SR_REC_PAGE_DATA) return r->ops->apply_pages(r, rec);
    if (!r->ops->apply_encoded) return refuse(r, rec, "is not for this kind of guest");
    if (r->verifying) return refuse(r, rec, "comes behind VERIFY");
    return r->ops->apply_encoded(r, rec);
}

static int apply_record(struct xc_sr_restore *r, const struct xc_sr_record *rec)
{
    bool known;

    switch (rec->type) {
    case SR_REC_PAGE_DATA:
    case SR_REC_ENCODED_PAGES:
        return apply_page_data(r, rec);
    case SR_REC_X86_PV_P2M_FRAMES:
        if (check_static_data_ended(r, rec)) return -1;
        break;
    case SR_REC_STATIC_DATA_END:
        return end_static_data(r);
    case SR_REC_VERIFY:
        SR_LOG(&r->env, INFO, "verifying the memory of domain %u", r->env.domid);
        r->verifying = true;
        return 0;
    case SR_REC_TOOLSTACK: /* from converted streams; nobody uses it */
        return 0;
    default:
        break;
    }
    if (r->ops->record(r, rec, &known)) return -1;
    if (known || (rec->type & SR_REC_OPTIONAL)) return 0;
    return refuse(r, rec, "is not for this kind of guest or stream");
}

static int apply_held(struct xc_sr_restore *r)
{
    const struct xc_sr_held *held;

    for (held = r->hold.first; held; held = held->next)
        if (apply_record(r, &held->rec)) return -1;
    xc_sr_hold_empty(&r->hold);
    return 0;
}

/* *over: end the stream here, with what is complete. */
static int handle_checkpoint(struct xc_sr_restore *r, bool *over)
{
    int answer;

    if (!r->checkpointed) {
        SR_FAIL(&r->env, EINVAL, "CHECKPOINT in a stream without checkpoints");
        return -1;
    }
    answer = r->cb->checkpoint(r->cb->data);
    if (answer == XGR_CHECKPOINT_FAILOVER && r->holding) {
        *over = true;
        return 0;
    }
    if (answer != XGR_CHECKPOINT_SUCCESS) {
        SR_FAIL(&r->env, EINVAL, "the toolstack could not take over checkpoint %lu",
                (unsigned long)r->checkpoints + 1);
        return -1;
    }
    if (apply_held(r) || xc_sr_release_spare(r)) return -1;
    r->checkpoints++;
    r->holding = true;
    return 0;
}

static int hold_record(struct xc_sr_restore *r, struct xc_sr_record *rec)
{
    if (rec->type & SR_REC_OPTIONAL) return 0;
    if (!xc_sr_hold_add(&r->hold, rec)) return 0;
    SR_ERRNO(&r->env, "checkpoint %lu does not fit into %lu bytes",
             (unsigned long)r->checkpoints + 1, (unsigned long)r->hold.limit_bytes);
    return -1;
}

/* One record further. *over: the stream ends, the domain can be completed. */
static int next_record(struct xc_sr_restore *r, bool *over)
{
    struct xc_sr_record rec;
    bool broken;
    int rc = -1;

    if (read_record(r, &rec, &broken)) {
        if (!broken || !r->holding) goto out;
        SR_LOG(&r->env, NOTICE, "going on with checkpoint %lu of domain %u",
               (unsigned long)r->checkpoints, r->env.domid);
        *over = true;
        rc = 0;
    } else if (rec.type == SR_REC_END) {
        *over = true;
        rc = 0;
    } else if (rec.type == SR_REC_CHECKPOINT) {
        rc = handle_checkpoint(r, over);
    } else if (r->holding) {
        rc = hold_record(r, &rec);
    } else {
        rc = apply_record(r, &rec);
    }
out:
    free(rec.body);
    return rc;
}

static int setup(struct xc_sr_restore *r)
{
    xc_dominfo_t info;

    if (xc_domain_getinfo(r->env.xch, r->env.domid, 1, &info) != 1 || info.domid != r->env.domid) {
        SR_FAIL(&r->env, ESRCH, "there is no domain %u", r->env.domid);
        return -1;
    }
    r->ops = info.hvm ? &xc_sr_restore_x86_hvm : &xc_sr_restore_x86_pv;
    if (!r->hold_limit_bytes)
        r->hold_limit_bytes = (uint64_t)info.max_memkb * 1024 + HOLD_SLACK_BYTES;
    xc_sr_hold_init(&r->hold, r->hold_limit_bytes);
    return r->ops->setup(r);
}

static void cleanup(struct xc_sr_restore *r)
{
    int saved = errno;

    xc_sr_hold_empty(&r->hold);
    xc_sr_populate_cleanup(r);
    xc_sr_sparse_dispose(&r->populated);
    free(r->scratch);
    r->scratch = NULL;
    if (r->ops) r->ops->cleanup(r);
    errno = saved;
}

int xc_sr_restore(struct xc_sr_restore *r)
{
    bool over = false;
    int rc = -1;

    if (setup(r) || read_headers(r)) goto out;
    while (!over)
        if (next_record(r, &over)) goto out;
    if (r->verifying)
        SR_LOG(&r->env, INFO, "verification: %lu pages differ", (unsigned long)r->verify_differ);
    if (xc_sr_release_spare(r)) goto out;
    rc = r->ops->complete(r);
out:
    cleanup(r);
    return rc;
}
