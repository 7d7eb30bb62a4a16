/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * xentwin-disk attach: run by ssh on the backup. Standard input and output are the link; they are given
 * to the instance, which is started if there is none. Then it only waits: ssh ends with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include "disk_frame.h"
#include "xentwin_disk.h"

#define REPLY_LIMIT_MS 30000
#define LOOK_MS 5000
#define TRIES 3

/* The primary is told on the link, a person on stderr. */
static int refuse(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int refuse(const char *format, ...)
{
    uint8_t head[DISK_FRAME_SIZE];
    char text[DISK_SENTENCE_MAX];
    va_list al;

    va_start(al, format);
    struct disk_frame f = disk_frame_error(text, format, al);
    va_end(al);
    disk_frame_put(head, &f, text);
    if (write(1, head, sizeof(head)) == (ssize_t)sizeof(head)) (void)!write(1, text, f.payload);
    complain("%s", text);
    return 1;
}

static int check_backup(const struct instance *in, int fd)
{
    char reply[DISK_REPLY_MAX], value[64] = "";

    if (client_request(fd, "status", NULL, 0, reply, REPLY_LIMIT_MS))
        return refuse("the instance %s-%s does not answer", in->domain, in->vdev);
    (void)status_value(reply, "role", value, sizeof(value));
    if (strcmp(value, "backup"))
        return refuse("%s-%s is served as a primary on this host, too: end its guest first",
                      in->domain, in->vdev);
    (void)status_value(reply, "size", value, sizeof(value));
    if (in->size && strtoull(value, NULL, 10) != in->size)
        return refuse("the disks differ in size: %s here, %" PRIu64 " there", value, in->size);
    return 0;
}

/* An instance that is busy does not answer. */
static bool link_is_down(int fd)
{
    char reply[DISK_REPLY_MAX], value[8];

    return !client_request(fd, "status", NULL, 0, reply, REPLY_LIMIT_MS) &&
           status_value(reply, "link", value, sizeof(value)) && strcmp(value, "up") != 0;
}

/* Until the link is gone: the instance says so, or ends. A link that is lost at once is told before the answer to a request,
 * which passes it over: so it is looked for, too. */
static void wait_lost(int fd)
{
    char packet[DISK_REPLY_MAX];

    for (;;) {
        int n = client_read(fd, packet, LOOK_MS);
        if (n < 0 && errno == ETIMEDOUT) {
            if (!link_is_down(fd)) continue;
            complain("the link is lost");
            return;
        }
        if (n <= 0) return;
        if (strncmp(packet, "event lost", 10)) continue;
        complain("%s", packet + 6);
        return;
    }
}

/* Starts the instance, or finds it, and connects to it. */
static int reach(struct instance *in, bool *running)
{
    int fd = -1;

    /* Between start and connection it may be ended by an attach that was before us. */
    for (int i = 0; i < TRIES && fd < 0; i++) {
        if (instance_start(in, running)) {
            refuse("the backup's instance of %s-%s cannot be started: %s", in->domain, in->vdev,
                   complained());
            return -1;
        }
        fd = client_connect(in);
    }
    if (fd < 0) refuse("the instance %s-%s went away", in->domain, in->vdev);
    return fd;
}

int instance_attach(struct instance *in)
{
    char reply[DISK_REPLY_MAX];
    const int link[2] = {0, 1};
    bool running;
    int r, fd;

    signal(SIGPIPE, SIG_IGN); /* ssh may be gone before we are done */
    if (defaults_take(in, reply)) return refuse("%s", reply);
    in->backup = in->replaces = true;
    fd = reach(in, &running);
    if (fd < 0) return 1;
    r = check_backup(in, fd);
    if (!r && client_request(fd, "link", link, 2, reply, REPLY_LIMIT_MS)) r = refuse("%s", reply);
    if (!r) {
        /* Ours would keep the link open after the instance closed it. */
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
            dup2(null, 0);
            dup2(null, 1);
            close(null);
        }
        wait_lost(fd);
    }
    /* The twin that follows it ends it; what we started for nobody is ours to end. */
    if (running)
        close(fd);
    else
        (void)client_end(in, fd, "leave", reply);
    return r;
}
