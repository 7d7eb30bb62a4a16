/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The replication channel (libxl_channel.h has the invariants, docs/misc/replication-stream.md the
 * octets).
 *
 *   out: [frame being written] then, at the next frame boundary, what is first due of
 *        HELLO - HEARTBEAT or ECHO - the queue (DATA only as far as the window goes)
 *   in:  one buffer; whole frames are checked and delivered
 *
 * HELLO, HEARTBEAT and ECHO are not queued: they are made when their turn comes to be written, so
 * that a heartbeat is stamped when it goes, overtakes waiting DATA, and needs no memory however
 * long the peer does not read.
 *
 * The time of a stamp is read before the write, that of a reception after the read: both errors
 * shorten the lease and lengthen the silence, never the other way round.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_channel.h"
#include "libxl_channel_frame.h"

/* DATA goes out in frames of at most this, so that a heartbeat never waits for more. */
#define DATA_CHUNK CHANNEL_WINDOW_MIN
/* What data_room lets queue here, beyond what the kernel holds. */
#define QUEUE_ROOM (1u << 20)
/* One turn of the loop reads or writes at most this. */
#define TURN_BYTES (1u << 20)
/* The peer may need this long, beside the limit, until its HELLO: a primary that loads the kernel's
 * modules for the net buffer stands still meanwhile. No guest depends on it yet. */
#define START_MS 30000
#define TICKS_PER_LIMIT 6
/* The lease ends this part of limit_ms early: clock drift, and the way from the check to the
 * release. */
#define LEASE_MARGIN_PART 8

struct out_frame {
    struct out_frame *next;
    size_t data; /* how much of the window it takes */
    size_t len;
    unsigned char bytes[];
};

struct channel_state {
    libxl__channel *ch; /* NULL once disposed */
    unsigned busy;      /* calls into the user under way: who leaves last frees */
    bool lost;
    int write_errno; /* nothing can be written any more; what the peer said before is still read */
    libxl__ev_fd rd, wr;
    libxl__ev_time tick, silence;

    struct out_frame *first, **last;
    size_t queued;     /* bytes of whole frames in the queue */
    size_t first_done; /* bytes of the first that are written */
    unsigned char urgent[CHANNEL_HEADER_LEN + CHANNEL_HELLO_LEN];
    size_t urgent_len, urgent_done;
    uint64_t out_number, in_number; /* of the next frame */
    bool hello_due, beat_due, echo_due;
    bool room_wanted, drained_told;

    unsigned char *in;
    size_t in_len;
    bool hello_seen;
    int64_t heard_ms; /* when bytes last came, or the start */

    /* DATA bytes since the start. Primary: written and echoed as consumed; backup: received and
     * consumed. */
    uint64_t data_moved, data_consumed;
    uint64_t data_echoed;              /* backup: consumed, as last told */
    uint64_t beat_newest, beat_echoed; /* primary: sent, echoed; backup: received */
    bool beat_any;
    bool stop_written; /* all of it, at stop_ms */
    int64_t stop_ms;
};

static int64_t channel_now(const libxl__channel *ch)
{
    return libxl__loop_now_ms(ch->loop);
}

static void state_free(struct channel_state *st)
{
    struct out_frame *f;

    while ((f = st->first)) {
        st->first = f->next;
        free(f);
    }
    free(st->in);
    free(st);
}

static void deregister(libxl__loop *loop, struct channel_state *st)
{
    libxl__ev_fd_deregister(loop, &st->rd);
    libxl__ev_fd_deregister(loop, &st->wr);
    libxl__ev_time_deregister(loop, &st->tick);
    libxl__ev_time_deregister(loop, &st->silence);
}

/* Around every stretch that may call the user, who may dispose the channel. */
static void enter(struct channel_state *st)
{
    st->busy++;
}

static void leave(struct channel_state *st)
{
    if (!--st->busy && !st->ch) state_free(st);
}

static bool alive(const struct channel_state *st)
{
    return st->ch && !st->lost;
}

static void channel_lost(libxl__egc *egc, struct channel_state *st, const char *why)
{
    libxl__channel *ch = st->ch;

    if (!alive(st)) return;
    st->lost = true;
    deregister(ch->loop, st);
    ch->lost(egc, ch, why);
}

