#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Ends on purpose, ends of the guest itself, starts that fail: no twin, no left-over, the guest where it was.
# Takes 310 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"

addr=
new_guest() { addr=$(lab guest start A pvh --name guest --mem 128); }
begin() {
    name=$1
    shift
    echo "== $name"
    guest_runs A guest || new_guest || { not_ok "$name: guest starts"; return 1; }
    protect A guest -i 200 "$@"
    wait_protected A guest 2 || { not_ok "$name: protected"; return 1; }
}
exit_is() { [ "$(on A "sed -n 's/^exit //p' /var/log/remus-guest.log")" = "$1" ]; }
no_twin() { ! on B "xl list | grep -q guest"; }
ended_well() { # EXIT_STATUS
    check "$name: xl remus ends" wait_for 60 remus_ended A guest
    check "$name: exit status $1" exit_is "$1"
    check "$name: no twin on B" wait_for 20 no_twin
    check "$name: nothing left on A" nothing_left A
    check "$name: nothing left on B" nothing_left B
}

fresh_hosts
if begin "xl remus --stop"; then
    check "$name: it says it ended" on A "xl remus --stop guest"
    ended_well 0
    check "$name: the guest answers" guest_answers "$addr"
fi
if begin "Ctrl-C"; then
    on A "xl remus --status guest" | sed 's/^/   /'
    check "status: tells the epoch" on A "xl remus --status guest | grep -qi epoch"
    on A "kill -INT \$(pgrep -f '^xl remus' | grep -vx \$\$)"
    ended_well 0
    check "$name: the guest answers" guest_answers "$addr"
fi
if begin "guest reboots"; then
    kv cmd "$addr" REBOOT >/dev/null 2>&1
    ended_well 0
    check "$name: it comes back on A" wait_for 90 guest_answers "$addr"
fi
if begin "guest powers off"; then
    kv cmd "$addr" POWEROFF >/dev/null 2>&1
    ended_well 0
    check "$name: it is gone from A" wait_for 60 lacks_guest A guest
fi

new_guest
name="backup too small"
on B "xl info | sed -n 's/^free_memory *: //p'"
on B "cat >/tmp/big.cfg <<E
name = 'big'
type = 'pvh'
kernel = '/srv/guest/vmlinux'
memory = \$((\$(xl info | sed -n 's/^free_memory *: //p') - 90))
E
xl create -q -p /tmp/big.cfg"
protect A guest -i 200
check "$name: xl remus ends" wait_for 120 remus_ended A guest
check "$name: exit status 1" exit_is 1
remus_log A guest | tail -n 4 | sed 's/^/   /'
check "$name: no --incoming domain on B" no_twin
check "$name: the guest answers" guest_answers "$addr"
check "$name: nothing left on A" nothing_left A
on B "xl destroy big"

name="backup without xentwin"
on A "printf '#!/bin/sh\nhost=\$1; shift; exec ssh \"\$host\" \"PATH=/usr/sbin:/usr/bin:/sbin:/bin \$*\"\n' >/tmp/stockssh; chmod +x /tmp/stockssh"
protect A guest -i 200 -s /tmp/stockssh
check "$name: refused" wait_for 60 remus_ended A guest
check "$name: exit status 1" exit_is 1
check "$name: one line names xentwin" bash -c "[ \$('$LAB_CMD' exec A 'grep -c xentwin /var/log/remus-guest.log') = 1 ]"
check "$name: no --incoming domain on B" no_twin
protect A guest -i 200 -F -s /tmp/stockssh
check "$name: goes on with -F" wait_protected A guest 2
on A "xl remus --stop guest" >/dev/null 2>&1
wait_for 60 remus_ended A guest
check "$name: with -F the guest answers at the end" guest_answers "$addr"
on B "xl destroy guest; xl destroy guest--incoming" >/dev/null 2>&1

name="libxl_domain_remus_start"
"$LAB_CMD" exec A "cat >/tmp/ao_live && chmod +x /tmp/ao_live" <"$T_DIR/../../../build/tests/lab/ao_live"
for way in event callback; do
    check "$name: completes as $way" on A "LD_LIBRARY_PATH=/usr/local/lib:/usr/local/lib/x86_64-linux-gnu timeout 120 /tmp/ao_live $way \$(xl domid guest) 6"
    check "$name, $way: the guest answers" wait_for 30 guest_answers "$addr"
    check "$name, $way: nothing left on A" nothing_left A
done
fresh_hosts
