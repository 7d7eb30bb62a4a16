#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# The program xl in front of a stock xl that is a script. Usage: xl_front_test.sh XL
set -u
xl=$(realpath "${1:?name the xl to test}")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

cat >"$dir/stock" <<'SCRIPT'
#!/bin/sh
printf 'stock'
for word in "$@"; do printf ' [%s]' "$word"; done
printf '\n'
exit 5
SCRIPT
chmod +x "$dir/stock"
printf '#!/bin/sh\n' >"$dir/libxl-save-helper"
chmod +x "$dir/libxl-save-helper"
export XENTWIN_STOCK_XL=$dir/stock LIBXL_SAVE_HELPER=$dir/libxl-save-helper XENTWIN_RUN_DIR=$dir/run

# expect STATUS TEXT WORDS...: xl WORDS exits with STATUS and its output contains TEXT.
expect() {
    local status=$1 text=$2 out got
    shift 2
    out=$("$xl" "$@" 2>&1 </dev/null)
    got=$?
    if [ $got -ne "$status" ] || [[ $out != *"$text"* ]]; then
        printf 'not ok: xl %s: status %s, expected %s and "%s":\n%s\n' "$*" "$got" "$status" "$text" "$out"
        failed=1
    fi
}
# usage TEXT WORDS...: one line with TEXT on standard error, status 2, the stock xl not started.
usage() {
    local text=$1 out
    shift
    expect 2 "$text" "$@"
    out=$("$xl" "$@" 2>&1 >/dev/null </dev/null)
    [ "$(wc -l <<<"$out")" -eq 1 ] || { echo "not ok: xl $*: more than one line: $out" && failed=1; }
}

expect 5 'stock [list] [-v] [a b] []' list -v 'a b' ''
expect 5 'stock [-v] [-v] [-f] [-N] [create] [x]' -v -v -f -N create x
expect 5 'stock [--version]' --version
expect 5 'stock [-q] [list]' -q list
expect 5 'stock [help] [list]' help list
expect 5 'xentwin' help
expect 5 'Protect a guest'
expect 0 'Usage: xl remus' help remus
expect 0 'Usage: xl remus' remus --help
expect 0 'Usage: xl migrate' migrate -h
expect 0 'Usage: xl save' save --help
expect 0 'Usage: xl restore' restore -h

usage "no DOMAIN and HOST" remus
usage "--limit-ms '1'" remus --limit-ms 1 a b
usage "no HOST given" migrate a
usage "unknown option '-x'" migrate -x a b
usage "-C '/nonexistent' cannot be read" migrate -C /nonexistent a b
usage "option '-s' needs a value" migrate -s
usage "--max-rounds '1001'" migrate --max-rounds 1001 a b
usage "--max-downtime-ms '0'" migrate --max-downtime-ms 0 a b
usage "--rate 'fast'" migrate --rate fast a b
usage "no FILE given" save a
usage "'d' is one argument too many" save a b "$dir/stock" d
usage "is a directory" save a "$dir"
usage "CONFIG '/nonexistent' cannot be read" save a "$dir/f" /nonexistent
usage "no FILE given" restore -p
usage "one argument too many" restore a b c
usage "replication 9 is asked for" migrate-receive --remus --replication 9

# An arbiter that cannot work is refused at once, on either side, and is not asked.
printf '#!/bin/sh\necho asked >>"%s"\n' "$dir/asked" | tee "$dir/my-arbiter" >"$dir/not-run"
chmod +x "$dir/my-arbiter"
PATH=$(realpath "$(dirname "$0")/../../tools/hotplug/Linux"):$dir:$PATH
receiver=(migrate-receive --remus --replication 2 --session 01234567-89ab-cdef-0123-456789abcdef
    --domain a --self-name b --peer-name a)
for side in 'remus a b' "${receiver[*]}"; do
    # shellcheck disable=SC2086 # words
    set -- $side
    usage "--arbiter: there is no command 'arbiter-witnes' on this host" "$@" --arbiter ' arbiter-witnes --witness w'
    usage "there is no command '$dir/none'" "$@" --arbiter "$dir/none x"
    usage "there is no command '$dir/not-run'" "$@" --arbiter "$dir/not-run"
    usage "there is no command '$dir'" "$@" --arbiter "$dir"
    usage "there is no command ''" "$@" --arbiter '  '
    usage "--arbiter: arbiter-witness: --witness [USER@]HOST is missing" "$@" --arbiter 'arbiter-witness hostW'
    usage '--arbiter: arbiter-witness: unknown option "--wittness"' "$@" --arbiter 'arbiter-witness --wittness w'
    usage "arbiter-witness: DOMAIN SELF PEER" "$@" --arbiter 'arbiter-witness --witness w x'
    # What comes behind this is another line, with another exit status; only as root without Xen it is known which.
    [ "$(id -u)" -eq 0 ] && [ ! -e /dev/xen/privcmd ] || continue
    for arbiter in 'arbiter-witness --witness w' "arbiter-witness --ssh 'ssh -p 22' --witness w --" "$dir/my-arbiter x" \
        my-arbiter 'X=1 none' '(none)' '"my arbiter"' 'if my-arbiter; then false; fi; true' 'exec none' '$none' \
        'arbiter-witness; my-arbiter'; do
        out=$("$xl" "$@" --arbiter "$arbiter" 2>&1 </dev/null)
        [ $? -ne 2 ] && [[ $out != *--arbiter* ]] || { echo "not ok: --arbiter $arbiter: $out" && failed=1; }
    done
done
[ ! -e "$dir/asked" ] || { echo "not ok: the arbiter was asked" && failed=1; }

for word in 'remus --stop a' 'migrate a b' 'save a' 'restore f' 'migrate-receive --remus'; do
    # shellcheck disable=SC2086 # words
    expect 1 "${word%% *}: there is no dry run (-N) of this command" -N $word
done
expect 1 "cannot be read" restore /nonexistent
expect 1 "is too short for a saved domain" restore "$dir/libxl-save-helper"
expect 1 "is no saved domain" restore "$dir/stock"
expect 1 "cannot be made" save a /nonexistent/file
printf 'Xen saved domain, xl format\n \0 \rrest' >"$dir/a saved guest"
expect 5 "stock [-v] [restore] [-p] [$dir/a saved guest]" -v restore -p "$dir/a saved guest"
expect 5 'stock [migrate-receive] [-r] [-e]' migrate-receive -r -e

if [ "$(id -u)" -eq 0 ]; then
    expect 0 "no domain is protected" remus --status
    expect 1 "is not being protected on this host" remus --stop a
    expect 1 "is not being received on this host" remus --promote a
    expect 1 "neither protected nor received" remus --status a
    if [ ! -e /dev/xen/privcmd ]; then
        expect 1 "does not run under Xen" remus a b
        expect 1 "does not run under Xen" remus --recover a
        expect 1 "does not run under Xen" migrate a b
        expect 1 "does not run under Xen" save a "$dir/f"
    fi
else
    expect 1 "only root" remus --stop a
    expect 1 "only root" migrate a b
fi

ln -s "$xl" "$dir/self"
XENTWIN_STOCK_XL=$dir/self expect 1 "is this program, not the stock xl" list
XENTWIN_STOCK_XL=$dir/none expect 1 "no stock xl at" list
LIBXL_SAVE_HELPER=$dir/none expect 1 "cannot be run" migrate-receive
exit $failed
