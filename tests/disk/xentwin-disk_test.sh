#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# xentwin-disk's command line: usage, start and stop, what is refused.
set -u

dir=$(mktemp -d)
export XENTWIN_RUNDIR=$dir/run XENTWIN_STATEDIR=$dir/state XENTWIN_DISK_PLUGIN=$DISK_PLUGIN XENTWIN_DEFAULTS=$dir/default
failed=0
trap '"$DISK_TOOL" stop g xvda; "$DISK_TOOL" stop g xvdz; rm -rf "$dir" "$dir.out"' EXIT

# expect EXIT-CODE 'text that stderr or stdout must hold' ARGUMENTS...
expect() {
    local code=$1 text=$2 out got
    shift 2
    "$DISK_TOOL" "$@" >"$dir.out" 2>&1 </dev/null
    got=$?
    out=$(tr -d '\0' <"$dir.out")
    if [ "$got" != "$code" ] || [[ $out != *"$text"* ]]; then
        echo "xentwin-disk $*: exit $got, '$out'; expected exit $code, '$text'" >&2
        failed=1
    fi
    if [ "$code" = 2 ] && [ "$(wc -l <<<"$out")" != 1 ]; then
        echo "xentwin-disk $*: more than one line: $out" >&2
        failed=1
    fi
}

disk=$dir/disk
truncate -s 1M "$disk"

expect 0 'start DOMAIN VDEV PATH' --help
expect 2 'no command'
expect 2 'is no command' begin g xvda
expect 2 'wrong number' start g xvda
expect 2 'is no option' start g xvda "$disk" --rolle primary
expect 2 '--role is primary or backup' start g xvda "$disk" --role boss
expect 2 '--on-slow' start g xvda "$disk" --on-slow wait
expect 2 '--shared is a whole path' start g xvda "$disk" --shared journal
expect 2 'not usable as a name' start ../g xvda "$disk"
expect 2 'not usable as a name' start g xv/da "$disk"
expect 2 'needs --path' attach g xvda
expect 2 '--size' attach g xvda --path "$disk" --size -4
[ ! -e "$dir/run" ] || { echo "bad usage made files" >&2 && failed=1; }

expect 1 'cannot use' start g xvda "$dir/none"
: >"$dir/empty"
expect 1 'No medium found' start g xvda "$dir/empty"
expect 1 'Is a directory' start g xvda "$dir"
expect 1 'journal' start g xvda "$disk" --journal 1k
expect 1 'limit-ms' start g xvda "$disk" --limit-ms 1
expect 1 'no instance' status g xvda
expect 0 '' stop g xvda

expect 0 'nbd.sock' start g xvda "$disk"
expect 0 'nbd.sock' start g xvda "$disk"
cp "$disk" "$dir/other"
expect 1 'another disk' start g xvda "$dir/other"
expect 0 'role=primary' status g xvda
expect 0 'state=alone' status
expect 0 'g-xvda role=primary' status
expect 0 'size=1048576' request g xvda status
expect 1 'no such request' request g xvda dance
expect 1 'error barrier' request g xvda barrier
expect 1 'error barrier: not protected' request g xvda barrier 1
expect 1 'one or two file descriptors' request g xvda link
expect 1 'runs: stop it first' reset g xvda
expect 1 'served as a primary' attach g xvda --path "$disk"
expect 0 '' stop g xvda
[ ! -e "$dir/run/disk-g-xvda/nbd.sock" ] || { echo "the socket's file stays" >&2 && failed=1; }

# A link starts an instance and ends it; one that idles with another disk makes room, one that was started by hand stays.
expect 0 'closed the link' attach g xvde --path "$disk"
expect 1 'no instance' status g xvde
expect 0 'nbd.sock' start g xvde "$dir/other" --role backup
expect 1 'another disk' start g xvde "$disk" --role backup
expect 0 'closed the link' attach g xvde --path "$disk"
expect 1 'no instance' status g xvde
expect 0 'nbd.sock' start g xvde "$disk" --role backup
expect 0 'closed the link' attach g xvde --path "$disk"
expect 0 'role=backup' status g xvde
expect 0 'ok' request g xvde leave
expect 0 '' stop g xvde
expect 0 'nbd.sock' start g xvde "$disk" --force-primary
expect 1 'leave: it is a primary' request g xvde leave
expect 0 '' stop g xvde
expect 0 '' reset g xvde

