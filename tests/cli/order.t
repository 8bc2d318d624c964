#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# First come, first served, whatever each asks for. Each who gets the lock writes its name to one log.
. "$(dirname "$0")/../tap/tap.sh"
. "$(dirname "$0")/helpers.sh"

# let_all_go JOB...: one after the other, in this order
let_all_go() {
    for job in "$@"; do
        has_it "$job"
        let_go "$job"
    done
}

# ---- waiters of one kind ----

hold h x
for job in a b c d e; do queue $job x; done
is "$(tickets x)" 5 "five wait"
run flockctl -q acquire -n x -- true
is "$status" 75 "who won't queue is refused"
let_all_go h a b c d e
log_is "h a b c d e" "they are served in the order in which they came"
nothing_left x

# ---- who gives up leaves a gap that closes ----

: >"$T/log"
hold h x
queue a x
run flockctl -q acquire -w 20ms x -- true
is "$status" 75 "one whose time runs out"
queue b x
kill -TERM "$a_pid"
reap a
queue c x
let_all_go h b c
log_is "h b c" "who gave up is passed over, whether first or in the middle"

# ---- readers and a writer ----

: >"$T/log"
hold r1 -s x
queue writer x
queue r2 -s x
queue r3 -s x
run flockctl -q acquire -n -s x -- true
is "$status" 75 "a reader that won't queue doesn't get past a writer that waits"
let_go r1
has_it writer
log_is "r1 writer" "the writer is next, though the lock was free for readers all the time"
let_go writer
has_it r2
has_it r3
pass "then the readers, both at once"
let_all_go r2 r3

# A stream of readers that never leaves the lock free: each begins before the one before it ends.
: >"$T/log"
hold r0 -s x
queue writer x
for job in r1 r2 r3 r4 r5 r6; do
    queue $job -s x
done
let_go r0
has_it writer
log_is "r0 writer" "a stream of readers doesn't starve a writer"
let_go writer
let_all_go r1 r2 r3 r4 r5 r6

# ---- one slot, several, all ----

: >"$T/log"
ok "a row of two" flockctl define two --slots 2
hold s1 two
queue all two:all
run flockctl -q acquire -n two -- true
is "$status" 75 "a slot is free, but not for one that comes after the one that wants all"
queue s2 two
queue s3 two
let_go s1
has_it all
log_is "s1 all" "single requests don't starve one that wants all"
let_go all
has_it s2
has_it s3
pass "then those behind it, both at once"
let_all_go s2 s3

: >"$T/log"
ok "a row of three" flockctl define three --slots 3
hold s1 three
hold s2 three
hold s3 three
queue pair three:2
queue single three
let_go s2
run flockctl -q acquire -n three -- true
is "$status" 75 "one of three has come free: kept for the first in line, who wants two"
log_is "s1 s2 s3" "and the second in line doesn't get it either"
let_go s3
has_it pair
let_go s1
has_it single
log_is "s1 s2 s3 pair single" "both are served, in their order"
let_go pair
let_go single
nothing_left two three

# ---- stopped waiters ----

: >"$T/log"
hold h x
queue stopped x
stop_process "$stopped_pid"
queue second x
let_go h
has_it second
log_is "h second" "a stopped waiter is passed over"
queue third x
kill -CONT "$stopped_pid"
wait_for '[ "$(tickets x)" = 2 ]'
flock_latch x
let_go second
has_it third
log_is "h second third" "when it goes on it queues again, at the end"
let_go third
has_it stopped
let_go stopped
is "$status" 0 "and gets the lock in the end"
log_is "h second third stopped" "all were served"

: >"$T/log"
hold h x
queue stopped x
stop_process "$stopped_pid"
let_go h
run flockctl acquire -n x -- true
is "$status" 0 "trying once passes a stopped waiter, when nobody else queues"
kill -CONT "$stopped_pid"
has_it stopped
let_go stopped

# A stopped waiter between two others, and one that was killed while it was stopped.
: >"$T/log"
hold h x
queue stopped x
queue killed x
stop_process "$stopped_pid"
stop_process "$killed_pid"
queue last x
kill -KILL "$killed_pid"
reap killed
let_go h
has_it last
log_is "h last" "past one that is stopped and one that was killed"
let_go last
kill -CONT "$stopped_pid"
has_it stopped
let_go stopped
nothing_left x

# ---- in a resized and in a removed row ----

: >"$T/log"
hold h x
run flockctl -q remove -n x
is "$status" 75 "a name that is held isn't removed"
queue a x
background remove "$FLOCKCTL" remove x
wait_for '[ "$(tickets x)" = 2 ]'
flock_latch x
queue b x
let_go h
has_it a
let_go a
reap remove
is "$status|$err" "0|" "remove queues like everybody"
has_it b
log_is "h a b" "and those behind it go on with a new row"
let_go b
ok "define" flockctl define r --slots 1
hold h r
background resize "$FLOCKCTL" resize r 2
wait_for '[ "$(tickets r)" = 1 ]'
flock_latch r
queue c r
queue d r
let_go h
reap resize
is "$status|$err" "0|" "resize queues like everybody"
has_it c
has_it d
pass "both who waited behind it hold one of the two slots now"
let_all_go c d

# ---- one of several that have the slot lets go of it ----

mkfifo "$T/owner.go"
hold h heir
background owner "$FLOCKCTL" acquire heir -- sh -c '
    for fd in /proc/$$/fd/*; do
        case $(readlink "$fd") in */slots/0) flock -u "${fd##*/}" ;; esac
    done
    read -r line <"$T/owner.go"'
wait_for '[ "$(tickets heir)" = 1 ]'
flock_latch heir
queue third heir
let_go h
has_it third
pass "the next one has a slot that was unlocked, though it is open still"
timeout 10 sh -c 'echo >"$T/owner.go"'
reap owner
let_go third

nothing_left x r heir
done_testing
