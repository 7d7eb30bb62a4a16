#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# Our xl migrate, save and restore as a person types them, with ours or the stock xl on the other end.
# shellcheck disable=SC2317 # most functions are called through check
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

fresh_hosts
stock_ssh
addr=$(lab guest start A pvh --name guest) || not_ok "guest starts"
kv cmd "$addr" 'DIRTY 200 1000' >/dev/null
id=$(kv cmd "$addr" ID)

migrated A "xl migrate, ours to ours" "xl migrate guest hostB"
migrated B "xl migrate, ours to the stock xl" "xl migrate -s /tmp/stockssh guest hostA"
migrated A "xl migrate, the stock xl to ours" "/usr/sbin/xl migrate guest hostB"

check "xl save" on B "xl save guest /var/tmp/guest.save"
check "xl restore" on B "xl restore /var/tmp/guest.save && rm -f /var/tmp/guest.save"
check "saved and restored: the same guest" same_guest

echo "== Ctrl-C in a migration"
on B "env --default-signal=INT,QUIT setsid sh -c 'xl migrate guest hostA >/tmp/migrate.log 2>&1; echo exit \$? >>/tmp/migrate.log' </dev/null >/dev/null 2>&1 &"
wait_for 60 on A "xl list | grep -q incoming"
sleep 3
on B "kill -INT \$(pgrep -f '^xl migrate guest' | head -n 1)"
wait_for 60 on B "grep -q '^exit' /tmp/migrate.log"
check "xl migrate, Ctrl-C: the guest runs on" same_guest
check "xl migrate, Ctrl-C: no copy on the other host" wait_for 30 only_on B

echo "== wrong arguments"
for words in "remus" "remus guest" "remus -i x guest hostB" "remus --limit-ms 5 guest hostB" "migrate guest" "save guest"; do
    out=$(on B "xl $words 2>&1 >/dev/null; echo \$?")
    check "xl $words: one line, exit 2" test "$(wc -l <<<"$out")" = 2 -a "$(tail -n 1 <<<"$out")" = 2
done
out=$(on B "xl remus nobody hostA 2>&1 >/dev/null; echo \$?")
check "xl remus of a missing guest: one line, exit 1" test "$(wc -l <<<"$out")" = 2 -a "$(tail -n 1 <<<"$out")" = 1
check "any other subcommand is the stock xl's" on B "xl info | grep -q xen_version"
on B "xl destroy guest"
check "nothing is left on A" nothing_left A
check "nothing is left on B" nothing_left B
