/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Every harness <name>_fuzz.c defines this one function. With libFuzzer (`make fuzz`) it is called with inputs that the fuzzer
 * makes; in `make check` replay.c calls it with the files of corpus/<name>.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
