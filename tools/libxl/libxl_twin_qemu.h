/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The QEMU of a warm twin, which was started with "-incoming defer": it has the guest's devices but
 * no state, opens no image for writing and touches no memory until it is given the state of the
 * checkpoint that is to run.
 *
 *   twin_qemu_await         QEMU answers; libxl, which waits for a QEMU that runs, is told so
 *   twin_qemu_clean_config  the two words are taken out of the configuration that libxl keeps
 *   twin_qemu_take_state    what QEMU on the primary wrote, into memory
 *   twin_qemu_load          QEMU reads it and runs
 *
 * libxl has no public way to start a device model with arguments that it does not keep, and none to change what it
 * keeps: it asks programs to leave "libxl-json" alone. The others were worse: a wrapper named by device_model_override is
 * kept as well, and then needed on every host to which the guest moves; one that is mounted over QEMU for the stock receiver
 * also serves the reboots that this receiver looks after. The domain is paused and nobody knows it yet, so
 * reading, changing and storing it, each under libxl's own lock, has no competitor; if it fails, a line says what follows.
 *
 * Used by xentwin-apply: everything waits, each with a limit. 0, or -1 after it was logged.
 */
#ifndef LIBXL_TWIN_QEMU_H
#define LIBXL_TWIN_QEMU_H

#include <stdint.h>
#include <xenstore.h>
#include <xentoollog.h>

#include "xc_sr_io.h"

struct twin_qemu {
    /* caller fills, borrowed */
    xentoollog_logger *lg;
    struct xs_handle *xs;
    uint32_t domid;
    int state_fd; /* own: -1 at first */
};

int64_t twin_qemu_now_ms(void);
int twin_qemu_await(struct twin_qemu *q);
void twin_qemu_clean_config(struct twin_qemu *q);
int twin_qemu_take_state(struct twin_qemu *q, struct xc_sr_io *io, uint64_t len);
int twin_qemu_load(struct twin_qemu *q);
void twin_qemu_dispose(struct twin_qemu *q);

/*
 * The configuration of a guest whose twin is to be warm, as libxl's JSON: with the two words, or
 * without. malloc'ed; NULL when it cannot be done (logged).
 */
char *twin_qemu_config(xentoollog_logger *lg, const char *json, int with);

#endif
