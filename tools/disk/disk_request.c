/* SPDX-License-Identifier: LGPL-2.1-only */
#include "disk_request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- what a word's function needs ---- */

void disk_request_result(struct disk_request *q, int r, const char *why)
{
    if (r)
        snprintf(q->reply, sizeof(q->reply), "error %s", why);
    else
        snprintf(q->reply, sizeof(q->reply), "ok");
}

bool disk_request_take_link(struct disk_request *q, int *in, int *out)
{
    if (!q->fd_count) {
        disk_request_result(q, -1, "link: one or two file descriptors must come with it");
        return false;
    }
    *in = q->fds[0];
    *out = q->fds[q->fd_count - 1];
    q->fd_count = 0;
    return true;
}

bool disk_request_number(const char *text, uint64_t *value)
{
    char *end;

    if (!text || *text < '0' || *text > '9') return false;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && !*end;
}

bool disk_request_checkpoint(struct disk_request *q, uint64_t *n)
{
    if (disk_request_number(q->arg, n) && *n) return true;
    snprintf(q->reply, sizeof(q->reply), "error %s: the number of a checkpoint must follow",
             q->word);
    return false;
}

/* ---- the packet ---- */

static void answer(struct disk_request *q, const struct disk_word *words, size_t count)
{
    char *blank = strchr(q->text, ' ');

    q->word = q->text;
    if (blank) {
        *blank = 0;
        q->arg = blank + 1;
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i].word, q->word)) continue;
        if (q->arg && !words[i].argument)
            snprintf(q->reply, sizeof(q->reply), "error %s takes no argument", q->word);
        else
            words[i].call(q);
        return;
    }
    disk_request_result(q, -1, "no such request");
}

static void take_fds(struct disk_request *q, struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
            if (q->fd_count < DISK_REQUEST_FDS_MAX)
                q->fds[q->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

bool disk_request_serve(struct disk_request *q, int fd, const struct disk_word *words, size_t count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * DISK_REQUEST_FDS_MAX)];
    } control;
    struct iovec iov = {.iov_base = q->text, .iov_len = DISK_REQUEST_MAX};
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.space,
                       .msg_controllen = sizeof(control.space)};

    q->word = q->arg = NULL;
    q->fd_count = 0;
    q->reply[0] = 0;
    ssize_t n = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    /* A client that left before it read our answer: what it had asked for besides is still there. */
    if (n < 0) return errno == EAGAIN || errno == EINTR || errno == ECONNRESET;
    take_fds(q, &m);
    bool bad = m.msg_flags & (MSG_TRUNC | MSG_CTRUNC) || memchr(q->text, 0, (size_t)n);
    q->text[n] = 0;
    if (n && !bad) answer(q, words, count);
    if (n && bad) disk_request_result(q, -1, "the request is too long, or no text");
    for (unsigned i = 0; i < q->fd_count; i++)
        close(q->fds[i]);
    return n > 0;
}
