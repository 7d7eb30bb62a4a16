#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# A lost link stopped the guest here and its twin runs: whatever is said to the stopped copy, it is not woken, and each answer
# names the two commands that end this. A guest that a person paused is left paused.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

use_our_xl
xen_host A
xen_host B
make_ssh
cfg=$(guest_config g rate=2000,pages=200,choice=zipf,fill=sparse)

suspended() { [ "$(value A "$d" suspends)" -ge "$1" ]; }
runs_at_b() { on B list | grep -q running; }
ended() { ! kill -0 "$1" 2>/dev/null; }
# The pids of what runs on A and has all these words in its command line.
at_a() {
    for p in $(grep -lzxF "XENSIM_RUNDIR=$dir/A" /proc/[0-9]*/environ 2>/dev/null | sed 's:^/proc/::; s:/environ$::'); do
        line=$(tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null)
        for word in "$@"; do
            case $line in *"$word"*) ;; *) continue 2 ;; esac
        done
        echo "$p"
    done
}
helper_runs() { [ -n "$(at_a libxl-save-helper --save-domain)" ]; }
# sleeps COMMAND: the guest has not moved a tick since.
sleeps() {
    [ "$(value A "$d" ticks)" = "$ticks" ] || fail "$1: the guest at A was woken: $(cat "$dir/out")"
}
# refused COMMAND WORDS...: by one line that names both ways out, and at once.
refused() {
    timeout 10 "$here/xensim" exec "$dir/A" "$dir/bin/xl" "$@" >"$dir/out" 2>&1
    [ $? = 1 ] || fail "$*: not refused at once: $(cat "$dir/out")"
    [ "$(wc -l <"$dir/out")" = 1 ] || fail "$*: more than a line: $(cat "$dir/out")"
    grep -q "'xl remus --discard g'.*'xl remus --recover g'" "$dir/out" ||
        fail "$*: does not say what to do: $(cat "$dir/out")"
    sleeps "$*"
}
# broken_off XL: its save of g, ended while the helper waits for the guest.
broken_off() {
    timeout 60 "$here/xensim" exec "$dir/A" "$1" save g "$dir/g.save" >"$dir/out" 2>&1 &
    pid=$!
    until_true 'no helper comes' helper_runs
    kill "$pid"
    wait "$pid"
    until_true 'the helper does not end' eval '! helper_runs'
    rm -f "$dir/g.save"
}

as A "$stock_bin/xl" create -e "$cfg" >"$dir/out" 2>&1 || { fail "create: $(cat "$dir/out")"; exit 1; }
d=$(as A "$stock_bin/xl" domid g 2>/dev/null)

# Paused by a person.
as A "$stock_bin/xl" pause g
ticks=$(value A "$d" ticks)
broken_off "$dir/bin/xl"
grep -q "'g' was not saved and stays paused" "$dir/out" || fail "the save of a paused guest ends with: $(cat "$dir/out")"
sleeps 'a save of a paused guest'
as A "$dir/bin/xl" remus -F -n -d -s "$dir/ssh" g hostB >"$dir/out" 2>&1 && fail 'a paused guest is protected'
grep -q "'g' is paused: 'xl unpause g' first" "$dir/out" || fail "remus of a paused guest: $(cat "$dir/out")"
as A "$stock_bin/xl" unpause g
[ "$(guest A "$d" kv SET a b)" = OK ] || fail 'the guest does not run after its pause'

# Stopped by a lost link: the primary's processes stand still for longer than the limit.
timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" remus -F -n -d -i 20 --limit-ms 600 --on-link-loss=backup \
    -s "$dir/ssh" g hostB >"$dir/remus.out" 2>&1 &
remus=$!
until_true 'no checkpoints' suspended 5
stopped=$(at_a "$dir/bin/xl" remus g hostB)
# shellcheck disable=SC2086 # a list of numbers
kill -STOP $stopped
until_true 'the guest does not go on at B' runs_at_b
# shellcheck disable=SC2086
kill -CONT $stopped
until_true 'xl remus does not end' ended "$remus"
grep -q 'it is paused here' "$dir/remus.out" || fail "xl remus ends with: $(tail -n 3 "$dir/remus.out")"
ticks=$(value A "$d" ticks)

refused save g "$dir/g.save"
[ -e "$dir/g.save" ] && fail 'a refused save leaves a file'
refused migrate -e -s "$dir/ssh" g hostB
refused remus -F -n -d -s "$dir/ssh" g hostB
# Debian's own xl asks nobody; our helper wakes nobody when that dies.
broken_off "$stock_bin/xl"
sleeps 'a save by the stock xl'
grep -q 'it stays stopped' "$dir/out" || fail "the helper says: $(cat "$dir/out")"

for what in '' g "$d"; do
    # shellcheck disable=SC2086 # a word or none
    as A "$dir/bin/xl" remus --status $what >"$dir/out" 2>&1 || fail "--status $what: exit $?"
    grep -q '^g: stopped by a lost link, output held; .*: xl remus --discard g; .*: xl remus --recover g$' "$dir/out" ||
        fail "--status $what does not know the stopped copy: $(cat "$dir/out")"
    [ "$(wc -l <"$dir/out")" = 1 ] || fail "--status $what: more than a line: $(cat "$dir/out")"
done
# A person woke it: elsewhere nobody would hold its output.
as A "$stock_bin/xl" unpause g
for what in "save g $dir/g.save" "migrate -e -s $dir/ssh g hostB" "remus -F -n -d -s $dir/ssh g hostB"; do
    # shellcheck disable=SC2086 # words
    as A "$dir/bin/xl" $what >"$dir/out" 2>&1 && fail "$what of a guest whose output is held"
    grep -q "'xl remus --discard g'.*'xl remus --recover g'" "$dir/out" || fail "$what does not say what to do: $(cat "$dir/out")"
done
as A "$stock_bin/xl" pause g
as A "$dir/bin/xl" remus --discard "$d" >"$dir/out" 2>&1 || fail "discard: $(cat "$dir/out")"
gone A || fail "left at A: $(on A list)"
as A "$dir/bin/xl" remus --status >"$dir/out" 2>&1
grep -q 'no domain is protected' "$dir/out" || fail "--status after --discard: $(cat "$dir/out")"
runs_at_b || fail 'the guest does not run at B'
[ "$failed" = 0 ] && echo 'refused, left as it was, discarded'
exit "$failed"
