#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Item 2: no frame of epoch n leaves before the backup acknowledged checkpoint n; judged by captures on the public LAN.
#
# The guest numbers what it sends (UDP, ARP, IPv6 UDP, IPv6 neighbour solicitation). The number is part of its memory: the twin goes on from
# the number N of the last acknowledged checkpoint. So whatever host A let out before its death must be <= N, and what B lets out
# first is > N: the highest number seen from A is lower than the lowest from B (10-failover does this for every type). And by the clock: with a checkpoint every
# second, A's frames come in bursts, each right after an acknowledgement in the log of xl remus, never between.
# Takes 100 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/commit.sh
. "$(dirname "$0")/commit.sh"

BURST_S=0.4 # from the logged acknowledgement to the last frame of its burst, on emulated hosts

# Times of A's numbered frames against the acknowledgements: counts frames that are not within BURST_S after one.
strays() { # CAPTURE ACKS OFFSET
    tcpdump -nn -tt -r "$1" "ip and udp port $2" 2>/dev/null | cut -d' ' -f1 |
        awk -v off="$4" -v burst="$BURST_S" '
            FNR == NR {ack[++n] = $1 + off; next}
            $1 > ack[1] && $1 < ack[n] {
                seen++
                while (i < n && ack[i + 1] <= $1) i++
                if ($1 - ack[i] > burst) stray++
            }
            END {print seen + 0, stray + 0}' "$3" -
}

clock_offset() { # the build machine's clock minus host A's, seconds
    lab clock A | awk '{printf "%.6f", $2 / 1e9}'
}

run_type() {
    local type=$1 addr cap=$LOGS/commit-$1 seen stray port offset
    fresh_hosts
    rm -f "$cap".*
    addr=$(lab guest start A "$type" --name guest --mem 128) || { not_ok "$type: guest starts"; return; }
    lab capture start "$cap" >/dev/null
    protect A guest -i 1000 --arbiter "$WITNESS_ARBITER"
    wait_protected A guest 2 || { not_ok "$type: protected"; lab capture stop "$cap"; return; }
    kv cmd "$addr" 'CHATTER 20' >/dev/null
    sleep 15
    offset=$(clock_offset)
    on A "sed -n 's/.*\"released_us\":\([0-9]*\).*/\1/p' /var/log/remus-guest.json" |
        awk '{printf "%.6f\n", $1 / 1e6}' >"$cap.times"
    lab kill A
    wait_for 120 guest_answers "$addr" || { not_ok "$type: failover"; lab capture stop "$cap"; return; }
    revive A
    sleep 3
    lab capture stop "$cap"
    check_numbers "$type" "$cap"
    port=$(tcpdump -nn -r "$cap.A" 'ip and udp and dst net 192.0.2.255' -c 1 2>/dev/null | sed -n 's/.*> [0-9.]*\.\([0-9]*\): .*/\1/p')
    read -r seen stray < <(strays "$cap.A" "${port:-7001}" "$cap.times" "$offset")
    check "$type: $seen frames in bursts after acknowledgements, $stray between (clock offset $offset s)" \
        test "$seen" -gt 20 -a "$stray" -eq 0
    on B xl destroy guest
}

for type in ${LAB_TYPES:-pvh}; do run_type "$type"; done
