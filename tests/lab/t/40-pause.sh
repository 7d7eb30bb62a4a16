#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Item 5: the guest's pause per checkpoint, ours and the stock xl's, same guest, same run: the ratio is printed.
#
# Both are measured from outside by the same probe in dom0 of host A: every few ms it asks the hypervisor whether the guest is shut down
# (suspended). A pause is a stretch of such answers.
#   LAB_TYPES: pvh hvm hvm-nopv (hvm only when it is named: three minutes more)
# Takes 310 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/failover.sh
. "$(dirname "$0")/failover.sh"

SAMPLE_S=${SAMPLE_S:-15}

probe() { # GUEST: milliseconds of each pause, one per line
    on A "/tmp/pauseprobe \$(xl domid $1) $SAMPLE_S" 2>/dev/null
}
median() { sort -n | awk '{v[NR] = $1} END {print NR ? v[int((NR + 1) / 2)] : 0}'; }

"$LAB_CMD" exec A "cat >/tmp/pauseprobe && chmod +x /tmp/pauseprobe" <"$T_DIR/../../../build/tests/lab/pauseprobe"
for type in ${LAB_TYPES:-pvh hvm-nopv}; do
    fresh_hosts
    addr=$(lab guest start A "$type" --name guest --mem 128) || { not_ok "$type: guest starts"; continue; }
    kv cmd "$addr" 'DIRTY 200 2000' >/dev/null
    protect A guest -i 200
    wait_protected A guest 2 || { not_ok "$type: protected"; continue; }
    probe guest >"$LOGS/pause-$type-ours"
    on A "xl remus --stop guest" >/dev/null
    wait_for 30 remus_ended A guest
    on A "setsid sh -c '/usr/sbin/xl remus -F -n -d -i 200 guest hostB >/tmp/stock.log 2>&1' </dev/null >/dev/null 2>&1 &"
    for _ in 1 2 3 4 5 6 7 8; do # the stock xl copies the whole memory first
        probe guest >"$LOGS/pause-$type-stock"
        [ "$(wc -l <"$LOGS/pause-$type-stock")" -lt 5 ] || break
    done
    ours=$(median <"$LOGS/pause-$type-ours")
    stock=$(median <"$LOGS/pause-$type-stock")
    note "$type: pause, median of $(wc -l <"$LOGS/pause-$type-ours") and $(wc -l <"$LOGS/pause-$type-stock"): ours $ours ms, stock $stock ms, ratio $(awk -v a="$ours" -v b="$stock" 'BEGIN {printf "%.2f", b ? a / b : 0}')"
    check "$type: both were measured, ours is not longer" \
        awk -v a="$ours" -v b="$stock" 'BEGIN {exit !(a > 0 && b > 0 && a <= b)}'
    on A "kill -9 \$(pgrep -f '[x]l remus'); xl destroy guest"
    on B "xl destroy guest; xl destroy guest--incoming"
done
