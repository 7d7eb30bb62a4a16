/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "xl_progress.h"

/* A line drawn more often than this is not read. */
#define REDRAW_MS 100

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int terminal_width(FILE *out)
{
    struct winsize ws;

    if (ioctl(fileno(out), TIOCGWINSZ, &ws) || ws.ws_col < 20) return 80;
    return ws.ws_col;
}

void xl_progress_format(char *out, size_t size, int width, const char *domain, const char *peer,
                        const libxl_checkpoint_stats *stats, double mb_per_s)
{
    char fields[7][80];
    size_t i, used, limit = size - 1;

    if (width > 0 && (size_t)width - 1 < limit) limit = (size_t)width - 1;
    snprintf(fields[0], sizeof(fields[0]), "epoch %" PRIu64, stats->epoch);
    snprintf(fields[1], sizeof(fields[1]), "pause %.1f ms", (double)stats->pause_us / 1000);
    snprintf(fields[2], sizeof(fields[2]), "%" PRIu64 " pages", stats->pages);
    snprintf(fields[3], sizeof(fields[3]), "%.1f MB/s", mb_per_s);
    snprintf(fields[4], sizeof(fields[4]), "unacked %" PRIu64, stats->unacked);
    snprintf(fields[5], sizeof(fields[5]), "hold %.0f ms", (double)stats->hold_us / 1000);
    if (stats->dropped_packets)
        snprintf(fields[6], sizeof(fields[6]), "dropped %" PRIu64, stats->dropped_packets);
    else
        fields[6][0] = '\0';

    snprintf(out, limit + 1, "%s -> %s", domain, peer);
    used = strlen(out);
    for (i = 0; i < sizeof(fields) / sizeof(fields[0]) && fields[i][0]; i++) {
        size_t len = strlen(fields[i]) + 2;

        if (used + len > limit) break;
        used += (size_t)snprintf(out + used, size - used, "  %s", fields[i]);
    }
}

void xl_stats_format(char *out, size_t size, const libxl_checkpoint_stats *stats)
{
    snprintf(out, size,
             "{\"epoch\":%" PRIu64 ",\"pause_us\":%" PRIu64 ",\"suspend_us\":%" PRIu64
             ",\"hold_us\":%" PRIu64 ",\"ack_us\":%" PRIu64 ",\"bytes\":%" PRIu64
             ",\"pages\":%" PRIu64 ",\"device_bytes\":%" PRIu64 ",\"unacked\":%" PRIu64
             ",\"held_packets\":%" PRIu64 ",\"held_bytes\":%" PRIu64 ",\"dropped_packets\":%" PRIu64
             ",\"released_us\":%" PRIu64 "}",
             stats->epoch, stats->pause_us, stats->suspend_us, stats->hold_us, stats->ack_us,
             stats->bytes, stats->pages, stats->device_bytes, stats->unacked, stats->held_packets,
             stats->held_bytes, stats->dropped_packets, stats->released_us);
}

/* Takes the progress line off the terminal. Called with the lock held, as are all below until
 * stated. */
static void wipe(struct xl_progress *p)
{
    if (p->terminal && p->line[0]) fputs("\r\033[K", p->out);
}

static void redraw(struct xl_progress *p)
{
    if (p->terminal && p->line[0]) fputs(p->line, p->out);
    fflush(p->out);
}

static void put_line(struct xl_progress *p, const char *prefix, const char *text)
{
    char stamp[32] = "";

    if (p->timestamps) {
        time_t t = time(NULL);
        struct tm tm;

        strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S ", localtime_r(&t, &tm));
    }
    wipe(p);
    fprintf(p->out, "%s%s%s\n", stamp, prefix, text);
    redraw(p);
}

/* The public side: each takes the lock itself. */

void xl_progress_line(struct xl_progress *p, const char *fmt, ...)
{
    char text[1024];
    va_list al;

    va_start(al, fmt);
    vsnprintf(text, sizeof(text), fmt, al);
    va_end(al);
    pthread_mutex_lock(&p->lock);
    put_line(p, "", text);
    pthread_mutex_unlock(&p->lock);
}

static void log_message(xentoollog_logger *logger, xentoollog_level level, int errnoval,
                        const char *context, const char *fmt, va_list al)
    __attribute__((format(printf, 5, 0)));

static void log_message(xentoollog_logger *logger, xentoollog_level level, int errnoval,
                        const char *context, const char *fmt, va_list al)
{
    struct xl_progress *p = (struct xl_progress *)logger;
    char text[1024], prefix[96];
    size_t len;

    if (level < p->level) return;
    vsnprintf(text, sizeof(text), fmt, al);
    len = strlen(text);
    if (errnoval >= 0) snprintf(text + len, sizeof(text) - len, ": %s", strerror(errnoval));
    snprintf(prefix, sizeof(prefix), "%s%s%s: ", context ? context : "", context ? ": " : "",
             xtl_level_to_string(level));
    pthread_mutex_lock(&p->lock);
    put_line(p, prefix, text);
    pthread_mutex_unlock(&p->lock);
}

