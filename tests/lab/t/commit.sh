# SPDX-License-Identifier: LGPL-2.1-only
# shellcheck shell=bash
# Judges output commit by the numbers in the guest's frames (20-output-commit.sh tells why). Source lib.sh first.

numbers() { # FILE PROTOCOL: one number per line
    case $2 in
    udp) tcpdump -nn -A -r "$1" 'ip and udp' 2>/dev/null | grep -aoE 'CHATTER [0-9]+' | cut -d' ' -f2 ;;
    udp6) tcpdump -nn -A -r "$1" 'ip6 and udp' 2>/dev/null | grep -aoE 'CHATTER [0-9]+' | cut -d' ' -f2 ;;
    arp) tcpdump -nn -A -r "$1" 'arp' 2>/dev/null | grep -aoE '0{6}[0-9a-f]{10}' |
        while read -r hex; do echo $((16#$hex)); done ;;
    solicit) tcpdump -nn -r "$1" 'icmp6' 2>/dev/null | sed -n 's/.*who has fd00:7477:1:0:c4a7:[0-9a-f:]*:\([0-9a-f]*\),.*/\1/p' |
        while read -r hex; do echo $((16#$hex)); done ;;
    esac
}

# check_numbers NAME CAPTURE: of CAPTURE.A and CAPTURE.B.
check_numbers() {
    local proto max first
    for proto in udp arp udp6 solicit; do
        max=$(numbers "$2.A" $proto | sort -n | tail -n 1)
        first=$(numbers "$2.B" $proto | sort -n | head -n 1)
        check "$1 $proto: host A let out up to number ${max:-none}, the twin went on from ${first:-none}" \
            test -n "$max" -a -n "$first" -a "${max:-1}" -lt "${first:-0}"
    done
}
