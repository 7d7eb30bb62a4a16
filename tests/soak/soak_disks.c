/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Instances of replicated disks. A tick of the guest writes its count to one sector of each disk, so a disk is a function of the count,
 * as the memory is; the promoted guest must find the disks of exactly the count that its memory has.
 */
#include "soak_disks.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct instance instances[2][DISKS];
const char *const disk_names[DISKS] = {"xvda", "xvdb"};
static bool promote_fails, barrier_is_lost, request_fails;

/* ---- what the guest writes ---- */

static unsigned sector_of(unsigned disk, uint64_t tick)
{
    return (unsigned)((tick * 3 + disk + tick / 7) % SECTORS);
}

void disks_guest_writes(uint64_t tick)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
        struct instance *in = &instances[0][d];
        unsigned s = sector_of(d, tick);

        if (!in->alive) continue;
        in->sector[s] = tick;
        if (in->linked) disk_link_send(d, true, MSG_WRITE, in->epoch, s, tick);
    }
}

static bool disk_is_of(const struct instance *in, uint64_t count)
{
    uint64_t want[SECTORS] = {0};

    for (uint64_t t = count > 500 ? count - 500 : 1; t <= count; t++)
        want[sector_of(in->disk, t)] = t;
    return !memcmp(want, in->sector, sizeof(want));
}

/* ---- what it says ---- */

static void __attribute__((format(printf, 3, 4)))
tell(struct instance *in, int64_t ms, const char *fmt, ...)
{
    struct outgoing *o = &in->out[(in->first_out + in->nr_out) % OUTBOX];
    va_list al;

    if (in->fd < 0) return;
    assert(in->nr_out < OUTBOX);
    in->nr_out++;
    o->at_ms = now_ms + ms;
    if (o->at_ms < in->last_ms) o->at_ms = in->last_ms;
    in->last_ms = o->at_ms;
    va_start(al, fmt);
    vsnprintf(o->text, sizeof(o->text), fmt, al);
    va_end(al);
}

static void forget_client(struct instance *in)
{
    if (in->fd >= 0) close(in->fd);
    in->fd = -1;
    in->nr_out = 0;
}

static bool tells_of_epoch(const char *text)
{
    const char *epoch = strstr(text, "epoch=");

    return !strncmp(text, "event barrier", 13) || (epoch && strcmp(epoch, "epoch=0"));
}

