# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# shellcheck disable=SC2034 # the other parts use what is set here
# Names, addresses, paths and small helpers shared by every part of the lab.
#
# One lab is: a namespace SW that holds the bridges and the taps (a switch), a
# namespace CLIENT on the public LAN, a namespace W for the witness host, and two
# QEMU processes A and B that run inside SW. Everything on disk is below
# $RUN (.cache/lab/run/<name>), everything in the kernel carries <name>.

LAB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
REPO=$(cd "$LAB_DIR/../.." && pwd)
CACHE=${XENTWIN_CACHE:-$REPO/.cache}/lab

# Addresses exist only inside the lab's namespaces, so two labs may share them.
PUB_NET=192.0.2
REPL_NET=198.51.100
MGMT_NET=203.0.113
PUB6=fd00:7477:1:
REPL6=fd00:7477:2:

say() { printf '%s\n' "lab: $*" >&2; }

die() {
    say "$*"
    exit 1
}

# One line for the caller's mistake: what, which value, what to do.
bad_usage() {
    say "$*"
    exit 2
}

need_root() {
    [ "$(id -u)" = 0 ] || die "this needs root: run 'sudo $LAB_DIR/lab $SUBCOMMAND'"
}

need_tools() {
    local tool missing=
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing="$missing $tool"
    done
    [ -z "$missing" ] || die "missing tools:$missing; run 'scripts/install-deps lab' as root"
}

set_lab_name() {
    [[ $1 =~ ^[a-z][a-z0-9]{0,7}$ ]] ||
        bad_usage "lab name '$1' is not usable: give 1 to 8 characters of a-z and 0-9"
    NAME=$1
    RUN=$CACHE/run/$NAME
    SHARE=$RUN/share
    SW=$NAME-sw
    CLIENT=$NAME-client
    WITNESS=$NAME-w
    LOCK=$CACHE/run/$NAME.lock
}

# The last byte of a host's addresses on every network.
host_number() {
    case $1 in
        A) echo 11 ;;
        B) echo 12 ;;
        W) echo 13 ;;
    esac
}

check_host() {
    case ${1-} in
        A | B) ;;
        '') bad_usage "$SUBCOMMAND: no host given: say A or B" ;;
        *) bad_usage "$SUBCOMMAND: '$1' is not a host: say A or B" ;;
    esac
}

is_number() { [[ ${1-} =~ ^[0-9]{1,9}$ ]]; }

# Options that take a value call this with the option and what followed it.
check_value() {
    [ $# -ge 2 ] || bad_usage "$SUBCOMMAND: $1 needs a value, see 'lab $SUBCOMMAND --help'"
}

check_seconds() {
    is_number "$2" || bad_usage "$SUBCOMMAND: $1 '$2' is not a number of seconds"
}

# A pidfile is believed only while the process still carries our mark in its
# command line, so a recycled pid is never signalled.
pid_of() {
    local file=$1 mark=$2 pid
    [ -s "$file" ] || return 1
    read -r pid <"$file" || return 1
    is_number "$pid" || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$mark" || return 1
    echo "$pid"
}

# Ends the process of a pidfile and waits until it is gone.
end_process() {
    local file=$1 mark=$2 signal=${3:-TERM} pid i
    if pid=$(pid_of "$file" "$mark"); then
        kill "-$signal" "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
        for ((i = 0; i < 50; i++)); do
            pid_of "$file" "$mark" >/dev/null || break
            [ "$i" != 30 ] || kill -KILL "$pid" 2>/dev/null || true
            sleep 0.1
        done
    fi
    rm -f "$file"
}

# 'down' removes the lock file, so a lock counts only on the file that has the name.
take_lock() {
    mkdir -p "$CACHE/run"
    while :; do
        exec 9>"$LOCK"
        flock -w 180 9 || die "lab '$NAME' is busy: another command has been changing it for 180 s"
        [ ! "$LOCK" -ef /proc/self/fd/9 ] || return 0
    done
}

in_sw() { ip netns exec "$SW" "$@"; }

need_up() {
    [ -e "$RUN/up" ] || die "lab '$NAME' is not up: run '$LAB_DIR/lab up'"
}
