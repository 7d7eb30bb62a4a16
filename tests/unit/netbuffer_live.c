/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * The net buffer against a real kernel, in a network namespace of its own:
 *
 *     g0 ==veth== g0h --.                 .-- oh ==veth== o
 *     g1 ==veth== g1h --+-- bridge bri ---'
 *
 * We send raw frames into g0 and g1, the guest's side of its NICs, and see at o what leaves the host.
 *
 * Needs root and the kernel modules bridge, veth, ifb, sch_plug, sch_prio, sch_ingress,
 * cls_matchall, act_mirred, act_gact: else exit 77, unless XENTWIN_LIVE=1 says that they must be
 * there. No libraries but those of the product, so that it runs in a bare dom0.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <libxl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/pkt_sched.h>
#include <net/if.h>

#include "libxl_netbuffer.h"
#include "libxl_netlink.h"

#define IFB "remus7"
#define LIMIT (10 * 1000 * 1000)
#define MAGIC 0x58545446
#define MAX_SEQ 400000

static libxl__gc gc;
static libxl__netbuffer *nb;
static int in_fd[2], out_fd;
static const char *const nics[] = {"g0h", "g1h"};
static uint32_t next_seq;
static const char *test_name;
static int failures;

#define CHECK(cond) check((cond), #cond, __LINE__)

static void check(bool ok, const char *what, int line)
{
    if (ok) return;
    fprintf(stderr, "  %s: line %d: not so: %s\n", test_name, line, what);
    failures++;
}

static int sh(const char *fmt, ...)
{
    char cmd[512];
    va_list al;

    va_start(al, fmt);
    vsnprintf(cmd, sizeof(cmd), fmt, al);
    va_end(al);
    return system(cmd);
}

static int packet_socket(const char *ifname)
{
    struct sockaddr_ll ll = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_ALL),
                             .sll_ifindex = (int)if_nametoindex(ifname)};
    int bytes = 64 * 1024 * 1024;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL));

    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
    if (fd < 0 || !ll.sll_ifindex || bind(fd, (struct sockaddr *)&ll, sizeof(ll))) {
        perror(ifname);
        exit(1);
    }
    return fd;
}

