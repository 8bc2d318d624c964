#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# kill -9 of flockctl, of its command and of those who wait: no lock is lost and none is had twice.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

command_of() {
    cat "$T/$1.command"
}

abandoned() {
    sed -n 's/^FLOCKCTL_ABANDONED=//p' "$T/$1.env"
}

# ---- flockctl is killed ----

hold h x
queue w x
kill -KILL "$h_pid"
reap h
is "$status" 137 "flockctl is killed"
has_it w
pass "the kernel has ended its command, and the first in line has the lock"
is "$(abandoned w)" 1 "FLOCKCTL_ABANDONED=1: flockctl died without releasing"
let_go w
like "$err" "^flockctl: .*pid $h_pid.* died" "the message names its pid"
hold w x
is "$(abandoned w)" "" "told once: the one after isn't"
let_go w

# The command ends with flockctl, what it has started does not.
rm -f "$T/h.held"
mkfifo "$T/below.go"
background h "$FLOCKCTL" acquire x -- sh -c 'sh -c "echo \$\$ >\"\$T/below\"; : >\"\$T/h.held\"; read -r line <\"\$T/below.go\"" & wait'
has_it h
queue w x
kill -KILL "$h_pid"
reap h
run flockctl -q acquire -n x -- true
is "$status" 75 "the lock stays taken while a process of the command's lives, which inherited it"
is "$(tickets x)" 1 "a waiter goes on waiting"
kill -KILL "$(cat "$T/below")"
has_it w
pass "and has the lock when that has ended"
let_go w

# With --detach the command isn't ended, and hasn't inherited the lock.
hold h --detach x
kill -KILL "$h_pid"
reap h
ok "--detach: the command goes on without flockctl" kill -0 "$(command_of h)"
run flockctl -q acquire -n x -- true
is "$status" 0 "and without the lock"
kill -KILL "$(command_of h)"

# ---- both are killed ----

hold h x
queue w x
kill -KILL "$h_pid" "$(command_of h)"
reap h
has_it w
is "$(abandoned w)" 1 "flockctl and its command killed: the next one has the lock, and is told"
let_go w

# ---- the command is killed ----

hold h x
queue w x
kill -KILL "$(command_of h)"
reap h
is "$status" 137 "the command is killed: 137"
has_it w
is "$(abandoned w)" "" "which isn't abandonment: flockctl released"
let_go w

# ---- told again when the one that was told never started ----

abandon() {
    hold h "${1:-x}"
    kill -KILL "$h_pid" "$(command_of h)"
    reap h
}
abandon
run flockctl acquire -w 20 x -- "$T/isn't there"
is "$status" 127 "the next holder's command doesn't start"
hold w x
is "$(abandoned w)" 1 "so the one after is told"
let_go w
hold w x
is "$(abandoned w)" "" "once"
let_go w

# With nobody reading, flockctl blocks on its message between acquiring and the command.
full_pipe full
for name in TERM KILL; do
    abandon
    background next sh -c 'exec "$FLOCKCTL" acquire x -- touch "$T/started" 2>"$T/full"'
    wait_for 'head -c 2000 "$FLOCKCTL_DIR/rows/x/latch" | grep -aq "^pid=$next_pid\$"'
    kill -$name "$next_pid"
    if [ $name = TERM ]; then
        cat <&7 >/dev/null &
        reader=$!
        reap next
        kill "$reader"
        wait "$reader" 2>/dev/null
    else
        reap next
    fi
    ok "the next holder died of $name before its command" [ ! -e "$T/started" ]
    hold w x
    is "$(abandoned w)" 1 "the one after is told"
    let_go w
    hold w x
    is "$(abandoned w)" "" "once"
    let_go w
    while dd if=/dev/zero of="$T/full" bs=4096 count=64 oflag=nonblock conv=notrunc 2>/dev/null; do :; done
done
exec 7>&-

# ---- rows of several, several names ----

ok "a row of three" flockctl define three --slots 3
hold a three
hold b three:2
kill -KILL "$b_pid" "$(command_of b)"
reap b
let_go a
hold w three
is "$(abandoned w)" "" "slots 1 and 2 were abandoned: who gets slot 0 isn't told"
hold v three
is "$(abandoned v)" 1 "who gets slot 1 is"
let_go v
let_go w
hold w three:all
is "$(abandoned w)" 1 "who gets all is told of slot 2"
let_go w
hold w three:all
is "$(abandoned w)" "" "once"
let_go w
abandon y
hold w x y
is "$(abandoned w)" 1 "of two names one was abandoned: told"
let_go w

# ---- shared holders ----

hold r1 -s x
hold r2 -s x
kill -KILL "$r1_pid" "$(command_of r1)"
reap r1
run flockctl -q acquire -n x -- true
is "$status" 75 "one of two shared holders is killed: the other one still has the lock"
let_go r2
hold w x
is "$(abandoned w)" "" "a shared holder has changed nothing, so it has abandoned nothing"
let_go w
is "$(shared_records x)" 0 "and its record is gone"

# ---- waiters are killed ----

: >"$T/log"
hold h x
for job in a b c d e; do queue $job x; done
kill -KILL "$a_pid" "$c_pid" "$e_pid"
for job in a c e; do reap $job; done
queue f x
let_go h
for job in b d f; do
    has_it $job
    is "$(abandoned $job)" "" "a waiter that was killed has abandoned nothing"
    let_go $job
done
log_is "h b d f" "first, middle and last of those who wait are killed: the rest is served, in its order"
nothing_left x y three

# The holder and the first in line at once.
: >"$T/log"
hold h x
queue a x
queue b x
kill -KILL "$a_pid" "$h_pid" "$(command_of h)" # in this order: it must not have it for a moment
has_it b
reap h
reap a
log_is "h b" "holder and first in line killed together: the second has the lock"
let_go b

# ---- at any moment ----

# Two want the lock; one of the two is killed somewhere on its way.
failed=0
for i in $(seq 60); do
    "$FLOCKCTL" acquire x -- true 2>/dev/null &
    victim=$!
    "$FLOCKCTL" acquire -w 20 x -- true 2>/dev/null &
    other=$!
    spin=$((i * 40))
    while [ $spin -gt 0 ]; do spin=$((spin - 1)); done
    kill -KILL $victim 2>/dev/null
    wait $victim 2>/dev/null
    wait $other || failed=$((failed + 1))
done
is "$failed" 0 "killed at 60 moments: the other one got the lock each time"
run flockctl -q acquire -w 20 x -- true
is "$status" 0 "and it is free afterwards"
nothing_left x

done_testing
