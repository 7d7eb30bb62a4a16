/* SPDX-License-Identifier: LGPL-2.1-only */
#include "kv.h"

#include <stdlib.h>
#include <string.h>

/* A power of two, well above KV_ENTRIES_MAX, so that probes stay short. */
#define SLOTS 524288u

static uint32_t slots[SLOTS]; /* index into entries plus 1; 0 is free */
static struct kv_entry *entries[KV_ENTRIES_MAX];
static size_t count, bytes;
static uint64_t last_seq;

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < size; i++)
        hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

static uint64_t entry_sum(const struct kv_entry *entry)
{
    uint64_t hash = hash_bytes(0xcbf29ce484222325u, &entry->seq, sizeof(entry->seq));

    return hash_bytes(hash, entry->text, (size_t)entry->key_len + entry->value_len + 2);
}

/* The slot that holds the key, or the free slot where it belongs. */
static uint32_t *find_slot(const char *key)
{
    uint32_t i = (uint32_t)hash_bytes(0xcbf29ce484222325u, key, strlen(key)) & (SLOTS - 1);

    while (slots[i] && strcmp(entries[slots[i] - 1]->text, key) != 0)
        i = (i + 1) & (SLOTS - 1);
    return &slots[i];
}

static size_t entry_size(size_t key_len, size_t value_len)
{
    return sizeof(struct kv_entry) + key_len + value_len + 2;
}

static struct kv_entry *entry_new(const char *key, const char *value)
{
    size_t key_len = strlen(key), value_len = strlen(value);
    struct kv_entry *entry = malloc(entry_size(key_len, value_len));

    if (!entry) return NULL;
    entry->seq = ++last_seq;
    entry->key_len = (uint16_t)key_len;
    entry->value_len = (uint16_t)value_len;
    memcpy(entry->text, key, key_len + 1);
    memcpy(entry->text + key_len + 1, value, value_len + 1);
    entry->sum = entry_sum(entry);
    return entry;
}

uint64_t kv_set(const char *key, const char *value)
{
    uint32_t *slot = find_slot(key);
    struct kv_entry *entry;

    if (!*slot && count == KV_ENTRIES_MAX) return 0;
    if (bytes + entry_size(strlen(key), strlen(value)) > KV_BYTES_MAX) return 0;
    entry = entry_new(key, value);
    if (!entry) return 0;
    bytes += entry_size(entry->key_len, entry->value_len);
    if (!*slot) {
        entries[count++] = entry;
        *slot = (uint32_t)count;
        return entry->seq;
    }
    bytes -= entry_size(entries[*slot - 1]->key_len, entries[*slot - 1]->value_len);
    free(entries[*slot - 1]);
    entries[*slot - 1] = entry;
    return entry->seq;
}

const char *kv_get(const char *key)
{
    uint32_t *slot = find_slot(key);

    return *slot ? kv_entry_value(entries[*slot - 1]) : NULL;
}

size_t kv_count(void)
{
    return count;
}

const struct kv_entry *kv_at(size_t i)
{
    return entries[i];
}

const char *kv_entry_value(const struct kv_entry *entry)
{
    return entry->text + entry->key_len + 1;
}

size_t kv_bad(void)
{
    size_t bad = 0;

    for (size_t i = 0; i < count; i++)
        if (entries[i]->sum != entry_sum(entries[i])) bad++;
    return bad;
}