/* What kinds of frame a guest may send; the text after the addresses, before the mark. */
static const struct {
    const char *name;
    unsigned char head[24];
    size_t len;
} kinds[] = {
    {"IPv4 TCP", {0x08, 0x00, 0x45, 0, 0, 36, 0, 1, 0, 0, 64, 6}, 14},
    {"IPv4 UDP", {0x08, 0x00, 0x45, 0, 0, 36, 0, 1, 0, 0, 64, 17}, 14},
    {"ARP", {0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1}, 10},
    {"IPv6", {0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 58, 255}, 10},
    {"802.1Q", {0x81, 0x00, 0, 42, 0x08, 0x00, 0x45, 0, 0, 36}, 10},
    {"802.1ad", {0x88, 0xa8, 0, 42, 0x81, 0x00, 0, 43, 0x08, 0x00, 0x45}, 11},
    {"802.3 LLC", {0, 46, 0xaa, 0xaa, 3, 0, 0, 0}, 8},
    {"unknown", {0x88, 0xb5}, 2},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static size_t make_frame(unsigned char *f, uint32_t seq, size_t kind, size_t len)
{
    uint32_t mark[2] = {htonl(MAGIC), htonl(seq)};

    memset(f, 0, len);
    memset(f, 0xff, 6); /* to everybody: the bridge floods it */
    f[6] = 2;
    f[11] = 7;
    memcpy(f + 12, kinds[kind].head, kinds[kind].len);
    memcpy(f + len - 8, mark, 8);
    return len;
}

static void send_frame(int nic, uint32_t seq, size_t kind, size_t len)
{
    unsigned char f[2000];

    if (send(in_fd[nic], f, make_frame(f, seq, kind, len), 0) != (ssize_t)len)
        check(false, strerror(errno), __LINE__);
}

static void send_some(int n)
{
    for (int i = 0; i < n; i++, next_seq++)
        send_frame((int)(next_seq & 1), next_seq, next_seq % KINDS, 60 + next_seq % 1000);
}

/* The next frame of ours within ms, or -1. */
static int64_t get_frame(int ms)
{
    struct pollfd pfd = {.fd = out_fd, .events = POLLIN};
    unsigned char f[2000];
    uint32_t mark[2];

    while (poll(&pfd, 1, ms) > 0) {
        struct sockaddr_ll from;
        socklen_t fromlen = sizeof(from);
        ssize_t got = recvfrom(out_fd, f, sizeof(f), 0, (struct sockaddr *)&from, &fromlen);

        if (got < 20 || from.sll_pkttype == PACKET_OUTGOING) continue;
        memcpy(mark, f + got - 8, 8);
        if (mark[0] == htonl(MAGIC)) return ntohl(mark[1]);
    }
    return -1;
}

/*
 * Exactly from..to-1 come out, each once. Frames of the two NICs may overtake each other by nature;
 * of one NIC not.
 */
static void expect(uint32_t from, uint32_t to)
{
    int64_t last[2] = {-1, -1};
    uint32_t n;

    for (n = from; n < to; n++) {
        int64_t seq = get_frame(2000);

        if (seq < from || seq >= to || seq <= last[seq & 1]) {
            fprintf(stderr, "  %s: want %u..%u, got %lld after %u\n", test_name, from, to - 1,
                    (long long)seq, n - from);
            failures++;
            return;
        }
        last[seq & 1] = seq;
    }
}

static void expect_nothing(int ms)
{
    CHECK(get_frame(ms) == -1);
}

static uint64_t held(void)
{
    struct netbuffer_stats st = {0};

    CHECK(!libxl__netbuffer_stats(&gc, nb, &st));
    return st.held_packets;
}

/* Raw sockets return before the frame is through: waits until the buffer has n. */
static void wait_held(uint64_t n)
{
    for (int i = 0; i < 2000 && held() != n; i++)
        usleep(1000);
    CHECK(held() == n);
}

static void setup(uint64_t limit)
{
    nb = NULL;
    CHECK(!libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, limit, &nb));
    if (!nb) exit(1);
}

static void nothing_left(void)
{
    libxl__nl *nl = NULL;
    struct nl_link link;
    struct nl_qdisc q;
    int ifs[8], nr = -1;

    CHECK(!libxl__nl_open(&gc, &nl));
    CHECK(libxl__nl_link_get(&gc, nl, IFB, &link) == ERROR_NOTFOUND);
    CHECK(!libxl__nl_redirect_find(&gc, nl, IFB, ifs, 8, &nr) && nr == 0);
    for (int i = 0; i < 2; i++)
        CHECK(libxl__nl_qdisc_get(&gc, nl, (int)if_nametoindex(nics[i]), TC_H_INGRESS, &q) ==
              ERROR_NOTFOUND);
    libxl__nl_close(nl);
}

static void t_open_passes_all_kinds(void)
{
    uint32_t from = next_seq;

    setup(LIMIT);
    send_some(2 * KINDS);
    expect(from, next_seq);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    nothing_left();
    send_some(2);
    expect(next_seq - 2, next_seq);
}

static void t_plug_each_kind_is_held(void)
{
    setup(LIMIT);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    for (size_t kind = 0; kind < KINDS; kind++)
        for (int nic = 0; nic < 2; nic++)
            send_frame(nic, next_seq + (uint32_t)kind * 2 + (uint32_t)nic, kind, 100);
    wait_held(2 * KINDS);
    CHECK(!libxl__netbuffer_release(&gc, nb)); /* of what was before */
    expect_nothing(100);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    expect_nothing(100);
    CHECK(!libxl__netbuffer_release(&gc, nb));
    expect(next_seq, next_seq + 2 * KINDS);
    next_seq += 2 * KINDS;
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    nothing_left();
}

