#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# Debian's own xl, xenstored and xenconsoled, then with our helper, then our xl: create, save, restore and migrate a
# guest between two simulated hosts, and shut it down. The guest's state is followed from one to the other.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

domid_of() { as "$1" xl domid "$2" 2>/dev/null; }
# ok WHAT CMD...: fails the test with what it said.
ok() {
    what=$1
    shift
    "$@" >"$dir/out" 2>&1 && return
    fail "$what: $(tail -n 5 "$dir/out")"
    exit 1
}
# went_on HOST DOMID TICKS: the guest there has more than so many ticks, and its memory is its own.
went_on() {
    tries=0
    until [ "$(value "$1" "$2" ticks)" -gt "$3" ]; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { fail "the guest at $1 does not go on"; return; }
        sleep 0.02
    done
    ok "memory at $1" on "$1" verify "$2"
}

xen_host A
xen_host B
make_ssh
# journey NAME: create, save, restore, migrate, shut down.
journey() {
    ok create as A xl create -e "$cfg"
    d=$(domid_of A g)
    [ -n "$d" ] || { fail "xl create made no guest"; exit 1; }
    went_on A "$d" 50

    ok save as A xl save g "$dir/g.save"
    gone A || fail "the saved guest is still there"
    ok restore as A xl restore -e "$dir/g.save"
    d=$(domid_of A g)
    went_on A "$d" 50
    ticks=$(value A "$d" ticks)

    ok migrate as A xl migrate -e -s "$dir/ssh" g hostB
    gone A || fail "the migrated guest is still at A"
    d=$(domid_of B g)
    went_on B "$d" "$ticks"
    ok shutdown as B xl shutdown -w g
    [ "$(value B "$d" code)" = 0 ] || fail "the guest has not powered off"
    ok destroy as B xl destroy g
    gone B || fail "the guest is left at B"
    echo "$1: created, saved, restored, migrated, shut down"
}

cfg=$(guest_config g rate=5000,pages=1000,choice=zipf,fill=sparse)
LIBXL_SAVE_HELPER=$stock_helper
export LIBXL_SAVE_HELPER
journey "Debian's xl and helper"
LIBXL_SAVE_HELPER=$our_helper
journey "Debian's xl with our helper"
mkdir "$dir/bin"
ln -s "${XENSIM_XL:?is set by the build}" "$dir/bin/xl"
export XENSIM_PATH="$dir/bin"
journey "our xl"

# As after the death of a twin that was starting its guest.
ok 'create, paused' as A xl create -e -p "$cfg"
ok rename as A xl rename g g--incoming
ok 'remus --status' as A xl remus --status
grep -q 'g--incoming, is here, and no twin looks after it; .*: xl destroy [1-9]' "$dir/out" ||
    fail "remus --status does not name g--incoming: $(cat "$dir/out")"
ok 'remus --status g' as A xl remus --status g
ok 'destroy g--incoming' as A xl destroy g--incoming
ok 'remus --status again' as A xl remus --status
grep -q 'no domain is protected' "$dir/out" || fail "something is left: $(cat "$dir/out")"
exit "$failed"
