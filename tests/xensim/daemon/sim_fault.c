/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim_fault.h"
#include "sim_hypercall.h"

#define RULES 16
#define NAMES 192
#define DELAY_MAX_MS 60000

struct rule {
    bool used, always;
    char name
        [SIM_NAME_MAX]; /* "any" = every request; a name may be the beginning of what it matches, before a dot */
    char comm[16]; /* "" = everybody */
    enum sim_deed deed;
    uint64_t n, matches, done;
    int value; /* errno, ms */
};

struct count {
    char name[SIM_NAME_MAX];
    uint64_t calls;
    bool missing; /* was told in the log */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES];
static struct count counts[NAMES];

static void count_call(const char *name)
{
    unsigned int i;

    for (i = 0; i < NAMES; i++) {
        if (!counts[i].name[0]) snprintf(counts[i].name, sizeof(counts[i].name), "%s", name);
        if (strcmp(counts[i].name, name)) continue;
        counts[i].calls++;
        return;
    }
}

bool sim_count_missing(const char *name)
{
    bool first = false;
    unsigned int i;

    pthread_mutex_lock(&lock);
    for (i = 0; i < NAMES; i++)
        if (!strcmp(counts[i].name, name)) {
            first = !counts[i].missing;
            counts[i].missing = true;
        }
    pthread_mutex_unlock(&lock);
    return first;
}

static bool name_matches(const char *rule, const char *name)
{
    size_t len = strlen(rule);

    if (!strcmp(rule, "any")) return true;
    return !strncmp(rule, name, len) && (!name[len] || name[len] == '.');
}

/* Under the lock: the rule whose time has come. */
static struct rule *due(const struct sim_caller *c, const char *name)
{
    struct rule *found = NULL;
    unsigned int i;

    for (i = 0; i < RULES; i++) {
        struct rule *r = &rules[i];

        if (!r->used || !name_matches(r->name, name)) continue;
        if (r->comm[0] && strcmp(r->comm, c->comm)) continue;
        r->matches++;
        if (found || (r->matches != r->n && !(r->always && r->matches > r->n))) continue;
        r->done++;
        found = r;
    }
    return found;
}

static void sleep_ms(int ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

    while (nanosleep(&ts, &ts) && errno == EINTR)
        ;
}

int64_t sim_fault_check(struct sim_caller *c, const char *name)
{
    struct rule rule = {0}, *r;

    pthread_mutex_lock(&lock);
    count_call(name);
    r = due(c, name);
    if (r) rule = *r;
    pthread_mutex_unlock(&lock);
    if (!r) return 0;
    fprintf(stderr, "xensimd: fault at %s of %s (%d), match %lu\n", name, c->comm, (int)c->pid,
            (unsigned long)rule.matches);
    switch (rule.deed) {
    case SIM_FAIL:
        return -rule.value;
    case SIM_DELAY:
        sleep_ms(rule.value);
        return 0;
    case SIM_CORRUPT:
        c->corrupt = 0x9e3779b97f4a7c15ULL * (rule.matches + 1) | 1;
        return 0;
    case SIM_KILL:
    default:
        kill(c->pid, SIGKILL);
        return -EIO;
    }
}

static bool parse_number(const char *text, uint64_t max, uint64_t *value)
{
    char *end;

    errno = 0;
    *value = strtoull(text, &end, 10);
    return !errno && end != text && !*end && *text != '-' && *value <= max;
}

static bool parse_word(struct rule *r, const char *word, bool *deed)
{
    uint64_t value = 0;

    if (!strncmp(word, "n=", 2)) return parse_number(word + 2, UINT64_MAX, &r->n) && r->n;
    if (!strncmp(word, "comm=", 5)) {
        snprintf(r->comm, sizeof(r->comm), "%s", word + 5);
        return true;
    }
    if (!strcmp(word, "always")) return r->always = true;
    if (*deed) return false;
    *deed = true;
    if (!strncmp(word, "fail=", 5)) {
        r->deed = SIM_FAIL;
        if (!parse_number(word + 5, 4095, &value) || !value) return false;
    } else if (!strncmp(word, "delay=", 6)) {
        r->deed = SIM_DELAY;
        if (!parse_number(word + 6, DELAY_MAX_MS, &value)) return false;
    } else if (!strcmp(word, "corrupt")) {
        r->deed = SIM_CORRUPT;
    } else if (!strcmp(word, "kill")) {
        r->deed = SIM_KILL;
    } else {
        return false;
    }
    r->value = (int)value;
    return true;
}

static bool parse_rule(const char *text, struct rule *r)
{
    char copy[256], *save = NULL, *word;
    bool deed = false;

    snprintf(copy, sizeof(copy), "%s", text);
    word = strtok_r(copy, " ", &save);
    if (!word || strlen(word) >= sizeof(r->name)) return false;
    strcpy(r->name, word);
    r->n = 1;
    while ((word = strtok_r(NULL, " ", &save)))
        if (!parse_word(r, word, &deed)) return false;
    return deed;
}

int sim_fault_add(const char *text, char *why, size_t why_size)
{
    struct rule r = {.used = true};
    int i;

    if (!parse_rule(text, &r)) {
        snprintf(why, why_size,
                 "fault: '%.100s' is not NAME n=N [comm=PROGRAM] "
                 "fail=ERRNO|delay=MS|corrupt|kill [always]",
                 text);
        return -1;
    }
    pthread_mutex_lock(&lock);
    for (i = 0; i < RULES && rules[i].used; i++)
        ;
    if (i < RULES) rules[i] = r;
    pthread_mutex_unlock(&lock);
    if (i < RULES) return i;
    snprintf(why, why_size, "fault: there are %d rules already, clear them first", RULES);
    return -1;
}

void sim_fault_clear(void)
{
    pthread_mutex_lock(&lock);
    memset(rules, 0, sizeof(rules));
    pthread_mutex_unlock(&lock);
}

void sim_fault_list(char *out, size_t size)
{
    size_t at = 0;
    int i;

    *out = 0;
    pthread_mutex_lock(&lock);
    for (i = 0; i < RULES && at < size; i++)
        if (rules[i].used)
            at += (size_t)snprintf(out + at, size - at, "%d %s n=%lu matches=%lu done=%lu\n", i,
                                   rules[i].name, (unsigned long)rules[i].n,
                                   (unsigned long)rules[i].matches, (unsigned long)rules[i].done);
    pthread_mutex_unlock(&lock);
}

void sim_count_list(char *out, size_t size)
{
    size_t at = 0;
    unsigned int i;

    *out = 0;
    pthread_mutex_lock(&lock);
    for (i = 0; i < NAMES && counts[i].name[0] && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%lu %s\n", (unsigned long)counts[i].calls,
                               counts[i].name);
    pthread_mutex_unlock(&lock);
}

void sim_count_clear(void)
{
    pthread_mutex_lock(&lock);
    memset(counts, 0, sizeof(counts));
    pthread_mutex_unlock(&lock);
}
