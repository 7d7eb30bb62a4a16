#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Our libxl-save-helper under the stock xl: save, restore and migrate with a stock partner on either side, streams judged by
# Debian's verify-stream-v2, and what is left after a broken pipe, SIGTERM, and the death of xl.
# shellcheck disable=SC2317 # most functions are called through check
# Takes 770 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"

XL=/usr/sbin/xl
OURS="LIBXL_SAVE_HELPER=/usr/local/libexec/xentwin/libxl-save-helper"
VERIFY="PYTHONPATH=/usr/lib/xen-4.17/lib/python python3 /usr/lib/xen-4.17/bin/verify-stream-v2 -f xl -i"
addr='' id='' value=''

begin() { # TYPE [OPTIONS of lab guest start]: a fresh guest on A with something to lose
    addr=$(lab guest start A "$@") || return 1
    remember
}
remember() {
    id=$(kv cmd "$addr" ID)
    value=$RANDOM$RANDOM
    kv cmd "$addr" "SET key $value" >/dev/null
    kv cmd "$addr" 'DIRTY 200 1000' >/dev/null
    sleep 2
}
same_guest() { # it is the one that we began with, and its memory is what it should be
    wait_for 40 guest_answers "$addr" || return 1
    [ "$(kv cmd "$addr" ID)" = "$id" ] || return 1
    [ "$(kv cmd "$addr" 'GET key')" = "VAL $value" ] || return 1
    [[ $(kv cmd "$addr" CHECK) == 'CHECK OK '* ]]
}
log_dirty_is_off() { [ "$(on "$1" "/tmp/logdirty \$($XL domid $2)")" = off ]; }
is_verified() { on "$1" "$VERIFY $2"; }
end() {
    on A "$XL destroy $1 2>/dev/null"
    on B "$XL destroy $1 2>/dev/null"
    on A "rm -f /var/tmp/ours /var/tmp/stock"
    true
}

install_probe() {
    local dir
    dir=$(mktemp -d)
    if gcc -O1 -D__XEN_TOOLS__ -o "$dir/logdirty" "$T_DIR/../logdirty.c" -lxenctrl; then
        "$LAB_CMD" exec A 'cat >/tmp/logdirty && chmod +x /tmp/logdirty' <"$dir/logdirty"
    fi
    rm -rf "$dir"
}

save_by_ours() { on A "$OURS $XL save $1 /var/tmp/ours"; }
restore_ours_by_ours() { on A "$OURS $XL restore /var/tmp/ours"; }
restore_by_stock() { on A "$XL restore /var/tmp/ours"; }
save_by_stock() { on A "$XL save $1 /var/tmp/stock"; }
# The hypervisor says which entries of the guest's p2m are made meanwhile (TRC_MEM_SET_P2M_ENTRY, 36 octets each).
restore_by_ours() {
    on A "rm -f /tmp/p2m; (exec timeout 200 xentrace -D -e 0x10f000 /tmp/p2m >/dev/null 2>&1 &); sleep 1
        $OURS $XL restore /var/tmp/stock; failed=\$?; sleep 1; pkill -x xentrace; exit \$failed"
}
in_large_pages() {
    local octets
    octets=$(on A "stat -c %s /tmp/p2m") || return 1
    note "$1: about $((octets / 36)) p2m entries for 32768 pages"
    [ "$octets" -gt 0 ] && [ $((octets / 36)) -lt 4096 ]
}
save_and_restore_ours() {
    check "$1: our save, for ourselves" save_by_ours "$1"
    check "$1: our xl restore reads it" restore_ours_by_ours
    check "$1: the same guest goes on with our helper only" same_guest
}
save_and_restore() {
    check "$1: xl save by our helper" save_by_ours "$1"
    check "$1: verify-stream-v2 accepts the save" is_verified A /var/tmp/ours
    check "$1: stock xl restore reads it" restore_by_stock
    check "$1: the same guest goes on" same_guest
    check "$1: xl save by the stock helper" save_by_stock "$1"
    check "$1: our xl restore reads it" restore_by_ours
    check "$1: the same guest goes on again" same_guest
    [ "$1" = pv ] || check "$1: its memory came in large pages" in_large_pages "$1"
}

# migrate FROM GUEST ENV-OF-THE-SENDER ENV-OF-THE-RECEIVER: the stream is kept in the sender's /var/tmp/stream.
migrate() {
    local from=$1 to
    to=$(other "$from")
    on "$from" "rm -f /var/tmp/stream; $3 $XL migrate -s '' $2 'tee /var/tmp/stream | ssh host$to $4 $XL migrate-receive'"
}
migrate_both_ways() {
    check "$1: migrate, our helper to a stock receiver" migrate A "$1" "$OURS" ""
    check "$1: the same guest runs on B" same_guest
    check "$1: verify-stream-v2 accepts the migration" is_verified A /var/tmp/stream
    check "$1: migrate, a stock sender to our helper" migrate B "$1" "" "$OURS"
    check "$1: the same guest runs on A" same_guest
}

