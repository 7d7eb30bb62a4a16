#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Our xl migrate, save and restore as a person types them, with ours or the stock xl on the other end; what the limits of xl migrate
# do to the black-out that a client sees.
# shellcheck disable=SC2317 # most functions are called through check
# Takes 350 s.
set -u
# shellcheck source=tests/lab/t/lib.sh
. "$(dirname "$0")/lib.sh"

addr='' id=''

same_guest() {
    wait_for 60 guest_answers "$addr" && [ "$(kv cmd "$addr" ID)" = "$id" ] &&
        [[ $(kv cmd "$addr" CHECK) == 'CHECK OK '* ]]
}
stock_ssh() { # a remote shell that finds the stock xl, on both hosts
    local h
    for h in A B; do
        on "$h" "printf '#!/bin/sh\nhost=\$1; shift; exec ssh \"\$host\" \"PATH=/usr/sbin:/usr/bin:/sbin:/bin; \$*\"\n' >/tmp/stockssh; chmod +x /tmp/stockssh"
    done
}
only_on() { guest_runs "$1" guest && ! on "$(other "$1")" "xl list | grep -q guest"; }
migrated() { # FROM WHAT COMMAND
    local to
    to=$(other "$1")
    check "$2" on "$1" "$3"
    check "$2: the same guest" same_guest
    check "$2: it runs on $to only" only_on "$to"
}

# As migrated, with a client that writes over UDP: the longest time without an answer goes into black_out[KEY].
LIMIT_MS=500
declare -A black_out
migrated_under_load() { # KEY FROM WHAT COMMAND
    local log=$LOGS/migrate-$1.acks load
    rm -f "$log"
    "$LAB_CMD" kv load "$addr" --udp --log "$log" --rate 20 --seconds 300 >"$LOGS/migrate-$1.log" 2>&1 </dev/null &
    load=$!
    wait_for 10 test -s "$log"
    migrated "${@:2}"
    sleep 1
    kill -TERM "$load"
    wait "$load"
    black_out[$1]=$(kv gap --log "$log" | awk '{print $3}')
}
less() { awk -v a="$1" -v b="$2" 'BEGIN {exit !(a + 0 < b + 0)}'; }
sent_bytes() { on "$1" "cat /sys/class/net/repl0/statistics/tx_bytes"; }

fresh_hosts
stock_ssh
addr=$(lab guest start A pvh --name guest) || not_ok "guest starts"
id=$(kv cmd "$addr" ID)

# The guest writes all of its 3000 pages again while its memory is copied.
kv cmd "$addr" 'DIRTY 200 3000' >/dev/null
migrated_under_load rounds A "xl migrate --max-rounds 0, ours to ours" "xl migrate --max-rounds 0 guest hostB"
kv cmd "$addr" 'DIRTY 0' >/dev/null
migrated_under_load idle B "xl migrate, ours to the stock xl" "xl migrate -s /tmp/stockssh guest hostA"
kv cmd "$addr" 'DIRTY 200 3000' >/dev/null
migrated A "xl migrate, the stock xl to ours" "/usr/sbin/xl migrate guest hostB"
migrated_under_load limit B "xl migrate --max-downtime-ms $LIMIT_MS" "xl migrate --max-downtime-ms $LIMIT_MS guest hostA"
note "black-out: ${black_out[idle]} s of a guest that writes nothing; 3000 pages, 200 written a second: ${black_out[rounds]} s with" \
    "--max-rounds 0, ${black_out[limit]} s with --max-downtime-ms $LIMIT_MS"
check "a limit of the downtime makes the black-out shorter" less "${black_out[limit]}" "${black_out[rounds]}"

echo "== a limit that cannot be met"
kv cmd "$addr" 'DIRTY 2000 3000' >/dev/null
check "xl migrate --max-downtime-ms 1 of a guest that writes too much fails" \
    on A "! xl migrate --max-rounds 1 --max-downtime-ms 1 guest hostB >/tmp/migrate.log 2>&1"
check "it says what is left, and where the guest is: $(on A "tail -n 1 /tmp/migrate.log")" on A \
    "grep -q '[0-9]* pages are left after round 1,.*more than the limit of 1 ms' /tmp/migrate.log && tail -n 1 /tmp/migrate.log | grep -q 'runs on here'"
kv cmd "$addr" 'DIRTY 200 1000' >/dev/null
check "the guest runs on, untouched" same_guest
check "it runs on A only" wait_for 30 only_on A

check "xl save" on A "xl save guest /var/tmp/guest.save"
check "xl restore" on A "xl restore /var/tmp/guest.save && rm -f /var/tmp/guest.save"
check "saved and restored: the same guest" same_guest

echo "== a slow migration, and Ctrl-C in it"
on A "env --default-signal=INT,QUIT setsid sh -c 'xl migrate --rate 1 guest hostB >/tmp/migrate.log 2>&1; echo exit \$? >>/tmp/migrate.log' </dev/null >/dev/null 2>&1 &"
wait_for 60 on B "xl list | grep -q incoming"
sleep 12 # what waited in ssh for the receiver to begin
bytes=$(sent_bytes A) began=$EPOCHREALTIME
sleep 10
rate=$(awk -v a="$bytes" -v b="$(sent_bytes A)" -v t="$began" -v u="$EPOCHREALTIME" 'BEGIN {printf "%.2f", (b - a) / (u - t) / 1e6}')
check "xl migrate --rate 1 sends $rate MB/s" awk -v r="$rate" 'BEGIN {exit !(r > 0.2 && r < 1.3)}'
on A "kill -INT \$(pgrep -f '^xl migrate --rate 1 guest' | head -n 1)"
wait_for 60 on A "grep -q '^exit' /tmp/migrate.log"
check "xl migrate, Ctrl-C: the guest runs on" same_guest
check "xl migrate, Ctrl-C: no copy on the other host" wait_for 30 only_on A

echo "== a link that breaks while the other host waits for the permission to start the guest"
# Of the other host's answers only the first line arrives: it is ready to receive.
on A "printf '#!/bin/bash\nhost=\$1; shift; exec ssh \"\$host\" \"\$*\" > >(head -n 1)\n' >/tmp/brokenssh; chmod +x /tmp/brokenssh"
check "xl migrate over a link that breaks fails" on A "! xl migrate -s /tmp/brokenssh guest hostB >/tmp/migrate.log 2>&1"
check "it says where the guest is" on A "grep -q 'runs on here' /tmp/migrate.log"
# The other host's own words come by standard error, until ssh sees that nobody writes or reads: whether its last ones arrive is chance.
check "it had copied the guest" wait_for 60 on A "grep -q 'requesting permission' /tmp/migrate.log"
check "no copy is left on the other host" wait_for 90 only_on A
check "the guest runs on" same_guest

echo "== wrong arguments"
for words in "remus" "remus guest" "remus -i x guest hostA" "remus --limit-ms 5 guest hostA" "migrate guest" "save guest"; do
    out=$(on A "xl $words 2>&1 >/dev/null; echo \$?")
    check "xl $words: one line, exit 2" test "$(wc -l <<<"$out")" = 2 -a "$(tail -n 1 <<<"$out")" = 2
done
out=$(on A "xl remus nobody hostB 2>&1 >/dev/null; echo \$?")
check "xl remus of a missing guest: one line, exit 1" test "$(wc -l <<<"$out")" = 2 -a "$(tail -n 1 <<<"$out")" = 1
check "any other subcommand is the stock xl's" on A "xl info | grep -q xen_version"
on A "xl destroy guest"
check "nothing is left on A" nothing_left A
check "nothing is left on B" nothing_left B
