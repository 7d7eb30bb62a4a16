/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What the save helper says to the operation. The parser stands between static functions of libxl_save_callout.c, so that file is a
 * part of this one. First octet: the size of the pieces.
 */
#include "libxl_save_callout.c"

#include <sys/socket.h>

#include "fuzz.h"

static void take_call(libxl__egc *egc, libxl__save_callout *co, enum helper_call what, unsigned arg)
{
    if (!co->asked) abort();
    if (what != HELPER_SUSPEND && what != HELPER_POSTCOPY && what != HELPER_CHECKPOINT &&
        what != HELPER_SWITCH_LOGDIRTY)
        abort();
    if (arg & 1) libxl__save_callout_reply(co, 1);
}

static void take_progress(libxl__egc *egc, libxl__save_callout *co, uint64_t done, uint64_t total)
{
}

static void take_exit(libxl__egc *egc, libxl__save_callout *co, bool clean)
{
    abort(); /* there is no process */
}

static int64_t fake_now(void *user)
{
    return 1000;
}

static void fake_advance(void *user, int64_t until_ms)
{
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    libxl__clock clock = {fake_now, fake_advance, NULL};
    size_t step = size ? 1 + (size_t)data[0] * 64 : 1;
    libxl__save_callout co;
    int sv[2];

    signal(SIGPIPE, SIG_IGN);
    libxl__save_callout_init(&co);
    if (libxl__loop_new(&co.loop, fuzz_logger(), &clock)) abort();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sv)) abort();
    co.call = take_call;
    co.progress = take_progress;
    co.exited = take_exit;
    co.msg_fd = co.reply_fd = sv[0];
    co.buf = malloc(BUF_SIZE);
    if (libxl__ev_fd_register(co.loop, &co.msg_ev, messages_readable, sv[0], POLLIN)) abort();
    for (size_t at = 1; at < size; at += step) {
        if (write(sv[1], data + at, size - at < step ? size - at : step) < 0) break;
        libxl__loop_once(co.loop, 0);
        if (co.used > BUF_SIZE) abort();
    }
    co.reply_fd = -1;
    libxl__ev_fd_deregister(co.loop, &co.msg_ev);
    free(co.buf);
    libxl__loop_free(co.loop);
    close(sv[0]);
    close(sv[1]);
    return 0;
}
