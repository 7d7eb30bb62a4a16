#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# The dirty log is one per guest, and the hypervisor gives it to whoever asks. Somebody else ends it under a protection, or under a
# live migration: both fail, since Xen goes on to read an empty log.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"

spec=rate=2000,pages=500,choice=zipf,fill=sparse,ram=random
host A
host B
# new_guest MIB: $d runs at A, $e is empty at B.
new_guest() {
    d=$(on A create "mem=$1" "guest=$spec")
    e=$(on B create "mem=$1" empty=1)
    on A unpause "$d"
}
# failed_for WORD: the helper of $dir/out and $dir/err failed, and said so. Log-dirty is off, nothing is mapped.
failed_for() {
    grep -q '^save=-1 ' "$dir/out" || fail "$what: $(cat "$dir/out")"
    grep -q "$1" "$dir/err" || fail "$what: nobody says '$1': $(cat "$dir/err")"
    [ "$(value A "$d" log)" = 0 ] || fail "$what: log-dirty is left on"
    [ "$(value A "$d" mapped)" = 0 ] || fail "$what: pages are left mapped"
}
gone_both() {
    on A destroy "$d"
    on B destroy "$e"
}

what="log-dirty ended under a protection"
new_guest 16
roundtrip A "$d" "$our_helper" B "$e" "$our_helper" checkpoints=200 interval=10 >"$dir/out" 2>"$dir/err" &
trip=$!
until_suspends 3
on A log-off "$d"
wait $trip && fail "$what: it goes on"
failed_for "ended log-dirty mode"
gone_both

what="log-dirty ended under a live migration"
new_guest 64
XENTWIN_RATE_MB=100 roundtrip A "$d" "$our_helper" B "$e" "$our_helper" >"$dir/out" 2>"$dir/err" &
trip=$!
wait_value A "$d" log 1 || fail "$what: it does not begin"
on A log-off "$d"
wait $trip && fail "$what: it goes on"
failed_for "ended log-dirty mode"
gone_both
exit "$failed"