/* What libxl would show of itself is on the progress line already. */
static void log_progress(xentoollog_logger *logger, const char *context, const char *doing_what,
                         int percent, unsigned long done, unsigned long total)
{
    (void)logger;
    (void)context;
    (void)doing_what;
    (void)percent;
    (void)done;
    (void)total;
}

static void log_destroy(xentoollog_logger *logger)
{
    /* The object is its owner's. */
    (void)logger;
}

void xl_progress_init(struct xl_progress *p, FILE *out, const char *domain, const char *peer,
                      int verbosity)
{
    memset(p, 0, sizeof(*p));
    p->logger.vmessage = log_message;
    p->logger.progress = log_progress;
    p->logger.destroy = log_destroy;
    /* What the library says at the level of INFO comes as a message, too. */
    p->level = XTL_NOTICE;
    if (verbosity > 0)
        p->level =
            verbosity < XTL_PROGRESS - XTL_DEBUG ? XTL_PROGRESS - (unsigned)verbosity : XTL_DEBUG;
    p->out = out;
    p->terminal = isatty(fileno(out));
    p->domain = domain;
    p->peer = peer;
    pthread_mutex_init(&p->lock, NULL);
}

bool xl_progress_open_stats(struct xl_progress *p, const char *path)
{
    p->stats = fopen(path, "we");
    return p->stats != NULL;
}

static void write_stats(struct xl_progress *p, const libxl_checkpoint_stats *stats)
{
    char json[640];

    if (!p->stats) return;
    xl_stats_format(json, sizeof(json), stats);
    if (fprintf(p->stats, "%s\n", json) > 0 && !fflush(p->stats)) return;
    /* A full disk must not end the protection. */
    put_line(p, "cannot write the statistics any more: ", strerror(errno));
    fclose(p->stats);
    p->stats = NULL;
}

void xl_progress_checkpoint(struct xl_progress *p, const libxl_checkpoint_stats *stats)
{
    int64_t now = now_ms(), since;
    double mb_per_s;

    pthread_mutex_lock(&p->lock);
    write_stats(p, stats);
    p->bytes += stats->bytes;
    since = p->last_ms ? now - p->last_ms : XL_PROGRESS_LOG_MS;
    if (since < (p->terminal ? REDRAW_MS : XL_PROGRESS_LOG_MS)) goto out;
    /* The first checkpoint carried all of memory. */
    if (!p->last_ms) since = p->copy_began_ms ? now - p->copy_began_ms : 0;
    mb_per_s = since ? (double)p->bytes / 1000 / (double)since : 0;
    p->bytes = 0;
    p->last_ms = now;
    wipe(p);
    xl_progress_format(p->line, sizeof(p->line), p->terminal ? terminal_width(p->out) : 0,
                       p->domain, p->peer, stats, mb_per_s);
    if (!p->terminal) {
        put_line(p, "", p->line);
        p->line[0] = '\0';
    }
    redraw(p);
out:
    pthread_mutex_unlock(&p->lock);
}

void xl_progress_copying(struct xl_progress *p, uint64_t done, uint64_t total)
{
    int64_t now = now_ms();
    char round[40] = "";

    pthread_mutex_lock(&p->lock);
    if (!p->copy_began_ms) p->copy_began_ms = now;
    if (!done) p->copy_round++;
    if (now - p->copying_ms >= (p->terminal ? REDRAW_MS : XL_PROGRESS_LOG_MS)) {
        p->copying_ms = now;
        wipe(p);
        /* A percentage that falls looks like an error. */
        if (p->copy_round > 1) snprintf(round, sizeof(round), ", round %u:", p->copy_round);
        snprintf(p->line, sizeof(p->line), "%.60s -> %.60s  copying memory%s %u%%", p->domain,
                 p->peer, round, total ? (unsigned)(100.0 * (double)done / (double)total) : 0);
        if (!p->terminal) {
            put_line(p, "", p->line);
            p->line[0] = '\0';
        }
        redraw(p);
    }
    pthread_mutex_unlock(&p->lock);
}

void xl_progress_end(struct xl_progress *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->terminal && p->line[0]) fputc('\n', p->out);
    p->line[0] = '\0';
    fflush(p->out);
    if (p->stats) fclose(p->stats);
    p->stats = NULL;
    pthread_mutex_unlock(&p->lock);
}