# Nobody there is another thing than not being able to look.
mkdir -p "$dir/odd"
ln -s disk-g-xvdf "$dir/odd/disk-g-xvdf"
: >"$dir/odd/file"
for words in 'stop g xvdf' 'status g xvdf' 'status' "start g xvdf $disk" 'reset g xvdf' 'request g xvdf status'; do
    # shellcheck disable=SC2086 # words
    XENTWIN_RUNDIR=$dir/odd expect 1 'cannot ask for the instance g-xvdf: Too many levels' $words
done
XENTWIN_RUNDIR=$dir/odd/file expect 1 "cannot read $dir/odd/file: Not a directory" status
XENTWIN_RUNDIR=$dir/none expect 0 '' status
if [ "$(id -u)" = 0 ]; then
    # Somebody else, in folders that he may pass.
    chmod 711 "$dir"
    install -m 755 "$DISK_TOOL" "$dir/tool"
    expect 0 'nbd.sock' start g xvdf "$disk"
    for words in 'stop g xvdf' 'status g xvdf' status; do
        # shellcheck disable=SC2086 # words
        out=$(setpriv --reuid 65534 --clear-groups "$dir/tool" $words 2>&1) && { echo "xentwin-disk $words as nobody: exit 0" >&2; failed=1; }
        [[ $out == *': Permission denied' ]] || { echo "xentwin-disk $words as nobody: $out" >&2; failed=1; }
    done
    expect 0 '' stop g xvdf
fi

# Paths are compared as they are, with blanks and '%'.
odd="$dir/a b.img" like="$dir/a%20b.img"
cp "$disk" "$odd"
cp "$disk" "$like"
expect 0 'nbd.sock' start g xvde "$disk" --role backup
expect 1 'another disk' start g xvde "$odd" --role backup
expect 0 'closed the link' attach g xvde --path "$odd"
expect 1 'no instance' status g xvde
expect 0 '' reset g xvde
expect 0 'nbd.sock' start g xvde "$odd"
expect 0 'nbd.sock' start g xvde "$odd"
expect 0 "path=$dir/a%20b.img" status g xvde
expect 1 'another disk' start g xvde "$like"
expect 0 '' stop g xvde
expect 0 '' reset g xvde
expect 0 'nbd.sock' start g xvde "$like" --shared "$dir/j 1"
expect 0 "path=$dir/a%2520b.img" status g xvde
expect 0 'nbd.sock' start g xvde "$like" --shared "$dir/j 1"
expect 1 'runs with the shared journal' start g xvde "$like" --shared "$dir/j%201"
expect 1 'runs with the shared journal' start g xvde "$like" --shared "$dir/j 2"
expect 1 'another disk' start g xvde "$odd" --shared "$dir/j 1"
expect 0 '' stop g xvde
expect 0 '' reset g xvde
long=$dir/$(printf '%0.s ' {1..200})
: >"$long"
expect 1 'File name too long' start g xvde "$long"

# What a link starts has this host's DISK_OPTIONS, but for those that a backup has no use for.
mkfifo "$dir/link"
# started_with DISK_OPTIONS 'parameter...' 'no parameter...' ARGUMENTS...: of the instance that attach starts
started_with() {
    local options=$1 with=$2 without=$3 word has pid=$dir/run/disk-g-xvdg/pid attach
    shift 3
    printf '%s\n' "$options" >"$dir/default"
    "$DISK_TOOL" attach g xvdg --path "$disk" "$@" <"$dir/link" >/dev/null 2>&1 &
    attach=$!
    exec 8>"$dir/link"
    for _ in {1..100}; do
        has=" $({ tr '\0' ' ' <"/proc/$(cat "$pid")/cmdline"; } 2>/dev/null) "
        [[ $has == *role=* ]] && break
        sleep 0.05
    done
    for word in $with; do
        [[ $has == *" $word "* ]] || { echo "DISK_OPTIONS='$options' attach $*: no $word in $has" >&2; failed=1; }
    done
    for word in $without; do
        [[ $has != *" $word"* ]] || { echo "DISK_OPTIONS='$options' attach $*: $word in $has" >&2; failed=1; }
    done
    exec 8>&-
    wait "$attach"
    expect 0 '' stop g xvdg
}
started_with '' 'role=backup --threads=16' 'journal='
started_with 'DISK_OPTIONS="--journal 5M --threads 3 --queue 6M --limit-ms 4000 --on-slow hold"' \
    'role=backup journal=5M --threads=3 queue=6M limit-ms=4000 hold=true' 'role=primary'
started_with 'x=7; DISK_OPTIONS="--journal ${x}M"; echo this is not for the link; false' journal=7M ''
started_with 'DISK_OPTIONS="--journal 5M"' journal=8M journal=5M --journal 8M
started_with "DISK_OPTIONS='--role primary --force-primary --path /x --size 5 --shared /j --state $dir/st'" \
    "role=backup path=$disk state=$dir/st" 'role=primary force-primary shared path=/x'
