/* SPDX-License-Identifier: LGPL-2.1-only */
#include "drbd_text.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_OCTETS 512

/* The next line, shortened if it is too long to be one of DRBD's; false at the end. */
static bool next_line(const char **text, char line[LINE_MAX_OCTETS])
{
    size_t n, keep;

    if (!**text) return false;
    n = strcspn(*text, "\n");
    keep = n < LINE_MAX_OCTETS ? n : LINE_MAX_OCTETS - 1;
    memcpy(line, *text, keep);
    line[keep] = 0;
    *text += n + ((*text)[n] == '\n');
    return true;
}

/* Letters up to the end or one of `stops`; where it stopped, or NULL when there is no word or it is too long. */
static const char *take_word(char out[DRBD_WORD_MAX], const char *p, const char *stops)
{
    size_t n = 0;

    while (isalpha((unsigned char)p[n]))
        n++;
    if (!n || n >= DRBD_WORD_MAX || (p[n] && !strchr(stops, p[n]))) return NULL;
    memcpy(out, p, n);
    out[n] = 0;
    return p + n;
}

static bool take_number(uint64_t *out, const char *p, const char **end)
{
    char *stop;

    if (!isdigit((unsigned char)*p)) return false;
    errno = 0;
    *out = strtoull(p, &stop, 10);
    *end = stop;
    return !errno;
}

/* " ro:Primary/Secondary": both words behind `key`. */
static bool take_pair(char a[DRBD_WORD_MAX], char b[DRBD_WORD_MAX], const char *line,
                      const char *key)
{
    const char *p = strstr(line, key);

    if (!p) return false;
    p = take_word(a, p + strlen(key), "/");
    if (!p || *p != '/') return false;
    return take_word(b, p + 1, " ") != NULL;
}

/* " 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----" */
static bool take_states(struct drbd_status *s, const char *rest)
{
    const char *p;

    if (strncmp(rest, " cs:", 4) || !take_word(s->connection, rest + 4, " ")) return false;
    if (!strcmp(s->connection, "Unconfigured")) return true;
    if (!take_pair(s->role, s->peer_role, rest, " ro:") ||
        !take_pair(s->disk, s->peer_disk, rest, " ds:"))
        return false;
    p = strstr(rest, " ds:") + 4;
    p = strchr(p, ' ');
    if (p && strchr("ABC", p[1]) && p[1] && p[2] == ' ') s->protocol = p[1];
    return true;
}

bool drbd_status_parse(struct drbd_status *s, const char *text, unsigned minor)
{
    char line[LINE_MAX_OCTETS];
    bool found = false;
    const char *p, *end;
    uint64_t n;

    memset(s, 0, sizeof(*s));
    while (next_line(&text, line)) {
        p = line + strspn(line, " ");
        if (take_number(&n, p, &end) && *end == ':') {
            if (found) break;
            found = n == minor;
            if (found && !take_states(s, end + 1)) return false;
            continue;
        }
        p = found ? strstr(line, " oos:") : NULL;
        if (p && !take_number(&s->out_of_sync, p + 5, &end)) return false;
    }
    return found;
}

/* The value of a line "key  value;  # comment", without quotes. */
static bool setting(const char *line, const char *key, char *out, size_t size)
{
    const char *p = line + strspn(line, " \t");
    size_t n = strlen(key);

    if (strncmp(p, key, n) || !strchr(" \t", p[n])) return false;
    p += n + strspn(p + n, " \t");
    n = strcspn(p, ";");
    if (!p[n]) return false;
    if (n >= 2 && p[0] == '"' && p[n - 1] == '"') {
        p++;
        n -= 2;
    }
    if (n >= size || memchr(p, '"', n)) return false;
    memcpy(out, p, n);
    out[n] = 0;
    return true;
}

bool drbd_config_parse(struct drbd_config *c, const char *text)
{
    char line[LINE_MAX_OCTETS], value[DRBD_PATH_MAX];
    bool minor = false;
    const char *p, *end;
    uint64_t n;

    memset(c, 0, sizeof(*c));
    while (next_line(&text, line)) {
        p = line + strspn(line, " \t");
        if (!strncmp(p, "volume ", 7) && strchr(p, '{')) {
            c->volumes++;
        } else if (setting(line, "device", value, sizeof(value))) {
            minor = !strncmp(value, "minor", 5) &&
                    take_number(&n, value + 5 + strspn(value + 5, " \t"), &end) && !*end &&
                    n < 1u << 20;
            if (!minor) return false;
            c->minor = (unsigned)n;
        } else if (setting(line, "protocol", value, sizeof(value))) {
            if (strlen(value) != 1 || !strchr("ABC", value[0])) return false;
            c->protocol = value[0];
        } else if (setting(line, "allow-two-primaries", value, sizeof(value))) {
            c->two_primaries = strcmp(value, "no") != 0;
        } else if (setting(line, "fencing", value, sizeof(value))) {
            c->fencing = strcmp(value, "dont-care") != 0;
        } else if (setting(line, "disk", value, sizeof(value))) {
            snprintf(c->backing, sizeof(c->backing), "%s", value);
        }
    }
    return minor && c->volumes;
}

bool drbd_generation_parse(uint64_t *generation, const char *text)
{
    char *end;

    if (strspn(text, "0123456789ABCDEFabcdef") != 16 || text[16] != ':') return false;
    *generation = strtoull(text, &end, 16) & ~UINT64_C(1);
    return *generation != 0;
}

bool drbd_history_parse(char out[DRBD_HISTORY_SIZE], const char *text)
{
    for (int i = 0; i < DRBD_HISTORY_SIZE - 1; i++) {
        if (i % 17 == 16 ? text[i] != ':' : !isxdigit((unsigned char)text[i])) return false;
        out[i] = text[i];
    }
    out[DRBD_HISTORY_SIZE - 1] = 0;
    return true;
}

bool drbd_status_mirrored(const struct drbd_status *s)
{
    return !strcmp(s->connection, "Connected") && !strcmp(s->disk, "UpToDate") &&
           !strcmp(s->peer_disk, "UpToDate") && s->protocol == 'C' && !s->out_of_sync;
}
