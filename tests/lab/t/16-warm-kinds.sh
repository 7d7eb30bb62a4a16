#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Warm twins of guests that are more than the smallest one: each loses its host, and goes on as it was.
#   LAB_KINDS:
#   balloon  PVH, 2 of 3 vcpus, given less and more memory while it is protected
#   vga      HVM without PV drivers, 2 of 3 vcpus, a graphics card with a picture that changes, VNC display
#   smp      HVM with PV drivers, 2 of 3 vcpus; not by default: on one emulated CPU its two need seconds to suspend
# Takes 330 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=tests/lab/t/failover.sh
. "$(dirname "$0")/failover.sh"
step() { echo "[$SECONDS s] $*"; }

PICTURE_BYTES=$((640 * 480 * 3))
SMP=(--vcpus 2 --maxvcpus 3)

twin_is_warm() { on B "xl remus --status guest | grep -q 'twin: warm\$'"; }
mib() { on "$1" "xl list $2 2>/dev/null | awk 'NR == 2 {print \$3}'"; }
has_mib() { [ "$(mib "$1" "$2")" = "$3" ]; }
online_vcpus() { on "$1" "xl vcpu-list guest | awk 'NR > 1 && \$4 != \"-\" {n++} END {print n + 0}'"; }

give_memory() { # MIB
    on A "xl mem-set guest $1"
    check "$kind: the guest has $1 MiB" wait_for 60 has_mib A guest "$1"
    check "$kind: its twin has $1 MiB" wait_for 90 has_mib B guest--incoming "$1"
}
before_balloon() { on A 'xl mem-set guest 112'; wait_for 60 has_mib A guest 112; }
during_balloon() {
    give_memory 104
    give_memory 124
}
after_balloon() {
    sleep 5 # it would go back by itself, were the backup's xenstore older
    check "$kind: it keeps its memory: $(mib B guest) MiB" has_mib B guest 124
    check "$kind: its vcpus run: $(online_vcpus B)" test "$(online_vcpus B)" = 2
}

during_vga() {
    check "$kind: a picture is drawn" test "$(kv cmd "$F_ADDR" 'SCREEN 100')" = OK
    local has
    has=$(checkpoints A guest)
    # Whoever looks at the display has QEMU clear dirty bits of its own.
    shown A >/dev/null
    check "$kind: checkpoints with a changing picture" wait_for 90 has_checkpoints A guest $((has + 5))
    shown A >/dev/null
}
# What QEMU shows on a host, as cksum(1) of the pixels.
shown() {
    on "$1" "rm -f /tmp/picture.ppm
        { echo '{\"execute\":\"qmp_capabilities\"}'; sleep 1
          echo '{\"execute\":\"screendump\",\"arguments\":{\"filename\":\"/tmp/picture.ppm\"}}'; sleep 4; } |
            socat - UNIX-CONNECT:/run/xen/qmp-libxl-\$(xl domid guest) >/dev/null
        tail -c $PICTURE_BYTES /tmp/picture.ppm | cksum | cut -d' ' -f1"
}
after_vga() {
    local drawn
    check "$kind: the picture stands still" test "$(kv cmd "$F_ADDR" 'SCREEN 0')" = OK
    drawn=$(kv cmd "$F_ADDR" 'SCREEN SUM')
    check "$kind: QEMU shows what the guest drew: $drawn" test "$drawn" = "SUM $(shown B)"
    check "$kind: the display is there" on B "xl list -l guest | grep -q vnc && ss -ltn 2>/dev/null | grep -q 127.0.0.1:590"
    check "$kind: its vcpus run: $(online_vcpus B)" test "$(online_vcpus B)" = 2
}

during_smp() { :; }
after_smp() { check "$kind: its vcpus run: $(online_vcpus B)" test "$(online_vcpus B)" = 2; }

before_loss() {
    check "$kind: the twin is complete" wait_for 120 twin_is_warm
    "during_$kind"
}

run() {
    local type=$1 F_BEFORE=before_loss F_PROTECT='' F_LOAD_SECONDS=5 F_REVIVE=1 F_GUEST=("${@:2}")
    local F_OPTIONS=(--on-link-loss=backup --arbiter "$WITNESS_ARBITER" --twin=warm)
    [ "$kind" != balloon ] || F_PROTECT=before_balloon
    fresh_hosts
    failover_run "$type" guest || { not_ok "$kind: the guest goes on at the backup"; return; }
    ok "$kind: the guest goes on at the backup after $F_SECONDS s"
    check "$kind: $F_ACKED acknowledged writes, $F_LOST lost" test "$F_LOST" = 0 -a "$F_ACKED" -gt 0
    check "$kind: memory: $F_CHECK" grep -q OK <<<"$F_CHECK"
    check "$kind: it is the same boot, one copy" test "$F_SAME$F_COPIES" = yes1
    "after_$kind"
    check "$kind: nothing is left behind on the backup" nothing_left B
    on B "cat /var/log/xen/xentwin-backup-guest.log" >"$LOGS/warm-kind-$kind.log"
    on B xl destroy guest
}

for kind in ${LAB_KINDS:-balloon vga}; do
    case $kind in
        balloon) run pvh "${SMP[@]}" ;;
        vga) run hvm-nopv "${SMP[@]}" --vga ;;
        smp) run hvm "${SMP[@]}" ;;
        *) not_ok "LAB_KINDS: '$kind' is not a kind" ;;
    esac
done