static void channel_lost_errno(libxl__egc *egc, struct channel_state *st, const char *what, int err)
{
    char why[128];

    snprintf(why, sizeof(why), "%s: %s", what, strerror(err));
    channel_lost(egc, st, why);
}

/* ---- out ---- */

static bool data_may_go(const struct channel_state *st)
{
    const struct out_frame *f = st->first;

    return !f->data ||
           (st->hello_seen && st->data_moved - st->data_consumed + f->data <= st->ch->window);
}

static bool urgent_due(const struct channel_state *st)
{
    return st->hello_due || st->beat_due || st->echo_due;
}

static bool out_wanted(const struct channel_state *st)
{
    return st->urgent_len || urgent_due(st) || st->first_done || (st->first && data_may_go(st));
}

static void poll_out(struct channel_state *st)
{
    if (alive(st) && !st->write_errno)
        libxl__ev_fd_modify(st->ch->loop, &st->wr, out_wanted(st) ? POLLOUT : 0);
}

/* At a frame boundary: what is due and was not queued. */
static void make_urgent(struct channel_state *st)
{
    libxl__channel *ch = st->ch;
    struct channel_header h = {0};
    struct channel_hello hello = {CHANNEL_VERSION, (uint32_t)ch->limit_ms,
                                  ch->primary ? 0 : ch->window, 0, ch->prologue};
    unsigned char *body = st->urgent + CHANNEL_HEADER_LEN;

    if (st->hello_due) {
        h = (struct channel_header){CHANNEL_HELLO, CHANNEL_HELLO_LEN, CHANNEL_VERSION};
        libxl__channel_hello_put(body, &hello);
        st->hello_due = false;
    } else if (st->beat_due) {
        st->beat_newest = (uint64_t)channel_now(ch);
        st->beat_any = true;
        h = (struct channel_header){CHANNEL_HEARTBEAT, 0, st->beat_newest};
        st->beat_due = false;
    } else {
        h = (struct channel_header){CHANNEL_ECHO, 8, st->beat_newest};
        channel_put64(body, st->data_consumed);
        st->data_echoed = st->data_consumed;
        st->echo_due = false;
    }
    libxl__channel_header_put(st->urgent, &h);
    libxl__channel_seal(st->urgent, st->out_number++);
    st->urgent_len = CHANNEL_HEADER_LEN + h.len;
    st->urgent_done = 0;
}

/* The first of the queue is next, unless its first octet cannot be written. */
static void begin_first(struct channel_state *st)
{
    if (st->first_done) return;
    st->data_moved += st->first->data;
    libxl__channel_seal(st->first->bytes, st->out_number++);
}

static void first_not_begun(struct channel_state *st)
{
    if (st->urgent_len || st->first_done) return;
    st->data_moved -= st->first->data;
    st->out_number--;
}

static void first_written(struct channel_state *st)
{
    struct out_frame *f = st->first;
    struct channel_header h;

    libxl__channel_header_get(f->bytes, &h);
    if (h.type == CHANNEL_STOP) {
        st->stop_written = true;
        st->stop_ms = channel_now(st->ch);
    }
    st->first = f->next;
    if (!st->first) st->last = &st->first;
    st->queued -= f->len;
    st->first_done = 0;
    free(f);
}

/* Writes what may go, at most a turn's worth: 0 or the errno, EAGAIN when the peer does not take
 * more. */
static int write_some(struct channel_state *st)
{
    const unsigned char *from;
    size_t left, turn = 0;
    ssize_t r;

    while (turn < TURN_BYTES) {
        if (!st->urgent_len && !st->first_done && urgent_due(st)) make_urgent(st);
        if (st->urgent_len) {
            from = st->urgent + st->urgent_done;
            left = st->urgent_len - st->urgent_done;
        } else if (st->first && (st->first_done || data_may_go(st))) {
            begin_first(st);
            from = st->first->bytes + st->first_done;
            left = st->first->len - st->first_done;
        } else {
            return 0;
        }
        r = write(st->ch->send_fd, from, left);
        if (r < 0) first_not_begun(st);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0) return errno;
        turn += (size_t)r;
        if (st->urgent_len) {
            st->urgent_done += (size_t)r;
            if (st->urgent_done == st->urgent_len) st->urgent_len = 0;
        } else {
            st->first_done += (size_t)r;
            if (st->first_done == st->first->len) first_written(st);
        }
    }
    return 0;
}

