/* SPDX-License-Identifier: LGPL-2.1-only */
/* Messages of libxl-save-helper. Layout: see the enum in the header and put_*() below. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "libxl_save_msgs.h"

#define TEXT_MAX 1024 /* of one string, with its NUL; longer ones are cut */

static int in_fd = -1, out_fd = -1;
static bool parent_dead;

struct message {
    uint16_t length; /* of what follows */
    uint16_t number;
    uint8_t body[2 * TEXT_MAX + 64];
    size_t used;
};

static void put(struct message *m, const void *bytes, size_t size)
{
    memcpy(m->body + m->used, bytes, size);
    m->used += size;
}

static void put_u32(struct message *m, uint32_t value)
{
    put(m, &value, sizeof(value));
}

static void put_u64(struct message *m, uint64_t value)
{
    put(m, &value, sizeof(value));
}

static void put_string(struct message *m, const char *text)
{
    size_t len = strnlen(text, TEXT_MAX - 1);

    put_u32(m, (uint32_t)len + 1);
    put(m, text, len);
    put(m, "", 1);
}

/* libxl reads a message with blocking reads: it goes out in one write, then the rest if any. */
static int send_message(struct message *m, enum libxl__save_msg number)
{
    uint8_t wire[sizeof(*m)];
    size_t size, done = 0;

    m->number = (uint16_t)number;
    m->length = (uint16_t)(sizeof(m->number) + m->used);
    size = sizeof(m->length) + m->length;
    memcpy(wire, &m->length, sizeof(m->length));
    memcpy(wire + sizeof(m->length), &m->number, sizeof(m->number));
    memcpy(wire + sizeof(m->length) + sizeof(m->number), m->body, m->used);

    while (done < size && !parent_dead) {
        ssize_t n = write(out_fd, wire + done, size - done);

        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {out_fd, POLLOUT, 0};

            poll(&p, 1, -1);
            continue;
        }
        if (n < 0)
            parent_dead = true;
        else
            done += (size_t)n;
    }
    return parent_dead ? -1 : 0;
}

/* Waits without a limit: the parent has its own for each question, and its death ends the wait. */
static int read_answer(int *answer)
{
    uint8_t *at = (uint8_t *)answer;
    size_t left = sizeof(*answer);

    while (left && !parent_dead) {
        ssize_t n = read(in_fd, at, left);

        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            parent_dead = true;
            break;
        }
        at += n;
        left -= (size_t)n;
    }
    return parent_dead ? -1 : 0;
}

/* Sends and waits. `failed` is what a dead parent answers. */
static int ask(struct message *m, enum libxl__save_msg number, int failed)
{
    int answer = failed;

    if (send_message(m, number) || read_answer(&answer)) {
        errno = EOWNERDEAD;
        return failed;
    }
    errno = 0;
    return answer;
}

static void vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                     const char *context, const char *format, va_list al)
{
    struct message m = {.used = 0};
    char text[TEXT_MAX];
    int saved = errno;

    (void)lg;
    vsnprintf(text, sizeof(text), format, al);
    put_u32(&m, (uint32_t)level);
    put_u32(&m, (uint32_t)errnoval);
    put_string(&m, context ? context : "");
    put_string(&m, text);
    send_message(&m, SAVE_MSG_LOG);
    errno = saved;
}

static void progress(xentoollog_logger *lg, const char *context, const char *what, int percent,
                     unsigned long done, unsigned long total)
{
    struct message m = {.used = 0};
    int saved = errno;

    (void)lg;
    (void)percent;
    put_string(&m, context ? context : "");
    put_string(&m, what);
    put_u64(&m, done);
    put_u64(&m, total);
    send_message(&m, SAVE_MSG_PROGRESS);
    errno = saved;
}

static void destroy(xentoollog_logger *lg)
{
    (void)lg;
}

static xentoollog_logger logger = {vmessage, progress, destroy};

xentoollog_logger *libxl__save_msgs_logger(void)
{
    return &logger;
}

static int ask_plain(enum libxl__save_msg number, int failed)
{
    struct message m = {.used = 0};

    return ask(&m, number, failed);
}

static int suspend(void *data)
{
    (void)data;
    return ask_plain(SAVE_MSG_SUSPEND, 0);
}

static int postcopy(void *data)
{
    (void)data;
    return ask_plain(SAVE_MSG_POSTCOPY, 0);
}

static int checkpoint(void *data)
{
    (void)data;
    return ask_plain(SAVE_MSG_CHECKPOINT, 0);
}

static int switch_qemu_logdirty(uint32_t domid, unsigned int enable, void *data)
{
    struct message m = {.used = 0};

    (void)data;
    put_u32(&m, domid);
    put_u32(&m, enable);
    return ask(&m, SAVE_MSG_SWITCH_QEMU_LOGDIRTY, -1);
}

static int static_data_done(unsigned int missing, void *data)
{
    struct message m = {.used = 0};

    (void)data;
    put_u32(&m, missing);
    return ask(&m, SAVE_MSG_STATIC_DATA_DONE, -1);
}

static void restore_results(xen_pfn_t store_gfn, xen_pfn_t console_gfn, void *data)
{
    struct message m = {.used = 0};

    (void)data;
    put_u64(&m, store_gfn);
    put_u64(&m, console_gfn);
    send_message(&m, SAVE_MSG_RESTORE_RESULTS);
}

static bool has(uint32_t cbflags, enum libxl__save_msg number)
{
    return cbflags & (1U << number);
}

void libxl__save_msgs_init(int in, int out)
{
    in_fd = in;
    out_fd = out;
    parent_dead = false;
}

void libxl__save_msgs_fill_save(struct save_callbacks *cb, uint32_t cbflags)
{
    memset(cb, 0, sizeof(*cb));
    if (has(cbflags, SAVE_MSG_SUSPEND)) cb->suspend = suspend;
    if (has(cbflags, SAVE_MSG_POSTCOPY)) cb->postcopy = postcopy;
    if (has(cbflags, SAVE_MSG_CHECKPOINT)) cb->checkpoint = checkpoint;
    if (has(cbflags, SAVE_MSG_SWITCH_QEMU_LOGDIRTY))
        cb->switch_qemu_logdirty = switch_qemu_logdirty;
}

void libxl__save_msgs_fill_restore(struct restore_callbacks *cb, uint32_t cbflags)
{
    memset(cb, 0, sizeof(*cb));
    if (has(cbflags, SAVE_MSG_CHECKPOINT)) cb->checkpoint = checkpoint;
    if (has(cbflags, SAVE_MSG_STATIC_DATA_DONE)) cb->static_data_done = static_data_done;
    if (has(cbflags, SAVE_MSG_RESTORE_RESULTS)) cb->restore_results = restore_results;
}

int libxl__save_msgs_complete(int retval, int errnoval)
{
    struct message m = {.used = 0};
    int answer;

    put_u32(&m, (uint32_t)retval);
    put_u32(&m, (uint32_t)errnoval);
    answer = ask(&m, SAVE_MSG_COMPLETE, -1);
    return parent_dead || answer ? -1 : 0;
}
