#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Item 1: the host of a protected guest loses power; no acknowledged write is lost, memory is consistent, one copy runs.
#   LAB_TYPES: pvh hvm hvm-nopv (15-warm does the same with PVH)
# Takes 250 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/failover.sh
. "$(dirname "$0")/failover.sh"
# shellcheck source=tests/lab/t/commit.sh
. "$(dirname "$0")/commit.sh"
step() { echo "[$SECONDS s] $*"; }

F_LOAD_SECONDS=10 F_REVIVE=1
for type in ${LAB_TYPES:-hvm hvm-nopv}; do
    fresh_hosts
    if ! failover_run "$type" guest; then
        not_ok "$type: the guest goes on at the backup"
        continue
    fi
    ok "$type: the guest goes on at the backup after $F_SECONDS s, $F_CHECKPOINTS checkpoints before"
    check "$type: $F_ACKED acknowledged writes, $F_LOST lost" test "$F_LOST" = 0 -a "$F_ACKED" -gt 0
    check "$type: memory: $F_CHECK" grep -q OK <<<"$F_CHECK"
    check "$type: it is the same boot, one copy" test "$F_SAME$F_COPIES" = yes1
    check "$type: nothing is left behind on the backup" nothing_left B
    check_numbers "$type" "$F_CAPTURE"
    note "$type pause median $(ms "$(percentile pause_us 50 "$F_STATS")") ms"
    on B xl destroy guest
done