/* Tells the user what the last write or echo made possible. */
static void tell_progress(libxl__egc *egc, struct channel_state *st)
{
    if (alive(st) && st->room_wanted && libxl__channel_data_room(st->ch)) {
        st->room_wanted = false;
        if (st->ch->room) st->ch->room(egc, st->ch);
    }
    if (alive(st) && !st->drained_told && !st->queued) {
        st->drained_told = true;
        if (st->ch->drained) st->ch->drained(egc, st->ch);
    }
}

static int64_t tick_ms(const libxl__channel *ch)
{
    return ch->limit_ms / TICKS_PER_LIMIT;
}

static void last_words_over(libxl__egc *egc, libxl__ev_time *ev)
{
    struct channel_state *st = CONTAINER_OF(ev, struct channel_state, tick);

    enter(st);
    channel_lost_errno(egc, st, "cannot write to the peer", st->write_errno);
    leave(st);
}

/*
 * ssh closes the end that it reads of us as soon as the other side is gone, and may pass on what that said last, STOPPED or ERROR, a moment
 * later. Then comes its end of file.
 */
static void writing_failed(libxl__egc *egc, struct channel_state *st, int err)
{
    libxl__loop *loop = st->ch->loop;

    st->write_errno = err;
    libxl__ev_fd_deregister(loop, &st->wr);
    libxl__ev_time_deregister(loop, &st->tick);
    if (libxl__ev_time_register_rel(loop, &st->tick, last_words_over, tick_ms(st->ch)))
        channel_lost_errno(egc, st, "cannot write to the peer", err);
}

static void fd_writable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct channel_state *st = CONTAINER_OF(ev, struct channel_state, wr);
    int err;

    enter(st);
    err = write_some(st);
    if (err && err != EAGAIN)
        writing_failed(egc, st, err);
    else
        tell_progress(egc, st);
    poll_out(st);
    leave(st);
}

/* ---- in ---- */

static int64_t silence_limit(const struct channel_state *st)
{
    return st->ch->limit_ms + (st->hello_seen ? 0 : START_MS);
}

static void silence_passed(libxl__egc *egc, libxl__ev_time *ev);

static const char *take_hello(struct channel_state *st, const unsigned char *body)
{
    struct channel_hello hello;
    libxl__channel *ch = st->ch;
    const char *wrong;

    if (st->hello_seen) return "second HELLO";
    wrong = libxl__channel_hello_get(body, ch->limit_ms, !ch->primary, &hello);
    if (wrong) return wrong;
    if (hello.prologue && ch->prologue && hello.prologue != ch->prologue)
        return "the configuration was damaged on its way";
    if (ch->primary) ch->window = hello.window;
    st->hello_seen = true;
    /* The shorter limit holds from now on. */
    libxl__ev_time_deregister(ch->loop, &st->silence);
    if (libxl__ev_time_register_rel(ch->loop, &st->silence, silence_passed, silence_limit(st)))
        return "no timer";
    return NULL;
}

static const char *take_echo(struct channel_state *st, uint64_t arg, const unsigned char *body)
{
    uint64_t consumed = channel_get64(body);

    if (arg && (!st->beat_any || arg > st->beat_newest || arg < st->beat_echoed))
        return "ECHO of a heartbeat that was not sent";
    if (!arg && st->beat_echoed) return "ECHO goes backwards";
    if (consumed > st->data_moved || consumed < st->data_consumed)
        return "ECHO of bytes that were not sent";
    st->beat_echoed = arg;
    st->data_consumed = consumed;
    return NULL;
}

/* The rules of one whole frame for us; NULL or what is wrong. *mine: it was the channel's own
 * business. */
