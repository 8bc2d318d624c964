#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The manual: pages without mistakes, and programs in them that work.
# shellcheck disable=SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$top_builddir/tests/compile.sh"
pages=$(ls "$top_srcdir"/doc/*.[137])

# ---- the pages ----

# The texts of two sections may have longer lines in their source; nobody reads that but us.
lint() {
    mandoc -T lint -W style "$1" | case $1 in
    *.3) cat ;;
    *) grep -v 'STYLE: input text line longer than 80 bytes' ;;
    esac
}

if command -v mandoc >/dev/null; then
    for page in $pages; do
        is "$(lint "$page")" "" "mandoc -T lint: ${page##*/}"
    done
else
    lacks mandoc
fi
# The page itself goes nowhere: warnings are on stderr.
man_db=false
if man --version 2>/dev/null | grep -q '^man 2' && command -v groff >/dev/null; then
    man_db=true
    for page in $pages; do
        is "$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)" "" "man -l: ${page##*/}"
    done
else
    lacks "man-db, or groff"
fi

# ---- who is found by man ----

awk -f "$top_srcdir/doc/links.awk" "$top_srcdir"/doc/*.3 >"$T/links"
is "$(cut -d ' ' -f 2 "$T/links" | sort | uniq -d)" "" "no call has two pages"
mkdir -p "$T/man/man3"
cp "$top_srcdir"/doc/*.3 "$T/man/man3"
while read -r page name; do
    echo ".so man3/$page" >"$T/man/man3/$name.3"
done <"$T/links"
if $man_db; then
    like "$(MANPATH=$T/man MANWIDTH=80 man flk_hold_release 2>&1)" 'FLK_HOLD' "man flk_hold_release finds flk_hold(3)"
else
    like "$(cat "$T/links")" '^flk_hold\.3 flk_hold_release$' "flk_hold(3) is also that of flk_hold_release()"
fi

# ---- the programs in them ----

# program PAGE NUMBER: a source, from what stands between .EX and .EE with a main() in the EXAMPLES section; nothing: no more
program() {
    awk -v number="$2" '
        /^\.SH/ { examples = $2 == "EXAMPLES" }
        /^\.EE/ { if (text ~ /int main\(/ && ++n == number) printf "%s", text; inside = 0 }
        inside { text = text $0 "\n" }
        /^\.EX/ { inside = examples; text = "" }' "$1" |
        sed 's/\\e/\\/g; s/\\-/-/g; s/\\&//g; s/\\(aq/'\''/g; s/\\(dq/"/g'
}

FLOCKCTL_TOOL=$FLOCKCTL
export FLOCKCTL_TOOL
cd "$T" || exit
for page in "$top_srcdir"/doc/*.3; do
    name=${page##*/}
    number=1
    while program "$page" $number >"$T/example.c" && [ -s "$T/example.c" ]; do
        rm -f "$T/example"
        ok "$name: program $number compiles" compile_c "$T/example" "$T/example.c" -std=gnu11 -Wall -Wextra -Werror
        FLOCKCTL_DIR=$T/$name.$number
        run timeout 60 "$T/example"
        is "$status|$err" "0|" "$name: and runs: $(echo "$out" | head -c 100)"
        number=$((number + 1))
    done
    ok "$name has a program" [ $number -gt 1 ]
done
done_testing
