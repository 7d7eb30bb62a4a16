# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# What the lab's test scripts and the demo share. A script sources it, calls ok/not_ok/skip, and exits 0 unless it broke down itself.

T_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB_CMD=$T_DIR/../lab
LOGS=${LAB_LOGS:-$T_DIR/../../../build/lab-logs}
mkdir -p "$LOGS"

lab() { "$LAB_CMD" "$@" </dev/null; }
on() { "$LAB_CMD" exec "$@" </dev/null; } # on HOST CMD...
other() { case $1 in A) echo B ;; B) echo A ;; esac; }

ok() { result ok "$@"; }
not_ok() { result 'not ok' "$@"; }
skip() { result skip "$@"; }
note() { result note "$@"; }
# The log also says when, since a slow lab is mended where its time goes.
result() { printf '%s\n   at %d s\n' "$*" "$SECONDS"; }
# check WHAT COMMAND...: ok or not ok by the command's status.
check() {
    local what=$1
    shift
    if "$@"; then ok "$what"; else not_ok "$what"; fi
}
# wait_for SECONDS COMMAND...: true as soon as the command is.
wait_for() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.5
    done
}

kv() { "$LAB_CMD" kv "$@" </dev/null; } # the client, in the client's namespace

domid() { on "$1" xl domid "$2" 2>/dev/null; }
has_guest() { on "$1" "xl list $2 >/dev/null 2>&1"; }
lacks_guest() { ! has_guest "$@"; }
# State column of xl list: r----- -b---- --p--- ---s--
guest_state() { on "$1" "xl list $2 2>/dev/null | awk 'NR == 2 {print \$5}'"; }
guest_runs() {
    local s
    s=$(guest_state "$1" "$2")
    [ -n "$s" ] && [[ $s != *p* && $s != *s* && $s != *d* ]]
}
guest_answers() { [[ $(kv cmd "$1" TICK 2>/dev/null) =~ ^[0-9]+ ]]; }

# protect HOST GUEST [xl remus options]: begins in the background; output in /var/log/remus-GUEST.log, statistics beside it.
protect() {
    local host=$1 guest=$2 log=/var/log/remus-$2
    shift 2
    {
        printf 'xl remus --stats %s.json ' "$log"
        printf '%q ' "$@" "$guest" "host$(other "$host")"
        printf '>%s.log 2>&1\necho "exit $?" >>%s.log\n' "$log" "$log"
    } | "$LAB_CMD" exec "$host" "rm -f $log.log $log.json; cat >/tmp/protect.sh"
    # A shell starts what it puts in the background deaf to Ctrl-C.
    on "$host" "env --default-signal=INT,QUIT setsid bash /tmp/protect.sh </dev/null >/dev/null 2>&1 &"
}
checkpoints() { on "$1" "wc -l </var/log/remus-$2.json" 2>/dev/null || echo 0; }
has_checkpoints() { [ "$(checkpoints "$1" "$2")" -ge "$3" ]; }
remus_log() { on "$1" "cat /var/log/remus-$2.log" 2>/dev/null; }
remus_ended() { on "$1" "grep -q '^exit ' /var/log/remus-$2.log"; }
checkpoints_or_end() { has_checkpoints "$@" || remus_ended "$1" "$2"; }
# wait_protected HOST GUEST N: at least N acknowledged checkpoints, or the log is shown.
wait_protected() {
    wait_for 300 checkpoints_or_end "$1" "$2" "$3" && has_checkpoints "$1" "$2" "$3" && return 0
    echo "no $3 checkpoints; xl remus said:"
    remus_log "$1" "$2" | tail -n 20
    return 1
}

# What must not be there after a protection: plug devices, helpers, guards, stray domains, nbd, log files of state.
leftovers() {
    on "$1" 'ip -br link | grep -E "^remus[0-9]"; tc qdisc show | grep -E "plug|ingress";
        ps -eo pid,comm,args | grep -E "libxl-save-hel|xentwin-guard" | grep -v grep;
        xl list | grep -- "--incoming"; ls /run/xentwin 2>/dev/null | grep sock; ls /dev/shm /tmp 2>/dev/null | grep -i xentwin; true'
}
nothing_left() {
    local left
    # The guard looks for a late suspend for some seconds before it goes.
    for _ in {1..12}; do
        left=$(leftovers "$1") && [ -z "$left" ] && return 0
        sleep 1
    done
    echo "left behind on $1:"
    leftovers "$1"
    return 1
}

# A host that was killed boots again while the script goes on with the other one; fresh_hosts waits for it.
revive() { lab start "$1" >/dev/null 2>&1 & } # HOST

# fresh_hosts: both hosts up, no guests, no processes of an earlier script.
fresh_hosts() {
    local h
    for h in A B; do
        lab start "$h" 2>&1 | grep -v 'already running'
        lab resume "$h" >/dev/null 2>&1
        on "$h" 'p=$(pidof xl) && { kill -9 $p; sleep 1; }
            for g in $(xl list | awk "NR > 2 {print \$1}"); do xl remus --recover $g >/dev/null 2>&1; xl destroy $g; done; true'
    done
    lab heal repl >/dev/null 2>&1
    lab heal pub >/dev/null 2>&1
    on W 'rm -rf claims' >/dev/null 2>&1
    true
}

WITNESS_ARBITER='arbiter-witness --witness hostW'
