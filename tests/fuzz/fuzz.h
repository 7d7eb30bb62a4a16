/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * Every harness <name>_fuzz.c defines this one function. With libFuzzer (`make fuzz`) it is called with inputs that the fuzzer
 * makes; in `make check` replay.c calls it with the files of corpus/<name>.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <xentoollog.h>

/* Every second input is wrong, and nobody wants to read that. */
static inline void fuzz_vmessage(xentoollog_logger *lg, xentoollog_level level, int errnoval,
                                 const char *context, const char *format, va_list al)
{
}

static inline xentoollog_logger *fuzz_logger(void)
{
    static xentoollog_logger quiet = {fuzz_vmessage, NULL, NULL};

    return &quiet;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
