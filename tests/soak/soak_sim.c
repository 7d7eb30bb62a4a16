/* SPDX-License-Identifier: LGPL-2.1-only */
/* Chance, time, and the processes that take turns. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "soak.h"

#define EVENTS_MAX 4096
#define POSTS_MAX 64
#define FILES_MAX 1024

struct event {
    int64_t at_ms;
    uint64_t seq;
    void (*fn)(void *arg);
    void *arg;
};

struct posted {
    void (*fn)(libxl__egc *egc, void *arg);
    void *arg;
};

struct proc procs[PROCS];
int64_t now_ms;
uint64_t turn_count;
enum who current = NOBODY;
bool verbose;

static uint64_t dice_state;
static struct event events[EVENTS_MAX]; /* a heap */
static size_t nr_events;
static uint64_t event_seq;
static struct posted posts[PROCS][POSTS_MAX];
static size_t nr_posts[PROCS];
static unsigned char owner_of[FILES_MAX]; /* 1 + who opened the file */

/* ---- chance ---- */

void dice_seed(uint64_t seed)
{
    dice_state = seed * 0x9e3779b97f4a7c15u + 1;
}

uint64_t dice(void)
{
    uint64_t z = dice_state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

int between(int least, int most)
{
    return least + (int)(dice() % (uint64_t)(most - least + 1));
}

bool chance(int percent)
{
    return between(0, 99) < percent;
}

/* ---- words ---- */

void say(const char *fmt, ...)
{
    static const char *const names[] = {"xl", "twin", "guard", "-"};
    va_list al;

    if (!verbose) return;
    printf("%8lld %-5s ", (long long)now_ms, names[current]);
    va_start(al, fmt);
    vprintf(fmt, al);
    va_end(al);
    putchar('\n');
}

static void log_line(xentoollog_logger *lg, xentoollog_level level, int errnoval, const char *ctx,
                     const char *fmt, va_list al)
{
    char line[600];

    if (!verbose) return;
    vsnprintf(line, sizeof(line), fmt, al);
    say("%s: %s%s%s", xtl_level_to_string(level), line, errnoval >= 0 ? ": " : "",
        errnoval >= 0 ? strerror(errnoval) : "");
}

xentoollog_logger *sim_logger(void)
{
    static xentoollog_logger lg = {log_line, NULL, NULL};

    return &lg;
}

/* ---- the call that fails ---- */

uint64_t sim_calls;

bool sim_call_fails(void)
{
    if (!setup.fail_call || (int)current != setup.fail_who || ++sim_calls != setup.fail_call)
        return false;
    judge.call_failed = true;
    say("FAULT: call %lu fails", (unsigned long)sim_calls);
    return true;
}

void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n)
{
    return sim_call_fails() ? NULL : __real_malloc(n);
}

void *__real_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_realloc(void *p, size_t n)
{
    return sim_call_fails() ? NULL : __real_realloc(p, n);
}

ssize_t __real_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n);
ssize_t __wrap_write(int fd, const void *buf, size_t n)
{
    if (!sim_call_fails()) return __real_write(fd, buf, n);
    errno = EIO;
    return -1;
}

/* ---- files: whose they are, so that a kill can close them ---- */

static void own(int fd)
{
    if (fd < 0 || current == NOBODY) return;
    assert(fd < FILES_MAX);
    owner_of[fd] = (unsigned char)(1 + current);
}

int __real_close(int fd);
int __wrap_close(int fd);
int __wrap_close(int fd)
{
    if (fd >= 0 && fd < FILES_MAX) owner_of[fd] = 0;
    return __real_close(fd);
}

int __real_socketpair(int domain, int type, int protocol, int sv[2]);
int __wrap_socketpair(int domain, int type, int protocol, int sv[2]);
int __wrap_socketpair(int domain, int type, int protocol, int sv[2])
{
    int r = sim_call_fails() ? -1 : __real_socketpair(domain, type, protocol, sv);

    if (!r) own(sv[0]);
    if (!r) own(sv[1]);
    return r;
}

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol)
{
    int fd = sim_call_fails() ? -1 : __real_socket(domain, type, protocol);

    own(fd);
    return fd;
}

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags)
{
    int fd = sim_call_fails() ? -1 : __real_memfd_create(name, flags);

    own(fd);
    return fd;
}

void sim_own(int fd)
{
    own(fd);
}

int files_of(enum who who)
{
    int n = 0;

    for (int fd = 0; fd < FILES_MAX; fd++)
        n += owner_of[fd] == 1 + who;
    return n;
}

static void close_files(enum who who)
{
    for (int fd = 0; fd < FILES_MAX; fd++)
        if (owner_of[fd] == 1 + who) close(fd);
}

/* ---- time ---- */

static int64_t host_ms(int host, int64_t ms)
{
    return 1000000 + 777 * host + ms + ms * setup.drift_ppm[host] / 1000000;
}

int64_t host_clock_ms(int host)
{
    return host_ms(host, now_ms);
}

static int64_t proc_now(void *user)
{
    return host_ms(((struct proc *)user)->host, now_ms);
}