static bool speak(struct instance *in)
{
    struct outgoing *o = &in->out[in->first_out];

    if (!in->nr_out || o->at_ms > now_ms || in->busy_until > now_ms) return false;
    say("disk %s of host %d: %s", disk_names[in->disk], in->host, o->text);
    in->first_out = (in->first_out + 1) % OUTBOX;
    in->nr_out--;
    /* A client that is gone may have asked for more before: its end is read, not written. */
    if (send(in->fd, o->text, strlen(o->text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        say("nobody hears it");
    else if (in->host == 1 && !in->told && tells_of_epoch(o->text)) {
        in->told = true;
        in->told_ms = host_clock_ms(1);
    }
    return true;
}

/* ---- the link ---- */

void instance_loses_link(struct instance *in, const char *why)
{
    if (!in->alive || !in->linked) return;
    in->linked = in->synced = false;
    disk_link_send(in->disk, in->host == 0, MSG_END, 0, 0, 0);
    tell(in, 0, "event lost %s", why);
}

static void journal(struct instance *in, uint64_t epoch, unsigned sector, uint64_t value)
{
    if (in->nr_journal == JOURNAL_MAX)
        instance_loses_link(in, "the journal is full");
    else
        in->journal[in->nr_journal++] = (struct disk_write){epoch, value, sector};
}

/* Epochs up to n become the disk. */
static void apply(struct instance *in, uint64_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < in->nr_journal; i++) {
        struct disk_write w = in->journal[i];

        if (w.epoch <= n)
            in->sector[w.sector] = w.value;
        else
            in->journal[kept++] = w;
    }
    in->nr_journal = kept;
}

static void backup_hears(struct instance *in, enum message what, uint64_t epoch, unsigned sector,
                         uint64_t value)
{
    if (what == MSG_HELLO) {
        in->alive = in->linked = true;
        return;
    }
    if (!in->linked) return;
    if (what == MSG_WRITE && !epoch) {
        if (!in->synced) in->inconsistent = true;
        in->sector[sector] = value;
    } else if (what == MSG_WRITE) {
        journal(in, epoch, sector, value);
    } else if (what == MSG_BARRIER && !epoch) {
        in->inconsistent = false;
        in->synced = true;
        tell(in, between(0, 3), "event synced");
        disk_link_send(in->disk, false, MSG_SEALED, 0, 0, 0);
    } else if (what == MSG_BARRIER) {
        in->epoch = epoch;
        if (!barrier_is_lost) tell(in, between(0, 3), "event barrier %" PRIu64, epoch);
        barrier_is_lost = false;
        disk_link_send(in->disk, false, MSG_SEALED, epoch, 0, 0);
    }
}

void instance_hears(struct instance *in, enum message what, uint64_t epoch, unsigned sector,
                    uint64_t value)
{
    if (!in->alive && what != MSG_HELLO) return;
    if (what == MSG_END) {
        instance_loses_link(in, "the peer closed the link");
    } else if (in->host == 1) {
        backup_hears(in, what, epoch, sector, value);
    } else if (what == MSG_SEALED && in->linked) {
        if (!epoch) in->synced = true;
        if (epoch)
            tell(in, 0, "event barrier %" PRIu64, epoch);
        else
            tell(in, 0, "event synced");
    }
}

/* ---- what it is asked ---- */

static bool number_of(const char *text, const char *word, uint64_t *n)
{
    return !strncmp(text, word, strlen(word)) && sscanf(text + strlen(word), " %" SCNu64, n) == 1;
}

static void synchronise(void *arg)
{
    struct instance *in = arg;

    if (!in->alive || !in->linked) return;
    for (unsigned s = 0; s < SECTORS; s++)
        disk_link_send(in->disk, true, MSG_WRITE, 0, s, in->sector[s]);
    disk_link_send(in->disk, true, MSG_BARRIER, 0, 0, 0);
}

static void unprotect(struct instance *in)
{
    instance_loses_link(in, "unprotected");
    in->epoch = 0;
    in->secured = false;
}

static const char *primary_does(struct instance *in, const char *text)
{
    uint64_t n;

    if (!strcmp(text, "unprotect")) {
        unprotect(in);
    } else if (!strcmp(text, "link")) {
        in->linked = true;
        disk_link_send(in->disk, true, MSG_HELLO, 0, 0, 0);
        tell(in, 2 * setup.delay_ms, "event linked full 65536");
    } else if (!strcmp(text, "sync")) {
        if (!in->linked) return "error there is no link";
        after(between(1, 200), synchronise, in);
    } else if (!strcmp(text, "protect")) {
        if (!in->synced) return "error it is not synchronised";
        in->epoch = 1;
        in->committed = 0;
        in->secured = true;
    } else if (number_of(text, "barrier", &n)) {
        /* What was asked before it stood still may be about what is over by now. */
        bool late = in->busy_until && now_ms <= in->busy_until;
        if (guest_runs() && !late) judge_fail("barrier %lu while the guest runs", (unsigned long)n);
        if (in->committed != n - 1 && !happened(DISK_REFUSES))
            judge_fail("barrier %lu, committed is %lu", (unsigned long)n,
                       (unsigned long)in->committed);
        if (!in->linked || n != in->epoch) return "error it is not protected";
        in->epoch = n + 1;
        disk_link_send(in->disk, true, MSG_BARRIER, n, 0, 0);
    } else if (number_of(text, "commit", &n)) {
        in->committed = n;
    } else {
        return "error a primary does not know that";
    }
    return "ok";
}

static const char *promote(struct instance *in, uint64_t n)
{
    judge.disks_promoting = true;
    if (promote_fails && in->disk == (unsigned)setup.disks - 1) return "error the disk is broken";
    if (in->inconsistent || n < in->committed || n > in->epoch) return "error that is not here";
    instance_loses_link(in, "promoted");
    apply(in, n);
    in->nr_journal = 0;
    in->committed = n;
    in->primary = true;
    return "ok generation=2";
}

static const char *backup_does(struct instance *in, const char *text)
{
    static char words[60];
    uint64_t n;

    if (!strcmp(text, "status")) {
        snprintf(words, sizeof(words), "ok role=backup state=linked epoch=%" PRIu64, in->epoch);
        return words;
    }
    if (number_of(text, "commit", &n)) {
        if (n > in->epoch)
            judge_fail("commit %lu, disk %s has barrier %lu", (unsigned long)n,
                       disk_names[in->disk], (unsigned long)in->epoch);
        in->committed = n;
        apply(in, n);
    } else if (number_of(text, "promote", &n)) {
        return promote(in, n);
    } else if (!strcmp(text, "drop")) {
        if (in->primary) judge_fail("a promoted disk is dropped");
        in->nr_journal = 0;
        instance_loses_link(in, "dropped");
    } else if (!strcmp(text, "stop")) {
        in->alive = false;
        forget_client(in);
    } else {
        return "error a backup does not know that";
    }
    return "ok";
}

static void does(struct instance *in, const char *text)
{
    const char *answer;

    say("disk %s of host %d is told: %s", disk_names[in->disk], in->host, text);
    if (!strcmp(text, "subscribe"))
        answer = "ok";
    else if (request_fails && strcmp(text, "unprotect"))
        answer = "error it does not want to";
    else
        answer = in->host ? backup_does(in, text) : primary_does(in, text);
    if (strcmp(text, "subscribe")) request_fails = false;
    tell(in, chance(95) ? between(0, 2) : between(0, 50), "%s", answer);
}

/* What came along as a descriptor is the link, which is ours already. */
static ssize_t take_packet(int fd, char *text, size_t room)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {text, room};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof(control.room)};
    ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    int link;

    if (c && c->cmsg_type == SCM_RIGHTS) {
        memcpy(&link, CMSG_DATA(c), sizeof(link));
        close(link);
    }
    return n;
}

