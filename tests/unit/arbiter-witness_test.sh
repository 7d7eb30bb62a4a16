#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-only
#
# arbiter-witness against a fake ssh that runs the command here, in a scratch home.
set -u
src=${XENTWIN_SRCDIR:-$(cd "$(dirname "$0")/../.." && pwd)}
aw=$src/tools/hotplug/Linux/arbiter-witness
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/home"
fails=0

# The last word is the remote command, as with ssh. FAKE_SSH=lost: it runs, but its answer is lost; =down: never runs.
cat >"$tmp/ssh" <<'FAKE'
#!/bin/sh
for last; do :; done
echo "$*" >>"$FAKE_HOME.log"
[ "${FAKE_SSH-}" = down ] && { echo "ssh: connect to host w: No route to host" >&2; exit 255; }
cd "$FAKE_HOME" || exit 255
echo "Welcome to the witness"
out=$(sh -c "$last") || exit
[ "${FAKE_SSH-}" = lost ] && exit 255
echo "$out"
FAKE
chmod +x "$tmp/ssh"
FAKE_HOME=$tmp/home
export FAKE_HOME

# ask ROLE SELF PEER SESSION [DOMAIN]
ask() {
    "$aw" --witness root@w --ssh "$tmp/ssh -p 2222" "${5-guest}" "$2" "$3" 17 "$1" "$4" >"$tmp/out" 2>"$tmp/err"
}

# want STATUS NAME, right after the command
want() {
    got=$?
    if [ $got -eq "$1" ]; then
        echo "ok   $2"
    else
        echo "FAIL $2: exit $got, wanted $1: $(cat "$tmp/out" "$tmp/err")"
        fails=$((fails + 1))
    fi
}

one_line() {
    [ "$(wc -l <"$tmp/err")" -eq 1 ]
    want 0 "$1"
}

ask primary hostA hostB s1; want 0 t_witness_first_asker_granted
ask primary hostA hostB s1; want 0 t_witness_same_asker_granted_again
ask backup hostB hostA s1; want 1 t_witness_other_asker_refused
one_line t_witness_refusal_is_one_line
ask backup hostA hostA s1; want 1 t_witness_other_role_same_name_refused
ask backup hostB hostA s2; want 0 t_witness_other_session_independent
ask primary hostA hostB s2; want 1 t_witness_other_session_second_refused
ask primary hostA hostB s1 guest2; want 0 t_witness_other_domain_independent

# The disk says that it did not take the claim; as with coreutils, "sync" alone does not know of it.
mkdir "$tmp/bad"
printf '#!/bin/sh\n[ $# -eq 0 ] || { echo "sync: error syncing: Input/output error" >&2; exit 1; }\n' >"$tmp/bad/sync"
chmod +x "$tmp/bad/sync"
(PATH=$tmp/bad:$PATH; ask primary hostA hostB s4); want 1 t_witness_claim_not_on_disk_refused
one_line t_witness_failed_sync_is_one_line

FAKE_SSH=lost; export FAKE_SSH
ask primary hostA hostB s3; want 1 t_witness_answer_lost_refused
unset FAKE_SSH
ask backup hostB hostA s3; want 1 t_witness_answer_lost_keeps_claim
ask primary hostA hostB s3; want 0 t_witness_answer_lost_asked_again_granted

FAKE_SSH=down; export FAKE_SSH
ask primary hostA hostB s4; want 1 t_witness_unreachable_refused
grep -q 'cannot be reached.*No route to host' "$tmp/err"; want 0 t_witness_unreachable_says_so
one_line t_witness_unreachable_is_one_line
unset FAKE_SSH
ask backup hostB hostA s4; want 0 t_witness_unreachable_made_no_claim

: >"$tmp/home/.xentwin-claims/guest/s5"
ask primary hostA hostB s5; want 1 t_witness_empty_claim_refuses_all
mkdir "$tmp/home/.xentwin-claims/guest/s6"
ask primary hostA hostB s6; want 1 t_witness_folder_as_claim_refused
# A left-over of a power loss between link and remove: the same file under two names.
ln "$tmp/home/.xentwin-claims/guest/s1" "$tmp/home/.xentwin-claims/guest/.new.s1.1"
ask backup hostB hostA s1; want 1 t_witness_leftover_refused

n=0 winners=0
while [ $n -lt 15 ]; do
    n=$((n + 1))
    for who in "primary hostA hostB" "backup hostB hostA"; do
        # shellcheck disable=SC2086
        set -- $who
        "$aw" --witness w --ssh "$tmp/ssh" guest "$2" "$3" 1 "$1" "race$n" >"$tmp/race.$n.$1" 2>&1 &
    done
    wait
    [ "$(cat "$tmp/race.$n.primary" "$tmp/race.$n.backup" | grep -c '^granted')" -eq 1 ] &&
        winners=$((winners + 1))
done
[ $winners -eq 15 ]; want 0 t_witness_race_has_one_winner
find "$tmp/home" -name '.new*' ! -name '.new.s1.1' | grep -q . ; want 1 t_witness_leaves_no_temporary_file

ask primary hostA hostB ../x; want 2 t_witness_session_with_slash_bad_usage
ask primary 'a;b' hostB s1; want 2 t_witness_name_with_semicolon_bad_usage
ask primary "a'b" hostB s1; want 2 t_witness_name_with_quote_bad_usage
ask primary '' hostB s1; want 2 t_witness_empty_name_bad_usage
ask primary hostA hostB s1 .hidden; want 2 t_witness_name_with_dot_first_bad_usage
ask third hostA hostB s1; want 2 t_witness_unknown_role_bad_usage
one_line t_witness_bad_usage_is_one_line
"$aw" guest a b 1 primary s >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_no_host_bad_usage
"$aw" --witness -oProxyCommand=x guest a b 1 primary s >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_option_as_host_bad_usage
"$aw" --witness w --dir 'a b' guest a b 1 primary s >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_dir_with_space_bad_usage
"$aw" --witness w --timeout 0 guest a b 1 primary s >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_timeout_zero_bad_usage
"$aw" --witness w guest a b 1 primary >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_missing_word_bad_usage
before=$(cat "$FAKE_HOME.log" && find "$tmp/home")
"$aw" --witness w --dir a/b --ssh "$tmp/ssh -p 2" --check >"$tmp/out" 2>"$tmp/err"; want 0 t_witness_check_is_content
"$aw" --witness w -- --check >"$tmp/out" 2>"$tmp/err"; want 0 t_witness_check_stands_where_the_words_do
"$aw" --witness w --timeout 0 --check >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_check_finds_bad_timeout
"$aw" w --check >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_check_finds_missing_witness
"$aw" --witness w --check x >"$tmp/out" 2>"$tmp/err"; want 2 t_witness_check_takes_no_words
[ "$before" = "$(cat "$FAKE_HOME.log" && find "$tmp/home")" ]; want 0 t_witness_check_asks_nobody
"$aw" --help >"$tmp/out" 2>"$tmp/err"; want 0 t_witness_help_exits_zero
grep -q BatchMode=yes "$FAKE_HOME.log"; want 0 t_witness_asks_no_person

[ $fails -eq 0 ]
