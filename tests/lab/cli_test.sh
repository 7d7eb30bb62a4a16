#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# The lab's command line: each command has --help, each bad use gets one line and exit 2.
set -u
cd "$(dirname "$0")" || exit 1
failed=0
count=0

not_ok() {
    echo "not ok: $*"
    failed=1
}

# refuse WORD ARGS...: exit 2, nothing on stdout, one line on stderr that has WORD.
refuse() {
    local word=$1 out err status
    shift
    count=$((count + 1))
    out=$(./lab "$@" 2>/dev/null </dev/null)
    err=$(./lab "$@" 2>&1 >/dev/null </dev/null)
    ./lab "$@" >/dev/null 2>&1 </dev/null
    status=$?
    [ "$status" = 2 ] || not_ok "lab $*: exit $status instead of 2"
    [ -z "$out" ] || not_ok "lab $*: wrote to stdout: $out"
    [ "$(printf '%s\n' "$err" | wc -l)" = 1 ] || not_ok "lab $*: more than one line: $err"
    [[ $err == *"$word"* ]] || not_ok "lab $*: the line does not name '$word': $err"
}

helps() {
    local command=$1
    count=$((count + 1))
    ./lab "$command" --help | grep -q "^usage: lab.*$command" || not_ok "lab $command --help"
}

if [ "$(id -u)" != 0 ]; then
    echo "skip: the lab's commands need root"
    exit 77
fi
export LAB=clitest XENTWIN_CACHE=${TMPDIR:-/tmp}/xentwin-clitest.$$
trap 'rm -rf "$XENTWIN_CACHE"' EXIT

for command in image up down status exec push kill start pause resume cut heal log clock \
    guest kv netns capture; do
    helps "$command"
done
refuse "no command"
refuse 'frobnicate' frobnicate
refuse '--frob' --frob
refuse 'Bad/name' --lab Bad/name status
refuse 'extra' up extra
refuse 'extra' down extra
refuse 'no host' kill
refuse "'C'" kill C
refuse "'a'" start a
refuse 'no host' exec
refuse 'no command' exec A
refuse "'soon'" exec --timeout soon A true
refuse '--wait' exec --wait A true
refuse 'no link' cut
refuse "'repl:C'" cut repl:C
refuse "'lan'" heal lan
refuse "'begin'" capture begin
refuse 'no file' capture start
refuse 'no action' guest
refuse "'launch'" guest launch
refuse "'vm'" guest config vm
refuse "'12'" guest config pvh --mem 12
refuse "'9'" guest config pvh --vcpus 9
refuse "'0'" guest config pvh --vcpus 2 --maxvcpus 0
refuse "'Bad Name'" guest config pvh --name 'Bad Name'
refuse 'no name' guest ip

./lab guest config hvm --vcpus 2 --maxvcpus 3 --vga | grep -Ec '^(vcpus = 2|maxvcpus = 3|vga = "stdvga")$' | grep -qx 3 ||
    not_ok "a guest with vcpus and a graphics card lacks them"
./lab guest config hvm-nopv --name n1 --mem 128 | grep -q 'xen_nopv' || not_ok "hvm-nopv without xen_nopv"
./lab status | grep -qx 'lab clitest: down' || not_ok "status of a lab that is down"
./lab exec A true 2>&1 | grep -q "not up" || not_ok "exec in a lab that is down"
echo "$count command lines checked"
exit $failed