static bool listen_to_client(struct instance *in)
{
    char text[300];
    ssize_t n;

    if (!in->alive || in->fd < 0 || in->busy_until > now_ms) return false;
    n = take_packet(in->fd, text, sizeof(text) - 1);
    if (n < 0 && errno == EAGAIN) return false;
    if (n < 0 && errno == ECONNRESET) return true; /* the rest is still to be read */
    if (n <= 0) {
        forget_client(in);
        return true;
    }
    text[n] = '\0';
    does(in, text);
    return true;
}

bool disks_pump(void)
{
    bool did = disk_link_pump();

    for (int host = 0; host < 2; host++)
        for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
            did |= listen_to_client(&instances[host][d]);
            did |= speak(&instances[host][d]);
        }
    return did;
}

int64_t disks_due(void)
{
    int64_t due = disk_link_due();

    for (int host = 0; host < 2; host++)
        for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
            const struct instance *in = &instances[host][d];
            int64_t at = in->nr_out ? in->out[in->first_out].at_ms : NEVER;

            if (in->alive && in->busy_until > now_ms && (at == NEVER || at < in->busy_until))
                at = in->busy_until;
            if (at > now_ms && at < due) due = at;
        }
    return due;
}

/* ---- who connects ---- */

int __real_socketpair(int domain, int type, int protocol, int sv[2]);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    const char *path = ((const struct sockaddr_un *)(const void *)addr)->sun_path;
    struct instance *in = NULL;
    int sv[2];

    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        if (strstr(path, disk_names[d])) in = &instances[procs[current].host][d];
    assert(in && strstr(path, "/disk-guest-"));
    if (sim_call_fails() || !in->alive) {
        errno = ECONNREFUSED;
        return -1;
    }
    if (__real_socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv)) abort();
    if (dup3(sv[0], fd, O_CLOEXEC) != fd) abort();
    close(sv[0]);
    forget_client(in);
    in->fd = sv[1];
    in->asked_ever = true;
    return 0;
}

