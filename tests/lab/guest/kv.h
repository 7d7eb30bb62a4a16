/* SPDX-License-Identifier: LGPL-2.1-only */
/* The key-value table of the test guest: in memory only, bounded, checksummed. */
#ifndef XTGUEST_KV_H
#define XTGUEST_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KV_KEY_MAX = 64,
    KV_VALUE_MAX = 256,
    KV_ENTRIES_MAX = 200000,
    KV_BYTES_MAX = 24 * 1024 * 1024,
};

struct kv_entry {
    uint64_t seq;
    uint64_t sum;
    uint16_t key_len, value_len;
    char text[]; /* key, NUL, value, NUL */
};

/* Stores a pair and returns its sequence number, or 0 when the table is full. */
uint64_t kv_set(const char *key, const char *value);
/* The value, valid until the next kv_set, or NULL. */
const char *kv_get(const char *key);
size_t kv_count(void);
/* The i-th pair in order of first insertion; i < kv_count(). */
const struct kv_entry *kv_at(size_t i);
const char *kv_entry_value(const struct kv_entry *entry);
/* How many entries no longer match their checksum. */
size_t kv_bad(void);

#endif
