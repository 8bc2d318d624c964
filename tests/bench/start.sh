#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What a script pays: `flockctl acquire x -- true` against `flock x true`, and `flockctl run -- true` against
# `timeout 60 true`, and `flockctl once` of what is there against `flockctl version`, 200 pairs in turn; memory; and the system calls of each, where there is strace. $FLOCKCTL is the tool, $BENCH_DIR where the locks are.
set -eu

spawn=${top_builddir:-.}/tests/bench/spawn
flockctl=${FLOCKCTL:-${top_builddir:-.}/tools/flockctl}
for needed in flock timeout "$flockctl" "$spawn"; do
    command -v "$needed" >/dev/null || { echo "start.sh: no $needed" >&2; exit 1; }
done

FLOCKCTL_DIR=$(mktemp -d "${BENCH_DIR:-/dev/shm}/flockctl-bench.XXXXXX")
trap 'rm -rf "$FLOCKCTL_DIR"' EXIT
trap 'exit 130' INT TERM
FLOCKCTL_CONFIG=/dev/null
export FLOCKCTL_DIR FLOCKCTL_CONFIG
peer=$FLOCKCTL_DIR/peer

"$spawn" 200 0.9 "$flockctl" acquire x -- true --- flock "$peer" true
"$spawn" 200 1.1 "$flockctl" run -- true --- timeout 60 true
"$spawn" 200 1.1 "$flockctl" run --timeout 60 -- true --- timeout 60 true
"$spawn" 200 1.1 "$flockctl" once -o "$FLOCKCTL_DIR/out" --key 1 -- sh -c 'echo >"$FLOCKCTL_OUT"' --- "$flockctl" version >/dev/null

count_calls() {
    strace -f -c -o "$FLOCKCTL_DIR/calls" "$@"
    echo "$1: $(awk '$NF == "total" { print $(NF == 6 ? 4 : 3) }' "$FLOCKCTL_DIR/calls") system calls, of the command's too"
}
if command -v strace >/dev/null; then
    count_calls "$flockctl" acquire x -- true
    count_calls flock "$peer" true
    count_calls "$flockctl" run -- true
    count_calls timeout 60 true
fi