static const char *take_frame(struct channel_state *st, const struct channel_header *h,
                              const unsigned char *body, bool *mine)
{
    *mine = h->type == CHANNEL_HEARTBEAT || h->type == CHANNEL_ECHO;
    if (!st->hello_seen && h->type != CHANNEL_HELLO && h->type != CHANNEL_ERROR)
        return "first frame is not HELLO";
    switch (h->type) {
    case CHANNEL_HELLO:
        if (h->arg != CHANNEL_VERSION) return "the peer speaks another version of the channel";
        return take_hello(st, body);
    case CHANNEL_HEARTBEAT:
        if (h->arg < st->beat_newest) return "heartbeat goes backwards";
        st->beat_newest = h->arg;
        st->echo_due = true;
        return NULL;
    case CHANNEL_ECHO:
        return take_echo(st, h->arg, body);
    case CHANNEL_DATA:
        st->data_moved += h->len;
        if (st->data_moved - st->data_consumed > st->ch->window) return "DATA beyond the window";
        return NULL;
    default:
        return NULL;
    }
}

/* Delivers the whole frames of the buffer and keeps the rest. */
static void parse(libxl__egc *egc, struct channel_state *st)
{
    struct channel_header h;
    const unsigned char *body;
    const char *wrong;
    size_t pos = 0;
    bool mine;

    while (alive(st) && st->in_len - pos >= CHANNEL_HEADER_LEN) {
        libxl__channel_header_get(st->in + pos, &h);
        wrong = libxl__channel_header_check(&h, st->ch->primary);
        if (!wrong && st->in_len - pos < libxl__channel_sealed_len(&h)) break;
        if (!wrong && !libxl__channel_seal_ok(st->in + pos, st->in_number))
            wrong = "a frame was damaged on its way";
        if (!wrong && st->in_len - pos - CHANNEL_HEADER_LEN < h.len) break;
        body = st->in + pos + CHANNEL_HEADER_LEN;
        if (!wrong) wrong = take_frame(st, &h, body, &mine);
        if (wrong) {
            channel_lost(egc, st, wrong);
            return;
        }
        st->in_number++;
        pos += CHANNEL_HEADER_LEN + h.len;
        if (!mine) st->ch->frame(egc, st->ch, h.type, h.arg, body, h.len);
    }
    st->in_len -= pos;
    memmove(st->in, st->in + pos, st->in_len);
}

/* Reads and delivers what is there, at most a turn's worth. */
static void read_some(libxl__egc *egc, struct channel_state *st)
{
    size_t turn = 0;
    ssize_t r;

    while (alive(st) && turn < TURN_BYTES) {
        r = read(st->ch->recv_fd, st->in + st->in_len,
                 CHANNEL_HEADER_LEN + CHANNEL_BODY_MAX - st->in_len);
        if (r < 0 && errno == EINTR) continue;
        if (r < 0 && errno == EAGAIN) return;
        if (r < 0) {
            channel_lost_errno(egc, st, "cannot read from the peer", errno);
            return;
        }
        if (!r) {
            channel_lost(egc, st, "the peer closed the connection");
            return;
        }
        st->heard_ms = channel_now(st->ch);
        st->in_len += (size_t)r;
        turn += (size_t)r;
        parse(egc, st);
    }
}

static void fd_readable(libxl__egc *egc, libxl__ev_fd *ev, int fd, short events, short revents)
{
    struct channel_state *st = CONTAINER_OF(ev, struct channel_state, rd);

    enter(st);
    read_some(egc, st);
    tell_progress(egc, st);
    poll_out(st);
    leave(st);
}

/* ---- time ---- */

static void silence_passed(libxl__egc *egc, libxl__ev_time *ev)
{
    struct channel_state *st = CONTAINER_OF(ev, struct channel_state, silence);
    char why[64];
    int64_t left;

    enter(st);
    /* If it was us who stood still, the peer's bytes wait in the kernel. */
    if (libxl__channel_silence_ms(st->ch) >= silence_limit(st)) read_some(egc, st);
    if (!alive(st)) goto out;
    left = silence_limit(st) - libxl__channel_silence_ms(st->ch);
    if (left <= 0) {
        snprintf(why, sizeof(why), "nothing heard from the peer for %lld ms",
                 (long long)libxl__channel_silence_ms(st->ch));
        channel_lost(egc, st, why);
    } else if (!ev->registered &&
               libxl__ev_time_register_rel(st->ch->loop, ev, silence_passed, left)) {
        channel_lost(egc, st, "no timer");
    }
    tell_progress(egc, st);
    poll_out(st);
out:
    leave(st);
}

