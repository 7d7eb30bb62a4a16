# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash disable=SC2034 # the F_ variables are read by whoever sources this
# The main job once: a guest on A under write load, protected to B, A loses power, the guest goes on at B.
# Used by the demo and by the failover tests. Source lib.sh first.

# number FIELD PERCENTILE FILE: of a --stats file's column.
percentile() {
    sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$3" | sort -n |
        awk -v p="$2" '{v[NR] = $1} END {if (!NR) {print 0; exit}
            i = int((NR * p + 99) / 100); if (i < 1) i = 1; print v[i]}'
}
ms() { awk -v us="$1" 'BEGIN {printf "%.1f", us / 1000}'; }
seconds_between() { awk -v a="$1" -v b="$2" 'BEGIN {printf "%.1f", (b - a) / 1e9}'; }
now_ns() { awk '{printf "%.0f", $1 * 1e9}' /proc/uptime; }

# failover_run TYPE GUEST: starts it with the options of the array F_GUEST, calls F_PROTECT, protects with those of F_OPTIONS, calls F_BEFORE
# before the loss; with F_REVIVE host A boots again as soon as the guest goes on; sets the other F_ variables; returns 1 with a message when
# it cannot even be tried.
failover_run() {
    local type=$1 guest=$2 load_pid kill_ns
    F_ACKED=0 F_LOST=1 F_SECONDS=- F_DETECT=- F_CHECK='' F_COPIES=0 F_CHECKPOINTS=0
    F_STATS=$LOGS/failover-$type.json F_LOG=$LOGS/failover-$type.acks F_CAPTURE=$LOGS/failover-$type.cap
    rm -f "$F_LOG" "$F_STATS" "$F_CAPTURE".*
    [ -v F_GUEST ] || F_GUEST=()
    step "start a $type guest on host A"
    lab guest start A "$type" --name "$guest" --mem 128 "${F_GUEST[@]}" || return 1
    F_ADDR=$(lab guest ip "$guest") || return 1
    wait_for 90 guest_answers "$F_ADDR" || { echo "the guest does not answer"; return 1; }
    kv cmd "$F_ADDR" 'DIRTY 200 2000' >/dev/null
    F_ID=$(kv cmd "$F_ADDR" ID)
    [ -v F_OPTIONS ] || F_OPTIONS=(--on-link-loss=backup --arbiter "$WITNESS_ARBITER")
    [ -z "${F_PROTECT-}" ] || "$F_PROTECT"
    step "protect it: xl remus ${F_OPTIONS[*]} $guest hostB"
    protect A "$guest" -i 200 "${F_OPTIONS[@]}"
    wait_protected A "$guest" 2 || return 1
    lab capture start "$F_CAPTURE" >/dev/null
    kv cmd "$F_ADDR" 'CHATTER 50' >/dev/null
    step "write keys from a client on the public LAN"
    "$LAB_CMD" kv load "$F_ADDR" --log "$F_LOG" --rate 50 --seconds 240 >"$LOGS/load-$type.log" 2>&1 </dev/null &
    load_pid=$!
    sleep "${F_LOAD_SECONDS:-20}"
    on A "cat /var/log/remus-$guest.json" >"$F_STATS"
    remus_log A "$guest" >"$LOGS/failover-$type.remus.log"
    F_CHECKPOINTS=$(wc -l <"$F_STATS")
    [ -z "${F_BEFORE-}" ] || "$F_BEFORE"
    step "host A loses power (SIGKILL of its QEMU)"
    kill_ns=$(now_ns)
    lab kill A || return 1
    step "the guest goes on at host B"
    if ! wait_for 120 acked_after "$F_LOG" "$kill_ns"; then
        echo "no write was acknowledged within 120 s after the loss of host A; host B says:"
        on B "tail -n 30 /var/log/xen/xentwin-backup-*.log; xl list"
        kill "$load_pid" 2>/dev/null
        return 1
    fi
    [ -z "${F_REVIVE-}" ] || revive A
    sleep 5
    lab capture stop "$F_CAPTURE"
    kill -TERM "$load_pid" 2>/dev/null
    wait "$load_pid" 2>/dev/null
    F_SECONDS=$(seconds_between "$kill_ns" "$(first_ack_after "$F_LOG" "$((kill_ns + 500000000))")")
    F_DETECT=$(on B "sed -n 's/.*nothing heard from the peer for \([0-9]*\) ms.*/\1/p' /var/log/xen/xentwin-backup-$guest.log | tail -n 1")
    step "compare: every acknowledged write must be there"
    F_VERIFY=$(kv verify "$F_ADDR" --log "$F_LOG" | tail -n 1)
    F_ACKED=$(sed -n 's/.*acknowledged \([0-9]*\).*/\1/p' <<<"$F_VERIFY")
    F_LOST=$(sed -n 's/.*lost \([0-9]*\).*/\1/p' <<<"$F_VERIFY")
    F_CHECK=$(kv cmd "$F_ADDR" CHECK)
    F_SAME=no
    [ "$(kv cmd "$F_ADDR" ID)" = "$F_ID" ] && F_SAME=yes
    guest_runs B "$guest" && F_COPIES=1
    F_ACKED=${F_ACKED:-0} F_LOST=${F_LOST:-1}
}

# The acknowledgement log: "<CLOCK_MONOTONIC ns> key value seq" per line.
first_ack_after() { awk -v t="$2" '$1 > t {print $1; exit}' "$1"; }
# A write that was under way at the kill may still be answered: half a second does not count.
acked_after() { [ -n "$(first_ack_after "$1" "$(($2 + 500000000))")" ]; }