int disks_link_fd(void *user, unsigned disk)
{
    int fd = sim_call_fails() ? -1 : eventfd(0, EFD_CLOEXEC);

    sim_own(fd);
    return fd;
}

/* ---- faults ---- */

void disks_start(void)
{
    promote_fails = barrier_is_lost = request_fails = false;
    disk_link_start();
    for (int host = 0; host < 2; host++)
        for (unsigned d = 0; d < DISKS; d++) {
            struct instance *in = &instances[host][d];
            struct disk_write *j = in->journal ? in->journal : malloc(JOURNAL_MAX * sizeof(*j));

            if (in->asked_ever) forget_client(in);
            *in = (struct instance){.host = host, .disk = d, .fd = -1, .journal = j};
            in->alive = in->primary = host == 0; /* the backup's is started by its link */
        }
}

static void dies(struct instance *in)
{
    say("the instance of disk %s on host %d dies", disk_names[in->disk], in->host);
    if (!in->alive) return;
    if (in->linked) disk_link_send(in->disk, in->host == 0, MSG_END, 0, 0, 0);
    in->alive = in->linked = false;
    forget_client(in);
}

void disks_fault(const struct fault *f)
{
    unsigned d = (unsigned)between(0, setup.disks - 1);
    struct instance *in = &instances[chance(50)][d];

    if (f->kind == DISK_OF_PRIMARY_DIES) dies(&instances[0][d]);
    if (f->kind == DISK_OF_BACKUP_DIES) dies(&instances[1][d]);
    if (f->kind == DISK_LINK_CLOSES) instance_loses_link(in, "the connection was closed");
    if (f->kind == DISK_STANDS_STILL) in->busy_until = now_ms + f->for_ms;
    if (f->kind == DISK_PROMOTION_FAILS) promote_fails = true;
    if (f->kind == DISK_BARRIER_LOST) barrier_is_lost = true;
    if (f->kind == DISK_REFUSES) request_fails = true;
}

void disks_of_host_die(int host)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
        instances[host][d].alive = false;
        forget_client(&instances[host][d]);
    }
}

void disks_of_host_freeze(int host, int64_t ms)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        instances[host][d].busy_until = now_ms + ms;
}

void disks_go_on_here(void)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        if (instances[0][d].alive) unprotect(&instances[0][d]);
}

/* ---- for the judge ---- */

uint64_t disks_committed(void)
{
    uint64_t least = UINT64_MAX;

    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        if (instances[1][d].committed < least) least = instances[1][d].committed;
    return least;
}

bool disks_told_by(int64_t ms)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        if (!instances[1][d].told || instances[1][d].told_ms > ms) return false;
    return true;
}

void judge_disks_of_copy(uint64_t count)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
        const struct instance *in = &instances[1][d];

        /* One that died after its promotion has the data, and is started again by hand. */
        if (!in->primary || (!in->alive && !happened(DISK_OF_BACKUP_DIES)))
            judge_fail("the copy runs, its disk %s does not serve", disk_names[d]);
        else if (!disk_is_of(in, count))
            judge_fail("the memory is of count %lu, disk %s is not", (unsigned long)count,
                       disk_names[d]);
    }
}

void judge_disks_of_primary(void)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
        const struct instance *in = &instances[0][d];

        if (in->alive && (in->secured || in->linked))
            judge_fail("the guest goes on, its disk %s counts as protected", disk_names[d]);
    }
}

void judge_disks_dropped(void)
{
    for (unsigned d = 0; d < (unsigned)setup.disks; d++) {
        const struct instance *in = &instances[1][d];

        if (in->primary) judge_fail("disk %s serves, the copy does not run", disk_names[d]);
        if (in->alive && in->asked_ever)
            judge_fail("the instance of disk %s is left", disk_names[d]);
    }
}
