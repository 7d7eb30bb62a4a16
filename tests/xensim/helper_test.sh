#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# Our helper and Debian's, each as sender and as receiver, plain and checkpointed, PVH and HVM: the memory that comes out is the
# memory at the last suspend, page by page, and the guest goes on there.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"

host A
host B
senders=$our_helper receivers=$our_helper
if [ -x "$stock_helper" ]; then
    senders="$our_helper $stock_helper" receivers=$senders
else
    echo "without Debian's helper: tests/xensim/fetch-stock gets it"
fi

# same_memory D E HASH: domain E of host B is what D of host A was.
same_memory() {
    now=$(on B hash "$2")
    [ "$now" = "$3" ] && return
    fail "$what: host B has $now instead of $3"
    on A pages "$1" "$dir/pages.a"
    on B pages "$2" "$dir/pages.b"
    diff "$dir/pages.a" "$dir/pages.b" | head -n 5
}
goes_on() {
    ticks=$(value B "$1" ticks)
    on B unpause "$1"
    tries=0
    until [ "$(value B "$1" ticks)" -gt $((ticks + 5)) ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { fail "$what: the guest does not go on"; return; }
        sleep 0.02
    done
    on B verify "$1" >"$dir/verify" 2>&1 || fail "$what: $(cat "$dir/verify")"
}
# trip TYPE SPEC KEY=VALUE...
trip() {
    type=$1 spec=$2
    shift 2
    what="$type $* from $(echo "$save" | grep -q "^$our_helper" && echo ours || echo stock) to $(
        echo "$restore" | grep -q "^$our_helper" && echo ours || echo stock)"
    d=$(on A create mem=32 "type=$type" "guest=$spec")
    e=$(on B create mem=32 "type=$type" empty=1)
    on A unpause "$d"
    if ! out=$(roundtrip A "$d" "$save" B "$e" "$restore" "$@" 2>"$dir/err"); then
        fail "$what: $out $(cat "$dir/err")"
    fi
    same_memory "$d" "$e" "$(echo "$out" | sed 's/.*hash=//')"
    goes_on "$e"
    [ "$(value A "$d" log)" = 0 ] || fail "$what: log-dirty is left on"
    [ "$(value A "$d" mapped)" = 0 ] || fail "$what: pages are left mapped"
    [ "$(value B "$e" mapped)" = 0 ] || fail "$what: the receiver leaves pages mapped"
    on A destroy "$d"
    on B destroy "$e"
    echo "$what: $out"
}

for save in $senders; do
    for restore in $receivers; do
        trip pvh rate=20000,pages=2000,choice=zipf,fill=sparse,ram=random
        trip pvh rate=20000,pages=2000,ram=random live=0
        trip pvh rate=50000,pages=2000,choice=zipf,fill=sparse checkpoints=6 interval=10
        trip hvm rate=5000,pages=3000,fill=zero,ram=random checkpoints=4 ask=0
    done
done
# Between two of ours a parent may ask for encoded pages; with 1 MiB for copies most of them are forgotten again.
save=$our_helper restore=$our_helper
for word in none delta lz4 auto; do
    export XENTWIN_ENCODE=$word
    trip pvh rate=50000,pages=2000,choice=zipf,fill=sparse checkpoints=6 interval=10
    trip hvm rate=20000,pages=3000,fill=zero,ram=random checkpoints=4 ask=0
    XENTWIN_ENCODE_CACHE=1 trip pvh rate=50000,pages=2000,choice=uniform,ram=random checkpoints=6 interval=10
done
unset XENTWIN_ENCODE
[ -z "$(on A list)$(on B list)" ] || fail "a domain is left"
exit "$failed"
