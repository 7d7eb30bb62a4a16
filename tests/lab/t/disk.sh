# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# A guest that writes one number to memory, to a raw disk and to a database, and tells it: what the tests of its disks share.
# The script sets T_DIR, LAB_CMD and LOGS (lib.sh) and `addr`, the guest's address.

acks=$LOGS/disk.acks
load_pid=
stop_load() {
    [ -z "$load_pid" ] || { kill "$load_pid" && wait "$load_pid"; } 2>/dev/null
    load_pid=
}

stop_instances() {
    # shellcheck disable=SC2016 # for the shell over there
    on "$1" 'for d in /run/xentwin/disk-guest-*; do [ ! -d "$d" ] || xentwin-disk stop guest "${d##*-}"; done'
}

# shellcheck disable=SC2154 # addr is the script's
disk_state() { timeout 90 "$LAB_CMD" netns bash "$T_DIR/disk-load.sh" "$addr" </dev/null; }
state_key() { tr ' ' '\n' <<<"$state" | sed -n "s/^$1=//p"; }
last_ack() { tail -n 1 "$acks" 2>/dev/null | cut -d' ' -f2; }
acks_after() { [ "$(last_ack || echo 0)" -gt "$1" ]; }

start_load() {
    "$LAB_CMD" netns bash "$T_DIR/disk-load.sh" "$addr" "$acks" </dev/null >/dev/null 2>&1 &
    load_pid=$!
    wait_for 60 acks_after "${1:-0}"
}

# Memory, raw disk and database say the same number, it is the one that was told last, and nothing before it is missing.
check_state() { # WHAT
    local acked
    stop_load
    acked=$(last_ack)
    state=$(disk_state) || { sleep 3 && state=$(disk_state); }
    note "$1: told $acked, $state"
    check "$1: memory and disks are of one instant" \
        test "$(state_key mem)" = "$(state_key raw)" -a "$(state_key mem)" = "$(state_key sql)" -a "$(state_key mem)" = "$(state_key rows)"
    # One write may have been under way when the load was stopped.
    check "$1: the outside was told $acked" \
        test "$(state_key mem)" -ge "$acked" -a "$(state_key mem)" -le "$((acked + 1))"
    check "$1: nothing is missing on the raw disk" test "$(state_key bad)" = 0
    check "$1: pragma integrity_check" test "$(state_key integrity)" = ok
}

# lose_host HOST kill|freeze OPTION...: the guest is protected with these options of xl remus, has work to do, and leaves HOST.
lose_host() {
    local host=$1 how=$2 before began
    shift 2
    protect "$host" guest -i 200 "$@"
    wait_protected "$host" guest 2 || return 1
    start_load "$(last_ack || echo 0)" || { echo "no write is acknowledged"; return 1; }
    sleep "${F_LOAD_SECONDS:-10}"
    before=$(last_ack)
    note "$type: $(on "$host" "xl remus --status guest | grep '^disk' | tr '\n' ';'")"
    if [ "$how" = kill ]; then lab kill "$host"; else lab pause "$host"; fi
    began=$SECONDS
    # What was under way may still be answered; ten more cannot.
    wait_for 150 acks_after "$((before + 10))" || return 1
    note "$type: writes are answered again $((SECONDS - began)) s after the loss of host $host"
    sleep 3
}

# run_types FUNCTION TYPE...: for each of them as $type; then nothing of it is left on the hosts.
run_types() {
    local call=$1 h
    shift
    for type in "$@"; do
        "$call" && continue
        not_ok "$type: see the end of the log"
        say_hosts
    done
    stop_load
    fresh_hosts
    for h in A B; do
        stop_instances "$h"
    done
}

say_hosts() {
    local h
    for h in A B; do
        echo "--- host$h:"
        lab exec --timeout 20 "$h" "xl list; xl remus --status; tail -n 15 /var/log/remus-guest.log /var/log/xen/xentwin-backup-guest.log;
            tail -n 5 /var/log/xen/xen-hotplug.log /var/log/xen/xl-guest*.log; dmesg | tail -n 5" 2>&1
    done
}

# The configuration is there, and the guest is not to start.
refuses_stale() {
    local said
    said=$(on "$1" "xl create -q /etc/xen/guest.cfg 2>&1; cat /var/log/xen/xl-guest.log 2>/dev/null")
    if has_guest "$1" guest; then
        on "$1" "xl destroy guest"
        return 1
    fi
    grep -m 1 -o 'block-remus: .*' <<<"$said"
    return 0
}
