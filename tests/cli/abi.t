#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The interface of the library is the one that lib/libflockctl.abi has: nothing that programs rely on changes unnoticed.
# shellcheck disable=SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$top_builddir/tests/compile.sh"
library=$top_builddir/lib/.libs/libflockctl.so
[ -e "$library" ] || skip_all "there is no shared library"
command -v readelf >/dev/null || skip_all "readelf (binutils) isn't installed"

# abi MODE SRCDIR
abi() {
    sh "$top_srcdir/lib/abi.sh" "$1" "$2" "$library" "$build_cc"
}

abi print "$top_srcdir" >"$T/now" || bail_out "abi.sh has failed"
diff -u "$top_srcdir/lib/libflockctl.abi" "$T/now" | sed 1,2d >"$T/diff"
is "$(cat "$T/diff")" "" "the interface is that of lib/libflockctl.abi"
[ ! -s "$T/diff" ] || diag "If the change is meant: make abi, and commit lib/libflockctl.abi with it. (Once this version is released, what is new gets a
version of its own in lib/libflockctl.map and the library another -version-info; make abi insists on that.)"

sed -n 's/^symbol \(.*\)@@.*/\1/p' "$T/now" >"$T/symbols"
is "$(grep -v '^flk_' "$T/symbols")" "" "only flk_* is exported"
sed -n '/^\(struct [a-z_]*:\|enum \|define \)/d; s/^[^(]*[ *]\(flk_[a-z_]*\)(.*/\1/p' "$T/now" | sort >"$T/declared"
is "$(diff "$T/symbols" "$T/declared")" "" "what is declared is exported, and nothing else"
{
    awk -f "$top_srcdir/doc/links.awk" "$top_srcdir"/doc/*.3 | cut -d ' ' -f 2
    ls "$top_srcdir/doc" | sed -n 's/\.3$//p'
} >"$T/pages"
is "$(grep -vxF -f "$T/pages" "$T/symbols")" "" "each call has a page in man3"

# ---- what is seen, and what is not ----

mkdir -p "$T/other/lib"
cp "$top_srcdir/lib/local.mk" "$top_srcdir/lib/libflockctl.abi" "$T/other/lib"
# differs SED-SCRIPT: it does from what there is, with such a change of the header
differs() {
    sed "$1" "$top_srcdir/lib/flockctl.h" >"$T/other/lib/flockctl.h"
    ! cmp -s "$top_srcdir/lib/flockctl.h" "$T/other/lib/flockctl.h" || fail "the header has no such line: $1"
    abi print "$T/other" >"$T/other/now"
    ! cmp -s "$T/now" "$T/other/now"
}
ok "another type of a member is seen" differs 's/unsigned count; /uint64_t count; /'
ok "another parameter is seen" differs 's/^int flk_held(const char \*name)/int flk_held(const char *name, int x)/'
ok "another value is seen" differs 's/FLK_SHARED = 1 << 0/FLK_SHARED = 1 << 1/'
not_ok "another comment isn't" differs 's,^/\* One \|^/\* Releases and frees.*,/* Other words. */,'

differs 's/FLK_SHARED = 1 << 0/FLK_SHARED = 1 << 1/'
echo "flockctl 0.1.0 (not yet released)" >"$T/other/NEWS"
ok "before a release it may change" abi write "$T/other"
echo "flockctl 0.1.0" >"$T/other/NEWS"
ok "after it, it may stay as it is" abi write "$T/other"
differs 's/FLK_SHARED = 1 << 0/FLK_SHARED = 1 << 2/'
run abi write "$T/other"
like "$status$err" "^1abi.sh: this interface is released" "and doesn't change"
sed 's/-version-info [0-9:]*/-version-info 1:0:1/' "$top_srcdir/lib/local.mk" >"$T/other/lib/local.mk"
ok "but with another -version-info" abi write "$T/other"
done_testing
