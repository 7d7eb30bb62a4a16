/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_apart.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

int drbd_apart(int (*work)(const void *arg), const void *arg)
{
    pid_t pid = fork();
    int status;

    if (pid < 0) return -errno;
    if (!pid) _exit(-work(arg) & 0xff);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -ECHILD;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -ECHILD;
}
