/* SPDX-License-Identifier: LGPL-2.1-only */
#include "chatter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <inttypes.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define NIC "eth0"
#define NS_PER_MS 1000000u

static int udp4 = -1, udp6 = -1, icmp6 = -1, arp = -1;
static uint64_t interval_ns, next_ns, number;
static unsigned int nic_index;
static unsigned char nic_mac[6];
static struct in_addr own_ip, broadcast_ip;

/* Address, broadcast address and MAC of the guest's NIC. */
static int find_nic(void)
{
    struct ifaddrs *list = NULL;

    if (getifaddrs(&list)) return -1;
    own_ip.s_addr = 0;
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || strcmp(i->ifa_name, NIC) != 0) continue;
        if (i->ifa_addr->sa_family == AF_INET && i->ifa_broadaddr) {
            own_ip = ((struct sockaddr_in *)i->ifa_addr)->sin_addr;
            broadcast_ip = ((struct sockaddr_in *)i->ifa_broadaddr)->sin_addr;
        } else if (i->ifa_addr->sa_family == AF_PACKET) {
            memcpy(nic_mac, ((struct sockaddr_ll *)i->ifa_addr)->sll_addr, sizeof(nic_mac));
        }
    }
    freeifaddrs(list);
    nic_index = if_nametoindex(NIC);
    if (!nic_index || !own_ip.s_addr) {
        errno = ENODEV;
        return -1;
    }
    return 0;
}

static void close_sockets(void)
{
    int *all[] = {&udp4, &udp6, &icmp6, &arp};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (*all[i] >= 0) close(*all[i]);
        *all[i] = -1;
    }
}

static int open_sockets(void)
{
    int on = 1, hops = 255, kind = SOCK_NONBLOCK | SOCK_CLOEXEC;

    udp4 = socket(AF_INET, SOCK_DGRAM | kind, 0);
    udp6 = socket(AF_INET6, SOCK_DGRAM | kind, 0);
    icmp6 = socket(AF_INET6, SOCK_RAW | kind, IPPROTO_ICMPV6);
    arp = socket(AF_PACKET, SOCK_RAW | kind, 0);
    if (udp4 < 0 || udp6 < 0 || icmp6 < 0 || arp < 0) return -1;
    if (setsockopt(udp4, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on))) return -1;
    return setsockopt(icmp6, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof(hops));
}

int chatter_set(unsigned int interval_ms)
{
    if (interval_ms && (interval_ms < CHATTER_MS_MIN || interval_ms > CHATTER_MS_MAX)) {
        errno = ERANGE;
        return -1;
    }
    close_sockets();
    interval_ns = 0;
    if (!interval_ms) return 0;
    if (find_nic() || open_sockets()) {
        int saved = errno;

        close_sockets();
        errno = saved;
        return -1;
    }
    interval_ns = (uint64_t)interval_ms * NS_PER_MS;
    return 0;
}

static void send_udp4(const char *text, size_t size)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(CHATTER_PORT), .sin_addr = broadcast_ip};

    (void)sendto(udp4, text, size, 0, (struct sockaddr *)&to, sizeof(to));
}

static void send_udp6(const char *text, size_t size)
{
    struct sockaddr_in6 to = {
        .sin6_family = AF_INET6, .sin6_port = htons(CHATTER_PORT), .sin6_scope_id = nic_index};

    inet_pton(AF_INET6, "ff02::1", &to.sin6_addr);
    (void)sendto(udp6, text, size, 0, (struct sockaddr *)&to, sizeof(to));
}

static void send_solicitation(void)
{
    struct nd_neighbor_solicit ns = {.nd_ns_type = ND_NEIGHBOR_SOLICIT};
    struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_scope_id = nic_index};
    uint32_t high = htonl((uint32_t)(number >> 32)), low = htonl((uint32_t)number);

    inet_pton(AF_INET6, "fd00:7477:1:0:c4a7::", &ns.nd_ns_target);
    memcpy(&ns.nd_ns_target.s6_addr[8], &high, sizeof(high));
    memcpy(&ns.nd_ns_target.s6_addr[12], &low, sizeof(low));
    ns.nd_ns_target.s6_addr[8] = 0xc4;
    ns.nd_ns_target.s6_addr[9] = 0xa7;
    inet_pton(AF_INET6, "ff02::1:ff00:0", &to.sin6_addr);
    memcpy(&to.sin6_addr.s6_addr[13], &ns.nd_ns_target.s6_addr[13], 3);
    (void)sendto(icmp6, &ns, sizeof(ns), 0, (struct sockaddr *)&to, sizeof(to));
}

static void send_arp(void)
{
    struct {
        struct ether_header eth;
        struct ether_arp arp;
        char padding[18];
    } __attribute__((packed)) frame = {0};
    struct sockaddr_ll to = {
        .sll_family = AF_PACKET, .sll_ifindex = (int)nic_index, .sll_halen = 6};

    memset(frame.eth.ether_dhost, 0xff, 6);
    memcpy(frame.eth.ether_shost, nic_mac, 6);
    frame.eth.ether_type = htons(ETHERTYPE_ARP);
    frame.arp.ea_hdr.ar_hrd = htons(ARPHRD_ETHER);
    frame.arp.ea_hdr.ar_pro = htons(ETHERTYPE_IP);
    frame.arp.ea_hdr.ar_hln = 6;
    frame.arp.ea_hdr.ar_pln = 4;
    frame.arp.ea_hdr.ar_op = htons(ARPOP_REQUEST);
    memcpy(frame.arp.arp_sha, nic_mac, 6);
    memcpy(frame.arp.arp_spa, &own_ip, 4);
    memcpy(frame.arp.arp_tpa, &own_ip, 4);
    snprintf(frame.padding, sizeof(frame.padding), "%016" PRIx64, number);
    memset(to.sll_addr, 0xff, 6);
    (void)sendto(arp, &frame, sizeof(frame), 0, (struct sockaddr *)&to, sizeof(to));
}

void chatter_run(uint64_t now_ns, uint64_t tick)
{
    char text[80];
    int size;

    if (!interval_ns || now_ns < next_ns) return;
    next_ns = now_ns + interval_ns;
    number++;
    size = snprintf(text, sizeof(text), "CHATTER %" PRIu64 " TICK %" PRIu64 "\n", number, tick);
    send_udp4(text, (size_t)size);
    send_arp();
    send_udp6(text, (size_t)size);
    send_solicitation();
}
