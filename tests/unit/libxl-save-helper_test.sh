#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# libxl-save-helper against a parent that is wrong, dead, or has no Xen. Usage: libxl-save-helper_test.sh HELPER
set -u
helper=$1
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0

fail() {
    echo "FAIL: $*"
    failed=1
}
# refused TEXT ARGUMENTS...: exit 2 and one line on stderr that has TEXT.
refused() {
    text=$1
    shift
    "$helper" "$@" </dev/null >"$out/stdout" 2>"$out/stderr"
    status=$?
    [ $status -eq 2 ] || fail "'$*' exits $status, not 2"
    [ "$(wc -l <"$out/stderr")" -eq 1 ] || fail "'$*' does not say one line"
    grep -q -- "$text" "$out/stderr" || fail "'$*' says $(cat "$out/stderr")"
    [ -s "$out/stdout" ] && fail "'$*' sends messages"
}

refused usage
refused usage --help
refused usage --convert 1 2
refused '2 arguments instead of 6' --save-domain 1 2
refused '8 arguments instead of 9' --restore-domain 1 2 3 4 5 6 7 8
refused "domid is 'x'" --save-domain 4 -1 x 1 8 0
refused "domid is '99999'" --save-domain 4 -1 99999 1 8 0
refused "stream_fd is ''" --save-domain '' -1 1 1 8 0
refused "stream_type is '3'" --save-domain 4 -1 1 1 8 3
refused COLO --save-domain 4 -1 1 1 56 2
refused COLO --restore-domain 4 -1 1 1 0 2 0 512 2
refused 'lacks callbacks 0x30' --save-domain 4 -1 1 1 8 1
refused 'lacks callbacks 0x200' --restore-domain 4 -1 1 1 0 2 0 0 0

# No such domain, or no Xen at all: log lines, then complete (message 10) with retval -1, exit 0 once it is answered.
printf '\0\0\0\0' | "$helper" --save-domain 9 -1 32751 1 8 0 9>/dev/null >"$out/stdout"
status=$?
[ $status -eq 0 ] || fail "an answered failure exits $status, not 0"
end=$(tail -c 12 "$out/stdout" | od -An -tx1 | tr -d ' \n')
case $end in
0a000a00ffffffff*) ;;
*) fail "the last message is $end, not complete(-1)" ;;
esac

# A parent that is gone: no wait, exit 1.
timeout 10 "$helper" --restore-domain 9 -1 32751 1 0 2 0 512 0 9</dev/null </dev/null >/dev/null
status=$?
[ $status -eq 1 ] || fail "a dead parent makes it exit $status, not 1"

[ $failed -eq 0 ] && echo "all as it should be"
exit $failed