static void t_epochs_are_released_exactly(void)
{
    uint32_t start = next_seq, prev = next_seq;
    unsigned seed = 7;

    setup(LIMIT);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    CHECK(!libxl__netbuffer_release(&gc, nb));
    for (int epoch = 0; epoch < 200 && !failures; epoch++) {
        send_some((int)(rand_r(&seed) % 40));
        wait_held(next_seq - prev);
        prev = next_seq;
        CHECK(!libxl__netbuffer_plug(&gc, nb));
        if (!epoch) CHECK(libxl__netbuffer_plug(&gc, nb) == ERROR_INVAL);
        send_some(
            (int)(rand_r(&seed) % 40)); /* the guest runs on before the acknowledgement comes */
        CHECK(!libxl__netbuffer_release(&gc, nb));
        expect(start, prev);
        expect_nothing(0);
        start = prev;
    }
    expect_nothing(50);
    CHECK(!libxl__netbuffer_open(&gc, nb));
    expect(start, next_seq);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    nothing_left();
}

static void t_input_is_not_held(void)
{
    unsigned char f[100];
    int fd = out_fd;

    setup(LIMIT);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    for (int i = 0; i < 2;
         i++) { /* look at the guest's side; earlier tests' frames are still there */
        out_fd = in_fd[i];
        while (get_frame(0) >= 0)
            ;
    }
    make_frame(f, next_seq, 0, sizeof(f));
    CHECK(send(fd, f, sizeof(f), 0) == sizeof(f));
    for (int i = 0; i < 2; i++) {
        out_fd = in_fd[i];
        CHECK(get_frame(1000) == (int64_t)next_seq);
    }
    out_fd = fd;
    next_seq++;
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
}

static void t_limit_drops_the_tail(void)
{
    struct netbuffer_stats st;
    uint32_t from = next_seq, n;

    setup(256 * 1024);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    for (n = 0; n < 400; n++)
        send_frame(0, next_seq++, n % KINDS, 1000);
    for (int i = 0; i < 2000; i++, usleep(1000)) {
        CHECK(!libxl__netbuffer_stats(&gc, nb, &st));
        if (st.held_packets + st.dropped_packets == 400) break;
    }
    CHECK(st.held_bytes <= 128 * 1024 && st.held_bytes > 126 * 1024);
    CHECK(st.held_packets + st.dropped_packets == 400);
    CHECK(!libxl__netbuffer_open(&gc, nb));
    for (n = 0; n < st.held_packets; n++)
        CHECK(get_frame(2000) == (int64_t)(from + n));
    expect_nothing(50);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
}

static void t_teardown_loses_nothing(void)
{
    uint32_t from = next_seq;

    setup(LIMIT);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    send_some(500);
    wait_held(500);
    CHECK(!libxl__netbuffer_release(&gc, nb));
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    send_some(500);
    wait_held(1000);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    expect(from, next_seq);
    nothing_left();
}

/* A process that is killed with output held. */
static void killed_with_held_output(int frames)
{
    pid_t pid = fork();
    int status;

    if (!pid) {
        setup(LIMIT);
        libxl__netbuffer_plug(&gc, nb);
        libxl__netbuffer_release(&gc, nb);
        kill(getpid(), SIGKILL);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status));
    send_some(frames);
    expect_nothing(100);
}

static bool is_held(void)
{
    bool is = false;

    CHECK(!libxl__netbuffer_held(&gc, IFB, &is));
    return is;
}

static void t_held_from_the_first_epoch_on(void)
{
    CHECK(!is_held());
    setup(LIMIT);
    send_some(10);
    expect(next_seq - 10, next_seq);
    CHECK(!is_held());
    for (int epoch = 0; epoch < 3; epoch++) {
        CHECK(!libxl__netbuffer_plug(&gc, nb) && is_held());
        CHECK(!libxl__netbuffer_release(&gc, nb) && is_held());
    }
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    CHECK(!is_held());
}

static void t_killed_remove_lets_go(void)
{
    uint32_t from = next_seq;

    killed_with_held_output(300);
    CHECK(is_held());
    CHECK(!libxl__netbuffer_remove(&gc, IFB));
    CHECK(!is_held());
    expect(from, next_seq);
    nothing_left();
    CHECK(!libxl__netbuffer_remove(&gc, IFB));
    CHECK(!libxl__netbuffer_discard(&gc, IFB));
}

