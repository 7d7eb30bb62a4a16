#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# Our xl remus and its twin between two simulated hosts, beside Debian's libxl: an end on purpose leaves the guest where it was and
# no twin, as does a new device; when the primary's power is cut the guest goes on at the backup with a whole checkpoint, with what was in
# its table then.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

use_our_xl
xen_host A
xen_host B
make_ssh
cfg=$(guest_config g rate=5000,pages=1000,choice=zipf,fill=sparse)
as A "$stock_bin/xl" create -e "$cfg" >"$dir/out" 2>&1 || { fail "create: $(cat "$dir/out")"; exit 1; }
d=$(as A "$stock_bin/xl" domid g 2>/dev/null)

# HOST without xentwin, and HOST where something else is wrong: that is not said of the one that has it.
# answer TEXT SSH: xl remus by way of that command fails with TEXT.
answer() {
    as A "$dir/bin/xl" remus -s "$2" g hostB >"$dir/out" 2>&1 && fail "$2: it does not fail"
    grep -qF "$1" "$dir/out" || fail "$2: it says $(cat "$dir/out")"
}
sed 's/^shift$/shift; unset XENSIM_PATH/' "$dir/ssh" >"$dir/ssh-stock"
sed 's:sh -c ":&XENTWIN_STOCK_XL=/nope; :' "$dir/ssh" >"$dir/ssh-half"
chmod +x "$dir/ssh-stock" "$dir/ssh-half"
answer 'hostB has no xentwin' "$dir/ssh-stock"
answer 'at hostB: xl: no stock xl at /nope' "$dir/ssh-half"
answer 'at hostB: sudo: a password is required' "sh -c 'echo sudo: a password is required >&2; exit 1'"
answer 'at hostB: the command ended with status 1' false

# A guest that an earlier protection stopped is not begun again behind the administrator's back, paused or not.
mark=/libxl/$d/xentwin/stopped
for command in unpause pause; do
    as A xenstore-write "$mark" 1
    [ $command = unpause ] || as A "$stock_bin/xl" $command g
    as A "$dir/bin/xl" remus -F -n -d -i 20 --max-checkpoints 8 -s "$dir/ssh" g hostB >"$dir/out" 2>&1 &&
        fail "a guest that was left stopped is protected"
    grep -q "runs there: 'xl remus --discard g'; if it certainly does not: 'xl remus --recover g'$" "$dir/out" ||
        fail "it is not said what to do: $(cat "$dir/out")"
    as A xenstore-read "$mark" >/dev/null 2>&1 || fail "the mark is gone before anybody decided"
    [ "$(value A "$d" suspends)" = 0 ] || fail "the guest was touched"
    as A "$dir/bin/xl" remus --recover g >"$dir/out" 2>&1 || fail "recover: $(cat "$dir/out")"
    grep -q '^g: runs here, its output is open$' "$dir/out" || fail "recover: $(cat "$dir/out")"
    as A xenstore-read "$mark" >/dev/null 2>&1 && fail "recover leaves the mark"
done

# An end on purpose.
as A "$dir/bin/xl" remus -F -n -d -i 20 --max-checkpoints 8 -s "$dir/ssh" g hostB >"$dir/out" 2>&1 ||
    fail "remus: $(tail -n 5 "$dir/out")"
[ "$(value A "$d" shutdown)" = 0 ] || fail "the guest does not run on"
[ "$(value A "$d" log)" = 0 ] || fail "log-dirty is left on"
[ "$(value A "$d" suspends)" = 8 ] || fail "the guest was suspended $(value A "$d" suspends) times, not 8"
gone B || fail "a twin is left: $(on B list)"
on A verify "$d" || fail "the guest's memory is not its own"

