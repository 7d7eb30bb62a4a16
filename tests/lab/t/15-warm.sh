#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# The warm twin: a complete, paused domain on the backup, kept at the newest checkpoint. Failover of the same guest, cold, warm and (PVH) by
# the stock xl, from the detection of the loss to the guest's first frame; then the ends at which nothing may be left. The warm failover is
# judged by the numbers in the guest's frames, too (20-output-commit).
#   LAB_TYPES: pvh hvm hvm-nopv (10-failover has warm twins of all three)
# Takes 350 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/failover.sh
. "$(dirname "$0")/failover.sh"
# shellcheck source=tests/lab/t/commit.sh
. "$(dirname "$0")/commit.sh"
step() { echo "[$SECONDS s] $*"; }

F_LOAD_SECONDS=10 F_REVIVE=1
STOCK_COPY_S=${STOCK_COPY_S:-45} # the stock xl says nothing about its checkpoints

twin_is() { on B "xl remus --status guest | grep -q 'twin: $1\$'"; }
twin_waits() { on B "xl list guest--incoming | awk 'NR == 2 && \$5 ~ /p/ {f = 1} END {exit !f}'"; }
no_twin() { ! on B "xl list | grep -q guest" && ! on B "pgrep -f '[x]entwin-apply|[q]emu.*guest--incoming'"; }
complete() {
    check "$type: the twin is complete" wait_for 120 twin_is warm
    check "$type: xl list shows it paused" twin_waits
}

# Seconds of this machine's CLOCK_REALTIME. The twin's log has host B's clock.
decided_at() {
    local at off
    at=$(on B "sed -n 's/^\([0-9-]* [0-9:.]*\)Z .*starting the guest here.*/\1/p' /var/log/xen/xentwin-backup-guest.log | tail -n 1")
    off=$(lab clock B | awk '{print $2}')
    awk -v t="$(TZ=UTC date -d "$at" +%s.%N)" -v off="$off" 'BEGIN {printf "%.3f", t + off / 1e9}'
}
# When the guest's first frame came from host B: CAPTURE ADDRESS.
first_frame() { tcpdump -nn -tt -r "$1.B" "src host $2" 2>/dev/null | awk '{print $1; exit}'; }
passed() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.2f", b - a}'; }

declare -A after
run() { # warm|cold
    local name="$type $1" F_BEFORE='' F_OPTIONS=(--on-link-loss=backup "--twin=$1")
    [ "$1" = cold ] || F_BEFORE=complete
    fresh_hosts
    failover_run "$type" guest || { not_ok "$name: the guest goes on at the backup"; return; }
    after[$1]=$(passed "$(decided_at)" "$(first_frame "$F_CAPTURE" "$F_ADDR")")
    ok "$name: the guest's first frame ${after[$1]} s after the loss was detected, first acknowledged write $F_SECONDS s after it happened"
    check "$name: $F_ACKED acknowledged writes, $F_LOST lost" test "$F_LOST" = 0 -a "$F_ACKED" -gt 0
    check "$name: memory: $F_CHECK" grep -q OK <<<"$F_CHECK"
    check "$name: it is the same boot, one copy" test "$F_SAME$F_COPIES" = yes1
    check "$name: nothing is left behind on the backup" nothing_left B
    [ "$1" = cold ] || check_numbers "$name" "$F_CAPTURE"
    check "$name: no word of the twin is left in the configuration" on B "! xl list -l guest | grep -q defer"
    on B "cat /var/log/xen/xentwin-backup-guest.log" >"$LOGS/warm-$type-$1.log"
    on B xl destroy guest
}

# The stock xl never detects the loss; we do it for it by ending the connection to its receiver.
run_stock() {
    local cap=$LOGS/warm-stock.cap lost
    fresh_hosts
    rm -f "$cap".*
    addr=$(lab guest start A "$type" --name guest --mem 128) || { not_ok "$type stock: guest starts"; return; }
    kv cmd "$addr" 'DIRTY 200 2000' >/dev/null
    on A "setsid sh -c '/usr/sbin/xl remus -F -n -d -i 200 guest hostB >/tmp/stock.log 2>&1' </dev/null >/dev/null 2>&1 &"
    wait_for 60 has_guest B guest--incoming
    check "$type stock: our xl remus --status names the copy that no twin looks after" \
        on B "xl remus --status | grep -q 'guest--incoming, is here'"
    sleep "$STOCK_COPY_S"
    lab capture start "$cap" >/dev/null
    lab kill A
    lost=$EPOCHREALTIME
    on B "kill -9 \$(ps -o ppid= -p \$(pgrep -of 'xl migrate-receive'))"
    revive A
    if wait_for 90 guest_answers "$addr"; then
        lab capture stop "$cap"
        after[stock]=$(passed "$lost" "$(first_frame "$cap" "$addr")")
    else
        lab capture stop "$cap"
        note "$type stock: no answer within 90 s"
    fi
    on B "xl destroy guest; xl destroy guest--incoming"
}

protect_warm() {
    fresh_hosts
    addr=$(lab guest start A "$type" --name guest --mem 128) || { not_ok "$type: guest starts"; return 1; }
    protect A guest -i 200 --twin=warm
    wait_protected A guest 2 || { not_ok "$type: protected"; return 1; }
    complete
}

ends() {
    protect_warm || return
    on B "kill -9 \$(pgrep -of '[x]entwin-apply')"
    has=$(checkpoints A guest)
    check "$type: an applier that is killed is started again" wait_for 60 has_checkpoints A guest $((has + 3))
    on A "xl remus --stop guest" >/dev/null
    wait_for 60 remus_ended A guest
    check "$type: --stop leaves no twin" wait_for 30 no_twin
    check "$type: nothing is left on B" nothing_left B

    protect A guest -i 200 --twin=warm
    wait_protected A guest 2 || { not_ok "$type: protected again"; return; }
    complete
    on B "kill -9 \$(pgrep -of '[m]igrate-receive.*--replication')"
    check "$type: a twin whose keeper is killed goes away" wait_for 90 no_twin
    on B "xl remus --status"
    check "$type: and nothing is left of it once xl remus --status has looked" nothing_left B
    check "$type: the guest goes on at the primary" wait_for 60 guest_answers "$addr"
    wait_for 60 remus_ended A guest
    on A "xl destroy guest"
}

for type in ${LAB_TYPES:-pvh}; do
    after=()
    for twin in ${LAB_TWINS:-cold warm stock}; do
        if [ "$twin" != stock ]; then run "$twin"; elif [ "$type" = pvh ]; then run_stock; fi
    done
    note "$type: from detection to the guest's first frame: cold ${after[cold]-?} s, warm ${after[warm]-?} s, stock ${after[stock]-?} s"
    [ -z "${after[cold]-}" ] || check "$type: a warm twin is faster" awk -v w="${after[warm]-99}" -v c="${after[cold]-0}" 'BEGIN {exit !(w < c)}'
    [ -z "${after[stock]-}" ] || check "$type: a warm twin is faster than the stock xl" \
        awk -v w="${after[warm]-99}" -v s="${after[stock]}" 'BEGIN {exit !(w < s)}'
    [ "$type" = hvm-nopv ] || ends
done
