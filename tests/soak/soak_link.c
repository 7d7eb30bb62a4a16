/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The link: bytes both ways in order, with delay, jitter and a rate; it can be cut (nothing arrives any more, nobody is told),
 * stall, close, or change a byte. It reads the frames that pass for the judge.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "libxl_channel_frame.h"
#include "soak.h"

#define QUEUE_BYTES (256u << 10)
#define CHUNK 32768u
#define SEGMENTS 256u

/* Follows the frames in a stream of bytes, up to a damaged one: what comes behind it nobody may believe. */
struct sniffer {
    unsigned char frame[CHANNEL_HEADER_LEN + CHANNEL_TEXT_MAX]; /* of DATA the head alone */
    size_t have;
    uint64_t data_left, number;
    struct channel_header h;
    bool damaged;
};

struct segment {
    int64_t at_ms;
    size_t n;
};

struct direction {
    bool to_backup;
    int from, to;
    bool cut, source_dead, eof, eof_told, dead;
    int64_t stalled_until, last_ms;
    unsigned char bytes[QUEUE_BYTES];
    size_t first, used; /* a ring */
    struct segment segments[SEGMENTS];
    size_t first_segment, nr_segments;
    struct sniffer in, out;
};

static struct direction dirs[2]; /* to the backup, to the primary */
static int corrupt_left;         /* 1: a byte of DATA, 2: any byte */
static bool corrupted;

static bool frame_is_whole(const struct direction *d, struct sniffer *s)
{
    if (s->have < CHANNEL_HEADER_LEN) return false;
    libxl__channel_header_get(s->frame, &s->h);
    s->damaged = libxl__channel_header_check(&s->h, !d->to_backup) != NULL;
    if (s->damaged || s->have < libxl__channel_sealed_len(&s->h)) return false;
    s->damaged = !libxl__channel_seal_ok(s->frame, s->number++);
    if (s->h.type == CHANNEL_DATA) s->data_left = s->h.len;
    return !s->damaged;
}

/* Tells the judge of each frame when its last byte passes. */
static void sniff(struct direction *d, struct sniffer *s, bool delivered, const unsigned char *p,
                  size_t n)
{
    while (n && !s->damaged) {
        if (!s->data_left) {
            s->frame[s->have++] = *p++;
            n--;
            if (!frame_is_whole(d, s)) continue;
        } else {
            size_t k = n < s->data_left ? n : (size_t)s->data_left;

            s->data_left -= k;
            p += k;
            n -= k;
        }
        if (s->data_left) continue;
        judge_frame_on_link(d->to_backup, delivered, s->h.type, s->h.arg);
        s->have = 0;
    }
}

/* Changes one byte of what was just read, if it is one of those that were asked for. */
static void corrupt(struct direction *d, unsigned char *p, size_t n)
{
    size_t at = (size_t)(dice() % n);

    if (!corrupt_left) return;
    if (corrupt_left == 1) {
        /* The last byte of the chunk is in the body of a DATA frame when the frame goes on behind it. */
        if (!d->to_backup || !d->in.data_left || d->in.data_left == d->in.h.len) return;
        at = n - 1;
    }
    p[at] ^= (unsigned char)between(1, 255);
    corrupt_left = 0;
    corrupted = true;
    say("the link changes a byte %s", d->to_backup ? "to the backup" : "to the primary");
}

static void enqueue(struct direction *d, const unsigned char *p, size_t n)
{
    int64_t at = now_ms + setup.delay_ms + (setup.jitter_ms ? between(0, setup.jitter_ms) : 0) +
                 (int64_t)n / setup.bytes_per_ms;

    if (at < d->last_ms) at = d->last_ms;
    d->last_ms = at;
    d->segments[(d->first_segment + d->nr_segments++) % SEGMENTS] = (struct segment){at, n};
    for (size_t i = 0; i < n; i++)
        d->bytes[(d->first + d->used++) % QUEUE_BYTES] = p[i];
}

static bool take_in(struct direction *d)
{
    unsigned char buf[CHUNK];
    size_t room = QUEUE_BYTES - d->used;
    ssize_t r;

    if (d->cut || d->source_dead || d->eof || !room || d->nr_segments == SEGMENTS) return false;
    r = read(d->from, buf, room < CHUNK ? room : CHUNK);
    if (r < 0 && errno == EAGAIN) return false;
    if (r <= 0) {
        d->eof = true;
        return true;
    }
    sniff(d, &d->in, false, buf, (size_t)r);
    corrupt(d, buf, (size_t)r);
    enqueue(d, buf, (size_t)r);
    return true;
}

