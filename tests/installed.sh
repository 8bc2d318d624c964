#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# installed.sh BINDIR LIBDIR DATADIR MANDIR: what `make install` has put there works for a user. `make installcheck`, which
# distcheck runs.
. "$(dirname "$0")/tap/tap.sh"
. "$top_builddir/tests/compile.sh"
bindir=$1 libdir=$2 datadir=$3 mandir=$4
PATH=$bindir:$PATH
PKG_CONFIG_PATH=$libdir/pkgconfig
export PKG_CONFIG_PATH
unset FLOCKCTL

# A program of C and one of C++, as the manual says.
sed -n '/^ \* EXAMPLE/,/^ \*   }/s/^ \*   //p' "$top_srcdir/lib/flockctl.h" >"$T/example.c"
flags="$(pkg-config --cflags --libs flockctl) -Wl,-rpath,$libdir"
# shellcheck disable=SC2086
run $build_cc -o "$T/example" "$T/example.c" $flags
is "$status|$err" "0|" "pkg-config has what a C program needs"
run "$T/example"
is "$out" "I have it" "the program runs with the library"
echo '#include <flockctl.hpp>
int main() { flockctl::hold lock("cxx"); return flockctl::held("cxx") != 2; }' >"$T/example.cc"
if have_cxx; then
    # shellcheck disable=SC2086
    ok "flockctl.hpp is there" "$build_cxx" -std=c++11 -o "$T/cxx" "$T/example.cc" $flags
    ok "and works" "$T/cxx"
else
    lacks "a compiler of C++"
fi

is "$("$bindir/flockctl" acquire tool -- echo mine)" mine "the tool"
cat >"$T/script" <<'END'
. flockctl.sh
flockctl_lock sh && flockctl acquire sh -- echo mine && flockctl_unlock sh
END
if command -v flock >/dev/null; then
    is "$(sh "$T/script")" mine "flockctl.sh is found in the PATH"
else
    lacks "flock(1)"
fi
if python3 -c 'import ctypes' 2>/dev/null; then
    is "$(PYTHONPATH=$datadir/flockctl FLOCKCTL_LIBRARY=$libdir/libflockctl.so.0 PYTHONDONTWRITEBYTECODE=1 python3 -c '
import flockctl
with flockctl.acquire("python"):
    print(flockctl.held("python"))')" 2 "flockctl.py"
else
    lacks "Python with ctypes"
fi
for page in flk_acquire flk_hold_release flk_held flk_error_detail; do
    ok "man $page" [ -s "$mandir/man3/$page.3" ]
done
done_testing
