/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The test guest's witness of its disks: one sequence number in memory, on a raw disk and in an SQLite database on a second
 * disk. TCP port 7001, one client at a time, one request per line:
 *
 *   WRITE   the next number goes to both disks, through to them, then "OK n"
 *   STATE   "STATE mem=n raw=n bad=n sql=n rows=n integrity=ok": read again from the disks, past every cache
 *
 * After a failover memory and both disks must have the same number, and no number that a client was told may be missing.
 * usage: xtdisk RAW-DEVICE DATABASE
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/fs.h>
#include <unistd.h>

enum { PORT = 7001, SLOT_BYTES = 4096, LINE_BYTES_MAX = 128 };
static const uint64_t MAGIC = 0x78746469736b3031;

struct slot {
    uint64_t magic, seq, fill[SLOT_BYTES / 8 - 3], sum;
};

static uint64_t seq; /* what memory knows */
static uint64_t slots;
static int raw_fd = -1;
static const char *db_path;
static sqlite3 *db;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static uint64_t sum_of(const struct slot *s)
{
    const uint64_t *words = (const uint64_t *)s;
    uint64_t sum = 1;

    for (size_t i = 0; i < SLOT_BYTES / 8 - 1; i++)
        sum = sum * 6364136223846793005u + words[i];
    return sum;
}

static off_t place_of(uint64_t n)
{
    return (off_t)(n % slots) * SLOT_BYTES;
}

static void write_raw(uint64_t n)
{
    static struct slot s __attribute__((aligned(SLOT_BYTES)));

    s.magic = MAGIC;
    s.seq = n;
    for (size_t i = 0; i < sizeof(s.fill) / 8; i++)
        s.fill[i] = n * 31 + i;
    s.sum = sum_of(&s);
    if (pwrite(raw_fd, &s, sizeof(s), place_of(n)) != sizeof(s)) fail("raw disk");
}

/* The newest number on the raw disk; *bad: how many of the newest `slots` numbers are not where they should be. */
static uint64_t read_raw(uint64_t *bad)
{
    static struct slot s __attribute__((aligned(SLOT_BYTES)));
    uint64_t newest = 0, whole = 0;

    for (uint64_t i = 0; i < slots; i++) {
        if (pread(raw_fd, &s, sizeof(s), place_of(i)) != sizeof(s)) fail("raw disk");
        if (s.magic != MAGIC || s.sum != sum_of(&s) || s.seq % slots != i) continue;
        whole++;
        if (s.seq > newest) newest = s.seq;
    }
    *bad = (newest < slots ? newest : slots) - whole;
    return newest;
}

static int64_t ask_sql(const char *question, char *text, size_t size)
{
    sqlite3_stmt *stmt = NULL;
    int64_t value = -1;

    if (text) snprintf(text, size, "none");
    if (sqlite3_prepare_v2(db, question, -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW) {
        value = sqlite3_column_int64(stmt, 0);
        if (text) snprintf(text, size, "%s", (const char *)sqlite3_column_text(stmt, 0));
    }
    sqlite3_finalize(stmt);
    return value;
}

static void tell_sql(const char *command)
{
    if (sqlite3_exec(db, command, NULL, NULL, NULL) == SQLITE_OK) return;
    printf("xtdisk: %s: %s\n", command, sqlite3_errmsg(db));
    exit(1);
}

static void open_sql(void)
{
    if (sqlite3_open(db_path, &db) != SQLITE_OK) fail("database");
    tell_sql(
        "PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t (seq INTEGER PRIMARY KEY, x TEXT)");
}

static void write_sql(uint64_t n)
{
    char command[300];

    snprintf(command, sizeof(command), "INSERT INTO t VALUES (%llu, '%0200llu')",
             (unsigned long long)n, (unsigned long long)n);
    tell_sql(command);
}

/* What the guest's memory still knows of the file must not hide the disk. */
static void forget_caches(void)
{
    int fd;

    sqlite3_close(db);
    sync();
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1) fail("drop_caches");
    close(fd);
    open_sql();
}

static void answer_state(char *answer, size_t size)
{
    uint64_t raw, bad;
    char integrity[64];

    forget_caches();
    raw = read_raw(&bad);
    ask_sql("PRAGMA integrity_check", integrity, sizeof(integrity));
    snprintf(answer, size, "STATE mem=%llu raw=%llu bad=%llu sql=%lld rows=%lld integrity=%s\n",
             (unsigned long long)seq, (unsigned long long)raw, (unsigned long long)bad,
             (long long)ask_sql("SELECT max(seq) FROM t", NULL, 0),
             (long long)ask_sql("SELECT count(*) FROM t", NULL, 0), integrity);
}

static void answer_write(char *answer, size_t size)
{
    seq++;
    write_raw(seq);
    write_sql(seq);
    snprintf(answer, size, "OK %llu\n", (unsigned long long)seq);
}

static void serve(FILE *requests)
{
    char line[LINE_BYTES_MAX], answer[300];

    while (fgets(line, sizeof(line), requests)) {
        if (!strncmp(line, "WRITE", 5))
            answer_write(answer, sizeof(answer));
        else if (!strncmp(line, "STATE", 5))
            answer_state(answer, sizeof(answer));
        else
            snprintf(answer, sizeof(answer), "ERR WRITE or STATE\n");
        if (send(fileno(requests), answer, strlen(answer), MSG_NOSIGNAL) < 0) return;
    }
}

static int open_server(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) fail("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 8)) fail("port 7001");
    return fd;
}

static void open_disks(const char *raw)
{
    uint64_t bytes = 0, bad;

    raw_fd = open(raw, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (raw_fd < 0 || ioctl(raw_fd, BLKGETSIZE64, &bytes)) fail(raw);
    slots = bytes / SLOT_BYTES;
    if (slots < 2) exit(1);
    open_sql();
    seq = read_raw(&bad);
}

int main(int argc, char **argv)
{
    struct timeval patience = {.tv_sec = 60};
    int server, on = 1;

    if (argc != 3) {
        fprintf(stderr, "usage: xtdisk RAW-DEVICE DATABASE\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    db_path = argv[2];
    open_disks(argv[1]);
    server = open_server();
    printf("xtdisk: ready, %llu slots\n", (unsigned long long)slots);
    fflush(stdout);
    for (;;) {
        int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);
        FILE *client;

        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        client = fdopen(fd, "r");
        if (!client) {
            close(fd);
            continue;
        }
        serve(client);
        fclose(client);
    }
}
