#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# A guest that is being migrated to a host is to be protected by that host, too: the migration goes on, whether this is noticed here or
# only there.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/lib.sh"
need_xl_host

use_our_xl
xen_host A
xen_host B
make_ssh
cfg=$(guest_config g rate=2000,pages=200,choice=zipf,fill=sparse)

copy_at_b() { [ -n "$(on B list)" ]; }

# twice SAYS: a slow migration, and xl remus, which says this.
twice() {
    as A "$stock_bin/xl" create -e "$cfg" >"$dir/out" 2>&1 || { fail "create: $(cat "$dir/out")"; exit 1; }
    timeout 60 "$here/xensim" exec "$dir/A" "$dir/bin/xl" migrate --rate 10 -e -s "$dir/ssh" g hostB >"$dir/migrate.out" 2>&1 &
    migrate=$!
    until_true 'no copy comes to B' copy_at_b
    timeout 60 "$here/xensim" exec "$dir/A" env XENTWIN_RUN_DIR="$run_dir" "$dir/bin/xl" remus -F -n -d -s "$dir/ssh" g hostB >"$dir/out" 2>&1 &&
        fail "$1: a guest that is being migrated is protected"
    grep -q "$1" "$dir/out" || fail "xl remus says '$(tail -n 3 "$dir/out")' and not '$1'"
    wait "$migrate" || fail "$1: the migration was broken off: $(tail -n 5 "$dir/migrate.out")"
    gone A || fail "$1: left at A: $(on A list)"
    as B "$stock_bin/xl" domid g >/dev/null 2>&1 || fail "$1: the guest is not at B: $(on B list)"
    as B "$stock_bin/xl" destroy g
}

run_dir=$dir/A/run-xentwin
twice "'g' is being migrated or saved"
# Here it is not noticed: there it is, since a domain is being built.
run_dir=$dir/elsewhere
twice 'perhaps being migrated'
[ "$failed" = 0 ] && echo 'both migrations went on'
exit "$failed"
