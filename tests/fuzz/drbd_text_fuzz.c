/* SPDX-License-Identifier: LGPL-2.1-only */
/* Whatever DRBD and the device mapper say, the parsers stay within it, and what they take is bounded. First octet: which parser. */
#include <stdlib.h>
#include <string.h>

#include "drbd_dm.h"
#include "drbd_text.h"
#include "fuzz.h"

static void word_fine(const char word[DRBD_WORD_MAX])
{
    if (!memchr(word, 0, DRBD_WORD_MAX)) abort();
}

static void try_status(const char *text, unsigned minor)
{
    struct drbd_status s;

    if (!drbd_status_parse(&s, text, minor)) return;
    word_fine(s.connection);
    word_fine(s.role);
    word_fine(s.peer_disk);
    if (!s.connection[0] || (s.protocol && !strchr("ABC", s.protocol))) abort();
    if (drbd_status_mirrored(&s) && (s.protocol != 'C' || s.out_of_sync)) abort();
}

static void try_config(const char *text)
{
    struct drbd_config c;

    if (!drbd_config_parse(&c, text)) return;
    if (!c.volumes || c.minor >= 1u << 20 || !memchr(c.backing, 0, sizeof(c.backing))) abort();
}

static void try_mapper(const char *text)
{
    char why[DRBD_WHY_MAX] = "";
    uint32_t id;
    dev_t pool;

    if (drbd_dm_parse_thin(text, &pool, &id) && id > DRBD_DM_ID_MAX) abort();
    if (!drbd_dm_parse_pool(text, why) && !why[0]) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char history[DRBD_HISTORY_SIZE], *text;
    uint64_t generation;

    if (!size) return 0;
    text = malloc(size);
    if (!text) abort();
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    switch (data[0] & 3) {
    case 0:
        try_status(text, data[0] >> 2);
        break;
    case 1:
        try_config(text);
        break;
    case 2:
        if (drbd_generation_parse(&generation, text) && (generation & 1)) abort();
        if (drbd_history_parse(history, text) && strlen(history) != sizeof(history) - 1) abort();
        break;
    default:
        try_mapper(text);
    }
    free(text);
    return 0;
}
