#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# block-remus with fakes for xenstore, xentwin-disk and nbd-client: what it refuses, with which words, and that nothing is started then.
# Kernel nbd is not needed: the way to a connected device is shown in the lab.
set -u

script=${XENTWIN_SRCDIR:?}/tools/hotplug/Linux/block-remus
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bin" "$dir/store"
export DIR=$dir XENBUS_PATH=backend/vbd/5/51712
failed=0

fake() { # NAME, body on standard input
    { echo '#!/bin/bash'; cat; } >"$dir/bin/$1"
    chmod +x "$dir/bin/$1"
}
fake xenstore-read <<'FAKE'
f=$DIR/store/${1//\//_}
[ -e "$f" ] && cat "$f"
FAKE
fake xenstore-write <<'FAKE'
while [ $# -ge 2 ]; do echo "$2" >"$DIR/store/${1//\//_}"; shift 2; done
FAKE
fake xenstore-rm <<'FAKE'
rm -f "$DIR/store/${1//\//_}"
FAKE
fake xentwin-disk <<'FAKE'
echo "xentwin-disk $*" >>"$DIR/log"
# STATUS: of what runs already. STARTED: of what starts; without it nothing does.
case $1 in
status) if [ -e "$DIR/runs" ]; then cat "$DIR/runs"; else [ -n "${STATUS:-}" ] && echo "$STATUS"; fi ;;
start)
    case $STATUS in
    *"path="*) [[ $STATUS == *"path=${!#}"* ]] || { echo "xentwin-disk: runs with another disk" >&2; exit 1; } ;;
    '')
        [ -n "${STARTED:-}" ] || { echo "no room here" >&2; exit 1; }
        # What libxl sees if it kills the script now.
        cp "$DIR/store/backend_vbd_5_51712_remus-instance" "$DIR/noted"
        echo "$STARTED" >"$DIR/runs" ;;
    esac ;;
stop) [ -z "${STOP_FAILS:-}" ] && rm -f "$DIR/runs" ;;
esac
FAKE
fake nbd-client <<'FAKE'
echo "nbd-client $*" >>"$DIR/log"
FAKE

