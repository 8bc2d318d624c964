#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Copying output: `flockctl run --output FILE -- COMMAND` against `COMMAND | tee FILE`, 1 GB a round, turn by turn; the median
# of the rounds' ratios. BENCH_ROUNDS and BENCH_DIR (default /dev/shm) are for the user to set.
FLOCKCTL=${FLOCKCTL:-tools/flockctl}
directory=$(mktemp -d "${BENCH_DIR:-/dev/shm}/flockctl-bench.XXXXXX") || exit 1
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM
FLOCKCTL_DIR=$directory/root FLOCKCTL_CONFIG=/dev/null
export FLOCKCTL_DIR FLOCKCTL_CONFIG
size=$((1 << 30))

print() {
    head -c "$size" /dev/zero
}

now() {
    date +%s%N
}

# rate COMMAND...: MB/s of a command that makes $directory/copy
rate() {
    rm -f "$directory/copy"
    rate_start=$(now)
    "$@"
    rate_end=$(now)
    [ "$(stat -c %s "$directory/copy")" = "$size" ] || { echo "$*: the copy isn't whole" >&2 && exit 1; }
    echo $((size * 1000 / (rate_end - rate_start)))
}

ours_to_null() {
    "$FLOCKCTL" run --output "$directory/copy" -- head -c "$size" /dev/zero >/dev/null
}
tee_to_null() {
    print | tee "$directory/copy" >/dev/null
}
ours_to_pipe() {
    "$FLOCKCTL" run --output "$directory/copy" -- head -c "$size" /dev/zero | cat >/dev/null
}
tee_to_pipe() {
    print | tee "$directory/copy" | cat >/dev/null
}
# Shown in a file, which is emptied each round.
ours_to_file() {
    "$FLOCKCTL" run --output "$directory/copy" -- head -c "$size" /dev/zero >"$directory/shown"
}
tee_to_file() {
    print | tee "$directory/copy" >"$directory/shown"
}

# compare CASE NAME
compare() {
    for _ in $(seq "${BENCH_ROUNDS:-5}"); do
        ours=$(rate "ours_to_$1") && peer=$(rate "tee_to_$1") || exit 1
        echo "$ours $peer"
    done | awk -v where="$2" '
        { ours[NR] = $1; peer[NR] = $2; ratio[NR] = $1 / $2 }
        function median(list, n, i, j, t) {
            for (i = 2; i <= n; i++)
                for (j = i; j > 1 && list[j] < list[j - 1]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
            return list[int((n + 1) / 2)]
        }
        END {
            if (NR == 0) exit 1
            r = median(ratio, NR)
            printf "copy of 1 GB, shown in %s: %d MB/s, tee %d: %.2fx (goal >= 0.80x: %s)\n", where, median(ours, NR),
                median(peer, NR), r, (r >= 0.8 ? "met" : "MISSED")
        }'
}

compare null /dev/null
compare pipe "a pipe"
compare file "a file"
