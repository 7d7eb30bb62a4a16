#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Disks on DRBD belong to the checkpoint, too: a guest with two of them, one with its metadata inside and one beside, is moved by a host that
# wakes up again, then by one that is frozen until DRBD's fence handler has its power cut. Memory, raw disk, database and what the outside saw agree
# each time; the side that woke up is overwritten. A fence handler that says no means that no guest is started. What cannot be guaranteed is refused,
# and DRBD that loses its connection ends the protection and not the guest.
#   Only with LAB_LONG=1.   LAB_TYPES: pvh hvm
# Takes 5 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/disk.sh
. "$T_DIR/disk.sh"

LOAD_SECONDS=${F_LOAD_SECONDS:-10}
# How long a side may be silent: these hosts have two kinds of disks to look after.
LIMIT_MS=${F_LIMIT_MS:-10000}
export LOAD_PAUSE=0.5
fs_image=$(mktemp)
trap 'stop_load; rm -f "$fs_image"' EXIT

drbd_host() { # HOST up|same|down
    "$LAB_CMD" exec "$1" "cat >/tmp/drbd-host.sh" <"$T_DIR/drbd-host.sh"
    on "$1" "bash /tmp/drbd-host.sh $2"
}

make_resources() {
    local h pids=() p
    for h in A B; do
        stop_instances $h
        # A loaded machine is no dead backup.
        on $h "rm -rf /var/lib/xentwin/guest-*; echo 'DISK_OPTIONS=\"--limit-ms 20000\"' >/etc/default/xentwin"
        drbd_host $h up &
        pids+=($!)
    done
    for p in "${pids[@]}"; do
        wait "$p" || return 1
    done
    drbd_host A same || return 1
    on A "drbdadm primary r1" || return 1
    "$LAB_CMD" exec A "dd of=/dev/drbd1 bs=1M iflag=fullblock conv=fsync status=none && drbdadm secondary r1" <"$fs_image"
}

place_config() {
    local first=xvda second=xvdb h
    [ "$type" = pvh ] || { first=hda; second=hdb; }
    for h in A B; do
        {
            lab guest config "$type" --name guest --mem 128 | sed 's/xt\.number/xt.disk xt.number/'
            echo "disk = [ 'script=block-remus,vdev=$first,target=drbd:r0', 'script=block-remus,vdev=$second,target=drbd:r1' ]"
        } | "$LAB_CMD" exec "$h" "cat >/etc/xen/guest.cfg"
    done
}

drbd_line() { on "$1" "grep -A1 '^ *$2: ' /proc/drbd"; }
snapshots() { on "$1" "dmsetup status xtpool | awk '{print \$6, \$7}'"; }

# refused RESOURCE WHAT TEXT: with a disk on it the guest on B is not protected, and runs on.
refused() {
    local said
    on B "xl block-attach guest script=block-remus,vdev=xvdc,target=drbd:$1" || return 1
    said=$(on B "timeout 150 xl remus -i 200 guest hostA 2>&1")
    note "$2: $(grep -m 1 -o 'DRBD resource.*\|/dev/.* below DRBD.*' <<<"$said" || tail -n 3 <<<"$said" | tr '\n' ';')"
    check "$2 is refused" grep -q "$3" <<<"$said"
    check "$2: the guest runs on" wait_for 20 guest_answers "$addr"
    on B "xl block-detach guest xvdc"
    wait_for 60 on B "! xentwin-disk status guest xvdc"
    check "$2: the backup's instance is not left" wait_for 60 on A "! xentwin-disk status guest xvdc"
}

# DRBD loses its connection: protection ends, the guest goes on.
cut_drbd() {
    protect A guest -i 200 --limit-ms "$LIMIT_MS"
    wait_protected A guest 2 || return 1
    ok "$type: a guest with two disks on DRBD is protected"
    note "$(on A "xl remus --status guest | grep '^disk' | tr '\n' ';'")"
    on B "drbdadm disconnect r0"
    check "$type: a lost connection ends the protection" wait_for 30 remus_ended A guest
    note "$(remus_log A guest | grep -m 1 'follow')"
    check "$type: the guest runs on without protection" wait_for 20 acks_after "$(($(last_ack) + 10))"
    on B "drbdadm connect r0"
    check "$type: nothing is left on the hosts" nothing_left A
}

