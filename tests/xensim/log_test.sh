#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# The dirty log is one per guest, and the hypervisor gives it to whoever asks. Somebody else ends it under a protection, or under a
# live migration: both fail, since Xen goes on to read an empty log. And two of ours never use it at the same time.
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
# same_at NAME DOMID FILE: that domain has the memory that FILE, of a roundtrip, tells of, and goes on with it.
same_at() {
    [ "$(on "$1" hash "$2")" = "$(sed 's/.*hash=//' "$3")" ] || fail "$what: host $1 has another memory"
    on "$1" unpause "$2"
    on "$1" verify "$2" || fail "$what: the guest's memory at $1 is not its own"
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

# The guest is migrated live to C when its protection by B begins, and the other way round: who came first goes on.
host C
what="a protection begins under a live migration"
new_guest 64
c=$(on C create mem=64 empty=1)
XENTWIN_RATE_MB=10 roundtrip A "$d" "$our_helper" C "$c" "$our_helper" >"$dir/out.c" 2>"$dir/err.c" &
trip=$!
wait_value A "$d" log 1 || fail "$what: the migration does not begin"
roundtrip A "$d" "$our_helper" B "$e" "$our_helper" checkpoints=3 interval=10 >"$dir/out" 2>"$dir/err" &&
    fail "$what: it succeeds"
grep -q "protected or migrated live already" "$dir/err" || fail "$what: $(cat "$dir/out" "$dir/err")"
[ "$(value A "$d" log)" = 1 ] || fail "$what: the migration's log is off"
wait $trip || fail "$what: the migration fails: $(cat "$dir/out.c" "$dir/err.c")"
same_at C "$c" "$dir/out.c"
on A destroy "$d"
on B destroy "$e"

what="a live migration begins under a protection"
new_guest 16
c=$(on C create mem=16 empty=1)
roundtrip A "$d" "$our_helper" B "$e" "$our_helper" checkpoints=400 interval=10 >"$dir/out" 2>"$dir/err" &
trip=$!
until_suspends 3
roundtrip A "$d" "$our_helper" C "$c" "$our_helper" >"$dir/out.c" 2>"$dir/err.c" && fail "$what: it succeeds"
grep -q "protected or migrated live already" "$dir/err.c" || fail "$what: $(cat "$dir/out.c" "$dir/err.c")"
wait $trip || fail "$what: the protection fails: $(cat "$dir/out" "$dir/err")"
same_at B "$e" "$dir/out"
[ ! -e "$dir/A/log-$d.lock" ] || fail "$what: its lock is left"

# What a killed helper leaves, a log that is on and a file, is no obstacle.
what="after a kill"
on A resume "$d"
on A fault domctl.shadow_op.clean n=2 comm=libxl-save-help kill >/dev/null
roundtrip A "$d" "$our_helper" - 0 - >"$dir/out" 2>"$dir/err" && fail "$what: it was not killed"
[ "$(value A "$d" log)" = 1 ] || fail "$what: no log is left to take over"
[ -e "$dir/A/log-$d.lock" ] || fail "$what: no lock file is left"
on A clear
roundtrip A "$d" "$our_helper" - 0 - >"$dir/out" 2>"$dir/err" || fail "$what: $(cat "$dir/out" "$dir/err")"
[ ! -e "$dir/A/log-$d.lock" ] || fail "$what: its lock is left"
exit "$failed"
