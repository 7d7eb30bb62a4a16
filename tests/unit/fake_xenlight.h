/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * A library that stands in for stock libxenlight behind our wrappers: one event source, a pipe, per fake ctx. A byte
 * in the pipe becomes a DOMAIN_SHUTDOWN event at the next afterpoll.
 */
#ifndef FAKE_XENLIGHT_H
#define FAKE_XENLIGHT_H

#include <libxl.h>

struct fake_ctx {
    int source[2];
    int ready; /* events that libxl_event_check hands out */
    int polled, aborted, freed;
    const libxl_event_hooks *hooks;
    void *hooks_user;
};

void fake_ctx_init(struct fake_ctx *fake);
void fake_ctx_dispose(struct fake_ctx *fake);

#endif