static void t_killed_setup_again_works(void)
{
    uint32_t from = next_seq;

    killed_with_held_output(300);
    setup(LIMIT);
    expect(from, next_seq);
    from = next_seq;
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    send_some(10);
    wait_held(10);
    expect_nothing(50);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    expect(from, next_seq);
}

static void t_discard_never_sends(void)
{
    killed_with_held_output(300);
    CHECK(!libxl__netbuffer_discard(&gc, IFB));
    expect_nothing(100);
    send_some(10);
    expect_nothing(100);
    CHECK(!libxl__netbuffer_remove(&gc, IFB));
    nothing_left();
    send_some(10);
    expect(next_seq - 10, next_seq);
}

static void t_setup_failure_leaves_nothing(void)
{
    const char *const bad[] = {"g0h", "nosuch"};

    nb = NULL;
    CHECK(libxl__netbuffer_setup_ifs(&gc, IFB, bad, 2, LIMIT, &nb) == ERROR_FAIL && !nb);
    nothing_left();
    sh("tc qdisc add dev g1h ingress");
    CHECK(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, LIMIT, &nb) == ERROR_DEVICE_EXISTS && !nb);
    CHECK(!sh("tc qdisc show dev g1h | grep -q ingress"));
    sh("tc qdisc del dev g1h ingress");
    nothing_left();
    sh("ip link add %s type dummy", IFB);
    CHECK(libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, LIMIT, &nb) == ERROR_INVAL && !nb);
    CHECK(libxl__netbuffer_remove(&gc, IFB) == ERROR_INVAL);
    sh("ip link del %s", IFB);
    nothing_left();
}

static void t_device_gone_is_an_error(void)
{
    setup(LIMIT);
    sh("ip link del %s", IFB);
    CHECK(libxl__netbuffer_plug(&gc, nb) == ERROR_FAIL);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    nothing_left();
}

/* A guest that sends all the time; paced so that nothing else drops. */
static atomic_uint sent;
static atomic_bool stop_sending;

static void *sender(void *arg)
{
    while (!atomic_load(&stop_sending)) {
        uint32_t seq = atomic_load(&sent);

        send_frame((int)(seq & 1), seq, seq % KINDS, 100);
        atomic_store(&sent, seq + 1);
        if (seq % 8 == 0) usleep(200);
    }
    return NULL;
}

static void t_busy_setup_and_teardown_lose_nothing(void)
{
    static unsigned char seen[MAX_SEQ];
    uint32_t from = next_seq, n;
    pthread_t th;
    int64_t seq;

    atomic_store(&sent, from);
    atomic_store(&stop_sending, false);
    pthread_create(&th, NULL, sender, NULL);
    for (int i = 0; i < 5; i++) {
        setup(LIMIT);
        usleep(20000);
        CHECK(!libxl__netbuffer_plug(&gc, nb));
        usleep(20000);
        CHECK(!libxl__netbuffer_teardown(&gc, nb));
        usleep(20000);
    }
    atomic_store(&stop_sending, true);
    pthread_join(th, NULL);
    next_seq = atomic_load(&sent);
    CHECK(next_seq < MAX_SEQ);
    while (next_seq < MAX_SEQ && (seq = get_frame(500)) >= 0)
        seen[seq]++;
    for (n = from; n < next_seq && n < MAX_SEQ; n++)
        if (seen[n] != 1) break;
    CHECK(n == next_seq);
    nothing_left();
}

/*
 * Whatever is sent after _plug returned must not come out by the release of the epoch that it
 * closed.
 */
