/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What an administrator may change of a protected guest, from the outside: the twin was made of the
 * configuration as it was at the start.
 *
 *   xl mem-set    the twin is told (MEMORY frame); the pages themselves come and go with the checkpoints
 *   xl vcpu-set   of an HVM guest: its QEMU has other CPUs from then on than the twin's, which could not
 *                 read its state any more, so the protection ends. PVH: the twin's guest has them all,
 *                 and goes back to the number it was protected with
 *
 * Its devices are libxl_remus_devices.c's business.
 */
#include "libxl_remus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any guest has. */
#define KB_MAX (1ull << 40)

static bool read_kb(libxl__remus *rm, const char *node, uint64_t *kb)
{
    char path[64], *text, *end = NULL;
    unsigned len;

    snprintf(path, sizeof(path), "/local/domain/%u/memory/%s", rm->domid, node);
    text = xs_read(libxl__loop_xs(rm->loop), XBT_NULL, path, &len);
    *kb = text && *text >= '0' && *text <= '9' ? strtoull(text, &end, 10) : KB_MAX;
    if (end && *end) *kb = KB_MAX;
    free(text);
    return *kb < KB_MAX;
}

/* What mem-set was given: libxl takes the memory of the graphics card off. */
static void memory_changed(libxl__egc *egc, libxl__ev_xswatch *ev, const char *watchpath,
                           const char *eventpath)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, memory_watch);
    uint64_t kb, video;

    if (libxl__epoch_undoing(&rm->epoch) || rm->peer_lost || !read_kb(rm, "target", &kb)) return;
    if (read_kb(rm, "videoram", &video)) kb += video;
    if (!kb || kb == rm->target_kb) return;
    rm->target_kb = kb;
    LOG(rm->gc, DEBUG, "domain %u: its memory is to be %lu KiB", rm->domid, (unsigned long)kb);
    if (libxl__channel_send(&rm->channel, CHANNEL_MEMORY, kb, NULL, 0))
        libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
}

unsigned remus_online_vcpus(struct xs_handle *xs, uint32_t domid)
{
    unsigned n = 0, i, len, online = 0;
    char path[48], **names, node[128], *text;

    snprintf(path, sizeof(path), "/local/domain/%u/cpu", domid);
    names = xs_directory(xs, XBT_NULL, path, &n);
    for (i = 0; names && i < n; i++) {
        snprintf(node, sizeof(node), "%s/%.16s/availability", path, names[i]);
        text = xs_read(xs, XBT_NULL, node, &len);
        online += text && !strcmp(text, "online");
        free(text);
    }
    free(names);
    return online;
}

static void vcpus_changed(libxl__egc *egc, libxl__ev_xswatch *ev, const char *watchpath,
                          const char *eventpath)
{
    libxl__remus *rm = CONTAINER_OF(ev, libxl__remus, vcpu_watch);
    unsigned n = remus_online_vcpus(libxl__loop_xs(rm->loop), rm->domid);

    if (!n || n == rm->vcpus || libxl__epoch_undoing(&rm->epoch)) return;
    remus_message(rm,
                  "domain %u: it has %u vcpus now, not %u, and its twin has not: protection ends, "
                  "start it again",
                  rm->domid, n, rm->vcpus);
    libxl__epoch_interrupt(egc, &rm->epoch, ERROR_FAIL);
}

int remus_watch_settings(libxl__remus *rm)
{
    if (!rm->info.acknowledged) return 0;
    return libxl__ev_xswatch_register(
        rm->loop, &rm->memory_watch, memory_changed,
        libxl__sprintf(rm->gc, "/local/domain/%u/memory/target", rm->domid));
}

/* From the start on: the disks may take hours, and the twin's QEMU is made of the configuration of before. */
int remus_watch_vcpus(libxl__remus *rm)
{
    if (rm->kind != GUEST_HVM) return 0;
    return libxl__ev_xswatch_register(rm->loop, &rm->vcpu_watch, vcpus_changed,
                                      libxl__sprintf(rm->gc, "/local/domain/%u/cpu", rm->domid));
}

void remus_unwatch_settings(libxl__remus *rm)
{
    libxl__ev_xswatch_deregister(rm->loop, &rm->memory_watch);
    libxl__ev_xswatch_deregister(rm->loop, &rm->vcpu_watch);
}
