#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# The primary's power is cut at each step of a checkpoint: while a program there is held in the hypercall of that step. Each
# time the guest goes on at the backup, alone, whole, and no older than a checkpoint that was acknowledged.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

use_our_xl

suspended() { [ "$(value "$primary" "$d" suspends)" -ge "$1" ]; }
held() { on "$primary" faults | grep -q done=1; }
runs_at_b() { on B list | grep -q running; }

begin() {
    xen_host "$primary"
    as "$primary" "$stock_bin/xl" create -e "$cfg" >"$dir/out" 2>&1 ||
        { fail "$step: create: $(cat "$dir/out")"; exit 1; }
    d=$(as "$primary" "$stock_bin/xl" domid g 2>/dev/null)
    timeout 60 "$here/xensim" exec "$dir/$primary" "$dir/bin/xl" remus -F -n -d -i 20 --limit-ms 600 \
        --on-link-loss=backup -s "$dir/ssh" g hostB >"$dir/remus.out" 2>&1 &
    pids="$pids $!"
    until_true 'no checkpoints' suspended 3
    [ "$(guest "$primary" "$d" kv SET name "$primary")" = OK ] || fail "$step: the guest's table takes nothing"
    ticks=$(value "$primary" "$d" ticks)
    # The next checkpoint began after this; one that begins two later shows that it was acknowledged.
    until_true 'the checkpoints stop' suspended $(($(value "$primary" "$d" suspends) + 3))
}
judge() {
    [ "$(on B list | grep -c .)" = 1 ] || fail "$step: at B: $(on B list)"
    e=$(as B "$stock_bin/xl" domid g 2>/dev/null)
    [ -n "$e" ] || { fail "$step: no guest of that name at B"; exit 1; }
    on B verify "$e" || fail "$step: the memory at B is not what the guest wrote"
    [ "$(value B "$e" ticks)" -ge "$ticks" ] || fail "$step: the guest at B is too old"
    [ "$(guest B "$e" kv GET name)" = "VALUE $primary" ] || fail "$step: the table at B is too old"
    as B "$stock_bin/xl" destroy g >"$dir/out" 2>&1 || fail "$step: destroy: $(cat "$dir/out")"
    gone B || fail "$step: left at B: $(on B list)"
}

xen_host B
make_ssh
cfg=$(guest_config g rate=5000,pages=1000,choice=zipf,fill=sparse)
count=0
# COMMAND/HYPERCALL, in the order of a checkpoint.
for step in libxl-save-help/domctl.shadow_op.clean libxl-save-help/domctl.gethvmcontext \
    libxl-save-help/hvm.get_param xl/domctl.resumedomain libxl-save-help/domctl.getpageframeinfo3 \
    xl/domctl.getdomaininfo; do
    count=$((count + 1))
    primary=A$count
    begin
    on "$primary" fault "${step#*/}" n=1 "comm=${step%/*}" delay=60000 >/dev/null
    until_true 'nobody comes there' held
    "$here/xensim" down "$dir/$primary"
    until_true 'the guest does not go on at B' runs_at_b
    judge
done
[ "$failed" = 0 ] && echo "$count cuts, $count guests that go on"
exit "$failed"