static void tick_passed(libxl__egc *egc, libxl__ev_time *ev)
{
    struct channel_state *st = CONTAINER_OF(ev, struct channel_state, tick);

    enter(st);
    if (st->ch->primary)
        st->beat_due = true;
    else
        st->echo_due = true;
    if (libxl__ev_time_register_rel(st->ch->loop, ev, tick_passed, tick_ms(st->ch)))
        channel_lost(egc, st, "no timer");
    poll_out(st);
    leave(st);
}

/* ---- for the user ---- */

void libxl__channel_init(libxl__channel *ch)
{
    memset(ch, 0, sizeof(*ch));
    ch->send_fd = ch->recv_fd = -1;
}

static int register_events(libxl__channel *ch, struct channel_state *st)
{
    int rc;

    rc = libxl__fd_nonblock(libxl__loop_gc(ch->loop), ch->send_fd, true);
    if (rc) return rc;
    rc = libxl__fd_nonblock(libxl__loop_gc(ch->loop), ch->recv_fd, true);
    if (rc) return rc;
    rc = libxl__ev_fd_register(ch->loop, &st->rd, fd_readable, ch->recv_fd, POLLIN);
    if (rc) return rc;
    rc = libxl__ev_fd_register(ch->loop, &st->wr, fd_writable, ch->send_fd, POLLOUT);
    if (rc) return rc;
    rc = libxl__ev_time_register_rel(ch->loop, &st->tick, tick_passed, tick_ms(ch));
    if (rc) return rc;
    return libxl__ev_time_register_rel(ch->loop, &st->silence, silence_passed, silence_limit(st));
}

int libxl__channel_start(libxl__channel *ch)
{
    struct channel_state *st;
    int rc;

    assert(!ch->st && ch->frame && ch->lost);
    assert(ch->limit_ms >= CHANNEL_LIMIT_MS_MIN && ch->limit_ms <= CHANNEL_LIMIT_MS_MAX);
    assert(ch->primary || (ch->window >= CHANNEL_WINDOW_MIN && ch->window <= CHANNEL_WINDOW_MAX));
    st = calloc(1, sizeof(*st));
    if (!st) return ERROR_NOMEM;
    st->in = malloc(CHANNEL_HEADER_LEN + CHANNEL_BODY_MAX);
    if (!st->in) {
        free(st);
        return ERROR_NOMEM;
    }
    st->ch = ch;
    st->last = &st->first;
    st->hello_due = st->drained_told = true;
    st->beat_due = ch->primary;
    st->heard_ms = channel_now(ch);
    libxl__ev_fd_init(&st->rd);
    libxl__ev_fd_init(&st->wr);
    libxl__ev_time_init(&st->tick);
    libxl__ev_time_init(&st->silence);
    ch->st = st;
    rc = register_events(ch, st);
    if (rc) {
        st->lost = true;
        libxl__channel_dispose(ch);
    }
    return rc;
}

void libxl__channel_dispose(libxl__channel *ch)
{
    struct channel_state *st = ch->st;

    if (!st) return;
    if (!st->lost) write_some(st);
    deregister(ch->loop, st);
    ch->st = NULL;
    st->ch = NULL;
    if (!st->busy) state_free(st);
}

/* STOP and ERROR make void what waits before them: they must not wait for a window that may never open. */
static void forget_queue(struct channel_state *st)
{
    struct out_frame **f = st->first_done ? &st->first->next : &st->first, *gone;

    while ((gone = *f)) {
        *f = gone->next;
        st->queued -= gone->len;
        free(gone);
    }
    st->last = f;
}