# start_migration GUEST: in the background on A, over a transport that takes 30 MB and then stands still. (Nothing else sleeps there.)
start_migration() {
    on A "rm -f /var/tmp/log; (setsid sh -c '$OURS $XL migrate -s \"\" $1 \"(head -c 30000000; exec sleep 300) | ssh hostB $XL migrate-receive\" >/var/tmp/log 2>&1' </dev/null >/dev/null 2>&1 &)"
    wait_for 60 on A 'pidof sleep'
}
helper_ended() { ! on A 'pidof libxl-save-helper'; }
# shellcheck disable=SC2016 # for the shell in dom0
still_runs() { # WHAT GUEST
    check "$1: the helper ends" wait_for 30 helper_ended
    check "$1: the guest runs on" same_guest
    check "$1: log-dirty is off" log_dirty_is_off A "$2"
    on A 'kill -9 $(pidof sleep) 2>/dev/null'
    wait_for 20 lacks_guest B "$2--incoming"
}
# shellcheck disable=SC2016
interrupted() {
    start_migration "$1" || not_ok "$1: migration starts"
    on A 'kill -TERM $(pidof libxl-save-helper)'
    still_runs "$1, SIGTERM to the helper" "$1"
    start_migration "$1" || not_ok "$1: migration starts"
    on A 'kill -9 $(pidof sleep)'
    still_runs "$1, broken pipe" "$1"
    start_migration "$1" || not_ok "$1: migration starts"
    on A 'kill -9 $(pidof xl)'
    still_runs "$1, xl killed" "$1"
}

# replicate GUEST: stock xl remus on both sides, our helper sends; then the transport breaks.
replicated() { on A "[ \$(grep -ac 'checkpoint [0-9]*: ' /var/tmp/log) -ge 5 ]"; }
replicate() {
    on A "rm -f /var/tmp/log; (setsid sh -c '$OURS $XL -vvv remus -F -n -d -i 200 -s \"\" $1 \"ssh hostB $XL migrate-receive -r\" >/var/tmp/log 2>&1' </dev/null >/dev/null 2>&1 &)"
    check "$1: stock xl remus takes checkpoints with our helper" wait_for 120 replicated
    on A "grep -a 'checkpoint [0-9]*: ' /var/tmp/log" | sed -n 's/.* \([0-9]*\) us copying/\1/p' | sort -n |
        awk '{v[NR] = $1} END {print "note pause for copying, median of " NR ": " v[int((NR + 1) / 2)] " us"}'
    # shellcheck disable=SC2016
    on A 'kill -9 $(ps -eo pid,args | awk "/^ *[0-9]+ ssh hostB/ {print \$1}")'
    wait_for 30 helper_ended
    check "$1: replication broken, log-dirty is off" log_dirty_is_off A "$1"
    # Without an acknowledgement stock Remus runs both copies: keep the backup's.
    on A "$XL destroy $1"
    check "$1: a stock receiver goes on with the last checkpoint" same_guest
}

# Pages that the guest gave back leave holes in what is saved.
has_at_most() { on A "[ \$($XL list $1 | awk 'NR == 2 {print \$3}') -le $2 ]"; }
pv_balloons() { on A "$XL mem-set $1 112" && wait_for 60 has_at_most "$1" 112; }
save_without_room_fails() { ! on A "$OURS $XL save $1 /dev/full"; }
pv_live_is_refused() {
    on A "$OURS $XL migrate -s '' pv 'ssh hostB $XL migrate-receive' 2>&1" | grep -q 'built without shadow paging'
}

fresh_hosts
install_probe
types=" ${LAB_TYPES:-pvh hvm hvm-nopv pv} "
for type in pvh hvm; do
    [[ $types == *" $type "* ]] || continue
    begin $type || { not_ok "$type: guest starts"; continue; }
    save_and_restore $type
    migrate_both_ways $type
    # Once is enough for these: the device model has no part in them.
    if [ $type = pvh ]; then
        interrupted pvh
        replicate pvh
    fi
    end $type
done
if [[ $types != *' hvm-nopv '* ]]; then
    :
elif begin hvm-nopv; then
    check "hvm-nopv: migrate, our helper on both sides" migrate A hvm-nopv "$OURS" "$OURS"
    check "hvm-nopv: the same guest runs on B" same_guest
    end hvm-nopv
else
    not_ok "hvm-nopv: guest starts"
fi
if [[ $types != *' pv '* ]]; then
    :
elif begin pv; then
    save_and_restore_ours pv
    check "pv: gives memory back" pv_balloons pv
    save_and_restore pv
    check "pv: live migration is refused with the reason" pv_live_is_refused
    check "pv: the guest runs on" same_guest
    check "pv: a save without room fails" save_without_room_fails pv
    check "pv: the guest runs on all the same" same_guest
    end pv
else
    not_ok "pv: guest starts"
fi
if [[ $types != *' pv '* ]]; then
    :
elif begin pv --name vcpus --vcpus 2 --maxvcpus 3; then
    save_and_restore_ours vcpus
    end vcpus
else
    not_ok "vcpus: a guest with two of three vcpus starts"
fi
check "nothing left on A" nothing_left A
check "nothing left on B" nothing_left B
exit 0
