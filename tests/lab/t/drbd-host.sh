#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Runs in dom0. drbd-host.sh up: DRBD resources on loop devices, new and all zero (down: gone). r0: 2 MiB, thin, its metadata inside; r1: 20 MiB, thin, its
# metadata beside it; ra: protocol A; rl: no thin volume below it. drbd-host.sh same: what is new on both counts as the same.
# drbd-host.sh fence: r0 and r1 ask xt-fence before they do without the other side. It says no, or, with /tmp/fence-power, waits until somebody
# has turned the other side off, made /tmp/fence-done, and says so. What it was asked is in /tmp/fence-asked.
set -eu
# There is no udev in this dom0: dmsetup makes the nodes.
export DM_DISABLE_UDEV=1

thin() { # NAME NUMBER MIB
    dmsetup message xtpool 0 "create_thin $2"
    dmsetup create "$1" --table "0 $(($3 * 2048)) thin /dev/mapper/xtpool $2"
}

loop_file() { # NAME MIB
    truncate -s "$2M" "/srv/drbd/$1.img"
    losetup -f --show "/srv/drbd/$1.img"
}

resource() { # NAME MINOR PROTOCOL DISK META
    cat >"/etc/drbd.d/$1.res" <<RES
resource $1 {
    net { protocol $3; ping-timeout 100; timeout 90; }
    device /dev/drbd$2;
    disk $4;
    meta-disk $5;
    on hostA { address 198.51.100.11:$((7789 + $2)); }
    on hostB { address 198.51.100.12:$((7789 + $2)); }
}
RES
}

up() {
    local n
    down
    modprobe -a drbd dm_thin_pool
    mkdir -p /srv/drbd
    dmsetup create xtpool \
        --table "0 $((100 * 2048)) thin-pool $(loop_file meta 4) $(loop_file data 100) 128 0"
    thin xt-r0 1 2
    thin xt-r1 2 20
    resource r0 0 C /dev/mapper/xt-r0 internal
    resource r1 1 C /dev/mapper/xt-r1 "$(loop_file md1 1)"
    resource ra 2 A "$(loop_file async 2)" internal
    resource rl 3 C "$(loop_file plain 2)" internal
    for n in r0 r1 ra rl; do
        drbdadm create-md --force "$n" >/dev/null 2>&1
        drbdadm up "$n"
    done
}

down() {
    local n
    for n in r0 r1 ra rl; do
        [ ! -e "/etc/drbd.d/$n.res" ] || drbdadm down "$n" || true
        rm -f "/etc/drbd.d/$n.res"
    done
    for n in xt-r0 xt-r1 xtpool; do
        ! dmsetup info "$n" >/dev/null 2>&1 || dmsetup remove "$n"
    done
    for n in /srv/drbd/*.img; do
        [ ! -e "$n" ] || losetup -j "$n" | cut -d: -f1 | xargs -r losetup -d
    done
    rm -rf /srv/drbd /usr/local/sbin/xt-fence /tmp/fence-*
}

fence() {
    rm -f /tmp/fence-*
    cat >/usr/local/sbin/xt-fence <<'HANDLER'
#!/bin/sh
echo "$DRBD_RESOURCE" >>/tmp/fence-asked
[ -e /tmp/fence-power ] || exit 1
for _ in $(seq 50); do
    [ ! -e /tmp/fence-done ] || exit 7
    sleep 1
done
exit 1
HANDLER
    chmod 755 /usr/local/sbin/xt-fence
    sed -i '2i\    handlers { fence-peer /usr/local/sbin/xt-fence; }' /etc/drbd.d/r[01].res
    sed -i '2i\    disk { fencing resource-and-stonith; }' /etc/drbd.d/r0.res
    sed -i '2i\    disk { fencing resource-only; }' /etc/drbd.d/r1.res
    drbdadm adjust r0
    drbdadm adjust r1
}

same() {
    local n
    for n in r0 r1 ra rl; do
        drbdadm wait-connect "$n" >/dev/null
        drbdadm -- --clear-bitmap new-current-uuid "$n"
    done
    cat /proc/drbd
}

"$1"
