/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * For the benchmark, what a second copy costs when it is made in the simplest way: each write goes to the file and, under a frame's
 * head of zeros, to a socket whose other end throws it away. No order, no check, no epoch, no bitmap.
 *
 *     nbdkit nbdkit-tee-plugin.so FILE
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define HEAD_SIZE 56

static char *path;
static int file = -1, out = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int tee_config(const char *key, const char *value)
{
    if (strcmp(key, "path")) {
        nbdkit_error("%s is no parameter", key);
        return -1;
    }
    free(path);
    path = nbdkit_realpath(value);
    return path ? 0 : -1;
}

static int tee_get_ready(void)
{
    file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) nbdkit_error("cannot open %s: %s", path ? path : "no path", strerror(errno));
    return file < 0 ? -1 : 0;
}

/* The pages go through a pipe to /dev/null, nobody copies them. */
static void throw_away(int in)
{
    int waste[2], nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0}); /* as null_backup.c */
    if (nowhere < 0 || pipe2(waste, O_CLOEXEC)) _exit(1);
    (void)fcntl(waste[1], F_SETPIPE_SZ, 1 << 20);
    for (;;) {
        ssize_t n = splice(in, NULL, waste[1], NULL, 1 << 20, 0);
        if (n <= 0 || splice(waste[0], NULL, nowhere, NULL, (size_t)n, 0) != n) _exit(0);
    }
}

static int tee_after_fork(void)
{
    static const int size = 1 << 20;
    int sv[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv)) return -1;
    (void)setsockopt(sv[0], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    pid_t pid = fork();
    if (pid == 0) {
        close(sv[0]);
        throw_away(sv[1]);
    }
    close(sv[1]);
    out = sv[0];
    return pid < 0 ? -1 : 0;
}

static void *tee_open(int readonly)
{
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t tee_get_size(void *handle)
{
    return lseek(file, 0, SEEK_END);
}

static int tee_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
    return pread(file, buf, count, (off_t)offset) == (ssize_t)count ? 0 : -1;
}

static int tee_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
                      uint32_t flags)
{
    static const char head[HEAD_SIZE];
    struct iovec iov[2] = {{.iov_base = (void *)(uintptr_t)head, .iov_len = sizeof(head)},
                           {.iov_base = (void *)(uintptr_t)buf, .iov_len = count}};

    pthread_mutex_lock(&lock);
    ssize_t n = writev(out, iov, 2);
    pthread_mutex_unlock(&lock);
    if (n != (ssize_t)(sizeof(head) + count)) return -1;
    return pwrite(file, buf, count, (off_t)offset) == (ssize_t)count ? 0 : -1;
}

static struct nbdkit_plugin plugin = {
    .name = "tee",
    .config = tee_config,
    .magic_config_key = "path",
    .get_ready = tee_get_ready,
    .after_fork = tee_after_fork,
    .open = tee_open,
    .get_size = tee_get_size,
    .pread = tee_pread,
    .pwrite = tee_pwrite,
};

struct nbdkit_plugin *plugin_init(void);
NBDKIT_REGISTER_PLUGIN(plugin)
