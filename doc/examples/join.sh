#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# join.sh NAME COMMAND [ARG]...: runs COMMAND with a slot of NAME, taken by hand: no process of flockctl stays around. Exits
# with 75 when none is free. It doesn't queue; who wants to: flockctl acquire --while $$ NAME
set -eu
if [ $# -lt 2 ]; then
    echo "usage: join.sh NAME COMMAND [ARG]..." >&2
    exit 125
fi
name=$1
shift
: "${FLOCKCTL:=flockctl}"

# 8 is the latch. The row may be replaced (flockctl resize, remove) until we have it: then once more.
while :; do
    latch=$("$FLOCKCTL" path --latch "$name")
    exec 8<"$latch"
    flock 8
    # shellcheck disable=SC3013 # POSIX has no -ef, but dash, bash, ksh and busybox do
    [ "$latch" -ef /dev/fd/8 ] && break
done

# 9 is the slot: opened only now, and never blocked for. Children inherit it, so it stays taken while any of them lives.
taken=no
for slot in "${latch%latch}"slots/*; do
    exec 9<>"$slot"
    if flock --nonblock --conflict-exit-code 75 9; then
        taken=yes
        break
    else
        status=$?
    fi
    exec 9>&-
    [ "$status" = 75 ] || exit "$status" # anything else isn't "busy" but an error
done
exec 8<&-
if [ "$taken" = no ]; then
    echo "join.sh: $name is taken" >&2
    exit 75
fi

status=0
"$@" || status=$?
exit "$status"