# A guest that is called by its number.
timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" remus -F -n -d -i 20 -s "$dir/ssh" "$d" hostB >"$dir/remus.out" 2>&1 &
remus=$!
until_suspends 12 "$dir/remus.out"
as A "$dir/bin/xl" remus --status "$d" >"$dir/out" 2>&1 || fail "--status $d: $(cat "$dir/out")"
grep -q '^g:$' "$dir/out" || fail "--status $d does not say that it is g: $(cat "$dir/out")"
as A "$dir/bin/xl" remus --stop "$d" >"$dir/out" 2>&1 || fail "--stop $d: $(cat "$dir/out")"
grep -q '^g: protection ended' "$dir/out" || fail "--stop $d says: $(cat "$dir/out")"
as A "$dir/bin/xl" remus --stop g >"$dir/out" 2>&1 # when the other had no success
wait "$remus" || fail "remus ends with: $(tail -n 5 "$dir/remus.out")"
as A "$dir/bin/xl" remus --status "$d" >"$dir/out" 2>&1 && fail "--status $d after its end: $(cat "$dir/out")"
grep -q "'g' is neither protected nor received" "$dir/out" || fail "--status $d after its end: $(cat "$dir/out")"
gone B || fail "a twin is left: $(on B list)"

# Nobody reads what it says, its pipes are full: neither it nor the backup waits for that.
mkfifo "$dir/unread"
before=$(value A "$d" suspends)
# shellcheck disable=SC2094 # open both ways, so that it is full and not closed
(
    exec 8<>"$dir/unread"
    timeout 1 cat /dev/zero >&8
    as A "$dir/bin/xl" -vvv remus -F -n -d -i 20 --limit-ms 600 --on-link-loss=backup \
        --max-checkpoints 100 --stats "$dir/unread" -s "$dir/ssh" g hostB >&8 2>&8
) || fail "remus with full pipes: exit $?"
[ "$(value A "$d" shutdown)" = 0 ] || fail "the guest does not run on when nobody reads"
[ "$(value A "$d" suspends)" = $((before + 100)) ] || fail "when nobody reads: $(value A "$d" suspends) suspends, not $((before + 100))"
gone B || fail "a twin is left when nobody reads: $(on B list)"

# An arbiter that the backup has not is refused there, and the user at the primary reads it.
before=$(value A "$d" suspends)
printf '#!/bin/sh\nexit 0\n' >"$dir/arbiter"
printf '#!/bin/sh\nmv "%s" "%s.away"\nexec "%s" "$@"\n' "$dir/arbiter" "$dir/arbiter" "$dir/ssh" >"$dir/ssh-without"
chmod +x "$dir/arbiter" "$dir/ssh-without"
as A "$dir/bin/xl" remus -F -n -d -i 20 --max-checkpoints 8 --arbiter "$dir/arbiter x" -s "$dir/ssh-without" \
    g hostB >"$dir/out" 2>&1 && fail "an arbiter that B has not is accepted"
grep -q "hostB refuses: xl migrate-receive: --arbiter: there is no command '$dir/arbiter' on this host" "$dir/out" ||
    fail "an arbiter that B has not: $(cat "$dir/out")"
[ "$(value A "$d" suspends)" = "$before" ] || fail "the guest was suspended for an arbiter that B has not"

# A disk that comes later would not be at the backup; what is written below a device is no new one.
disk=/libxl/$d/device/vbd/51712
as A xenstore-write "$disk/backend" /local/domain/0/backend/vbd/"$d"/51712
before=$(value A "$d" suspends)
timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" remus -F -n -d -i 20 -s "$dir/ssh" g hostB >"$dir/remus.out" 2>&1 &
remus=$!
until_suspends $((before + 6)) "$dir/remus.out"
as A xenstore-write "$disk/params" another.iso
until_suspends $(($(value A "$d" suspends) + 4)) "$dir/remus.out"
as A xenstore-write "$disk"1/backend /local/domain/0/backend/vbd/"$d"/517121
wait "$remus" && fail "a new disk does not end the protection"
grep -q 'the device vbd/517121 was attached' "$dir/remus.out" ||
    fail "the new disk is not named: $(tail -n 5 "$dir/remus.out")"
