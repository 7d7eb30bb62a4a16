/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Checkpoints without a backup, on a real guest: `guestio_live DOMID pvh|hvm [CYCLES]` in dom0.
 * Each cycle suspends the guest, closes the epoch, has QEMU stop, save and go on (HVM), resumes the
 * guest and releases the epoch. Prints the medians in ms.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <libxl.h>

#include "libxl_dom_suspend.h"
#include "libxl_netbuffer.h"
#include "libxl_qmp_client.h"

#define MAX_CYCLES 1000

enum part { SUSPEND, PLUG, STOP, SAVE, CONT, RESUME, RELEASE, PAUSE, PARTS };
static const char *const part_names[] = {"suspend", "plug",   "stop",    "save",
                                         "cont",    "resume", "release", "pause"};
static double times[PARTS][MAX_CYCLES];

static libxl__loop *loop;
static libxl__gc *gc;
static bool done;
static int result;

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static libxl__dom_suspend ds;
static bool hvm;

/* The guest runs on and its output passes, whatever failed. */
static void give_up(void)
{
    char ifb[16];

    libxl__netbuffer_ifname(ds.domid, ifb);
    if (hvm) libxl__qmp_simple_blocking(gc, ds.domid, "{\"execute\":\"cont\"}", 5000);
    libxl__dom_resume_fast(gc, ds.xch, libxl__loop_xs(loop), ds.domid);
    libxl__netbuffer_remove(gc, ifb);
    exit(1);
}

static void must(int rc, const char *what)
{
    if (!rc) return;
    fprintf(stderr, "guestio_live: %s: %d\n", what, rc);
    give_up();
}

static void suspended(libxl__egc *egc, libxl__dom_suspend *it, int rc)
{
    result = rc;
    done = true;
}

static void answered(libxl__egc *egc, libxl__qmp_cmd *cmd, int rc)
{
    result = rc;
    done = true;
}

static int wait_done(int rc)
{
    if (rc) return rc;
    done = false;
    must(libxl__loop_run(loop, &done), "loop");
    return result;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void cycle(int n, libxl__qmp *qmp, libxl__netbuffer *nb, int state_fd)
{
    libxl__qmp_cmd cmd;
    double t = now_ms(), from, u;

#define PART(part) (u = now_ms(), times[part][n] = u - t, t = u)
    libxl__qmp_cmd_init(&cmd);
    cmd.callback = answered;
    cmd.limit_ms = 10000;
    must(wait_done(libxl__dom_suspend_start(&ds)), "suspend");
    from = PART(SUSPEND);
    must(libxl__netbuffer_plug(gc, nb), "plug");
    PART(PLUG);
    if (qmp) {
        must(wait_done(libxl__qmp_stop(qmp, &cmd)), "stop");
        PART(STOP);
        must(wait_done(libxl__qmp_save_state(qmp, &cmd, state_fd, false)), "save");
        PART(SAVE);
        must(wait_done(libxl__qmp_cont(qmp, &cmd)), "cont");
        PART(CONT);
    }
    must(libxl__dom_resume_fast(gc, ds.xch, libxl__loop_xs(loop), ds.domid), "resume");
    times[PAUSE][n] = PART(RESUME) - from;
    must(libxl__netbuffer_release(gc, nb), "release");
    PART(RELEASE);
}

static void check_state(int state_fd)
{
    struct stat st;
    unsigned char magic[8];

    if (fstat(state_fd, &st) || pread(state_fd, magic, 8, 0) != 8 || memcmp(magic, "QEVM", 4))
        must(ERROR_FAIL, "bad device state");
    printf("device state %lld bytes\n", (long long)st.st_size);
}

int main(int argc, char **argv)
{
    libxl__netbuffer *nb = NULL;
    libxl__qmp *qmp = NULL;
    int cycles, state_fd = memfd_create("state", MFD_CLOEXEC);

    if (argc < 3) return 2;
    hvm = !strcmp(argv[2], "hvm");
    cycles = argc > 3 ? atoi(argv[3]) : 20;
    if (cycles < 1 || cycles > MAX_CYCLES) return 2;
    must(libxl__loop_new(&loop, NULL, NULL), "loop");
    gc = libxl__loop_gc(loop);
    libxl__dom_suspend_init(&ds);
    ds.loop = loop;
    ds.xch = xc_interface_open(NULL, NULL, 0);
    ds.domid = (uint32_t)atoi(argv[1]);
    ds.kind = hvm ? GUEST_HVM : GUEST_PVH;
    ds.limit_ms = 60000;
    ds.suspended = suspended;
    must(libxl__dom_suspend_prepare(&ds), "prepare");
    if (hvm) must(libxl__qmp_open(loop, ds.domid, &qmp), "qmp");
    must(libxl__netbuffer_setup(gc, libxl__loop_xs(loop), ds.domid, hvm, 10000000, &nb),
         "netbuffer");
    for (int i = 0; i < cycles; i++) {
        cycle(i, qmp, nb, state_fd);
        usleep(100000);
    }
    if (hvm) check_state(state_fd);
    must(libxl__netbuffer_teardown(gc, nb), "teardown");
    libxl__qmp_close(qmp);
    libxl__dom_suspend_dispose(&ds);
    xc_interface_close(ds.xch);
    libxl__loop_free(loop);
    for (int p = 0; p < PARTS; p++) {
        qsort(times[p], (size_t)cycles, sizeof(double), by_size);
        printf("%-8s median %7.1f  max %7.1f\n", part_names[p], times[p][cycles / 2],
               times[p][cycles - 1]);
    }
    return 0;
}
