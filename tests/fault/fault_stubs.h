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

/* The user asks the operation to end. */
void stub_abort(void);

#endif