static int queue_frame(struct channel_state *st, const struct channel_header *h, const void *body)
{
    struct out_frame *f;
    size_t len = CHANNEL_HEADER_LEN + h->len;

    if (len > CHANNEL_QUEUE_MAX - st->queued) {
        LOG(libxl__loop_gc(st->ch->loop), ERROR, "channel: more than %u bytes wait for the peer",
            CHANNEL_QUEUE_MAX);
        return ERROR_FAIL;
    }
    f = malloc(sizeof(*f) + len);
    if (!f) return ERROR_NOMEM;
    f->next = NULL;
    f->len = len;
    f->data = h->type == CHANNEL_DATA ? h->len : 0;
    libxl__channel_header_put(f->bytes, h);
    if (h->len) memcpy(f->bytes + CHANNEL_HEADER_LEN, body, h->len);
    *st->last = f;
    st->last = &f->next;
    st->queued += len;
    st->drained_told = false;
    return 0;
}

int libxl__channel_send(libxl__channel *ch, unsigned type, uint64_t arg, const void *body,
                        size_t len)
{
    struct channel_state *st = ch->st;
    const unsigned char *p = body;
    struct channel_header h;
    int rc;

    if (!st || st->lost) return ERROR_FAIL;
    assert(len <= CHANNEL_BODY_MAX);
    if (type == CHANNEL_STOP || type == CHANNEL_ERROR) forget_queue(st);
    do {
        h = (struct channel_header){type, (uint32_t)len, arg};
        if (type == CHANNEL_DATA && len > DATA_CHUNK) h.len = DATA_CHUNK;
        assert(!libxl__channel_header_check(&h, !ch->primary));
        rc = queue_frame(st, &h, p);
        if (rc) return rc;
        p = p ? p + h.len : NULL;
        len -= h.len;
    } while (len);
    poll_out(st);
    return 0;
}

int libxl__channel_commit(libxl__channel *ch, uint64_t n, uint64_t bytes, uint64_t xxh3)
{
    unsigned char body[16];

    channel_put64(body, bytes);
    channel_put64(body + 8, xxh3);
    return libxl__channel_send(ch, CHANNEL_COMMIT, n, body, sizeof(body));
}

size_t libxl__channel_data_room(libxl__channel *ch)
{
    struct channel_state *st = ch->st;
    uint64_t flight, room = 0;

    if (!st || st->lost) return 0;
    flight = st->data_moved - st->data_consumed + st->queued;
    if (st->hello_seen && flight < ch->window && st->queued < QUEUE_ROOM) {
        room = ch->window - flight;
        if (room > QUEUE_ROOM - st->queued) room = QUEUE_ROOM - st->queued;
        /* No dribble: either nothing is under way or a chunk of some size fits. */
        if (flight && room < DATA_CHUNK / 4) room = 0;
    }
    if (!room) st->room_wanted = true;
    return (size_t)room;
}

size_t libxl__channel_queued(const libxl__channel *ch)
{
    return ch->st ? ch->st->queued - ch->st->first_done : 0;
}

void libxl__channel_consumed(libxl__channel *ch, size_t n)
{
    struct channel_state *st = ch->st;

    if (!st || st->lost) return;
    assert(!ch->primary && n <= st->data_moved - st->data_consumed);
    st->data_consumed += n;
    if (st->data_consumed - st->data_echoed >= ch->window / 4) {
        st->echo_due = true;
        poll_out(st);
    }
}

bool libxl__channel_lease_valid(const libxl__channel *ch)
{
    const struct channel_state *st = ch->st;

    if (!st || st->lost || !st->beat_echoed) return false;
    return channel_now(ch) - (int64_t)st->beat_echoed <
           ch->limit_ms - ch->limit_ms / LEASE_MARGIN_PART;
}

/* Of two stamps of the same ms nobody knows which was first. */
bool libxl__channel_stop_read(const libxl__channel *ch)
{
    const struct channel_state *st = ch->st;

    return st && st->stop_written && (int64_t)st->beat_echoed > st->stop_ms;
}

int64_t libxl__channel_silence_ms(const libxl__channel *ch)
{
    return ch->st ? channel_now(ch) - ch->st->heard_ms : 0;
}
