#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# The test guest's server and its client against each other, natively, in an empty
# network namespace. Usage: guest_test.sh XTGUEST KVCLIENT
set -u
if [ "${IN_NAMESPACE-}" != yes ]; then
    if ! unshare --net true 2>/dev/null; then
        echo "skip: no network namespace can be made"
        exit 77
    fi
    IN_NAMESPACE=yes exec unshare --net "$0" "$@"
fi
xtguest=$1
client=$2
failed=0
dir=$(mktemp -d)
server=
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    [ -z "$server" ] || kill "$server"
    rm -rf "$dir"
}
trap clean_up EXIT

# answers WANTED LINE: the answer to LINE matches the pattern WANTED.
answers() {
    local got
    got=$("$client" cmd ::1 "$2" --timeout 10 2>&1)
    # shellcheck disable=SC2053 # a pattern on purpose
    [[ $got == $1 ]] || {
        echo "not ok: '$2' gave '$got', wanted '$1'"
        failed=1
    }
}
check() {
    "$@" >"$dir/out" 2>&1 || {
        echo "not ok: $*: $(tail -n 1 "$dir/out")"
        failed=1
    }
}

ip link set lo up
"$xtguest" >"$dir/server.log" 2>&1 &
server=$!
for _ in $(seq 50); do
    grep -q ready "$dir/server.log" && break
    sleep 0.1
done

answers 0 COUNT
answers NONE 'GET nothing'
answers 'OK 1' 'SET a one'
answers 'OK 2' 'SET a two words'
answers 'VAL two words' 'GET a'
answers '#t7 VAL two words' '#t7 GET a'
answers 1 COUNT
answers 'ERR*' 'SET a'
answers 'ERR*' ''
answers 'ERR*' '#only-a-tag'
answers 'ERR*' SCREEN
answers 'ERR*' 'SCREEN fast'
answers 'ERR screen: No such device' 'SCREEN SUM'
answers 'ERR*' "#$(printf '%040d' 1) GET a"
answers 'ERR*' "SET $(printf '%070d' 1) x"
answers 'ERR*' "SET k $(printf '%0300d' 1)"
answers 'ERR*' 'DIRTY fast'
answers 'ERR*' 'DIRTY 10 99999999'
answers OK 'DIRTY 5000 300'
answers OK 'DIRTY 5000'
answers 'ID ????????????????' ID
check "$client" load 127.0.0.1 --log "$dir/tcp" --rate 1000 --seconds 2
check "$client" load 127.0.0.1 --log "$dir/udp" --rate 500 --seconds 2 --udp
check "$client" verify 127.0.0.1 --log "$dir/tcp"
check "$client" verify ::1 --log "$dir/udp"
[ "$(wc -l <"$dir/tcp")" -gt 1500 ] || { echo "not ok: only $(wc -l <"$dir/tcp") writes over TCP" && failed=1; }
[ "$(wc -l <"$dir/udp")" -gt 500 ] || { echo "not ok: only $(wc -l <"$dir/udp") writes over UDP" && failed=1; }
answers 'CHECK OK pages=300 gen=* entries=*' CHECK
lines=$("$client" cmd ::1 DUMP | wc -l)
[ "$lines" = $(($("$client" cmd ::1 COUNT) + 1)) ] || { echo "not ok: DUMP has $lines lines" && failed=1; }
echo "1 kmissing-1 vmissing 1" >>"$dir/tcp"
if "$client" verify ::1 --log "$dir/tcp" >"$dir/out" 2>/dev/null || ! grep -q ' lost 1$' "$dir/out"; then
    echo "not ok: a lost write was not found: $(cat "$dir/out")"
    failed=1
fi
[ "$("$client" gap --log "$dir/udp" | grep -c '^longest gap [0-9]')" = 1 ] || { echo "not ok: gap" && failed=1; }
[ $failed != 0 ] || echo "guest and client agree"
exit $failed
