#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# disk-load.sh ADDRESS LOG: asks the guest's xtdisk for one write after the other until it is killed; each number that came back is
# a line "<CLOCK_MONOTONIC s> <number>" of LOG. The same connection all the time, as a client without retries would have it; a new
# one only when it was closed. LOAD_PAUSE: seconds between two writes. disk-load.sh ADDRESS: prints the guest's STATE.
set -u

call()
{
    exec 3<>"/dev/tcp/$1/7001"
}

if [ $# -eq 1 ]; then
    call "$1" 2>/dev/null || exit 1
    echo STATE >&3
    read -r -t 60 line <&3 || exit 1
    echo "$line"
    exit 0
fi

while :; do
    if ! call "$1" 2>/dev/null; then
        sleep 0.5
        continue
    fi
    while echo WRITE >&3 2>/dev/null && read -r -t 120 word number <&3; do
        [ "$word" = OK ] || break
        read -r now _ </proc/uptime
        echo "$now $number" >>"$2"
        [ -z "${LOAD_PAUSE-}" ] || sleep "$LOAD_PAUSE"
    done
    exec 3>&-
    sleep 0.2
done
