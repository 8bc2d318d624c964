#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The headers: alone, as every C and C++ there is; and that flockctl.hpp does what it says.
# shellcheck disable=SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$top_builddir/tests/compile.sh"
strict='-Wall -Wextra -Wpedantic -Wshadow -Werror -fsyntax-only'

# alone COMPILER LANGUAGE HEADER STANDARD...: nothing else is included, and it may be included twice
alone() {
    alone_compiler=$1 alone_language=$2 alone_header=$3 alone_more=
    [ "$alone_language" = c ] || alone_more=-Wold-style-cast
    shift 3
    printf '#include <%s>\n#include <%s>\n' "$alone_header" "$alone_header" >"$T/alone"
    for alone_standard; do
        # shellcheck disable=SC2086
        ok "$alone_header alone: $alone_compiler -std=$alone_standard" \
            "$alone_compiler" $strict $alone_more "-std=$alone_standard" -I"$top_srcdir/lib" -x "$alone_language" "$T/alone"
    done
}

compilers=0
for compiler in gcc clang; do
    if command -v $compiler >/dev/null; then
        alone $compiler c flockctl.h c99 gnu99 c11 c17 c2x gnu2x
        compilers=$((compilers + 1))
    fi
done
[ $compilers -gt 0 ] || skip "neither gcc nor clang is installed"
compilers=0
for compiler in g++ clang++; do
    if command -v $compiler >/dev/null; then
        alone $compiler c++ flockctl.h c++11 c++2b
        alone $compiler c++ flockctl.hpp c++11 c++14 c++17 c++20 c++2b
        compilers=$((compilers + 1))
    fi
done
[ $compilers -gt 0 ] || skip "neither g++ nor clang++ is installed"

# The example at its head.
sed -n '/^ \* EXAMPLE/,/^ \*   }/s/^ \*   //p' "$top_srcdir/lib/flockctl.h" >"$T/example.c"
ok "the example in flockctl.h compiles" compile_c "$T/example" "$T/example.c"
run "$T/example"
is "$status|$out|$err" "0|I have it|" "and runs"

if have_cxx; then
    ok "header.cc compiles" compile_cxx "$T/hpp" "$top_srcdir/tests/cli/header.cc" -std=c++11 -Wall -Wextra -Wpedantic -Wshadow \
        -Wold-style-cast -Werror -pthread -I"$top_srcdir/tests/tap" "$top_builddir/tests/tap/libtap.la"
    run "$T/hpp"
    is "$status" 0 "flockctl.hpp: $(echo "$out" | tail -n 1) tests"
    [ "$status" = 0 ] || diag "$out$err"
else
    lacks "a compiler of C++"
fi
done_testing
