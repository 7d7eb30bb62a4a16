#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# The disk belongs to the checkpoint: a guest with two replicated disks writes one number to memory, to a raw disk and to a
# database, and sends it out. After each failover, by a dead host or by a host that wakes up again, all four agree; the old side
# does not serve its stale disk; protection goes on in the other direction.
#   LAB_TYPES: pvh hvm hvm-nopv   LAB_LOOPS: failovers per type; by default two of pvh and one of hvm
# Takes 470 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/disk.sh
. "$(dirname "$0")/disk.sh"

RAW_MB=1 DATA_MB=16

fs_image=$(mktemp)
trap 'stop_load; rm -f "$fs_image"' EXIT

# The disks of a host that has none: nothing on them but, where the guest is created, a file system.
make_disks() { # HOST [fs]
    stop_instances "$1"
    on "$1" "rm -rf /srv/disk /var/lib/xentwin/guest-*; mkdir -p /srv/disk; cd /srv/disk
        truncate -s ${RAW_MB}M a.img; truncate -s ${DATA_MB}M b.img"
    [ "${2-}" != fs ] || "$LAB_CMD" exec "$1" "cat >/srv/disk/b.img" <"$fs_image"
}

place_config() { # TYPE
    local first=xvda second=xvdb h
    [ "$1" = pvh ] || { first=hda; second=hdb; }
    for h in A B; do
        {
            lab guest config "$1" --name guest --mem 128 | sed 's/xt\.number/xt.disk xt.number/'
            echo "disk = [ 'script=block-remus,vdev=$first,target=remus:hostB|/srv/disk/a.img',"
            echo "         'script=block-remus,vdev=$second,target=remus:hostB|/srv/disk/b.img' ]"
        } | "$LAB_CMD" exec "$h" "cat >/etc/xen/guest.cfg"
    done
}

fail_over() { lose_host "$@" --on-link-loss=backup --arbiter "$WITNESS_ARBITER"; } # HOST kill|freeze

# The frozen side wakes up: it must neither run nor serve.
wake_up() { # HOST
    lab resume "$1"
    wait_for 60 remus_ended "$1" guest
    check "$type: the side that woke up does not run it" bash -c "[[ '$(guest_state "$1" guest)' == *p* || -z '$(guest_state "$1" guest)' ]]"
    wait_for 60 on "$1" "xl remus --discard guest" || on "$1" "xl destroy guest"
    check "$type: the old side refuses to start it on the stale disk" refuses_stale "$1"
}

one_type() {
    local host=A i how loops=${LAB_LOOPS:-1}
    [ -n "${LAB_LOOPS-}" ] || [ "$type" != pvh ] || loops=2
    fresh_hosts
    rm -f "$acks"
    make_disks A fs
    make_disks B
    place_config "$type"
    on A "xl create -q /etc/xen/guest.cfg" || return 1
    addr=$(lab guest ip guest)
    wait_for 120 guest_answers "$addr" || return 1
    wait_for 60 disk_state >/dev/null || return 1
    ok "$type: a guest with two disks of block-remus runs"
    for ((i = 1; i <= loops; i++)); do
        if [ $((i % 2)) = 1 ]; then how="kill"; else how=freeze; fi
        if ! fail_over "$host" $how; then
            stop_load
            return 1
        fi
        check_state "$type: failover $i ($how)"
        if [ $how = kill ]; then
            lab start "$host" && make_disks "$host" && place_config "$type"
        else
            wake_up "$host"
        fi
        host=$(other "$host")
    done
    # Back again, and an end on purpose: the disk goes on here.
    protect "$host" guest -i 200
    wait_protected "$host" guest 2 || return 1
    ok "$type: protected in the other direction after $loops failovers"
    start_load "$(last_ack)" || return 1
    check "$type: xl remus --stop" on "$host" "xl remus --stop guest"
    wait_for 30 acks_after "$(($(last_ack) + 5))"
    check_state "$type: after the end"
    on "$host" "xl destroy guest"
    check "$type: no instance and no nbd device is left" no_disk_left "$host"
}
no_disk_left() {
    # The instances of the other side are backups without a link, which wait.
    ! on "$1" "pgrep -a nbdkit; cat /sys/block/nbd*/pid 2>/dev/null" | grep .
}

mke2fs -q -t ext2 -F "$fs_image" "${DATA_MB}M" 2>/dev/null || { not_ok "mke2fs"; exit 0; }
# shellcheck disable=SC2086 # several words
run_types one_type ${LAB_TYPES:-pvh hvm}
