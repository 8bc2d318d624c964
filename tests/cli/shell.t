#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools/flockctl.sh, in every shell there is: the lock is the shell's, and it waited in line for it.
# shellcheck disable=SC2016,SC2154
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"
functions=$top_srcdir/tools/flockctl.sh
export functions
command -v flock >/dev/null || skip_all "flock(1) isn't installed"

# script NAME: the text of a script, which begins strictly and with the functions
script() {
    { echo 'set -eu; . "$functions"' && cat; } >"$T/$1"
}
free() {
    env -u FLOCKCTL_HELD "$FLOCKCTL" -q acquire -w 20 "$1" -- true
}
# lock JOB SCRIPT...: in the background, until it has it
lock() {
    rm -f "$T/$1.out"
    lock_job=$1
    shift
    background "$lock_job" $shell "$@"
    wait_for "grep -qs up '$T/$lock_job.out'"
}
# shell_queues JOB NAME SCRIPT...: in the background, until it is in line
shell_queues() {
    shell_job=$1 shell_name=$2 shell_number=$(last_number "$2")
    shift 2
    background "$shell_job" $shell "$@"
    wait_for "[ \$(last_number '$shell_name') -gt $shell_number ]"
    flock_latch "$shell_name"
}

# Nobody else is inside, which a directory shows that only one can make.
script inside <<'END'
for round in 1 2 3 4; do
    flockctl_lock -q "$1"
    mkdir "$T/nobody"
    rmdir "$T/nobody"
    flockctl_unlock "$1"
done
END
# Says that it has it, waits for a line, ends as $2 says.
script hold <<'END'
flockctl_lock -l 'a label' "$1"
echo up
read -r _ <"$T/go"
[ "$2" = leave ] || flockctl_unlock "$1"
END
script order <<'END'
flockctl_lock "$1"
echo shell >>"$T/log"
flockctl_unlock "$1"
END
script inner <<'END'
flockctl_lock -w 20 "$1"
flockctl_unlock "$1"
echo below
END
script all <<'END'
flockctl_lock "$1"
flockctl_has "$1" && echo has
"$FLOCKCTL" -q acquire -n "$1" -- echo nested
env -u FLOCKCTL_HELD "$FLOCKCTL" -q acquire -n "$1" -- echo no || echo $?
$2 "$T/inner" "$1"
echo $$ "$("$FLOCKCTL" holders "$1" | head -n 1)"
echo $(flockctl_lock "$1" 2>&1 || echo $?)
flockctl_lock -s shared
echo $FLOCKCTL_HELD | tr ',' '\n' | sed 's/@.*//'
flockctl_unlock "$1"
env -u FLOCKCTL_HELD "$FLOCKCTL" -q acquire -n "$1" -- echo free
env -u FLOCKCTL_HELD "$FLOCKCTL" -q acquire -n -s shared -- echo shared
flockctl_unlock shared
flockctl_has "$1" || echo "has it no more: ${FLOCKCTL_HELD-nothing}"
flockctl_unlock "$1" || echo $?
END
script full <<'END'
exec 5<&0 6<&0 7<&0 8<&0 9<&0
flockctl_lock "$1" || echo $?
exec 8<&-
flockctl_lock "$1" || echo $?
exec 9<&-
flockctl_lock "$1"
echo has
flockctl_unlock "$1"
END
script child.sh <<'END'
flockctl_lock "$1"
sh -c 'echo $$ >"$T/child"; exec 0<"$T/child.go"; read -r _' >/dev/null 2>&1 &
echo up
read -r _ <"$T/go"
[ "$2" = leave ] || flockctl_unlock "$1"
END
mkfifo "$T/go" "$T/child.go"

try_all() {
    run $shell "$T/all" "$name" "$shell"
    is "$status|$err" "0|flockctl.sh: this shell has no lock $name" "$label: a script with all of it"
    pid=$(echo "$out" | sed -n 's/^\([0-9]*\) \1$/\1/p')
    is "$(echo "$out" | grep -v '^[0-9]* [0-9]*$' | tr '\n' ' ')" \
        "has nested 75 below flockctl.sh: this shell has $name already 35 $name shared free shared has it no more: nothing 1 " \
        "$label: what it and others may do"
    ok "$label: the holder is the shell itself" [ -n "$pid" ]
}

