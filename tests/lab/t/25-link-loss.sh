#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Item 3: whatever dies, the guest runs on exactly one host, its network is open, nothing is left behind.
# Takes 570 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"

TYPE=${LAB_TYPE:-pvh}
addr=

guest_on_a() {
    if ! guest_runs A guest; then
        addr=$(lab guest start A "$TYPE" --name guest --mem 128) || return 1
    fi
    guest_answers "$addr"
}

begin() { # NAME [options]: a guest on A, protected. LAB_CASES: a pattern of the names to run
    [[ $1 =~ ${LAB_CASES:-.} ]] || return 1
    name=$1
    shift
    echo "== $name"
    if ! guest_on_a; then
        not_ok "$name: the guest does not start"
        return 1
    fi
    protect A guest -i 200 "$@"
    wait_protected A guest 2 || { not_ok "$name: cannot be protected"; return 1; }
}

# A twin may be discarded once it has noticed that the link is gone, not before: asked again until it may.
twin_discarded() {
    on B "xl remus --discard guest" >/dev/null 2>&1
    ! on B "xl list | grep -q guest" && nothing_left B
}

stays_on_a() { # the rule is `primary`: A goes on, B does not run it
    check "$name: protection ends" wait_for 40 remus_ended_or_dead
    check "$name: the guest answers" wait_for 20 guest_answers "$addr"
    check "$name: it runs on A" guest_runs A guest
    check "$name: nothing is left on A" nothing_left A
    if lab status | grep -q 'B.*running'; then
        check "$name: B has no copy" wait_for 60 twin_discarded
    fi
}
remus_ended_or_dead() { ! on A "pidof -s libxl-save-helper"; }

moves_to_b() { # the rule is `backup`: B runs it, A is paused behind a closed plug
    check "$name: it runs on B" wait_for 90 guest_runs B guest
    check "$name: the guest answers" wait_for 60 guest_answers "$addr"
    check "$name: A does not run it" bash -c "[[ '$(guest_state A guest)' == *p* || -z '$(guest_state A guest)' ]]"
    check "$name: xl remus --discard removes the stopped copy" on A "xl remus --discard guest"
    check "$name: nothing is left on A" nothing_left A
    check "$name: nothing is left on B" nothing_left B
    on B "xl destroy guest"
}

pids_a() { on A "pgrep -x '$1' | tr '\n' ' '"; }
kill_a() { on A "kill -$1 \$(pgrep -f '$2' | grep -vx \$\$)"; }
REMUS='^xl remus'

fresh_hosts
if begin "xl killed"; then
    kill_a KILL "$REMUS"
    stays_on_a
    # The stock xl that started it has left: the guard must have found somebody to look after it.
    kv cmd "$addr" POWEROFF >/dev/null 2>&1
    check "$name: its poweroff is acted upon" wait_for 60 lacks_guest A guest
fi
if begin "helper killed"; then on A "kill -9 \$(pidof libxl-save-helper)"; stays_on_a; fi
if begin "ssh killed"; then kill_a KILL '^ssh .*hostB'; stays_on_a; fi
if begin "xl, helper and ssh killed at once"; then
    on A "kill -9 \$(pidof libxl-save-helper) \$(pgrep -f '$REMUS|^ssh .*hostB' | grep -vx \$\$)"
    stays_on_a
fi
if begin "link cut"; then lab cut repl; sleep 6; stays_on_a; lab heal repl; fi
if begin "xl stopped for 8 s"; then kill_a STOP "$REMUS"; sleep 8; kill_a CONT "$REMUS"; stays_on_a; fi
if begin "backup killed"; then lab kill B; stays_on_a; lab start B; fi

if begin "link cut, rule backup" --on-link-loss=backup; then lab cut repl; moves_to_b; lab heal repl; fi
if begin "xl killed, rule backup" --on-link-loss=backup; then kill_a KILL "$REMUS"; moves_to_b; fi
if begin "zombie primary, rule backup" --on-link-loss=backup; then
    kv cmd "$addr" 'CHATTER 20' >/dev/null
    kill_a STOP "$REMUS"
    wait_for 60 guest_runs B guest
    lab capture start "$LOGS/zombie" >/dev/null
    sleep 1
    kill_a CONT "$REMUS"
    sleep 5
    lab capture stop "$LOGS/zombie"
    frames=$(tcpdump -nn -r "$LOGS/zombie.A" "ether src $(lab guest config "$TYPE" --name guest | sed -n 's/.*mac=\([0-9a-f:]*\).*/\1/p')" 2>/dev/null | wc -l)
    check "$name: the woken primary let out $frames frames" test "$frames" -eq 0
    moves_to_b
fi
if begin "link cut, arbiter" --arbiter "$WITNESS_ARBITER"; then
    lab cut repl
    sleep 15
    copies=0
    guest_runs A guest && copies=$((copies + 1))
    guest_runs B guest && copies=$((copies + 1))
    check "$name: $copies copy runs" test "$copies" = 1
    check "$name: the guest answers" wait_for 60 guest_answers "$addr"
    lab heal repl
fi
fresh_hosts
