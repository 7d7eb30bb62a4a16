/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What every made-up world under the Remus plan answers in the same way: the operation, hypervisor calls that always work, an
 * empty xenstore. The world itself has the functions of the first group.
 */
#ifndef FAULT_STUBS_H
#define FAULT_STUBS_H

#include <stdbool.h>

#include "libxl_ao.h"

libxl__loop *stub_loop(void); /* of the operation */
void stub_completed(int rc);
bool stub_guest_is_hvm(void);

/* xl vcpu-set, if anybody cares. */
void stub_set_vcpus(unsigned n);
/* xl block-attach and the like. It begins with "vif/0" and "vbd/5632". */
void stub_attach(const char *device, const char *backend);
void stub_detach(const char *device);
/* Its interface's number in the kernel; 0: there is none. */
void stub_set_interface(unsigned index);
/* Something below its devices was written, as for a CD-ROM's medium. */
void stub_touch_devices(void);

/* The user asks the operation to end. */
void stub_abort(void);

#endif
