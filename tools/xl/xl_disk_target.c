/* SPDX-License-Identifier: LGPL-2.1-only */
/*
 * What stands before the path in a disk's target: remus:HOST[:PORT][,shared=JOURNAL]|PATH. blktap2 wrote tap:remus:HOST:PORT|aio:PATH; its port
 * was that of a tapdisk and means nothing to an sshd.
 */
#include <stdlib.h>
#include <string.h>

#include "xl_disk.h"

#define PORT_MAX 65535

static bool begins(const char *text, const char *with, const char **rest)
{
    size_t n = strlen(with);

    if (strncmp(text, with, n)) return false;
    *rest = text + n;
    return true;
}

bool xl_disk_target_is_old(const char *target)
{
    const char *rest;

    return begins(target, "tap:remus:", &rest) || begins(target, "tap2:remus:", &rest);
}

unsigned xl_disk_target_port(const char *target, const char *host)
{
    const char *peer, *port, *end = strpbrk(target, "|,");
    size_t n = strlen(host);
    unsigned long number;
    char *after;

    if (!end || !begins(target, "remus:", &peer) || strncmp(peer, host, n) || peer[n] != ':')
        return 0;
    port = peer + n + 1;
    if (*port < '0' || *port > '9') return 0;
    number = strtoul(port, &after, 10);
    return after == end && number <= PORT_MAX ? (unsigned)number : 0;
}

bool xl_disk_target_is_shared(const char *target)
{
    static const char word[] = ",shared=";
    const char *bar = strchr(target, '|'), *comma = strstr(target, word), *rest;

    return begins(target, "remus:", &rest) && bar && comma && comma < bar;
}