try_exclusion() {
    for i in 1 2 3; do
        background "inside$i" $shell "$T/inside" "$name"
    done
    run $shell "$T/inside" "$name"
    results=$status$err
    for i in 1 2 3; do
        reap "inside$i"
        results=$results$status$err
    done
    is "$results" 0000 "$label: four at once, and never two inside"
}

try_order() {
    rm -f "$T/log"
    hold first "$name"
    shell_queues order "$name" "$T/order" "$name"
    queue last "$name"
    let_go first
    has_it last
    let_go last
    reap order
    log_is "first shell last" "$label: it stands in line"
    hold first "$name"
    run $shell -c '. "$functions"; flockctl_lock -n "$1"' sh "$name"
    is "$status" 75 "$label: -n: 75"
    like "$err" "^flockctl: $name is taken by pid $first_pid" "$label: and who has it"
    run $shell -c '. "$functions"; flockctl_lock -w 20ms "$1"' sh "$name"
    is "$status" 75 "$label: -w: 75"
    run $shell -c '. "$functions"; flockctl_lock -q -n -E 7 "$1"; echo $?; flockctl_lock -q -n -E 0 "$1"; echo $?' sh "$name"
    is "$out" "7
0" "$label: -E"
    let_go first
    run $shell -c '. "$functions"; flockctl_lock no/name; echo $?; flockctl_lock; echo $?'
    is "$out" "125
125" "$label: 125 for what can't be"
}

try_ends() {
    lock holder "$T/hold" "$name" unlock
    like "$(flockctl status "$name")" "$holder_pid .*a label|$holder_pid " "$label: status shows it"
    queue next "$name"
    echo >"$T/go"
    reap holder
    has_it next
    not_ok "$label: unlocked is not abandoned" grep -q ABANDONED "$T/next.env"
    let_go next

    for how in leave KILL; do
        lock holder "$T/hold" "$name" leave
        queue next "$name"
        if [ $how = leave ]; then echo >"$T/go"; else kill -KILL "$holder_pid"; fi
        reap holder
        has_it next
        ok "$label: $how: the next one has it, and is told" grep -q ABANDONED=1 "$T/next.env"
        let_go next
    done
}

# What it has started has the lock too, until it is unlocked.
try_children() {
    for how in unlock leave; do
        rm -f "$T/child"
        lock holder "$T/child.sh" "$name" $how
        wait_for '[ -s "$T/child" ]'
        queue next "$name"
        echo >"$T/go"
        reap holder
        if [ $how = leave ]; then
            run flockctl -q acquire -n "$name" -- true
            is "$status:$(tickets "$name")" 75:1 "$label: the lock lasts as long as what the script has started"
            echo >"$T/child.go"
            has_it next
        else
            has_it next
            pass "$label: unlocked for all that have it"
            echo >"$T/child.go"
        fi
        let_go next
    done
}

# Killed at any moment, on its way to the lock or in it.
try_kills() {
    for delay in 0 0.002 0.004 0.006 0.008 0.01 0.012 0.015 0.02; do
        background killed $shell "$T/inside.endless" "$name"
        sleep $delay
        kill -KILL "$killed_pid"
        reap killed
    done
    ok "$label: killed at any moment, it leaves no lock" free "$name"
    ok "$label: and nobody in line" wait_for '[ "$(tickets "$name")" = 0 ]'
}

sed 's/for round in 1 2 3 4/while :/' "$T/inside" | grep -v dir >"$T/inside.endless"
for shell in dash bash "busybox sh"; do
    label=${shell%% *} name=${shell%% *}
    if ! $shell -c : 2>/dev/null; then
        skip "$shell isn't installed"
        continue
    fi
    try_all
    try_exclusion
    try_order
    try_ends
    try_children
    try_kills
    run $shell "$T/full" "$name"
    is "$out|$status" "125
125
has|0" "$label: without a descriptor for it there is no lock"
    # A keeper's ticket may lie there still: the next holder finds it.
    ok "$label: the next one has it" free "$name"
    nothing_left "$name"
done
ok "no keeper is left" wait_for '! ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q "$FLOCKCTL_DIR/rows/.*/slots"'
done_testing
