/* SPDX-License-Identifier: LGPL-2.1-only */
#include "commands.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chatter.h"
#include "dirtier.h"
#include "kv.h"
#include "screen.h"

enum { WORDS_MAX = 3, DEFAULT_SET_PAGES = 1024 };
enum { TAG_BYTES_MAX = 24, ANSWER_BYTES_MAX = LINE_BYTES_MAX - TAG_BYTES_MAX - 1 };

uint64_t guest_tick, guest_id;

/* Every answer fits: it is shorter than LINE_BYTES_MAX less the longest tag. */
#define ANSWER(...) ((void)snprintf(answer, ANSWER_BYTES_MAX, __VA_ARGS__))

static int parse_number(const char *text, unsigned int *value)
{
    char *end = NULL;
    unsigned long n;

    if (!text || *text < '0' || *text > '9') return -1;
    errno = 0;
    n = strtoul(text, &end, 10);
    if (errno || *end || n > 1000000000u) return -1;
    *value = (unsigned int)n;
    return 0;
}

static void run_set(char **word, char *answer)
{
    uint64_t seq;

    if (!word[1] || !word[2]) {
        ANSWER("ERR SET wants a key and a value\n");
        return;
    }
    if (strlen(word[1]) > KV_KEY_MAX || strlen(word[2]) > KV_VALUE_MAX) {
        ANSWER("ERR key or value too long\n");
        return;
    }
    seq = kv_set(word[1], word[2]);
    if (seq)
        ANSWER("OK %" PRIu64 "\n", seq);
    else
        ANSWER("ERR table full\n");
}

static void run_get(char **word, char *answer)
{
    const char *value = word[1] ? kv_get(word[1]) : NULL;

    if (!word[1])
        ANSWER("ERR GET wants a key\n");
    else if (value)
        ANSWER("VAL %s\n", value);
    else
        ANSWER("NONE\n");
}

static void run_dirty(char **word, char *answer)
{
    unsigned int rate, pages = (unsigned int)dirtier_pages();

    if (!pages) pages = DEFAULT_SET_PAGES;
    if (parse_number(word[1], &rate) || (word[2] && parse_number(word[2], &pages)))
        ANSWER("ERR DIRTY wants pages per second and, if wished, pages of working set\n");
    else if (dirtier_set(rate, pages))
        ANSWER("ERR dirtier: %s\n", strerror(errno));
    else
        ANSWER("OK\n");
}

static void run_chatter(char **word, char *answer)
{
    unsigned int interval_ms;

    if (parse_number(word[1], &interval_ms))
        ANSWER("ERR CHATTER wants milliseconds, 0 for none\n");
    else if (chatter_set(interval_ms))
        ANSWER("ERR chatter: %s\n", strerror(errno));
    else
        ANSWER("OK\n");
}

static void run_screen(char **word, char *answer)
{
    unsigned int rate;
    uint32_t sum;

    if (word[1] && !strcmp(word[1], "SUM")) {
        if (screen_sum(&sum))
            ANSWER("ERR screen: %s\n", strerror(errno));
        else
            ANSWER("SUM %" PRIu32 "\n", sum);
    } else if (parse_number(word[1], &rate)) {
        ANSWER("ERR SCREEN wants lines per second, or SUM\n");
    } else if (screen_set(rate)) {
        ANSWER("ERR screen: %s\n", strerror(errno));
    } else {
        ANSWER("OK\n");
    }
}

static void run_check(char *answer)
{
    size_t first = 0, bad = dirtier_check(&first), bad_entries = kv_bad(), bad_lines = screen_bad();

    if (bad || bad_entries || bad_lines)
        ANSWER("CHECK BAD pages=%zu first=%zu entries=%zu lines=%zu\n", bad, first, bad_entries,
               bad_lines);
    else
        ANSWER("CHECK OK pages=%zu gen=%" PRIu64 " entries=%zu\n", dirtier_pages(),
               dirtier_generation(), kv_count());
}

static enum action run_line(char *line, char *answer)
{
    char *word[WORDS_MAX + 1] = {NULL}, *rest = line;
    const char *verb;

    for (int i = 0; i < WORDS_MAX; i++)
        word[i] = i < WORDS_MAX - 1 ? strtok_r(rest, " \r\t", &rest) : strtok_r(rest, "\r", &rest);
    verb = word[0] ? word[0] : "";
    *answer = '\0';
    if (!strcmp(verb, "SET"))
        run_set(word, answer);
    else if (!strcmp(verb, "GET"))
        run_get(word, answer);
    else if (!strcmp(verb, "COUNT"))
        ANSWER("%zu\n", kv_count());
    else if (!strcmp(verb, "TICK"))
        ANSWER("%" PRIu64 "\n", guest_tick);
    else if (!strcmp(verb, "ID"))
        ANSWER("ID %016" PRIx64 "\n", guest_id);
    else if (!strcmp(verb, "DIRTY"))
        run_dirty(word, answer);
    else if (!strcmp(verb, "CHATTER"))
        run_chatter(word, answer);
    else if (!strcmp(verb, "SCREEN"))
        run_screen(word, answer);
    else if (!strcmp(verb, "CHECK"))
        run_check(answer);
    else if (!strcmp(verb, "DUMP"))
        return ACTION_DUMP;
    else if (!strcmp(verb, "QUIT"))
        return ACTION_QUIT;
    else {
        bool off = !strcmp(verb, "POWEROFF");

        if (off || !strcmp(verb, "REBOOT")) {
            ANSWER("OK\n");
            return off ? ACTION_POWEROFF : ACTION_REBOOT;
        }
        ANSWER("ERR unknown command\n");
    }
    return ACTION_NONE;
}

enum action command_run(char *line, char *answer)
{
    size_t tag = 0;
    enum action action;

    if (*line == '#') tag = strcspn(line, " ") + 1;
    if (tag > TAG_BYTES_MAX || tag > strlen(line)) {
        ANSWER("ERR a tag is # and at most 22 characters, then a command\n");
        return ACTION_NONE;
    }
    memcpy(answer, line, tag);
    action = run_line(line + tag, answer + tag);
    if (!answer[tag]) *answer = '\0';
    return action;
}
