#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# The link between two simulated hosts has an octet that is another one, or ends at one, at many places of what our xl remus and
# xl migrate say to each other. Each time the guest runs on exactly one of them, its memory is its own, and nothing is left at the other.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

use_our_xl
export XENSIM_RELAY_LOG="$dir/relay.log"
xen_host A
xen_host B
make_ssh
cfg=$(guest_config g rate=2000,pages=200,choice=zipf,fill=sparse)

# relay_ssh DIRECTION N ACTION: the ssh of the next command.
relay_ssh() {
    cat >"$dir/relay" <<END
#!/bin/sh
exec env -u LD_PRELOAD "$build/xensim-relay" $1 $2 $3 "$dir/ssh" "\$@"
END
    chmod +x "$dir/relay"
}
passed() { tr ' ' '\n' <"$XENSIM_RELAY_LOG" | sed -n "s/^$1=//p"; }
new_guest() {
    as A "$stock_bin/xl" create -e "$cfg" >"$dir/out" 2>&1 || { fail "create: $(cat "$dir/out")"; exit 1; }
    d=$(as A "$stock_bin/xl" domid g 2>/dev/null)
}
# runs HOST DOMID: within 5 s its ticks go on; so it is neither paused nor suspended.
runs() {
    tries=0 first=$(value "$1" "$2" ticks)
    until [ "$(value "$1" "$2" ticks)" -gt "$first" ]; do
        tries=$((tries + 1))
        [ $tries -lt 250 ] || return 1
        sleep 0.02
    done
}
remus() {
    relay_ssh "$@"
    timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" remus -F -n -d -i 20 --limit-ms 400 \
        --max-checkpoints 12 -s "$dir/relay" g hostB >"$dir/remus.out" 2>&1
}

# The rule lets the primary go on, so that is where the guest is, and a twin that waits is discarded.
goes_on_at_a() {
    runs A "$d" || fail "$what: the guest at A does not run: $(tail -n 3 "$dir/remus.out")"
    [ "$(value A "$d" log)" = 0 ] || fail "$what: log-dirty is left on"
    on B list | grep -q running && fail "$what: a second copy runs: $(on B list)"
    tries=0
    until [ -z "$(on B list)" ]; do
        tries=$((tries + 1))
        [ $tries -lt 100 ] || { fail "$what: left at B: $(on B list)"; exit 1; }
        as B "$dir/bin/xl" remus --discard g >"$dir/out" 2>&1
        sleep 0.1
    done
    on A verify "$d" || fail "$what: the guest's memory is not its own"
}

new_guest
remus to 0 flip || fail "remus through the relay: $(tail -n 5 "$dir/remus.out")"
to=$(passed to) from=$(passed from)
what='without a fault' && goes_on_at_a
count=0
# xl header, configuration, memory, a later checkpoint; HELLO, echoes and acknowledgements.
for place in to/3/flip to/200/flip to/$((to / 2))/flip to/$((to - 700))/flip to/$((to * 2 / 3))/close \
    from/7/flip from/60/flip from/$((from / 2))/flip from/$((from * 3 / 4))/close; do
    what="remus, ${place##*/} at ${place%/*}" count=$((count + 1))
    # shellcheck disable=SC2046 # three words
    if remus $(echo "$place" | tr / ' '); then
        # The run may have been shorter than the one that was measured.
        [ "$(passed "done")" = 0 ] || fail "$what: nobody noticed"
        echo "$what: not reached"
    fi
    goes_on_at_a
done
what='a late octet'
remus from $((from / 2)) delay=200 || fail "$what ends the protection: $(tail -n 3 "$dir/remus.out")"
goes_on_at_a
remus_count=$count

# A plain migration: what another octet does to the contents of a page nobody sees (the stream is that of stock xl); what ends is seen.
migrate() {
    relay_ssh "$@"
    timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" migrate -e -s "$dir/relay" g hostB >"$dir/remus.out" 2>&1
}
running() { on "$1" list | grep -c running; }
one_runs() {
    tries=0
    until [ "$(($(running A) + $(running B)))" = 1 ]; do
        tries=$((tries + 1))
        [ $tries -lt 250 ] || { fail "$what: $(running A) at A, $(running B) at B: $(tail -n 3 "$dir/remus.out")"; exit 1; }
        sleep 0.02
    done
    [ "$(running A)" = 1 ] && where=A other=B || where=B other=A
    gone "$other" || fail "$what: left at $other: $(on "$other" list)"
    d=$(as "$where" "$stock_bin/xl" domid g 2>/dev/null)
    runs "$where" "$d" || fail "$what: the guest at $where does not run"
    on "$where" verify "$d" || fail "$what: the guest's memory is not its own"
    [ "$where" = A ] && return
    as B "$stock_bin/xl" destroy g >"$dir/out" 2>&1
    gone B || fail "$what: left at B after destroy"
    new_guest
}
what='migrate without a fault'
migrate to 0 flip || fail "migrate through the relay: $(tail -n 5 "$dir/remus.out")"
to=$(passed to) from=$(passed from)
one_runs
for place in to/1/flip from/9/flip to/300/close to/$((to / 2))/close to/$((to - 60))/close from/20/close; do
    what="migrate, ${place##*/} at ${place%/*}" count=$((count + 1))
    # shellcheck disable=SC2046 # three words
    if migrate $(echo "$place" | tr / ' '); then
        [ "$(passed "done")" = 0 ] || fail "$what: nobody noticed"
        echo "$what: not reached"
    fi
    one_runs
done

# What passes of a guest that writes nothing is the same each time: so these are the octets behind its memory, with the message that
# lets the other host start it last. Before that has gone it runs on here; then nobody here can know, and a person is told what to say.
cfg=$(guest_config g rate=0,pages=200)
as A "$stock_bin/xl" destroy g >"$dir/out" 2>&1
gone A || fail "left at A after destroy"
new_guest
what='migrate a quiet guest'
migrate to 0 flip || fail "migrate through the relay: $(tail -n 5 "$dir/remus.out")"
to=$(passed to)
one_runs
for back in 400 90 75 60; do
    what="migrate, close $back octets before the end" count=$((count + 1))
    migrate to $((to - back)) close && fail "$what: nobody noticed"
    one_runs
done
what='migrate, close at the last octet' count=$((count + 1))
migrate to "$to" close && fail "$what: nobody noticed"
gone B || fail "$what: left at B: $(on B list)"
grep -q "'xl remus --recover g--migratedaway', then 'xl rename g--migratedaway g'" "$dir/remus.out" ||
    fail "$what: does not say what to do: $(tail -n 3 "$dir/remus.out")"
[ "$(running A)" = 0 ] || fail "$what: it runs at A, and may run at B"
as A "$dir/bin/xl" remus --recover g--migratedaway >"$dir/out" 2>&1 || fail "$what: recover: $(cat "$dir/out")"
as A "$dir/bin/xl" rename g--migratedaway g >"$dir/out" 2>&1 || fail "$what: rename: $(cat "$dir/out")"
one_runs
[ "$failed" = 0 ] && echo "$remus_count protections and $((count - remus_count)) migrations with a damaged link, each time one guest"
exit "$failed"
