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
    first=$1
    shift
    printf '%s' "$first"
    printf '\t%s' "$@"
    echo
}
guest() {
    id=$(on A create "$@") && on A unpause "$id" && echo "$id"
}
mb_per_s() {
    echo "$1 $2" | awk '{if ($1 == "-") print "-"; else printf "%.0f", $2 * 4096 / $1}'
}

# pair KEY DOMID HELPER WORDS...: the same helper restores on host B.
pair() {
    key=$1 id=$2 helper=$3
    shift 3
    twin=$(on B create "mem=$(($(value A "$id" pages) / 256))" empty=1)
    measure "$key" "$id" "$helper" "to=$dir/B/xen.sock:$twin:$helper" "$@"
    on B destroy "$twin"
}
# duel TIMES FUNCTION KEY DOMID WORDS...: "OURS PEER", each the smallest of so many, taken in turns.
duel() {
    times=$1 how=$2 what=$3 whose=$4
    shift 4
    rm -f "$dir/ours" "$dir/peer"
    while [ "$times" -gt 0 ]; do
        times=$((times - 1))
        "$how" "$what" "$whose" "$our_helper" "$@" >>"$dir/ours"
        "$how" "$what" "$whose" "$stock_helper" "$@" >>"$dir/peer"
    done
    echo "$(least "$dir/ours") $(least "$dir/peer")"
}
least() {
    grep -vx -e - "$1" | sort -g | head -n 1 | grep . || echo -
}
# speeds PAGES OURS PEER: us for so many pages, as two fields of MB/s.
speeds() {
    printf '%s\t%s' "$(mb_per_s "$2" "$1")" "$(mb_per_s "$3" "$1")"
}
mib() {
    echo "$1" | awk '{if ($1 == "-") print "-"; else printf "%.1f", $1 / 1024}'
}

host A
host B
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
for n in $dirty_sizes; do
    row "cost, checkpoint of $n pages" us "$(measure cost_us "$small" "$our_helper" checkpoints=33 "write=$n")" \
        "$(measure cost_us "$small" "$stock_helper" checkpoints=33 "write=$n")" "$("$tools/bench_encode" copy "$n")" \
        - 'CPU time of the saving helper, the least; ours encodes; peer: stock helper, which does not, limit: memcpy of as many pages'
done
# What bench.md says of each side; the cache for copies in MiB.
cache=32 n=6000
for side in save restore; do
    [ $side = save ] && bound=$((cache + n * 3 / 2 / 256 + 8)) || bound=$((n / 256 + 16))
    row "memory, $side, checkpoints of $n pages" MiB \
        "$(mib "$(export XENTWIN_ENCODE_CACHE=$cache && pair ${side}_kib "$small" "$our_helper" checkpoints=9 write=$n)")" \
        "$(mib "$(pair ${side}_kib "$small" "$stock_helper" checkpoints=9 write=$n)")" "$bound" \
        'ours<=limit' 'of a helper itself, the most seen in nine checkpoints; peer: stock helper, limit: what bench.md says'
done
pages=$(value A "$small" pages)
# shellcheck disable=SC2046 # two words
row 'migrate, 1 Gbit/s link' MB/s "$(speeds "$pages" $(duel 2 pair total_us "$small" live=1 rate=$gigabit))" $gigabit - \
    'live, 128 MiB at rest, helper to helper; peer: stock to stock, limit: the link'
on A destroy "$small"

big=$(guest mem=512 guest=$spec)
pages=$(value A "$big" pages)
# shellcheck disable=SC2046 # two words
{
    row 'migrate, unlimited link' MB/s "$(speeds "$pages" $(duel 5 pair total_us "$big" live=1))" - - \
        'live, 512 MiB at rest, helper to helper, the fastest of five; peer: stock to stock'
    row 'save, to /dev/null' MB/s "$(speeds "$pages" $(duel 9 measure total_us "$big" sink=null))" - 'ours>=2*peer' \
        'plain save of 512 MiB, the fastest of nine; peer: stock helper'
    row 'save, to a reader' MB/s "$(speeds "$pages" $(duel 9 measure total_us "$big" sink=pipe))" - 'ours>=2*peer' \
        'plain save of 512 MiB, the fastest of nine; peer: stock helper'
}
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
