#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Two guests protected to the same backup at once, one of them with two NICs: each goes on there with every write it acknowledged, on either NIC.
# Takes 320 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"

number() { lab guest config pvh --name "$1" | sed -n 's/.*xt\.number=\([0-9]*\).*/\1/p'; }
two_nics() { # the configuration of guest `two`, with a second NIC
    lab guest config pvh --name two --mem 128 |
        sed '/^vif/s/ \]$/, "mac=00:16:3e:7e:01:02,bridge=xenbr0" ]/'
}
loaded() { # GUEST ADDRESS: writes keys until the host is lost
    "$LAB_CMD" kv load "$2" --log "$LOGS/several-$1.acks" --rate 20 --seconds 240 >"$LOGS/several-$1.load" 2>&1 </dev/null &
    loads+=($!)
}
lost() { # GUEST ADDRESS
    kv verify "$2" --log "$LOGS/several-$1.acks" | tail -n 1
}
ended_by_nic() { remus_log A two | grep -qi 'interface\|NIC'; }

fresh_hosts
rm -f "$LOGS"/several-*
loads=()
addr_one=$(lab guest start A pvh --name one --mem 128)
two_nics | "$LAB_CMD" exec A 'cat >/tmp/two.cfg; xl create /tmp/two.cfg' >/dev/null
addr_two=$(lab guest ip two)
addr_nic=198.51.100.$(number two)
lab netns ip addr add 198.51.100.254/24 dev eth0
check "the first guest answers" wait_for 60 guest_answers "$addr_one"
check "the second guest answers on its first NIC" wait_for 60 guest_answers "$addr_two"
check "the second guest answers on its second NIC" wait_for 60 guest_answers "$addr_nic"

protect A one -i 500 --on-link-loss=backup
protect A two -i 500 --on-link-loss=backup
check "the first guest is protected" wait_protected A one 2
check "the second guest is protected" wait_protected A two 2
check "both interfaces are in the buffer" on A "[ \$(tc filter show dev \$(ls /sys/class/net | grep -m1 vif.*\$(xl domid two).1) parent ffff: | grep -c mirred) -ge 1 ]"

lab guest config pvh --name three --mem 128 | "$LAB_CMD" exec B 'cat >/tmp/three.cfg'
check "the backup can start and stop guests meanwhile" timeout 120 "$LAB_CMD" exec B 'xl create /tmp/three.cfg && xl destroy three' </dev/null
loaded one "$addr_one"
loaded nic "$addr_nic"
sleep 20
lab kill A
check "the first guest runs on B" wait_for 120 guest_runs B one
check "the second guest runs on B" wait_for 120 guest_runs B two
check "the first guest answers" wait_for 60 guest_answers "$addr_one"
check "the second guest answers on its first NIC" wait_for 60 guest_answers "$addr_two"
check "the second guest answers on its second NIC" wait_for 60 guest_answers "$addr_nic"
revive A
kill "${loads[@]}" 2>/dev/null
wait "${loads[@]}" 2>/dev/null
for pair in "one $addr_one" "nic $addr_nic"; do
    read -r guest address <<<"$pair"
    said=$(lost "$guest" "$address")
    check "writes through $guest: $said" grep -q 'acknowledged [1-9].*lost 0' <<<"$said"
done
check "nothing is left on B" nothing_left B

fresh_hosts
two_nics | "$LAB_CMD" exec A 'cat >/tmp/two.cfg; xl create /tmp/two.cfg' >/dev/null
wait_for 60 guest_answers "$addr_two"
protect A two -i 500
if wait_protected A two 2; then
    on A "xl network-attach two bridge=xenbr0 mac=00:16:3e:7e:01:03"
    check "a NIC that comes later ends the protection" wait_for 60 remus_ended A two
    check "its log names the reason" ended_by_nic
    check "the guest answers" wait_for 30 guest_answers "$addr_two"
    check "nothing is left on A" nothing_left A
else
    not_ok "the guest with two NICs cannot be protected again"
fi
lab netns ip addr del 198.51.100.254/24 dev eth0
fresh_hosts
