# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# The lab's networks. SW is a switch: bridges brpub and brrepl without any
# address, one port per host and network. A port that leaves its bridge goes
# silent both ways while its carrier stays, which is how a link is cut.
#
#   CLIENT eth0 --- pubC ┐                 ┌ replA --- A
#   A, guests ----- pubA ┼ brpub   brrepl ─┼ replB --- B
#   B, guests ----- pubB ┤                 └ replW --- W eth1
#   W eth0 -------- pubW ┘     mgmtA, mgmtB: control only, point to point

net_sysctl() {
    ip netns exec "$1" sysctl -q -w "${@:2}"
}

net_bridge() {
    ip -n "$SW" link add "$1" type bridge forward_delay 0 mcast_snooping 0
    ip -n "$SW" link set "$1" up
}

# A cable from the switch port $1 (bridge $2) to the device $4 of namespace $3.
net_cable() {
    ip -n "$SW" link add "$1" type veth peer name "$4" netns "$3"
    ip -n "$SW" link set "$1" master "$2"
    ip -n "$SW" link set "$1" up
    ip -n "$3" link set "$4" up
}

net_tap() {
    ip -n "$SW" tuntap add dev "$1" mode tap
    ip -n "$SW" link set "$1" up
    [ $# -lt 2 ] || ip -n "$SW" link set "$1" master "$2"
}

net_address() {
    ip -n "$1" addr add "$PUB_NET.$2/24" dev eth0
    ip -n "$1" -6 addr add "$PUB6:$2/64" dev eth0 nodad
}

# Namespaces are known by name on the whole machine, runs are not: another cache may
# hold a lab of the same name. Each namespace says whose it is in lo's alias.
net_owner() {
    ip -n "$1" link show lo 2>/dev/null | sed -n 's/^ *alias //p' || true
}

net_check_owner() {
    local owner
    owner=$(net_owner "$SW")
    [ -z "$owner" ] || [ "$owner" = "$RUN" ] ||
        die "the name '$NAME' is taken by the lab in $owner: choose another one with --lab"
}

net_up() {
    local ns host n
    for ns in "$SW" "$CLIENT" "$WITNESS"; do
        ip netns add "$ns"
        ip -n "$ns" link set lo up alias "$RUN"
    done
    net_sysctl "$SW" net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 \
        net.ipv4.ip_forward=0
    net_sysctl "$CLIENT" net.ipv4.ip_forward=0 net.ipv4.conf.all.arp_ignore=1
    net_sysctl "$WITNESS" net.ipv4.ip_forward=0 net.ipv4.conf.all.arp_ignore=1
    net_bridge brpub
    net_bridge brrepl
    net_cable pubC brpub "$CLIENT" eth0
    net_cable pubW brpub "$WITNESS" eth0
    net_cable replW brrepl "$WITNESS" eth1
    net_address "$CLIENT" 1
    net_address "$WITNESS" 13
    ip -n "$WITNESS" addr add "$REPL_NET.13/24" dev eth1
    ip -n "$WITNESS" -6 addr add "$REPL6:13/64" dev eth1 nodad
    for host in A B; do
        n=$(host_number $host)
        net_tap "pub$host" brpub
        net_tap "repl$host" brrepl
        net_tap "mgmt$host"
        ip -n "$SW" addr add "$MGMT_NET.1/32" peer "$MGMT_NET.$n/32" dev "mgmt$host"
    done
}

net_down() {
    local ns pid
    for ns in "$SW" "$CLIENT" "$WITNESS"; do
        [ -e "/run/netns/$ns" ] || continue
        case $(net_owner "$ns") in '' | "$RUN") ;; *) continue ;; esac
        # Whoever still runs in a namespace of this lab was started by it.
        for pid in $(ip netns pids "$ns" 2>/dev/null); do
            [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null || true
        done
        ip netns del "$ns" 2>/dev/null || true
    done
}

# The switch ports that a link name means: repl, pub, repl:A, pub:W, witness.
net_ports() {
    local link=${1-} net host
    case $link in
        witness) echo "pubW replW" && return ;;
        pub | repl) ;;
        pub:[ABW] | repl:[ABW] | pub:client) ;;
        '') bad_usage "$SUBCOMMAND: no link given: say repl, pub, repl:A, pub:B, pub:client or witness" ;;
        *) bad_usage "$SUBCOMMAND: '$link' is not a link: say repl, pub, repl:A, pub:B, pub:client or witness" ;;
    esac
    net=${link%%:*}
    host=${link#*:}
    case $host in
        pub | repl) echo "${net}A ${net}B" ;;
        client) echo pubC ;;
        *) echo "$net$host" ;;
    esac
}

cmd_cut() {
    local port ports
    ports=$(net_ports "$@")
    need_up
    for port in $ports; do
        ip -n "$SW" link set "$port" nomaster
    done
}

cmd_heal() {
    local port ports
    ports=$(net_ports "$@")
    need_up
    for port in $ports; do
        ip -n "$SW" link set "$port" master "br${port%?}"
    done
}

cmd_netns() {
    need_up
    [ $# -gt 0 ] || bad_usage "netns: no command given: say what to run in the client's namespace"
    exec ip netns exec "$CLIENT" "$@"
}

# Where the pid and the messages of the capture into file $1 are kept.
capture_state() { echo "$RUN/capture-$(printf %s "$1" | cksum | cut -d' ' -f1)"; }

# One file per switch port, so that the file's name says which host a packet
# came through. Packets are written at once, not when a buffer is full.
capture_start() {
    local file=$1 filter=$2 host pid i state
    state=$(capture_state "$file")
    [ ! -e "$state.A.pid" ] || die "a capture into '$file' is running already"
    for host in A B; do
        # Only what the host sends: a frame for it may carry the same guest's address.
        ip netns exec "$SW" tcpdump -i "pub$host" -Q in -n -s 0 -U --immediate-mode -Z root \
            --time-stamp-precision=nano -w "$file.$host" ${filter:+"$filter"} \
            </dev/null >/dev/null 2>"$state.$host.log" 9>&- &
        pid=$!
        echo "$pid" >"$state.$host.pid"
        for ((i = 0; i < 100; i++)); do
            grep -q 'listening on' "$state.$host.log" && break
            if ! kill -0 "$pid" 2>/dev/null; then
                rm -f "$state.$host.pid"
                die "tcpdump failed: $(tail -n1 "$state.$host.log")"
            fi
            sleep 0.1
        done
    done
}

capture_stop() {
    local file=$1 host state
    state=$(capture_state "$file")
    [ -e "$state.A.pid" ] || die "no capture into '$file' is running"
    for host in A B; do
        end_process "$state.$host.pid" "-w $file.$host" INT
        rm -f "$state.$host.log"
    done
}

cmd_capture() {
    local action=${1-} file=${2-} filter=${3-}
    case $action in
        start | stop) ;;
        *) bad_usage "capture: '$action' is not an action: say 'capture start FILE' or 'capture stop FILE'" ;;
    esac
    [ -n "$file" ] || bad_usage "capture: no file given: say 'capture $action FILE'"
    need_up
    file=$(realpath -m "$file")
    "capture_$action" "$file" "$filter"
}
