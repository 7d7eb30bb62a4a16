#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# Every kind of hypercall and mapping that our helper makes fails once: at its first, its middle and its last use, plain (live, and
# not live by two processes) and checkpointed. Each time the helper ends with an answer, log-dirty is off, no page is left mapped, and the guest runs on.
# Then it is killed there: no page is left mapped, the guest runs on.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"

helper_comm=libxl-save-help
host A
d=$(on A create mem=8 guest=rate=2000,pages=500,choice=zipf,fill=sparse)
on A unpause "$d"

# save KEY=VALUE...: the guest runs afterwards, as libxl would see to it.
save() {
    roundtrip A "$d" "$our_helper" - 0 - "$@" >"$dir/out" 2>"$dir/err"
    status=$?
    on A resume "$d"
    return $status
}
check_left() {
    # The helper's child of a save that is not live ends a moment after it, when it is killed.
    wait_value A "$d" mapped 0 || fail "$what: $(value A "$d" mapped) pages are left mapped"
    ticks=$(value A "$d" ticks)
    tries=0
    until [ "$(value A "$d" ticks)" -gt "$ticks" ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { fail "$what: the guest does not run on"; return; }
        sleep 0.01
    done
    on A verify "$d" || fail "$what: the guest's memory is not its own"
}
# at NAME N DEED KEY=VALUE...: false if the fault did not come.
at() {
    what="$1 $2 $3 ($4)"
    on A clear
    on A fault "$1" "n=$2" "comm=$helper_comm" "$3" >"$dir/rule"
    save "$4" && saved=yes || saved=no
    on A faults | grep -q done=1 || return 1
    if [ "$3" != kill ]; then
        grep -q 'exit=[01] ' "$dir/out" || fail "$what: no answer, $(cat "$dir/out" "$dir/err")"
        # Nobody but the caller can do something about this one.
        [ "$1" = domctl.shadow_op.off ] || [ "$(value A "$d" log)" = 0 ] || fail "$what: log-dirty is left on"
    fi
    check_left
    # A killed helper leaves it on; that is the guard's to end.
    on A log-off "$d"
    runs=$((runs + 1))
    return 0
}

runs=0 failures=0
for mode in checkpoints=0 live=0 checkpoints=3; do
    on A clear
    save $mode || { fail "$mode without a fault: $(cat "$dir/out" "$dir/err")"; break; }
    on A counts | grep -v ' unmap$' >"$dir/counts"
    while read -r calls name; do
        for n in $(printf '%s\n' 1 $((calls / 2)) "$calls" | sort -nu | grep -vx 0); do
            # Live rounds differ: the last of many calls may not come again.
            at "$name" "$n" fail=5 $mode || [ "$n" -gt 1 ] || fail "$name is not called again"
            [ "$saved" = no ] && failures=$((failures + 1))
        done
        at "$name" 1 kill $mode || fail "$name is not called again"
    done <"$dir/counts"
done
[ "$failures" -gt 10 ] || fail "of $runs faults only $failures were noticed"
[ "$failed" = 0 ] && echo "$runs faults at $(wc -l <"$dir/counts") kinds of calls, $failures of them made the save fail"
exit "$failed"
