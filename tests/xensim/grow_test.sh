#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# The guest is given more memory than it had when its protection began: all of it in one checkpoint.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"

host A
host B
# protect MIB KEY=VALUE...: a guest of 32 MiB at A into $e at B, which may have MIB; as process $trip.
protect() {
    d=$(on A create mem=32 guest=rate=2000,pages=500,choice=zipf,fill=sparse,ram=random)
    e=$(on B create "mem=$1" empty=1)
    shift
    on A unpause "$d"
    roundtrip A "$d" "$our_helper" B "$e" "$our_helper" "$@" >"$dir/out" 2>"$dir/err" &
    trip=$!
}
same_at_backup() {
    [ "$(on B hash "$e")" = "$(sed 's/.*hash=//' "$dir/out")" ] || fail "$about: the backup has another memory"
    on B unpause "$e"
    on B verify "$e" || fail "$about: the guest's memory at the backup is not its own"
}

# By more than 64 MiB, which rings, ROMs and video memory may take beyond the maximum.
about="mem-set up"
protect 300 checkpoints=12 interval=30
until_suspends 3
on A max "$d" 300
guest A "$d" balloon-in 8192 40000
wait $trip || fail "$about: $(cat "$dir/out" "$dir/err")"
[ "$(value B "$e" pages)" -gt 48000 ] || fail "$about: the backup has $(value B "$e" pages) pages"
same_at_backup

# A page above all pfns that there were: what was made for those has no place for it.
about="a page behind the end"
protect 300 checkpoints=200 interval=10
until_suspends 3
guest A "$d" balloon-out 5000 100
guest A "$d" balloon-in 0x100000 50
wait $trip && fail "$about: the protection goes on"
grep -q "grew behind pfn" "$dir/err" || fail "$about: $(cat "$dir/out" "$dir/err")"
on B destroy "$e"
# Begun again it is protected like any other.
e=$(on B create mem=300 empty=1)
on A resume "$d"
guest A "$d" poke 0x100000 777
roundtrip A "$d" "$our_helper" B "$e" "$our_helper" checkpoints=5 interval=10 >"$dir/out" 2>"$dir/err" ||
    fail "$about, again: $(cat "$dir/out" "$dir/err")"
same_at_backup
exit "$failed"
