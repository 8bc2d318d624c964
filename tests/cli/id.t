#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# flockctl id: names that are never given twice.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

run flockctl id
is "$status|$err" "0|" "an id"
like "$out" '^f[a-z0-9]{23}$' "has 24 characters: $out"
run flockctl id db
like "$out" '^db[a-z0-9]{22}$' "with a prefix: $out"
run flockctl id abc4567
like "$out" '^abc4567[a-z0-9]{17}$' "with the longest: $out"
ok "no lock directory is made for it" [ ! -e "$FLOCKCTL_DIR" ]

for i in 1 2 3 4; do
    for j in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do
        flockctl id test >>"$T/ids.$i"
    done &
    pids="${pids-} $!"
done
# shellcheck disable=SC2086
wait $pids
is "$(cat "$T"/ids.* | sort -u | wc -l)" 100 "four shells make 25 each at the same time: no two alike"

bad 125 'prefix is empty' id ""
bad 125 'prefix of 8 bytes is too long: at most 7' id abcdefgh
bad 125 'must begin with one of a-z' id 1db
bad 125 'must begin with one of a-z' id Db
bad 125 'must begin with one of a-z' id a-b
bad 125 'doesn.t take "b"' id a b
bad 125 'runs no command' id -- true

done_testing
