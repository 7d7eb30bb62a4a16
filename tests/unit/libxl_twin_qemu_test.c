/* SPDX-License-Identifier: LGPL-2.1-only */
/* The state of a warm twin's device model is loaded once, whenever the process that asks for it is killed; QEMU is a model in shared memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xenstore.h>

#include <libxl.h>

#include "libxl_qmp_client.h"
#include "libxl_twin_qemu.h"

enum kill_at { NOWHERE, BEFORE_ASKING, AFTER_ASKING, AFTER_LOADING };

static struct model {
    char state[32], ours[32]; /* nodes of xenstore */
    bool asked;               /* QEMU loads once */
    enum kill_at kill_at;
} * m;

struct xs_handle {
    int unused;
};

static char *node(const char *path)
{
    return strstr(path, "/xentwin") ? m->ours : m->state;
}

static void die_at(enum kill_at here)
{
    if (m->kill_at != here) return;
    m->kill_at = NOWHERE;
    raise(SIGKILL);
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
              unsigned int len)
{
    char *to = node(path);

    if (to == m->ours && !strncmp(data, "loaded", len)) die_at(AFTER_LOADING);
    assert_in_range(len, 1, sizeof(m->state) - 1);
    memcpy(to, data, len);
    to[len] = 0;
    return true;
}

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned int *len)
{
    *len = (unsigned int)strlen(node(path));
    return *len ? strdup(node(path)) : NULL;
}

int access(const char *path, int mode)
{
    return 0;
}

void libxl__gc_init(libxl__gc *gc, xentoollog_logger *lg)
{
    memset(gc, 0, sizeof(*gc));
}

void libxl__gc_dispose(libxl__gc *gc)
{
}

int libxl__qmp_blocking_at(libxl__gc *gc, const char *path, const char *json, int limit_ms)
{
    return 0;
}

int libxl__loop_new(libxl__loop **loop, xentoollog_logger *lg, const libxl__clock *clock)
{
    *loop = (libxl__loop *)m;
    return 0;
}

void libxl__loop_free(libxl__loop *loop)
{
}

int libxl__loop_run(libxl__loop *loop, const bool *done)
{
    return 0;
}

int libxl__qmp_open(libxl__loop *loop, uint32_t domid, libxl__qmp **qmp)
{
    *qmp = (libxl__qmp *)m;
    return 0;
}

void libxl__qmp_close(libxl__qmp *qmp)
{
}

void libxl__qmp_cmd_init(libxl__qmp_cmd *cmd)
{
}

int libxl__qmp_send(libxl__qmp *qmp, libxl__qmp_cmd *cmd, const char *json, int fd)
{
    int rc = 0;

    if (strstr(json, "migrate-incoming")) {
        die_at(BEFORE_ASKING);
        rc = m->asked ? ERROR_FAIL : 0;
        if (!rc) {
            m->asked = true;
            strcpy(m->state, "running"); /* it writes that once, when it runs */
        }
        die_at(AFTER_ASKING);
    }
    cmd->callback(NULL, cmd, rc);
    return 0;
}

/* One xentwin-apply. */
static int apply(void)
{
    struct xs_handle xs;
    xentoollog_logger_stdiostream *lg = xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
    struct twin_qemu q = {.lg = (xentoollog_logger *)lg, .xs = &xs, .domid = 7, .state_fd = 5};
    int status;
    pid_t pid = fork();

    if (pid == 0) _exit(twin_qemu_await(&q) || twin_qemu_load(&q));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    xtl_logger_destroy((xentoollog_logger *)lg);
    return status;
}

static void t_twin_qemu_is_loaded_whenever_the_loader_is_killed(void **state)
{
    m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(m, MAP_FAILED);
    for (enum kill_at at = NOWHERE; at <= AFTER_LOADING; at++) {
        *m = (struct model){.kill_at = at};
        if (at) assert_true(WIFSIGNALED(apply()));
        assert_int_equal(apply(), 0);
        assert_true(m->asked);
        assert_string_equal(m->state, "running");
        assert_string_equal(m->ours, "loaded");
    }
    munmap(m, sizeof(*m));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(t_twin_qemu_is_loaded_whenever_the_loader_is_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
