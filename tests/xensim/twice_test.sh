#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# A guest that is being migrated to a host is to be protected by that host, too: refused here, by the lock of its dirty log, and the
# migration goes on. What the host does that notices it alone is in libxl_twin_drop_test.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

use_our_xl
xen_host A
xen_host B
make_ssh
cfg=$(guest_config g rate=2000,pages=200,choice=zipf,fill=sparse)

copy_at_b() { [ -n "$(on B list)" ]; }

as A "$stock_bin/xl" create -e "$cfg" >"$dir/out" 2>&1 || { fail "create: $(cat "$dir/out")"; exit 1; }
timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" migrate --rate 10 -e -s "$dir/ssh" g hostB >"$dir/migrate.out" 2>&1 &
migrate=$!
until_true 'no copy comes to B' copy_at_b
timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" remus -F -n -d -s "$dir/ssh" g hostB >"$dir/out" 2>&1 &&
    fail "a guest that is being migrated is protected"
grep -q "'g' is being migrated or saved" "$dir/out" || fail "xl remus says '$(tail -n 3 "$dir/out")'"
wait "$migrate" || fail "the migration was broken off: $(tail -n 5 "$dir/migrate.out")"
gone A || fail "left at A: $(on A list)"
as B "$stock_bin/xl" domid g >/dev/null 2>&1 || fail "the guest is not at B: $(on B list)"
[ "$failed" = 0 ] && echo 'refused; the migration went on'
exit "$failed"
