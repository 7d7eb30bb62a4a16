/* SPDX-License-Identifier: LGPL-2.1-only */
/* What a run is like, out of its seed. */
#include <string.h>

#include "soak.h"

static int64_t some_of(int64_t limit_ms)
{
    return chance(50) ? between(1, (int)limit_ms) : between(1, 5 * (int)limit_ms);
}

static void choose_fault(struct fault *f, int64_t length_ms)
{
    *f = (struct fault){.kind = (enum fault_kind)between(FAULT_NONE + 1, PLAIN_FAULTS - 1)};
    if (chance(25)) f->kind = PRIMARY_HOST_DIES; /* what all this is for */
    f->for_ms = some_of(setup.limit_ms);
    /* Acknowledgements on their way when the backup takes over. */
    if (f->kind == LINK_CLOSES_AT_BACKUP && chance(60))
        setup.delay_ms = between(0, setup.limit_ms / 4);
    if (f->kind == PRIMARY_FREEZES) f->for_ms = setup.limit_ms + between(-100, 5000);
    if (chance(50))
        f->at_turn = (uint64_t)between(1, 40 * (int)setup.checkpoints + 100);
    else
        f->at_ms = between(0, (int)length_ms);
    if (f->kind == RECEIVER_CANNOT_START) f->at_turn = 1;
}

static void choose_world(void)
{
    static const int limits[] = {200, 300, 600, 1000, 3000};

    setup.hvm = chance(50);
    setup.rule_backup = chance(50);
    setup.arbiter = chance(60);
    setup.admin_promotes = chance(50);
    setup.late_suspend = chance(50);
    setup.witness_for_primary = !chance(4);
    setup.witness_for_backup = !chance(4);
    setup.limit_ms = limits[between(0, 4)];
    setup.interval_ms = between(5, 120);
    setup.tick_ms = between(2, 25);
    setup.delay_ms = chance(80) ? between(0, 3) : between(0, setup.limit_ms / 5);
    setup.jitter_ms = chance(50) ? 0 : between(0, 10);
    setup.bytes_per_ms = chance(80) ? 125000 : between(2000, 50000);
    for (int i = 0; i < 2; i++)
        setup.drift_ppm[i] = chance(30) ? between(-40000, 40000) : between(-100, 100);
    setup.slow_percent = chance(30) ? between(1, 5) : 0;
    setup.receiver_bytes = chance(20) ? between(1000, 40000) : 0;
    setup.checkpoints = (uint64_t)between(1, 30);
}

/* Dice of their own: a seed without these parts means what it meant before there were any. */
static enum fault_kind choose_parts(uint64_t seed)
{
    int least = DISK_OF_PRIMARY_DIES, most = DISK_PROMOTION_FAILS;
    enum fault_kind kind;

    dice_seed(~seed);
    setup.warm = chance(35);
    if (chance(35)) setup.disks = between(1, DISKS);
    if (setup.warm && chance(20)) setup.applier_bytes = between(4000, 40000);
    if (setup.disks && chance(40)) setup.disk_delay_ms = between(1, 40);
    if (setup.warm) least = APPLIER_KILLED;
    if (!setup.disks) most = COPY_DESTROYED;
    kind = (setup.warm || setup.disks) && chance(60) ? (enum fault_kind)between(least, most)
                                                     : FAULT_NONE;
    if (chance(30)) setup.log_ms = between(4, 60);
    if (chance(10)) setup.late_ms = chance(30) ? between(1, 3000) : between(3000, 66000);
    setup.late_before = between(0, 60);
    if (chance(10)) setup.drop_ms = between(25000, 90000);
    return kind;
}

/* A fault of a part, and often one before or after it that makes the part needed. */
static void choose_fault_of_part(enum fault_kind kind)
{
    struct fault *f = &setup.faults[0];
    bool second = chance(50) || kind == DISK_PROMOTION_FAILS;

    if (!setup.nr_faults) return;
    if (second) {
        setup.nr_faults = 2;
        setup.faults[1] = *f;
        if (chance(70)) setup.faults[1].kind = PRIMARY_HOST_DIES;
        if (chance(30)) f->at_turn += (uint64_t)between(1, 100);
    }
    f->kind = kind;
}

/* The fault then comes while the guest is about to suspend. */
static void put_late_suspend(void)
{
    struct fault *f = &setup.faults[0];
    int64_t ms = f->at_ms - 5 * setup.late_before, turn = (int64_t)f->at_turn - setup.late_before;

    setup.nr_faults = 2;
    setup.faults[1] = *f;
    f->kind = GUEST_SUSPENDS_LATE;
    f->for_ms = setup.late_ms;
    if (f->at_turn)
        f->at_turn = turn > 1 ? (uint64_t)turn : 1;
    else
        f->at_ms = ms > 0 ? ms : 0;
}

void setup_from_seed(uint64_t seed)
{
    enum fault_kind of_part;
    int64_t length_ms;

    memset(&setup, 0, sizeof(setup));
    of_part = choose_parts(seed);
    setup.seed = seed;
    dice_seed(seed);
    choose_world();
    length_ms = 200 + (int64_t)setup.checkpoints * (setup.interval_ms + 15 + 2 * setup.delay_ms);
    setup.nr_faults = chance(4) ? 0 : chance(80) ? 1 : 2;
    for (int i = 0; i < setup.nr_faults; i++)
        choose_fault(&setup.faults[i], length_ms);
    if (setup.nr_faults == 2) {
        /* The second comes while the first is being dealt with. */
        setup.faults[1].at_turn = 0;
        setup.faults[1].at_ms = setup.faults[0].at_turn
                                    ? between(0, (int)length_ms)
                                    : setup.faults[0].at_ms + between(0, 3 * setup.limit_ms);
    }
    if (setup.nr_faults && setup.faults[0].kind != USER_STOPS && chance(70))
        setup.checkpoints += 20; /* the fault, not the count, is to end most runs */
    if (of_part) choose_fault_of_part(of_part);
    if (setup.late_ms && setup.nr_faults == 1) put_late_suspend();
}