/* The loop would sleep: remember until when, in our time. */
static void proc_advance(void *user, int64_t until_ms)
{
    struct proc *p = user;
    int64_t ms;

    p->idle = true;
    p->due = NEVER;
    if (until_ms == INT64_MAX) return;
    ms = now_ms +
         (until_ms - host_ms(p->host, now_ms)) * 1000000 / (1000000 + setup.drift_ppm[p->host]);
    while (host_ms(p->host, ms) < until_ms)
        ms++;
    p->due = ms;
}

libxl__clock proc_clock(enum who who)
{
    return (libxl__clock){proc_now, proc_advance, &procs[who]};
}

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->seq < b->seq;
}

void after(int64_t ms, void (*fn)(void *arg), void *arg)
{
    struct event e = {now_ms + ms, event_seq++, fn, arg};
    size_t i = nr_events++;

    assert(nr_events <= EVENTS_MAX);
    for (; i && earlier(&e, &events[(i - 1) / 2]); i = (i - 1) / 2)
        events[i] = events[(i - 1) / 2];
    events[i] = e;
}

static struct event take_event(void)
{
    struct event first = events[0], last = events[--nr_events];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < nr_events) {
        if (child + 1 < nr_events && earlier(&events[child + 1], &events[child])) child++;
        if (earlier(&last, &events[child])) break;
        events[i] = events[child];
        i = child;
    }
    events[i] = last;
    return first;
}

/* ---- processes ---- */

void proc_start(enum who who, libxl__loop *loop)
{
    procs[who].loop = loop;
    procs[who].alive = true;
}

static void forget(enum who who)
{
    procs[who].alive = false;
    procs[who].loop = NULL;
    nr_posts[who] = 0;
    close_files(who);
}

void proc_exit(enum who who)
{
    say("%s is over", procs[who].name);
    libxl__loop_free(procs[who].loop);
    if (files_of(who)) judge_fail("%s left %d files open", procs[who].name, files_of(who));
    forget(who);
}

void proc_kill(enum who who)
{
    if (!procs[who].alive) return;
    say("%s is killed", procs[who].name);
    forget(who);
}

void proc_stop(enum who who, int64_t ms)
{
    if (procs[who].busy_until < now_ms + ms) procs[who].busy_until = now_ms + ms;
}

void post(enum who who, void (*fn)(libxl__egc *egc, void *arg), void *arg)
{
    if (!procs[who].alive) return;
    assert(nr_posts[who] < POSTS_MAX);
    posts[who][nr_posts[who]++] = (struct posted){fn, arg};
}

static bool deliver_post(enum who who)
{
    libxl__egc egc = {procs[who].loop};
    struct posted p;

    if (!nr_posts[who]) return false;
    p = posts[who][0];
    memmove(&posts[who][0], &posts[who][1], --nr_posts[who] * sizeof(p));
    p.fn(&egc, p.arg);
    return true;
}

/* True if it did something. */
static bool take_turn(enum who who)
{
    struct proc *p = &procs[who];
    bool did;

    if (!p->alive || p->busy_until > now_ms) return false;
    current = who;
    did = deliver_post(who);
    p->idle = false;
    if (p->alive && p->loop) {
        if (libxl__loop_once(p->loop, -1)) judge_fail("the loop of %s failed", p->name);
        did |= !p->idle;
    }
    current = NOBODY;
    if (did && setup.slow_percent && chance(setup.slow_percent))
        proc_stop(who, chance(5) ? between(1, setup.limit_ms) : between(1, 8));
    return did;
}

static bool take_turns(void)
{
    unsigned first = (unsigned)dice() % PROCS;
    bool did = false;

    for (unsigned i = 0; i < PROCS; i++)
        did |= take_turn((enum who)((first + i) % PROCS));
    return did;
}

static int64_t next_ms(void)
{
    int64_t next = nr_events ? events[0].at_ms : NEVER;

    for (int i = 0; i < PROCS; i++) {
        const struct proc *p = &procs[i];
        int64_t due = p->busy_until > now_ms ? p->busy_until : p->due;

        if (p->alive && due < next) next = due;
    }
    if (link_due() < next) next = link_due();
    if (disks_due() < next) next = disks_due();
    return next;
}

void sim_start(void)
{
    static const char *const names[PROCS] = {"xl", "twin", "guard"};

    now_ms = 0;
    turn_count = event_seq = sim_calls = 0;
    nr_events = 0;
    memset(owner_of, 0, sizeof(owner_of));
    memset(nr_posts, 0, sizeof(nr_posts));
    for (int i = 0; i < PROCS; i++)
        procs[i] = (struct proc){.name = names[i], .due = NEVER, .host = i == TWIN};
}

/* Everybody once; when nobody had anything to do, time goes on. False: nothing is left to happen. */
static bool step(void)
{
    bool did = take_turns();
    int64_t next;

    turn_count++;
    while (nr_events && events[0].at_ms <= now_ms) {
        struct event e = take_event();

        e.fn(e.arg);
        did = true;
    }
    did |= link_pump();
    did |= primary_pump();
    did |= children_pump();
    did |= disks_pump();
    if (did) return true;
    next = next_ms();
    if (next > now_ms) now_ms = next;
    return next != NEVER;
}

void sim_run(bool (*over)(void))
{
    while (!judge.failed && !over() && step())
        ;
}

void sim_some(void)
{
    for (int i = 0; i < 1000 && step(); i++)
        ;
}
