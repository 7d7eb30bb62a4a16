#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Disks that both hosts see: nothing is copied, and after the host is lost the guest goes on at the other one with memory, disks and
# what the client was told of one instant. The host that comes back does not get the disk; protection goes on towards it.
#   LAB_TYPES: pvh hvm
# Takes 310 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/disk.sh
. "$(dirname "$0")/disk.sh"

DATA_MB=16
fs_image=$(mktemp)
trap 'stop_load; rm -f "$fs_image"' EXIT

place_config() { # TYPE
    local first=xvda second=xvdb h
    [ "$1" = pvh ] || { first=hda; second=hdb; }
    for h in A B; do
        {
            lab guest config "$1" --name guest --mem 128 | sed 's/xt\.number/xt.disk xt.number/'
            echo "disk = [ 'script=block-remus,vdev=$first,target=remus:hostB,shared=/dev/vdb3|/dev/vdb1',"
            echo "         'script=block-remus,vdev=$second,target=remus:hostB,shared=/dev/vdb4|/dev/vdb2' ]"
        } | "$LAB_CMD" exec "$h" "cat >/etc/xen/guest.cfg"
    done
}

# New disks, new journals.
make_disks() {
    local h
    for h in A B; do
        stop_instances "$h"
        on "$h" 'rm -rf /var/lib/xentwin/guest-*'
    done
    "$LAB_CMD" exec A "dd of=/dev/vdb2 bs=1M oflag=direct iflag=fullblock status=none" <"$fs_image"
    # shellcheck disable=SC2016 # for the shell over there
    on A 'for d in 1 3 4; do dd if=/dev/zero of=/dev/vdb$d bs=1M count=1 oflag=direct status=none; done'
}

instance_key() { # HOST VDEV KEY
    on "$1" "xentwin-disk status guest $2" | tr ' ' '\n' | sed -n "s/^$3=//p"
}

refused_without_arbiter() {
    local said
    said=$(on A "xl remus guest hostB 2>&1")
    [[ $said == *"is storage that both hosts write to: name an arbiter"* ]] || { echo "$said"; return 1; }
}

refused_on() { # HOST
    local said
    said=$(on "$1" "xl create -q /etc/xen/guest.cfg 2>&1; cat /var/log/xen/xl-guest.log 2>/dev/null")
    if has_guest "$1" guest; then
        on "$1" "xl destroy guest"
        return 1
    fi
    [[ $said == *"is another host's (generation"* || $said == *"may take it over"* ]] || { echo "$said"; return 1; }
}

create_guest() { on "$1" "xl create -q /etc/xen/guest.cfg 2>&1"; } # HOST
one_of_two_starts() {
    local copies=0 pid
    create_guest A &
    pid=$!
    create_guest B
    wait "$pid"
    has_guest A guest && copies=$((copies + 1))
    has_guest B guest && copies=$((copies + 1))
    [ "$copies" = 1 ] || { echo "$copies copies"; return 1; }
}

fail_over() { lose_host "$@" --arbiter "$WITNESS_ARBITER"; } # HOST kill|freeze

one_type() {
    fresh_hosts
    rm -f "$acks"
    make_disks
    place_config "$type"
    create_guest A || return 1
    addr=$(lab guest ip guest)
    wait_for 120 guest_answers "$addr" || return 1
    wait_for 60 disk_state >/dev/null || return 1
    ok "$type: a guest with two shared disks runs"
    check "$type: without an arbiter it is not protected" refused_without_arbiter
    check "$type: while it runs the other host cannot start it" refused_on B
    fail_over A kill || return 1
    check_state "$type: after the loss of host A"
    lab start A
    place_config "$type"
    check "$type: the host that comes back cannot start it" refused_on A
    # The other direction, with a host that wakes up again.
    fail_over B freeze || return 1
    check_state "$type: after host B stood still"
    lab resume B
    wait_for 60 remus_ended B guest
    check "$type: the side that woke up does not run it" bash -c "[[ '$(guest_state B guest)' == *p* || -z '$(guest_state B guest)' ]]"
    wait_for 60 on B "xl remus --discard guest" || on B "xl destroy guest"
    sleep 3
    check_state "$type: after host B woke up"
    on A "xl destroy guest"
    check "$type: destroyed, it may be started on the other host" create_guest B
    wait_for 120 guest_answers "$addr" && wait_for 60 disk_state >/dev/null || return 1
    state=$(disk_state)
    check "$type: with the disks as they were left" test "$(state_key bad)$(state_key integrity)" = 0ok
    on B "xl destroy guest"
    check "$type: started on both hosts in the same moment, it runs on one" one_of_two_starts
    for h in A B; do on "$h" "xl destroy guest 2>/dev/null"; done
    true
}

mke2fs -q -t ext2 -F "$fs_image" "${DATA_MB}M" 2>/dev/null || { not_ok "mke2fs"; exit 0; }
# shellcheck disable=SC2086 # several words
run_types one_type ${LAB_TYPES:-pvh}
