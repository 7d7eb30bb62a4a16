/* SPDX-License-Identifier: LGPL-2.1-only */
/* The links between the disks' instances: streams of their own between the same hosts. */
#include <assert.h>
#include <string.h>

#include "soak_disks.h"

#define MESSAGES 16384u

struct passing {
    int64_t at_ms;
    enum message what;
    uint64_t epoch, value;
    unsigned sector;
};

static struct wire {
    struct passing q[MESSAGES];
    unsigned first, n;
    int64_t last_ms;
} wires[DISKS][2]; /* to the primary, to the backup */

void disk_link_start(void)
{
    for (unsigned d = 0; d < DISKS; d++)
        for (int i = 0; i < 2; i++)
            wires[d][i].first = wires[d][i].n = wires[d][i].last_ms = 0;
}

void disk_link_send(unsigned disk, bool to_backup, enum message what, uint64_t epoch,
                    unsigned sector, uint64_t value)
{
    struct wire *w = &wires[disk][to_backup];
    int64_t at = now_ms + setup.delay_ms + setup.disk_delay_ms +
                 (setup.jitter_ms ? between(0, setup.jitter_ms) : 0);

    if (at < w->last_ms) at = w->last_ms;
    w->last_ms = at;
    assert(w->n < MESSAGES);
    w->q[(w->first + w->n++) % MESSAGES] = (struct passing){at, what, epoch, value, sector};
}

static bool pump(unsigned disk, bool to_backup)
{
    struct wire *w = &wires[disk][to_backup];
    struct instance *in = &instances[to_backup][disk];
    struct passing p = w->q[w->first];

    if (!w->n || p.at_ms > now_ms || link_stalled_until(to_backup) > now_ms) return false;
    w->first = (w->first + 1) % MESSAGES;
    w->n--;
    if (!link_is_cut(to_backup)) instance_hears(in, p.what, p.epoch, p.sector, p.value);
    return true;
}

bool disk_link_pump(void)
{
    bool did = false;

    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        for (int i = 0; i < 2; i++)
            while (pump(d, i))
                did = true;
    return did;
}

int64_t disk_link_due(void)
{
    int64_t due = NEVER;

    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        for (int i = 0; i < 2; i++) {
            const struct wire *w = &wires[d][i];
            int64_t at = w->q[w->first].at_ms;

            if (!w->n) continue;
            if (link_stalled_until(i) > at) at = link_stalled_until(i);
            if (at < due) due = at;
        }
    return due;
}

/* ---- the link between the hosts has trouble ---- */

static void hears_nothing(void *arg)
{
    int host = arg != NULL;

    for (unsigned d = 0; d < (unsigned)setup.disks; d++)
        instance_loses_link(&instances[host][d], "nothing came for the limit");
}

void disks_hear_nothing(bool backup)
{
    if (setup.disks) after(setup.limit_ms, hears_nothing, backup ? &wires : NULL);
}
