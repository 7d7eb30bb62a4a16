#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
# Rows about whole helpers on simulated hosts: ours next to Debian's, in the same run. Started by tests/bench/run, which sets
# XENSIM_BUILD, XENSIM_HELPER and BENCH_BUILD.
# shellcheck source=tests/xensim/lib.sh
. "$(dirname "$0")/../xensim/lib.sh"
tools=${BENCH_BUILD:?is set by run}
gigabit=125
dirty_sizes='500 2000 6000 13000'
spec=rate=0,pages=20000,choice=sequential,fill=sparse,ram=random
[ -x "$stock_helper" ] || echo "bench: without Debian's helper: tests/xensim/fetch-stock gets it" >&2

# best KEY DOMID HELPER WORDS...: the smallest of five.
best() {
    for _ in 1 2 3 4 5; do measure "$@"; done | sort -g | head -n 1
}
# measure KEY DOMID HELPER WORDS...: one number, "-" when the helper is not here.
measure() {
    key=$1 id=$2 helper=$3
    shift 3
    [ -x "$helper" ] || { echo -; return; }
    LD_LIBRARY_PATH=$build XENTWIN_ENCODE=auto "$tools/bench_link" "$dir/A/xen.sock" "$id" "$helper" "$@" >"$dir/out" || {
        echo "bench: $helper $* failed" >&2
        echo -
        return
    }
    tr ' ' '\n' <"$dir/out" | sed -n "s/^$key=//p"
    # A plain save leaves it suspended.
    on A resume "$id" >/dev/null 2>&1 || true
}
row() {
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$@"
}
guest() {
    id=$(on A create "$@") && on A unpause "$id" && echo "$id"
}
mb_per_s() {
    echo "$1 $2" | awk '{if ($1 == "-") print "-"; else printf "%.0f", $2 * 4096 / $1}'
}

host A
small=$(guest mem=128 guest=$spec)
for n in $dirty_sizes; do
    row "pause, $n pages, receiver unlimited" us "$(measure best_us "$small" "$our_helper" checkpoints=33 "write=$n")" \
        "$(measure best_us "$small" "$stock_helper" checkpoints=33 "write=$n")" "$("$tools/bench_encode" copy "$n")" \
        'ours<=1.5*limit+300' 'the shortest; peer: stock helper, limit: memcpy of as many pages'
done
for n in $dirty_sizes; do
    row "pause, $n pages, 1 Gbit/s link" us "$(measure best_us "$small" "$our_helper" checkpoints=12 "write=$n" rate=$gigabit)" \
        "$(measure best_us "$small" "$stock_helper" checkpoints=8 "write=$n" rate=$gigabit)" "$("$tools/bench_encode" copy "$n")" \
        'ours<=peer/20' 'the shortest; peer: stock helper, limit: memcpy of as many pages'
done
on A destroy "$small"

big=$(guest mem=512 guest=$spec)
pages=$(value A "$big" pages)
for sink in null pipe; do
    row "save, $(echo $sink | sed 's/null/to \/dev\/null/; s/pipe/to a reader/')" MB/s \
        "$(mb_per_s "$(best total_us "$big" "$our_helper" sink=$sink)" "$pages")" \
        "$(mb_per_s "$(best total_us "$big" "$stock_helper" sink=$sink)" "$pages")" - 'ours>=2*peer' 'plain save of 512 MiB, the fastest of five; peer: stock helper'
done
on A destroy "$big"

base=-
for gib in 1 4 16 64; do
    sparse=$(guest mem=$((gib * 1024)) present=256 guest=$spec)
    us=$(measure best_us "$sparse" "$our_helper" checkpoints=33 write=2000)
    [ "$base" != - ] || base=$us
    row "pause, 2000 pages of $gib GiB" us "$us" "$(measure best_us "$sparse" "$stock_helper" checkpoints=12 write=2000)" \
        "$base" 'ours<=limit+1000' 'the shortest; peer: stock helper, limit: ours at 1 GiB'
    on A destroy "$sparse"
done
exit 0
