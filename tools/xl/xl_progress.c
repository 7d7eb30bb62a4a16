/* SPDX-License-Identifier: LGPL-2.1-only */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "xl_progress.h"

/* A line drawn more often than this is not read. */
#define REDRAW_MS 100
/* What waits for a reader: lines, statistics. */
#define OUT_ROOM (64u << 10)
#define STATS_ROOM (1u << 20)
/* At the end, for each of them. */
#define DRAIN_MS 1000
#define TEXT_MAX 1024
#define PREFIX_MAX 96
#define WIPE "\r\033[K"

static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int terminal_width(int out)
{
    struct winsize ws;

    if (ioctl(out, TIOCGWINSZ, &ws) || ws.ws_col < 20) return 80;
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

/*
 * One line above the progress line. In one piece, so that what is on the terminal is the same whatever was left
 * out before. Called with the lock held, as are all below until stated.
 */
static void put_line(struct xl_progress *p, const char *prefix, const char *text)
{
    char stamp[32] = "", missed[64] = "", all[TEXT_MAX + PREFIX_MAX + sizeof(p->line) + 160];
    bool drawn = p->terminal && p->line[0];
    int n;

    if (p->timestamps) {
        time_t t = time(NULL);
        struct tm tm;

        strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S ", localtime_r(&t, &tm));
    }
    if (p->missed) snprintf(missed, sizeof(missed), "(%u lines are missing here)\n", p->missed);
    n = snprintf(all, sizeof(all), "%s%s%s%s%s\n%s", drawn ? WIPE : "", missed, stamp, prefix, text,
                 drawn ? p->line : "");
    if (!p->out || n <= 0) return;
    p->missed = xl_writer_put(p->out, all, (size_t)n) ? 0 : p->missed + 1;
}

/* May be left out: whoever reads nothing misses nothing. */
static void put_progress(struct xl_progress *p)
{
    char all[sizeof(p->line) + sizeof(WIPE)];
    int n;

    if (!p->out || !xl_writer_idle(p->out)) return;
    if (!p->terminal) {
        put_line(p, "", p->line);
        return;
    }
    n = snprintf(all, sizeof(all), WIPE "%s", p->line);
    (void)xl_writer_put(p->out, all, (size_t)n);
}

/* The public side: each takes the lock itself. */

void xl_progress_line(struct xl_progress *p, const char *fmt, ...)
{
    char text[TEXT_MAX];
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
    char text[TEXT_MAX], prefix[PREFIX_MAX];
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

bool xl_progress_init(struct xl_progress *p, int out, const char *domain, const char *peer,
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
    p->out_fd = out;
    p->terminal = isatty(out);
    p->domain = domain;
    p->peer = peer;
    pthread_mutex_init(&p->lock, NULL);
    p->out = xl_writer_new(out, OUT_ROOM, false);
    return p->out != NULL;
}

bool xl_progress_open_stats(struct xl_progress *p, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), saved;

    if (fd < 0) return false;
    p->stats = xl_writer_new(fd, STATS_ROOM, true);
    saved = errno;
    if (!p->stats) close(fd);
    errno = saved;
    return p->stats != NULL;
}

/* Says what is missing. */
static void end_stats(struct xl_progress *p)
{
    int error = xl_writer_end(p->stats, DRAIN_MS);

    p->stats = NULL;
    if (error && error != ETIMEDOUT)
        put_line(p, "cannot write the statistics any more: ", strerror(error));
    else if (error || p->stats_missed)
        put_line(p, "", "checkpoints are missing in the statistics: they were not read in time");
}

static void write_stats(struct xl_progress *p, const libxl_checkpoint_stats *stats)
{
    char json[640];
    size_t len;

    if (!p->stats) return;
    xl_stats_format(json, sizeof(json) - 1, stats);
    len = strlen(json);
    json[len] = '\n';
    if (xl_writer_put(p->stats, json, len + 1)) return;
    /* A full disk must not end the protection. */
    if (xl_writer_error(p->stats))
        end_stats(p);
    else
        p->stats_missed++;
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
    xl_progress_format(p->line, sizeof(p->line), p->terminal ? terminal_width(p->out_fd) : 0,
                       p->domain, p->peer, stats, mb_per_s);
    put_progress(p);
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
        /* A percentage that falls looks like an error. */
        if (p->copy_round > 1) snprintf(round, sizeof(round), ", round %u:", p->copy_round);
        snprintf(p->line, sizeof(p->line), "%.60s -> %.60s  copying memory%s %u%%", p->domain,
                 p->peer, round, total ? (unsigned)(100.0 * (double)done / (double)total) : 0);
        put_progress(p);
    }
    pthread_mutex_unlock(&p->lock);
}

void xl_progress_leave(struct xl_progress *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->out && p->terminal && p->line[0]) (void)xl_writer_put(p->out, "\n", 1);
    p->line[0] = '\0';
    pthread_mutex_unlock(&p->lock);
}

void xl_progress_end(struct xl_progress *p)
{
    xl_progress_leave(p);
    pthread_mutex_lock(&p->lock);
    if (p->stats) end_stats(p);
    if (p->out) (void)xl_writer_end(p->out, DRAIN_MS);
    p->out = NULL;
    pthread_mutex_unlock(&p->lock);
}
