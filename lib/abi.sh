#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# abi.sh print|write SRCDIR LIBRARY CC: the interface of the shared library as text, a line for each thing that programs rely on:
# symbols with their versions, what flockctl.h declares, the sizes of structs where pointers and long have 64 bits. `make abi`
# writes it to lib/libflockctl.abi; tests/cli/abi.t compares.
set -eu
export LC_ALL=C
mode=$1 top=$2 library=$3 cc=$4
header=$top/lib/flockctl.h
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

symbols() {
    echo "version-info $(sed -n 's/.*-version-info \([0-9:]*\).*/\1/p' "$top/lib/local.mk")"
    readelf -dW "$library" | sed -n 's/.*Library soname: \[\(.*\)\]/soname \1/p'
    readelf --dyn-syms -W "$library" | awk '$7 != "UND" && $8 ~ /@@/ { print "symbol " $8 }' | sort
}

# Constants, then a line for each call, each member of a struct, each value of an enum; no comments, no attributes.
declarations() {
    awk '
        function trim(s) {
            gsub(/^[ }]+| +$/, "", s)
            gsub(/ +\)/, ")", s)
            gsub(/\( +/, "(", s)
            return s
        }
        function members(head, body,    n, i, part) {
            n = split(body, part, head ~ /^enum/ ? "," : ";")
            for (i = 1; i <= n; i++)
                if (trim(part[i]) != "")
                    print head ": " trim(part[i])
        }
        /^#define FLK_[A-Z_]+ / && !/__attribute__/ { sub(/ *\/\*.*/, ""); gsub(/ +/, " "); print substr($0, 2) }
        /^#/ || /^extern "C"/ { next }
        /^static inline/ { inside = 1 }
        inside { inside = !/^}/; next }
        { text = text " " $0 }
        END {
            gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, "", text)
            gsub(/FLK_MUST_CHECK|FLK_NONNULL\([^)]*\)|__attribute__\(\([^()]*(\([^()]*\))*\)\)/, "", text)
            gsub(/[ \t]+/, " ", text)
            while (match(text, /^[^;{]*[;{]/)) {
                head = trim(substr(text, 1, RLENGTH - 1))
                brace = substr(text, RLENGTH, 1) == "{"
                text = substr(text, RLENGTH + 1)
                if (brace) {
                    end = index(text, "}")
                    members(head, substr(text, 1, end - 1))
                    text = substr(text, end + 1)
                    sub(/^ *;/, "", text)
                } else if (head != "") {
                    print head
                }
            }
        }' "$header"
}

sizes() {
    {
        echo '#include <flockctl.h>'
        echo '#include <stdio.h>'
        echo 'int main(void) { if (sizeof(long) == 8 && sizeof(void *) == 8) {'
        sed -n 's/^struct \([a-z_]*\) {.*/printf("sizeof struct \1 %zu\\n", sizeof(struct \1));/p' "$header"
        echo '} }'
    } >"$work/sizes.c"
    $cc -I"$top/lib" -o "$work/sizes" "$work/sizes.c"
    "$work/sizes"
}

{
    symbols
    declarations
    sizes
} >"$work/abi"
if [ "$mode" = print ]; then
    cat "$work/abi"
    exit
fi
written=$top/lib/libflockctl.abi
if [ -e "$written" ] && ! cmp -s "$written" "$work/abi" && ! head -n 1 "$top/NEWS" | grep -q 'not yet released' &&
    [ "$(head -n 2 "$written")" = "$(head -n 2 "$work/abi")" ]; then
    echo "abi.sh: this interface is released; before it changes: another -version-info in lib/local.mk, and for what is new" \
        "a version of its own in lib/libflockctl.map" >&2
    exit 1
fi
cat "$work/abi" >"$written"