node() { printf '%s/store/%s' "$dir" "${1//\//_}"; }
# guest TARGET [NAME [STATUS of its instance]]
guest() {
    rm -f "$dir"/store/* "$dir/log" "$dir/runs" "$dir/noted"
    echo "$1" >"$(node $XENBUS_PATH/params)"
    echo 5 >"$(node $XENBUS_PATH/frontend-id)"
    echo xvda >"$(node $XENBUS_PATH/dev)"
    echo w >"$(node $XENBUS_PATH/mode)"
    echo "${2:-web}" >"$(node /local/domain/5/name)"
    export STATUS=${3:-}
    : >"$dir/log"
}
say() {
    echo "not ok $1"
    failed=1
}
# refused WORDS: add fails, says WORDS in one line and in hotplug-error, connects nothing.
refused() {
    local out status
    out=$(PATH=$dir/bin:$PATH "$script" add 2>&1)
    status=$?
    [ $status -eq 1 ] || say "exit $status instead of 1 ($1): $out"
    [[ "$(wc -l <<<"$out") $out" == "1 "*"$1"* ]] || say "'$1' expected: $out"
    grep -qF -- "$1" "$(node $XENBUS_PATH/hotplug-error)" || say "no hotplug-error ($1)"
    [ "$(cat "$(node $XENBUS_PATH/hotplug-status)")" = error ] || say "hotplug-status ($1)"
    ! grep -q nbd-client "$dir/log" || say "connected all the same ($1)"
}

disk=$dir/disk.img
truncate -s 1M "$disk"
guest "/dev/vg/x" && refused "is neither remus:HOST[:PORT][,shared=JOURNAL]|PATH nor drbd:RESOURCE"
guest "remus:|$disk" && refused "is neither remus:HOST[:PORT][,shared=JOURNAL]|PATH nor drbd:RESOURCE"
guest "drbd:" && refused "'' is no DRBD resource"
guest "drbd:-all" && refused "'-all' is no DRBD resource"
guest "drbd:r0" web && refused "does not start: no room here"
grep -qx "xentwin-disk start web xvda drbd:r0" "$dir/log" || say "start: $(cat "$dir/log")"
export XENTWIN_TWIN=1
guest "drbd:r0" web--incoming "ok role=backup state=protected link=up" && refused "use --twin=cold"
guest "drbd:r0" web--incoming "ok role=backup state=lost link=down" && refused "did not come to this host"
unset XENTWIN_TWIN
guest "drbd:r0" web "ok role=primary state=alone link=down node=/dev/none" && refused "does not tell which device r0 is"
guest "remus:b:x|$disk" && refused "'x' is no port"
guest "remus:b c|$disk" && refused "is no host name"
guest "remus:b|disk.img" && refused "is not a whole path"
guest "remus:b|$dir/none" && refused "is neither a block device nor a file"
guest "remus:b|$disk" "a b" && refused "the guest's name 'a b'"
guest "remus:b:22|aio:$disk" web && refused "does not start: no room here"
grep -qx "xentwin-disk start web xvda $disk" "$dir/log" || say "start: $(cat "$dir/log")"
guest "tap:remus:b:9000|aio:$disk"
hint=$(PATH=$dir/bin:$PATH "$script" add 2>&1)
[[ $hint == *"blktap2's spelling; taken as target=remus:b|aio:$disk"* ]] || say "no hint about blktap2: $hint"
grep -qx "xentwin-disk start web xvda $disk" "$dir/log" || say "blktap2's spelling: $(cat "$dir/log")"
guest "tap:remus:b:9000|aio:disk.img"
hint=$(PATH=$dir/bin:$PATH "$script" add 2>&1)
[[ $hint == *"is not a whole path"* ]] || say "old and wrong: $hint"
guest "remus:b:22,shared=$dir/the journal|$disk" web && refused "does not start: no room here"
grep -qx "xentwin-disk start --shared $dir/the journal web xvda $disk" "$dir/log" || say "shared: $(cat "$dir/log")"
guest "remus:b,shared=journal|$disk" web && refused "JOURNAL being a whole path"
guest "remus:b,share=/j|$disk" web && refused "only ',shared=JOURNAL' may stand"
export XENTWIN_TWIN=1
guest "remus:b|$disk" web--incoming && refused "did not come to this host"
guest "remus:b|$disk" web--incoming "ok role=backup state=lost link=down" && refused "did not come to this host"
guest "remus:b|$disk" web--incoming "ok role=backup state=lost link=down committed=0" && refused "did not come to this host"
# The primary was lost while the twin was being completed.
guest "remus:b|$disk" web--incoming "ok role=backup state=lost link=down committed=3 path=$disk"
lost=$(PATH=$dir/bin:$PATH "$script" add 2>&1)
[[ $lost != *"did not come to this host"* ]] || say "a twin that may be promoted has lost its disk: $lost"
unset XENTWIN_TWIN
# A stock xl migrate: what runs here is of another time.
for status in "role=primary state=alone link=down" "role=backup state=protected link=up"; do
    guest "remus:b|$disk" web--incoming "ok $status path=$disk" && refused "it is moved by 'xl remus', not by 'xl migrate'"
done
guest "remus:b|$disk" web "ok role=backup state=idle link=down" && refused "is the backup of another host's"
! grep -q start "$dir/log" || say "started a backup"

# An instance that runs already is used only if it is of this disk, and if no other host may have gone on with it.
guest "remus:b|$disk" web "ok role=primary state=alone link=down path=/dev/old" && refused "runs with another disk; if no guest uses it: 'xentwin-disk stop web xvda'"
for state in linked syncing synced protected lost broken; do
    guest "remus:b|$disk" web "ok role=primary state=$state link=down path=$disk" &&
        refused "its state is '$state': if no guest uses it, 'xentwin-disk stop web xvda', and start the guest where it ran last"
    ! grep -q stop "$dir/log" || say "$state: ended what it had not started"
done
guest "drbd:r0" web "ok role=primary state=alone link=down path=drbd:r0 node=/dev/none" && refused "does not tell which device r0 is"
! grep -q stop "$dir/log" || say "ended what it had not started"

# What an add started ends with it when it fails, or is noted for remove.
export STARTED="ok role=primary state=alone link=down path=drbd:r0 node=/dev/none"
guest "drbd:r0" web && refused "does not tell which device r0 is"
[ "$(tail -n 1 "$dir/log")" = "xentwin-disk stop web xvda" ] || say "a failed add leaves its instance: $(cat "$dir/log")"
[ ! -e "$(node $XENBUS_PATH/remus-instance)" ] || say "a failed add leaves its note"
[ "$(cat "$dir/noted")" = "web xvda" ] || say "nothing is noted before the start"
export STOP_FAILS=1
guest "drbd:r0" web && refused "does not tell which device r0 is"
[ "$(cat "$(node $XENBUS_PATH/remus-instance)")" = "web xvda" ] || say "remove does not know of the instance that did not end"
unset STOP_FAILS
# One that came meanwhile is another's.
STARTED="ok role=backup state=synced link=up path=drbd:r0"
guest "drbd:r0" web && refused "is the backup of another host's"
! grep -q stop "$dir/log" || say "ended a backup that came meanwhile"
device=$dir/device
if mknod "$device" b 7 0 2>/dev/null && [ -b "$device" ]; then
    STARTED="ok role=primary state=alone link=down path=drbd:r0 node=$device"
    guest "drbd:r0" web
    PATH=$dir/bin:$PATH "$script" add || say "add fails"
    [ "$(cat "$(node $XENBUS_PATH/remus-instance)")/$(cat "$(node $XENBUS_PATH/hotplug-status)")" = "web xvda/connected" ] || say "add writes too little"
    ! grep -q stop "$dir/log" || say "an add that is well ended its instance"
    # A twin's, promoted, and one that is fed.
    for STATUS in "ok role=primary state=alone link=down" "ok role=primary state=lost link=down"; do
        guest "drbd:r0" web--incoming "$STATUS node=$device"
        PATH=$dir/bin:$PATH XENTWIN_TWIN=1 "$script" add || say "add fails for a twin"
        ! grep -q start "$dir/log" || say "started a twin's"
    done
fi
unset STARTED

guest "remus:b|$disk" web
echo "web xvda" >"$(node $XENBUS_PATH/remus-instance)"
echo "/dev/nbd3" >"$(node $XENBUS_PATH/node)"
PATH=$dir/bin:$PATH "$script" remove || say "remove fails"
printf 'nbd-client -d /dev/nbd3\nxentwin-disk status web xvda\nxentwin-disk stop web xvda\n' | cmp -s - "$dir/log" || say "remove: $(cat "$dir/log")"
export STATUS="ok role=backup state=protected link=up"
: >"$dir/log"
PATH=$dir/bin:$PATH "$script" remove
! grep -q stop "$dir/log" || say "remove of a twin: stopped an instance that a primary feeds"
STATUS=
said=$(STOP_FAILS=1 PATH=$dir/bin:$PATH "$script" remove 2>&1) || say "remove fails when stop does"
[[ $said == "block-remus: disk xvda of web:"* ]] || say "remove does not say that stop failed: $said"
echo "../x" >"$(node $XENBUS_PATH/node)"
: >"$dir/log"
PATH=$dir/bin:$PATH "$script" remove
! grep -q nbd-client "$dir/log" || say "remove: disconnected what is no nbd device"

for args in "" "add more" "online"; do
    # shellcheck disable=SC2086 # words
    PATH=$dir/bin:$PATH "$script" $args >/dev/null 2>&1
    [ $? -eq 2 ] || say "bad usage '$args'"
done
[ $failed -eq 0 ] && echo "block-remus: all as it should be"
exit $failed