protect_for_failover() { # HOST
    protect "$1" guest -i 200 --limit-ms "$LIMIT_MS" --on-link-loss=backup --arbiter "$WITNESS_ARBITER"
    wait_protected "$1" guest 2
}

# freeze: all of it stands still. fence: that too, and it is turned off once a fence handler of the other side asks for it.
fail_over() { # HOST freeze|fence
    local before began other=A
    [ "$1" = B ] || other=B
    protect_for_failover "$1" || return 1
    sleep "$LOAD_SECONDS"
    before=$(last_ack)
    lab pause "$1"
    began=$SECONDS
    if [ "$2" = fence ]; then
        check "$type: DRBD's fence handler is asked" wait_for 90 on $other "test -s /tmp/fence-asked"
        check "$type: no write is answered before the fence has answered" test "$(last_ack)" -lt "$((before + 10))"
        lab kill "$1"
        on $other "touch /tmp/fence-done"
    fi
    wait_for 150 acks_after "$((before + 10))" || return 1
    note "$type: writes are answered again $((SECONDS - began)) s after the loss of host $1"
    sleep 2
}

# Nobody can say that host A is off, so its guest does not run on B.
fence_says_no() {
    local log=/var/log/xen/xentwin-backup-guest.log
    start_guest || return 1
    fence || return 1
    # Not so on A itself, whose disks could not be given back else.
    on A "touch /tmp/fence-power /tmp/fence-done"
    on B ": >$log"
    protect_for_failover A || return 1
    lab pause A
    check "$type: a fence handler that says no is asked" wait_for 90 on B "test -s /tmp/fence-asked"
    check "$type: its no is told" wait_for 90 on B "grep -q 'drbdadm primary .*failed' $log"
    note "$(on B "grep -m 1 'drbdadm primary' $log")"
    check "$type: no guest is started then" wait_for 30 on B "grep -q 'dropping -> leaving' $log && [ \$(xl list | wc -l) = 2 ]"
    lab resume A
}

# A woke up: its DRBD has writes that no checkpoint has, and must not keep them.
wake_up() {
    lab resume A
    wait_for 60 remus_ended A guest
    wait_for 60 on A "xl remus --discard guest" || on A "xl destroy guest"
    check "$type: the old side refuses to start the guest" refuses_stale A
    note "hostA: $(drbd_line A 0 | head -n 1)"
    note "hostB: $(drbd_line B 0 | head -n 1)"
}

fence() {
    drbd_host A fence && drbd_host B fence
}

start_guest() {
    fresh_hosts
    rm -f "$acks"
    make_resources || return 1
    place_config
    on A "xl create -q /etc/xen/guest.cfg" || return 1
    addr=$(lab guest ip guest)
    wait_for 240 guest_answers "$addr" || return 1
    wait_for 120 disk_state >/dev/null
}

all_of() {
    start_guest || return 1
    start_load || return 1
    cut_drbd || return 1
    fail_over A freeze || return 1
    check_state "$type: failover 1 (freeze)"
    wake_up
    refused ra "protocol A" "protocol A" || return 1
    refused rl "a backing device that is no thin volume" "no LVM thin volume" || return 1
    start_load "$(last_ack)" || return 1
    fence || return 1
    on A "touch /tmp/fence-power"
    fail_over B fence || return 1
    check_state "$type: failover 2 (fence)"
    on A "xl destroy guest"
    check "$type: no instance is left" on A "! pgrep -a xentwin-drbd"
    fence_says_no
}

one_type() {
    all_of && return
    for h in A B; do drbd_line $h 0; drbd_line $h 1; on $h "dmesg | grep -i drbd | tail -n 20"; done
    return 1
}

if [ -z "${LAB_LONG-}" ]; then
    skip "drbd: its failovers take ten minutes and more that CI does not have; LAB_LONG=1 runs them"
    exit 0
fi
mke2fs -q -t ext2 -F "$fs_image" 16M 2>/dev/null || { not_ok "mke2fs"; exit 0; }
# shellcheck disable=SC2086 # several words
run_types one_type ${LAB_TYPES:-pvh}
for h in A B; do
    drbd_host $h down
    on $h "rm -f /etc/default/xentwin"
done
