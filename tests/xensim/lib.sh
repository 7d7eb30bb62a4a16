# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=sh disable=SC2034 # what the tests use
# For the tests on simulated hosts: starts them, finds Debian's programs, cleans up. The build names its folder in
# XENSIM_BUILD and our helper in XENSIM_HELPER.
set -u

build=${XENSIM_BUILD:?is set by the build}
our_helper=${XENSIM_HELPER:?is set by the build}
root=$(cd "$(dirname "$0")/../.." && pwd)
stock_root=${XENTWIN_CACHE:-$root/.cache}/xensim/root
stock_bin=$stock_root/usr/lib/xen-4.17/bin
stock_helper=$stock_bin/libxl-save-helper
[ -x "$stock_helper" ] || stock_helper=/usr/lib/xen-4.17/bin/libxl-save-helper

here=$(cd "$(dirname "$0")" && pwd)
export XENSIM_BUILD
xen_hosts=
dir=$(mktemp -d /tmp/xensim.XXXXXX)
pids=
failed=0

finish() {
    status=$?
    for name in $xen_hosts; do
        "$here/xensim" down "$dir/$name"
    done
    for pid in $pids; do
        kill "$pid" 2>/dev/null
    done
    wait
    # shellcheck disable=SC2015 # the second branch only when the first says that all is well
    [ "$status" -eq 0 ] || [ "$status" -eq 77 ] || for log in "$dir"/*/*log "$dir"/*/log-xen/*; do
        [ -s "$log" ] && echo "--- $log" && tail -n 20 "$log"
    done
    rm -rf "$dir"
    exit "$status"
}
trap finish EXIT
trap 'exit 1' INT TERM

skip() {
    echo "skipped: $*"
    exit 77
}
fail() {
    echo "FAIL: $*"
    failed=1
}
# For tests with whole hosts.
need_xl_host() {
    [ -x "$stock_helper" ] && [ -x "$stock_bin/xenstored" ] ||
        skip "Debian's xl and xenstored are not here; tests/xensim/fetch-stock gets them"
    [ "$(id -u)" -eq 0 ] || skip "Debian's xenconsoled wants root"
}

# host NAME: starts a simulated host; its socket is $dir/NAME/xen.sock.
host() {
    mkdir -p "$dir/$1"
    "$build/xensimd" "$1" "$dir/$1" 2>"$dir/$1/log" &
    pids="$pids $!"
    tries=0
    until [ "$(on "$1" ping 2>/dev/null)" = "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { echo "host $1 does not start"; exit 1; }
        sleep 0.05
    done
}
# on NAME WORDS...: xensimctl at that host.
on() {
    at=$1
    shift
    XENSIM_SOCKET=$dir/$at/xen.sock "$build/xensimctl" "$@"
}
# value NAME DOMID KEY: one word of `info`.
value() {
    on "$1" info "$2" | tr ' ' '\n' | sed -n "s/^$3=//p"
}
# wait_value NAME DOMID KEY VALUE: within 10 s.
wait_value() {
    tries=0
    until [ "$(value "$1" "$2" "$3")" = "$4" ]; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || return 1
        sleep 0.02
    done
}
# use_our_xl: `xl` on the hosts is ours, with our helper.
use_our_xl() {
    mkdir "$dir/bin"
    ln -s "${XENSIM_XL:?is set by the build}" "$dir/bin/xl"
    export XENSIM_PATH="$dir/bin" LIBXL_SAVE_HELPER="$our_helper" XENTWIN_GUARD XENTWIN_APPLY
}
# until_true WHAT CMD...: within 15 s. What was said until then is in $dir/remus.out and $dir/out.
until_true() {
    what=$1 waited=0
    shift
    until "$@"; do
        waited=$((waited + 1))
        [ $waited -lt 750 ] || { fail "${step:+$step: }$what: $(tail -n 3 "$dir/remus.out" "$dir/out")"; exit 1; }
        sleep 0.02
    done
}
# until_suspends N [FILE]: guest $d of host A was suspended that often; FILE, $dir/err of its roundtrip, says what is wrong.
until_suspends() {
    tries=0
    # shellcheck disable=SC2154 # the test sets it
    until [ "$(value A "$d" suspends)" -ge "$1" ]; do
        tries=$((tries + 1))
        [ $tries -lt 1000 ] || { fail "no checkpoint $1: $(tail -n 5 "${2:-$dir/err}")"; exit 1; }
        sleep 0.01
    done
}
# gone NAME: no domain is left there within 10 s; a dying one goes when xenstored and xenconsoled let go of its pages.
gone() {
    tries=0
    until [ -z "$(on "$1" list)" ]; do
        tries=$((tries + 1))
        [ $tries -lt 500 ] || return 1
        sleep 0.02
    done
}
# guest NAME DOMID COMMAND WORDS...: what only a guest that runs can do, so not in the midst of a checkpoint.
guest() {
    where=$1 domid=$2 what=$3
    shift 3
    tries=0
    until on "$where" "$what" "$domid" "$@" 2>"$dir/guest"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { fail "$what $*: $(cat "$dir/guest")"; return 1; }
        sleep 0.005
    done
}
# roundtrip A DOMID HELPER B DOMID HELPER KEY=VALUE...: B may be "-".
roundtrip() {
    from=$dir/$1/xen.sock to=$4
    [ "$to" = - ] || to=$dir/$4/xen.sock
    from_domid=$2 save=$3 to_domid=$5 restore=$6
    shift 6
    LD_LIBRARY_PATH=$build "$build/xensim-roundtrip" "$from" "$from_domid" "$save" "$to" \
        "$to_domid" "$restore" "$@"
}
# xen_host NAME: a host with xenstored and xenconsoled.
xen_host() {
    xen_hosts="$xen_hosts $1"
    "$here/xensim" up "$dir/$1" || exit 1
}
# as NAME CMD...: a program there, for 30 s at most.
as() {
    at=$1
    shift
    timeout 30 "$here/xensim" exec "$dir/$at" "$@"
}
# An ssh to host B: "HOST WORDS..." -> the words at B.
make_ssh() {
    cat >"$dir/ssh" <<END
#!/bin/sh
shift
exec env -u LD_PRELOAD "$here/xensim" exec "$dir/B" sh -c "\$*"
END
    chmod +x "$dir/ssh"
}
# guest_config NAME SPEC: prints the path of a configuration.
guest_config() {
    cat >"$dir/$1.cfg" <<END
name = "$1"
type = "pvh"
kernel = "$build/xensim-guest"
memory = 32
cmdline = "$2"
END
    echo "$dir/$1.cfg"
}