gone B || fail "a twin without the disk is left: $(on B list)"
as A xenstore-rm "$disk"1

# One that comes while HOST is being reached is not in the configuration that HOST gets.
printf '#!/bin/sh\n"%s" exec "%s" xenstore-write %s1/backend /x\nexec "%s" "$@"\n' "$here/xensim" "$dir/A" "$disk" "$dir/ssh" >"$dir/ssh-attaches"
chmod +x "$dir/ssh-attaches"
before=$(value A "$d" suspends)
as A "$dir/bin/xl" remus -F -n -d -i 20 --max-checkpoints 8 -s "$dir/ssh-attaches" g hostB >"$dir/out" 2>&1 &&
    fail "a disk that came after the configuration was read is not noticed"
grep -q "since its configuration was read" "$dir/out" || fail "a disk that came early: $(cat "$dir/out")"
[ "$(value A "$d" suspends)" = "$before" ] || fail "the guest was suspended although a disk has come"
gone B || fail "a twin without the early disk is left: $(on B list)"
as A xenstore-rm "$disk" "$disk"1

# After a protection our monitor starts the guest again, as it was last.
as A "$stock_bin/xl" rename g renamed
as A "$stock_bin/xl" reboot renamed >"$dir/out" 2>&1 || fail "reboot: $(cat "$dir/out")"
started_again() { [ "$(as A "$stock_bin/xl" domid renamed 2>/dev/null || echo "$d")" != "$d" ]; }
until_true 'the guest is not started again under its new name' started_again
as A "$stock_bin/xl" rename renamed g
d=$(as A "$stock_bin/xl" domid g)

# The power goes.
before=$(value A "$d" suspends)
timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" remus -F -n -d -i 20 --limit-ms 600 \
    --on-link-loss=backup -s "$dir/ssh" g hostB >"$dir/remus.out" 2>&1 &
pids="$pids $!"
until_suspends $((before + 6)) "$dir/remus.out"
[ "$(guest A "$d" kv SET name some words)" = OK ] || fail "the guest's table takes nothing"
# Given less memory meanwhile, it must not be given back the old amount by the backup.
as A "$stock_bin/xl" mem-set g 30 >"$dir/out" 2>&1 || fail "mem-set: $(cat "$dir/out")"
target=$(as A xenstore-read "/local/domain/$d/memory/target")
# What was there at a checkpoint that the backup acknowledged: the next one began after this, and a third after its ack.
ticks=$(value A "$d" ticks)
until_suspends $(($(value A "$d" suspends) + 3)) "$dir/remus.out"
"$here/xensim" down "$dir/A"
tries=0
until on B list | grep -q running; do
    tries=$((tries + 1))
    [ $tries -lt 500 ] || { fail "the guest does not go on at B: $(on B list)"; exit 1; }
    sleep 0.02
done
e=$(as B "$stock_bin/xl" domid g 2>/dev/null)
[ -n "$e" ] || { fail "no guest of that name at B: $(as B "$stock_bin/xl" list)"; exit 1; }
[ "$(as B xenstore-read "/local/domain/$e/memory/target")" = "$target" ] ||
    fail "the guest's memory at B is to be $(as B xenstore-read "/local/domain/$e/memory/target") KiB, not $target"
[ "$(value B "$e" ticks)" -ge "$ticks" ] || fail "the guest at B is older than a checkpoint that was acknowledged"
on B verify "$e" || fail "the memory at B is not what the guest wrote"
[ "$(guest B "$e" kv GET name)" = "VALUE some words" ] || fail "the table at B lacks what it had at a checkpoint"
ticks=$(value B "$e" ticks)
sleep 0.1
[ "$(value B "$e" ticks)" -gt "$ticks" ] || fail "the guest at B does not run"
[ "$failed" = 0 ] && echo "8 checkpoints and an end, 100 that nobody reads of; then a failover of a guest with $ticks ticks"
exit "$failed"