static bool tell_eof(struct direction *d)
{
    if (!d->eof || d->eof_told || d->nr_segments) return false;
    d->eof_told = true;
    shutdown(d->to, SHUT_WR);
    return true;
}

static bool hand_out(struct direction *d)
{
    struct segment *s = &d->segments[d->first_segment];
    size_t n = QUEUE_BYTES - d->first;
    ssize_t r;

    if (d->cut || d->dead || d->stalled_until > now_ms) return false;
    if (!d->nr_segments) return tell_eof(d);
    if (s->at_ms > now_ms) return false;
    if (n > s->n) n = s->n;
    r = write(d->to, d->bytes + d->first, n);
    if (r < 0 && errno == EAGAIN) return false;
    if (r < 0) {
        d->dead = true;
        return true;
    }
    sniff(d, &d->out, true, d->bytes + d->first, (size_t)r);
    d->first = (d->first + (size_t)r) % QUEUE_BYTES;
    d->used -= (size_t)r;
    s->n -= (size_t)r;
    if (!s->n) {
        d->first_segment = (d->first_segment + 1) % SEGMENTS;
        d->nr_segments--;
    }
    return true;
}

bool link_pump(void)
{
    bool did = false;

    for (int i = 0; i < 2; i++) {
        did |= take_in(&dirs[i]);
        did |= hand_out(&dirs[i]);
    }
    return did;
}

int64_t link_due(void)
{
    int64_t due = NEVER;

    for (int i = 0; i < 2; i++) {
        const struct direction *d = &dirs[i];
        int64_t at = d->stalled_until;

        if (d->cut || d->dead || (!d->nr_segments && !(d->eof && !d->eof_told))) continue;
        if (d->nr_segments && d->segments[d->first_segment].at_ms > at)
            at = d->segments[d->first_segment].at_ms;
        if (at > now_ms && at < due) due = at; /* else the receiver's socket is full */
    }
    return due;
}

void link_start(int fds[2])
{
    static int old[2] = {-1, -1};
    int ends[2][2];

    for (int i = 0; i < 2; i++) {
        if (old[i] >= 0) close(old[i]);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends[i])) abort();
        if (fcntl(ends[i][1], F_SETFL, O_NONBLOCK)) abort();
        fds[i] = ends[i][0];
        old[i] = ends[i][1];
    }
    corrupt_left = 0;
    corrupted = false;
    memset(dirs, 0, sizeof(dirs));
    dirs[0].to_backup = true;
    dirs[0].from = dirs[1].to = ends[0][1];
    dirs[0].to = dirs[1].from = ends[1][1];
}

void link_cut(bool to_backup, bool to_primary)
{
    say("the link is cut%s", !to_primary ? " to the backup" : !to_backup ? " to the primary" : "");
    dirs[0].cut |= to_backup;
    dirs[1].cut |= to_primary;
    if (to_backup) disks_hear_nothing(true);
    if (to_primary) disks_hear_nothing(false);
}

void link_stall(int64_t ms)
{
    say("the link stalls for %lld ms", (long long)ms);
    dirs[0].stalled_until = dirs[1].stalled_until = now_ms + ms;
    if (ms < setup.limit_ms) return;
    disks_hear_nothing(true);
    disks_hear_nothing(false);
}

/*
 * As when ssh is killed: what is on its way is lost, both ends see the end. At the backup only: its sshd is killed, what it had
 * sent arrives, and the primary hears nothing more.
 */
void link_close(bool at_backup_only)
{
    say("the link closes%s", at_backup_only ? " at the backup" : "");
    dirs[0].nr_segments = 0;
    dirs[0].eof = true;
    if (at_backup_only) {
        dirs[1].source_dead = true;
        return;
    }
    dirs[1].nr_segments = 0;
    dirs[1].eof = true;
}

/* What its host has sent arrives, no end of file follows. What comes for it is lost. */
void link_source_dies(bool primary)
{
    dirs[primary ? 0 : 1].source_dead = true;
    dirs[primary ? 1 : 0].cut = true;
    disks_hear_nothing(primary);
}

void link_corrupt(bool any)
{
    corrupt_left = any ? 2 : 1;
}

bool link_is_cut(bool to_backup)
{
    return dirs[to_backup ? 0 : 1].cut;
}

int64_t link_stalled_until(bool to_backup)
{
    return dirs[to_backup ? 0 : 1].stalled_until;
}

bool link_was_corrupted(void)
{
    return corrupted;
}
