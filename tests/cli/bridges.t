#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The examples for test frameworks: programs and runners of several kinds take turns, in processes that know nothing of each other.
# Two at once would be found out by the engine, a directory that only one can make (doc/examples/engine.h).
# shellcheck disable=SC2016,SC2086,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"
. "$top_builddir/tests/compile.sh"
examples=$top_srcdir/doc/examples
PATH=$(dirname "$FLOCKCTL"):$top_srcdir/tools:$PATH
mkdir "$T/work" "$T/bin" "$T/tests" && cd "$T/work" || exit

# takes_turns LABEL COMMAND...
takes_turns() {
    turns_label=$1
    shift
    hold engine engine
    background waiter "$@"
    wait_for '[ "$(tickets engine)" -gt 0 ]'
    let_go engine
    reap waiter
    is "$status" 0 "$turns_label: waits until it is its turn" || diag "$out$err"
    background turns "$@"
    run "$@"
    turns=$status
    reap turns
    is "$turns$status" 00 "$turns_label: two at once never meet"
    mkdir engine.in-use
    run "$@"
    not_ok "$turns_label: that would be found out" [ "$status" = 0 ]
    rmdir engine.in-use 2>/dev/null
    ok "$turns_label: nothing is held afterwards" "$FLOCKCTL" acquire -q -n engine ports -- true
}

# ---- test programs ----

ok "tap.c compiles" compile_c "$T/bin/tap" "$examples/tap.c" -Wall -Wextra
takes_turns "C with TAP" "$T/bin/tap"

if printf '#include <setjmp.h>\n#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <cmocka.h>\n' >"$T/cmocka.c" &&
    compile_c "$T/bin/cmocka" "$T/cmocka.c" -c >/dev/null 2>&1; then
    ok "cmocka.c compiles" compile_c "$T/bin/cmocka" "$examples/cmocka.c" -Wall -Wextra -lcmocka
    takes_turns cmocka "$T/bin/cmocka"
    run "$T/bin/cmocka"
    like "$err$out" "PASSED.* 2 test" "cmocka: both tests ran"
else
    lacks cmocka
fi

if have_cxx && pkg-config --exists gtest 2>/dev/null; then
    ok "gtest.cc compiles" compile_cxx "$T/bin/gtest" "$examples/gtest.cc" -std=c++14 -Wall -Wextra $(pkg-config --cflags --libs gtest)
    takes_turns GoogleTest "$T/bin/gtest"
    run "$T/bin/gtest"
    like "$out" "PASSED.* 4 tests" "GoogleTest: all tests ran"
else
    lacks "GoogleTest with a compiler of C++"
fi

if is_sanitized; then
    skip "Python can't load a library that is built with a sanitizer"
elif ! [ -e "$top_builddir/lib/.libs/libflockctl.so" ]; then
    skip "Python needs the shared library"
elif python3 -c 'import ctypes, unittest' 2>/dev/null; then
    PYTHONPATH=$top_srcdir/python:$examples FLOCKCTL_LIBRARY=$top_builddir/lib/.libs/libflockctl.so PYTHONDONTWRITEBYTECODE=1
    export PYTHONPATH FLOCKCTL_LIBRARY PYTHONDONTWRITEBYTECODE
    takes_turns unittest python3 -m unittest -q test_engine
    run python3 "$top_srcdir/tests/cli/bridges.py"
    is "$status" 0 "flockctl.py: $(echo "$err" | grep '^Ran') of its own" || diag "$err"
else
    lacks "Python with ctypes"
fi

# ---- runners: several tests at a time each, and several runners ----

for i in 1 2 3; do
    ln -s "$examples/engine.t" "$T/tests/$i.t"
done
if ! command -v flock >/dev/null; then
    skip "flock(1), which flockctl.sh needs, isn't installed"
elif command -v prove >/dev/null; then
    takes_turns prove prove -j 4 --exec '' "$T/tests/1.t" "$T/tests/2.t" "$T/tests/3.t" "$T/bin/tap"
else
    lacks prove
fi

if command -v ctest >/dev/null && command -v cmake >/dev/null; then
    # ctest writes into its build directory: one for each.
    for i in 1 2; do
        cmake -S "$examples" -B "$T/build$i" -DENGINE_DIR="$T/work" >"$T/cmake.out" 2>&1 || diag "$(cat "$T/cmake.out")"
    done
    cat >"$T/bin/ctest-once" <<'END'
#!/bin/sh
for i in 1 2; do
    if mkdir "$T/build$i/used" 2>/dev/null; then
        ctest --test-dir "$T/build$i" -j 4 --output-on-failure
        status=$?
        rmdir "$T/build$i/used"
        exit $status
    fi
done
exit 1
END
    chmod +x "$T/bin/ctest-once"
    takes_turns ctest "$T/bin/ctest-once"
    run "$T/bin/ctest-once"
    like "$out" "100% tests passed, 0 tests failed out of 4" "ctest: all tests ran"
else
    lacks "CMake with ctest"
fi

if ! command -v flock >/dev/null; then
    skip "flock(1), which flockctl.sh needs, isn't installed"
elif command -v bats >/dev/null && command -v parallel >/dev/null; then
    takes_turns bats bats --jobs 3 "$examples/engine.bats"
    run bats --jobs 3 --tap "$examples/engine.bats"
    is "$(echo "$out" | grep -c '^ok ')" 3 "bats: all tests ran"
else
    lacks "bats with GNU parallel"
fi

done_testing