static void t_busy_epochs_never_leak(void)
{
    uint32_t from = next_seq, got = 0;
    int64_t seq, newest = -1;
    pthread_t th;

    setup(LIMIT);
    CHECK(!libxl__netbuffer_plug(&gc, nb));
    atomic_store(&sent, from);
    atomic_store(&stop_sending, false);
    pthread_create(&th, NULL, sender, NULL);
    CHECK(!libxl__netbuffer_release(&gc, nb));
    for (int epoch = 0; epoch < 300 && !failures; epoch++) {
        uint32_t bound;

        usleep(3000);
        CHECK(!libxl__netbuffer_plug(&gc, nb));
        bound = atomic_load(&sent); /* the one being sent may be in this epoch */
        usleep(1000);
        CHECK(!libxl__netbuffer_release(&gc, nb));
        while ((seq = get_frame(1)) >= 0) {
            got++;
            newest = seq > newest ? seq : newest;
        }
        CHECK(newest <= (int64_t)bound);
    }
    atomic_store(&stop_sending, true);
    pthread_join(th, NULL);
    next_seq = atomic_load(&sent);
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    while (get_frame(200) >= 0)
        got++;
    CHECK(got == next_seq - from);
    nothing_left();
}

static double now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void t_speed(void)
{
    double plug = 0, release = 0, t;
    int n = 200;

    setup(LIMIT);
    for (int i = 0; i < n; i++) {
        t = now_us();
        CHECK(!libxl__netbuffer_plug(&gc, nb));
        plug += now_us() - t;
        t = now_us();
        CHECK(!libxl__netbuffer_release(&gc, nb));
        release += now_us() - t;
    }
    t = now_us();
    CHECK(!libxl__netbuffer_teardown(&gc, nb));
    printf("  plug %.0f us, release %.0f us, teardown %.0f us\n", plug / n, release / n,
           now_us() - t);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
#define T(name)                                                                                    \
    {                                                                                              \
#name, name                                                                                \
    }
    T(t_open_passes_all_kinds),
    T(t_plug_each_kind_is_held),
    T(t_epochs_are_released_exactly),
    T(t_input_is_not_held),
    T(t_limit_drops_the_tail),
    T(t_teardown_loses_nothing),
    T(t_held_from_the_first_epoch_on),
    T(t_killed_remove_lets_go),
    T(t_killed_setup_again_works),
    T(t_discard_never_sends),
    T(t_setup_failure_leaves_nothing),
    T(t_device_gone_is_an_error),
    T(t_busy_setup_and_teardown_lose_nothing),
    T(t_busy_epochs_never_leak),
    T(t_speed),
};

static int make_network(void)
{
    return sh("exec 2>/dev/null; sysctl -qw net.ipv6.conf.default.disable_ipv6=1 || "
              "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6;"
              "set -e; ip link set lo up; ip link add name bri type bridge forward_delay 0 "
              "mcast_snooping 0;"
              "for p in g0 g1 o; do ip link add $p type veth peer name ${p}h; ip link set $p up;"
              " ip link set ${p}h master bri up; done; ip link set bri up");
}

static int skip(const char *why)
{
    bool must = getenv("XENTWIN_LIVE") != NULL;

    fprintf(stderr, "netbuffer_live: %s: %s\n", must ? "failed" : "skipped", why);
    return must ? 1 : 77;
}

int main(void)
{
    libxl__gc_init(&gc, NULL);
    if (geteuid() || unshare(CLONE_NEWNET)) return skip("needs root to make a network namespace");
    if (make_network()) return skip("cannot make a bridge and veth pairs");
    if (!getenv("XENTWIN_LIVE") && libxl__netbuffer_setup_ifs(&gc, IFB, nics, 2, LIMIT, &nb))
        return skip("the kernel lacks ifb, sch_plug, sch_prio, sch_ingress, cls_matchall, "
                    "act_mirred or act_gact");
    libxl__netbuffer_teardown(&gc, nb);
    in_fd[0] = packet_socket("g0");
    in_fd[1] = packet_socket("g1");
    out_fd = packet_socket("o");
    usleep(200000);
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        int before = failures;

        test_name = tests[i].name;
        tests[i].run();
        while (get_frame(20) >= 0)
            ;
        printf("%s %s\n", failures == before ? "ok    " : "FAILED", test_name);
        fflush(stdout);
    }
    libxl__gc_dispose(&gc);
    return failures ? 1 : 0;
}
