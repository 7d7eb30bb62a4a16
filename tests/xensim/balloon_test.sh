#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# Pages come and go while the guest is protected: those that went are gone at the backup, those that came are there with what
# the guest wrote before the log knew of them, also where a page came back at the same place as another one.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"

host A
host B
d=$(on A create mem=16 guest=rate=2000,pages=500,choice=zipf,fill=sparse,ram=random)
e=$(on B create mem=16 empty=1)
on A unpause "$d"
roundtrip A "$d" "$our_helper" B "$e" "$our_helper" checkpoints=40 interval=20 >"$dir/out" 2>"$dir/err" &
trip=$!
# Above the dirtier's set, below the end of RAM.
until_suspends 3
guest A "$d" balloon-out 2000 300
until_suspends 6
guest A "$d" balloon-in 2000 100
guest A "$d" poke 2010 111
# Gone and back between two checkpoints: another page at the same place.
until_suspends 10
guest A "$d" balloon-out 2500 20
guest A "$d" balloon-in 2500 20
guest A "$d" poke 2505 222
until_suspends 15
guest A "$d" balloon-in 2100 200
guest A "$d" poke 2299 333
wait $trip || fail "$(cat "$dir/out" "$dir/err")"

hash=$(sed 's/.*hash=//' "$dir/out")
now=$(on B hash "$e")
if [ "$now" != "$hash" ]; then
    fail "the backup has $now, the guest had $hash"
    on A pages "$d" "$dir/pages.a"
    on B pages "$e" "$dir/pages.b"
    diff "$dir/pages.a" "$dir/pages.b" | head -n 10
fi
on B unpause "$e"
on B verify "$e" || fail "the guest's memory at the backup is not its own"
[ "$failed" = 0 ] && echo "$(cat "$dir/out")"
exit "$failed"
