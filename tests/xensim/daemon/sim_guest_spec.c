/* SPDX-License-Identifier: LGPL-2.1-only */
/* The words in which a person describes a guest. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_guest.h"

static bool number(const char *text, uint64_t max, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && end != text && !*end && *text != '-' && *value <= max;
}

/* The index of a word in a list that ends with NULL. */
static bool word(const char *text, const char *const *words, uint32_t *value)
{
    for (*value = 0; words[*value]; (*value)++)
        if (!strcmp(words[*value], text)) return true;
    return false;
}

static bool set_key(struct sim_guest_spec *spec, const char *key, const char *value)
{
    static const char *const choices[] = {"uniform", "zipf", "sequential", NULL};
    static const char *const fills[] = {"full", "sparse", "zero", "same", NULL};
    struct sim_guest_state *s = &spec->state;
    uint64_t n;

    if (!strcmp(key, "rate")) return number(value, 100000000, &s->rate);
    if (!strcmp(key, "pages")) return number(value, SIM_GFNS / 2, &s->pages);
    if (!strcmp(key, "seed")) return number(value, UINT64_MAX, &s->rng);
    if (!strcmp(key, "choice")) return word(value, choices, &s->choice);
    if (!strcmp(key, "fill")) return word(value, fills, &s->fill);
    if (!strcmp(key, "ram")) {
        spec->ram_random = !strcmp(value, "random");
        return spec->ram_random || !strcmp(value, "zero");
    }
    if (!strcmp(key, "words") && number(value, 512, &n) && n) {
        s->words = (uint32_t)n;
        return true;
    }
    if (!strcmp(key, "kv") && number(value, 15872, &n)) {
        s->kv_slots = (uint32_t)n;
        return true;
    }
    return false;
}

int sim_guest_parse(const char *text, struct sim_guest_spec *spec, char *why, size_t why_size)
{
    char copy[256], *save = NULL, *item, *value;

    memset(spec, 0, sizeof(*spec));
    spec->state.stride = 1;
    spec->state.words = 8;
    spec->state.kv_slots = 1024;
    spec->state.rng = 1;
    snprintf(copy, sizeof(copy), "%s", text);
    for (item = strtok_r(copy, ",", &save); item; item = strtok_r(NULL, ",", &save)) {
        value = strchr(item, '=');
        if (value) *value++ = 0;
        if (!value || !set_key(spec, item, value)) {
            snprintf(why, why_size,
                     "guest: '%.60s=%.60s' is not understood; keys are rate, pages, choice "
                     "(uniform, zipf, sequential), fill (full, sparse, zero, same), words, kv, "
                     "ram (random, zero), seed",
                     item, value ? value : "");
            return EINVAL;
        }
    }
    if (spec->state.rate && !spec->state.pages) spec->state.pages = 1024;
    return 0;
}