rm -r "$dir/st"
refused() { # TEXT CONTENT: a file that is no good, in one line
    printf '%s\n' "$2" >"$dir/default"
    expect 1 "$1" attach g xvdg --path "$disk"
    # The link has the same line, in a frame.
    [ "$("$DISK_TOOL" attach g xvdg --path "$disk" 2>&1 >/dev/null </dev/null | wc -l)" = 1 ] ||
        { echo "attach with '$2': not one line" >&2; failed=1; }
}
refused "DISK_OPTIONS in $dir/default: \"--jurnal\" is no option" 'DISK_OPTIONS="--jurnal 5M"'
refused "DISK_OPTIONS in $dir/default: \"5M\" is no option" 'DISK_OPTIONS=5M'
refused "DISK_OPTIONS in $dir/default: --on-slow is drop or hold, not \"wait\"" 'DISK_OPTIONS="--on-slow wait"'
refused "$dir/default: line 1: 5M: command not found" 'DISK_OPTIONS=--journal 5M'
refused "$dir/default: line 1: unexpected EOF" 'DISK_OPTIONS="--journal 5M'
refused "$dir/default: a shell cannot read it to its end" 'exit 0'
refused 'more than 63 words' "DISK_OPTIONS='$(printf 'x%.0s ' {1..64})'"
echo 'DISK_OPTIONS="--journal 1k"' >"$dir/default"
expect 1 'cannot be started: journal=1k must be at least' attach g xvdg --path "$disk"
rm "$dir/default"

# A disk that was a backup's is not served.
expect 0 'nbd.sock' start g xvdb "$disk" --role backup
expect 0 'role=backup' status g xvdb
expect 1 'promote' request g xvdb promote 1
expect 0 '' stop g xvdb
expect 1 'it may be stale' start g xvdb "$disk"
expect 0 'nbd.sock' start g xvdb "$disk" --force-primary
expect 0 '' stop g xvdb
expect 0 '' reset g xvdb
expect 0 'nbd.sock' start g xvdb "$disk"
expect 0 '' stop g xvdb
truncate -s 2M "$disk"
expect 1 'a changed size is a new disk' start g xvdb "$disk"

# A path with a blank is compared like others.
truncate -s 1M "$dir/a b" "$dir/a c"
expect 0 'nbd.sock' start g xvdf "$dir/a b"
expect 0 'nbd.sock' start g xvdf "$dir/a b"
expect 1 'another disk' start g xvdf "$dir/a c"
expect 0 '' stop g xvdf

# Shared storage belongs to one host at a time; another state folder is another host.
expect 1 'it is the disk' start g xvdc "$disk" --shared "$disk"
expect 0 'nbd.sock' start g xvdc "$disk" --shared "$dir/j"
expect 0 "shared=$dir/j" status g xvdc
expect 0 'nbd.sock' start g xvdc "$disk" --shared "$dir/j"
expect 1 'runs with the shared journal' start g xvdc "$disk"
expect 1 "is another host's (generation 1)" start g xvdd "$disk" --shared "$dir/j"
expect 0 '' stop g xvdc
expect 0 'nbd.sock' start g xvdd "$disk" --shared "$dir/j"
expect 0 'generation=2' status g xvdd
expect 1 "is another host's (generation 2)" start g xvdc "$disk" --shared "$dir/j"
expect 0 '' stop g xvdd
export XENTWIN_DISK_PLUGIN=$DISK_PLUGIN_FAULTS DISK_FAULT=late@0
expect 1 'ms to be claimed' start g xvdd "$disk" --shared "$dir/j" --settle-ms 250
export XENTWIN_DISK_PLUGIN=$DISK_PLUGIN DISK_FAULT=
# An instance that begins is ended, too.
cp "$disk" "$dir/slow"
"$DISK_TOOL" start g xvdz "$dir/slow" --shared "$dir/j slow" --settle-ms 1500 >/dev/null 2>&1 &
until [ -e "$dir/run/disk-g-xvdz/lock" ]; do sleep 0.05; done
expect 0 '' stop g xvdz
wait $!
expect 1 'no instance' status g xvdz

expect 1 'settle-ms=99 must be 100 to 60000' start g xvdd "$disk" --shared "$dir/j" --settle-ms 99
truncate -s 3M "$disk"
expect 1 'a changed size is a new disk' start g xvdc "$disk" --shared "$dir/j"
exit $failed
