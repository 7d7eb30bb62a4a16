/* SPDX-License-Identifier: LGPL-2.1-only */
/* A client of the control socket says anything: the first octet is the size of the pieces in which the rest comes. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"
#include "libxl_control.h"

#define LINE_MAX_BYTES 256

static libxl__loop *loop;
static libxl__control control;
static char dir[64];
static int64_t now_ms = 1000;

static int64_t fake_now(void *user)
{
    return now_ms;
}

static void fake_advance(void *user, int64_t until_ms)
{
}

static void take_request(libxl__egc *egc, libxl__control *ctl, unsigned id, const char *line)
{
    size_t n = strlen(line);

    if (!id || n > LINE_MAX_BYTES) abort();
    for (size_t i = 0; i < n; i++)
        if (line[i] < ' ' || line[i] == 0x7f) abort();
    if (n & 1) libxl__control_reply(ctl, id, line); /* else it waits for its end */
}

static void finish(void)
{
    libxl__control_dispose(&control);
    libxl__loop_free(loop);
    rmdir(dir);
}

static void start(void)
{
    libxl__clock clock = {fake_now, fake_advance, NULL};

    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof(dir), "%s/control_fuzz_XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(dir) || setenv("XENTWIN_RUN_DIR", dir, 1)) abort();
    if (libxl__loop_new(&loop, fuzz_logger(), &clock)) abort();
    libxl__control_init(&control);
    control.loop = loop;
    control.side = "primary";
    control.domain = "guest";
    control.request = take_request;
    if (libxl__control_start(&control)) abort();
    atexit(finish);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t step = size ? 1 + data[0] : 1;
    char answer[1024];
    int fd;

    if (!loop) start();
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/primary-guest.sock", dir);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr))) abort();
    libxl__loop_once(loop, 0);
    for (size_t at = 1; at < size; at += step) {
        if (write(fd, data + at, size - at < step ? size - at : step) < 0) break;
        libxl__loop_once(loop, 0);
    }
    while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) > 0)
        ;
    close(fd);
    libxl__loop_once(loop, 0);
    now_ms += 60000; /* a client that said half a line is not waited for */
    libxl__loop_once(loop, 0);
    return 0;
}
