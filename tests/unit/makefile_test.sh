#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-only
# make install and uninstall: prefix and DESTDIR as they are given, with a meson and a ninja that only write down what they are told.
set -u
src=${XENTWIN_SRCDIR:-$(cd "$(dirname "$0")/../.." && pwd)}
real=${XENTWIN_BUILDDIR:-$src/build}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
failed=0

mkdir "$dir/bin"
cat >"$dir/bin/meson" <<'STUB'
#!/bin/sh
printf 'meson' >>"$T/log"
printf ' [%s]' "$@" "DESTDIR=${DESTDIR-}" >>"$T/log"
echo >>"$T/log"
for word; do
    case $word in
    --prefix=* | -Dprefix=*)
        mkdir -p "$T/b/meson-info" "$T/b/meson-logs"
        : >>"$T/b/build.ninja"
        sed "s|\(\"name\": \"prefix\", \"value\": \"\)[^\"]*|\1${word#*=}|" "$REAL/meson-info/intro-buildoptions.json" \
            >"$T/b/meson-info/intro-buildoptions.json"
        ;;
    install) printf '# a list\n# of files\n%s/usr/local/sbin/xl\n' "${DESTDIR-}" >"$T/b/meson-logs/install-log.txt" ;;
    esac
done
STUB
printf '#!/bin/sh\necho "ninja $*" >>"$T/log"\n' >"$dir/bin/ninja"
chmod +x "$dir/bin/meson" "$dir/bin/ninja"
export T=$dir REAL=$real PATH="$dir/bin:$PATH"
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES prefix DESTDIR BUILD

# run 'what meson and ninja are told, a line each' WORDS...: make WORDS
run() {
    local want=$1 got
    shift
    : >"$dir/log"
    make -s -C "$src" BUILD="$dir/b" "$@" >"$dir/out" 2>&1 || { echo "make $*: $(cat "$dir/out")" >&2; failed=1; }
    got=$(cat "$dir/log")
    [ "$got" = "$want" ] || { printf 'make %s:\n%s\n  instead of\n%s\n' "$*" "$got" "$want" >&2; failed=1; }
}
refused() { # TEXT WORDS...
    local text=$1
    shift
    : >"$dir/log"
    make -s -C "$src" BUILD="$dir/b" "$@" >"$dir/out" 2>&1 && { echo "make $* is not refused" >&2; failed=1; }
    grep -qF -- "$text" "$dir/out" || { echo "make $*: $(cat "$dir/out")" >&2; failed=1; }
    [ ! -s "$dir/log" ] || { echo "make $* runs: $(cat "$dir/log")" >&2; failed=1; }
}
build="ninja -C $dir/b"
installs() { # DESTDIR
    echo "meson [install] [-C] [$dir/b] [--no-rebuild] [--quiet] [DESTDIR=$1]"
}

refused 'nothing was installed' uninstall
run "meson [setup] [$dir/b] [--prefix=/usr/local] [DESTDIR=]
$build"
run "$build
$(installs '')" install
run "$build
$(installs /tmp/s)" install prefix=/usr/local/ DESTDIR=/tmp/s
run "meson [configure] [$dir/b] [-Dprefix=/opt/x t] [DESTDIR=/tmp/a b]
$build
$(installs '/tmp/a b')" install 'prefix=/opt/x t' 'DESTDIR=/tmp/a b'
run "$build
$(installs "$src/a  b")" install 'DESTDIR=a  b'
run "$build" 'prefix=/opt/x t'
run "$build uninstall" uninstall
run "$build uninstall" uninstall 'DESTDIR=a  b'
refused "not below /tmp/a b" uninstall 'DESTDIR=/tmp/a b'
prefix=/opt/y run "meson [configure] [$dir/b] [-Dprefix=/opt/y] [DESTDIR=]
$build"
exit $failed
