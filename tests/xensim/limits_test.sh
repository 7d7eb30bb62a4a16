#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# The limits of `xl migrate` as our helper keeps them: a guest that writes without end is moved, or runs on untouched.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"

host A
host B
d=$(on A create mem=64 guest=rate=200000,pages=12000,fill=full,ram=random)
on A unpause "$d"

# move VARIABLE=VALUE...: its words in $out, the guest at B in $e.
move() {
    what=$*
    e=$(on B create mem=64 empty=1)
    for assignment in "$@"; do export "${assignment?}"; done
    out=$(roundtrip A "$d" "$our_helper" B "$e" "$our_helper" 2>&1)
    status=$?
    unset XENTWIN_MAX_ROUNDS XENTWIN_MAX_DOWNTIME_MS XENTWIN_RATE_MB
    [ "$(value A "$d" log)$(value A "$d" mapped)$(value B "$e" mapped)" = 000 ] || fail "$what: something is left"
}
arrives() {
    move "$@"
    [ $status -eq 0 ] || fail "$what: $out"
    [ "$(on B hash "$e")" = "$(echo "$out" | sed 's/.*hash=//')" ] || fail "$what: the memory differs"
    on A resume "$d"
    on B destroy "$e"
}
runs_on() {
    text=$1
    shift
    move "$@"
    [ $status -ne 0 ] || fail "$what: it was moved"
    echo "$out" | grep -q -- "$text" || fail "$what: $out"
    [ "$(value A "$d" shutdown)" = 0 ] || fail "$what: the guest does not run"
    on B destroy "$e"
}

arrives XENTWIN_MAX_ROUNDS=0
arrives XENTWIN_MAX_ROUNDS=2
arrives XENTWIN_MAX_DOWNTIME_MS=30000
# The link is free, so only the rate can hold it back; and 64 MiB at 40 MB/s take at least 1.6 s.
began=$(date +%s%3N)
arrives XENTWIN_RATE_MB=40 XENTWIN_MAX_ROUNDS=0
[ $(($(date +%s%3N) - began)) -ge 1600 ] || fail "the rate is not kept"
# So long a copy lets the guest write all its pages again, however busy this machine is.
runs_on 'more than the limit of 1 ms' XENTWIN_RATE_MB=40 XENTWIN_MAX_ROUNDS=0 XENTWIN_MAX_DOWNTIME_MS=1
runs_on "XENTWIN_RATE_MB is 'x'" XENTWIN_RATE_MB=x
on A verify "$d" >"$dir/verify" 2>&1 || fail "the guest was harmed: $(cat "$dir/verify")"
[ "$failed" -eq 0 ] && echo "all as it should be"
exit "$failed"
